"""How many strategies of a given Sharpe ratio reach an e-value in time: by simulation, seeded.

Normal returns, independent from bar to bar: what is found is what the method can do at best.  Looks
are spaced over the time, at most LOOKS of them, and what lies between two is drawn at once, so that
minute bars cost what daily ones do.
"""

import math
from functools import cache
from typing import Final

import numpy as np

from .eprocess import BETS, BLOCKS_MIN, Blocks, bounded, t_mixture
from .horizon import group_sequential
from .normal import Float

PATHS: Final = 2_000  # A share of a half is right to .034, three standard errors.
LOOKS: Final = 60
SEED: Final = 20_120_101
DEVIATION_ANNUAL: Final = 0.10  # For `bounded`, whose speed depends on it: a usual target.


@cache
def best_of_blocks(sharpe: float, design: float, blocks: int, horizon: int = 0) -> Float:
    """The largest t e-value that each of PATHS paths shows at a look within so many blocks.

    `sharpe` and `design` are per block.  With a `horizon`, `group_sequential` over so many.
    """
    rng = np.random.default_rng(SEED)
    none = np.zeros(PATHS)
    count, mean, m2, best = 0, none, none, none
    for size in _steps(blocks, BLOCKS_MIN):
        inside = rng.chisquare(size - 1, PATHS) if size > 1 else none
        apart = sharpe + rng.normal(size=PATHS) / math.sqrt(size) - mean
        mean = mean + apart * size / (count + size)
        m2 = m2 + inside + apart**2 * count * size / (count + size)
        count += size
        held = Blocks(np.full(PATHS, float(count)), mean, m2, none, none)
        found = group_sequential(held, horizon) if horizon else t_mixture(held, design)
        best = np.fmax(best, found)
    return best


@cache
def best_of_bets(sharpe: float, deviation: float, floor: float, bars: int) -> Float:
    """The largest `bounded` e-value that each of PATHS paths shows at a look in so many bars.

    Sharpe ratio and deviation per bar.  Logarithms to the second order: single bars are small.
    """
    rng = np.random.default_rng(SEED)
    bets = np.array(BETS) / floor
    wealth, best = np.zeros((PATHS, len(BETS))), np.zeros(PATHS)
    for size in _steps(bars, 1):
        inside = rng.chisquare(size - 1, PATHS) if size > 1 else np.zeros(PATHS)
        mean = sharpe + rng.normal(size=PATHS) / math.sqrt(size)
        total, squares = size * mean * deviation, (inside + size * mean**2) * deviation**2
        wealth = wealth + total[:, None] * bets - squares[:, None] * bets**2 / 2
        best = np.maximum(best, bounded(wealth))
    return best


def _steps(total: int, first: int) -> list[int]:
    """Lengths that add up to `total`: the first, and then equal ones, at most LOOKS."""
    if total < first:
        return []
    rest = total - first
    size = max(1, math.ceil(rest / LOOKS))
    whole, left = divmod(rest, size)
    return [first, *([size] * whole), *([left] if left else [])]
