"""Sources of prices: files that grow, are half written, replaced, cut or changed; and iterators."""

import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, Queue

import numpy as np
import polars as pl
import pytest

from qmtl.sdk import sources, tables
from qmtl.sdk.prices import Prices, PricesError
from qmtl.sdk.sources import (
    FileSource,
    FolderSource,
    HistoryChanged,
    IteratorSource,
    PriceSource,
    source_of,
)
from tests.following import csv_of, walk, write

POLL = timedelta(milliseconds=2)
SETTLE = timedelta(milliseconds=60)
DEADLINE_SEC = 10.0
QUIET_SEC = 0.03  # Long enough for many polls.


class Watch:
    """What a source yields, as it does, and what it raises."""

    def __init__(self, source: PriceSource, stop: threading.Event) -> None:
        self.seen: Queue[Prices | Exception | None] = Queue()
        self.thread = threading.Thread(target=self._run, args=(source, stop))
        self.thread.start()

    def _run(self, source: PriceSource, stop: threading.Event) -> None:
        try:
            for prices in source.updates(stop):
                self.seen.put(prices)
            self.seen.put(None)
        except (PricesError, OSError) as error:
            self.seen.put(error)

    def bars(self) -> int:
        """Of the next update."""
        found = self.seen.get(timeout=DEADLINE_SEC)
        assert isinstance(found, Prices), found
        assert found.values.tolist() == walk(found.bars).values.tolist()
        return found.bars

    def error(self) -> Exception:
        found = self.seen.get(timeout=DEADLINE_SEC)
        assert isinstance(found, Exception), found
        return found

    def nothing(self) -> None:
        with pytest.raises(Empty):
            self.seen.get(timeout=QUIET_SEC)


@contextmanager
def watched(source: PriceSource) -> Iterator[Watch]:
    stop = threading.Event()
    watch = Watch(source, stop)
    try:
        yield watch
    finally:
        stop.set()
        watch.thread.join(timeout=DEADLINE_SEC)
        assert not watch.thread.is_alive()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "prices.csv"
    write(found, walk(10))
    return found


def file(path: Path) -> FileSource:
    return FileSource(path, poll=POLL, settle=SETTLE)


# ---- A file ----------------------------------------------------------------------------------


def test_a_file_that_grows_is_all_it_holds_each_time(path: Path) -> None:
    with watched(file(path)) as watch:
        assert watch.bars() == 10
        watch.nothing()
        for bars in (11, 13):
            with path.open("a") as stream:
                stream.write(csv_of(walk(bars)).removeprefix(path.read_text()))
            assert watch.bars() == bars


@pytest.mark.parametrize("name", ["prices.csv", "PRICES.CSV"])
def test_a_line_counts_once_it_is_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, walk(10))
    line = csv_of(walk(11)).removeprefix(path.read_text())
    with watched(file(path)) as watch:
        assert watch.bars() == 10
        for part in (line[:4], line[4:14], line[14:-1]):
            with path.open("a") as stream:
                stream.write(part)
            watch.nothing()
        with path.open("a") as stream:
            stream.write("\n")
        assert watch.bars() == 11


def test_a_file_may_be_replaced_by_a_longer_one(path: Path) -> None:
    with watched(file(path)) as watch:
        assert watch.bars() == 10
        write(path.with_suffix(".new"), walk(12))
        path.with_suffix(".new").replace(path)
        assert watch.bars() == 12


def test_a_file_that_is_written_anew_in_place_is_waited_for(path: Path) -> None:
    """As pandas writes one: first it is empty, then it is short."""
    content = csv_of(walk(12))
    with watched(FileSource(path, poll=POLL)) as watch:
        assert watch.bars() == 10
        for part in ("", content[:5], content[:60], content[:150]):
            path.write_text(part)
            watch.nothing()
        path.write_text(content)
        assert watch.bars() == 12


def test_a_file_that_is_gone_for_a_moment_is_waited_for(path: Path) -> None:
    with watched(FileSource(path, poll=POLL)) as watch:
        assert watch.bars() == 10
        path.unlink()
        watch.nothing()
        write(path, walk(11))
        assert watch.bars() == 11


def test_how_long_a_file_was_well_does_not_count_when_it_is_gone() -> None:
    """Neither does an absence that is over: the wait begins with each, and ends with it."""
    gone, well = FileNotFoundError("gone"), "as it was"
    script = [*[well] * 30, gone, *[well] * 30, *[gone] * 3, "more", *[gone] * 30]
    bars: list[int] = []
    looks = iter(script)

    def mark() -> str:
        now = next(looks)
        if isinstance(now, Exception):
            raise now
        bars.append(10 if now == well else 11)
        return now

    poll = timedelta(microseconds=1)
    found = sources._polled(mark, lambda: walk(bars[-1]), poll, 10 * poll, threading.Event())
    assert [next(found).bars, next(found).bars] == [10, 11]
    with pytest.raises(FileNotFoundError):
        next(found)
    assert len(list(looks)) == 30 - 11


