"""Following a strategy: what is posted, to which stage, and what happens when it all goes wrong."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from qmtl.core.names import Mode
from qmtl.sdk import delivery as delivery_module
from qmtl.sdk import ledger as ledgers
from qmtl.sdk import spool
from qmtl.sdk.delivery import AlreadyFollowed, BarRefused
from qmtl.sdk.engine import Engine
from qmtl.sdk.follow import Followed, NoReplayClock, Step
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.runner import Runner
from qmtl.sdk.sources import HistoryChanged
from qmtl.sdk.strategy import StrategyError
from qmtl.sdk.submitted import NotSubmitted
from qmtl.sdk.told import Note, Told, Turn
from tests.following import (
    URL,
    Trend,
    W,
    World,
    at,
    binding,
    earned,
    parts,
    script,
    stamp,
    walk,
    write,
)

DEADLINE_SEC = 10.0


@dataclass
class Desk:
    """Somebody who follows Trend in a world, again and again, on one machine."""

    world: World
    state: Path
    told: list[Told] = field(default_factory=list)

    def follow(self, *items: Any, **options: Any) -> Followed:
        source = options.pop("source", None) or script(*items)
        strategy = options.pop("strategy", Trend())
        with self.world.client() as client:
            return Runner.follow(
                strategy,
                world=W,
                source=source,
                client=client,
                state=self.state,
                tell=self.told.append,
                **options,
            )

    @property
    def turns(self) -> list[Turn]:
        return [each for each in self.told if isinstance(each, Turn)]

    @property
    def notes(self) -> str:
        return "\n".join(str(each) for each in self.told if isinstance(each, Note))

    def ledger(self) -> ledgers.Ledger:
        found = ledgers.load(ledgers.place(self.state, URL, W, "Trend"))
        assert found is not None
        return found

    def until(self, holds: Callable[[], bool]) -> Callable[[], None]:
        """Waits, in the midst of a script, for what the follower does."""

        def wait() -> None:
            deadline = time.monotonic() + DEADLINE_SEC
            while not holds():
                assert time.monotonic() < deadline, self.told
                time.sleep(0.002)

        return wait


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(delivery_module, "AWAY_SEC", 0.01)
    return Desk(World(), tmp_path / "state")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The follower's own clock, standing until it is moved."""
    standing = Clock()
    for module in ("decisions", "delivery", "follow"):
        monkeypatch.setattr(f"qmtl.sdk.{module}.monotonic", standing)
    return standing


# ---- What is posted --------------------------------------------------------------------------


def test_each_new_bar_is_posted_once_and_is_what_the_engine_says(desk: Desk) -> None:
    done = desk.follow(40, 41, 42, 45)
    assert desk.world.held == {"paper": earned(45)}
    assert len(desk.world.posted) == done.posted == done.computed == 5
    assert (done.owed, done.away) == (0, False)
    assert [turn.outcome for turn in desk.turns] == ["posted"] * 5


def test_a_bar_is_what_the_wire_asks_for(desk: Desk) -> None:
    desk.follow(41)
    value = earned(41)[stamp(at(40))]
    assert desk.world.posted == [
        {
            "stage": "paper",
            "t": "2024-02-10T21:00:00Z",
            "returns": {"Trend": value},
            "replay": {"Trend": value},
            "ttl_sec": 86_400,
        }
    ]


@pytest.mark.parametrize(("bar", "ttl_sec"), [("1 m", 90), ("1 h", 5_400), ("1 D", 86_400)])
def test_a_snapshot_is_fresh_for_a_bar_and_a_half(desk: Desk, bar: str, ttl_sec: int) -> None:
    count, unit = bar.split()
    begin = np.datetime64("2024-02-09T22:01", "us")
    times = begin + np.arange(9) * np.timedelta64(int(count), unit)  # type: ignore[call-overload]  # A unit is a word, and numpy's stubs name each.
    times[-1] += np.timedelta64(9, "h")  # A night.
    prices = Prices(times, ("A", "B"), walk(9).values)
    desk.world.strategies = [binding(parts=None)]
    desk.world.held = {"paper": {str(times[-2]) + "Z": 0.0}}
    desk.follow(prices)
    assert desk.world.posted[-1]["ttl_sec"] == ttl_sec


def test_it_goes_on_where_it_stopped(desk: Desk) -> None:
    desk.follow(42)
    desk.follow(42)
    desk.follow(45)
    assert [body["t"] for body in desk.world.posted] == list(earned(45))
    assert desk.world.held == {"paper": earned(45)}


