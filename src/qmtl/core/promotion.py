"""The one gate to live, and what people may do at it.

INVARIANT (I1): a strategy enters `view.live`, or climbs its ramp, only through `apply`; `apply`
needs a `Clearance`; only `clear_for_live` makes one, and only when not a single reason is left.
There is no `force`.  Every reason is collected, none is skipped.  `demote` asks for nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from math import isnan
from typing import assert_never

from . import facts as f
from . import proving
from .confirmations import standing
from .errors import Invalid
from .evidence.drift import Healthy
from .leases import believed, outstanding, reserved
from .names import (
    ActorId,
    CandidateId,
    Digest,
    Phase,
    Reason,
    RunId,
    StrategyId,
    Verdict,
    WorldState,
)
from .policy import AutoApply, Disabled, ManualApproval, Policy, RampStep
from .snapshot import Fresh, NotFresh, freshness
from .times import in_words, instant_or_none
from .view import Applied, Approval, Approved, Candidate, Proposed, Rejected, Void, WorldView
from .windows import PHASE_OF, evidence_stage, progress
from .words import ASKED, PHASES, counted, day, listed, second

CANDIDATE_HEX = 24
WEIGHT_TOLERANCE = 1e-9  # Of a sum of weights that are not exact in binary.
Problem = tuple[Reason, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """What the store says of a strategy's evidence now, judged under the policy in force.

    `verdict` None: nothing to judge by.  `correlations`: with each live strategy; None unknown.
    """

    verdict: Verdict | None
    problems: tuple[Problem, ...] = ()
    correlations: Mapping[StrategyId, float | None] = field(default_factory=dict)
    healthy: Healthy | None = None  # What paper shows that live has to keep up.
    volatility: float | None = None  # A bar, of paper that is not what its engine makes of it.

    @property
    def details(self) -> tuple[str, ...]:
        return tuple(detail for _, detail in self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearance:
    """Proof that every gate held, at one generation.  Made here only; lives for one commit."""

    candidate: Candidate
    evidence: Digest
    snapshot_seq: int
    weight: float
    e_value: float | None
    healthy: Healthy | None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Every reason why not, each with its numbers in words."""

    problems: tuple[Problem, ...]

    def __post_init__(self) -> None:
        assert self.problems, "a block says why"

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return tuple(dict.fromkeys(reason for reason, _ in self.problems))

    @property
    def details(self) -> tuple[str, ...]:
        return tuple(detail for _, detail in self.problems)


def step_ahead(view: WorldView, row: int) -> int:
    """The ramp step a strategy would reach next, from 0."""
    return int(view.standings.step[row]) + 1


def candidate_id_of(view: WorldView, strategy_id: StrategyId, step: int) -> CandidateId:
    """A candidate is (fingerprint, policy version, entry into the phase, ramp step)."""
    strategy = view.strategy(strategy_id)
    entry = int(view.standings.entered_at[strategy.row])
    parts = (view.world_id, strategy_id, strategy.fingerprint, view.default_version, entry, step)
    told = "\0".join(map(str, parts))
    return CandidateId(sha256(told.encode()).hexdigest()[:CANDIDATE_HEX])


def is_current(view: WorldView, candidate: Candidate) -> bool:
    """Whether the candidate is the one that today's fingerprint, policy, entry and step make."""
    row = view.strategy(candidate.strategy_id).row
    made = candidate_id_of(view, candidate.strategy_id, candidate.step)
    return candidate.candidate_id == made and candidate.step == step_ahead(view, row)


def clear_for_live(
    view: WorldView,
    strategy_id: StrategyId,
    candidate: Candidate | None,
    dossier: Dossier,
    now: datetime,
) -> Clearance | Blocked:
    """THE gate: every way to live, and up the ramp, leads through here."""
    policy, row = view.policy, view.strategy(strategy_id).row
    step = step_ahead(view, row)
    problems = [
        *world_problems(view, row, policy, now),
        *_candidate_problems(view, row, candidate, step),
        *approval_problems(view, policy, candidate, now),
        *_run_problems(view, row, step, policy, dossier),
        *proving.unproven(view, row, step, policy),
        *risk_problems(view, strategy_id, step, policy, dossier),
        *capital_problems(view, strategy_id, step, policy, now),
    ]
    match freshness(view, row, evidence_stage(step), policy, now):
        case NotFresh(reason, detail):
            return Blocked((*problems, (reason, detail)))
        case Fresh(seq):
            if problems or candidate is None:
                return Blocked(tuple(problems))
            return Clearance(
                candidate=candidate,
                evidence=view.digest(row, evidence_stage(step)),
                snapshot_seq=seq,
                weight=policy.governance.ramp[step].fraction * policy.governance.allocation,
                e_value=proving.e_value_towards(view, row, step, policy),
                healthy=dossier.healthy if step == 0 else None,
            )
        case other:
            assert_never(other)


