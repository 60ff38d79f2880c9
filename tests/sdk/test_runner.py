"""`Runner.submit` against a world that answers as it is told to, and one that does not answer."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import qmtl
from qmtl.adapters.client import ApiError, Client
from qmtl.core.decision import DECISION_TTL, DecisionEnvelope
from qmtl.core.metrics import UNITS
from qmtl.core.names import Mode, Phase, Reason, StrategyId, Verdict, WorldId
from qmtl.sdk import decisions as decisions_module
from qmtl.sdk import runner as runner_module
from qmtl.sdk.decisions import BadDecision, Decisions, Held, envelope_of
from qmtl.sdk.engine import Engine
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.result import SubmitResult
from qmtl.sdk.returns import ReturnsError
from qmtl.sdk.runner import Runner, StrategyRejected
from qmtl.sdk.strategy import StrategyError, fingerprint

WORLD = "us-equity"
URL = "http://world.test"
NOW = datetime(2024, 1, 31, 21, tzinfo=UTC)


def walk(bars: int = 600, seed: int = 7) -> Prices:
    """A random walk of two assets, a bar a day."""
    steps = np.random.default_rng(seed).normal(0.0005, 0.01, (bars, 2))
    start = np.datetime64("2020-01-01T21:00", "us")
    times = start + np.arange(bars) * np.timedelta64(1, "D")
    return Prices(times, ("A", "B"), 100 * np.exp(steps.cumsum(axis=0)))


@dataclass(frozen=True, slots=True)
class Trend:
    """Holds what rose over the last bars."""

    lookback: int = 5

    def weights(self, prices: FloatArray) -> FloatArray:
        held = np.zeros_like(prices)
        held[self.lookback :] = prices[self.lookback :] > prices[: -self.lookback]
        return held / 2


@dataclass(frozen=True, slots=True)
class Oracle:
    """Holds what will rise."""

    def weights(self, prices: FloatArray) -> FloatArray:
        held = np.zeros_like(prices)
        held[:-1] = prices[1:] > prices[:-1]
        return held / 2


def told(**changes: Any) -> dict[str, Any]:
    """A decision as the wire has it."""
    return {
        "world_id": WORLD,
        "strategy_id": "Trend",
        "policy_version": 1,
        "effective_mode": "paper",
        "execution_domain": "dryrun",
        "weight": 0.0,
        "ramp_fraction": 0.0,
        "reason": "paper_campaign",
        "reasons": ["paper_campaign"],
        "generation": 5,
        "as_of": "2024-01-31T21:00:00Z",
        "issued_at": "2024-01-31T21:00:00Z",
        "expires_at": "2024-01-31T21:05:00Z",
        "ttl": 300.0,
        "etag": "e",
        "downgraded": False,
        "safe_mode": False,
        **changes,
    }


def submitted(**changes: Any) -> dict[str, Any]:
    return {
        "world_id": WORLD,
        "strategy_id": "Trend",
        "run_id": "backtest-1",
        "verdict": "pass",
        "reasons": [],
        "details": [],
        "phase": "paper_campaign",
        "decision": told(),
        "evaluation_run_url": "/worlds/us-equity/strategies/Trend/runs/backtest-1",
        "warnings": ["stats were not told"],
        **changes,
    }


POLICY: dict[str, Any] = {
    "data": {"periods_per_year": 365.25, "max_lag": "5d"},
    "campaign": {"backtest": {"window": "365d", "min_observations": 252}},
    "gates": {"backtest": {"trades_total": {"min": 30.0}, "max_drawdown": {"max": 0.9}}},
    "evidence": {"trials_default": 10},
}


@dataclass
class World:
    """A server with one policy, and one answer to submissions; `seen` are those."""

    answer: httpx.Response | httpx.TransportError
    seen: list[dict[str, Any]]
    policy: dict[str, Any] | None = field(default_factory=lambda: POLICY)

    def client(self, url: str = URL, token: str = "t") -> Client:
        def handle(request: httpx.Request) -> httpx.Response:
            away = isinstance(self.answer, httpx.TransportError)
            if request.method == "GET" and not away:
                return self.told(request.url.path)
            if request.method == "POST":
                self.seen.append(json.loads(request.content))
            if isinstance(self.answer, httpx.TransportError):
                raise self.answer
            return self.answer

        transport = httpx.MockTransport(handle)
        return Client(url, token, transport=transport, sleep=lambda sec: None)

    def told(self, path: str) -> httpx.Response:
        if path == f"/worlds/{WORLD}":
            version = None if self.policy is None else 3
            return httpx.Response(200, json={"id": WORLD, "default_policy_version": version})
        assert path == f"/worlds/{WORLD}/policies/3"
        return httpx.Response(200, json={"version": 3, "policy": self.policy})


def answering(answer: dict[str, Any] | None = None, status: int = 200) -> World:
    return World(httpx.Response(status, json=submitted() if answer is None else answer), [])


def away() -> World:
    return World(httpx.ConnectError("connection refused"), [])


@pytest.fixture(autouse=True)
def spooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The client's own clock, standing until it is moved."""
    standing = Clock()
    for module in ("decisions", "runner", "result"):
        monkeypatch.setattr(f"qmtl.sdk.{module}.monotonic", standing)
    return standing