# What the hub holds, and when it entered its phase; and the first bar that is posted.
MACHINES: list[tuple[str, dict[str, Any], int]] = [
    ("nothing but a backtest", {}, 40),
    ("some of paper", {"held": {"paper": {stamp(at(41)): 0.0}}}, 42),
    ("paper and live", {"held": {"paper": {stamp(at(40)): 0.0}, "live": {stamp(at(42)): 0.0}}}, 43),
    ("it entered later", {"entered_at": at(42) + timedelta(hours=1)}, 43),
    ("nothing at all", {"tested": False, "entered_at": None}, 1),  # The first bar has no return.
    ("it entered within the clock's tolerance", {"entered_at": at(39) - timedelta(seconds=9)}, 40),
]


@pytest.mark.parametrize(("name", "world", "first"), MACHINES, ids=[m[0] for m in MACHINES])
def test_a_new_machine_asks_the_world_where_to_begin(
    desk: Desk, name: str, world: dict[str, Any], first: int
) -> None:
    desk.world = World(**world)
    done = desk.follow(45)
    assert [body["t"] for body in desk.world.posted] == [stamp(at(bar)) for bar in range(first, 45)]
    assert done.computed == done.posted, "what was before is not even looked at"


def test_another_machine_may_have_gone_on(desk: Desk, tmp_path: Path) -> None:
    desk.follow(42)
    Desk(desk.world, tmp_path / "other").follow(44)
    desk.follow(45)
    assert [body["t"] for body in desk.world.posted] == list(earned(45))


# What the world decides, and the stage that bars go to.
MODES: list[tuple[str, str, tuple[str, ...], str | None]] = [
    ("paper", "paper_campaign", ("paper_campaign",), "paper"),
    ("paper", "paper_campaign", ("paper_campaign", "held"), "paper"),
    ("paper", "paper_campaign", ("paper_campaign", "world_killed"), "paper"),
    ("live", "live_campaign", ("live_campaign",), "live"),
    ("live", "live_campaign", ("live_campaign", "draining"), "live"),
    ("compute-only", "live_campaign", ("risk_snapshot_stale",), "live"),  # Else it stays silent.
    ("compute-only", "live_campaign", ("frozen",), None),
    ("compute-only", "live_campaign", ("live_not_allowed",), None),
    ("compute-only", "backtest_campaign", ("backtest_campaign",), None),
    ("compute-only", "retired", ("retired",), None),
    ("compute-only", "paper_campaign", ("world_suspended",), None),
]


@pytest.mark.parametrize(("mode", "phase", "reasons", "stage"), MODES)
def test_the_decision_says_which_stage(
    desk: Desk, mode: str, phase: str, reasons: tuple[str, ...], stage: str | None
) -> None:
    desk.world.goes(mode, phase, *reasons)
    done = desk.follow(42)
    assert desk.world.held == ({} if stage is None else {stage: earned(42)})
    assert done.owed == (2 if stage is None else 0)
    if stage is None:
        assert all(turn.outcome == "kept" for turn in desk.turns)
        assert all(turn.why == ", ".join(reasons) for turn in desk.turns)
        assert "waits for: backtest window: 40.0 of 365.0 days observed" in desk.notes


def test_what_was_kept_goes_out_when_it_may(desk: Desk) -> None:
    desk.world.goes("compute-only", "paper_campaign", "world_suspended")
    desk.follow(43)
    desk.world.goes("paper", "paper_campaign")
    desk.follow(44)
    assert [body["t"] for body in desk.world.posted] == list(earned(44))
    assert desk.ledger().kept == ()


def test_bars_from_before_the_entry_are_not_posted(desk: Desk) -> None:
    desk.world.goes("compute-only", "backtest_campaign")
    desk.follow(43)
    desk.world.goes("paper", "paper_campaign")
    desk.world.entered_at = at(42)
    desk.follow(44)
    assert [body["t"] for body in desk.world.posted] == [stamp(at(43))]
    assert "3 kept bars are from before it entered paper_campaign: not posted" in desk.notes
    assert desk.ledger().owes == 0


def test_bars_from_before_it_went_live_are_papers(desk: Desk) -> None:
    desk.follow(41)
    desk.world.goes("live", "live_campaign", weight=0.1)
    desk.world.entered_at = at(41) + timedelta(hours=3)
    desk.follow(44)
    stages = [(body["stage"], body["t"]) for body in desk.world.posted]
    assert stages == [("paper", stamp(at(bar))) for bar in (40, 41)] + [
        ("live", stamp(at(bar))) for bar in (42, 43)
    ]
    assert desk.turns[-1].capital == 0.1


