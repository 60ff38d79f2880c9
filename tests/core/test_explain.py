"""Every state a strategy can be in is explained: `states.py` is the table of them."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from immutables import Map

from qmtl.adapters.memory import MemoryStore
from qmtl.app import hub
from qmtl.app import promotions as app_promotions
from qmtl.app.explanations import explanation
from qmtl.app.promotions import dossier_of
from qmtl.core import campaign, evaluation, fold, promotion, proving, snapshot, waits, windows
from qmtl.core import explain as explain_module
from qmtl.core.errors import UnknownStrategy
from qmtl.core.explain import Explanation, explain
from qmtl.core.metrics import Undefined
from qmtl.core.names import (
    Mode,
    Phase,
    Reason,
    Stage,
    StrategyId,
    Stream,
    WorldState,
)
from qmtl.core.outlook import outlook, quiet_us
from qmtl.core.policy import (
    Freeze,
)
from qmtl.core.promotion import Clearance, Dossier, clear_for_live
from qmtl.core.view import Rejected
from qmtl.core.windows import Part
from qmtl.core.words import counted, listed
from qmtl.sim import cast
from qmtl.sim.chaos import SIDS, play, refusable
from qmtl.sim.scene import DAY, START, Scene, daily
from tests.core.states import (
    DISABLED,
    ENDLESS,
    EVIDENT,
    FAILS,
    FROZEN,
    HOUR,
    ROWS,
    Row,
    activation,
    after,
    another_policy,
    crashed,
    expired,
    of,
    on,
    said_of,
    watched,
    without_candidate,
)
from tests.core.test_promotion import APPROVAL_CASES, reasons_in
from tests.core.test_promotion import CASES as GATE_CASES
from tests.worlds import (
    ALPHA,
    AUTO,
    DOSSIER,
    LATER,
    MINUTE,
    NOW,
    POLICY,
    changed,
    climbing,
    good,
    governed,
    in_paper,
    live,
    observe,
    ready,
)

R = Reason


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_every_state_is_explained(row: Row) -> None:
    told = row.told
    whole = "\n".join(told.sentences)
    for part in row.said:
        assert any(part in sentence for sentence in told.sentences), f"{part!r} is not in\n{whole}"
    assert tuple(wait.reason for wait in told.waits_for) == row.reasons, whole
    dates = [(w.reason, w.reached_at) for w in told.waits_for if w.reached_at is not None]
    assert set(row.dates.items()) <= set(dates)


# ---- The table is whole ------------------------------------------------------------------------

SAID_OTHERWISE = {
    R.NOT_PAPER_STAGE,  # The phase is the first thing that is said.
    R.PAPER_RUN_MISSING,  # That nobody has judged it, or that there is nothing to judge.
    R.CONSISTENCY_FAILED,  # Paper and its replay: tests/app/test_proving.py plants each cause.
}


def test_every_reason_that_can_be_met_has_a_row() -> None:
    can_meet = {*windows.INCOMPLETE.values(), *reasons_in(inspect.getsource(evaluation._problem))}
    for module in (waits, promotion, proving.unproven, snapshot.freshness):
        can_meet |= reasons_in(inspect.getsource(module))
    told = {reason for row in ROWS for reason in row.reasons}
    assert told == can_meet - SAID_OTHERWISE


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({row.what for row in ROWS}) == len(ROWS) >= 45


def test_every_reason_to_leave_live_is_told() -> None:
    """In `Void`, of the candidate that had taken it there."""
    told = {
        R.DRAWDOWN_BREACHED,
        R.LOSS_BREACHED,
        R.DECAYED,
        R.VALIDATION_FAILED,
        R.EVIDENCE_CHANGED,
        R.MANUAL,
        R.LIVE_NOT_ALLOWED,
        R.WORLD_KILLED,
        R.WORLD_SUSPENDED,
    }
    for module in (fold, hub, app_promotions, campaign):
        source = inspect.getsource(module)
        assert reasons_in(source) & told, module.__name__
    assert reasons_in(inspect.getsource(explain_module._left_because)) == told


CONDITIONS: list[dict[str, Any]] = [
    {},
    {"allow_live": False},
    {"killed": True},
    {"state": WorldState.SUSPENDED},
    {"state": WorldState.ARCHIVED},
    {"standing": {"held": True}},
    {"standing": {"selected": False}},
    {"default_version": None},
    {"policy": DISABLED},
    {"policy": EVIDENT},
    {"policy": FROZEN},
    {"policy": AUTO},
    {"current": Map()},
    {"runs": Map(), "track": {"verdict": 0, "judged_policy": 0, "judged_t": -(2**63)}},
    {"track": {"window_points": 0, "window_us": 0, "window_first_t": -(2**63)}},
    {"promoted_at": NOW},
]
WHEN = (NOW, LATER, LATER + 400 * DAY)


def everywhere() -> list[Explanation]:
    """Every phase under every condition, at several instants."""
    found = []
    for build, stage in ((ready, Stage.PAPER), (climbing, Stage.LIVE)):
        for phase in range(len(Phase)):
            for condition in CONDITIONS:
                view = changed(build(**condition), stage, standing={"phase": phase})
                for dossier in (DOSSIER, FAILS, Dossier(verdict=None)):
                    found += [said_of(view, now, dossier) for now in WHEN]
    return found


CODES = {
    value.value
    for kind in (Reason, Phase, Mode, WorldState, Stream, Undefined)
    for value in kind
    if not value.value.isalpha()
}
NUMBER = re.compile(r"(?<![\w.-])\d+\.\d+(?![\w.]*[\d-])")


def faults(sentence: str) -> list[str]:
    """What a trader should not have to read."""
    words = set(re.findall(r"[\w-]+", sentence))
    found = sorted(CODES & words)
    found += [word for word in ("None", "nan", "inf", "[", "{", "  ", "..") if word in sentence]
    found += [n for n in NUMBER.findall(sentence) if len(n.replace(".", "").lstrip("0")) > 4]
    found += [] if sentence.endswith(".") else ["no full stop"]
    first = sentence.split()[0].partition(".")[0]  # alpha.2 is a version of alpha.
    starts = sentence[0].isupper() or first in (*SIDS, *cast.ROLES)
    return found + ([] if starts else ["no capital"])


def test_no_sentence_speaks_in_codes() -> None:
    told = [row.told for row in ROWS] + everywhere()
    sentences = {sentence for each in told for sentence in each.sentences}
    assert len(sentences) > 150
    assert {s: faults(s) for s in sentences if faults(s)} == {}


def test_what_a_trader_should_not_read_is_found() -> None:
    for text in ("A paper_campaign.", "It is nan.", "It is 0.12345.", "lower.", "Open", "The [x]."):
        assert faults(text), text
    assert not faults("Worst loss is 0.1234 of 12.3 %, since 2026-01-17 00:15 UTC.")


def test_what_waits_and_what_stops_is_among_the_sentences_in_order() -> None:
    for told in [row.told for row in ROWS] + everywhere():
        waited = [wait.sentence for wait in told.waits_for]
        at = [told.sentences.index(s) for s in (*waited, *told.would_stop)]
        assert at == sorted(at)
        assert told.sentences[-len(told.would_stop) or len(told.sentences) :] == told.would_stop
        assert told.sentences[0].startswith(f"{ALPHA} is ")


def test_a_date_is_in_its_sentence_and_ahead() -> None:
    for told in [row.told for row in ROWS] + everywhere():
        for wait in told.waits_for:
            assert wait.share is None or 0.0 <= wait.share < 1.0
            if wait.reached_at is not None:
                assert wait.reached_at > told.as_of
                assert f"{wait.reached_at:%Y-%m-%d}" in wait.sentence


LIVES, LIFE_STEPS = 6, 30


@pytest.mark.parametrize("seed", range(LIVES))
def test_in_any_life_everybody_is_explained(seed: int) -> None:
    """At every step, to whoever is in the world: in sentences, and as the gate has it."""
    scene = Scene(MemoryStore())
    for _ in play(scene, seed, LIFE_STEPS, refusable(scene)):
        view = scene.view
        for sid, strategy in view.strategies.items():
            told = explanation(scene.store, view, sid, scene.now)
            assert {s: faults(s) for s in told.sentences if faults(s)} == {}
            phase = view.phase(strategy.row)
            top = phase is Phase.LIVE and not told.waits_for
            if view.default_version is None or phase in (Phase.BACKTEST, Phase.RETIRED) or top:
                continue
            dossier = dossier_of(scene.store, view, sid)
            cleared = clear_for_live(view, sid, view.open_candidate(sid), dossier, scene.now)
            due = R.APPLY_DUE in {wait.reason for wait in told.waits_for}
            assert due is isinstance(cleared, Clearance)


@pytest.mark.parametrize("case", [*GATE_CASES, *APPROVAL_CASES], ids=lambda case: case[0])
def test_whatever_holds_the_gate_is_waited_for(case: Any) -> None:
    what, changes, now, dossier, reasons = case
    told = said_of(ready(**changes), now, dossier)
    waited = {wait.reason for wait in told.waits_for}
    assert waited, what
    assert R.APPLY_DUE not in waited
    if told.phase is Phase.PAPER and "standing" not in changes.get("candidate", {}):
        assert waited >= set(reasons) - SAID_OTHERWISE - {R.VALIDATION_FAILED}


def test_it_waits_to_be_applied_just_when_the_gate_is_open() -> None:
    for condition in CONDITIONS:
        if "default_version" in condition:
            continue
        view = ready(**condition)
        cleared = clear_for_live(view, ALPHA, view.open_candidate(ALPHA), DOSSIER, NOW)
        reasons = [wait.reason for wait in said_of(view).waits_for]
        assert (reasons == [R.APPLY_DUE]) is isinstance(cleared, Clearance)


def test_the_same_view_and_instant_say_the_same() -> None:
    for row in ROWS[::7]:
        assert row.made() == row.told
    assert everywhere() == everywhere()


def test_a_stranger_is_unknown() -> None:
    with pytest.raises(UnknownStrategy):
        explain(ready(), StrategyId("nobody"), DOSSIER, NOW)


def readmitted() -> Scene:
    """Demoted for its drawdown, a candidate again since, and that void by another policy."""
    scene = crashed()
    observe(scene, Stage.PAPER, 12)
    scene.evaluate(ALPHA)
    another_policy(scene, AUTO)
    return scene


def restated_live() -> Scene:
    scene = crashed()
    scene.wait(DAY)
    scene.restate(Stage.LIVE, ALPHA, daily(good(2), scene.now - DAY))
    return scene


TWO = governed(freeze=(*FROZEN.governance.freeze, *ENDLESS.governance.freeze))
YEARLY = governed(freeze=(Freeze(cron="0 0 1 6 *", length=HOUR),))
UNSAID: list[tuple[str, Callable[[], Explanation], str]] = [
    (
        "a freeze, to who is not at the gate",
        lambda: said_of(without_candidate(ready(policy=FROZEN))),
        "freeze allows",
    ),
    ("a freeze far ahead", lambda: said_of(ready(policy=YEARLY)), "no promotion for"),
    ("when one of two freezes ends", lambda: said_of(ready(policy=TWO)), "until 2026-01-17 01:00"),
    (
        "silence, on its last instant",
        lambda: of(after(live(MemoryStore()), lambda s: s.wait(15 * DAY))),
        "compute only until live returns come",
    ),
    (
        "that silence would come, when it has",
        lambda: of(after(live(MemoryStore()), lambda s: s.wait(16 * DAY))),
        "Without live returns after",
    ),
    ("the breaker twice", lambda: of(live(MemoryStore())), "A live run demotes it"),
    (
        "that a policy voids what is rejected",
        lambda: said_of(ready(candidate={"standing": Rejected(cast.PIA, NOW, "no")})),
        "voids the candidate and",
    ),
    (
        "a weight that was lowered, of who drains",
        lambda: said_of(activation(drain=True, weight=0.01), LATER),
        "lowered its weight",
    ),
    ("what of live was restated since", lambda: of(restated_live()), "It was live"),
    ("stress, before there is any", lambda: of(in_paper(MemoryStore())), "As things stand"),
    ("the last of one date", lambda: of(watched(9)), "The last of these dates"),
    (
        "that an operator may extend who did not pass",
        lambda: of(after(expired(), lambda s: restate_backtest(s))),
        "extends it",
    ),
]


def restate_backtest(scene: Scene) -> None:
    scene.restate(Stage.BACKTEST, ALPHA, daily(-good(30), START - DAY))


@pytest.mark.parametrize(("what", "made", "part"), UNSAID, ids=[case[0] for case in UNSAID])
def test_what_does_not_concern_it_is_not_said(
    what: str, made: Callable[[], Explanation], part: str
) -> None:
    assert [s for s in made().sentences if part in s] == []


def test_why_it_left_live_is_told_whatever_became_of_it_since() -> None:
    told = "\n".join(of(readmitted()).sentences)
    assert "until 2026-01-18, when a drawdown in live demoted it" in told


# ---- When --------------------------------------------------------------------------------------


def ahead(now: datetime = NOW, part: Part = Part.TIME, missing: float = 0.0, **track: Any) -> Any:
    view = ready(track=track)
    return outlook(view, 0, Stage.PAPER, POLICY, part, missing, now)


def test_a_rate_is_what_came_over_the_time_it_took() -> None:
    """Eleven days and twelve returns, at midnight from the 6th to the 17th."""
    assert ahead(missing=5 * 86_400.0).at == on(2026, 1, 22)
    assert ahead(part=Part.COUNT, missing=5.0).at == on(2026, 1, 22)
    half = {"window_us": 11 * 43_200_000_000}
    assert ahead(missing=5 * 86_400.0, **half).at == on(2026, 1, 27)
    assert ahead(part=Part.COUNT, missing=6.0, window_points=23).at == on(2026, 1, 20)


def test_it_does_not_change_while_the_next_return_is_awaited() -> None:
    dates = {ahead(NOW + hours * HOUR, missing=5 * 86_400.0).at for hours in (0, 5, 23, 60)}
    assert dates == {on(2026, 1, 22)}


def test_what_is_overdue_has_no_date() -> None:
    assert ahead(NOW + 3 * DAY, missing=86_400.0).at is None


def test_a_date_that_nobody_lives_to_see_is_none() -> None:
    slow = ahead(missing=86_400.0, window_us=1_000)
    assert (slow.at, slow.words) == (None, "at the present rate never: they come too slowly")
    still = ahead(missing=86_400.0, window_us=0)
    assert still.at is None


@pytest.mark.parametrize(
    ("hours", "silent"), [(5 * 24, False), (5 * 24 + 1, True)], ids=["not yet", "silent"]
)
def test_silence_is_longer_than_returns_may_be_late(hours: int, silent: bool) -> None:
    found = ahead(NOW - MINUTE + hours * HOUR, missing=90 * 86_400.0)
    assert (found.at is None) is silent
    assert ("never" in found.words) is silent


def test_silence_is_longer_than_any_gap_that_counts() -> None:
    hasty = replace(POLICY, data=replace(POLICY.data, max_lag=DAY))
    assert quiet_us(hasty) == quiet_us(POLICY) == 5 * 86_400_000_000
    patient = replace(POLICY, data=replace(POLICY.data, max_lag=9 * DAY))
    assert quiet_us(patient) == 9 * 86_400_000_000


def test_a_freeze_ends_when_the_last_that_runs_into_it_does() -> None:
    daily_ = Freeze(cron="0 20 * * *", length=10 * HOUR)
    assert daily_.until(on(2026, 1, 6, 3)) == on(2026, 1, 6, 6)
    assert daily_.until(on(2026, 1, 6, 6)) is None
    twice = Freeze(cron="0 20,22 * * *", length=3 * HOUR)
    assert twice.until(on(2026, 1, 6, 20)) == on(2026, 1, 7, 1)
    assert Freeze(cron="0 20 * * *", length=24 * HOUR).until(on(2026, 1, 6)) is None
    assert daily_.follows(on(2026, 1, 6, 20)) == on(2026, 1, 7, 20)


def test_names_are_listed_as_people_do() -> None:
    assert [listed(["a", "b", "c"][:count]) for count in range(4)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert listed("abcdefg", "or") == "a, b, c, d or 3 more"
    assert (counted(1, "return"), counted(2, "return")) == ("1 return", "2 returns")
    assert (counted(1, "entry"), counted(0, "strategy")) == ("1 entry", "0 strategies")
    assert (counted(1_200, "day"), counted(2, "entry")) == ("1,200 days", "2 entries")
