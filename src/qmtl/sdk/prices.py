"""Prices: what a strategy sees and what an engine earns on.

One table, one row a bar and one column an asset, with the instant at which each bar was known.
Every array in it is read-only and its own, so that nobody who holds a `Prices` can change what
somebody else computed from it; its digest is therefore a name for it.
"""

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
TimeArray = NDArray[np.datetime64]

# New York closes at 20:00 or 21:00 UTC, by season. The later of the two never claims that a close
# was known before it was.
DAILY_CLOSE = np.timedelta64(21, "h")
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


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
    """`Prices` as they are, or read from a file.  Raises PricesError; OSError for a file."""
    match given:
        case Prices():
            return given
        case str() | Path():
            return read_csv(given)
        case _:
            raise PricesError(f"a {type(given).__name__} is no table of prices")


def stamp(time: np.datetime64) -> str:
    """An instant for people to read: `1990-01-02T21:00Z`."""
    return f"{np.datetime_as_string(time, unit='m')}Z"


def read_csv(path: Path | str) -> Prices:
    """Daily closes from a csv or csv.gz file: a `Date` column (YYYY-MM-DD), then one an asset.

    A close is stamped at 21:00 UTC of its date. Raises PricesError, naming the line, for a header
    without `Date` first, a row of another length, a date or a price that is none, or whatever
    `Prices` refuses; OSError when the file cannot be read.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        # utf-8-sig: spreadsheets write a byte order mark that would hide the word Date.
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            return _parse(csv.reader(stream))
    except (PricesError, csv.Error, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise PricesError(f"{path.name}: {error}") from error


def _parse(rows: Iterable[list[str]]) -> Prices:
    lines = iter(rows)
    header = next(lines, [])
    if header[:1] != ["Date"]:
        raise PricesError(f"line 1: the first column is Date, not {header[:1]}")
    days: list[date] = []
    values: list[list[float]] = []
    for number, row in enumerate(lines, start=2):
        if len(row) != len(header):
            raise PricesError(f"line {number}: {len(row)} fields, the header has {len(header)}")
        try:
            days.append(date.fromisoformat(row[0]))
            values.append([float(cell) for cell in row[1:]])
        except ValueError as error:
            raise PricesError(f"line {number}: {error}") from error
    midnights: TimeArray = np.array(days, dtype="datetime64[us]")
    table = np.array(values, dtype=np.float64).reshape(len(days), len(header) - 1)
    return Prices(midnights + DAILY_CLOSE, tuple(header[1:]), table)


def _check(times: TimeArray, assets: tuple[str, ...], values: FloatArray) -> None:
    if not assets or len(set(assets)) != len(assets) or not all(assets):
        raise PricesError(f"assets need names, each its own: {assets}")
    if times.ndim != 1 or len(times) == 0:
        raise PricesError(f"times are one row of at least one bar, not shape {times.shape}")
    if values.shape != (len(times), len(assets)):
        expected = (len(times), len(assets))
        raise PricesError(f"values have shape {values.shape}; times and assets say {expected}")
    if np.isnat(times).any():
        raise PricesError(f"bar {int(np.isnat(times).argmax())} has no time")
    late = times[1:] > times[:-1]
    if not late.all():
        row = int(late.argmin()) + 1
        raise PricesError(f"times increase; {stamp(times[row])} follows {stamp(times[row - 1])}")
    good = np.isfinite(values) & (values > 0)
    if not good.all():
        row, column = (int(at) for at in np.argwhere(~good)[0])
        price = float(values[row, column])
        raise PricesError(
            f"prices are positive and finite; {assets[column]} on {stamp(times[row])} is {price}"
        )


def _midnight(day: date, days: int = 0) -> np.datetime64:
    return np.datetime64(day.toordinal() - EPOCH_ORDINAL + days, "D")
