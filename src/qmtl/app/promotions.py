"""Live promotion: candidates, plans, approvals, and the way through the gate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from qmtl.core import approvals, campaign, evaluation, promotion
from qmtl.core.errors import Changed, Conflict, UnknownCandidate, UnknownRun
from qmtl.core.evidence.drift import Healthy, healthy
from qmtl.core.facts import Fact
from qmtl.core.metrics import UNITS
from qmtl.core.names import (
    ActorId,
    Digest,
    Phase,
    Reason,
    Role,
    RunId,
    Stage,
    StrategyId,
    WorldId,
)
from qmtl.core.policy import AutoApply, ManualApproval, Policy
from qmtl.core.promotion import Blocked, Clearance, Dossier, Problem
from qmtl.core.series import Series, correlation
from qmtl.core.view import Activation, Applied, Approval, Candidate, Rejected, WorldView
from qmtl.core.windows import evidence_stage

from .evaluations import subject_of
from .ports import Store
from .step import GOVERNANCE, By, foreseen, step


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What apply would do now: who goes in, every weight after it, or every reason why not."""

    strategy_id: StrategyId
    candidate: Candidate | None
    blocked: Blocked | None
    activate: tuple[StrategyId, ...]
    weights: Mapping[StrategyId, float]
    cooldown_remaining_sec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A candidate as it is listed: itself, and what the gate says of it now."""

    candidate: Candidate
    plan: Plan
    approvals_needed: int
    approvals_valid: tuple[Approval, ...]
    approvals_expire: timedelta | None  # After they are given; None where nobody approves.
    barred: Mapping[ActorId, str]  # Who may not approve, and why.
    approver_roles: frozenset[Role]

    @property
    def approvals_missing(self) -> int:
        return max(0, self.approvals_needed - len(self.approvals_valid))


def dossier_of(store: Store, view: WorldView, sid: StrategyId) -> Dossier:
    """The strategy's evidence for its next step, judged anew unless just that was judged."""
    policy, row = view.policy, view.strategy(sid).row
    stage = evidence_stage(promotion.step_ahead(view, row))
    latest, track = view.runs.get((sid, stage)), view.tracks[stage]
    if latest is None or view.verdict(row, stage) is None:
        return Dossier(verdict=None)
    judged = track.judged_digest[row] == track.digest[row]
    # What a snapshot carries beside returns may have changed, and no digest would tell.
    told = all(bound.metric in UNITS for bound in policy.gates.of(stage))
    if judged and told and int(track.judged_policy[row]) == view.default_version:
        verdict, problems = latest.verdict, latest.problems
    else:
        subject = subject_of(store, view, sid, stage, latest.run_id)
        run = evaluation.evaluate(view, stage, subject)
        verdict, problems = run.verdict, run.problems
    return Dossier(
        verdict=verdict,
        problems=problems,
        correlations=_correlations(store, view, sid, policy),
        healthy=_healthy(store, view, sid, policy),
        volatility=_volatility(store, view, sid, problems),
    )


def _volatility(
    store: Store, view: WorldView, sid: StrategyId, problems: Sequence[Problem]
) -> float | None:
    if all(reason is not Reason.CONSISTENCY_FAILED for reason, _ in problems):
        return None
    since = int(view.tracks[Stage.PAPER].window_from[view.strategies[sid].row])
    returns = store.series(view.world_id, sid, Stage.PAPER).since(since)
    return float(returns.std(ddof=1)) if len(returns) > 1 else None


def _healthy(store: Store, view: WorldView, sid: StrategyId, policy: Policy) -> Healthy | None:
    """What live will have to keep up, of the paper window; None where the policy does not ask."""
    row = view.strategies[sid].row
    decays = policy.evidence is not None and policy.evidence.decay_mean_false_alarm is not None
    if not decays or promotion.step_ahead(view, row) > 0:
        return None
    since = int(view.tracks[Stage.PAPER].window_from[row])
    return healthy(store.series(view.world_id, sid, Stage.PAPER).since(since))


def _correlations(
    store: Store, view: WorldView, sid: StrategyId, policy: Policy
) -> dict[StrategyId, float | None]:
    """With each live strategy, on paper and live returns; empty when the policy does not ask."""
    if policy.risk.max_pairwise_correlation_to_live is None:
        return {}

    def traded(strategy_id: StrategyId) -> tuple[Series, ...]:
        stages = (evidence_stage(0), evidence_stage(1))
        return tuple(store.series(view.world_id, strategy_id, stage) for stage in stages)

    mine = traded(sid)
    found: dict[StrategyId, float | None] = {}
    for other in view.live:
        pairs = [correlation(a, b) for a in mine for b in traded(other)]
        known = [pair for pair in pairs if pair is not None]
        found[other] = max(known, default=None)
    return found


def plan(
    store: Store, view: WorldView, now: datetime, sid: StrategyId, run_id: RunId | None
) -> Plan:
    """What apply would do now.  Changes nothing."""
    candidate = _find(store, view, sid, run_id) if run_id else view.open_candidate(sid)
    return _plan(store, view, sid, candidate, now)