def changed(bar: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        values = walk(12).values.copy()
        values[bar] *= 0.5
        write(path, Prices(walk(12).times, ("A", "B"), values))

    return change


def shifted(path: Path) -> None:
    write(path, Prices(walk(12).times + np.timedelta64(1, "D"), ("A", "B"), walk(12).values))


# What becomes of the file, and what is said once it has stayed so.
WRONG: list[tuple[str, Callable[[Path], object], type[Exception], str]] = [
    ("a split", changed(3), HistoryChanged, "the bar of 2024-01-04T21:00Z is another"),
    ("the last bar", changed(9), HistoryChanged, "the bar of 2024-01-10T21:00Z is another"),
    ("other days", shifted, HistoryChanged, "the bar of 2024-01-01T21:00Z is another"),
    (
        "cut",
        lambda path: write(path, walk(7)),
        HistoryChanged,
        "the bar of 2024-01-08T21:00Z is gone",
    ),
    (
        "other assets",
        lambda path: path.write_text(csv_of(walk(12)).replace("A,B", "A,C")),
        HistoryChanged,
        r"assets were \('A', 'B'\), and now are \('A', 'C'\)",
    ),
    ("empty", lambda path: path.write_text(""), PricesError, "nothing is there"),
    ("no table", lambda path: path.write_text("what\n"), PricesError, "the first column is Date"),
    ("gone", lambda path: path.unlink(), FileNotFoundError, "prices.csv"),
]


@pytest.mark.parametrize(("name", "change", "kind", "says"), WRONG, ids=[w[0] for w in WRONG])
def test_what_stays_wrong_is_an_error(
    path: Path,
    name: str,
    change: Callable[[Path], object],
    kind: type[Exception],
    says: str,
) -> None:
    with watched(file(path)) as watch:
        assert watch.bars() == 10
        change(path)
        error = watch.error()
    with pytest.raises(kind, match=says):
        raise error


def test_what_is_wrong_at_first_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("what\n")
    for name, kind in (("prices.csv", PricesError), ("none.csv", FileNotFoundError)):
        with pytest.raises(kind):
            next(FileSource(tmp_path / name).updates(threading.Event()))


def test_a_file_is_read_when_it_changed_and_only_new_lines_are_parsed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []

    def parse(content: bytes) -> tables.Table:
        reads.append(content.count(b"\n") - 1)
        return original(content)

    original = tables.of_csv
    monkeypatch.setattr(tables, "of_csv", parse)
    with watched(file(path)) as watch:
        assert watch.bars() == 10
        watch.nothing()
        with path.open("a") as stream:
            stream.write(csv_of(walk(12)).removeprefix(path.read_text()))
        assert watch.bars() == 12
        os.utime(path)
        watch.nothing()
    assert reads == [10, 2]


def test_what_is_wrong_with_a_new_line_is_said_with_its_number(path: Path) -> None:
    with watched(file(path)) as watch:
        assert watch.bars() == 10
        with path.open("a") as stream:
            stream.write("2024-01-11,1.0,x\n")
        assert "prices.csv: line 12: " in str(watch.error())


def test_a_compressed_file_may_be_half_there(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv.gz"
    path.write_bytes(gzip.compress(csv_of(walk(10)).encode()))
    more = gzip.compress(csv_of(walk(11)).encode())
    with watched(FileSource(path, poll=POLL)) as watch:
        assert watch.bars() == 10
        path.write_bytes(more[:-20])
        watch.nothing()
        path.write_bytes(more)
        assert watch.bars() == 11


def test_a_parquet_file_may_be_half_there(tmp_path: Path) -> None:
    def content(bars: int) -> bytes:
        prices = walk(bars)
        columns = {name: prices.values[:, at] for at, name in enumerate(prices.assets)}
        pl.DataFrame({"Date": prices.times.astype("datetime64[D]"), **columns}).write_parquet(
            tmp_path / "aside"
        )
        return (tmp_path / "aside").read_bytes()

    path = tmp_path / "prices.parquet"
    path.write_bytes(content(10))
    with watched(FileSource(path, poll=POLL)) as watch:
        assert watch.bars() == 10
        path.write_bytes(content(11)[:-30])
        watch.nothing()
        path.write_bytes(content(11))
        assert watch.bars() == 11


def test_a_file_waits_for_nothing_once_it_is_told_to_stop(path: Path) -> None:
    stop = threading.Event()
    found = FileSource(path, poll=timedelta(hours=1)).updates(stop)
    next(found)
    threading.Timer(0.02, stop.set).start()
    began = time.monotonic()
    assert next(found, None) is None
    assert time.monotonic() - began < 1


# ---- A folder --------------------------------------------------------------------------------


def part(bars: slice) -> Prices:
    return Prices(walk(30).times[bars], ("A", "B"), walk(30).values[bars])


def folder(path: Path) -> FolderSource:
    return FolderSource(path, poll=POLL, settle=SETTLE)


def test_a_folder_is_its_files_one_after_the_other(tmp_path: Path) -> None:
    write(tmp_path / "2024-01.csv", part(slice(0, 10)))
    write(tmp_path / "2024-02.csv", part(slice(10, 12)))
    (tmp_path / "README.md").write_text("prices")
    (tmp_path / ".2024-03.csv").write_text("half")
    with watched(folder(tmp_path)) as watch:
        assert watch.bars() == 12
        write(tmp_path / "2024-02.csv", part(slice(10, 15)))
        assert watch.bars() == 15
        (tmp_path / "2024-03.csv").write_text("Date,A,B\n2024")
        assert watch.seen.empty()
        time.sleep(2 * SETTLE.total_seconds())  # A month may begin long before its first bar.
        watch.nothing()
        write(tmp_path / "2024-03.csv", part(slice(15, 16)))
        assert watch.bars() == 16


FOLDERS: list[tuple[str, dict[str, str], str]] = [
    ("empty", {}, "holds no prices"),
    (
        "assets",
        {"a.csv": "Date,A\n2024-01-01,1\n", "b.csv": "Date,B\n2024-01-02,1\n"},
        "b.csv: its",
    ),
    ("order", {"b.csv": "Date,A\n2024-01-01,1\n", "a.csv": "Date,A\n2024-01-02,1\n"}, "increase"),
    ("broken", {"a.csv": "Date,A\n2024-01-01,x\n"}, "a.csv: line 2"),
]


@pytest.mark.parametrize(("name", "files", "says"), FOLDERS, ids=[f[0] for f in FOLDERS])
def test_a_folder_that_is_no_table_says_why(
    tmp_path: Path, name: str, files: dict[str, str], says: str
) -> None:
    for path, content in files.items():
        (tmp_path / path).write_text(content)
    with pytest.raises(PricesError, match=says):
        next(folder(tmp_path).updates(threading.Event()))


def test_a_path_is_a_file_or_a_folder(tmp_path: Path) -> None:
    assert source_of(tmp_path) == FolderSource(tmp_path)
    assert source_of(str(tmp_path / "x.csv")) == FileSource(str(tmp_path / "x.csv"))


# ---- An iterator -----------------------------------------------------------------------------


def test_an_iterator_brings_rows_or_prices() -> None:
    whole = walk(14)
    bars = [
        (whole.times[10], whole.values[10]),
        (datetime(2024, 1, 12, 21, tzinfo=UTC), whole.values[11].tolist()),
        part(slice(12, 14)),
    ]
    found = list(IteratorSource(walk(10), bars).updates(threading.Event()))
    assert [prices.bars for prices in found] == [10, 11, 12, 14]
    assert found[-1].digest() == whole.digest()


BAD_ROWS = [
    ((datetime(2024, 1, 11, 21), [1.0, 2.0]), "has no time zone"),
    ((np.datetime64("2024-01-10T21:00"), [1.0, 2.0]), "times increase"),
    ((np.datetime64("2024-01-11T21:00"), [1.0]), "values have shape"),
    ((np.datetime64("2024-01-11T21:00"), [1.0, -2.0]), "positive"),
    (["2024-01-11", 1.0, 2.0], "a list is no table"),
    (Prices(walk(12).times[10:], ("A", "C"), walk(12).values[10:]), "assets"),
]


@pytest.mark.parametrize(("row", "says"), BAD_ROWS)
def test_a_row_that_is_none_is_an_error(row: object, says: str) -> None:
    with pytest.raises(PricesError, match=says):
        list(IteratorSource(walk(10), [row]).updates(threading.Event()))


def test_each_of_them_is_a_source(path: Path) -> None:
    for source in (FileSource(path), FolderSource(path), IteratorSource(walk(2), [])):
        assert isinstance(source, PriceSource)
    assert not isinstance(path, PriceSource)