def _failed(checks: Collection[tuple[bool, Reason, str]]) -> list[Problem]:
    return [(reason, detail) for holds, reason, detail in checks if not holds]


def world_problems(view: WorldView, row: int, policy: Policy, now: datetime) -> list[Problem]:
    """What the world itself forbids, whoever asks."""
    promotion = policy.governance.live_promotion
    frozen = any(freeze.covers(now) for freeze in policy.governance.freeze)
    closed = {"allow_live": not view.allow_live, "resume": view.killed}
    asked = [c for c in standing(view, now) if closed.get(c.what)]
    who = listed(f"{c.by} asked {ASKED[c.what]} on {day(c.at)}" for c in asked)
    return _failed(
        (
            (view.allow_live, Reason.LIVE_NOT_ALLOWED, "the world does not allow live"),
            (
                not isinstance(promotion, Disabled),
                Reason.PROMOTION_DISABLED,
                "the policy's live_promotion is disabled",
            ),
            (
                view.state is WorldState.ACTIVE,
                Reason.WORLD_SUSPENDED,
                f"the world is {view.state}",
            ),
            (not view.killed, Reason.WORLD_KILLED, "the world was killed and not resumed"),
            (
                not asked,
                Reason.CONFIRMATION_PENDING,
                f"{who}: a second person has to confirm it",
            ),
            (
                not view.standings.held[row],
                Reason.HELD,
                "an operator demoted it; it is held until released",
            ),
            (not frozen, Reason.FROZEN, "the policy's freeze window is open: no promotions now"),
        )
    )


def _candidate_problems(
    view: WorldView, row: int, candidate: Candidate | None, step: int
) -> list[Problem]:
    """Whether there is a candidate, it stands, and the strategy is where it would start from."""
    stage = evidence_stage(step)
    problems = _failed(
        (
            (
                view.phase(row) is PHASE_OF[stage],
                Reason.NOT_PAPER_STAGE,
                f"the strategy is {PHASES[view.phase(row)]}, not {PHASES[PHASE_OF[stage]]}",
            ),
        )
    )
    if candidate is None:
        why = "no candidate stands: no passing run with a full window has proposed one"
        return [*problems, (Reason.CANDIDATE_SUPERSEDED, why)]
    match candidate.standing:
        case Proposed() | Approved():
            current = is_current(view, candidate)
            why = "the fingerprint, the policy or the phase has changed since it was proposed"
            return problems if current else [*problems, (Reason.CANDIDATE_SUPERSEDED, why)]
        case Rejected(by=by, reason=why):
            return [*problems, (Reason.CANDIDATE_REJECTED, f"rejected by {by}: {why}")]
        case Void(reason=reason):
            return [*problems, (Reason.CANDIDATE_SUPERSEDED, f"the candidate is void: {reason}")]
        case Applied():
            return [*problems, (Reason.CANDIDATE_SUPERSEDED, "the candidate was applied already")]
        case other:
            assert_never(other)


def barred(view: WorldView, candidate: Candidate) -> Mapping[ActorId, str]:
    """Who may not approve a candidate whatever their roles, and why."""
    found = {candidate.proposer: "proposer"}
    return {**found, view.strategy(candidate.strategy_id).author: "author"}


def counted_approvals(view: WorldView, candidate: Candidate) -> tuple[Approval, ...]:
    """INVARIANT: the author's and the proposer's count for nothing, however they came there."""
    nobody = barred(view, candidate).keys()
    return tuple(a for a in candidate.approvals if not a.hands & nobody)


def valid_approvals(
    view: WorldView, promotion: ManualApproval, candidate: Candidate, now: datetime
) -> tuple[Approval, ...]:
    """The approvals that count and have not expired, each of other hands than those before it."""
    given = counted_approvals(view, candidate)
    return of_other_hands(a for a in given if now - a.at < promotion.expires)


def of_other_hands(given: Iterable[Approval]) -> tuple[Approval, ...]:
    """INVARIANT: approvals that lead back to one person are one, however they came there."""
    found: list[Approval] = []
    for approval in given:
        if not any(approval.hands & other.hands for other in found):
            found.append(approval)
    return tuple(found)


