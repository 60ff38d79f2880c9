"""Many strategies looked at together, and how much capital luck gets.

Source.  WR22: Wang & Ramdas (2022), False discovery rate control with e-values.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from .normal import Float

SPENDING_HALF: Final = 50  # The first so many campaigns share half of what may be spent.


def e_bh_threshold(campaigns: int, alpha: float, others: Float) -> float:
    """What one more strategy must show to be discovered by e-BH beside those that stand (WR22).

    N/(k alpha) for the largest k such that k-1 of `others`, the current credited e-values of the
    strategies that were let through before, reach it too.
    """
    ranked = np.sort(np.nan_to_num(others))[::-1]
    asked = campaigns / (np.arange(1, len(ranked) + 2) * alpha)
    holds = np.append(True, ranked >= asked[1:])
    return float(asked[np.flatnonzero(holds)[-1]])


def spending_share(entry: int) -> float:
    """The share of alpha of the n-th campaign of a world, n from 1: m/((n+m-1)(n+m)), m = 50.

    They sum to 1 over however many there will be, so the promise needs no assumption on dependence
    and no end; the first ask for E >= 1020 at alpha .05, the fiftieth for 3960.
    """
    m = SPENDING_HALF
    return m / ((entry + m - 1) * (entry + m))


def ramp_bound(steps: Iterable[tuple[float, float | None]]) -> float:
    """The most that a strategy without skill is expected to get, as a fraction of an allocation.

    `steps` are (fraction, e-value); a step is reached with probability at most 1/e (Ville 1939).
    """
    below, expected = 0.0, 0.0
    for fraction, e_value in steps:
        expected += (fraction - below) / max(1.0, e_value or 1.0)
        below = fraction
    return expected
