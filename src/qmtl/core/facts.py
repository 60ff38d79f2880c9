"""Everything that can happen to a world.  The only language in which state is written.

A fact says what happened, in past tense, with the numbers that were decided; who did it and when
are the journal's (`Entry`).  `fold.py` says what each one means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .evaluation_run import EvaluationRun
from .evidence.drift import Healthy
from .names import (
    ActorId,
    CandidateId,
    Digest,
    Phase,
    Reason,
    Role,
    RunId,
    Stage,
    StrategyId,
    Stream,
    WorldId,
    WorldState,
)
from .policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldCreated:
    """In `_system` only: the world is on the list of worlds."""

    world_id: WorldId
    name: str
    description: str
    labels: Mapping[str, str]
    allow_live: bool  # As asked for; the world's own journal says what it is.
    kind: Literal["world_created"] = "world_created"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCreated:
    """In `_system` only.  The token itself is nowhere; `token_sha256` is all that is kept.

    `replaces`: it was rotated; the one before opens nothing from `overlap_until` on.
    """

    token_sha256: str
    actor: ActorId
    roles: tuple[Role, ...]
    world_id: WorldId | None  # None: every world.
    expires_at: datetime | None
    sponsor: ActorId | None = None  # Who made it, under dual control: its holder's second hand.
    replaces: str | None = None
    overlap_until: datetime | None = None
    kind: Literal["token_created"] = "token_created"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRevoked:
    token_sha256: str
    kind: Literal["token_revoked"] = "token_revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramStarted:
    """In `_system` only: a process whose code decides from here on, and no other does."""

    code: Digest
    kind: Literal["program_started"] = "program_started"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAllowed:
    """`allowed` false empties the live set at once; true activates nothing."""

    allowed: bool
    kind: Literal["live_allowed"] = "live_allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    state: WorldState
    kind: Literal["state_changed"] = "state_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAdded:
    version: int
    checksum: str
    policy: Policy
    kind: Literal["policy_added"] = "policy_added"


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultPolicySet:
    """Open candidates of other versions are void from here on."""

    version: int
    kind: Literal["default_policy_set"] = "default_policy_set"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationRequested:
    """One of two people asked for something that takes two."""

    confirmation_id: str
    what: Literal["allow_live", "default_policy", "resume", "token"]
    policy_version: int | None
    sponsor: ActorId | None = None  # Of the credential that asked.
    kind: Literal["confirmation_requested"] = "confirmation_requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationGiven:
    confirmation_id: str
    kind: Literal["confirmation_given"] = "confirmation_given"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyBound:
    """A strategy joined the world, or told its fingerprint for the first time.

    `parts` are the fingerprint's, as far as they were told: see `versions.py`.
    """

    strategy_id: StrategyId
    name: str
    author: ActorId
    fingerprint: str | None
    variants_tried: int | None
    family: StrategyId | None = None  # None: it is the first version, and its family's name.
    version: int = 1
    previous: StrategyId | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["strategy_bound"] = "strategy_bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """New observations only, of several strategies, one after the other.

    `t` holds int64 microseconds since 1970 UTC, `r` float64 simple returns, both little-endian;
    strategy i owns the next `counts[i]` of them.
    """

    strategies: tuple[StrategyId, ...] = ()
    counts: tuple[int, ...] = ()
    t: bytes = b""
    r: bytes = b""

    def times(self) -> NDArray[np.int64]:
        return np.frombuffer(self.t, dtype="<i8")

    def returns(self) -> NDArray[np.float64]:
        return np.frombuffer(self.r, dtype="<f8")

    def alike(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float64]]]:
        """Strategies that bring equally many points, together: their places in `strategies`, and
        times and returns of shape (strategies, points).  A bar of a thousand is one block."""
        t, r = self.times(), self.returns()
        counts = np.array(self.counts, dtype=np.intp)
        starts = np.cumsum(counts) - counts
        for count in np.unique(counts[counts > 0]):
            which = np.flatnonzero(counts == count)
            block = starts[which][:, None] + np.arange(count)
            yield which, t[block], r[block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What retention took of a snapshot (`retention.PARTS`), and when."""

    parts: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotStored:
    """A risk snapshot, immutable.  `content` is the digest of all that was posted."""

    version: str
    stage: Stage
    as_of: datetime
    ttl_sec: int
    content: Digest
    weights: Mapping[StrategyId, float]
    covered: tuple[StrategyId, ...]  # In the returns, with new points or without.
    points: Points
    covariance: Mapping[str, float] | None = None  # "a,b" -> covariance per period.
    stress: Mapping[StrategyId, Mapping[str, float]] | None = None
    stats: Mapping[StrategyId, Mapping[str, float]] | None = None
    replay: Mapping[StrategyId, float] | None = None  # The engine's, of this one bar.
    extra: Mapping[str, object] = field(default_factory=dict)  # Refs, constraints, provenance.
    removed: Removed | None = None  # None: it is as it was posted.
    kind: Literal["snapshot_stored"] = "snapshot_stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRestated:
    """History was replaced.  What relied on it is void and the window starts anew."""

    stage: Stage
    strategy_id: StrategyId
    reason: str
    points: Points
    kind: Literal["series_restated"] = "series_restated"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationsRecorded:
    """One batch of evaluations: one stage, one policy version."""

    stage: Stage
    policy_version: int
    runs: tuple[EvaluationRun, ...]
    cohort: tuple[StrategyId, ...] = ()  # All that a selection was made from,
    selected: tuple[StrategyId, ...] = ()  # and those that it chose, best first.
    kind: Literal["evaluations_recorded"] = "evaluations_recorded"