def test_a_bar_waits_until_the_worlds_clock_is_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New York closes at 20:00 in summer; the bar is stamped at 21:00 all the same."""
    desk.world.now = at(40) - timedelta(hours=1)
    done = desk.follow(41, once=True)
    assert (desk.world.posted, done.owed, done.away) == ([], 1, False)
    assert desk.turns[0].why == "the world's clock is not there yet"
    desk.world.now = at(40) - timedelta(milliseconds=20)
    monkeypatch.setattr(delivery_module, "AWAY_SEC", 0.03)

    def later() -> None:
        desk.world.now = at(40) + timedelta(seconds=1)

    desk.follow(41, later, desk.until(lambda: bool(desk.world.posted)))
    assert desk.world.held == {"paper": earned(41)}


# ---- The world is away -----------------------------------------------------------------------


def test_while_the_world_is_away_bars_are_kept_and_then_go_out_in_order(desk: Desk) -> None:
    def goes(away: bool) -> Callable[[], None]:
        def change() -> None:
            desk.world.away = away

        return change

    posted = desk.world.posted
    done = desk.follow(
        41,
        desk.until(lambda: len(posted) == 1),
        goes(True),
        42,
        desk.until(lambda: len(desk.turns) >= 1 and "is away" in desk.notes),
        43,
        44,
        desk.until(lambda: desk.ledger().owes == 3),
        goes(False),
        desk.until(lambda: len(posted) == 4),
    )
    assert [body["t"] for body in posted] == list(earned(44))
    assert done.owed == 0
    assert desk.notes.count("the world is away") == 1
    assert desk.notes.count("the world is back") == 1


def test_what_is_late_is_said_to_be(desk: Desk) -> None:
    desk.world.now = at(50)
    desk.follow(41)
    assert desk.turns[0].why == (
        "10.0 days late; beyond the policy's max_lag a bar counts for no window"
    )


def test_once_ends_when_the_world_is_away_and_the_next_time_goes_on(desk: Desk) -> None:
    desk.follow(41)
    desk.world.away = True
    done = desk.follow(43, once=True)
    assert (done.away, done.owed, done.computed) == (True, 2, 2)
    desk.world.away = False
    done = desk.follow(43, once=True)
    assert (done.away, done.owed, done.posted) == (False, 0, 2)
    assert [body["t"] for body in desk.world.posted] == list(earned(43))


def test_a_broken_ledger_of_another_strategy_is_no_hindrance(desk: Desk) -> None:
    desk.follow(41)
    (desk.state / "other.json").write_text("{")
    desk.world.away = True
    assert desk.follow(42, once=True).owed == 1


def test_away_and_never_followed_here_nothing_is_known(desk: Desk) -> None:
    desk.world.away = True
    done = desk.follow(43, once=True)
    assert (done.away, done.computed) == (True, 0)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_is_as_good_as_away(desk: Desk, status: int) -> None:
    desk.world.refusing = httpx.Response(status, json={"title": "later"})
    done = desk.follow(42, once=True)
    assert (done.away, done.owed) == (True, 2)
    desk.world.refusing = None
    desk.follow(42, once=True)
    assert desk.world.held == {"paper": earned(42)}


def test_the_last_decision_holds_until_it_expires(desk: Desk, clock: Clock) -> None:
    modes: list[Mode] = []

    def goes_away() -> None:
        desk.world.away = True

    def watch(step: Step) -> float:
        modes.append(step.mode)
        clock.now += 100
        return 0.001

    def seen(count: int) -> Callable[[], None]:
        return desk.until(lambda: len(modes) == count)

    desk.follow(
        *(41, seen(1), desk.until(lambda: bool(desk.turns)), goes_away),
        *(42, seen(2), 43, seen(3), 44),
        execute=watch,
    )
    # It was asked for at 1,000; a bar takes 100 seconds; 300 are its term. So the third bar begins
    # within it, and is to be posted when it is over.
    assert modes == [Mode.PAPER, Mode.PAPER, Mode.PAPER, Mode.COMPUTE_ONLY]
    assert [body["stage"] for body in desk.ledger().outbox] == ["paper"]
    assert len(desk.ledger().kept) == 2


def test_a_submission_that_was_kept_goes_before_its_returns(desk: Desk) -> None:
    desk.world.strategies = []
    spool.keep(desk.world.client(), {"strategy_id": "Trend", "world": W})
    desk.follow(41)
    assert len(desk.world.submitted) == 1
    assert desk.world.held == {"paper": earned(41)}
    assert "the kept submission of Trend to us: sent" in desk.notes


def test_what_is_kept_has_a_limit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "KEPT_MAX", 2)
    desk.world.goes("compute-only", "paper_campaign", "world_suspended")
    desk.follow(43)
    assert [bar.t for bar in desk.ledger().kept] == [at(41), at(42)]
    assert "1 from 2024-02-10T21:00:00Z on are given up" in desk.notes


def test_a_submission_is_sent_when_the_world_is_back(desk: Desk) -> None:
    desk.follow(41)
    desk.world.away = True
    with desk.world.client() as client:
        spool.keep(client, {"strategy_id": "other", "world": W})

    def back() -> None:
        desk.world.away = False

    desk.follow(
        42,
        desk.until(lambda: "is away" in desk.notes),
        back,
        desk.until(lambda: len(desk.world.posted) == 2),
    )
    assert [each["strategy_id"] for each in desk.world.submitted] == ["other"]


# ---- Killed ----------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of the process, as far as a test can go without one."""


