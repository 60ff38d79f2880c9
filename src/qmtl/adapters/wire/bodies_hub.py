"""Request bodies -> core values: snapshots, bars, restatements, submissions.  See `fields.py`."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Self

import numpy as np
import rfc8785
from pydantic import Field, WithJsonSchema, model_validator

from qmtl.adapters.policies.words import Span
from qmtl.adapters.wire import instants
from qmtl.app.hub import content_digest
from qmtl.app.strategies import Binding, Submission
from qmtl.core.errors import Invalid
from qmtl.core.names import Digest, Stage, StrategyId
from qmtl.core.snapshot import TTL_SEC_DEFAULT, PostedSeries, RiskSnapshot
from qmtl.core.versions import PARTS

from .fields import (
    RETURNS_SCHEMA,
    STRATEGIES_MAX,
    TIMES_SCHEMA,
    AnySeries,
    Body,
    Covariance,
    Id,
    Instant,
    MetricName,
    Name,
    PlainObject,
    StageWord,
    Stats,
    Stress,
    TimedSeries,
    Ttl,
    Version,
    Weights,
    Why,
    series_of,
)


def digest_of(content: Mapping[str, object], returns: Mapping[str, PostedSeries]) -> Digest:
    """Names all of a snapshot's content; its series by the digests of their columns."""
    columns = {
        sid: [
            None if posted.t is None else sha256(posted.t.tobytes()).hexdigest(),
            sha256((posted.r + 0.0).tobytes()).hexdigest(),  # -0.0 is 0.0.
        ]
        for sid, posted in returns.items()
    }
    return content_digest({**content, "returns": columns})


def _must_match(told: str, value: Mapping[str, object]) -> None:
    """INVARIANT: a hash that was given is the hash of what came (RFC 8785)."""
    bare = {name: part for name, part in value.items() if name not in ("hash", "created_at")}
    try:
        found = f"sha256:{sha256(rfc8785.dumps(bare)).hexdigest()}"  # type: ignore[arg-type]  # It came as JSON.
    except rfc8785.CanonicalizationError as error:
        raise Invalid(f"hash: RFC 8785 has no form of this body: {error}.") from None
    if told != found:
        raise Invalid(f"hash: it is {found} of what came, not {told}.")


class Snapshot(Body):
    as_of: Instant
    version: Version
    weights: Weights
    covariance: Covariance | None = None
    covariance_ref: Name | None = None
    realized_returns: Annotated[dict[Id, AnySeries], Field(max_length=STRATEGIES_MAX)] | None = None
    realized_returns_ref: Name | None = None
    stress: Stress | None = None
    stress_ref: Name | None = None
    constraints: PlainObject | None = None
    provenance: PlainObject | None = None
    stats: Stats | None = None
    ttl_sec: Ttl = TTL_SEC_DEFAULT
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    created_at: Instant | None = None  # The producer's own; the server keeps its own.

    @classmethod
    def of(cls, value: object) -> Self:
        found = super().of(value)
        if found.hash is not None and isinstance(value, dict):
            _must_match(found.hash, value)
        return found

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        for name in ("covariance", "realized_returns", "stress"):
            if None not in (getattr(self, name), getattr(self, f"{name}_ref")):
                raise ValueError(f"give {name} or {name}_ref, not both.")
        return self

    def meaning(self, stage: Stage) -> RiskSnapshot:
        extras = {
            "covariance_ref": self.covariance_ref,
            "realized_returns_ref": self.realized_returns_ref,
            "stress_ref": self.stress_ref,
            "constraints": self.constraints,
            "provenance": self.provenance,
        }
        return _snapshot(
            version=self.version,
            stage=stage,
            as_of=self.as_of,
            ttl_sec=self.ttl_sec,
            weights=self.weights,
            returns=self.realized_returns or {},
            covariance=self.covariance,
            stress=self.stress,
            stats=self.stats,
            extra={name: value for name, value in extras.items() if value is not None},
        )


