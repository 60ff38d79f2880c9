"""Where a followed strategy's prices come from: a file that grows, a folder, an iterator.

A source yields all prices there are, again each time there are more.  Whatever is half written is
not there yet: a file that cannot be read, or is shorter than it was, is looked at again, and is an
error only once it has stayed so.  Bars that were seen never change: that, too, is an error.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Final, Protocol, runtime_checkable

import numpy as np

from qmtl.sdk import tables
from qmtl.sdk.prices import Prices, PricesError, as_prices, read_prices, stamp

POLL: Final = timedelta(seconds=0.2)  # Of a file: a look at its size and time costs nothing.
SETTLE: Final = timedelta(seconds=10)  # Longer than anybody pauses in the midst of writing a file.
TABLES: Final = (*tables.CSV_SUFFIXES, *tables.PARQUET_SUFFIXES)  # What of a folder is prices.

Mark = tuple[int, int, int]  # Inode, size and time: what is unchanged was not written.


class HistoryChanged(PricesError):
    """Bars that were there before are gone or have other prices; the message names the first."""


@runtime_checkable
class PriceSource(Protocol):
    """Whatever can say which prices there are."""

    def updates(self, stop: Event, /) -> Iterator[Prices]:
        """All prices known, each time there are more; ends when there will be none.

        It may block, in `stop.wait(seconds)` best: when `stop` is set, nobody waits for it any
        longer, and it ends. Each update begins with the one before.
        """
        ...


def grown(known: Prices | None, found: Prices) -> None:
    """Nothing when `found` begins with what was known.  Raises HistoryChanged."""
    if known is None:
        return
    if found.assets != known.assets:
        raise HistoryChanged(f"the assets were {known.assets}, and now are {found.assets}")
    bars = min(known.bars, found.bars)
    same = (found.times[:bars] == known.times[:bars]) & np.all(
        found.values[:bars] == known.values[:bars], axis=1
    )
    if not same.all():
        row = int(same.argmin())
        raise HistoryChanged(f"history changed: the bar of {stamp(known.times[row])} is another")
    if found.bars < known.bars:
        raise HistoryChanged(f"history changed: the bar of {stamp(known.times[bars])} is gone")


# ---- Files -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileSource:
    """A CSV (.csv, .csv.gz) or Parquet file that grows, or is replaced by a longer one.

    poll    how often its size and time are looked at; it is read only when they changed
    settle  how long a file may be unreadable, shorter or different before that is an error

    Of a CSV the last line counts once it has its line break: half a price is a price, too.
    """

    path: Path | str
    poll: timedelta = POLL
    settle: timedelta = SETTLE

    def updates(self, stop: Event, /) -> Iterator[Prices]:
        """Raises OSError when there is no such file at first; PricesError, HistoryChanged."""
        table = _Table(Path(self.path))
        yield from _polled(table.mark, table.read, self.poll, self.settle, stop)


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder of such files: in the order of their names, each more bars of the same assets.

    Other files, and those whose name begins with a dot, are not looked at.
    """

    path: Path | str
    poll: timedelta = POLL
    settle: timedelta = SETTLE

    def updates(self, stop: Event, /) -> Iterator[Prices]:
        """Raises OSError when there is no such folder at first; PricesError, HistoryChanged."""
        tables: dict[Path, _Table] = {}

        def mark() -> tuple[tuple[Path, Mark], ...]:
            found = sorted(each for each in Path(self.path).iterdir() if _is_table(each))
            return tuple((each, _marked(each)) for each in found)

        def read() -> Prices:
            parts = []
            for path in sorted(each for each in Path(self.path).iterdir() if _is_table(each)):
                table = tables.setdefault(path, _Table(path))
                if not table.is_empty():
                    parts.append((path, table.read()))
            if not parts:
                raise PricesError(f"{self.path} holds no prices ({', '.join(TABLES)})")
            for path, part in parts:
                if part.assets != parts[0][1].assets:
                    raise PricesError(f"{path}: its assets are not those of the file before")
            return _joined([part for _, part in parts])

        yield from _polled(mark, read, self.poll, self.settle, stop)


def source_of(path: Path | str) -> PriceSource:
    """The source that a path is: a folder or a file."""
    return FolderSource(path) if Path(path).is_dir() else FileSource(path)


