"""What was taken back from clients: how long it counts, and how much."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from immutables import Map

from qmtl.core import facts as f
from qmtl.core.decision import DECISION_TTL
from qmtl.core.fold import entries, fold
from qmtl.core.leases import LEASE_TERM, believed, outstanding, reserved, told
from qmtl.core.names import Phase, Reason, WorldState
from qmtl.core.view import Outstanding, WorldView
from qmtl.sim import cast
from tests.worlds import ALPHA, BETA, LATER, beside, climbing, newest_candidate

US, MINUTE = timedelta(microseconds=1), timedelta(minutes=1)
HELD = climbing().live[ALPHA]  # 0.1 of capital.


def after(view: WorldView, *facts: f.Fact, at: datetime = LATER) -> WorldView:
    return fold(view, entries(view, facts, cast.OTTO, at))


def lowered(weight: float = 0.1, freeze: bool = False, drain: bool = False) -> f.Fact:
    return f.ActivationLowered(strategy_id=ALPHA, weight=weight, freeze=freeze, drain=drain)


def applied(weight: float) -> f.Fact:
    candidate = newest_candidate(climbing())
    assert candidate is not None
    return f.PromotionApplied(
        candidate_id=candidate.candidate_id,
        strategy_id=ALPHA,
        run_id=candidate.run_id,
        evidence=candidate.evidence,
        snapshot_seq=1,
        step=1,
        weight=weight,
    )


def demoted(to: Phase = Phase.PAPER) -> f.Fact:
    return f.Demoted(strategy_id=ALPHA, to=to, reason=Reason.MANUAL, detail="", held=True)


def having(lease: Outstanding | None = None, **changes: Any) -> WorldView:
    """Alpha is live, with these changes; and with this taken back."""
    leases = Map() if lease is None else Map({ALPHA: lease})
    return climbing(live=Map({ALPHA: replace(HELD, **changes)}), outstanding=leases)


def lease(weight: float, until: datetime = LATER + MINUTE) -> Outstanding:
    return Outstanding(weight=weight, until=until, sequence=1)


def test_a_lease_outlasts_what_a_client_was_told() -> None:
    assert DECISION_TTL + timedelta(seconds=30) == LEASE_TERM


DOWN: list[tuple[str, WorldView, f.Fact, float]] = [
    ("lowered", having(), lowered(0.04), 0.1),
    ("lowered to nothing", having(), lowered(0.0), 0.1),
    ("lowered again", having(weight=0.04), lowered(0.03), 0.04),
    ("frozen", having(), lowered(freeze=True), 0.1),
    ("drained", having(), lowered(drain=True), 0.1),
    ("promoted to less", having(), applied(0.05), 0.1),
    ("demoted", having(), demoted(), 0.1),
    ("retired", having(), demoted(Phase.RETIRED), 0.1),
    ("killed", having(), f.Killed(reason=""), 0.1),
    ("closed to live", having(), f.LiveAllowed(allowed=False), 0.1),
    ("suspended", having(), f.StateChanged(state=WorldState.SUSPENDED), 0.1),
    ("archived", having(), f.StateChanged(state=WorldState.ARCHIVED), 0.1),
    ("demoted with less than was applied", having(weight=0.02), demoted(), 0.02),
    ("lowered while more is outstanding", having(lease(0.3)), lowered(0.04), 0.3),
    ("demoted while less is outstanding", having(lease(0.02)), demoted(), 0.1),
    ("demoted as what was more ends", having(lease(0.3, LATER)), demoted(), 0.1),
]
AS_IT_WAS: list[tuple[str, WorldView, f.Fact]] = [
    ("frozen, then demoted", having(freeze=True), demoted()),
    ("drained, then killed", having(drain=True), f.Killed(reason="")),
    ("at nothing, then frozen", having(weight=0.0), lowered(0.0, freeze=True)),
    ("frozen, then lowered", having(freeze=True), lowered(0.04, freeze=True)),
    ("given back", having(weight=0.02), lowered(0.1)),
    ("thawed", having(freeze=True), lowered()),
    ("frozen instead of drained", having(drain=True), lowered(freeze=True)),
    ("as it was", having(), lowered()),
    ("promoted", having(), applied(0.4)),
    ("let go of", having(), f.ActivationAcknowledged(strategy_id=ALPHA, sequence=1)),
    ("resumed", having(), f.Resumed(reason="")),
    ("allowed live", having(), f.LiveAllowed(allowed=True)),
    ("let go of what was taken back", having(lease(0.3)),
     f.ActivationAcknowledged(strategy_id=ALPHA, sequence=climbing().governance_generation)),
    ("given back while more is outstanding", having(lease(0.3), weight=0.02), lowered(0.1)),
]  # fmt: skip


@pytest.mark.parametrize(("what", "view", "fact", "weight"), DOWN, ids=[d[0] for d in DOWN])
def test_what_goes_down_is_outstanding(
    what: str, view: WorldView, fact: f.Fact, weight: float
) -> None:
    changed = after(view, fact)
    assert dict(changed.outstanding) == {
        ALPHA: Outstanding(
            weight=weight,
            until=LATER + LEASE_TERM,
            sequence=view.governance_generation + 1,
        )
    }, what
    assert believed(changed, ALPHA, LATER + LEASE_TERM - US) == weight
    assert believed(changed, ALPHA, LATER + LEASE_TERM) == told(changed.live.get(ALPHA))


@pytest.mark.parametrize(("what", "view", "fact"), AS_IT_WAS, ids=[a[0] for a in AS_IT_WAS])
def test_what_does_not_go_down_leaves_what_is_outstanding(
    what: str, view: WorldView, fact: f.Fact
) -> None:
    assert after(view, fact).outstanding == view.outstanding, what


def test_a_lease_is_not_shortened_by_a_fact_of_before() -> None:
    """Instants come from requests: a later entry may carry an earlier one."""
    long = lease(0.3, LATER + 2 * LEASE_TERM)
    (known,) = after(having(long), demoted()).outstanding.values()
    assert (known.weight, known.until) == (0.3, long.until)


def test_what_is_over_is_forgotten_when_something_else_goes_down() -> None:
    view = having()
    over, runs = lease(0.2, LATER), lease(0.2, LATER + US)
    beta = replace(view, outstanding=Map({BETA: over}))
    assert set(after(beta, demoted()).outstanding) == {ALPHA}
    beta = replace(view, outstanding=Map({BETA: runs}))
    assert set(after(beta, demoted()).outstanding) == {ALPHA, BETA}


def test_what_was_applied_is_reserved_and_what_is_outstanding() -> None:
    view = replace(
        climbing(live=beside(having(weight=0.05), BETA, weight=0.2)),
        outstanding=Map({BETA: lease(0.3), ALPHA: lease(0.08)}),
    )
    assert reserved(view, LATER) == {ALPHA: HELD.applied_weight, BETA: 0.3}
    assert reserved(view, LATER + MINUTE) == {ALPHA: HELD.applied_weight, BETA: 0.2}
    gone = replace(view, live=Map())
    assert reserved(gone, LATER) == {ALPHA: 0.08, BETA: 0.3}
    assert dict(outstanding(gone, LATER + MINUTE)) == {}
