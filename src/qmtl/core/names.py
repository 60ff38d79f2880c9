"""The words of the system: identifiers, stages, phases, modes, verdicts.  Nothing here computes."""

from enum import StrEnum
from typing import NewType

WorldId = NewType("WorldId", str)
StrategyId = NewType("StrategyId", str)
RunId = NewType("RunId", str)
CandidateId = NewType("CandidateId", str)
ActorId = NewType("ActorId", str)
Digest = NewType("Digest", str)  # Lower-case hex of a (truncated) SHA-256.

ID_CHARS_MAX = 128  # Of the id of a world, a strategy, a run: it fits a path, a key, a log's line.
SYSTEM = WorldId("_system")  # The world that holds the list of worlds and the tokens.


class Stage(StrEnum):
    """Where evidence comes from.  `dryrun` is an alias of `paper`, at the door only."""

    BACKTEST = "backtest"
    PAPER = "paper"
    SHADOW = "shadow"  # A source of evidence, not a phase.
    LIVE = "live"


class Phase(StrEnum):
    """Where a strategy stands in its campaign.  The world moves it; callers never do."""

    BACKTEST = "backtest_campaign"
    PAPER = "paper_campaign"
    LIVE = "live_campaign"
    RETIRED = "retired"


class Mode(StrEnum):
    """What a strategy may do now."""

    COMPUTE_ONLY = "compute-only"  # The safe floor.
    PAPER = "paper"
    LIVE = "live"


class Verdict(StrEnum):
    """The outcome of one evaluation.  Only PASS passes."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class WorldState(StrEnum):
    """ACTIVE works; SUSPENDED computes but lets nothing trade; ARCHIVED takes no writes."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


class Role(StrEnum):
    """What a credential may do, per world.  No role implies POLICY_ADMIN."""

    READER = "reader"
    AUTHOR = "author"
    PRODUCER = "producer"
    OPERATOR = "operator"
    APPROVER = "approver"
    POLICY_ADMIN = "policy-admin"
    ADMIN = "admin"


class Stream(StrEnum):
    """The two halves of a world that are ordered, and contended for, apart."""

    EVIDENCE = "evidence"
    GOVERNANCE = "governance"


class Reason(StrEnum):
    """Why something is not allowed, not yet so, or was taken back."""

    LIVE_NOT_ALLOWED = "live_not_allowed"
    PROMOTION_DISABLED = "promotion_disabled"
    NOT_PAPER_STAGE = "not_paper_stage"
    PAPER_RUN_MISSING = "paper_run_missing"
    PAPER_WINDOW_INCOMPLETE = "paper_window_incomplete"
    OBSERVATIONS_INSUFFICIENT = "observations_insufficient"
    VALIDATION_FAILED = "validation_failed"
    EVIDENCE_INSUFFICIENT = "evidence_insufficient"
    EVIDENCE_CHANGED = "evidence_changed"
    SELECTION_FAILED = "selection_failed"
    FUTILE = "futile"
    CONSISTENCY_FAILED = "consistency_failed"
    CORRELATION_EXCEEDED = "correlation_exceeded"
    RISK_SNAPSHOT_MISSING = "risk_snapshot_missing"
    RISK_SNAPSHOT_EXPIRED = "risk_snapshot_expired"
    RISK_SNAPSHOT_STALE = "risk_snapshot_stale"
    MANUAL_APPROVAL_REQUIRED = "manual_approval_required"
    APPROVALS_INSUFFICIENT = "approvals_insufficient"
    APPROVAL_EXPIRED = "approval_expired"
    CANDIDATE_REJECTED = "candidate_rejected"
    CANDIDATE_SUPERSEDED = "candidate_superseded"
    MAX_LIVE_SLOTS_EXCEEDED = "max_live_slots_exceeded"
    MAX_LIVE_WEIGHT_EXCEEDED = "max_live_weight_exceeded"
    COOLDOWN_ACTIVE = "cooldown_active"
    LEASE_OUTSTANDING = "lease_outstanding"
    HELD = "held"
    FROZEN = "frozen"
    WORLD_SUSPENDED = "world_suspended"
    WORLD_KILLED = "world_killed"
    CONFIRMATION_PENDING = "confirmation_pending"
    # Of a verdict or of a campaign on its way, not of the gate to live.
    BACKTEST_RUN_MISSING = "backtest_run_missing"
    BACKTEST_WINDOW_INCOMPLETE = "backtest_window_incomplete"
    METRIC_MISSING = "metric_missing"
    RETIRED = "retired"
    POLICY_MISSING = "policy_missing"
    # Of a move downwards.
    MANUAL = "manual"
    DRAWDOWN_BREACHED = "drawdown_breached"
    LOSS_BREACHED = "loss_breached"  # Of a single bar.
    DECAYED = "decayed"  # Live returns are no longer those of paper.
    CAMPAIGN_EXPIRED = "campaign_expired"
    POLICY_CHANGED = "policy_changed"
    FINGERPRINT_CHANGED = "fingerprint_changed"
    # Of a process that others have replaced.
    CODE_DIFFERS = "code_differs"
    # Of what takes two people.
    CONFIRMATION_EXPIRED = "confirmation_expired"
    # Of an envelope.
    DRAINING = "draining"
    DECISION_MISSING = "decision_missing"
    DECISION_EXPIRED = "decision_expired"
    WORLDSERVICE_AWAY = "worldservice_away"
    # Of an explanation: nothing is wrong, somebody has yet to act.
    EVALUATION_DUE = "evaluation_due"
    APPLY_DUE = "apply_due"