def approval_problems(
    view: WorldView, policy: Policy, candidate: Candidate | None, now: datetime
) -> list[Problem]:
    promotion = policy.governance.live_promotion
    match promotion:
        case Disabled():
            return []  # Said already: promotion_disabled.
        case AutoApply():
            return []  # Skips the approval, and nothing else.
        case ManualApproval(min=needed):
            given = () if candidate is None else counted_approvals(view, candidate)
            valid = () if candidate is None else valid_approvals(view, promotion, candidate, now)
            count = f"{len(valid)} of {needed} approvals"
            lasts = in_words(promotion.expires.total_seconds())
            return _failed(
                (
                    (bool(given), Reason.MANUAL_APPROVAL_REQUIRED, f"{count}"),
                    (
                        not given or len(valid) >= needed,
                        Reason.APPROVALS_INSUFFICIENT,
                        f"{count} are valid",
                    ),
                    (
                        len(valid) >= needed or len(valid) == len(given),
                        Reason.APPROVAL_EXPIRED,
                        f"{counted(len(given) - len(valid), 'approval')} older than {lasts}",
                    ),
                )
            )
        case _:
            assert_never(promotion)


def _run_problems(
    view: WorldView, row: int, step: int, policy: Policy, dossier: Dossier
) -> list[Problem]:
    """What the returns have not shown: a run that passes, in a window that is full."""
    stage = evidence_stage(step)
    problems: list[Problem] = []
    if view.verdict(row, stage) is None or dossier.verdict is None:
        problems.append((Reason.PAPER_RUN_MISSING, f"there is no {stage} run"))
    elif dossier.verdict is not Verdict.PASS:
        why = "; ".join(dossier.details) or f"the {stage} run did not pass"
        problems.append((Reason.VALIDATION_FAILED, why))
    elif view.verdict(row, stage) is not Verdict.PASS:
        why = f"the latest recorded {stage} run did not pass: evaluate it first"
        problems.append((Reason.VALIDATION_FAILED, why))
    return problems + progress(view, row, stage, policy).shortfalls()


def risk_problems(
    view: WorldView, strategy_id: StrategyId, step: int, policy: Policy, dossier: Dossier
) -> list[Problem]:
    """What else the policy asks of it: selection, stress, correlation."""
    row, stage = view.strategies[strategy_id].row, evidence_stage(step)
    stress, limit = float(view.tracks[stage].stress_loss[row]), policy.risk.max_stress_loss
    known = "no snapshot tells it" if isnan(stress) else f"it is {stress:.4g}"
    return _failed(
        (
            (
                policy.selection is None or bool(view.standings.selected[row]),
                Reason.SELECTION_FAILED,
                "the latest cohort did not select it",
            ),
            (
                limit is None or stress <= limit,
                Reason.VALIDATION_FAILED,
                f"worst stress loss must be at most {limit}: {known}",
            ),
            *_correlation_checks(view, strategy_id, policy, dossier),
        )
    )


def _correlation_checks(
    view: WorldView, strategy_id: StrategyId, policy: Policy, dossier: Dossier
) -> list[tuple[bool, Reason, str]]:
    limit = policy.risk.max_pairwise_correlation_to_live
    if limit is None:
        return []
    checks = []
    for other in sorted(view.live):
        known = dossier.correlations.get(other)
        told = "unknown" if known is None or isnan(known) else f"{known:.2f}"
        checks.append(
            (
                other == strategy_id or (known is not None and known <= limit),
                Reason.CORRELATION_EXCEEDED,
                f"correlation with live {other} must be at most {limit:g}: it is {told}",
            )
        )
    return checks


def capital_problems(
    view: WorldView, strategy_id: StrategyId, step: int, policy: Policy, now: datetime
) -> list[Problem]:
    """Slots, weights and cooldown: what the live set has room for."""
    governance = policy.governance
    if step >= len(governance.ramp):
        return [(Reason.CANDIDATE_SUPERSEDED, "it is at the top of its ramp")]
    others = {sid: a.applied_weight for sid, a in view.live.items() if sid != strategy_id}
    weight = governance.ramp[step].fraction * governance.allocation
    slots, most = governance.max_live_slots, governance.max_live_weight + WEIGHT_TOLERANCE
    total = sum(others.values()) + weight
    # INVARIANT: what all clients together act on, cut off or not, keeps to the same limits.
    leased = {sid: held for sid, held in reserved(view, now).items() if sid != strategy_id}
    leased_total = sum(leased.values()) + max(weight, believed(view, strategy_id, now))
    left = cooldown_remaining_sec(view, policy, now)
    return _failed(
        (
            (
                len(others) < slots,
                Reason.MAX_LIVE_SLOTS_EXCEEDED,
                f"{len(others)} of {slots} live slots are taken",
            ),
            (
                total <= most,
                Reason.MAX_LIVE_WEIGHT_EXCEEDED,
                f"live weight would be {total:.4g}, at most {governance.max_live_weight:g}",
            ),
            (
                not len(others) < slots or len(leased) < slots,
                Reason.LEASE_OUTSTANDING,
                f"{_taken_back(view, now)}; with that, {len(leased)} of {slots} live slots are "
                "taken",
            ),
            (
                not total <= most or leased_total <= most,
                Reason.LEASE_OUTSTANDING,
                f"{_taken_back(view, now)}; with that, live weight would be {leased_total:.4g}, at "
                f"most {governance.max_live_weight:g}",
            ),
            (
                left <= 0.0,
                Reason.COOLDOWN_ACTIVE,
                f"the last promotion was too recent; {in_words(left)} of cooldown are left",
            ),
        )
    )