def _plan(
    store: Store, view: WorldView, sid: StrategyId, candidate: Candidate | None, now: datetime
) -> Plan:
    cleared = promotion.clear_for_live(view, sid, candidate, dossier_of(store, view, sid), now)
    weights = {live: a.weight for live, a in sorted(view.live.items())}
    blocked = cleared if isinstance(cleared, Blocked) else None
    if isinstance(cleared, Clearance):
        weights[sid] = cleared.weight
    return Plan(
        strategy_id=sid,
        candidate=candidate,
        blocked=blocked,
        activate=() if blocked else (sid,),
        weights=weights,
        cooldown_remaining_sec=promotion.cooldown_remaining_sec(view, view.policy, now),
    )


def candidates(store: Store, view: WorldView, now: datetime) -> list[Standing]:
    """Every candidate that is open or applied, by strategy and step, each with its plan."""
    found = []
    for sid in sorted(view.current):
        for candidate_id in view.current[sid]:
            found.append(standing(store, view, view.candidates[candidate_id], now))
    return found


def standing(store: Store, view: WorldView, candidate: Candidate, now: datetime) -> Standing:
    """One of them: with who has approved, who is missing, and who may not."""
    shown = _plan(store, view, candidate.strategy_id, candidate, now)
    asked = view.policy.governance.live_promotion
    manual = asked if isinstance(asked, ManualApproval) else None
    valid = promotion.valid_approvals(view, manual, candidate, now) if manual else ()
    return Standing(
        candidate=candidate,
        plan=shown,
        approvals_needed=manual.min if manual else 0,
        approvals_valid=valid,
        approvals_expire=manual.expires if manual else None,
        barred=promotion.barred(view, candidate),
        approver_roles=manual.roles if manual else frozenset(),
    )


def apply(
    store: Store, world_id: WorldId, by: By, sid: StrategyId, run_id: RunId
) -> Activation | Blocked:
    """Through the gate, or every reason why not, recorded.  Twice is once."""

    def decide(view: WorldView) -> tuple[Activation | Blocked, Sequence[Fact]]:
        candidate = _find(store, view, sid, run_id)
        held = view.live.get(sid)
        if candidate is not None and isinstance(candidate.standing, Applied) and held is not None:
            return held, ()
        return _through_the_gate(store, view, by, sid, candidate)

    return step(store, world_id, by, decide)


def _through_the_gate(
    store: Store, view: WorldView, by: By, sid: StrategyId, candidate: Candidate | None
) -> tuple[Activation | Blocked, tuple[Fact, ...]]:
    dossier = dossier_of(store, view, sid)
    cleared = promotion.clear_for_live(view, sid, candidate, dossier, by.now)
    match cleared:
        case Clearance():
            facts = promotion.apply(cleared)
            return foreseen(view, facts, by).live[sid], facts
        case Blocked():
            return cleared, promotion.block(view, sid, candidate, cleared)


@dataclass(frozen=True, slots=True)
class AutoApplied:
    applied: tuple[Activation, ...]
    blocked: tuple[tuple[StrategyId, Blocked], ...]


def auto_apply(
    store: Store, world_id: WorldId, by: By, sid: StrategyId | None, run_id: RunId | None
) -> AutoApplied:
    """The same gate for all open candidates, the best evidence first.  Skips the approval only.

    Raises Conflict unless the policy's mode is auto_apply.
    """

    def decide(view: WorldView) -> tuple[AutoApplied, Sequence[Fact]]:
        if not isinstance(view.policy.governance.live_promotion, AutoApply):
            why = (Reason.PROMOTION_DISABLED,)
            raise Conflict("The policy's live_promotion is not auto_apply.", reasons=why)
        applied: list[Activation] = []
        blocked: list[tuple[StrategyId, Blocked]] = []
        facts: tuple[Fact, ...] = ()
        for candidate in _in_order_of_evidence(store, view, sid, run_id):
            after = foreseen(view, facts, by)
            mine = candidate.strategy_id
            answer, more = _through_the_gate(store, after, by, mine, candidate)
            facts += more
            if isinstance(answer, Blocked):
                blocked.append((mine, answer))
            else:
                applied.append(answer)
        return AutoApplied(tuple(applied), tuple(blocked)), facts

    return step(store, world_id, by, decide)


def _in_order_of_evidence(
    store: Store, view: WorldView, sid: StrategyId | None, run_id: RunId | None
) -> list[Candidate]:
    if sid is not None:
        view.strategy(sid)
    asked = [
        candidate
        for candidate in view.open_candidates()
        if not isinstance(candidate.standing, Rejected)
        and sid in (None, candidate.strategy_id)
        and run_id in (None, candidate.run_id)
    ]

    def strength(candidate: Candidate) -> tuple[float, str]:
        run = store.run(view.world_id, candidate.strategy_id, candidate.run_id)
        sharpe = None if run is None else run.run.value("sharpe_annual")
        return (float("inf") if sharpe is None else -sharpe, candidate.strategy_id)

    return sorted(asked, key=strength)