def submit(world: World, **options: Any) -> SubmitResult:
    strategy = options.pop("strategy", Trend())
    prices = options.pop("prices", walk())
    return Runner.submit(strategy, world=WORLD, prices=prices, client=world.client(), **options)


# ---- What is sent ----------------------------------------------------------------------------


def test_there_is_no_mode_argument() -> None:
    assert "mode" not in inspect.signature(Runner.submit).parameters


def test_a_submission_is_what_the_wire_asks_for() -> None:
    world, prices = answering(), walk()
    result = submit(world, prices=prices, variants_tried=3)
    (sent,) = world.seen
    assert {k: v for k, v in sent.items() if k not in ("returns", "stats", "engine")} == {
        "strategy_id": "Trend",
        "world": WORLD,
        "name": "Trend",
        "fingerprint": result.fingerprint,
        "parts": fingerprint(Trend(), prices.digest(), Engine()).parts,
        "variants_tried": 3,
    }
    assert sent["engine"] == {"name": "Engine", "cost_bps": 5.0, "prices": prices.digest()}
    assert sent["stats"]["trades_total"] == result.precheck.trades_total
    assert len(sent["returns"]["t"]) == len(sent["returns"]["r"]) == prices.bars - 1
    assert sent["returns"]["t"][0] == "2020-01-02T21:00:00.000000Z"


def test_a_submission_says_nothing_of_a_stage_or_a_mode() -> None:
    world = answering()
    submit(world)
    assert not {"mode", "stage", "effective_mode", "policy"} & set(world.seen[0])


def test_the_same_submission_is_the_same_bytes_and_the_engine_counts() -> None:
    world = answering()
    submit(world)
    submit(world)
    submit(world, engine=Engine(cost_bps=10.0))
    assert world.seen[0] == world.seen[1]
    assert world.seen[0]["fingerprint"] != world.seen[2]["fingerprint"]


class Remembering:
    """Keeps what it computed: an attribute that must not count as a parameter next time."""

    def weights(self, prices: FloatArray) -> FloatArray:
        self.kept = prices.sum()
        return np.zeros_like(prices)


def test_submitting_leaves_the_strategy_as_it_was() -> None:
    strategy, world = Remembering(), answering(submitted(strategy_id="Remembering"))
    submit(world, strategy=strategy)
    submit(world, strategy=strategy)
    assert world.seen[0]["fingerprint"] == world.seen[1]["fingerprint"]
    assert not vars(strategy)


def test_a_leak_stops_the_submission_and_names_its_date() -> None:
    world = answering()
    with pytest.raises(StrategyRejected, match=r"Oracle looks ahead: .*2020-\d\d-\d\d") as caught:
        submit(world, strategy=Oracle())
    assert caught.value.leak is not None
    assert caught.value.leak.kind == "look_ahead"
    assert [(each.name, each.severity) for each in caught.value.findings] == [
        ("look_ahead", "stop")
    ]
    assert "prices[: i + 1]" in str(caught.value), "the way out"
    assert not world.seen


