"""Returns -> metrics: what one series of periodic returns says about itself.

Definitions, with r the n returns as fractions per bar, oldest first, and p the bars a year:

* sharpe_annual: mean(r) / sd(r) * sqrt(p), sd with divisor n-1 (Sharpe 1994; r is in excess of the
  hurdle already).
* volatility: sd(r) * sqrt(p), sd with divisor n-1; undefined for a constant series.
* sortino: mean(r) p / (sqrt(mean(min(r, 0)^2)) sqrt(p)), both means over all n bars, target 0
  (Sortino & Price 1994).
* max_drawdown: the largest 1 - equity/peak. Equity compounds from 1 and its running peak starts
  there too, so a loss on the first bar counts. Positive, at most 1.
* cagr: (final equity)^(p/n) - 1. calmar: cagr / max_drawdown, both over the whole series (Young
  1991 takes the last 36 months).
* skew: g1 = m3 / m2^1.5. kurtosis: m4 / m2^2, raw, so that a normal has 3. Population moments,
  divisor n, of both (Joanes & Gill 1998).
* var_p01: minus the historical 1 % quantile, interpolated linearly between order statistics at
  (n-1)/100 (Hyndman & Fan 1996, type 7; the default of numpy). es_p01: minus the mean of all
  returns at or below that quantile. Losses are positive; a tail that gained is negative. Up to
  100 returns, es_p01 is the worst bar.
* max_bar_loss: the largest loss of a single bar, max(0, -min(r)).
* gain_to_pain: sum(r) / |sum(min(r, 0))| (Schwager 2012; there, of monthly returns).
* time_under_water_ratio: the share of the n bars that end with equity below its running peak.
* effective_history_years: n/p. observations: n.

A return of -1 or less is ruin: equity is zero from that bar on, whatever follows. Then max_drawdown
is 1, cagr and calmar are -1; the ratios that promise a reward (sharpe_annual, sortino,
gain_to_pain) are `RUINED`, since their mean may well be positive; what describes single bars
(volatility, skew, kurtosis, var_p01, es_p01) is taken of the bars as they came.

One sort, one path. The sorted copy answers all that does not depend on the order of the bars, and
answers it bit for bit the same in every order; the path answers drawdown, growth and time under
water. Three things keep a meaningless number from leaving:

* Moments are taken of the returns divided by a power of two, so that the largest is in [0.5, 1).
  The division is exact and ratios ignore it; fourth powers neither overflow nor vanish.
* Equity is kept as its logarithm: compounding can't overflow, and near zero it keeps its digits.
* What can't be told from rounding (below `FLAT` of scale) counts as zero, and is never divided by;
  so no ratio of moments exceeds 1/`FLAT` before it is annualised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Below this a spread or a downside (as a fraction of the largest |return|), or a drawdown (as a
# fraction of the peak), is rounding: float64 leaves about 1e-16 an operation, and no market does.
FLAT: Final = 1e-12

TAIL: Final = 0.01

# The largest growth whose exponential is still a float64.
LOG_MAX: Final = math.log(float(np.finfo(np.float64).max))


class Undefined(StrEnum):
    """Why a metric has no value: an outcome with a name, never a number, so never a pass."""

    EMPTY = "empty"  # No returns at all.
    NOT_FINITE = "not_finite"  # NaN or infinity among the returns: none of them is trusted.
    RUINED = "ruined"  # Equity reached zero; a reward after that is nobody's.
    TOO_SHORT = "too_short"  # One return has no spread.
    CONSTANT = "constant"  # No spread beyond rounding.
    NO_LOSS = "no_loss"  # No losing bar to divide by.
    NO_DRAWDOWN = "no_drawdown"  # Never below the running peak.
    OVERFLOW = "overflow"  # Larger than a float64 can hold.


Measure: TypeAlias = float | Undefined

# Every metric that `performance` answers with, in its order.
UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sharpe_annual": "ratio, annualised",
        "volatility": "fraction, annualised",
        "sortino": "ratio, annualised",
        "max_drawdown": "fraction of the running peak",
        "calmar": "ratio, annualised",
        "cagr": "fraction per year",
        "skew": "dimensionless (normal = 0)",
        "kurtosis": "dimensionless (normal = 3)",
        "var_p01": "loss fraction per bar",
        "es_p01": "loss fraction per bar",
        "max_bar_loss": "loss fraction per bar",
        "gain_to_pain": "ratio",
        "time_under_water_ratio": "fraction of bars",
        "effective_history_years": "years",
        "observations": "count",
    }
)


def performance(returns: NDArray[np.float64], periods_per_year: float) -> dict[str, Measure]:
    """The metrics of a return series: one entry for each name in `UNITS`, in that order.

    `returns` has shape (n,): simple returns, fractions per bar (0.01 is one percent), oldest first.
    It is not changed. `periods_per_year` is finite and positive. The formula of each metric and
    where it comes from are in the head of this file, its unit in `UNITS`. No returns: `EMPTY`, but
    for observations and effective_history_years, which are 0. Any NaN or infinity: `NOT_FINITE`
    throughout. Raises nothing; another shape, dtype or `periods_per_year` is a bug of the caller.
    """
    assert returns.ndim == 1, "returns: shape (n,)"
    assert returns.dtype == np.float64, "returns: float64"
    assert 0.0 < periods_per_year < math.inf, "periods_per_year: finite and positive"
    n = returns.size
    if n == 0:
        nothing: dict[str, Measure] = dict.fromkeys(UNITS, Undefined.EMPTY)
        return nothing | {"effective_history_years": 0.0, "observations": 0.0}

    ordered = np.sort(returns)
    lowest, highest = float(ordered[0]), float(ordered[-1])
    # NaN sorts last and infinities sort outermost: the two ends speak for all.
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return dict.fromkeys(UNITS, Undefined.NOT_FINITE)

    largest, exponent = math.frexp(max(-lowest, highest))
    scaled: NDArray[np.float64] = np.ldexp(ordered, -exponent)
    floor = FLAT * largest
    sharpe, deviation, skew, kurtosis = _spread(scaled, floor, periods_per_year)
    sortino, gain_to_pain = _downside(scaled, floor, periods_per_year)
    quantile, tail_mean = _tail(scaled)
    ruined = lowest <= -1.0
    log_growth, drawdown, under_water = _path(returns, ruined)
    cagr = _growth(log_growth * periods_per_year / n)
    return {
        "sharpe_annual": Undefined.RUINED if ruined else sharpe,
        "volatility": _unscaled(deviation, exponent),
        "sortino": Undefined.RUINED if ruined else sortino,
        "max_drawdown": drawdown,
        "calmar": _calmar(cagr, drawdown),
        "cagr": cagr,
        "skew": skew,
        "kurtosis": kurtosis,
        "var_p01": _unscaled(-quantile, exponent),
        "es_p01": _unscaled(-tail_mean, exponent),
        "max_bar_loss": max(0.0, -lowest),
        "gain_to_pain": Undefined.RUINED if ruined else gain_to_pain,
        "time_under_water_ratio": under_water,
        "effective_history_years": _finite(n / periods_per_year),
        "observations": float(n),
    }


def _spread(
    scaled: NDArray[np.float64], floor: float, periods_per_year: float
) -> tuple[Measure, Measure, Measure, Measure]:
    """Sharpe, annual deviation (still scaled), skew and kurtosis."""
    n = scaled.size
    if n < 2:
        return (Undefined.TOO_SHORT,) * 4
    mean = float(scaled.sum()) / n
    centred = scaled - mean
    squared = centred * centred
    sum2 = float(squared.sum())
    deviation = math.sqrt(sum2 / (n - 1))
    if not deviation > floor:
        return Undefined.CONSTANT, Undefined.CONSTANT, Undefined.CONSTANT, Undefined.CONSTANT
    m2 = sum2 / n
    m3 = float((squared * centred).sum()) / n
    m4 = float((squared * squared).sum()) / n
    root = math.sqrt(periods_per_year)
    skew, kurtosis = m3 / (m2 * math.sqrt(m2)), m4 / (m2 * m2)
    return mean / deviation * root, deviation * root, skew, kurtosis


def _downside(
    scaled: NDArray[np.float64], floor: float, periods_per_year: float
) -> tuple[Measure, Measure]:
    """Sortino and gain to pain. `scaled` is sorted, so the losses are its head."""
    n = scaled.size
    losses = scaled[: np.searchsorted(scaled, 0.0)]
    total = float(scaled.sum())
    pain = -float(losses.sum())
    deviation = math.sqrt(float((losses * losses).sum()) / n)
    sortino: Measure = Undefined.NO_LOSS
    gain_to_pain: Measure = Undefined.NO_LOSS
    if deviation > floor:
        sortino = total / n / deviation * math.sqrt(periods_per_year)
    if pain / n > floor:
        gain_to_pain = total / pain
    return Undefined.TOO_SHORT if n < 2 else sortino, gain_to_pain


def _tail(scaled: NDArray[np.float64]) -> tuple[float, float]:
    """The `TAIL` quantile and the mean of what is at or below it. `scaled` is sorted."""
    place = (scaled.size - 1) * TAIL
    below = int(place)
    low = float(scaled[below])
    high = float(scaled[min(below + 1, scaled.size - 1)])
    quantile = low + (high - low) * (place - below)
    # INVARIANT: quantile >= low, in floats too, so the tail holds at least one return.
    tail = scaled[: np.searchsorted(scaled, quantile, side="right")]
    return quantile, float(tail.sum()) / tail.size


def _path(returns: NDArray[np.float64], ruined: bool) -> tuple[float, float, float]:
    """Log of final equity (-inf when ruined), largest drawdown, share of bars under water."""
    n = returns.size
    alive = returns[: int(np.argmax(returns <= -1.0))] if ruined else returns
    log_equity = np.log1p(alive).cumsum()
    peak = np.maximum(np.maximum.accumulate(log_equity), 0.0)  # Equity starts at 1.
    fall = log_equity - peak
    under_water = (int(np.count_nonzero(fall < -FLAT)) + n - alive.size) / n
    if ruined:
        return -math.inf, 1.0, under_water
    deepest = float(fall.min())
    drawdown = -math.expm1(deepest) if deepest < -FLAT else 0.0
    return float(log_equity[-1]), drawdown, under_water


def _growth(log_growth_annual: float) -> Measure:
    if log_growth_annual > LOG_MAX:
        return Undefined.OVERFLOW
    return math.expm1(log_growth_annual) + 0.0  # As in `_unscaled`.


def _calmar(cagr: Measure, drawdown: float) -> Measure:
    if not drawdown > 0.0:
        return Undefined.NO_DRAWDOWN
    return cagr if isinstance(cagr, Undefined) else _finite(cagr / drawdown)


def _unscaled(value: Measure, exponent: int) -> Measure:
    if isinstance(value, Undefined):
        return value
    try:
        return math.ldexp(value, exponent) + 0.0  # -0.0 becomes 0.0: one value, one spelling.
    except OverflowError:
        return Undefined.OVERFLOW


def _finite(value: float) -> Measure:
    return value if math.isfinite(value) else Undefined.OVERFLOW