def _snapshot(
    *,
    version: str | None,
    stage: Stage,
    as_of: datetime,
    ttl_sec: int,
    weights: Mapping[str, float],
    returns: Mapping[str, PostedSeries],
    covariance: Mapping[str, float] | None,
    stress: Mapping[str, Mapping[str, float]] | None,
    stats: Mapping[str, Mapping[str, float]] | None,
    extra: Mapping[str, object],
    replay: Mapping[str, float] | None = None,
) -> RiskSnapshot:
    """A snapshot; without a version, its content names it, so that twice is once."""
    content = digest_of(
        {
            "stage": stage,
            "as_of": instants.rfc3339(as_of),
            "ttl_sec": ttl_sec,
            "weights": weights,
            "covariance": covariance,
            "stress": stress,
            "stats": stats,
            "extra": extra if replay is None else {**extra, "replay": replay},
        },
        returns,
    )
    return RiskSnapshot(
        version=version or f"{stage}-{content[:24]}",
        stage=stage,
        as_of=as_of,
        ttl_sec=ttl_sec,
        content=content,
        weights={StrategyId(sid): weight for sid, weight in weights.items()},
        returns={StrategyId(sid): posted for sid, posted in returns.items()},
        covariance=covariance,
        stress=_by_strategy(stress),
        stats=_by_strategy(stats),
        extra=extra,
        replay=None if replay is None else {StrategyId(sid): r for sid, r in replay.items()},
    )


def _by_strategy(
    known: Mapping[str, Mapping[str, float]] | None,
) -> dict[StrategyId, Mapping[str, float]] | None:
    return None if known is None else {StrategyId(sid): v for sid, v in known.items()}


class Bar(Body):
    """One bar of returns of every strategy that has one.

    A strategy with a replay and no return was seen by its engine, and earned nothing.
    """

    stage: StageWord
    t: Instant
    returns: Annotated[dict[Id, Annotated[float, Field(ge=-1)]], Field(max_length=STRATEGIES_MAX)]
    replay: Annotated[dict[Id, float], Field(max_length=STRATEGIES_MAX)] | None = None
    weights: Weights | None = None
    stats: Stats | None = None
    stress: Stress | None = None
    covariance: Covariance | None = None
    ttl_sec: Ttl = TTL_SEC_DEFAULT

    def meaning(self) -> RiskSnapshot:
        told = self.returns or self.replay
        if not told:
            raise Invalid("returns: a bar has a return or a replay of one strategy at least")
        at = instants.parse_column([instants.rfc3339(self.t)])
        return _snapshot(
            version=None,
            stage=self.stage,
            as_of=self.t,
            ttl_sec=self.ttl_sec,
            weights=self.weights or dict.fromkeys(told, 1.0 / len(told)),
            returns={sid: PostedSeries(t=at, r=np.array([r])) for sid, r in self.returns.items()},
            covariance=self.covariance,
            stress=self.stress,
            stats=self.stats,
            extra={},
            replay=self.replay,
        )


class Restatement(Body):
    stage: StageWord
    strategy: Id
    t: Annotated[list[str], WithJsonSchema({**TIMES_SCHEMA, "minItems": 1})]
    r: Annotated[object, WithJsonSchema(RETURNS_SCHEMA)]
    reason: Why

    def series(self) -> PostedSeries:
        try:
            return series_of({"t": self.t, "r": self.r})
        except ValueError as error:
            raise Invalid(f"t, r: {error}") from None


class Retention(Body):
    older_than: Span
    orphans_older_than: Span | None = None


PartName = Annotated[str, Field(pattern=rf"^({'|'.join(PARTS)})$")]
PartDigest = Annotated[str, Field(pattern=r"^[ -~]{1,200}$")]


class Submit(Body):
    strategy_id: Id
    world: Id
    fingerprint: Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
    name: Name = ""
    returns: TimedSeries
    variants_tried: Annotated[int, Field(ge=1, le=10**9)] | None = None
    engine: PlainObject | None = None
    stats: dict[MetricName, float] | None = None
    parts: dict[PartName, PartDigest] | None = None

    def meaning(self) -> Submission:
        binding = Binding(
            strategy_id=StrategyId(self.strategy_id),
            name=self.name,
            fingerprint=self.fingerprint,
            variants_tried=self.variants_tried,
            parts=self.parts or {},
        )
        return Submission(
            binding=binding, returns=self.returns, stats=self.stats or {}, engine=self.engine or {}
        )
