"""Request bodies -> core values: worlds, evaluation, promotion, tokens.  See `fields.py`.

Those of the hub, and of what comes in through the gateway, are in `bodies_hub.py`.
"""

from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from qmtl.adapters.policies.documents import shown
from qmtl.adapters.policies.words import Length, Span
from qmtl.app.evaluations import CohortRequest, Request
from qmtl.app.strategies import Binding
from qmtl.app.tokens import OVERLAP_DEFAULT
from qmtl.app.worlds import NewWorld
from qmtl.core.activation import Change
from qmtl.core.names import (
    ActorId,
    Phase,
    Role,
    RunId,
    StrategyId,
    WorldId,
    WorldState,
)

from .fields import (
    LABELS_MAX,
    STRATEGIES_MAX,
    Actor,
    Body,
    Id,
    Instant,
    MetricName,
    Name,
    Share,
    StageWord,
    Text,
    Why,
)

# ---- Worlds ----------------------------------------------------------------------------------


class World(Body):
    id: Id
    name: Name = ""
    description: Text = ""
    labels: Annotated[dict[Name, Name], Field(max_length=LABELS_MAX, default_factory=dict)]
    allow_live: bool = False

    def meaning(self) -> NewWorld:
        return NewWorld(
            world_id=WorldId(self.id),
            name=self.name,
            description=self.description,
            labels=self.labels,
            allow_live=self.allow_live,
        )


def _state(text: object) -> WorldState:
    if not isinstance(text, str) or text not in set(WorldState):
        raise ValueError(f"must be one of {', '.join(WorldState)}, not {shown(text)}.")
    return WorldState(text)


class WorldChange(Body):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})
    allow_live: bool | None = None
    state: Annotated[
        WorldState | None,
        PlainValidator(_state),
        WithJsonSchema({"type": "string", "enum": list(WorldState)}),
    ] = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give allow_live or state.")
        return self


class PolicyChoice(Body):
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]


class Because(Body):
    """A reason; without any, none was given."""

    optional = True
    reason: Text = ""


class StrategyBinding(Body):
    strategy_id: Id
    name: Name = ""
    fingerprint: Annotated[str, Field(pattern=r"^[!-~]{1,200}$")] | None = None
    variants_tried: Annotated[int, Field(ge=1, le=10**9)] | None = None

    def meaning(self) -> Binding:
        return Binding(
            strategy_id=StrategyId(self.strategy_id),
            name=self.name,
            fingerprint=self.fingerprint,
            variants_tried=self.variants_tried,
        )


# ---- Evaluation ------------------------------------------------------------------------------


class Evaluate(Body):
    strategy_id: Id
    run_id: Id | None = None
    stage: StageWord | None = None
    metrics: dict[MetricName, float] | None = None
    risk_tier: Name | None = None  # Part of the vocabulary; a policy here has no tiers.

    def meaning(self) -> Request:
        return Request(
            strategy_id=StrategyId(self.strategy_id),
            stage=self.stage,
            run_id=None if self.run_id is None else RunId(self.run_id),
            metrics=self.metrics or {},
        )


class EvaluateCohort(Body):
    campaign_id: Id
    candidates: Annotated[
        list[Id],
        Field(min_length=1, max_length=STRATEGIES_MAX, json_schema_extra={"uniqueItems": True}),
    ]
    stage: StageWord | None = None
    run_id: Id | None = None

    def meaning(self) -> CohortRequest:
        return CohortRequest(
            campaign_id=self.campaign_id,
            strategies=tuple(map(StrategyId, self.candidates)),
            stage=self.stage,
            run_id=None if self.run_id is None else RunId(self.run_id),
        )


# ---- Live promotion and activation -----------------------------------------------------------


class Run(Body):
    strategy_id: Id
    run_id: Id


class Approve(Run):
    reason: Why
    evidence_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")] | None = None


class Reject(Run):
    reason: Why
    evidence_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")] | None = None


class Release(Body):
    strategy_id: Id
    run_id: Id | None = None
    reason: Why


class AutoApply(Body):
    optional = True
    strategy_id: Id | None = None
    run_id: Id | None = None


class Demote(Body):
    PHASES: ClassVar = {"paper": Phase.PAPER, "retired": Phase.RETIRED}
    strategy_id: Id
    to: Literal["paper", "retired"]
    reason: Text = ""


class Loop(Body):
    """A campaign loop is there for so long; 0: it goes."""

    loop: Id
    ttl_sec: Annotated[float, Field(ge=0, le=300)] = 15.0

    @property
    def ttl(self) -> timedelta:
        return timedelta(seconds=self.ttl_sec)


class Extend(Body):
    by: Span
    reason: Why

    @property
    def by_sec(self) -> int:
        return self.by // timedelta(seconds=1)


class Activation(Body):
    strategy_id: Id
    active: bool | None = None
    weight: Share | None = None
    freeze: bool | None = None
    drain: bool | None = None

    def meaning(self) -> Change:
        return Change(active=self.active, weight=self.weight, freeze=self.freeze, drain=self.drain)


class Acknowledgement(Body):
    strategy_id: Id
    sequence: Annotated[int, Field(ge=0, le=2**53)]


# ---- Tokens and the clock --------------------------------------------------------------------


def _role(text: object) -> Role:
    if not isinstance(text, str) or text not in set(Role):
        raise ValueError(f"must be one of {', '.join(Role)}, not {shown(text)}.")
    return Role(text)


RoleWord = Annotated[
    Role,
    PlainValidator(_role),
    WithJsonSchema({"type": "string", "enum": list(Role)}),
]


class NewToken(Body):
    actor: Actor
    roles: Annotated[list[RoleWord], Field(min_length=1, max_length=len(Role))]
    world_id: Id | None = None
    expires_at: Instant | None = None

    @property
    def actor_id(self) -> ActorId:
        return ActorId(self.actor)


class Rotate(Body):
    """`overlap`: how long the token before goes on; `0s` ends it at once."""

    optional = True
    overlap: Length = OVERLAP_DEFAULT


class ClockTo(Body):
    now: Instant
