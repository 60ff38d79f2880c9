"""A candidate: what it asks for, what the gate says to each point, and what people say.

Approving and rejecting name the evidence that is on the screen; when that has changed meanwhile,
nothing is done.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Path, Response

from qmtl.app import promotions
from qmtl.app.inputs import gate_inputs
from qmtl.app.points import POINTS, Asked, asked
from qmtl.app.ports import Store
from qmtl.app.step import world
from qmtl.core.confirmations import standing
from qmtl.core.names import CandidateId, StrategyId
from qmtl.core.promotion import Blocked
from qmtl.core.view import Applied, Candidate, Rejected, Void, WorldView
from qmtl.core.windows import evidence_stage
from qmtl.entry import auth
from qmtl.entry.door import WorldIn

from .people import whom_it_waits_for
from .visits import Pages, VisitIn

PAGES = Pages()
CandidateIn = Annotated[CandidateId, Path(pattern=r"^[0-9a-f]{1,64}$")]


@dataclass(frozen=True, slots=True)
class Check:
    """One point of the gate.  `why`: each reason against it, in words; empty when it holds."""

    name: str
    value: str
    why: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.why


def checks(
    store: Store, view: WorldView, candidate: Candidate, blocked: Blocked | None, now: datetime
) -> Iterator[Check]:
    """Every point of the gate with its numbers; what is against it is what the gate itself says."""
    dossier = promotions.dossier_of(store, view, candidate.strategy_id)
    run = store.run(view.world_id, candidate.strategy_id, candidate.run_id)
    judged = None if run is None else run.run
    found = gate_inputs(view, candidate.strategy_id, candidate, dossier, judged, now)
    rows = asked(found, blocked.problems if blocked is not None else ())
    for point in POINTS:
        yield _check(point, [row for row in rows if row.point == point])
    others = [row for row in rows if not row.point and row.against]
    if others:
        yield _check("Everything else", others)


def _check(name: str, rows: list[Asked]) -> Check:
    told = [f"{row.name}: {row.value}" for row in rows if row.value]
    return Check(name, "; ".join(told), tuple(dict.fromkeys(d for r in rows for d in r.against)))


@dataclass(frozen=True, slots=True)
class Weight:
    """A strategy's live weight before and after, as fractions of capital."""

    strategy_id: StrategyId
    before: float
    after: float


def weights(view: WorldView, plan: promotions.Plan) -> list[Weight]:
    """What apply would change; where it would be refused, nothing changes."""
    sids = sorted({*view.live, *plan.weights})
    before = {sid: held.weight for sid, held in view.live.items()}
    return [Weight(sid, before.get(sid, 0.0), plan.weights.get(sid, 0.0)) for sid in sids]


@PAGES.shows(auth.UI + "/worlds/{world_id}/candidates/{candidate_id}")
def get(visit: VisitIn, world_id: WorldIn, candidate_id: CandidateIn) -> Response:
    """One candidate, whether it stands or not."""
    store, now = visit.store, visit.call.by_token.now
    view = world(store, world_id)
    candidate = view.candidate(candidate_id)
    found = promotions.standing(store, view, candidate, now)
    over = isinstance(candidate.standing, Applied | Void)
    run = store.run(world_id, candidate.strategy_id, candidate.run_id)
    whom, why = ("", "") if over else whom_it_waits_for(found)
    ramp = view.policy.governance.ramp
    step = ramp[candidate.step] if candidate.step < len(ramp) else None
    return visit.page(
        "candidate.html",
        view=view,
        candidate=candidate,
        standing=type(candidate.standing).__name__.lower(),
        over=over,
        rejected=isinstance(candidate.standing, Rejected),
        found=found,
        whom=whom,
        why=why,
        run=run,
        stage=evidence_stage(candidate.step),
        step=step,
        weight=None if step is None else step.fraction * view.policy.governance.allocation,
        checks=[] if over else list(checks(store, view, candidate, found.plan.blocked, now)),
        weights=[] if over else weights(view, found.plan),
        offers=_offers(visit, world_id, candidate, found, over=over),
        expired=[a for a in candidate.approvals if a not in found.approvals_valid],
        asks=standing(view, now),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What whoever is signed in may do now; `why_not` says what keeps them from approving."""

    approve: bool
    why_not: str
    withdraw: bool
    reject: bool
    release: bool
    apply: bool


def _offers(
    visit: VisitIn,
    world_id: WorldIn,
    candidate: Candidate,
    found: promotions.Standing,
    *,
    over: bool,
) -> Offers:
    live = f"POST {auth.UI}/worlds/{{world_id}}/promotions/live"
    me, rejected = visit.call.credential.actor, isinstance(candidate.standing, Rejected)
    stands = not over and not rejected
    mine = any(a.by == me and a.evidence == candidate.evidence for a in found.approvals_valid)
    why_not = _why_not(visit, world_id, found)
    return Offers(
        approve=stands and not mine and not why_not,
        why_not=why_not if stands else "",
        withdraw=stands and any(a.by == me for a in candidate.approvals),
        reject=stands and visit.may(f"{live}/reject", world_id),
        release=rejected and visit.may(f"{live}/release", world_id),
        apply=stands and found.plan.blocked is None and visit.may(f"{live}/apply", world_id),
    )


def _why_not(visit: VisitIn, world_id: WorldIn, found: promotions.Standing) -> str:
    """Why whoever is signed in may not approve; the use case asks all of it again."""
    if not found.approver_roles:
        return "Under this policy nobody approves."
    roles = visit.call.credential.roles_in(world_id)
    if not found.approver_roles & roles:
        return f"Approving takes one of the roles: {', '.join(sorted(found.approver_roles))}."
    barred = found.barred.get(visit.call.credential.actor)
    return "" if barred is None else f"The {barred} of a candidate cannot approve it."
