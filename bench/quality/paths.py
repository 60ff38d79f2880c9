"""Evidence as it grows: what each method says at the end of every day, for many paths at once.

The formulas are `core.evidence`'s, told a day at a time as the product tells them.  Returns and
what comes of them have the shape (days, paths).
"""

from collections.abc import Callable
from math import sqrt

import numpy as np

from qmtl.core.columns import Bool, Float
from qmtl.core.evidence import eprocess, horizon
from qmtl.core.evidence.eprocess import LOG_E_MAX
from qmtl.core.evidence.normal import phi
from qmtl.core.policy import PaperEvidence
from qmtl.sim.returns.placebo import DAYS_PER_YEAR, VOLATILITY, mean_of

STANDARD = PaperEvidence()  # Of the standard policy.
Evidence = Callable[[eprocess.Blocks], Float]
LOSS_FLOOR = 0.10  # Of `bounded`: ten deviations of a placebo's day, as a breaker might be set.


def design(block: int = STANDARD.block) -> float:
    """The Sharpe ratio per block that the standard policy's test looks for."""
    return STANDARD.design_sharpe_annual * sqrt(block / DAYS_PER_YEAR)


def t_mixture(r: Float) -> Float:
    """The standard policy's e-value, by day; 0 as long as there is too little to say."""
    return _of_blocks(r, lambda held: eprocess.t_mixture(held, design()))


def group_sequential(r: Float) -> Float:
    """1/level of the strictest test that rejected by then; the horizon is the last day of `r`.

    What it says at a look stands until the next."""
    blocks = len(r) // STANDARD.block
    return _of_blocks(r, lambda held: horizon.group_sequential(held, blocks))


def _of_blocks(r: Float, evidence: Evidence) -> Float:
    counted = np.ones((r.shape[1], 1), dtype=np.bool_)
    held, grown = eprocess.no_blocks(r.shape[1]), np.zeros_like(r)
    for day, returns in enumerate(r):
        held = eprocess.more_blocks(held, returns[:, None], counted, STANDARD.block)
        whole = (day + 1) % STANDARD.block == 0
        grown[day] = np.nan_to_num(evidence(held)) if whole else grown[day - 1]
    return grown


def bounded(r: Float, floor: float = LOSS_FLOOR) -> Float:
    """The e-value of bets that no loss above `floor` can ruin, by day."""
    counted = np.ones((r.shape[1], 1), dtype=np.bool_)
    held, grown = eprocess.no_wealth(r.shape[1]), np.empty_like(r)
    for day, returns in enumerate(r):
        held = eprocess.more_wealth(held, returns[:, None], counted, floor)
        grown[day] = eprocess.bounded(held)
    return grown


def z_mixture(r: Float) -> Float:
    """What `t_mixture` would say every day if the volatility were known: the same prior of the
    Sharpe ratio, and the normal likelihood (Robbins 1970)."""
    n, scale = np.arange(1, len(r) + 1)[:, None], design(1)
    z, spread = np.cumsum(r / VOLATILITY, axis=0), 1 + n * scale**2
    log = z**2 * scale**2 / (2 * spread) - np.log(spread) / 2
    grown: Float = 2 * phi(z * scale / np.sqrt(spread)) * np.exp(np.minimum(log, LOG_E_MAX))
    return grown


def oracle(r: Float, sharpe_annual: float) -> Float:
    """The likelihood ratio of the truth to no skill: whoever knows the mean and the deviation that
    there will be has no e-value that grows faster (Kelly 1956).  Nobody knows them."""
    mean = mean_of(sharpe_annual)
    return np.exp(np.cumsum((mean * r - mean * mean / 2) / VOLATILITY**2, axis=0))


def ever(evidence: Float, threshold: float, days: int, every: int = 1) -> Bool:
    """Who was at the threshold at a look, of those at every `every`-th day up to `days`."""
    return (evidence[every - 1 : days : every] >= threshold).any(axis=0)