def _polled(
    mark: Callable[[], object],
    read: Callable[[], Prices],
    poll: timedelta,
    settle: timedelta,
    stop: Event,
) -> Iterator[Prices]:
    """What `read` finds, each time `mark` changed and there is more.

    What is wrong at first is raised at once; later on, when it has stayed so for `settle`.
    """
    known: Prices | None = None
    seen: object = None
    wrong: PricesError | OSError | None = None
    waited = timedelta(0)
    while not stop.is_set():
        now: object = None  # What cannot be looked at is another thing when it is back.
        try:
            now = mark()
            if now != seen:
                wrong, waited = None, timedelta(0)
                found = read()
                grown(known, found)
                if known is None or found.bars > known.bars:
                    known = found
                    yield found
        except (PricesError, OSError) as error:
            wrong = error
        seen = now
        if wrong is not None:
            if known is None or waited >= settle:
                raise wrong
            waited += poll
        stop.wait(poll.total_seconds())


class _Table:
    """One file, and what of it was read already: of a CSV that grew, only new lines are parsed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_text = path.name.lower().endswith(tables.CSV_SUFFIXES)
        self._mark: Mark | None = None
        self._text = b""
        self._prices: Prices | None = None

    def mark(self) -> Mark:
        return _marked(self.path)

    def is_empty(self) -> bool:
        """Whether it is a CSV that has a header at most: a month begins with its first bar."""
        if self._prices is not None or not self._is_text:
            return False
        return _lines(self.path).count(b"\n") <= 1

    def read(self) -> Prices:
        """Raises OSError, PricesError."""
        mark = self.mark()
        if self._prices is None or mark != self._mark:
            self._prices = self._read_text() if self._is_text else read_prices(self.path)
            self._mark = mark
        return self._prices

    def _read_text(self) -> Prices:
        text = _lines(self.path)
        known, more = self._prices, text[len(self._text) :]
        if known is None or not text.startswith(self._text):
            found = self._parsed(text)
        elif more:
            header = text[: text.index(b"\n") + 1]
            try:
                found = _joined([known, self._parsed(header + more)])
            except PricesError:  # The whole says in which line.
                found = self._parsed(text)
        else:
            found = known
        self._text = text
        return found

    def _parsed(self, text: bytes) -> Prices:
        try:
            return Prices(*tables.of_csv(text))
        except (tables.TableError, PricesError) as error:
            raise PricesError(f"{self.path}: {error}") from error


def _lines(path: Path) -> bytes:
    """The text of a CSV file up to its last line break."""
    try:
        content = tables.content_of(path)
    except tables.TableError as error:
        raise PricesError(f"{path}: {error}") from error
    return content[: content.rfind(b"\n") + 1]


def _marked(path: Path) -> Mark:
    told = path.stat()
    return told.st_ino, told.st_size, told.st_mtime_ns


def _is_table(path: Path) -> bool:
    return path.name.lower().endswith(TABLES) and not path.name.startswith(".")


def _joined(parts: list[Prices]) -> Prices:
    return Prices(
        np.concatenate([part.times for part in parts]),
        parts[0].assets,
        np.concatenate([part.values for part in parts]),
    )


# ---- Iterators -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IteratorSource:
    """A history, and an iterator over what comes after it.

    history  `Prices`, or what `as_prices` takes
    bars     rows (time, prices), the time UTC or aware, the prices (assets,) in the history's
             order; or tables like the history, each more bars of the same assets. It may block
             until there is one
    """

    history: object
    bars: Iterable[object]

    def updates(self, stop: Event, /) -> Iterator[Prices]:
        """The history, then all there is after each item.  Raises PricesError."""
        known = as_prices(self.history)
        yield known
        for item in self.bars:
            if stop.is_set():
                return
            known = _joined([known, _more(item, known)])
            yield known


def _more(item: object, known: Prices) -> Prices:
    if isinstance(item, tuple):
        time, values = item
        if isinstance(time, datetime):
            if time.tzinfo is None:
                raise PricesError(f"{time} has no time zone")
            time = np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "us")
        times = np.array([time], dtype="datetime64[us]")
        return Prices(times, known.assets, np.array([values], dtype=np.float64))
    found = as_prices(item)
    if found.assets != known.assets:
        raise PricesError(f"the assets were {known.assets}, and now are {found.assets}")
    return found
