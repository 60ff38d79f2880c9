"""Returns of a strategy that runs elsewhere: what is submitted when there are no weights to check.

Nothing here computes. Whoever made the returns answers for delay and costs in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qmtl.sdk.prices import FloatArray, TimeArray, stamp


class ReturnsError(ValueError):
    """The returns are not usable; the message names the first thing wrong, with its date."""


@dataclass(frozen=True, slots=True, eq=False)
class Returns:
    """Simple net returns a bar.

    times   (bars,) datetime64[us], UTC, strictly increasing: when each return was realised
    values  (bars,) float64, finite, at least -1: a loss of everything is -1

    Arrays are copied and made read-only. Raises ReturnsError when any of this does not hold, or
    when there is no bar.
    """

    times: TimeArray
    values: FloatArray

    def __post_init__(self) -> None:
        times = np.array(self.times, dtype="datetime64[us]")
        values = np.array(self.values, dtype=np.float64)
        _check(times, values)
        times.flags.writeable = False
        values.flags.writeable = False
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "values", values)

    @property
    def bars(self) -> int:
        """Number of bars."""
        return len(self.times)


def as_returns(given: object) -> Returns:
    """Returns as they are, or `{"t": [...], "r": [...]}`.  Raises ReturnsError."""
    match given:
        case Returns():
            return given
        case Mapping() if {"t", "r"} == set(given):
            return Returns(given["t"], given["r"])
        case _:
            raise ReturnsError(f"a {type(given).__name__} is no series of returns")


def _check(times: TimeArray, values: FloatArray) -> None:
    if times.ndim != 1 or values.shape != times.shape or len(times) == 0:
        raise ReturnsError(
            f"one return a time, and at least one: {times.shape} times, {values.shape} returns"
        )
    if np.isnat(times).any():
        raise ReturnsError(f"bar {int(np.isnat(times).argmax())} has no time")
    late = times[1:] > times[:-1]
    if not late.all():
        row = int(late.argmin()) + 1
        raise ReturnsError(f"times increase; {stamp(times[row])} follows {stamp(times[row - 1])}")
    good = np.isfinite(values) & (values >= -1)
    if not good.all():
        row = int(good.argmin())
        raise ReturnsError(f"the return on {stamp(times[row])} is {float(values[row])}")