def test_a_strategy_that_cannot_be_backtested_is_not_sent() -> None:
    world = answering()
    with pytest.raises(StrategyError):
        submit(world, strategy=lambda prices: prices)
    assert not world.seen


def test_a_lambda_that_is_given_an_id_has_a_name() -> None:
    world = answering(submitted(strategy_id="mine"))
    assert submit(world, strategy=lambda p: np.full_like(p, 0.1), strategy_id="mine").world
    assert [(sent["strategy_id"], sent["name"]) for sent in world.seen] == [("mine", "mine")]
    with pytest.raises(StrategyError, match="give strategy_id"):
        submit(world, strategy=lambda p: np.full_like(p, 0.1))
    with pytest.raises(StrategyRejected, match="the lambda looks ahead"):
        submit(world, strategy=lambda p: (p > p.mean(axis=0)) / 9, strategy_id="mine")


# ---- What comes back -------------------------------------------------------------------------


def test_advice_and_authority_are_kept_apart(clock: Clock) -> None:
    result = submit(answering(submitted(verdict="fail", reasons=["validation_failed"])))
    assert set(result.precheck.metrics) == set(UNITS)
    assert result.world is not None
    assert result.world.verdict is Verdict.FAIL
    assert result.world.reasons == ("validation_failed",)
    assert result.world.phase is Phase.PAPER
    assert result.world.warnings == ("stats were not told",)
    assert result.effective_mode is Mode.PAPER
    assert (result.downgraded, result.safe_mode) == (False, False)


def test_a_decision_ages_on_the_clients_own_clock(clock: Clock) -> None:
    result = submit(answering())
    clock.now += DECISION_TTL.total_seconds() - 0.001
    assert (result.effective_mode, result.downgrade_reason) == (Mode.PAPER, None)
    clock.now += 0.001
    assert (result.effective_mode, result.downgrade_reason) == (
        Mode.COMPUTE_ONLY,
        Reason.DECISION_EXPIRED,
    )


