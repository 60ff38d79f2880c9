"""The shapes of what the server answers: HTTP.md as types, and through them as OpenAPI.

`answers.py` makes them; a client may rely on every key being there.  Adding a key is no break.
"""

from typing import Annotated

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12.

At = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Plain = Annotated[dict[str, object], WithJsonSchema({"type": "object"})]
Fraction = Annotated[float, Field(ge=0, le=1)]
Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # 32 bytes: a SHA-256, a public key.
Hex64 = Annotated[str, Field(pattern="^[0-9a-f]{128}$")]
Cursor = str | None


class ProblemJson(TypedDict):
    """RFC 9457: what is wrong, once, in one shape."""

    type: str
    title: str
    status: int
    detail: str
    reasons: list[str]
    details: list[str]


class ConfirmationJson(TypedDict):
    """What one person asked for; from `expires_at` on it has to be asked for again."""

    confirmation_id: str
    what: str
    policy_version: int | None
    by: str
    at: At
    expires_at: At


class WorldJson(TypedDict):
    id: str
    name: str
    description: str
    labels: dict[str, str]
    allow_live: bool
    state: str
    killed: bool
    default_policy_version: int | None
    strategies: int
    live: int
    generation: int
    confirmations: list[ConfirmationJson]
    created_at: At
    created_by: str


class WorldsJson(TypedDict):
    worlds: list[WorldJson]
    next_cursor: Cursor


class PendingJson(TypedDict):
    """202: a second person has to confirm it."""

    confirmation_id: str
    what: str
    detail: str


class PolicyAddedJson(TypedDict):
    version: int
    checksum: str
    warnings: list[str]
    default: bool
    confirmation_id: str | None


class PolicyItemJson(TypedDict):
    version: int
    checksum: str
    default: bool
    created_at: At


class PolicyJson(PolicyItemJson):
    policy: Plain
    warnings: list[str]


class PoliciesJson(TypedDict):
    policies: list[PolicyItemJson]
    next_cursor: Cursor


class DefaultJson(TypedDict):
    world_id: str
    version: int


class StrategyJson(TypedDict):
    world_id: str
    strategy_id: str
    name: str
    author: str
    fingerprint: str | None
    variants_tried: int | None
    bound_at: At
    phase: str
    held: bool
    family: str
    version: int
    previous: str | None
    parts: dict[str, str]


class StrategiesJson(TypedDict):
    strategies: list[StrategyJson]
    next_cursor: Cursor


class EvaluatedJson(TypedDict):
    run_id: str
    verdict: str
    reasons: list[str]
    details: list[str]
    active: list[str]
    evaluation_run_id: str
    evaluation_run_url: str
    phase: str


class CohortItemJson(EvaluatedJson):
    strategy_id: str


class CohortJson(TypedDict):
    campaign_id: str
    stage: str
    policy_version: int
    active: list[str]
    results: list[CohortItemJson]


class MetricJson(TypedDict):
    value: float | None
    unit: str
    source: str
    snapshot_version: str | None
    undefined: str | None


class GateJson(TypedDict):
    metric: str
    min: float | None
    max: float | None
    value: float | None
    verdict: str
    detail: str


class LinksJson(TypedDict):
    self: str
    metrics: str
    history: str


class RunJson(TypedDict):
    world_id: str
    strategy_id: str
    run_id: str
    stage: str
    revision: int
    verdict: str
    reasons: list[str]
    details: list[str]
    metrics: dict[str, MetricJson]
    gates: list[GateJson]
    policy_version: int
    snapshot_version: str | None
    evidence_digest: str
    observations: int
    observed_sec: float
    evaluated_at: At
    evaluated_by: str
    seq: int
    links: LinksJson


class RunsJson(TypedDict):
    runs: list[RunJson]
    next_cursor: Cursor


class RevisionsJson(TypedDict):
    revisions: list[RunJson]
    next_cursor: Cursor


class RunMetricsJson(TypedDict):
    world_id: str
    strategy_id: str
    run_id: str
    stage: str
    revision: int
    metrics: dict[str, MetricJson]


class SnapshotJson(TypedDict):
    world_id: str
    version: str
    stage: str
    as_of: At
    ttl_sec: int
    expires_at: At
    created_at: At
    actor: str
    seq: int
    content: str
    weights: dict[str, float]
    strategies: list[str]


class FullSnapshotJson(SnapshotJson):
    covariance: dict[str, float] | None
    covariance_ref: str | None
    realized_returns_ref: str | None
    stress: dict[str, dict[str, float]] | None
    stress_ref: str | None
    stats: dict[str, dict[str, float]] | None
    replay: dict[str, float] | None
    constraints: Plain | None
    provenance: Plain | None
    extra: Plain
    realized_returns: Annotated[
        dict[str, object] | None, WithJsonSchema({"type": ["object", "null"]})
    ]


class SnapshotsJson(TypedDict):
    snapshots: list[SnapshotJson]
    next_cursor: Cursor


class OldJson(TypedDict):
    seq: int
    version: str
    stage: str
    stored_at: str
    parts: list[str]
    held: list[str]


class SurveyJson(TypedDict):
    world_id: str
    stored_before: str
    removable: list[OldJson]
    held: list[OldJson]


class RetainedJson(SurveyJson):
    orphans: int


class RestatedJson(TypedDict):
    world_id: str
    stage: str
    strategy_id: str
    points: int
    reason: str


class HappenedJson(TypedDict):
    seq: int
    generation: int
    stream: str
    at: At
    actor: str
    kind: str
    fact: Plain


class EntryJson(HappenedJson):
    """What it takes to check the chain: docs/journal.md.  `fact` is as it was written then."""

    body_digest: Hex32
    previous: Hex32
    hash: Hex32


class HeadJson(TypedDict):
    """A signed head: to be kept elsewhere."""

    world_id: str
    seq: int
    hash: Hex32
    at: At
    key_id: Hex32
    signature: Hex64


class JournalKeyJson(TypedDict):
    """What heads are signed with.  `key_id` is the SHA-256 of the 32 bytes of `public_key`."""

    algorithm: str
    key_id: Hex32
    public_key: Hex32


class JournalJson(TypedDict):
    entries: list[EntryJson]
    next_cursor: Cursor


class TokenJson(TypedDict):
    token_id: str
    actor: str
    roles: list[str]
    world_id: str | None
    expires_at: At | None
    created_at: At
    created_by: str
    rotated_at: At | None
    replaced_until: At | None
    confirmed: bool


class TokensJson(TypedDict):
    tokens: list[TokenJson]
    next_cursor: Cursor


class NewTokenJson(TokenJson):
    """The only time that the token itself is said."""

    token: str


class ClockJson(TypedDict):
    now: At
    replay: bool


class HealthJson(TypedDict):
    status: str
    version: str
