"""The normal distribution, for arrays: the core has no scipy (decision 0003)."""

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

NORMAL: Final = NormalDist()
FLAT: Final = 1e-12  # A spread below this share of scale is rounding.
_erfc = np.frompyfunc(math.erfc, 1, 1)


def phi(x: ArrayLike) -> Float:
    """The standard normal distribution function, to the last digits in either tail."""
    found: Float = 0.5 * np.asarray(_erfc(-np.asarray(x) / math.sqrt(2.0)), np.float64)
    return found