def kill(world: World, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Dies at the n-th thing that another process could see: before a request, after it had its
    effect, before a file is written, and after."""
    left = [number]

    def step(_: object = None) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    def write_whole(path: Path, content: bytes) -> None:
        step()
        original(path, content)
        step()

    original = ledgers.write_whole
    monkeypatch.setattr(ledgers, "write_whole", write_whole)
    world.before, world.after = step, step


@pytest.mark.parametrize("decided", ["paper", "changes"])
def test_killed_at_any_instant_each_bar_is_there_once(
    tmp_path: Path, decided: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the world decides otherwise in between: no bar goes to two stages."""
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    number, died = 0, True
    while died:
        number, died = number + 1, False
        desk = Desk(World(), tmp_path / str(number))
        with monkeypatch.context() as patched:
            kill(desk.world, patched, number)
            try:
                desk.follow(41, 42)
            except Killed:
                died = True
            desk.world.before = desk.world.after = lambda request: None
        if decided == "changes":
            desk.world.goes("live", "live_campaign", weight=0.1)
        desk.follow(43)
        stages = desk.world.held
        seen = sorted(t for stage in stages.values() for t in stage)
        assert seen == list(earned(43)), number
        assert {t: r for stage in stages.values() for t, r in stage.items()} == earned(43)
        assert desk.ledger().owes == 0
    assert number > 15, "it was killed at each of its steps, and then not any more"


# ---- Execute ---------------------------------------------------------------------------------


def test_execute_is_told_what_to_hold_and_its_return_is_posted(desk: Desk) -> None:
    steps: list[Step] = []

    def trade(step: Step) -> float:
        steps.append(step)
        return 0.01

    desk.world.goes("live", "live_campaign", weight=0.25)
    desk.follow(41, execute=trade)
    (step,) = steps
    assert step.time == at(40)
    assert step.assets == ("A", "B")
    assert step.prices.tolist() == walk(41).values[-1].tolist()
    assert step.weights.tolist() == Trend().weights(walk(41).values)[-1].tolist()
    assert (step.mode, step.capital, step.ramp_fraction) == (Mode.LIVE, 0.25, 0.5)
    (body,) = desk.world.posted
    assert body["returns"] == {"Trend": 0.01}
    assert body["replay"] == {"Trend": earned(41)[stamp(at(40))]}, "the engine's own stands beside"


def test_orders_may_take_longer_than_a_decision_lasts(desk: Desk, clock: Clock) -> None:
    def slow(step: Step) -> float:
        clock.now += 400
        return 0.01

    desk.follow(41, execute=slow)
    assert [turn.outcome for turn in desk.turns] == ["posted"]
    assert "away" not in desk.notes


def test_what_was_executed_is_written_down_before_the_next(desk: Desk) -> None:
    seen: list[datetime] = []

    def trade(step: Step) -> float:
        if step.time == at(42) and len(seen) == 2:
            raise RuntimeError("the broker hung up")
        seen.append(step.time)
        return 0.01

    with pytest.raises(RuntimeError):
        desk.follow(44, execute=trade)
    seen.append(at(0))
    desk.follow(44, execute=trade)
    assert seen == [at(40), at(41), at(0), at(42), at(43)]


def test_of_what_was_not_realised_the_engines_return_goes_out_alone(desk: Desk) -> None:
    """Else who leaves out the bad bars would be told apart from nobody."""
    desk.follow(42, execute=lambda step: None)
    said = earned(42)
    assert [body["returns"] for body in desk.world.posted] == [{}, {}]
    assert [body["replay"]["Trend"] for body in desk.world.posted] == [*said.values()]
    assert [(turn.outcome, turn.realised) for turn in desk.turns] == [("posted", None)] * 2
    assert desk.turns[0].why.startswith("nothing was realised: the engine's return alone")
    desk.follow(43, execute=lambda step: 0.0)
    assert desk.world.posted[-1]["returns"] == {"Trend": 0.0}


def test_what_was_not_realised_is_kept_as_any_bar_is(desk: Desk) -> None:
    desk.world.goes("compute_only", "backtest_campaign")
    desk.follow(42, execute=lambda step: None)
    assert desk.world.posted == []
    desk.world.goes("paper", "paper_campaign")
    desk.follow(43, execute=lambda step: 0.0)
    assert [body["returns"] for body in desk.world.posted] == [{}, {}, {"Trend": 0.0}]


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -1.5])
def test_what_is_no_return_is_an_error_and_nothing_is_posted(desk: Desk, answer: float) -> None:
    with pytest.raises(StrategyError, match="of 2024-02-10T21:00Z: no return"):
        desk.follow(41, execute=lambda step: answer)
    assert desk.world.posted == []