def _find(store: Store, view: WorldView, sid: StrategyId, run_id: RunId) -> Candidate | None:
    """The candidate that a run stands for: the one it proposed or supports.

    None when the run is of no candidate that stands.  Raises UnknownStrategy, UnknownRun.
    """
    view.strategy(sid)
    for candidate_id in view.current.get(sid, ()):
        if view.candidates[candidate_id].run_id == run_id:
            return view.candidates[candidate_id]
    run = store.run(view.world_id, sid, run_id)
    if run is None:
        raise UnknownRun(run_id)
    candidate = view.open_candidate(sid)
    if candidate is None or run.run.stage is not evidence_stage(candidate.step):
        return None
    since_entry = run.at >= candidate.entered_at
    same_policy = run.run.policy_version == candidate.policy_version
    return candidate if since_entry and same_policy else None


def _standing_candidate(store: Store, view: WorldView, sid: StrategyId, run_id: RunId) -> Candidate:
    candidate = _find(store, view, sid, run_id)
    if candidate is None:
        raise UnknownCandidate(f"run {run_id} of {sid} is of no candidate that stands")
    return candidate


def _must_be_as_seen(candidate: Candidate, evidence_digest: Digest | None) -> None:
    if evidence_digest is not None and evidence_digest != candidate.evidence:
        changed = (Reason.EVIDENCE_CHANGED,)
        raise Changed("The evidence has changed; look again.", reasons=changed)


def approve(
    store: Store,
    world_id: WorldId,
    by: By,
    sid: StrategyId,
    run_id: RunId,
    reason: str,
    evidence_digest: Digest | None,
) -> Candidate:
    """One person's approval.  Raises Changed when the evidence they name is no longer current."""

    def decide(view: WorldView) -> tuple[Candidate, Sequence[Fact]]:
        candidate = _standing_candidate(store, view, sid, run_id)
        _must_be_as_seen(candidate, evidence_digest)
        run = store.run(world_id, sid, run_id)
        seen = candidate.evidence if run is None else run.run.evidence
        evidence = evidence_digest or seen
        facts = approvals.approve(
            view, candidate, by.actor, by.roles, run_id, evidence, reason, by.now, by.sponsor
        )
        after = foreseen(view, facts, by)
        return after.candidates[candidate.candidate_id], facts

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def withdraw(store: Store, world_id: WorldId, by: By, sid: StrategyId, run_id: RunId) -> Candidate:
    """One's own approval, taken back."""

    def decide(view: WorldView) -> tuple[Candidate, Sequence[Fact]]:
        candidate = _standing_candidate(store, view, sid, run_id)
        facts = approvals.withdraw(candidate, by.actor)
        return foreseen(view, facts, by).candidates[candidate.candidate_id], facts

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def reject(
    store: Store,
    world_id: WorldId,
    by: By,
    sid: StrategyId,
    run_id: RunId,
    reason: str,
    evidence_digest: Digest | None = None,
) -> Candidate:
    """Holds the candidate until an operator releases it.  It needs no evidence (I10); who names
    what they saw is told when that has changed: raises Changed."""

    def decide(view: WorldView) -> tuple[Candidate, Sequence[Fact]]:
        candidate = _standing_candidate(store, view, sid, run_id)
        _must_be_as_seen(candidate, evidence_digest)
        facts = approvals.reject(candidate, reason)
        return foreseen(view, facts, by).candidates[candidate.candidate_id], facts

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def release(store: Store, world_id: WorldId, by: By, sid: StrategyId, reason: str) -> None:
    """Lifts a rejection, and the hold of a manual demotion."""

    def decide(view: WorldView) -> tuple[None, Sequence[Fact]]:
        return None, approvals.release(view, sid, reason)

    step(store, world_id, by, decide, reads=GOVERNANCE)


def demote(
    store: Store, world_id: WorldId, by: By, sid: StrategyId, to: Phase, reason: str
) -> Phase:
    """Down, and held there until released.  Asks for nothing (I10)."""

    def decide(view: WorldView) -> tuple[Phase, Sequence[Fact]]:
        facts = promotion.demote(view, sid, to, Reason.MANUAL, reason, held=True)
        after = foreseen(view, facts, by)
        return after.phase(after.strategies[sid].row), facts

    return step(store, world_id, by, decide, reads=GOVERNANCE, archived=True)


def extend(
    store: Store, world_id: WorldId, by: By, sid: StrategyId, by_sec: int, reason: str
) -> None:
    """More time for a campaign that neither passed nor failed; also after it ran out."""

    def decide(view: WorldView) -> tuple[None, Sequence[Fact]]:
        return None, campaign.extend(view, sid, by_sec, reason)

    step(store, world_id, by, decide, reads=GOVERNANCE)
