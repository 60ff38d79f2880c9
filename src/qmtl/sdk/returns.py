"""Returns of a strategy that runs elsewhere: what is submitted when there are no weights to check.

Nothing here computes. Whoever made the returns answers for delay and costs in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from qmtl.sdk import tables
from qmtl.sdk.prices import FloatArray, TimeArray, fault_of, stamp


class ReturnsError(ValueError):
    """The returns are not usable; the message names the first thing wrong, with its date."""


@dataclass(frozen=True, slots=True, eq=False)
class Returns:
    """Simple net returns a bar.

    times   (bars,) datetime64[us], UTC, strictly increasing: when each return was realised
    values  (bars,) float64, finite, above -1: 0.01 is one per cent, and after -1 nothing is left

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
    """Returns as they are; a file as `read_returns` reads it; a series; `(times, values)`.

    A series is a pandas Series or one-column DataFrame with a DatetimeIndex, a pandas or polars
    DataFrame of times and returns, or `{"t": [...], "r": [...]}`. The rules for times are those of
    `as_prices`; of plain sequences they are dates, datetimes or text, or an array of datetime64.

    Raises ReturnsError; OSError for a file.
    """
    match given:
        case Returns():
            return given
        case str() | PathLike():
            return read_returns(given)
        case Mapping() if {"t", "r"} == set(given):
            return _of_pair(given["t"], given["r"])
        case (times, values):
            return _of_pair(times, values)
        case _ if tables.library_of(given) is not None:
            try:
                return _of_table(tables.of_frame(_framed(given)))
            except tables.TableError as error:
                raise ReturnsError(str(error)) from error
        case _:
            raise ReturnsError(
                f"{tables.described(given)} is no series of returns: give Returns, (times, values),"
                " the path of a file, or a pandas or polars frame of times and returns"
            )


def read_returns(path: str | PathLike[str]) -> Returns:
    """Returns from a csv, csv.gz or Parquet file of two columns, times and simple net returns.

    The rules for files and times are those of `read_prices`. Raises ReturnsError, naming the line,
    the column or the date; OSError when it cannot be read.
    """
    path = Path(path)
    try:
        return _of_table(tables.read(path))
    except (tables.TableError, ReturnsError) as error:
        raise ReturnsError(f"{path}: {error}") from error


def _of_table(table: tables.Table) -> Returns:
    if len(table.names) != 1:
        raise ReturnsError(
            f"returns are one column beside the times, not {len(table.names)}: {list(table.names)}"
        )
    return Returns(table.times, table.values[:, 0])


def _of_pair(times: object, values: Any) -> Returns:
    try:
        instants = tables.instants(times)
        numbers = np.array(values, dtype=np.float64)
    except tables.TableError as error:
        raise ReturnsError(str(error)) from error
    except (TypeError, ValueError) as error:
        raise ReturnsError(f"times and returns are two rows of equal length: {error}") from error
    return Returns(instants, numbers)


def _framed(given: Any) -> object:
    """A pandas Series brings its times along; made a frame, it is read as one."""
    if type(given).__name__ == "Series" and tables.library_of(given) == "pandas":
        return given.to_frame("return")
    return given


def _check(times: TimeArray, values: FloatArray) -> None:
    if times.ndim != 1 or values.shape != times.shape:
        raise ReturnsError(f"one return a time: {times.shape} times, {values.shape} returns")
    if len(times) == 0:
        raise ReturnsError("there is no return")
    if (fault := fault_of(times)) is not None:
        raise ReturnsError(fault)
    good = np.isfinite(values) & (values > -1)
    if not good.all():
        row = int(good.argmin())
        value = float(values[row])
        raise ReturnsError(f"the return on {stamp(times[row])} is {value}; {_remedy(value)}")


def _remedy(value: float) -> str:
    if np.isnan(value):
        return "where nothing was held it is 0"
    if np.isinf(value):
        return "a price of 0 was divided by"
    return "-1 is the loss of everything. Are these per cent? 0.01 is one per cent"