class Always:
    """Holds half of each."""

    name = "Trend"

    def weights(self, prices: FloatArray) -> FloatArray:
        return np.full_like(prices, 0.5)


# What the world decides; and whether there is anything to hold.
HOLDS: list[tuple[str, str, float, bool]] = [
    ("paper", "paper_campaign", 0.0, True),
    ("live", "live_campaign", 0.1, True),
    ("live", "draining", 0.0, False),
    ("compute-only", "frozen", 0.0, False),
    ("compute-only", "risk_snapshot_stale", 0.0, False),
    ("compute-only", "retired", 0.0, False),
]


@pytest.mark.parametrize(("mode", "reason", "weight", "holds"), HOLDS)
def test_who_may_not_trade_is_told_to_hold_nothing(
    desk: Desk, mode: str, reason: str, weight: float, holds: bool
) -> None:
    steps: list[Step] = []
    desk.world.goes(mode, "live_campaign", reason, weight=weight)
    desk.world.strategies = [binding(parts=None)]
    desk.follow(41, strategy=Always(), execute=lambda step: steps.append(step))
    assert steps[0].weights.tolist() == ([0.5, 0.5] if holds else [0.0, 0.0])
    assert steps[0].capital == weight


def test_bars_that_were_missed_are_not_traded_on(desk: Desk) -> None:
    """Each is asked for its return; what is to be held is what the newest says."""
    steps: list[Step] = []

    def trade(step: Step) -> float:
        steps.append(step)
        return len(steps) / 1_000

    desk.follow(45, execute=trade)
    newest = Trend().weights(walk(45).values)[-1].tolist()
    assert [step.time for step in steps] == [at(bar) for bar in range(40, 45)]
    assert all(step.weights.tolist() == newest for step in steps)
    assert [body["returns"]["Trend"] for body in desk.world.posted] == [
        0.001,
        0.002,
        0.003,
        0.004,
        0.005,
    ]


def test_missed_bars_are_executed_while_the_world_is_away_too(desk: Desk) -> None:
    desk.follow(41)
    desk.world.away = True
    seen: list[datetime] = []
    desk.follow(44, once=True, execute=lambda step: seen.append(step.time))
    assert seen == [at(41), at(42), at(43)]


# ---- Which strategy --------------------------------------------------------------------------

OLD = binding(parts=None, version=None, family=None)
SECOND = binding(strategy_id="Trend.2", version=2, parts=parts(Trend(9)))