def _taken_back(view: WorldView, now: datetime) -> str:
    leases = sorted(outstanding(view, now).items())
    said = (f"{sid} {lease.weight:.4g} until {second(lease.until)}" for sid, lease in leases)
    told = listed(said) or "the weight that it is live with"
    return f"clients that hear nothing may still act on what was taken back, {told}"


def cooldown_remaining_sec(view: WorldView, policy: Policy, now: datetime) -> float:
    """Seconds until the world may promote again; 0 when it may."""
    if view.promoted_at is None:
        return 0.0
    until = view.promoted_at + policy.governance.cooldown
    return max(0.0, (until - now).total_seconds())


def next_step(policy: Policy, view: WorldView, row: int) -> RampStep | None:
    """The ramp step ahead; None at the top."""
    ahead = step_ahead(view, row)
    return policy.governance.ramp[ahead] if ahead < len(policy.governance.ramp) else None


def propose(
    view: WorldView, strategy_id: StrategyId, run_id: RunId, evidence: Digest
) -> tuple[f.Fact, ...]:
    """A passing run with a full window makes a candidate, unless one stands or is rejected."""
    row = view.strategy(strategy_id).row
    held = view.open_candidate(strategy_id)
    voided: tuple[f.Fact, ...] = ()
    if held is not None:
        if is_current(view, held) or isinstance(held.standing, Rejected):
            return ()
        voided = void(held, Reason.CANDIDATE_SUPERSEDED)
    step = step_ahead(view, row)
    entered_at = instant_or_none(view.standings.entered_at[row])
    assert entered_at is not None, "it is in a phase"
    assert view.default_version is not None, "a run was judged under it"
    proposed = f.CandidateProposed(
        candidate_id=candidate_id_of(view, strategy_id, step),
        strategy_id=strategy_id,
        fingerprint=view.strategies[strategy_id].fingerprint,
        policy_version=view.default_version,
        entered_at=entered_at,
        step=step,
        run_id=run_id,
        evidence=evidence,
    )
    return (*voided, proposed)


def void(candidate: Candidate | None, reason: Reason) -> tuple[f.Fact, ...]:
    """What the candidate rested on is gone.  A rejection stands all the same."""
    if candidate is None or isinstance(candidate.standing, Rejected | Void):
        return ()
    return (f.CandidateVoided(candidate_id=candidate.candidate_id, reason=reason),)


def apply(clearance: Clearance) -> tuple[f.Fact, ...]:
    """The promotion that a clearance allows."""
    return (
        f.PromotionApplied(
            candidate_id=clearance.candidate.candidate_id,
            strategy_id=clearance.candidate.strategy_id,
            run_id=clearance.candidate.run_id,
            evidence=clearance.evidence,
            snapshot_seq=clearance.snapshot_seq,
            step=clearance.candidate.step,
            weight=clearance.weight,
            e_value=clearance.e_value,
            healthy=clearance.healthy,
        ),
    )


def block(
    view: WorldView, strategy_id: StrategyId, candidate: Candidate | None, blocked: Blocked
) -> tuple[f.Fact, ...]:
    """The record of a refusal, once per set of reasons, so that a patient loop writes no novels."""
    if set(view.blocked.get(strategy_id, ())) == set(blocked.reasons):
        return ()
    return (
        f.PromotionBlocked(
            strategy_id=strategy_id,
            candidate_id=None if candidate is None else candidate.candidate_id,
            reasons=blocked.reasons,
            details=blocked.details,
        ),
    )


def demote(
    view: WorldView, strategy_id: StrategyId, to: Phase, reason: Reason, detail: str, held: bool
) -> tuple[f.Fact, ...]:
    """Down, without any gate (I10).  Never up: what is in backtest stays there, and is held.

    Raises Invalid for live, which is no way down.
    """
    row = view.strategy(strategy_id).row
    phase = view.phase(row)
    if to is Phase.LIVE:
        raise Invalid(f"to: {to} is not a demotion.")
    if to is not Phase.RETIRED and phase in (Phase.BACKTEST, Phase.RETIRED):
        to = phase
    if phase is to and (bool(view.standings.held[row]) or not held):
        return ()
    return (f.Demoted(strategy_id=strategy_id, to=to, reason=reason, detail=detail, held=held),)