def test_a_result_is_printed_as_of_one_instant(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = submit(answering())
    term = DECISION_TTL.total_seconds()
    instants = iter([clock.now + term - 0.001, *[clock.now + term] * 9])
    monkeypatch.setattr("qmtl.sdk.result.monotonic", lambda: next(instants))
    assert str(result).splitlines()[0] == f"Trend in world {WORLD}: paper"


def test_a_decision_ages_from_the_moment_of_asking(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = answering()
    send = Client.submit

    def slow(client: Client, submission: Any) -> Any:
        clock.now += 200
        return send(client, submission)

    monkeypatch.setattr(Client, "submit", slow)
    result = submit(world)
    clock.now += 100
    assert result.effective_mode is Mode.COMPUTE_ONLY


MALFORMED: list[Any] = [
    None,
    [],
    "paper",
    {},
    told(world_id="other"),
    told(strategy_id="other"),
    told(effective_mode="LIVE"),
    told(effective_mode=None),
    told(weight=float("inf")),
    told(weight="0.5"),
    told(weight=True),
    told(ramp_fraction=2.0),
    told(generation=True),
    told(generation=-1),
    told(generation=1.0),
    told(policy_version="1"),
    told(reasons="paper_campaign"),
    told(issued_at="yesterday"),
    told(issued_at=None),
    told(expires_at="2024-01-31T21:05:00"),
    told(downgraded="no"),
    told(safe_mode=None),
]


@pytest.mark.parametrize("decision", MALFORMED)
def test_a_malformed_decision_is_compute_only(decision: Any) -> None:
    with pytest.raises(BadDecision):
        envelope_of(decision, WORLD, "Trend")
    if decision != told(weight=float("inf")):  # Which no JSON can hold.
        result = submit(answering(submitted(decision=decision)))
        assert result.effective_mode is Mode.COMPUTE_ONLY
        assert result.downgraded
        assert str(result.downgrade_reason).startswith(Reason.DECISION_MISSING)


@pytest.mark.parametrize(
    "times",
    [
        {"expires_at": "2024-01-31T21:00:00Z"},
        {"expires_at": "2024-01-31T20:00:00Z"},
        {"expires_at": "2024-02-29T21:00:00Z"},
    ],
)
def test_a_decision_of_no_or_of_too_long_a_term_is_compute_only(times: dict[str, str]) -> None:
    result = submit(answering(submitted(decision=told(**times))))
    assert result.effective_mode is Mode.COMPUTE_ONLY
    assert result.downgraded


def test_a_lowered_decision_says_why() -> None:
    floor = told(
        effective_mode="compute-only",
        reasons=["worldservice_away"],
        downgraded=True,
        safe_mode=True,
        generation=0,
    )
    kept = submitted(verdict=None, run_id=None, phase=None, decision=floor)
    result = submit(answering(kept, status=202))
    assert (result.effective_mode, result.downgraded) == (Mode.COMPUTE_ONLY, True)
    assert (result.downgrade_reason, result.safe_mode) == ("worldservice_away", True)
    assert result.spooled is None, "the gateway keeps it"
    assert "the gateway keeps the submission" in str(result)


@pytest.mark.parametrize("changes", [{"verdict": "maybe"}, {"phase": "moon"}])
def test_words_that_no_world_says_are_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        submit(answering(submitted(**changes)))


def test_a_refusal_is_raised_and_nothing_is_kept(spooled: Path) -> None:
    problem = {"title": "The request contradicts what is recorded.", "detail": "another author's"}
    with pytest.raises(ApiError) as caught:
        submit(answering(problem, status=409))
    assert not getattr(caught.value, "__notes__", ())
    assert not spooled.exists()


CHANGED = {"title": "The request contradicts what is recorded.", "reasons": ["evidence_changed"]}


def test_other_returns_of_the_same_code_are_no_new_version() -> None:
    with pytest.raises(ApiError) as caught:
        submit(answering(CHANGED, status=409))
    assert "versions of their libraries" in caught.value.__notes__[0]


def test_an_unknown_world_is_refused_before_anything_is_computed() -> None:
    problem = {"type": "urn:qmtl:problem:unknown-world", "title": "No such world."}
    transport = httpx.MockTransport(lambda request: httpx.Response(404, json=problem))
    told: list[str] = []
    with pytest.raises(ApiError, match="No such world"):
        Runner.submit(
            Trend(),
            world=WORLD,
            prices=walk(),
            client=Client(URL, "t", transport=transport),
            progress=lambda what, done, total: told.append(what),
        )
    assert told == []


# ---- Versions --------------------------------------------------------------------------------


def version(number: int, previous: str | None, *changed: str) -> dict[str, Any]:
    sid = "Trend" if number == 1 else f"Trend.{number}"
    names = {"version": number, "previous": previous, "changed": list(changed)}
    return submitted(strategy_id=sid, decision=told(strategy_id=sid), **names)


def test_the_worlds_name_for_it_counts(clock: Clock) -> None:
    result = submit(answering(version(2, "Trend", "parameters")))
    assert (result.strategy_id, result.version, result.previous, result.changed) == (
        "Trend.2",
        2,
        "Trend",
        ("parameters",),
    )
    assert result.effective_mode is Mode.PAPER, "the decision is that of Trend.2"
    assert "version    2, after Trend; changed: parameters" in str(result)
    plain = json.loads(result.to_json())
    assert (plain["version"], plain["previous"], plain["changed"]) == (2, "Trend", ["parameters"])
    assert "only_data_changed" not in names_of(result)


def test_the_decision_of_another_version_permits_nothing() -> None:
    answer = version(2, "Trend", "code") | {"decision": told(strategy_id="Trend")}
    result = submit(answering(answer))
    assert result.effective_mode is Mode.COMPUTE_ONLY


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy_id": 2},
        {"strategy_id": None},
        {"run_id": 7},
        {"reasons": "validation_failed"},
        {"details": 5},
        {"warnings": {"a": 1}},
        {"version": "2"},
        {"version": True},
        {"previous": 1},
        {"changed": "code"},
        {"explanation": "it waits"},
    ],
)
def test_what_is_no_version_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="Not an answer of qmtl"):
        submit(answering(version(2, "Trend", "code") | changes))


def test_other_prices_alone_are_followed_and_not_submitted() -> None:
    result = submit(answering(version(2, "Trend", "data")))
    assert names_of(result)[0] == "only_data_changed"
    assert "the code is the same as version 1" in str(result)
    assert "qmtl follow" in str(result)
    assert "only_data_changed" not in names_of(
        submit(answering(version(2, "Trend", "data", "code")))
    )