@pytest.mark.parametrize(
    ("name", "listed", "strategy", "expected"),
    [
        ("the only one", [binding()], Trend(), "Trend"),
        ("the newest", [binding(), SECOND], Trend(9), "Trend.2"),
        ("an older one", [SECOND, binding()], Trend(), "Trend"),
        (
            "twice submitted",
            [binding(), binding(strategy_id="Trend.2", version=2)],
            Trend(),
            "Trend.2",
        ),
        ("known by its name only", [OLD], Trend(7), "Trend"),
        ("of others", [binding(strategy_id="a", family="a"), binding()], Trend(), "Trend"),
    ],
)
def test_it_is_the_version_that_the_code_is(
    desk: Desk, name: str, listed: list[dict[str, Any]], strategy: Trend, expected: str
) -> None:
    desk.world.strategies = listed
    desk.follow(41, strategy=strategy)
    assert [list(body["returns"]) for body in desk.world.posted] == [[expected]]


REFUSED: list[tuple[str, list[dict[str, Any]], dict[str, Any], str]] = [
    ("parameters", [binding()], {"strategy": Trend(6)}, r"\(parameters\): .* makes it version 2"),
    ("engine", [binding()], {"engine": Engine(1.0)}, r"\(engine\): .* makes it version 2"),
    ("code", [binding()], {"strategy": Always()}, r"\(code, parameters\): "),
    ("third", [binding(), SECOND], {"strategy": Trend(6)}, r"\(parameters\): .* version 3"),
    ("old ones", [SECOND, OLD], {"strategy": Trend(6)}, r"\(parameters\): .* version 3"),
    ("nothing", [], {}, r"Trend was never submitted to us: qmtl submit"),
    ("other", [binding()], {"strategy_id": "Other"}, r"Other was never submitted to us"),
]


@pytest.mark.parametrize(
    ("name", "listed", "options", "says"), REFUSED, ids=[case[0] for case in REFUSED]
)
def test_what_was_not_submitted_is_not_followed(
    desk: Desk, name: str, listed: list[dict[str, Any]], options: dict[str, Any], says: str
) -> None:
    desk.world.strategies = listed
    with pytest.raises(NotSubmitted, match=says):
        desk.follow(41, **options)
    assert desk.world.posted == []


def test_code_that_changes_under_its_name_is_seen_where_the_world_knows_no_parts(
    desk: Desk,
) -> None:
    desk.world.strategies = [OLD]
    desk.follow(41)
    with pytest.raises(NotSubmitted, match="changed since it was last followed"):
        desk.follow(42, strategy=Trend(6))


def test_other_prices_than_it_was_submitted_with_are_mentioned(desk: Desk) -> None:
    desk.follow(41)
    assert "are not those" not in desk.notes
    desk.world.strategies = [binding(parts={**parts(), "data": walk(40, seed=8).digest()})]
    desk.follow(42)
    assert "are not those that Trend was submitted with" in desk.notes
    assert len(desk.world.posted) == 2, "and it goes on"


def test_prices_that_changed_since_the_last_run_are_mentioned(desk: Desk) -> None:
    desk.follow(42)
    values = walk(43).values.copy()
    values[41] *= 0.5
    desk.follow(Prices(walk(43).times, ("A", "B"), values))
    assert "the prices up to 2024-02-11T21:00:00Z are not those that were used" in desk.notes


def test_prices_that_change_under_its_feet_are_an_error(desk: Desk) -> None:
    values = walk(42).values.copy()
    values[10] *= 0.5
    with pytest.raises(HistoryChanged, match="the bar of 2024-01-11T21:00Z"):
        desk.follow(41, Prices(walk(42).times, ("A", "B"), values))
    assert [body["t"] for body in desk.world.posted] == [stamp(at(40))]


def test_two_do_not_follow_one_strategy(desk: Desk) -> None:
    other = Desk(desk.world, desk.state)
    failed: list[Exception] = []

    def second() -> None:
        try:
            other.follow(42)
        except AlreadyFollowed as error:
            failed.append(error)

    desk.follow(41, desk.until(lambda: bool(desk.turns)), second, 42)
    assert "Trend in us is followed by process" in str(failed[0])
    other.follow(43)
    assert [body["t"] for body in desk.world.posted] == list(earned(43))


def test_two_versions_are_followed_side_by_side(desk: Desk) -> None:
    desk.world.strategies = [binding(), SECOND]
    other = Desk(desk.world, desk.state)
    desk.follow(
        41, desk.until(lambda: bool(desk.turns)), lambda: other.follow(42, strategy=Trend(9))
    )
    assert [list(body["returns"]) for body in desk.world.posted] == [["Trend"], ["Trend.2"]]


