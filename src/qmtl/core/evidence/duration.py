"""How long it takes until an e-value is expected to be large enough."""

import math
from collections.abc import Callable

import numpy as np

from .eprocess import BETS, BLOCKS_MIN, Blocks, bounded, mixture
from .horizon import group_sequential, spaced
from .normal import Float


def blocks_needed(
    threshold: float, sharpe: float, design: float, *, seen: float = 0.0, t: float = 0.0, most: int
) -> int | None:
    """Blocks in all until `t_mixture` at its expected t reaches the threshold; None beyond `most`.

    `sharpe` is the true one per block from here on; `seen` blocks have shown `t` already.
    """

    def reached(n: int) -> bool:
        expected = (t * math.sqrt(seen) + (n - seen) * sharpe) / math.sqrt(n)
        found = mixture(np.array([expected]), np.array([float(n)]), design)
        return bool(found[0] >= threshold)

    return _first(reached, max(BLOCKS_MIN, math.ceil(seen)), most)


def looks_needed(
    threshold: float, sharpe: float, horizon: int, *, seen: float = 0.0, t: float = 0.0
) -> int | None:
    """Blocks in all until `group_sequential` at its expected t reaches the threshold at a look.

    As `blocks_needed`; None when no look up to the horizon is expected to, for there are no others.
    """
    stride, looks = spaced(horizon)
    n = stride * np.arange(1.0, looks + 1)
    n = n[n >= max(BLOCKS_MIN, seen)]
    mean = (t * math.sqrt(seen) + (n - seen) * sharpe) / n
    held = Blocks(n, mean, n - 1, np.zeros_like(n), np.zeros_like(n))
    reached = group_sequential(held, horizon) >= threshold
    return int(n[reached.argmax()]) if reached.any() else None


def returns_needed(
    threshold: float, sharpe: float, deviation: float, floor: float, wealth: Float | None, most: int
) -> int | None:
    """Returns from here on until `bounded` reaches the threshold, at the mean growth of each bet.

    Normal returns of this Sharpe ratio and standard deviation, per period; `wealth` are the
    logarithms so far, shape (bets,).  None beyond `most`.
    """
    held = np.zeros(len(BETS)) if wealth is None else wealth
    bets = np.array(BETS) / floor
    growth = bets * sharpe * deviation - (bets * deviation) ** 2 * (1 + sharpe**2) / 2

    def reached(n: int) -> bool:
        return bool(bounded((held + n * growth)[None, :])[0] >= threshold)

    return _first(reached, 1, most)


def _first(reached: Callable[[int], bool], least: int, most: int) -> int | None:
    """The first number from `least` to `most` that reaches it, as all after it do; by bisection."""
    if least > most:
        return None
    low, high = least - 1, least
    while not reached(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
