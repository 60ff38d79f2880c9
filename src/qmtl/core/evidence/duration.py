"""How long it takes until an e-value is expected to be large enough."""

import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from .eprocess import BETS, BLOCKS_MIN, bounded, mixture
from .horizon import spaced, strictest
from .normal import Float


def blocks_needed(
    threshold: float, sharpe: float, design: float, *, seen: float, t: float, most: int
) -> int | None:
    """Blocks in all until `t_mixture` at its expected t reaches the threshold; None beyond `most`.

    `sharpe` is the true one per block from here on; `seen` blocks have shown `t` already.
    """

    def reached(n: int) -> bool:
        blocks = np.array([float(n)])
        found = mixture(_expected(blocks, sharpe, seen, t), blocks, design)
        return bool(found[0] >= threshold)

    return _first(reached, max(BLOCKS_MIN, math.ceil(seen)), most)


def looks_needed(
    threshold: float, sharpe: float, horizon: int, *, seen: float, t: float
) -> int | None:
    """Blocks in all until `group_sequential` at its expected t reaches the threshold at a look.

    As `blocks_needed`; None when no look up to the horizon is expected to, for there are no others.
    """
    stride, looks = spaced(horizon)
    n = np.linspace(0.0, stride * looks, looks + 1)
    n = n[n >= max(BLOCKS_MIN, seen)]
    reached = n[strictest(_expected(n, sharpe, seen, t), n, horizon) >= threshold]
    return int(reached[0]) if len(reached) else None


def _expected(n: Float, sharpe: float, seen: float, t: float) -> Float:
    """The t statistic of n blocks: of those seen what it is, of the others what `sharpe` makes."""
    found: Float = (t * math.sqrt(seen) + (n - seen) * sharpe) / np.sqrt(n)
    return found


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
    """The first number from `least` to `most` that reaches it, as all after it do."""
    if least > most or not reached(most):
        return None
    return least + bisect_left(range(least, most), True, key=reached)
