"""Whether paper is what its engine makes of the same bars, and live what paper was.

Sources.  WS24: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), Time-uniform central limit
theory and asymptotic confidence sequences.  S24: Shin, Ramdas & Rinaldo (2024), E-detectors.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from .eprocess import E_MAX
from .normal import FLAT, Bool, Float
from .sharpe import moments

DRIFTS_MIN: Final = 10  # With fewer differences a central limit says nothing.
DRIFT_TIGHT_AT: Final = 60  # Observations at which the sequence is narrowest: a quarter of days.


@dataclass(frozen=True, slots=True)
class Sums:
    """Count, mean and sum of squared deviations; arrays of one number a strategy."""

    count: Float
    mean: Float
    m2: Float

    @property
    def deviation(self) -> Float:
        """With divisor n-1; NaN for fewer than two."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count >= 2, np.sqrt(self.m2 / (self.count - 1)), np.nan)


def more(held: Sums, values: Float, counted: Bool) -> Sums:
    """After one value a strategy, where `counted` (Welford 1962)."""
    count = held.count + counted
    apart = values - held.mean
    mean = np.where(counted, held.mean + apart / np.maximum(count, 1.0), held.mean)
    return Sums(count, mean, np.where(counted, held.m2 + apart * (values - mean), held.m2))


def drift_radius(held: Sums, alpha: float) -> Float:
    """Half the width of an asymptotic confidence sequence for the mean (WS24, eq. 3).

    It holds at all times together, with probability 1 - alpha as the first look gets late.  NaN for
    fewer than DRIFTS_MIN values.  At least FLAT, a share of capital a bar: a replay that adds up in
    another order differs by rounding, always the same way, and that is no drift.
    """
    wide = -2 * math.log(alpha)
    rho2 = (wide + math.log(wide + 1)) / DRIFT_TIGHT_AT
    with np.errstate(divide="ignore"):
        n = held.count
        scaled = n * rho2 + 1
        share = 2 * scaled / (n**2 * rho2) * np.log(np.sqrt(scaled) / alpha)
        radius = np.maximum(held.deviation * np.sqrt(share), FLAT)
        return np.where(n >= DRIFTS_MIN, radius, np.nan)


COMPARED_MIN: Final = 0.9  # Of the bars: below it, too few have both to say more.
EVEN: Final = 0.25  # Of the volatility: what differs by less, bar by bar, differs evenly.
UNEVEN: Final = 0.5  # Two series with nothing in common differ by sqrt(2) of it.


class Cause(StrEnum):
    """Why paper is not what its engine makes of the same bars, as far as the numbers show it."""

    MISSING_BARS = "missing bars"
    COSTS = "costs"
    OTHER_DATA = "different data"
    UNCLEAR = "unclear"


def likely_cause(
    held: Sums, alpha: float, bars: float, volatility: float, unrealised: float = 0.0
) -> Cause:
    """Of one strategy (arrays of shape (1,)), paper less replay.

    `bars` is how many returns paper has, `volatility` their standard deviation a bar; `unrealised`
    of those that are held have a replay alone.  A cost takes much the same from every bar; other
    prices, or the same ones a bar late, differ both ways.  The limits are conventions, not tests:
    it says where to look first.
    """
    count, mean, deviation = (float(each[0]) for each in (held.count, held.mean, held.deviation))
    if count - unrealised < COMPARED_MIN * (bars + unrealised):
        return Cause.MISSING_BARS
    if count < DRIFTS_MIN:
        return Cause.UNCLEAR
    drifts = abs(mean) > float(drift_radius(held, alpha)[0])
    if drifts and deviation <= EVEN * volatility:
        return Cause.COSTS
    if deviation >= UNEVEN * volatility or not drifts:
        return Cause.OTHER_DATA
    return Cause.UNCLEAR


RATES: Final = tuple(j / 10 for j in (1, 2, 3, 5, 7, 9))  # Shares of the steepest bet.
CAP_DEVIATIONS: Final = 3.0
HEALTHY_SHARE: Final = 0.5  # Of what paper earned: below it, live is not the same strategy.
HEALTHY_MIN: Final = 20  # Returns to learn it from.


@dataclass(frozen=True, slots=True)
class Healthy:
    """What live has to keep up: the cap u, beyond which a return counts as u, and the mean m0."""

    cap: float
    mean: float


def healthy(returns: Float) -> Healthy | None:
    """From paper returns, shape (T,): what live has to keep up.

    u is three standard deviations, m0 half the mean of min(r, u).  None when they are too few or
    have no spread.
    """
    if len(returns) < HEALTHY_MIN or moments(returns) is None:
        return None
    cap = CAP_DEVIATIONS * float(returns.std(ddof=1))
    mean = HEALTHY_SHARE * float(np.minimum(returns, cap).mean())
    return Healthy(cap, mean)  # INVARIANT: the mean of what is at most u is; half of it is below.


def more_decay(held: Float, returns: Float, cap: Float, mean: Float) -> Float:
    """The detector after one live return a strategy: `held` has shape (strategies, rates).

    M_t = (M_{t-1} + 1)(1 - l (min(r_t, u) - m0)), l = RATES/(u - m0): a sum of e-processes begun at
    every instant (S24).  What is no number counts as the worst return there is.
    """
    rates = np.array(RATES) / (cap - mean)[:, None]
    factor = 1 - rates * (np.minimum(returns, cap) - mean)[:, None]
    found: Float = np.fmin((held + 1) * factor, E_MAX)
    return found


def decay(held: Float) -> Float:
    """The detector's value: the average over the rates.  It passes c at most once in c observations
    on average, as long as the conditional mean of min(r, u) stays at or above m0."""
    found: Float = held.mean(axis=-1)
    return found
