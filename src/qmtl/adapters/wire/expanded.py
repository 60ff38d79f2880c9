"""A snapshot with the returns that are held, written while it goes out.

A million points are a hundred times as much memory as text than as numbers, so never more than one
series of them is at hand, and of that a slice as text.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from qmtl.core.facts import SnapshotStored
from qmtl.core.names import StrategyId
from qmtl.core.series import Series
from qmtl.core.times import micros

from . import shapes as j
from .instants import column_text

POINTS_AT_ONCE: Final = 10_000  # About 300 KB of text.


def pieces(
    told: j.FullSnapshotJson, fact: SnapshotStored, held: Callable[[StrategyId], Series]
) -> Iterator[bytes]:
    """One JSON object: what is told of a snapshot, and of each strategy in it what is held up to
    its `as_of`.

    The first piece comes when the first series is read.  Raises what `held` raises.
    """
    until = micros(fact.as_of)
    rest = {name: value for name, value in told.items() if name != "realized_returns"}
    before = orjson.dumps(rest)[:-1] + b',"realized_returns":{'
    for sid in fact.covered:
        series = held(sid)
        inside = series.t <= until
        yield before + orjson.dumps(sid) + b':{"t":['
        yield from _slices(series.t[inside], column_text)
        yield b'],"r":['
        yield from _slices(series.r[inside], np.ndarray.tolist)
        yield b"]}"
        before = b","
    yield b"}}" if fact.covered else before + b"}}"


def _slices(column: NDArray[Any], text: Callable[[NDArray[Any]], Any]) -> Iterator[bytes]:
    """The items of a list, without its brackets."""
    for start in range(0, len(column), POINTS_AT_ONCE):
        comma = b"," if start else b""
        yield comma + orjson.dumps(text(column[start : start + POINTS_AT_ONCE]))[1:-1]
