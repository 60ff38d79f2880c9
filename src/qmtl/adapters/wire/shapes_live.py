"""The shapes of campaigns, live promotion and decisions.  See `shapes.py`."""

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12.

from .shapes import At, Cursor, Fraction, Plain


class WindowJson(TypedDict):
    window: str
    required_sec: float
    observed_sec: float
    observations: int
    required_observations: int
    progress: Fraction
    started_at: At | None
    ended_at: At | None
    satisfied: bool


class WindowConfigJson(TypedDict):
    window: str
    min_observations: int
    max_window: str | None


class CampaignConfigJson(TypedDict):
    policy_version: int
    backtest: WindowConfigJson
    paper: WindowConfigJson
    evaluate_every: str
    live_promotion: str


class EtaJson(TypedDict):
    sharpe_1: At | None
    sharpe_2: At | None
    at_observed: At | None


class ShownJson(TypedDict):
    e_value: float | None
    threshold: float
    enough: bool
    budget: float


class EvidenceJson(ShownJson):
    eta: EtaJson


class StatusJson(TypedDict):
    strategy_id: str
    phase: str
    entered_at: At | None
    held: bool
    latest_backtest_run_id: str | None
    latest_paper_run_id: str | None
    latest_live_run_id: str | None
    backtest: WindowJson
    paper: WindowJson
    live: WindowJson
    metrics: dict[str, float | None]
    evidence: EvidenceJson | None
    promotable_to_paper: bool
    promotable_to_live: bool
    reasons: list[str]
    details: list[str]


class CampaignJson(TypedDict):
    world_id: str
    generated_at: At
    config: CampaignConfigJson
    strategies: list[StatusJson]


class ActionJson(TypedDict):
    action: str
    reason: str
    strategy_id: str | None
    stage: str
    idempotency_key: str
    requires: list[str]
    suggested_run_id: str
    suggested_method: str
    suggested_endpoint: str
    suggested_params: dict[str, str]
    suggested_body: Plain
    evidence: ShownJson | None


class TickJson(TypedDict):
    schema_version: int
    world_id: str
    generation: int
    generated_at: At
    actions: list[ActionJson]
    next_cursor: Cursor


class LoopsJson(TypedDict):
    world_id: str
    leader: str | None
    loops: list[str]


class ApprovalJson(TypedDict):
    by: str
    at: At
    run_id: str
    evidence_digest: str
    reason: str


class PlanJson(TypedDict):
    world_id: str
    strategy_id: str
    run_id: str | None
    candidate_id: str | None
    eligible: bool
    activate: list[str]
    deactivate: list[str]
    weights: dict[str, float]
    blocked_reasons: list[str]
    details: list[str]
    cooldown_remaining_sec: float


class CandidateJson(TypedDict):
    world_id: str
    candidate_id: str
    strategy_id: str
    run_id: str
    step: int
    standing: str
    standing_detail: str | None
    policy_version: int
    fingerprint: str | None
    evidence_digest: str
    proposed_at: At
    proposer: str
    approvals: list[ApprovalJson]


class ApproverJson(TypedDict):
    """Who approved; `valid` false: it has expired, and may be given again."""

    by: str
    valid: bool
    expires_at: At | None


class BarredJson(TypedDict):
    """Who may not approve, whatever their roles: `author` or `proposer`."""

    by: str
    why: str


class ListedCandidateJson(CandidateJson):
    approvals_needed: int
    approvals_valid: int
    approvals_missing: int
    approved_by: list[ApproverJson]
    may_not_approve: list[BarredJson]
    approver_roles: list[str]
    eligible: bool
    blocked_reasons: list[str]
    details: list[str]
    plan: PlanJson


class CandidatesJson(TypedDict):
    candidates: list[ListedCandidateJson]
    next_cursor: Cursor


class StandingJson(TypedDict):
    """Where a strategy stands after a demotion, a release or an extension."""

    world_id: str
    strategy_id: str
    phase: str
    held: bool
    extension_sec: float
    candidate: CandidateJson | None


class TakenBackJson(TypedDict):
    """The last weight that went down: a client that hears nothing may act on it before `until`."""

    weight: float
    until: At


class ActivationJson(TypedDict):
    world_id: str
    strategy_id: str
    active: bool
    weight: float
    applied_weight: float
    freeze: bool
    drain: bool
    step: int | None
    candidate_id: str | None
    run_id: str | None
    sequence: int
    acknowledged: int
    taken_back: TakenBackJson | None
    etag: str
    ts: At | None


class ActivationsJson(TypedDict):
    world_id: str
    activations: list[ActivationJson]


class RefusedJson(TypedDict):
    strategy_id: str
    reasons: list[str]
    details: list[str]


class AutoAppliedJson(TypedDict):
    applied: list[ActivationJson]
    blocked: list[RefusedJson]


class EnvelopeJson(TypedDict):
    world_id: str
    strategy_id: str
    policy_version: int | None
    effective_mode: str
    execution_domain: str
    weight: float
    ramp_fraction: float
    reason: str
    reasons: list[str]
    generation: int
    as_of: At
    issued_at: At
    expires_at: At
    ttl: float  # Seconds.
    etag: str
    downgraded: bool
    safe_mode: bool


class DecisionsJson(TypedDict):
    world_id: str
    generation: int
    decisions: list[EnvelopeJson]


class WaitJson(TypedDict):
    """`share` of it that is there; `reached_at` at the present rate, if time alone brings it."""

    reason: str
    sentence: str
    share: Fraction | None
    reached_at: At | None


class ExplanationJson(TypedDict):
    """A strategy's standing in sentences, in the order in which a person asks."""

    world_id: str
    strategy_id: str
    as_of: At
    phase: str
    since: At | None
    sentences: list[str]
    waits_for: list[WaitJson]
    would_stop: list[str]


class SubmittedJson(TypedDict):
    """`strategy_id` is of the version that was submitted, whichever of its family was named.

    Kept by a gateway while the world is away: the id that was named, and `version` null.
    """

    world_id: str
    strategy_id: str
    version: int | None
    previous: str | None
    changed: list[str]  # Parts that differ from the previous version; empty when not known.
    run_id: str | None
    verdict: str | None
    reasons: list[str]
    details: list[str]
    phase: str | None
    decision: EnvelopeJson
    evaluation_run_url: str | None
    warnings: list[str]
    explanation: ExplanationJson | None  # None while the world is away.
