"""Tables: times, names and numbers out of a file or a frame, before anybody says what they are.

Prices and returns are read by the same rules. Every row has an instant, in UTC:

* A date is a daily close, stamped at 21:00 UTC. Dates are what a `Date` column of a file holds, a
  column of dates, and times without a zone that all fall on midnight.
* Anything else has to say its zone. A time of day without one is refused, not guessed; so are
  times with a zone that all fall on its midnight, since that is how some sources write dates.

pandas and polars are imported when a Parquet file is read, narwhals when a frame is met.
"""

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import narwhals as nw

FloatArray: TypeAlias = NDArray[np.float64]
TimeArray: TypeAlias = NDArray[np.datetime64]

# New York closes at 20:00 or 21:00 UTC, by season. The later of the two never claims that a close
# was known before it was.
DAILY_CLOSE = np.timedelta64(21, "h")
CLOSING_TIME = time(21)
DAY = np.timedelta64(1, "D")

# What a column of times is called in a file.
DATES = "date"
INSTANTS = ("time", "timestamp", "datetime")
UNNAMED_INDEX = "__index_level_0__"  # What pandas calls an index without a name in Parquet.
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?P<zone>[Zz]|[+-]\d\d:\d\d)?", re.ASCII
)

CSV_SUFFIXES = (".csv", ".csv.gz")
SEPARATORS = ";\t|"  # Of fields, where it is not the comma.
PARQUET_SUFFIXES = (".parquet", ".pq")

# Whose objects count as frames. Those of narwhals are known in order to be refused by name.
LIBRARIES = ("pandas", "polars", "narwhals")
FRAME_TYPES = ("DataFrame", "LazyFrame", "Series", "Index")


class TableError(ValueError):
    """The table is not usable; the message names the first thing wrong, with its line or column."""


class Table(NamedTuple):
    """times (rows,) datetime64[us], UTC; a name a column; values (rows, columns) float64.

    Nothing but its form is checked: order, gaps and NaN are for whoever knows what it holds.
    """

    times: TimeArray
    names: tuple[str, ...]
    values: FloatArray


# Files --------------------------------------------------------------------------------------------


