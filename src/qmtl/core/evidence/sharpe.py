"""What one series says of its Sharpe ratio, and what the best of many would say by luck.

Sharpe ratios are per period unless a name ends in `_annual`; returns are simple, net and in excess
of the hurdle, shape (T,).

Sources.  B12: Bailey & Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.  B14: the same
(2014), The Deflated Sharpe Ratio; and Bailey, Borwein, Lopez de Prado & Zhu (2014),
Pseudo-Mathematics and Financial Charlatanism.  L25: Lopez de Prado, Lipton & Zoonekynd (2025), How
to Use the Sharpe Ratio.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from .normal import FLAT, NORMAL, Float

EULER: Final = 0.5772156649015329
CREDIT_MAX: Final = 3.0


@dataclass(frozen=True, slots=True)
class Moments:
    """Of a series of T returns: Sharpe ratio per period (sd with divisor T-1), skew, raw kurtosis
    (a normal has 3), lag-1 autocorrelation."""

    count: int
    sharpe: float
    skew: float = 0.0
    kurtosis: float = 3.0
    autocorrelation: float = 0.0


def moments(returns: Float) -> Moments | None:
    """Of returns of shape (T,); None when they have no spread, are too few, or are not finite."""
    count = len(returns)
    if count < 3 or not np.isfinite(returns).all():
        return None
    mean = float(returns.mean())
    apart = returns - mean
    squares = apart * apart
    m2 = float(squares.mean())
    if not math.sqrt(m2) > FLAT * float(np.abs(returns).max()):
        return None
    skew = float((squares * apart).mean()) / m2**1.5
    kurtosis = float((squares * squares).mean()) / m2**2
    autocorrelation = float(apart[1:] @ apart[:-1]) / (m2 * count)
    sharpe = mean / math.sqrt(m2 * count / (count - 1))
    return Moments(count, sharpe, skew, kurtosis, autocorrelation)


def sharpe_variance(m: Moments, at: float) -> float:
    """The variance of the estimate of a Sharpe ratio whose true value is `at` (L25).

    With zero autocorrelation and `at` the estimate, B12's but for T in place of T-1.
    """
    p = max(-0.99, min(0.99, m.autocorrelation))
    a = 1 + 2 * p / (1 - p)
    b = 1 + p / (1 - p) + p**2 / (1 - p**2)
    c = 1 + 2 * p**2 / (1 - p**2)
    return (a - b * m.skew * at + c * (m.kurtosis - 1) / 4 * at**2) / m.count


def psr(m: Moments, against: float = 0.0) -> float:
    """The probabilistic Sharpe ratio, as B12 has it: the variance at the estimate."""
    spread = _spread(m)
    if not spread > 0:
        return math.nan
    return NORMAL.cdf((m.sharpe - against) * math.sqrt(m.count - 1) / math.sqrt(spread))


def _spread(m: Moments) -> float:
    """Of the estimate, once T-1 is divided by, for independent returns (B12)."""
    return 1 - m.skew * m.sharpe + (m.kurtosis - 1) / 4 * m.sharpe**2


def psr_at_null(m: Moments, against: float = 0.0) -> float:
    """The same for a test: the variance is that under the null, with the AR(1) correction (L25)."""
    variance = sharpe_variance(m, against)
    return NORMAL.cdf((m.sharpe - against) / math.sqrt(variance)) if variance > 0 else math.nan


def expected_best(variance: float, trials: float) -> float:
    """The largest of N estimates with this variance and true value 0, on average (B14)."""
    if trials <= 1:
        return 0.0
    inv = NORMAL.inv_cdf
    return math.sqrt(variance) * (
        (1 - EULER) * inv(1 - 1 / trials) + EULER * inv(1 - 1 / (trials * math.e))
    )


def dsr(m: Moments, variance_of_trials: float, trials: float) -> float:
    """The deflated Sharpe ratio: PSR against the best that N trials without skill give (B14)."""
    return psr(m, expected_best(variance_of_trials, trials))


def min_trl(m: Moments, against: float, alpha: float, *, plus_one: bool = True) -> float:
    """The least number of observations at which this Sharpe ratio is told from `against` (B12).

    `plus_one` False: the variance at `against` with the AR(1) correction (L25), without B12's 1.
    Infinite when it is not above it.
    """
    if not m.sharpe > against:
        return math.inf
    far = (NORMAL.inv_cdf(1 - alpha) / (m.sharpe - against)) ** 2
    return _spread(m) * far + 1 if plus_one else sharpe_variance(m, against) * m.count * far


def min_btl_years(trials: float, sharpe_annual: float) -> float:
    """Years of backtest below which the best of N trials without skill is expected to show this
    Sharpe ratio (B14)."""
    return (expected_best(1.0, trials) / sharpe_annual) ** 2


def selection_p(returns: Float, trials: float) -> float:
    """The chance that the best of N independent trials without skill looks at least this good.

    p = 1 - PSR(0) at the null with the AR(1) correction; p_N = 1 - (1-p)^N (Sidak).  NaN when the
    returns, shape (T,), have no Sharpe ratio.  Dependent trials make it too large: the safe side.
    """
    m = moments(returns)
    if m is None:
        return math.nan
    p = 1 - psr_at_null(m)
    return -math.expm1(trials * math.log1p(-p)) if p < 1 else 1.0


def credit(p: float, cap: float) -> float:
    """What a backtest adds to the evidence of paper, as a factor: min(cap, p^(-1/2)/2).

    p^(-1/2)/2 is an e-value of a valid p (Shafer et al. 2011).  1 when the cap is at most 1, or p
    is unknown; capped at 3, since a leaky backtest has any p it likes.
    """
    if not cap > 1.0 or not 0.0 <= p <= 1.0:
        return 1.0
    limit = min(cap, CREDIT_MAX)
    return limit if p == 0.0 else min(limit, 0.5 / math.sqrt(p))
