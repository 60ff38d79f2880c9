"""What people may do with a candidate: approve, withdraw, reject, release."""

from collections.abc import Collection
from datetime import datetime
from typing import assert_never

from . import facts as f
from .errors import Changed, Conflict, Forbidden
from .names import ActorId, Digest, Reason, Role, RunId, StrategyId
from .policy import AutoApply, Disabled, ManualApproval
from .promotion import barred, is_current, valid_approvals, void
from .view import (
    Applied,
    Approval,
    Approved,
    Candidate,
    Proposed,
    Rejected,
    Void,
    WorldView,
    hands_of,
)


def approve(
    view: WorldView,
    candidate: Candidate,
    by: ActorId,
    roles: Collection[Role],
    run_id: RunId,
    evidence: Digest,
    reason: str,
    now: datetime,
    sponsor: ActorId | None = None,
) -> tuple[f.Fact, ...]:
    """One person's approval of a candidate, and of the evidence they saw.  An expired one counts
    for nothing, so it may be given again.

    `sponsor` is who made the approver's credential, where that takes two people: what it approves,
    they may have approved themselves.

    Raises Forbidden for who may not, Conflict for what cannot be approved.
    """
    promotion = view.policy.governance.live_promotion
    match promotion:
        case ManualApproval():
            allowed = promotion.roles
            standing = valid_approvals(view, promotion, candidate, now)
        case Disabled():
            raise Conflict(
                "The policy promotes nobody to live.", reasons=(Reason.PROMOTION_DISABLED,)
            )
        case AutoApply():
            raise Conflict("The policy applies by itself; there is nothing to approve.")
        case _:
            assert_never(promotion)
    if not allowed & set(roles):
        raise Forbidden(f"an approver needs one of: {', '.join(sorted(allowed))}.")
    why = barred(view, candidate).get(by)
    if why is not None:
        raise Forbidden(f"the {why} of a candidate cannot approve it.")
    _must_be_of_other_hands(view, candidate, standing, by, sponsor)
    _must_be_open(candidate)
    if not is_current(view, candidate):
        raise Changed("The candidate was superseded.", reasons=(Reason.CANDIDATE_SUPERSEDED,))
    if any(a.by == by and a.evidence == evidence for a in standing):
        return ()
    return (
        f.ApprovalGiven(
            candidate_id=candidate.candidate_id,
            run_id=run_id,
            evidence=evidence,
            reason=reason,
            sponsor=sponsor,
        ),
    )


def _must_be_of_other_hands(
    view: WorldView,
    candidate: Candidate,
    standing: Collection[Approval],
    by: ActorId,
    sponsor: ActorId | None,
) -> None:
    """INVARIANT: n approvals are of n people, and of none who wrote or proposed it."""
    mine = hands_of(by, sponsor)
    if mine & barred(view, candidate).keys():
        raise Forbidden(
            f"the credential of {by} was made by {sponsor}, who wrote the strategy or proposed "
            f"the candidate: let another admin make one for {by}."
        )
    for other in standing:
        shared = sorted(other.hands & mine)
        if other.by != by and shared:
            raise Forbidden(
                f"this approval and that of {other.by} both lead back to {shared[0]}, who gave "
                "one of them or made the credential it came with: two from one hand count as one. "
                f"Let another admin make a credential for {by}."
            )


def withdraw(candidate: Candidate, by: ActorId) -> tuple[f.Fact, ...]:
    """One's own approval, taken back.  Once applied it is too late: demote."""
    if isinstance(candidate.standing, Applied):
        raise Conflict("The candidate was applied already.")
    if not any(approval.by == by for approval in candidate.approvals):
        return ()
    return (f.ApprovalWithdrawn(candidate_id=candidate.candidate_id),)


def reject(candidate: Candidate, reason: str) -> tuple[f.Fact, ...]:
    """Holds the candidate until an operator releases it.  Never needs evidence (I10)."""
    if isinstance(candidate.standing, Rejected):
        return ()
    _must_be_open(candidate)
    return (f.CandidateRejected(candidate_id=candidate.candidate_id, reason=reason),)


def release(view: WorldView, strategy_id: StrategyId, reason: str) -> tuple[f.Fact, ...]:
    """Lifts a rejection, and a hold.  What has been superseded meanwhile becomes void instead."""
    row = view.strategy(strategy_id).row
    facts: list[f.Fact] = []
    if view.standings.held[row]:
        facts.append(f.HoldReleased(strategy_id=strategy_id, reason=reason))
    candidate = view.open_candidate(strategy_id)
    if candidate is not None and isinstance(candidate.standing, Rejected):
        if is_current(view, candidate):
            released = f.CandidateReleased(candidate_id=candidate.candidate_id, reason=reason)
            facts.append(released)
        else:
            gone = Reason.CANDIDATE_SUPERSEDED
            facts.append(f.CandidateVoided(candidate_id=candidate.candidate_id, reason=gone))
    return tuple(facts)


def renamed(view: WorldView, strategy_id: StrategyId) -> tuple[f.Fact, ...]:
    """What was proposed for another fingerprint than the strategy's is void."""
    candidate = view.open_candidate(strategy_id)
    if candidate is None or candidate.fingerprint == view.strategy(strategy_id).fingerprint:
        return ()
    return void(candidate, Reason.FINGERPRINT_CHANGED)


def _must_be_open(candidate: Candidate) -> None:
    match candidate.standing:
        case Proposed() | Approved():
            return
        case Rejected():
            reason = Reason.CANDIDATE_REJECTED
            raise Conflict("The candidate is rejected until released.", reasons=(reason,))
        case Applied():
            raise Conflict("The candidate was applied already.")
        case Void(reason=why):
            gone = Reason.CANDIDATE_SUPERSEDED
            raise Conflict(f"The candidate is void: {why}.", reasons=(gone,))
        case other:
            assert_never(other)