def test_of_a_world_made_anew_nothing_was_done_yet(desk: Desk) -> None:
    desk.follow(43)
    later, earlier = [binding(bound_at="2024-03-01T00:00:00Z")], at(40) + timedelta(hours=1)
    for fresh in (World(strategies=later), World(strategies=later, now=earlier)):
        desk.world = fresh
        desk.follow(42, once=True)
        assert fresh.posted[0]["t"] == stamp(at(40))
        assert "us was made anew" in desk.notes
        desk.told.clear()


def test_a_ledger_that_cannot_be_read_says_what_to_do(desk: Desk) -> None:
    desk.follow(41)
    ledgers.place(desk.state, URL, W, "Trend").write_text("{")
    with pytest.raises(ledgers.LedgerError, match="move it away"):
        desk.follow(42)


def test_a_ledger_is_nobody_elses_business(desk: Desk) -> None:
    desk.follow(41)
    path = ledgers.place(desk.state, URL, W, "Trend")
    assert (path.stat().st_mode | desk.state.stat().st_mode) & 0o077 == 0


# ---- Refusals --------------------------------------------------------------------------------


STRANGERS: list[httpx.Response] = [
    httpx.Response(200, text="<html>Log in</html>"),
    httpx.Response(200, json={"ok": True}),
    httpx.Response(201, json={"created_at": "now"}),
    httpx.Response(302, headers={"Location": "http://login.test"}),
]


@pytest.mark.parametrize("answer", STRANGERS, ids=str)
def test_a_bar_that_a_stranger_took_is_owed_to_the_world(
    desk: Desk, answer: httpx.Response
) -> None:
    desk.world.refusing = answer
    done = desk.follow(41, once=True)
    assert (done.posted, done.owed, done.away) == (0, 1, True)
    desk.world.refusing = None
    desk.follow(41)
    assert desk.world.held == {"paper": earned(41)}


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_bar_that_is_refused_for_good_is_set_aside_and_ends_it(desk: Desk, status: int) -> None:
    problem = {"title": "no", "reasons": ["evidence_changed"], "details": ["it differs"]}
    desk.world.refusing = httpx.Response(status, json=problem)
    with pytest.raises(BarRefused, match=r"2024-02-10T21:00:00Z was refused as paper") as caught:
        desk.follow(41, 42)
    assert caught.value.error.reasons == ("evidence_changed",)
    (refused,) = desk.ledger().refused
    assert (refused["t"], str(status) in refused["why"]) == (stamp(at(40)), True)
    desk.world.refusing = None
    desk.follow(42)
    assert [body["t"] for body in desk.world.posted] == [stamp(at(41))]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_bar_that_another_credential_could_post_is_kept_and_ends_it(
    desk: Desk, status: int
) -> None:
    desk.world.refusing = httpx.Response(status, json={"title": "no"})
    with pytest.raises(BarRefused):
        desk.follow(41)
    assert desk.ledger().owes == 1
    desk.world.refusing = None
    desk.follow(41)
    assert desk.world.held == {"paper": earned(41)}


def test_what_the_strategy_raises_ends_it_and_nothing_is_posted(desk: Desk) -> None:
    class Broken:
        name = "Trend"

        def weights(self, prices: FloatArray) -> FloatArray:
            return np.full_like(prices, np.nan)

    desk.world.strategies = [OLD]
    with pytest.raises(StrategyError, match="is nan"):
        desk.follow(41, strategy=Broken())
    assert desk.world.posted == []


def test_what_a_source_raises_is_raised(desk: Desk) -> None:
    def fails() -> None:
        raise RuntimeError("the feed hung up")

    with pytest.raises(RuntimeError, match="hung up"):
        desk.follow(41, desk.until(lambda: len(desk.world.posted) == 1), fails)
    assert desk.world.held == {"paper": earned(41)}


# ---- Rehearsal, and the end ------------------------------------------------------------------


def test_a_replay_moves_the_clock_to_each_bar(desk: Desk) -> None:
    desk.world.replay, desk.world.now = True, at(39) + timedelta(hours=1)
    seen: list[datetime] = []
    desk.world.after = lambda request: seen.append(desk.world.now)
    done = desk.follow(45, until=date(2024, 2, 13), replay=True)
    assert seen == [at(bar) + timedelta(minutes=1) for bar in range(40, 44)]
    assert [body["t"] for body in desk.world.posted] == list(earned(44))
    assert all(turn.why == "" for turn in desk.turns), "none of them is late"
    assert done.posted == 4
    desk.follow(45, replay=True)
    assert desk.world.held == {"paper": earned(45)}