# ---- Returns made elsewhere ------------------------------------------------------------------


def series(bars: int = 600, seed: int = 3) -> dict[str, Any]:
    """Returns of a bar a day, as `as_returns` takes them."""
    values = np.random.default_rng(seed).normal(0.0008, 0.01, bars)
    times = np.datetime64("2020-01-01T21:00", "us") + np.arange(bars) * np.timedelta64(1, "D")
    return {"t": times, "r": values}


def send(world: World, returns: Any, **options: Any) -> SubmitResult:
    given = {"strategy_id": "Trend", "variants_tried": 1, **options}
    return Runner.submit(returns, world=WORLD, client=world.client(), **given)


def test_returns_go_as_they_are_and_say_whose_they_are() -> None:
    world = answering()
    result = send(world, series(), stats={"trades_total": 41, "turnover_annual": 3.5})
    (sent,) = world.seen
    assert sent["returns"]["r"] == series()["r"].tolist()
    assert sent["returns"]["t"][0] == "2020-01-01T21:00:00.000000Z"
    assert sent["stats"] == {"trades_total": 41.0, "turnover_annual": 3.5}
    assert sent["engine"] == {"name": "elsewhere", "version": ""}
    assert sent["fingerprint"] == result.fingerprint
    assert set(sent["parts"]) == {"code", "parameters", "data", "engine"}
    assert result.precheck.trades_total == 41
    assert result.precheck.costs_total is None
    assert result.precheck.bars == 600
    assert names_of(result) == ["not_checked"]


