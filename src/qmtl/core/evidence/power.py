"""How long strategies of a given Sharpe ratio take to reach an e-value: by simulation, seeded.

Normal returns, independent from bar to bar: what is found is what the method can do at best.  All
that is asked of one method is found on the same paths, so that shares and times agree: half of the
strategies are there in time when, and only when, the median of their times is in time.

The first LOOKS blocks (of `bounded`: bars) are looked at one by one, and from then on there are
LOOKS looks while the time grows e-fold, so that minutes cost what days do.  What happens between
two looks is drawn at once.  Who was there between them alone is missed: fewer than 1 in 100.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .eprocess import BETS, BLOCKS_MIN, bounded
from .eprocess import t_needed as mixture_t
from .horizon import t_needed as strictest_t
from .normal import NORMAL, Bool, Float, least

Int64 = NDArray[np.int64]

PATHS: Final = 4_000  # Even, so that the median is the last of the first half.
POINTS_OFF: Final = 2.0  # Of 100: a share of a half is right to 1.6, and looks miss the rest.
LOOKS: Final = 500
LOOKS_AT_ONCE: Final = 64  # Times PATHS: what a processor keeps close to itself.
SEED: Final = 20_120_101
NODES: Final = 40  # Of a Gauss-Hermite quadrature.
NEVER: Final = 1e-30  # Of a chance: in no lifetime.
DEVIATION_ANNUAL: Final = 0.10  # For `bounded`, whose speed depends on it: a usual target.


def median(times: Float) -> Float:
    """The time by which half of the paths, the last axis, are there; inf for fewer than half."""
    found: Float = np.sort(times)[..., times.shape[-1] // 2 - 1]
    return found


@lru_cache(maxsize=32)
def blocks_until(
    thresholds: tuple[float, ...],
    sharpes: tuple[float, ...],
    design: float,
    most: int,
    horizon: int = 0,
) -> Float:
    """Blocks until each path first shows a t e-value of each threshold, at each true Sharpe ratio.

    Shape (sharpes, thresholds, PATHS), inf where that is not within `most`.  Sharpe ratios and
    `design` are per block.  With a `horizon`, `group_sequential` over so many.
    """
    at = _looks(min(most, horizon) if horizon else most, BLOCKS_MIN)
    n = at.astype(float)
    asked = [strictest_t(c, n, horizon) if horizon else mixture_t(c, n, design) for c in thresholds]
    found = np.full((len(sharpes), len(thresholds), PATHS), math.inf)
    for part, total, squares in _walks(at):
        m = n[part, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = np.sqrt(m * (m - 1) / (squares - total**2 / m))
            luck = total / m * slope
        for i, sharpe in enumerate(sharpes):
            t = luck + sharpe * slope
            for j, needed in enumerate(asked):
                _first(found[i, j], t >= needed[part, None], at[part])
        if np.isfinite(found).all():
            break
    return found


@lru_cache(maxsize=32)
def bars_until(
    thresholds: tuple[float, ...],
    sharpes: tuple[float, ...],
    deviation: float,
    floor: float,
    most: int,
) -> Float:
    """Bars until each path first shows a `bounded` e-value of each threshold, as `blocks_until`.

    Sharpe ratios and deviation per bar.  A bet grows by what is expected of it, and by the luck of
    a path in proportion: of months, or with a floor within three deviations of a bar, up to two in
    100 too few are there.  A bar below -floor ends the path.
    """
    at = _looks(most, 1)
    found = np.full((len(sharpes), len(thresholds), PATHS), math.inf)
    asked = [
        [_luck_needed(c, at.astype(float), *growth(each, deviation, floor)) for c in thresholds]
        for each in sharpes
    ]
    for part, luck, _ in _walks(at):
        for i in range(len(sharpes)):
            for j, needed in enumerate(asked[i]):
                _first(found[i, j], luck >= needed[part, None], at[part])
        if np.isfinite(found).all():
            break
    for i, sharpe in enumerate(sharpes):
        below = NORMAL.cdf(-floor / deviation - sharpe)
        spared = np.random.default_rng([SEED, 1]).exponential(size=PATHS) / max(below, NEVER)
        found[i][found[i] > spared] = math.inf
    return found


@lru_cache(maxsize=32)
def drawdowns(sharpes: tuple[float, ...], deviation: float, bars: int) -> Float:
    """The largest loss from the highest point so far, a fraction: shape (sharpes, PATHS).

    Of compounded normal returns; Sharpe ratios and deviation per bar.
    """
    at = _looks(bars, 1)
    rates = [s * deviation - deviation**2 / 2 for s in sharpes]
    top, worst = np.zeros((2, len(sharpes), PATHS))
    for part, luck, _ in _walks(at):
        for i, rate in enumerate(rates):
            height = at[part, None] * rate + luck * deviation
            tops = np.maximum(np.maximum.accumulate(height), top[i])
            worst[i] = np.maximum(worst[i], (tops - height).max(axis=0))
            top[i] = tops[-1]
    return -np.expm1(-worst)


def growth(sharpe: float, deviation: float, floor: float) -> tuple[Float, Float]:
    """Of the logarithm of each bet in a bar of normal returns that stays above -floor: what is
    expected, and how much more for each deviation that the bar is above its mean."""
    z, weight = np.polynomial.hermite_e.hermegauss(NODES)
    weight = weight / weight.sum()
    returns = np.maximum((sharpe + z) * deviation, -floor)
    grown = np.log1p(returns[:, None] * np.array(BETS) / floor)
    return weight @ grown, (weight * z) @ grown


def _luck_needed(threshold: float, n: Float, mean: Float, slope: Float) -> Float:
    """Deviations that n bars have to be above their mean for `bounded` to be at the threshold."""
    held = n[:, None] * mean

    def enough(luck: Float) -> Bool:
        # As with a t that is needed: no number is just the threshold.
        found: Bool = bounded(held + luck[:, None] * slope) >= threshold  # pragma: no mutate
        return found

    # Below the first no bet is at the threshold; at the second one of them is enough alone.
    first, second = (
        ((math.log(c) - held) / slope).min(axis=1) for c in (threshold, threshold * len(slope))
    )
    return least(enough, first, second)


def _first(found: Float, there: Bool, at: Int64) -> None:
    """Those paths that are there at a look, and were at none before."""
    new = np.isinf(found) & there.any(axis=0)
    found[new] = at[there[:, new].argmax(axis=0)]


def _looks(most: int, first: int) -> Int64:
    """When to look: from `first` to `most`, at each up to LOOKS, then 1/LOOKS later each time."""
    found = [*range(first, min(most, LOOKS) + 1)]
    while found and found[-1] < most:
        found.append(min(most, found[-1] + max(1, found[-1] // LOOKS)))
    return np.array(found)


def _walks(at: Int64) -> Iterator[tuple[slice, Float, Float]]:
    """Sums, and sums of squares, of as many standard normals as there are bars at each look.

    Shape (looks, PATHS), for some of the looks at a time.
    """
    rng = np.random.default_rng(SEED)
    total = squares = np.zeros(PATHS)
    sizes = np.diff(at, prepend=0)[:, None]
    for start in range(0, len(at), LOOKS_AT_ONCE):
        part = slice(start, start + LOOKS_AT_ONCE)
        size = sizes[part]
        drawn = rng.standard_normal((len(size), PATHS // 2))
        apart = np.concatenate((drawn, -drawn), axis=1)  # As much good luck as bad.
        # What lies between two looks has this sum, and moves around its mean by this much.
        inside = 2 * rng.standard_gamma((size - 1) / 2, (len(size), PATHS))
        totals = np.cumsum(np.sqrt(size) * apart, axis=0) + total
        more = np.cumsum(apart**2 + inside, axis=0) + squares
        total, squares = totals[-1], more[-1]
        yield part, totals, more
