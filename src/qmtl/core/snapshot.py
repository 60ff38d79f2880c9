"""Risk snapshots: what is accepted, what in it is new, and whether the newest is fresh.

The hub stores; it computes nothing.  Recorded history is immutable: a posted series must agree
with what is held (DESIGN 7.4), and only what goes beyond it is new.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from math import isfinite

import numpy as np

from .columns import Float, Int64
from .errors import Conflict, Invalid, UnknownStrategy
from .facts import Points, SeriesRestated, SnapshotStored
from .names import Digest, Reason, Stage, StrategyId
from .policy import Policy
from .series import Series
from .times import NEVER, instant, micros, span_us
from .view import WorldView

CLOCK_SKEW_MAX = timedelta(seconds=60)  # A producer's clock may be ahead of ours by this much.
TTL_SEC_DEFAULT = 900
TTL_SEC_MAX = 86_400
WEIGHT_SUM_TOLERANCE = 1e-3
SERIES_POINTS_MAX = 200_000  # Minute bars of two years; keeps one request's memory bounded.
SNAPSHOT_POINTS_MAX = 1_000_000
RETURN_MAX = 1_000.0  # 100,000 % in one bar is a unit error, not a return.
BAR_WITHOUT_POLICY = timedelta(days=1)

Held = Callable[[StrategyId], Series]


@dataclass(frozen=True, slots=True)
class PostedSeries:
    """Returns as posted: with their times, or (`t` None) as an append-only list."""

    t: Int64 | None
    r: Float


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskSnapshot:
    """A snapshot as posted.  `content` is the digest of all of it."""

    version: str
    stage: Stage
    as_of: datetime
    ttl_sec: int
    content: Digest
    weights: Mapping[StrategyId, float]
    returns: Mapping[StrategyId, PostedSeries]
    covariance: Mapping[str, float] | None
    stress: Mapping[StrategyId, Mapping[str, float]] | None
    stats: Mapping[StrategyId, Mapping[str, float]] | None
    extra: Mapping[str, object]
    # The engine's return of the one bar; without a return beside it, paper had none.
    replay: Mapping[StrategyId, float] | None = None


def store(view: WorldView, posted: RiskSnapshot, held: Held, now: datetime) -> SnapshotStored:
    """The fact of a posted snapshot.

    Raises Invalid with every problem, UnknownStrategy, or Conflict when it contradicts history.
    """
    check(view, posted, now)
    bar = view.policy.data.bar if view.default_version is not None else BAR_WITHOUT_POLICY
    fresh = []
    for sid, series in posted.returns.items():
        row = view.strategies[sid].row
        last_t = int(view.tracks[posted.stage].last_t[row])
        t, r = new_points(sid, series, posted.as_of, last_t, partial(held, sid), bar)
        if len(t):
            fresh.append((sid, t, r))
    return SnapshotStored(
        version=posted.version,
        stage=posted.stage,
        as_of=posted.as_of,
        ttl_sec=posted.ttl_sec,
        content=posted.content,
        weights=posted.weights,
        covered=tuple(posted.returns),
        points=packed(fresh),
        covariance=posted.covariance,
        stress=posted.stress,
        stats=posted.stats,
        replay=posted.replay,
        extra=posted.extra,
    )


def packed(series: list[tuple[StrategyId, Int64, Float]]) -> Points:
    """Several strategies' points as one fact carries them."""
    return Points(
        strategies=tuple(sid for sid, _, _ in series),
        counts=tuple(len(t) for _, t, _ in series),
        t=b"".join(t.astype("<i8").tobytes() for _, t, _ in series),
        r=b"".join(r.astype("<f8").tobytes() for _, _, r in series),
    )


def check(view: WorldView, posted: RiskSnapshot, now: datetime) -> None:
    """Raise Invalid naming every problem of a posted snapshot, or UnknownStrategy."""
    named = {
        *posted.weights,
        *posted.returns,
        *(posted.stress or {}),
        *(posted.stats or {}),
        *(posted.replay or {}),
    }
    unknown = sorted(sid for sid in named if sid not in view.strategies)
    if unknown:
        raise UnknownStrategy(", ".join(unknown))
    problems: list[str] = []
    if posted.as_of > now + CLOCK_SKEW_MAX:
        problems.append(f"as_of: {posted.as_of.isoformat()} is in the future")
    if not 1 <= posted.ttl_sec <= TTL_SEC_MAX:
        problems.append(f"ttl_sec: {posted.ttl_sec} is not within 1..{TTL_SEC_MAX}")
    total = sum(posted.weights.values())
    if not abs(total - 1.0) <= WEIGHT_SUM_TOLERANCE:
        problems.append(f"weights: they sum to {total:g}, not to 1")
    for sid, scenarios in (posted.stress or {}).items():
        for scenario, loss in scenarios.items():
            if not 0.0 <= loss <= 1.0:
                problems.append(f"stress.{sid}.{scenario}: a loss of {loss:g} is not within 0..1")
    for sid, stats in (posted.stats or {}).items():
        problems += [
            f"stats.{sid}.{name}: {value} is not finite"
            for name, value in stats.items()
            if not isfinite(value)
        ]
    for sid, replayed in (posted.replay or {}).items():
        if not (isfinite(replayed) and -1.0 <= replayed <= RETURN_MAX):
            problems.append(f"replay.{sid}: {replayed:g} is not within -1..{RETURN_MAX:g}")
    for pair, covariance in (posted.covariance or {}).items():
        if not isfinite(covariance):
            problems.append(f"covariance.{pair}: {covariance} is not finite")
    for sid, series in posted.returns.items():
        problems += [f"realized_returns.{sid}: {p}" for p in series_problems(series, posted.as_of)]
    if sum(len(series.r) for series in posted.returns.values()) > SNAPSHOT_POINTS_MAX:
        problems.append(f"realized_returns: more than {SNAPSHOT_POINTS_MAX} points")
    if problems:
        raise Invalid("; ".join(problems))


