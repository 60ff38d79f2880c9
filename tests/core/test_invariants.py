"""Every invariant is told apart: a sound view says nothing, and each broken one says what it is."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from immutables import Map

from qmtl.adapters.memory import MemoryStore
from qmtl.core.columns import Standings
from qmtl.core.facts import StrategyBound
from qmtl.core.fold import entries, fold
from qmtl.core.invariants import check
from qmtl.core.leases import LEASE_TERM
from qmtl.core.names import SYSTEM, Reason, StrategyId, WorldId, WorldState
from qmtl.core.times import NEVER, micros
from qmtl.core.view import (
    Applied,
    Confirmation,
    Outstanding,
    Proposed,
    Void,
    WorldRecord,
    WorldView,
)
from qmtl.sim import cast
from qmtl.sim.scene import START
from tests.worlds import (
    ALPHA,
    AUTO,
    BETA,
    GAMMA,
    LATER,
    NOW,
    beside,
    climbed,
    climbing,
    open_candidate,
    ready,
)

GONE = Void(NOW, Reason.MANUAL)
HELD = climbing().live[ALPHA]
APPROVALS = open_candidate(ready()).approvals


def live(**changes: Any) -> WorldView:
    return climbing(live=Map({ALPHA: replace(HELD, **changes)}))


def misfiled() -> WorldView:
    mine = open_candidate(ready())
    return ready(candidates=Map({mine.candidate_id: replace(mine, candidate_id="x")}))


def two_open() -> WorldView:
    mine = open_candidate(ready())
    other = replace(mine, candidate_id="other")
    return ready(
        candidates=ready().candidates.set("other", other),
        current=Map({ALPHA: (mine.candidate_id, "other")}),
    )


def writeable() -> WorldView:
    arrays = {name: array.copy() for name, array in ready().standings.arrays().items()}
    return ready(standings=Standings(**arrays))  # type: ignore[arg-type]  # They are its own.


def crowded(*others: StrategyId, weight: float = 0.1) -> WorldView:
    """Beside alpha others are live, as far as capital goes."""
    view = climbing()
    facts = [
        StrategyBound(strategy_id=o, name="", author=cast.BOB, fingerprint=None, variants_tried=1)
        for o in others
    ]
    bound = fold(view, entries(view, facts, cast.BOB, LATER))
    return replace(bound, live=beside(bound, *others, weight=weight))


RUNS = LATER + timedelta(seconds=1)


def leased(weight: float, until: datetime = RUNS, sequence: int = 1) -> Outstanding:
    return Outstanding(weight=weight, until=until, sequence=sequence)


RECORD = WorldRecord(
    world_id=WorldId("v"),
    name="",
    description="",
    labels={},
    allow_live=False,
    created_at=NOW,
    created_by=cast.POLLY,
)
ASKED = Confirmation(confirmation_id="c", what="resume", policy_version=None, by=cast.OTTO, at=NOW)
# (what the violation says, the broken view)
BROKEN: list[tuple[str, WorldView]] = [
    # Rows.
    ("ids: rows are not", ready(ids=Map())),
    ("is not its own", ready(ids=Map({0: BETA}))),
    ("standings: columns of", ready(standings=Standings.blank(0))),
    ("can be changed in place", writeable()),
    ("not blank", ready(standings=ready().standings.put(3, held=True))),
    ("blocked: omega", ready(blocked=Map({StrategyId("omega"): ()}))),
    # The world.
    ("a generation is negative", ready(evidence_generation=-1)),
    ("more generations than", ready(governance_generation=999)),
    ("versions have gaps", ready(policies=ready().policies.set(3, ready().policies[1]))),
    ("policy version is misfiled", ready(policies=ready().policies.set(2, ready().policies[1]))),
    ("version 9 does not exist", ready(default_version=9)),
    ("promotion is in the future", ready(promoted_at=LATER)),
    ("confirmation is misfiled", ready(confirmations=Map({"d": ASKED}))),
    ("in _system only", ready(worlds=Map({"v": RECORD}))),
    ("in _system only", ready(code="f" * 64)),
    ("no strategies and no policies", ready(world_id=SYSTEM)),
    # Standings.
    ("standings: no phase", ready(standing={"phase": 9})),
    ("if and only if in the live set", ready(standing={"phase": 2})),
    ("if and only if in the live set", climbing(standing={"phase": 1})),
    ("on the ramp if and only if live", ready(standing={"step": 0})),
    ("on the ramp if and only if live", climbing(standing={"step": -1})),
    ("part of a live window is used up", ready(standing={"step_window_us": 1})),
    ("a negative window was used up", climbing(standing={"step_window_us": -1})),
    ("held and live", climbing(standing={"held": True})),
    ("a negative extension", ready(standing={"extension_us": -1})),
    ("entered its phase in the future", ready(standing={"entered_at": micros(NOW) + 1})),
    ("entered its phase in the future", ready(standing={"entered_at": NEVER})),
    ("its window began before it was", ready(standing={"entered_at": micros(NOW)})),
    ("its window began at another time", climbing(standing={"entered_at": micros(START)})),
    # Series.
    ("fewer than no points", ready(track={"points": -1})),
    ("a first time without points", ready(track={"first_t": NEVER})),
    ("a last time without points", ready(track={"points": 0})),
    ("a digest without points", ready(track={"digest": b""})),
    ("the last point is before the first", ready(track={"first_t": micros(LATER)})),
    ("a point from the future", ready(track={"last_t": micros(NOW) + 60_000_001})),
    # Windows.
    ("more points in the window", ready(track={"window_points": 99})),
    ("a window's first time", ready(track={"window_first_t": NEVER})),
    ("a window's last time", ready(track={"window_last_t": NEVER})),
    ("that was not entered", ready(track={"window_from": NEVER})),
    ("from before it began", ready(track={"window_from": micros(NOW)})),
    ("ends before it begins", ready(track={"window_first_t": micros(NOW)})),
    ("ends after its series", ready(track={"window_last_t": micros(NOW)})),
    ("longer than its points", ready(track={"window_us": 12 * 86_400_000_000})),
    ("longer than its points", ready(track={"window_us": -1})),
    ("without two points", ready(track={"window_points": 1})),
    ("equity is not a number", ready(track={"equity": np.nan})),
    ("equity is not a number", ready(track={"equity": -0.1})),
    ("peak is not the peak", ready(track={"peak": np.inf})),
    ("peak is not the peak", ready(track={"peak": 1.0})),
    ("a drawdown outside", ready(track={"drawdown": 1.1})),
    ("a drawdown outside", ready(track={"drawdown": np.nan})),
    ("a drawdown forgotten", ready(track={"equity": 0.5, "drawdown": 0.1})),
    # Judgements.
    ("paper: no verdict", ready(track={"verdict": 9})),
    ("a verdict without a policy", ready(track={"judged_policy": 0})),
    ("a policy that does not exist", ready(track={"judged_policy": 2})),
    ("digest was judged without", ready(track={"verdict": 0})),
    ("point was judged without", ready(track={"verdict": 0})),
    ("judged that is not there", ready(track={"judged_t": micros(LATER)})),
    ("ends elsewhere", ready(track={"judged_t": 0})),
    ("not that of the latest run", ready(track={"verdict": 2})),
    ("not that of the latest run", ready(runs=Map())),
    # Snapshots.
    ("a snapshot without its as_of", ready(track={"covered_as_of": NEVER})),
    ("a snapshot without a TTL", ready(track={"covered_ttl_us": 0})),
    ("a snapshot not in the journal", ready(track={"covered_seq": 999})),
    ("a snapshot from the future", ready(track={"covered_as_of": micros(LATER)})),
    ("a stress loss outside", ready(track={"stress_loss": 1.1})),
    # The live set.
    ("live: the world does not allow live", climbing(allow_live=False)),
    ("live: the world was killed", climbing(killed=True)),
    ("live: the world is suspended", climbing(state=WorldState.SUSPENDED)),
    ("live: the world has no policy", climbing(default_version=None)),
    ("live: nobody was ever promoted", climbing(promoted_at=None)),
    ("by no candidate of its own", live(candidate_id="x")),
    ("by no candidate of its own", live(strategy_id=BETA)),
    ("by a candidate that is not applied", live(
        candidate_id=open_candidate(climbing()).candidate_id)),
    ("weights sum to 0.9", crowded(BETA, weight=0.8)),
    ("3 strategies in 2 slots", crowded(BETA, GAMMA)),
    ("at another step than its candidate", live(step=1)),
    ("at another step than its standing", climbing(standing={"step": 1})),
    ("step 7 of a ramp of 2", live(step=7)),
    ("is not within what was applied", live(weight=0.11)),
    ("is not within what was applied", live(weight=-0.01)),
    ("is not within what was applied", live(weight=np.nan)),
    ("was applied, and 0.1 cleared", live(applied_weight=0.4)),
    ("was never issued", live(sequence=999)),
    ("that was never issued", live(acknowledged=999)),
    ("activated in the future", live(at=LATER + timedelta(days=1))),
    # What was taken back.
    ("outstanding: omega", climbing(outstanding=Map({StrategyId("omega"): leased(0.1)}))),
    ("taken back: alpha: it is of no weight", climbing(outstanding=Map({ALPHA: leased(0.0)}))),
    ("taken back: alpha: it is of no weight", climbing(outstanding=Map({ALPHA: leased(np.nan)}))),
    ("longer than any lease", climbing(outstanding=Map({ALPHA: leased(
        0.1, until=LATER + LEASE_TERM + timedelta(microseconds=1))}))),
    ("taken back: alpha: its sequence", climbing(outstanding=Map({ALPHA: leased(
        0.1, sequence=999)}))),
    ("taken back: alpha: its sequence", climbing(outstanding=Map({ALPHA: leased(
        0.1, sequence=0)}))),
    ("with what was taken back weights sum to 0.9", climbing(outstanding=Map({
        ALPHA: leased(0.9)}))),
    ("with what was taken back 3 strategies have slots", replace(
        crowded(BETA, GAMMA), live=crowded(BETA).live, outstanding=Map({GAMMA: leased(0.1)}))),
    # Candidates.
    ("it is misfiled", misfiled()),
    ("it is misfiled", ready(candidate={"policy_version": 9})),
    ("step 5 is not on the ramp", ready(candidate={"step": 5})),
    ("somebody approved it twice", ready(candidate={"approvals": APPROVALS[:1] * 2})),
    ("its proposer approved it", ready(candidate={"proposer": cast.PIA})),
    ("the author approved it", ready(candidate={
        "approvals": (replace(APPROVALS[0], by=cast.ANN), APPROVALS[1])})),
    ("where nobody approves", ready(policy=AUTO)),
    ("without the approvals it needs", ready(candidate={"approvals": ()})),
    ("and is not approved", ready(candidate={"standing": Proposed()})),
    ("it is current and void", ready(candidate={"standing": GONE})),
    ("it is current and void", ready(current=Map({ALPHA: ()}))),
    ("an entry that is not in the journal", climbing(candidate={"standing": Applied(NOW, 999)})),
    # Together.
    ("names a candidate twice", ready(current=Map({
        ALPHA: (open_candidate(ready()).candidate_id,) * 2}))),
    ("live without an applied candidate", climbing(current=Map({ALPHA: ()}))),
    ("live without an applied candidate", ready(candidate={"standing": Applied(NOW, 1)})),
    ("at another step than was applied last", climbing(
        candidate={"standing": Applied(NOW, 1)})),
    ("has 2 open candidates", two_open()),
    ("another policy is in force", ready(
        default_version=2, policies=ready().policies.set(2, replace(
            ready().policies[1], version=2)))),
    ("it is not one step up", ready(candidate={"step": 1})),
    ("the strategy is in backtest_campaign", ready(standing={"phase": 0})),
]  # fmt: skip


@pytest.mark.parametrize(("told", "view"), BROKEN, ids=[told for told, _ in BROKEN])
def test_what_is_broken_is_told(told: str, view: WorldView) -> None:
    found = check(view, LATER if view.live else NOW)
    assert any(told in violation for violation in found), found


def test_a_sound_view_says_nothing() -> None:
    assert check(ready(), NOW) == ()
    assert check(climbing(), LATER) == ()
    assert check(WorldView(world_id=WorldId("new")), START) == ()


def test_the_system_world_is_sound() -> None:
    store = climbed(MemoryStore()).store
    assert check(store.load(SYSTEM), LATER) == ()