@dataclass(frozen=True, slots=True)
class Reduced:
    """A snapshot that is no longer whole: the digest of what was recorded, and of what is left."""

    seq: int
    body: Digest
    left: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionApplied:
    """Of old snapshots only that is left which the world is folded from.

    The chain goes on naming what was recorded; what is left is vouched for by this fact.
    """

    stored_before: datetime
    reduced: tuple[Reduced, ...]
    kind: Literal["retention_applied"] = "retention_applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEntered:
    strategy_id: StrategyId
    phase: Phase
    reason: Reason | None = None
    kind: Literal["phase_entered"] = "phase_entered"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateProposed:
    candidate_id: CandidateId
    strategy_id: StrategyId
    fingerprint: str | None
    policy_version: int
    entered_at: datetime  # Into the phase the evidence was gathered in.
    step: int  # Of the ramp, from 0.
    run_id: RunId
    evidence: Digest
    kind: Literal["candidate_proposed"] = "candidate_proposed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGiven:
    candidate_id: CandidateId
    run_id: RunId
    evidence: Digest  # What the approver saw.
    reason: str
    sponsor: ActorId | None = None  # Of the approver's credential.
    kind: Literal["approval_given"] = "approval_given"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalWithdrawn:
    candidate_id: CandidateId
    kind: Literal["approval_withdrawn"] = "approval_withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRejected:
    candidate_id: CandidateId
    reason: str
    kind: Literal["candidate_rejected"] = "candidate_rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateReleased:
    candidate_id: CandidateId
    reason: str
    kind: Literal["candidate_released"] = "candidate_released"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateVoided:
    candidate_id: CandidateId
    reason: Reason
    kind: Literal["candidate_voided"] = "candidate_voided"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionBlocked:
    """An apply was refused.  Recorded once per strategy and new set of reasons."""

    strategy_id: StrategyId
    candidate_id: CandidateId | None
    reasons: tuple[Reason, ...]
    details: tuple[str, ...]
    kind: Literal["promotion_blocked"] = "promotion_blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionApplied:
    """A strategy went live, or one step up its ramp.  Only a Clearance leads here."""

    candidate_id: CandidateId
    strategy_id: StrategyId
    run_id: RunId
    evidence: Digest
    snapshot_seq: int  # The journal entry of the snapshot that was relied upon.
    step: int
    weight: float
    e_value: float | None = None  # What the returns had shown, where the step asks for it.
    healthy: Healthy | None = None  # At the first step: what live returns must keep up.
    kind: Literal["promotion_applied"] = "promotion_applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demoted:
    """A strategy was taken down, for cause or by hand.  `held`: until an operator releases it."""

    strategy_id: StrategyId
    to: Phase
    reason: Reason
    detail: str
    held: bool
    kind: Literal["demoted"] = "demoted"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldReleased:
    strategy_id: StrategyId
    reason: str
    kind: Literal["hold_released"] = "hold_released"


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignExtended:
    strategy_id: StrategyId
    by_sec: int
    reason: str
    kind: Literal["campaign_extended"] = "campaign_extended"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationLowered:
    """An operator's hand on a live strategy: never above what was applied."""

    strategy_id: StrategyId
    weight: float
    freeze: bool
    drain: bool
    kind: Literal["activation_lowered"] = "activation_lowered"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationAcknowledged:
    strategy_id: StrategyId
    sequence: int
    kind: Literal["activation_acknowledged"] = "activation_acknowledged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    reason: str
    kind: Literal["killed"] = "killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    reason: str
    kind: Literal["resumed"] = "resumed"


EvidenceFact = SnapshotStored | SeriesRestated | EvaluationsRecorded | RetentionApplied
GovernanceFact = (
    WorldCreated
    | TokenCreated
    | TokenRevoked
    | ProgramStarted
    | LiveAllowed
    | StateChanged
    | PolicyAdded
    | DefaultPolicySet
    | ConfirmationRequested
    | ConfirmationGiven
    | StrategyBound
    | PhaseEntered
    | CandidateProposed
    | ApprovalGiven
    | ApprovalWithdrawn
    | CandidateRejected
    | CandidateReleased
    | CandidateVoided
    | PromotionBlocked
    | PromotionApplied
    | Demoted
    | HoldReleased
    | CampaignExtended
    | ActivationLowered
    | ActivationAcknowledged
    | Killed
    | Resumed
)
Fact = EvidenceFact | GovernanceFact


def stream_of(fact: Fact) -> Stream:
    """The stream of its world that a fact belongs to."""
    return Stream.EVIDENCE if isinstance(fact, EvidenceFact) else Stream.GOVERNANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A fact in its place in a world's journal.  `seq` is dense from 1."""

    seq: int
    generation: int  # Of the fact's stream, after the commit that wrote it.
    at: datetime
    actor: ActorId
    fact: Fact