def read(path: str | PathLike[str]) -> Table:
    """A csv, csv.gz or Parquet file: a column of times, then one a name.

    The times of a csv are in its first column, `Date` (YYYY-MM-DD) or `time`, `timestamp` or
    `datetime` (RFC 3339 with a zone). Those of a Parquet file are in its first column, of dates or
    datetimes; or in its last, where pandas writes an index.

    Raises TableError, OSError when the file cannot be read.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(CSV_SUFFIXES):
        return read_csv(path)
    if name.endswith(PARQUET_SUFFIXES):
        return _read_parquet(path)
    raise TableError(f"is none of {', '.join((*CSV_SUFFIXES, *PARQUET_SUFFIXES))}")


def read_csv(path: Path) -> Table:
    """As `read`, whatever the file's name; it is unpacked when that ends in gz.

    Raises TableError, with the line; OSError.
    """
    return of_csv(content_of(path))


def content_of(path: Path) -> bytes:
    """What a file holds, unpacked when its name ends in gz.

    Raises TableError for what cannot be unpacked; OSError.
    """
    content = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TableError(str(error)) from error


def of_csv(content: bytes) -> Table:
    """The content of a csv file as `read` has it.  Raises TableError, with the line."""
    try:
        # utf-8-sig: spreadsheets write a byte order mark that would hide the word Date.
        text = content.decode("utf-8-sig")
        return _of_rows(csv.reader(io.StringIO(text, newline="")))
    except UnicodeDecodeError as error:
        raise TableError(f"is no text in UTF-8 ({error.reason}); save it as that") from error
    except csv.Error as error:
        raise TableError(str(error)) from error


def _of_rows(rows: Iterable[list[str]]) -> Table:
    lines = iter(rows)
    header = next(lines, [])
    times: list[datetime] = []
    values: list[list[float]] = []
    try:
        instant = _reader(_first_of(header))
    except TableError as error:
        raise TableError(f"line 1: {error}") from error
    for number, row in enumerate(lines, start=2):
        if len(row) != len(header):
            raise TableError(f"line {number}: {len(row)} fields, the header has {len(header)}")
        try:
            times.append(instant(row[0]))
            values.append([_number(*cell) for cell in zip(header[1:], row[1:], strict=True)])
        except TableError as error:
            raise TableError(f"line {number}: {error}") from error
    table = np.array(values, dtype=np.float64).reshape(len(times), len(header) - 1)
    return Table(np.array(times, dtype="datetime64[us]"), tuple(header[1:]), table)


def _first_of(header: list[str]) -> str:
    """What the first column is called.  Raises TableError for what is no line of names."""
    if not header:
        raise TableError("nothing is there; it names the columns, such as Date,KO,PEP")
    other = next((mark for mark in SEPARATORS if mark in header[0]), None)
    if len(header) > 1 or other is None:
        return header[0]
    decimal = ", decimal=','" * (other == ";")  # Where numbers have commas, fields have others.
    raise TableError(
        f"fields are separated by {other!r}, not by commas; pandas writes them so:"
        f" pd.read_csv(FILE, sep={other!r}{decimal}).to_csv(NEW, index=False)"
    )


def _number(name: str, cell: str) -> float:
    if not cell.strip():
        return np.nan  # Whoever knows what the table holds says what that means.
    try:
        return float(cell)
    except ValueError as error:
        raise TableError(f"{name}: {cell!r} is no number") from error


def _read_parquet(path: Path) -> Table:
    """Through polars, else pandas with pyarrow.  A stream, for a path may be taken as a pattern."""
    try:
        polars: Any = import_module("polars")
    except ImportError:
        return _read_parquet_with_pandas(path)
    try:
        with path.open("rb") as stream:
            frame = polars.read_parquet(stream)
    except polars.exceptions.PolarsError as error:
        raise TableError(f"is no whole Parquet file: {error}") from error
    if len(frame.columns) > 1 and _is_index(frame.columns[-1]) and not _is_index(frame.columns[0]):
        frame = frame.select(frame.columns[-1], *frame.columns[:-1])
    return of_frame(frame)


def _read_parquet_with_pandas(path: Path) -> Table:
    try:
        pandas: Any = import_module("pandas")
        with path.open("rb") as stream:
            frame = pandas.read_parquet(stream)
    except ImportError as error:
        raise TableError("reading Parquet takes polars: pip install qmtl[polars]") from error
    except (ValueError, NotImplementedError) as error:  # What pyarrow's errors derive from.
        raise TableError(f"is no whole Parquet file: {error}") from error
    return of_frame(frame)


def _is_index(name: str) -> bool:
    return name.lower() in (DATES, *INSTANTS, UNNAMED_INDEX)


# Frames -------------------------------------------------------------------------------------------


def library_of(thing: object) -> str | None:
    """`pandas`, `polars` or `narwhals` where `thing` is a frame, series or index of it, else None.

    Imports nothing: whoever made `thing` has.
    """
    for kind in type(thing).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in LIBRARIES and kind.__name__ in FRAME_TYPES:
            return library
    return None


def of_frame(frame: Any) -> Table:
    """A pandas frame with a DatetimeIndex, or a pandas or polars frame whose first column is times.

    Raises TableError, naming the column.
    """
    import narwhals as nw

    named_once(frame)
    try:
        table = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise TableError(f"{described(frame)} is no table{_remedy(frame)}") from error
    index = index_of(frame)
    names: Sequence[object] = table.columns
    if index is not None and is_datetimes(index):
        times = _instants_of(index, "the index")
    elif names and isinstance(names[0], str):
        first, *names = table.columns
        times = _instants_of(table[first], first)
    else:
        raise TableError(
            "there are no times: give the frame a DatetimeIndex, or times in its first column"
        )
    for name in names:
        if not isinstance(name, str):
            raise TableError(
                f"the column {name!r} has no name; give each a word: frame.columns = [...]"
            )
    known = [str(name) for name in names]
    return Table(times, tuple(known), numbers(table, known))


def named_once(frame: object) -> None:
    """Raises TableError for a pandas frame in which two columns have one name."""
    columns = getattr(frame, "columns", ()) if library_of(frame) == "pandas" else ()
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise TableError(f"two columns are named {twice[0]!r}")


def index_of(frame: object) -> "nw.Series[Any] | None":
    """The index of a pandas frame or series, as a series; None where there is none (polars)."""
    import narwhals as nw

    index = getattr(frame, "index", None)
    if library_of(frame) != "pandas" or index is None:
        return None
    times: nw.Series[Any] = nw.from_native(index.to_series(), series_only=True)
    return times


def numbers(frame: "nw.DataFrame[Any]", names: Sequence[str]) -> FloatArray:
    """The named columns as (rows, columns) float64, a copy; what is missing is NaN.

    Raises TableError, naming the column, for what holds no numbers.
    """
    import narwhals as nw

    for name in names:
        dtype = frame[name].dtype
        if not dtype.is_numeric():
            raise TableError(f"the column {name} holds {dtype}, not numbers")
    if not names:
        return np.empty((len(frame), 0))
    columns = [frame[name].cast(nw.Float64).to_numpy() for name in names]
    return np.array(columns, dtype=np.float64).T.copy()


def is_datetimes(series: "nw.Series[Any]") -> bool:
    """Whether a series holds datetimes, with a zone or without."""
    import narwhals as nw

    return isinstance(series.dtype, nw.Datetime) or zone_of(series) is not None


def zone_of(series: "nw.Series[Any]") -> str | None:
    """The time zone of a series of datetimes, None where it has none.

    pandas is asked itself: narwhals 2.29 does not know zones with an underscore in their names, as
    New York's has.
    """
    native = series.to_native().dtype
    zone = getattr(native, "tz", None) or getattr(series.dtype, "time_zone", None)
    return None if zone is None else str(zone)


def utc(series: "nw.Series[Any]") -> TimeArray:
    """The instants of a series of datetimes with a zone, as datetime64[us]."""
    native = series.to_native()
    if hasattr(native.dtype, "tz"):
        instants: TimeArray = native.dt.tz_convert(None).to_numpy().astype("datetime64[us]")
        return instants
    return _wall_clock(series.dt.convert_time_zone("UTC"))


def described(thing: object) -> str:
    """`a pandas Series`, for messages."""
    library = library_of(thing)
    return f"a {library} {type(thing).__name__}" if library else f"a {type(thing).__name__}"


def _remedy(frame: object) -> str:
    match type(frame).__name__:
        case "LazyFrame":
            return "; collect() it"
        case "Series":
            return "; make it one: series.to_frame('NAME')"
        case _:
            return ""


# Times --------------------------------------------------------------------------------------------


def instants(given: Any) -> TimeArray:
    """Times as datetime64[us], UTC, of an array, a series, or dates, datetimes or text in a row.

    datetime64 has no zone, and is UTC; where all of it falls on midnight it is dates.

    Raises TableError for what is no time, or has no zone.
    """
    if library_of(given) is not None:
        import narwhals as nw

        series = given.to_series() if type(given).__name__.endswith("Index") else given
        return _instants_of(nw.from_native(series, series_only=True), "the column")
    if isinstance(given, np.ndarray) and given.dtype.kind == "M":
        times: TimeArray = given.astype("datetime64[us]")
        return times + DAILY_CLOSE if _are_midnights(times) else times
    return np.array([_instant(each) for each in given], dtype="datetime64[us]")


def _instants_of(series: "nw.Series[Any]", name: str) -> TimeArray:
    import narwhals as nw

    if is_datetimes(series):
        return _zoned(series, name)
    match series.dtype:
        case nw.Date():
            days: TimeArray = series.to_numpy().astype("datetime64[us]")
            return days + DAILY_CLOSE
        case nw.String():
            reader = _reader(name)
            cells = series.fill_null("").to_list()
            return np.array([reader(cell) for cell in cells], dtype="datetime64[us]")
        case other:
            raise TableError(
                f"{name} holds {other}, not times; in pandas, pd.to_datetime makes them"
            )


def _zoned(series: "nw.Series[Any]", name: str) -> TimeArray:
    local = _wall_clock(series)
    zone = zone_of(series)
    if zone is None and _are_midnights(local):
        return local + DAILY_CLOSE
    if zone is None:
        raise TableError(
            f"{name} has no time zone. If it is UTC, say so: in pandas .tz_localize('UTC')"
            " (.dt.tz_localize for a column), in polars .dt.replace_time_zone('UTC')"
        )
    instants = utc(series)
    # Midnight in New York is no time at which anything closes there: it stands for a date.
    if _are_midnights(local) and (local != instants).any():
        raise TableError(
            f"{name} is always midnight in {zone}: is that a date? For daily closes leave the zone"
            " out: .tz_localize(None) in pandas, .dt.date() in polars. For instants convert it to"
            " UTC: .tz_convert('UTC'), .dt.convert_time_zone('UTC')"
        )
    return instants


def _wall_clock(series: "nw.Series[Any]") -> TimeArray:
    """What a clock in the series' own zone shows."""
    shown: TimeArray = series.dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    return shown