def test_more_bars_are_the_same_strategy_and_another_version_is_another() -> None:
    world = answering()
    prints = [
        send(world, series(600)).fingerprint,
        send(world, series(700)).fingerprint,
        send(world, series(600), version="2").fingerprint,
        send(world, series(600), version="3").fingerprint,
        send(world, series(600), strategy_id="other").fingerprint,
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_what_returns_do_not_tell_is_advice() -> None:
    result = send(answering(), series())
    (gate,) = [each for each in result.precheck.findings if each.name == "gate_trades_total"]
    assert "not known" in gate.message
    assert "stats={'trades_total': ...}" in gate.remedy


def test_changed_history_says_what_to_do() -> None:
    with pytest.raises(ApiError) as caught:
        send(answering(CHANGED, status=409), series())
    assert "give version=..." in caught.value.__notes__[0].replace("Give", "give")


WRONG: list[tuple[str, Any, dict[str, Any], type[Exception], str]] = [
    ("nobody's", series(), {"strategy_id": None}, StrategyError, "give strategy_id="),
    ("returns with prices", series(), {"prices": walk()}, StrategyError, "come without them"),
    ("returns with an engine", series(), {"engine": Engine(1.0)}, StrategyError, "without them"),
    ("neither", 41, {}, ReturnsError, "is no series of returns"),
    ("one return", {"t": series()["t"][:1], "r": [0.1]}, {}, ReturnsError, "two or more"),
    ("a strategy without prices", Trend(), {}, StrategyError, "give prices="),
    (
        "a strategy's version",
        Trend(),
        {"prices": walk(), "version": "2"},
        StrategyError,
        "its code",
    ),
    ("a strategy's stats", Trend(), {"prices": walk(), "stats": {}}, StrategyError, "counted"),
    ("a class", Trend, {"prices": walk()}, StrategyError, "give an instance"),
]


@pytest.mark.parametrize(
    ("name", "given", "options", "error", "says"), WRONG, ids=[case[0] for case in WRONG]
)
def test_what_cannot_be_submitted_is_not_sent(
    name: str, given: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    world = answering()
    with pytest.raises(error, match=re.escape(says)):
        send(world, given, **options)
    assert not world.seen


# ---- Progress --------------------------------------------------------------------------------


def test_progress_is_told_from_the_backtest_to_the_sending() -> None:
    told: list[tuple[str, int, int]] = []
    submit(answering(), progress=lambda *said: told.append(said))
    assert list(dict.fromkeys(what for what, _, _ in told)) == ["backtest", "look-ahead", "send"]
    probes = [(done, total) for what, done, total in told if what == "look-ahead"]
    assert [done for done, _ in probes] == list(range(1, len(probes) + 1))
    assert {total for _, total in probes} == {len(probes)}, "nothing found: every cut is tried"
    assert told[-1] == ("send", 1, 1)


# ---- Advice ----------------------------------------------------------------------------------


def names_of(result: SubmitResult) -> list[str]:
    return [finding.name for finding in result.precheck.findings]


def test_the_worlds_policy_is_read_and_compared_with() -> None:
    world, cheap = answering(), Engine(cost_bps=0.01)
    assert names_of(submit(world, prices=walk(1_200), engine=cheap, variants_tried=1)) == []
    world.policy = {**POLICY, "campaign": {"backtest": {"window": "2000d", "min_observations": 9}}}
    result = submit(world, prices=walk(1_200), engine=cheap, variants_tried=1)
    assert names_of(result) == ["history_short"]


UNREAD: list[tuple[str, dict[str, Any] | None, str]] = [
    ("no policy", None, "us-equity has no policy yet"),
    ("another format", {"version": 9}, "cannot be read here"),
    ("a window of another form", {**POLICY, "campaign": {"backtest": {"window": 3}}}, "cannot be"),
]


@pytest.mark.parametrize(("name", "policy", "says"), UNREAD, ids=[case[0] for case in UNREAD])
def test_a_policy_that_cannot_be_read_stops_nothing(
    name: str, policy: dict[str, Any] | None, says: str
) -> None:
    world = answering()
    world.policy = policy
    finding = submit(world).precheck.findings[0]
    assert finding.name == "policy_unknown"
    assert says in finding.message
    assert len(world.seen) == 1


def test_people_and_programs_read_the_same(clock: Clock) -> None:
    result = submit(answering(submitted(verdict="inconclusive", details=["40 more days"])))
    text, plain = str(result), json.loads(result.to_json())
    assert "Trend in world us-equity: paper" in text
    assert "inconclusive, paper_campaign, run backtest-1" in text
    assert "because: 40 more days" in text
    assert plain["effective_mode"] == "paper"
    assert plain["world"]["verdict"] == "inconclusive"
    assert plain["world"]["envelope"]["generation"] == 5
    assert set(plain["precheck"]["metrics"]) == set(UNITS)


EXPLAINED = {
    "sentences": [
        "It is in the paper campaign since 2024-01-31, and has been watched for three days of the "
        "sixty that the policy asks for.",
        "At the present rate that is reached on 2024-03-31.",
    ],
    "waits_for": [{"reason": "paper_window_incomplete", "share": 0.05}],
    "would_stop": ["A drawdown above 20 %."],
}


def test_people_are_told_what_happens_next_in_eighty_columns(clock: Clock) -> None:
    world = answering(submitted(explanation=EXPLAINED))
    result = submit(world, prices=walk(100), engine=Engine(cost_bps=0.0))
    assert result.world is not None
    assert result.world.sentences == tuple(EXPLAINED["sentences"])
    text = str(result)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert "next It is in the paper campaign since 2024-01-31" in words
    assert "that is reached on 2024-03-31." in words
    for finding in result.precheck.findings:
        assert f"{finding.message}. -> {finding.remedy}." in words
    assert words.index("next") < words.index("precheck") < words.index("advice")
    plain = json.loads(result.to_json())
    assert plain["world"]["explanation"] == EXPLAINED
    assert [each["name"] for each in plain["precheck"]["findings"]] == names_of(result)
    assert set(plain["precheck"]["findings"][0]) == {"name", "severity", "message", "remedy"}


def test_json_has_the_same_keys_whatever_happened() -> None:
    whole, without = submit(answering()), submit(away())
    assert set(json.loads(whole.to_json())) == set(json.loads(without.to_json()))


# ---- The world is away -----------------------------------------------------------------------


def test_away_is_compute_only_and_nothing_is_lost(spooled: Path) -> None:
    world = away()
    result = submit(world)
    assert (result.world, result.effective_mode, result.safe_mode) == (
        None,
        Mode.COMPUTE_ONLY,
        True,
    )
    assert (result.downgraded, result.downgrade_reason) == (True, Reason.WORLDSERVICE_AWAY)
    assert result.precheck.trades_total > 0, "the backtest ran"
    assert result.spooled is not None
    assert json.loads(result.spooled.read_bytes())["submission"] == world.seen[0]
    assert result.spooled.stat().st_mode & 0o077 == 0, "returns are nobody else's business"
    assert "the submission is kept" in str(result)
    assert names_of(result)[0] == "policy_unknown", "it is said that nothing was compared"
    assert json.loads(result.to_json())["world"] is None


def test_what_was_kept_is_sent_before_the_next_submission(spooled: Path) -> None:
    submit(away())
    submit(away(), strategy_id="other")
    world = answering()
    result = submit(world, strategy_id="Trend", variants_tried=7)
    assert [sent["strategy_id"] for sent in world.seen] == ["Trend", "other", "Trend"]
    assert [(each.strategy_id, each.outcome) for each in result.flushed] == [
        ("Trend", "sent"),
        ("other", "sent"),
    ]
    assert "sent other to us-equity, kept from before" in str(result)
    assert json.loads(result.to_json())["flushed"][1]["outcome"] == "sent"
    assert submit(world).flushed == ()


def test_a_submission_that_was_kept_is_no_news_to_itself() -> None:
    assert submit(away()).spooled == (again := submit(away())).spooled
    assert again.flushed == ()
    world = answering()
    assert submit(world).flushed == ()
    assert [sent["strategy_id"] for sent in world.seen] == ["Trend", "Trend"]


def test_a_submission_kept_under_another_credential_is_mentioned() -> None:
    submit(away())
    client = answering().client(token="another")
    result = Runner.submit(Trend(), world=WORLD, prices=walk(), client=client)
    assert [each.outcome for each in result.flushed] == ["waiting"]


def test_while_the_world_is_away_everything_is_kept_in_its_order(spooled: Path) -> None:
    submit(away())
    result = submit(away(), strategy_id="other")
    assert [each.outcome for each in result.flushed] == ["waiting"]
    kept = [json.loads(path.read_bytes()) for path in sorted(spooled.glob("*.json"))]
    assert [each["submission"]["strategy_id"] for each in kept] == ["Trend", "other"]


def test_what_is_kept_for_others_is_no_news_to_a_submission() -> None:
    submit(away())
    elsewhere = answering()
    result = Runner.submit(
        Trend(), world=WORLD, prices=walk(), client=elsewhere.client("http://other.test")
    )
    assert result.flushed == ()
    assert len(elsewhere.seen) == 1


def test_a_broken_spool_keeps_nothing_from_a_world_that_answers(spooled: Path) -> None:
    spooled.mkdir()
    (spooled / ".lock").mkdir()
    result = submit(answering())
    assert result.world is not None
    assert [each.outcome for each in result.flushed] == ["waiting"]


# ---- Decisions -------------------------------------------------------------------------------


def scripted(*answers: dict[str, Any] | int | httpx.TransportError) -> Decisions:
    """Decisions from a world that answers with these in turn."""
    waiting = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        answer = waiting.pop(0)
        if isinstance(answer, httpx.TransportError):
            raise answer
        if isinstance(answer, int):
            return httpx.Response(answer, json={"title": "no"})
        return httpx.Response(200, json=answer)

    client = Client(URL, "t", transport=httpx.MockTransport(handle), sleep=lambda sec: None)
    return Decisions(client, WORLD)


LIVE = {"effective_mode": "live", "weight": 0.25, "ramp_fraction": 1.0, "reasons": ["live"]}
GONE = httpx.ConnectError("refused")

# What is answered in turn, and what is permitted after the last of it.
STORIES: list[tuple[str, list[Any], Mode]] = [
    ("nothing asked", [], Mode.COMPUTE_ONLY),
    ("live", [told(**LIVE)], Mode.LIVE),
    ("away from the start", [GONE], Mode.COMPUTE_ONLY),
    ("away later", [told(**LIVE), GONE], Mode.LIVE),
    ("a broken server", [told(**LIVE), 500], Mode.LIVE),
    ("refused", [told(**LIVE), 403], Mode.COMPUTE_ONLY),
    ("unknown", [told(**LIVE), 404], Mode.COMPUTE_ONLY),
    ("malformed", [told(**LIVE), {"effective_mode": "live"}], Mode.COMPUTE_ONLY),
    ("refused, then fine", [told(**LIVE), 403, told(**LIVE)], Mode.LIVE),
    ("refused, then away", [told(**LIVE), 403, GONE], Mode.COMPUTE_ONLY),
    ("lowered by a newer one", [told(**LIVE), told(generation=6)], Mode.PAPER),
    ("an older one raises nothing", [told(generation=6), told(**LIVE)], Mode.PAPER),
    ("the same generation again", [told(**LIVE), told(**LIVE)], Mode.LIVE),
    (
        "nobody could be asked",
        [told(**LIVE), told(effective_mode="compute-only", generation=0, safe_mode=True)],
        Mode.COMPUTE_ONLY,
    ),
    (
        "nobody could be asked, and then an older one",
        [
            told(**LIVE),
            told(effective_mode="compute-only", generation=0, safe_mode=True),
            told(**LIVE, generation=4),
        ],
        Mode.COMPUTE_ONLY,
    ),
]


@pytest.mark.parametrize(("name", "answers", "mode"), STORIES, ids=[s[0] for s in STORIES])
def test_decisions_are_lowered_and_never_raised(
    name: str, answers: list[Any], mode: Mode, clock: Clock
) -> None:
    held = scripted(*answers)
    for _ in answers:
        last = held.refresh("Trend")
        assert last is held.permitted("Trend")
    assert held.permitted("Trend") is mode
    assert held.weight("Trend") == (0.25 if mode is Mode.LIVE else 0.0)
    assert (held.why_lower("Trend") is None) is (mode is not Mode.COMPUTE_ONLY)


def test_a_decision_held_expires_and_away_does_not_renew_it(clock: Clock) -> None:
    held = scripted(told(**LIVE), GONE)
    held.refresh("Trend")
    clock.now += 299
    assert held.refresh("Trend") is Mode.LIVE
    clock.now += 1
    assert held.permitted("Trend") is Mode.COMPUTE_ONLY
    assert held.weight("Trend") == 0.0
    assert held.why_lower("Trend") == Reason.DECISION_EXPIRED


def test_a_clock_that_runs_backwards_permits_nothing(clock: Clock) -> None:
    held = scripted(told(**LIVE))
    held.refresh("Trend")
    clock.now -= 1
    assert held.permitted("Trend") is Mode.COMPUTE_ONLY


def test_another_strategys_decision_permits_nothing(clock: Clock) -> None:
    held = scripted(told(**LIVE))
    held.refresh("Trend")
    assert held.permitted("other") is Mode.COMPUTE_ONLY


def test_the_clients_clock_only_moves_on() -> None:
    first = decisions_module.monotonic()
    assert decisions_module.monotonic() >= first


def test_held_is_what_permitted_says() -> None:
    envelope = DecisionEnvelope(
        world_id=WorldId(WORLD),
        strategy_id=StrategyId("Trend"),
        policy_version=1,
        effective_mode=Mode.LIVE,
        weight=0.5,
        ramp_fraction=1.0,
        reasons=("live",),
        generation=1,
        issued_at=NOW,
        expires_at=NOW + timedelta(seconds=10),
    )
    held = Held(envelope, 50.0)
    assert [held.mode(now) for now in (49.9, 50.0, 59.9, 60.0)] == [
        Mode.COMPUTE_ONLY,
        Mode.LIVE,
        Mode.LIVE,
        Mode.COMPUTE_ONLY,
    ]


# ---- The package -----------------------------------------------------------------------------


def test_every_name_of_the_package_is_there() -> None:
    assert [name for name in qmtl.__all__ if getattr(qmtl, name, None) is None] == []
    assert set(qmtl.__all__) <= set(dir(qmtl))
    assert qmtl.Runner is runner_module.Runner


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'mode'"):
        qmtl.mode  # noqa: B018 -- asking is the test


def test_importing_the_package_loads_nothing() -> None:
    code = "import qmtl, sys; print({'numpy', 'httpx', 'pydantic'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert told.stdout == "set()\n"