def test_each_bar_of_a_replay_is_held_as_it_was_decided(desk: Desk) -> None:
    desk.world.replay, desk.world.now = True, at(39) + timedelta(hours=1)
    held: list[list[float]] = []
    desk.follow(45, replay=True, execute=lambda step: held.append(step.weights.tolist()))
    assert held == Trend().weights(walk(45).values)[40:].tolist()


def test_the_systems_clock_is_not_moved(desk: Desk) -> None:
    with pytest.raises(NoReplayClock):
        desk.follow(45, replay=True)
    assert desk.world.posted == []


def test_a_replay_that_finds_the_world_away_ends_and_goes_on_later(desk: Desk) -> None:
    desk.world.replay, desk.world.now = True, at(39) + timedelta(hours=1)

    def goes_away(request: httpx.Request) -> None:
        desk.world.away = len(desk.world.posted) == 2

    desk.world.after = goes_away
    done = desk.follow(45, replay=True)
    assert (done.away, done.posted) == (True, 2)
    desk.world.away = False
    desk.follow(45, replay=True)
    assert desk.world.held == {"paper": earned(45)}
    assert desk.world.now == at(44) + timedelta(minutes=1)


def test_a_replay_does_not_move_on_from_a_bar_that_is_not_there_yet(desk: Desk) -> None:
    desk.world.replay, desk.world.now = True, at(39) + timedelta(hours=1)
    desk.world.refusing = httpx.Response(503, json={"title": "busy"})
    assert desk.follow(45, replay=True).away
    assert desk.world.now == at(40) + timedelta(minutes=1)


def test_until_is_the_last_day(desk: Desk) -> None:
    desk.follow(42, 45, 50, until=date(2024, 2, 12))
    assert [body["t"] for body in desk.world.posted] == list(earned(43))


def test_once_is_what_there_is_now(desk: Desk) -> None:
    desk.follow(42, 45, once=True)
    assert [body["t"] for body in desk.world.posted] == list(earned(42))


def test_it_stops_when_it_is_told_to(desk: Desk, tmp_path: Path) -> None:
    write(tmp_path / "prices.csv", walk(41))
    stop = threading.Event()
    timer = threading.Thread(target=lambda: (desk.until(lambda: bool(desk.turns))(), stop.set()))
    timer.start()
    began = time.monotonic()
    desk.follow(source=tmp_path / "prices.csv", stop=stop)
    timer.join()
    assert time.monotonic() - began < DEADLINE_SEC / 2
    assert desk.world.held == {"paper": earned(41)}


def test_nobody_reads_the_source_any_more_when_it_ended(desk: Desk, tmp_path: Path) -> None:
    write(tmp_path / "prices.csv", walk(41))
    desk.follow(source=tmp_path / "prices.csv", once=True)
    desk.until(lambda: all(each.name != "qmtl-prices" for each in threading.enumerate()))()


def test_a_source_that_looks_at_nothing_is_not_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmtl.sdk.follow.LOOK_SEC", 0.01)
    stop, forever = threading.Event(), threading.Event()
    desk.follow(41, stop.set, forever.wait, stop=stop)
    forever.set()


def test_the_strategy_is_left_as_it_was(desk: Desk) -> None:
    class Remembering:
        name = "Trend"

        def weights(self, prices: FloatArray) -> FloatArray:
            self.kept = prices.sum()
            return np.zeros_like(prices)

    strategy = Remembering()
    desk.world.strategies = [OLD]
    desk.follow(41, 42, strategy=strategy)
    desk.follow(43, strategy=strategy)
    assert not vars(strategy)


def test_a_turn_reads_well(desk: Desk) -> None:
    desk.follow(41)
    desk.world.goes("compute-only", "live_campaign", "frozen")
    desk.follow(42)
    value = earned(42)
    texts = [str(turn) for turn in desk.turns]
    assert texts[0].split(maxsplit=3)[0::2] == ["2024-02-10T21:00Z", "paper"]
    assert texts[0].endswith(
        "posted as paper: 20.0 days late; beyond the policy's max_lag a bar counts for no window"
    )
    assert texts[1].endswith("compute-only  not posted, kept: frozen")
    assert desk.turns[1].plain() == {
        "time": "2024-02-11T21:00Z",
        "return": value[stamp(at(41))],
        "replay": value[stamp(at(41))],
        "mode": "compute-only",
        "stage": None,
        "capital": 0.0,
        "outcome": "kept",
        "why": "frozen",
    }
