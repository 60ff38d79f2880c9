"""Return series: what the hub holds of a strategy and stage, and how new points advance a track."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from .columns import DIGEST_HEX, Float, Int64, Track
from .facts import Points
from .metrics import FLAT
from .names import Stage
from .policy import GAP_BARS_MAX, Policy
from .times import NEVER, micros, span_us

EQUITY_MAX = float(np.finfo(np.float64).max)  # Where compounding stops growing: never infinite.


@dataclass(frozen=True, slots=True)
class Series:
    """What is held: times (int64 microseconds UTC), simple returns, and which came in time."""

    t: Int64
    r: Float
    accepted: NDArray[np.bool_]

    def since(self, window_from: int) -> Float:
        """The accepted returns strictly after an instant; all accepted ones for NEVER."""
        return self.r[self.accepted & (self.t > window_from)]


OVERLAP_MIN = 20  # Fewer common observations say nothing of a correlation.


def correlation(a: Series, b: Series) -> float | None:
    """Pearson correlation of the returns at common times.

    None when fewer than OVERLAP_MIN are common or either is constant over them, but for rounding.
    """
    _, mine, theirs = np.intersect1d(a.t, b.t, assume_unique=True, return_indices=True)
    if len(mine) < OVERLAP_MIN:
        return None
    x, y = _spread(a.r[mine]), _spread(b.r[theirs])
    if x is None or y is None:
        return None
    return max(-1.0, min(1.0, float(x @ y)))  # Rounding may leave it a hair beyond.


def _spread(r: Float) -> Float | None:
    """The deviations from the mean, scaled to length 1; None when rounding is all there is."""
    apart = r - r.mean()
    length = float(np.sqrt(apart @ apart))
    if not length > FLAT * float(np.abs(r).max()) * np.sqrt(len(r)):
        return None
    unit: Float = apart / length
    return unit


EMPTY = Series(np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_))


def accepted(
    t: Int64, stage: Stage, received_at: datetime, policy: Policy | None
) -> NDArray[np.bool_]:
    """Which points came in time to count (DESIGN 7.2).  A backtest is never late."""
    if stage is Stage.BACKTEST:
        return np.ones(t.shape, np.bool_)
    if policy is None:
        return np.zeros(t.shape, np.bool_)
    return t >= micros(received_at) - span_us(policy.data.max_lag)


def blank_window(track: Track, row: int, window_from: int) -> Track:
    """The track with one strategy's window empty, counting from an instant."""
    blank = track.blank(1)
    names = (
        "window_first_t",
        "window_last_t",
        "window_us",
        "window_points",
        "equity",
        "peak",
        "drawdown",
        "verdict",
        "judged_digest",
        "judged_policy",
        "judged_t",
    )
    values = {name: blank.arrays()[name][0] for name in names}
    return track.put(row, window_from=window_from, **values)


def append(
    track: Track,
    rows: NDArray[np.intp],
    points: Points,
    stage: Stage,
    received_at: datetime,
    policy: Policy | None,
) -> Track:
    """The track after new points of several strategies; `rows[i]` is the row of strategy i.

    Strategies that bring equally many points are advanced together.
    """
    cap = GAP_BARS_MAX * span_us(policy.data.bar) if policy else 0
    for which, t, r in points.alike():
        counted = accepted(t, stage, received_at, policy)
        track = _advance(track, rows[which], t, r, counted, cap)
    return track


def _advance(
    track: Track,
    rows: NDArray[np.intp],
    t: Int64,
    r: Float,
    counted: NDArray[np.bool_],
    cap: int,
) -> Track:
    """All arrays are (strategies, points); `rows` is (strategies,)."""
    since = track.window_from[rows][:, None]
    inside = counted & (t > since) & (since != NEVER)
    seen = np.maximum.accumulate(np.where(inside, t, NEVER), axis=1)
    held_last = track.window_last_t[rows]
    before = np.maximum(np.column_stack((held_last, seen[:, :-1])), held_last[:, None])
    follows = inside & (before != NEVER)
    gaps = np.where(follows, np.minimum(t - np.where(follows, before, t), cap), 0)
    first_inside = np.where(inside, t, np.iinfo(np.int64).max).min(axis=1)
    started = track.window_first_t[rows] != NEVER
    any_inside = inside.any(axis=1)

    # INVARIANT (I10): a loss counts downwards however late it came.
    after_entry = (t > since) & (since != NEVER)
    with np.errstate(over="ignore", invalid="ignore"):
        growth = np.cumprod(np.where(after_entry, 1.0 + r, 1.0), axis=1)
        equity = track.equity[rows][:, None] * growth
    equity = np.nan_to_num(equity, nan=0.0, posinf=EQUITY_MAX)
    peaks = np.maximum.accumulate(np.column_stack((track.peak[rows], equity)), axis=1)[:, 1:]
    drawdown = np.maximum(track.drawdown[rows], (1.0 - equity / peaks).max(axis=1))

    held = track.points[rows]
    return track.put(
        rows,
        points=held + t.shape[1],
        digest=[
            chained(bytes(track.digest[row]), t[i], r[i], counted[i]) for i, row in enumerate(rows)
        ],
        first_t=np.where(held == 0, t[:, 0], track.first_t[rows]),
        last_t=t[:, -1],
        window_first_t=np.where(~started & any_inside, first_inside, track.window_first_t[rows]),
        window_last_t=np.maximum(held_last, seen[:, -1]),
        window_us=track.window_us[rows] + gaps.sum(axis=1),
        window_points=track.window_points[rows] + inside.sum(axis=1),
        equity=equity[:, -1],
        peak=peaks[:, -1],
        drawdown=drawdown,
    )


def chained(held: bytes, t: Int64, r: Float, counted: NDArray[np.bool_]) -> bytes:
    """The digest of a series after more points: of the digest before them, and of them."""
    digest = sha256(held)
    digest.update(t.tobytes())
    digest.update(r.tobytes())
    digest.update(counted.tobytes())
    return digest.hexdigest()[:DIGEST_HEX].encode()
