"""What facts mean for candidates: the part of the fold that people and the gate act on."""

from dataclasses import replace

from . import facts as f
from .names import CandidateId, Reason, StrategyId
from .policy import ManualApproval
from .view import (
    Approval,
    Approved,
    Candidate,
    Proposed,
    Rejected,
    Standing,
    Void,
    WorldView,
)


def candidate_fact(view: WorldView, entry: f.Entry, fact: f.Fact) -> WorldView:
    match fact:
        case f.CandidateProposed():
            return _candidate_proposed(view, entry, fact)
        case f.ApprovalGiven(candidate_id=cid):
            given = Approval(
                entry.actor, entry.at, fact.run_id, fact.evidence, fact.reason, fact.sponsor
            )
            candidate = view.candidates[cid]
            others = tuple(a for a in candidate.approvals if a.by != entry.actor)
            return _approvals(view, entry, replace(candidate, approvals=(*others, given)))
        case f.ApprovalWithdrawn(candidate_id=cid):
            candidate = view.candidates[cid]
            others = tuple(a for a in candidate.approvals if a.by != entry.actor)
            fewer = replace(candidate, approvals=others)
            if isinstance(candidate.standing, Proposed | Approved):
                return _approvals(view, entry, fewer)
            # INVARIANT: only a release lifts a rejection.
            return replace(view, candidates=view.candidates.set(cid, fewer))
        case f.CandidateRejected(candidate_id=cid, reason=reason):
            return stand(view, cid, Rejected(entry.actor, entry.at, reason))
        case f.CandidateReleased(candidate_id=cid):
            return _approvals(view, entry, replace(view.candidates[cid], approvals=()))
        case f.CandidateVoided(candidate_id=cid, reason=why):
            return void(view, entry, cid, why)
        case f.PromotionBlocked(strategy_id=sid, reasons=reasons):
            return replace(view, blocked=view.blocked.set(sid, reasons))
        case _:
            raise AssertionError(f"{fact.kind} has no meaning here")


def _candidate_proposed(view: WorldView, entry: f.Entry, fact: f.CandidateProposed) -> WorldView:
    candidate = Candidate(
        candidate_id=fact.candidate_id,
        strategy_id=fact.strategy_id,
        fingerprint=fact.fingerprint,
        policy_version=fact.policy_version,
        entered_at=fact.entered_at,
        step=fact.step,
        run_id=fact.run_id,
        evidence=fact.evidence,
        proposed_at=entry.at,
        proposer=entry.actor,
        standing=Proposed(),
    )
    return replace(
        view,
        candidates=view.candidates.set(fact.candidate_id, candidate),
        current=view.current.set(
            fact.strategy_id, (*view.current.get(fact.strategy_id, ()), fact.candidate_id)
        ),
    )


def _approvals(view: WorldView, entry: f.Entry, candidate: Candidate) -> WorldView:
    """Proposed or Approved, by how many approvals the candidate's policy asks for."""
    promotion = view.policies[candidate.policy_version].policy.governance.live_promotion
    needed = promotion.min if isinstance(promotion, ManualApproval) else 0
    enough = len(candidate.approvals) >= needed > 0
    standing = Approved(entry.at) if enough else Proposed()
    view = replace(view, candidates=view.candidates.set(candidate.candidate_id, candidate))
    return stand(view, candidate.candidate_id, standing)


def stand(view: WorldView, candidate_id: CandidateId, standing: Standing) -> WorldView:
    candidate = replace(view.candidates[candidate_id], standing=standing)
    view = replace(view, candidates=view.candidates.set(candidate_id, candidate))
    if isinstance(standing, Void):
        sid = candidate.strategy_id
        rest = tuple(c for c in view.current.get(sid, ()) if c != candidate_id)
        view = replace(view, current=view.current.set(sid, rest))
    return view


def void(view: WorldView, entry: f.Entry, candidate_id: CandidateId, why: Reason) -> WorldView:
    return stand(view, candidate_id, Void(entry.at, why))


def void_all(view: WorldView, entry: f.Entry, sid: StrategyId, why: Reason) -> WorldView:
    """The strategy's candidates that are open or applied are void.  A rejection stands."""
    for candidate_id in view.current.get(sid, ()):
        if not isinstance(view.candidates[candidate_id].standing, Rejected):
            view = void(view, entry, candidate_id, why)
    return view