def series_problems(series: PostedSeries, as_of: datetime) -> list[str]:
    """What is wrong with one posted series, in words."""
    if not 0 < len(series.r) <= SERIES_POINTS_MAX:
        return [f"{len(series.r)} points; between 1 and {SERIES_POINTS_MAX} are needed"]
    problems = []
    if not np.isfinite(series.r).all():
        problems.append("a return is NaN or infinite")
    elif series.r.min() < -1.0:
        problems.append(f"a return of {series.r.min():g} loses more than 100 %")
    elif series.r.max() > RETURN_MAX:
        problems.append(f"a return of {series.r.max():g} is more than {RETURN_MAX:g}")
    if series.t is not None:
        if len(series.t) != len(series.r):
            problems.append(f"{len(series.t)} times for {len(series.r)} returns")
        elif not (np.diff(series.t) > 0).all():
            problems.append("times do not strictly increase")
        elif series.t[-1] > micros(as_of):
            problems.append("the last time is after as_of")
    return problems


def new_points(
    sid: StrategyId,
    posted: PostedSeries,
    as_of: datetime,
    last_t: int,
    held: Callable[[], Series],
    bar: timedelta,
) -> tuple[Int64, Float]:
    """The points beyond what is held.  Raises Conflict when the rest differs from it.

    `held` is read only when the posted series reaches back into it.
    """
    if posted.t is None:
        return _new_of_list(sid, posted.r, as_of, last_t, held() if last_t != NEVER else None, bar)
    beyond = int(np.searchsorted(posted.t, last_t, side="right"))
    if beyond:
        have = held()
        start = int(np.searchsorted(have.t, posted.t[0]))
        same_times = np.array_equal(have.t[start:], posted.t[:beyond])
        if beyond == len(posted.t) and not same_times:  # Ends before what is held does.
            end = start + beyond
            same_times = np.array_equal(have.t[start:end], posted.t)
            have = Series(have.t[:end], have.r[:end], have.accepted[:end])
        if not same_times or not np.array_equal(have.r[start:], posted.r[:beyond]):
            raise _restated(sid)
    return posted.t[beyond:], posted.r[beyond:]


def _new_of_list(
    sid: StrategyId, r: Float, as_of: datetime, last_t: int, have: Series | None, bar: timedelta
) -> tuple[Int64, Float]:
    """An append-only list: held is its prefix, the rest is stamped back from `as_of`."""
    count = 0 if have is None else len(have.r)
    if have is not None and not np.array_equal(have.r[: len(r)], r[:count]):
        raise _restated(sid)
    fresh = r[count:]
    if not len(fresh):
        return np.empty(0, np.int64), fresh
    end = micros(as_of)
    step = span_us(bar)
    if last_t != NEVER:
        if end <= last_t:
            raise Conflict(f"{sid}: new returns at or before {instant(last_t).isoformat()}.")
        step = min(step, (end - last_t) // len(fresh))
        if step == 0:
            raise Conflict(f"{sid}: more new returns than microseconds since the last one held.")
    back = np.arange(len(fresh) - 1, -1, -1, dtype=np.int64)
    return end - step * back, fresh


def _restated(sid: StrategyId) -> Conflict:
    return Conflict(
        f"{sid}: the posted returns differ from the recorded history; "
        "only a restatement by an operator replaces it.",
        reasons=(Reason.EVIDENCE_CHANGED,),
    )


def restate(
    view: WorldView, stage: Stage, sid: StrategyId, series: PostedSeries, reason: str, now: datetime
) -> SeriesRestated:
    """The fact of a restatement.  Raises Invalid or UnknownStrategy."""
    view.strategy(sid)
    problems = series_problems(series, now + CLOCK_SKEW_MAX)
    if series.t is None:
        problems.append("a restatement gives its times")
    if problems or series.t is None:
        raise Invalid("; ".join(problems))
    return SeriesRestated(
        stage=stage, strategy_id=sid, reason=reason, points=packed([(sid, series.t, series.r)])
    )


@dataclass(frozen=True, slots=True)
class Fresh:
    seq: int  # The journal entry of the snapshot.


@dataclass(frozen=True, slots=True)
class NotFresh:
    reason: Reason
    detail: str


def freshness(
    view: WorldView, row: int, stage: Stage, policy: Policy, now: datetime
) -> Fresh | NotFresh:
    """Of the newest snapshot of the stage that contains the strategy (DESIGN 7.3)."""
    track = view.tracks[stage]
    as_of = int(track.covered_as_of[row])
    if as_of == NEVER:
        detail = f"no {stage} snapshot contains the strategy in weights and returns"
        return NotFresh(Reason.RISK_SNAPSHOT_MISSING, detail)
    age = micros(now) - as_of
    ttl = int(track.covered_ttl_us[row])
    oldest = policy.risk.snapshot_max_age
    stamp = instant(as_of).isoformat()
    if age < -span_us(CLOCK_SKEW_MAX):
        return NotFresh(Reason.RISK_SNAPSHOT_STALE, f"the snapshot of {stamp} is from the future")
    if not age <= ttl:
        return NotFresh(
            Reason.RISK_SNAPSHOT_EXPIRED,
            f"the snapshot of {stamp} outlived its TTL of {ttl // 1_000_000} s",
        )
    if oldest is not None and not age <= span_us(oldest):
        return NotFresh(
            Reason.RISK_SNAPSHOT_STALE,
            f"the snapshot of {stamp} is older than the policy's {oldest}",
        )
    return Fresh(int(track.covered_seq[row]))
