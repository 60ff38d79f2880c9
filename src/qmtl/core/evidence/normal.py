"""The normal distribution, for arrays: the core has no scipy (decision 0003)."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

NORMAL: Final = NormalDist()
FLAT: Final = 1e-12  # A spread below this share of scale is rounding.
HALVINGS: Final = 50
_erfc = np.frompyfunc(math.erfc, 1, 1)


def phi(x: ArrayLike) -> Float:
    """The standard normal distribution function, to the last digits in either tail."""
    found: Float = 0.5 * np.asarray(_erfc(-np.asarray(x) / math.sqrt(2.0)), np.float64)
    return found


def least(enough: Callable[[Float], Bool], low: Float, high: Float) -> Float:
    """The least numbers between `low` and `high` that are enough, as all above them are.

    By halving what lies between; where nothing is known to be enough that is near `high`.
    """
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        there = enough(middle)
        low, high = np.where(there, low, middle), np.where(there, middle, high)
    return high
