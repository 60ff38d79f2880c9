"""What is commonly done: look at the Sharpe ratio every day, and keep what looks good."""

from math import sqrt

import numpy as np

from bench.quality.report import Rate, rate
from qmtl.core.columns import Float
from qmtl.core.evidence.sharpe import Moments, psr
from qmtl.sim.returns.placebo import DAYS_PER_YEAR

WARM_UP = 60  # Days before the first look: what a paper window of the standard policy takes.
HOPELESS = 1.0  # Deviations above zero: no shape of returns here makes a PSR of .95 of less.


def running_sharpe(r: Float) -> Float:
    """The Sharpe ratio per day of all returns so far, by day; shape as r's.  NaN on the first."""
    n = np.arange(1, len(r) + 1)[:, None]
    mean = np.cumsum(r, axis=0) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (np.cumsum(r * r, axis=0) - n * mean * mean) / (n - 1)
        return mean / np.sqrt(variance)


def ever_above(r: Float, threshold: float, days: int) -> Rate:
    """Who passes an annual Sharpe threshold on any day from `WARM_UP` to `days`."""
    annual = running_sharpe(r[:days])[WARM_UP - 1 :] * sqrt(DAYS_PER_YEAR)
    return rate((annual >= threshold).any(axis=0))


def ever_probable(r: Float, level: float, days: int) -> Rate:
    """Who has a probabilistic Sharpe ratio of `level` on any day from `WARM_UP` to `days`."""
    sharpe = running_sharpe(r[:days])
    n = np.arange(1, days + 1)[:, None]
    m1, m2, m3, m4 = (np.cumsum(r[:days] ** power, axis=0) / n for power in (1, 2, 3, 4))
    variance = m2 - m1**2
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    passed = np.zeros(r.shape[1], dtype=np.bool_)
    for day in range(WARM_UP - 1, days):
        hopeful = ~passed & (sharpe[day] * sqrt(day) >= HOPELESS)
        for path in np.flatnonzero(hopeful):
            spread = variance[day, path]
            seen = Moments(
                count=day + 1,
                sharpe=float(sharpe[day, path]),
                skew=float(third[day, path] / spread**1.5),
                kurtosis=float(fourth[day, path] / spread**2),
            )
            passed[path] = psr(seen) >= level
    return rate(passed)
