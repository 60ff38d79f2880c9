"""`Runner.submit` against a world that answers as it is told to, and one that does not answer."""

import inspect
import json
import multiprocessing
import subprocess
import sys
import time
from dataclasses import dataclass
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
from qmtl.sdk import spool
from qmtl.sdk.decisions import BadDecision, Decisions, Held, envelope_of
from qmtl.sdk.engine import Engine
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.result import SubmitResult
from qmtl.sdk.runner import Runner, StrategyRejected
from qmtl.sdk.strategy import StrategyError

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


@dataclass
class World:
    """A server with one answer."""

    answer: httpx.Response | httpx.TransportError
    seen: list[dict[str, Any]]

    def client(self, url: str = URL) -> Client:
        def handle(request: httpx.Request) -> httpx.Response:
            self.seen.append(json.loads(request.content or b"{}"))
            if isinstance(self.answer, httpx.TransportError):
                raise self.answer
            return self.answer

        transport = httpx.MockTransport(handle)
        return Client(url, "t", transport=transport, sleep=lambda sec: None)


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
    assert caught.value.leak.kind == "look_ahead"
    assert not world.seen


def test_a_strategy_that_cannot_be_backtested_is_not_sent() -> None:
    world = answering()
    with pytest.raises(StrategyError):
        submit(world, strategy=lambda prices: prices)
    assert not world.seen


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
    problem = {"title": "The request contradicts what is recorded.", "detail": "other code"}
    with pytest.raises(ApiError) as caught:
        submit(answering(problem, status=409))
    assert "submit it as Trend-" in caught.value.__notes__[0]
    assert not spooled.exists()


# ---- Advice ----------------------------------------------------------------------------------

ADVICE: list[tuple[str, dict[str, Any], str]] = [
    ("short", {"prices": walk(100)}, "of history"),
    ("no trades", {"strategy": Remembering()}, "0 trades"),
    ("no cost", {"engine": Engine(cost_bps=0.0)}, "no cost"),
    ("variants", {"variants_tried": None}, "variants_tried"),
    ("undefined", {"strategy": Remembering()}, "undefined here: sharpe_annual"),
]


@pytest.mark.parametrize(("name", "options", "says"), ADVICE, ids=[case[0] for case in ADVICE])
def test_each_doubt_has_its_advice(name: str, options: dict[str, Any], says: str) -> None:
    quiet = submit(answering(), prices=walk(1_200), variants_tried=1)
    assert not [w for w in quiet.precheck.warnings if says in w]
    strategy_id = "Remembering" if "strategy" in options else "Trend"
    answer = submitted(strategy_id=strategy_id, decision=told(strategy_id=strategy_id))
    result = submit(answering(answer), **{"prices": walk(1_200), "variants_tried": 1, **options})
    assert [w for w in result.precheck.warnings if says in w]


def test_a_sharpe_ratio_that_is_too_good_is_doubted() -> None:
    steps = np.random.default_rng(1).normal(0.004, 0.004, (900, 1))
    times = walk(900).times
    prices = Prices(times, ("A",), 100 * np.exp(steps.cumsum(axis=0)))
    result = submit(answering(), prices=prices)
    assert any("Sharpe ratio above 3" in warning for warning in result.precheck.warnings)


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
    assert json.loads(result.to_json())["world"] is None


def test_what_is_kept_is_sent_once(spooled: Path) -> None:
    submit(away())
    submit(away())
    submit(away(), strategy=Trend(lookback=9), strategy_id="other")
    world = answering()
    done = Runner.flush(world.client())
    assert [(each.strategy_id, each.outcome) for each in done] == [
        ("Trend", "sent"),
        ("other", "sent"),
    ]
    assert Runner.flush(world.client()) == []
    assert [sent["strategy_id"] for sent in world.seen] == ["Trend", "other"]


def test_flushing_while_the_world_is_away_keeps_everything(spooled: Path) -> None:
    submit(away())
    submit(away(), strategy=Trend(lookback=9), strategy_id="other")
    world = away()
    assert [each.outcome for each in Runner.flush(world.client())] == ["waiting", "waiting"]
    assert len(world.seen) == 1, "the second would have waited for nothing"
    assert len(list(spooled.glob("*.json"))) == 2


@pytest.mark.parametrize("status", [401, 500])
def test_what_is_not_the_submissions_fault_keeps_it(status: int, spooled: Path) -> None:
    submit(away())
    done = Runner.flush(answering({"title": "no"}, status=status).client())
    assert [each.outcome for each in done] == ["waiting"]
    assert len(list(spooled.glob("*.json"))) == 1


def test_what_the_world_refuses_is_put_aside(spooled: Path) -> None:
    submit(away())
    refusing = answering({"title": "The request does not validate."}, status=422)
    (done,) = Runner.flush(refusing.client())
    assert (done.outcome, "does not validate" in done.detail) == ("refused", True)
    assert Runner.flush(refusing.client()) == []
    assert len(list((spooled / spool.REFUSED).glob("*.json"))) == 1


def test_a_submission_goes_to_the_server_it_was_for(spooled: Path) -> None:
    submit(away())
    world = answering()
    assert Runner.flush(world.client("http://other.test")) == []
    assert not world.seen
    assert len(list(spooled.glob("*.json"))) == 1


def test_a_submission_keeps_its_author(spooled: Path) -> None:
    submit(away())
    seen: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: seen.append(request) or httpx.Response(200))
    (done,) = Runner.flush(Client(URL, "somebody else's", transport=transport))
    assert (done.outcome, done.detail) == ("waiting", spool.OTHER_CREDENTIAL)
    assert not seen
    (kept,) = spooled.glob("*.json")
    assert json.loads(kept.read_bytes())["credential"] != "t", "the credential itself is not kept"
    assert [each.outcome for each in Runner.flush(answering().client())] == ["sent"]


def test_nothing_kept_is_nothing_to_do(spooled: Path) -> None:
    assert Runner.flush(answering().client()) == []
    assert not spooled.exists()


def test_half_a_file_is_no_submission(spooled: Path) -> None:
    submit(away())
    (spooled / "torn.partial").write_bytes(b'{"format": 1, "ur')
    assert [each.outcome for each in Runner.flush(answering().client())] == ["sent"]


def test_a_spool_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "KEPT_MAX", 1)
    submit(away())
    with pytest.raises(spool.SpoolFull):
        submit(away(), strategy_id="other")


def _flush(results: "multiprocessing.Queue[int]", log: str) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        with open(log, "a") as file:
            file.write("sent\n")
        time.sleep(0.2)  # Long enough for the others to send it as well, if nothing stops them.
        return httpx.Response(200, json=submitted())

    client = Client(URL, "t", transport=httpx.MockTransport(handle))
    results.put(len(Runner.flush(client)))


def test_two_processes_send_it_once(spooled: Path, tmp_path: Path) -> None:
    submit(away())
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[int] = context.Queue()
    log = tmp_path / "log"
    processes = [context.Process(target=_flush, args=(results, str(log))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert sorted(results.get(timeout=5) for _ in processes) == [0, 0, 0, 1]
    assert log.read_text() == "sent\n"


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
