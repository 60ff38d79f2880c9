"""Prices: what a strategy sees and what an engine earns on.

One table, one row a bar and one column an asset, with the instant at which each bar was known.
Every array in it is read-only and its own, so that nobody who holds a `Prices` can change what
somebody else computed from it; its digest is therefore a name for it.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import date, datetime
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from qmtl.sdk import tables

FloatArray: TypeAlias = tables.FloatArray
TimeArray: TypeAlias = tables.TimeArray

EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
# An instant is shown to the minute, unless that would hide part of it.
SHOWN: tuple[tuple[Literal["m", "s", "us"], int], ...] = (
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("us", 1),
)
WAY_OUT = (
    "; begin where every asset has a price, leave the asset out, or carry its last price forward"
    " (ffill), never a later one back"
)


class PricesError(ValueError):
    """The prices are not usable; the message names the first thing wrong, with its date or line."""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Prices of some assets over some bars.

    times   (bars,) datetime64[us], UTC, strictly increasing: the instant each bar was known
    assets  names of the columns, unique
    values  (bars, assets) float64, positive and finite, in the assets' own currency

    Arrays are copied and made read-only. Raises PricesError when any of this does not hold, or when
    there is no bar or no asset. Compared by identity; compare `digest()` for content.
    """

    times: TimeArray
    assets: tuple[str, ...]
    values: FloatArray

    def __post_init__(self) -> None:
        times = np.array(self.times, dtype="datetime64[us]")
        values = np.array(self.values, dtype=np.float64, order="C")
        assets = tuple(self.assets)
        _check(times, assets, values)
        times.flags.writeable = False
        values.flags.writeable = False
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "assets", assets)
        object.__setattr__(self, "values", values)

    @property
    def bars(self) -> int:
        """Number of bars (rows)."""
        return len(self.times)

    def rows(self, start: date, end: date) -> slice:
        """The rows whose UTC date is in [start, end], both included; may be empty.

        Raises PricesError when given an instant: 21:00 on `start` would be a matter of opinion.
        """
        if isinstance(start, datetime) or isinstance(end, datetime):
            raise PricesError("rows between dates: give a date, not an instant")
        first, last = np.searchsorted(self.times, [_midnight(start), _midnight(end, days=1)])
        return slice(int(first), int(last))

    def head(self, bars: int) -> "Prices":
        """The first `bars` bars, at least one: a view, since nobody can write to either."""
        if not 1 <= bars <= self.bars:
            raise PricesError(f"the first {bars} bars of {self.bars}")
        part = object.__new__(Prices)  # What holds of all bars holds of the first; no second look.
        object.__setattr__(part, "times", self.times[:bars])
        object.__setattr__(part, "assets", self.assets)
        object.__setattr__(part, "values", self.values[:bars])
        return part

    def between(self, start: date, end: date) -> "Prices":
        """The bars whose UTC date is in [start, end], both included.

        Raises PricesError when there are none.
        """
        rows = self.rows(start, end)
        if rows.start >= rows.stop:
            raise PricesError(f"no bar between {start} and {end}")
        return Prices(self.times[rows], self.assets, self.values[rows])

    def digest(self) -> str:
        """`sha256:` of assets, times and values; the same on every machine, new for any change."""
        digest = hashlib.sha256(b"qmtl-prices-1\n")
        digest.update(json.dumps([self.assets, self.values.shape]).encode() + b"\n")
        digest.update(self.times.astype("<i8").tobytes())
        digest.update(self.values.astype("<f8").tobytes())
        return f"sha256:{digest.hexdigest()}"


def as_prices(given: object) -> Prices:
    """`Prices` as they are; a file as `read_prices` reads it; a pandas or polars frame.

    A frame has one column an asset, and its times in a DatetimeIndex (pandas) or in its first
    column. Dates, and midnights without a zone, are daily closes at 21:00 UTC; any other time has a
    zone. Raises PricesError; OSError for a file.
    """
    match given:
        case Prices():
            return given
        case str() | PathLike():
            return read_prices(given)
        case _ if tables.library_of(given) is not None:
            try:
                return Prices(*tables.of_frame(given))
            except tables.TableError as error:
                raise PricesError(str(error)) from error
        case _:
            raise PricesError(
                f"{tables.described(given)} is no table of prices: give Prices, the path of a file,"
                " or a pandas or polars DataFrame"
            )


def read_prices(path: str | PathLike[str]) -> Prices:
    """Prices from a csv, csv.gz or Parquet file: a column of times, then one column an asset.

    Of a csv the first column is `Date` (YYYY-MM-DD: daily closes, stamped at 21:00 UTC) or `time`,
    `timestamp` or `datetime` (RFC 3339 with a zone: when each bar was known). Of a Parquet file it
    is any column of dates or datetimes. Parquet takes polars, or pandas with pyarrow.

    Raises PricesError, naming the line, the column or the date; OSError when it cannot be read.
    """
    path = Path(path)
    try:
        return Prices(*tables.read(path))
    except (tables.TableError, PricesError) as error:
        raise PricesError(f"{path}: {error}") from error


def read_csv(path: Path | str) -> Prices:
    """As `read_prices`, of a csv or csv.gz file, whatever it is called; gz by its name.

    Raises PricesError, naming the line or the date; OSError when the file cannot be read.
    """
    path = Path(path)
    try:
        return Prices(*tables.read_csv(path))
    except (tables.TableError, PricesError) as error:
        raise PricesError(f"{path}: {error}") from error


def stamp(time: np.datetime64) -> str:
    """An instant for people to read: `1990-01-02T21:00Z`; to the second, or beyond, if need be."""
    micros = int(time.astype("datetime64[us]").astype(np.int64))
    unit = next(unit for unit, whole in SHOWN if micros % whole == 0)
    return f"{np.datetime_as_string(time, unit=unit)}Z"


def fault_of(times: TimeArray) -> str | None:
    """What is wrong with the times (bars,) of bars; None when each has one, and they increase."""
    if np.isnat(times).any():
        return f"bar {int(np.isnat(times).argmax())} has no time"
    increase = times[1:] > times[:-1]
    if increase.all():
        return None
    row = int(increase.argmin()) + 1
    return (
        f"times increase; {stamp(times[row])} follows {stamp(times[row - 1])}:"
        " sort the bars, and keep one of each time"
    )


def _check(times: TimeArray, assets: tuple[str, ...], values: FloatArray) -> None:
    if not assets or len(set(assets)) != len(assets) or not all(assets):
        raise PricesError(f"assets need names, each its own: {assets}")
    if times.ndim != 1:
        raise PricesError(f"times are one row, not of shape {times.shape}")
    if len(times) == 0:
        raise PricesError("there is no bar: prices are at least one row below the assets' names")
    if values.shape != (len(times), len(assets)):
        expected = (len(times), len(assets))
        raise PricesError(f"values have shape {values.shape}; times and assets say {expected}")
    if (fault := fault_of(times)) is not None:
        raise PricesError(fault)
    good = np.isfinite(values) & (values > 0)
    if not good.all():
        row, column = (int(at) for at in np.argwhere(~good)[0])
        price = float(values[row, column])
        raise PricesError(
            f"prices are positive and finite; {assets[column]} on {stamp(times[row])} is {price}"
            f"{WAY_OUT if np.isnan(price) else ''}"
        )


def _midnight(day: date, days: int = 0) -> np.datetime64:
    return np.datetime64(day.toordinal() - EPOCH_ORDINAL + days, "D")
