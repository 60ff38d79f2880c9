"""How sure a figure is that was counted in several worlds.

Strategies of one world compete and may move together, so that it is worlds that are independent:
they are what is drawn again (a bootstrap of clusters, Davison & Hinkley 1997, 3.8), or what a share
is told by (Wilson 1927, of as many as are left of its strategies by the design effect, Kish 1965).

Each maker is given one value a strategy and the world that it was in, and answers the ends of an
interval of 95 %, or None where worlds do not tell: there are fewer than two (of a median:
five), or all is alike.
With few worlds the drawn ones are narrow: of eight, 9 in 10 hold the truth.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

from qmtl.core.columns import Float, Int64

Interval = tuple[float, float]

RESAMPLES: Final = 2_000
SEED: Final = 19_870_601
Z_95: Final = NormalDist().inv_cdf(0.975)
OF_A_MEDIAN: Final = 5  # Worlds: of fewer, even the extremes hold the median less than 94 in 100.
ENDS: Final = (2.5, 97.5)  # Percentiles.


def wilson(count: float, of: float) -> Interval:
    """Of a share of so many that have nothing to do with each other (Wilson 1927)."""
    if not of:
        return (0.0, 1.0)
    share, z2 = count / of, Z_95**2
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z_95 / (1 + z2 / of) * sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    return (max(0.0, centre - half), min(1.0, centre + half))


def of_share(there: Sequence[bool], worlds: Sequence[int]) -> Interval:
    """Of the share of those that are there.

    Where all are alike, nothing tells how much strategies of a world have to do with each other: a
    world counts once.
    """
    found = np.array(there, float)
    sums, sizes = _by_world(found, worlds)
    total, count = float(sizes.sum()), len(sizes)
    if not count:
        return wilson(0, 0)
    share, most = float(sums.sum()) / total, total / count
    effect = most
    if 0.0 < share < 1.0 and count > 1:
        apart = float(((sums - sizes * share) ** 2).sum()) * count / (count - 1)
        effect = min(most, max(1.0, apart / (total * share * (1 - share))))
    return wilson(share * total / effect, total / effect)


def of_mean(values: Sequence[float], worlds: Sequence[int]) -> Interval | None:
    """Of the mean of all."""
    sums, sizes = _by_world(np.array(values, float), worlds)
    if len(sums) < 2 or len(set(values)) < 2:
        return None
    times = _drawn(len(sums))
    return _ends(float(sums.sum() / sizes.sum()), (times @ sums) / (times @ sizes), len(sums))


def of_median(values: Sequence[float | None], worlds: Sequence[int]) -> Interval | None:
    """Of the median of those that have a value; worlds without any are drawn, too."""
    _, number = np.unique(worlds, return_inverse=True)
    has = np.array([value is not None for value in values])
    found = np.array([value for value in values if value is not None])
    with_any = len(np.unique(number[has]))
    if with_any < OF_A_MEDIAN or len(set(found.tolist())) < 2:
        return None
    order = np.argsort(found, kind="stable")
    times = _drawn(int(number.max()) + 1)[:, number[has][order]]
    passed, total = np.cumsum(times, axis=1), times.sum(axis=1)
    some = total > 0
    middle = [
        found[order][(passed[some] >= place[some, None]).argmax(axis=1)]
        for place in ((total + 1) // 2, total // 2 + 1)
    ]
    low, high = _ends(float(np.median(found)), (middle[0] + middle[1]) / 2, with_any)
    return max(low, float(found.min())), min(high, float(found.max()))


def _by_world(values: Float, worlds: Sequence[int]) -> tuple[Float, Float]:
    """The sum of each world, and how many are in it."""
    _, number = np.unique(worlds, return_inverse=True)
    sums: Float = np.bincount(number, values).astype(np.float64)
    sizes: Float = np.bincount(number).astype(np.float64)
    return sums, sizes


def _drawn(count: int) -> Int64:
    """How often each of so many worlds is drawn, again and again: (RESAMPLES, worlds)."""
    found: Int64 = np.random.default_rng(SEED).multinomial(
        count, np.full(count, 1 / count), RESAMPLES
    )
    return found


def _ends(figure: float, drawn: Float, worlds: int) -> Interval:
    """Of a figure that is not negative.  As much wider as Student's t of so many worlds is."""
    low, high = np.percentile(drawn, ENDS)
    v = worlds - 1
    t = Z_95 + (Z_95**3 + Z_95) / (4 * v) + (5 * Z_95**5 + 16 * Z_95**3 + 3 * Z_95) / (96 * v**2)
    wider = t / Z_95 * sqrt(worlds / v)
    return max(0.0, figure - wider * (figure - low)), figure + wider * (high - figure)