def _are_midnights(times: TimeArray) -> bool:
    known = times[~np.isnat(times)]
    return bool((known == known.astype("datetime64[D]")).all())


def _reader(name: str) -> Callable[[str], datetime]:
    """How the cells of a column of that name are read: as dates, or as instants."""
    if name.lower() == DATES:
        return _close
    if name.lower() in INSTANTS:
        return _parsed
    raise TableError(
        f"the first column is Date, or time, timestamp or datetime, not {[name] if name else []}"
    )


def _close(cell: str) -> datetime:
    """The close of a date, in UTC; a datetime without a zone, which is how numpy wants it."""
    try:
        if _DATE.fullmatch(cell):
            return datetime.combine(date.fromisoformat(cell), CLOSING_TIME)
    except ValueError:
        pass  # The thirtieth of February.
    if _INSTANT.fullmatch(cell):
        raise TableError(f"{cell} has a time of day; name the column time")
    raise TableError(f"{cell!r} is no date, such as 2024-01-31")


def _parsed(cell: str) -> datetime:
    """An instant in RFC 3339, in UTC; a datetime without a zone."""
    if _DATE.fullmatch(cell):
        raise TableError(f"{cell} has no time of day; for daily closes name the column Date")
    found = _INSTANT.fullmatch(cell)
    if found is None:
        raise TableError(f"{cell!r} is no instant, such as 2024-01-31T21:00:00Z")
    if found["zone"] is None:
        raise TableError(f"{cell} has no zone; write {cell}Z if it is UTC, else its offset")
    try:
        return datetime.fromisoformat(cell.upper()).astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise TableError(f"{cell!r} is no time that there is") from error


def _instant(given: object) -> datetime:
    match given:
        case str():
            return _close(given) if _DATE.fullmatch(given) else _parsed(given)
        case datetime() if given.tzinfo is None:
            raise TableError(f"{given.isoformat()} has no zone; give it tzinfo=UTC if it is UTC")
        case datetime():
            return given.astimezone(UTC).replace(tzinfo=None)
        case date():
            return datetime.combine(given, CLOSING_TIME)
        case _:
            raise TableError(f"{given!r} is no time")
