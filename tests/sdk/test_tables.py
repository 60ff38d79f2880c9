"""Prices and returns out of files and frames: which times are read how, and what is refused."""

import gzip
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import qmtl
from qmtl.sdk.prices import Prices, PricesError, as_prices, read_prices, stamp
from qmtl.sdk.returns import Returns, ReturnsError, as_returns, read_returns

CLOSES = np.array(["2020-01-02T21:00", "2020-01-03T21:00"], "datetime64[us]")
OPENS = np.array(["2020-01-02T14:30", "2020-01-02T14:31"], "datetime64[us]")
VALUES = np.array([[1.0, 10.0], [2.0, 20.0]])
DAYS = ["2020-01-02", "2020-01-03"]
MINUTES = ["2020-01-02T14:30:00Z", "2020-01-02T14:31:00Z"]
DATES = [date(2020, 1, 2), date(2020, 1, 3)]
MIDNIGHTS = ["2020-01-02T00:00:00", "2020-01-03T00:00:00"]
EASTERN = timezone(timedelta(hours=-5))


def pandas_of(times: object, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"KO": [1.0, 2.0], "PEP": [10, 20]} | columns, index=times)


def polars_of(times: object, **columns: object) -> pl.DataFrame:
    return pl.DataFrame({"when": times, "KO": [1.0, 2.0], "PEP": [10, 20]} | columns)


def polars_times(texts: list[str], zone: str | None = None) -> pl.Series:
    naive = pl.Series(texts).str.strip_chars("Z").str.to_datetime(time_unit="ms")
    return naive.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else naive


NEW_YORK = pd.DatetimeIndex(MINUTES).tz_convert("America/New_York")
FRAMES = [
    ("dates in an index", pandas_of(pd.DatetimeIndex(DAYS)), CLOSES),
    ("instants in an index", pandas_of(pd.DatetimeIndex(MINUTES)), OPENS),
    ("nanoseconds", pandas_of(pd.DatetimeIndex(MINUTES).as_unit("ns")), OPENS),
    ("another zone", pandas_of(NEW_YORK), OPENS),
    ("a first column", pandas_of(NEW_YORK).rename_axis("t").reset_index(), OPENS),
    ("text in a column", pandas_of(DAYS).rename_axis("Date").reset_index(), CLOSES),
    ("instants as text", pandas_of(MINUTES).rename_axis("Time").reset_index(), OPENS),
    ("nullable numbers", pandas_of(pd.DatetimeIndex(DAYS)).astype("Float64"), CLOSES),
    (
        "midnight in UTC",
        pandas_of(pd.DatetimeIndex(DAYS, tz="UTC")),
        CLOSES - np.timedelta64(21, "h"),
    ),
    ("polars dates", polars_of(DATES), CLOSES),
    ("polars midnights", polars_of(polars_times(MIDNIGHTS)), CLOSES),
    ("polars instants", polars_of(polars_times(MINUTES, "UTC")), OPENS),
    ("polars in another zone", polars_of(polars_times(MINUTES, "America/New_York")), OPENS),
    ("polars text", polars_of(DAYS).rename({"when": "DATE"}), CLOSES),
]


@pytest.mark.parametrize(("case", "frame", "times"), FRAMES, ids=[case for case, *_ in FRAMES])
def test_a_frame_is_prices(case: str, frame: object, times: np.ndarray) -> None:
    prices = as_prices(frame)
    assert prices.assets == ("KO", "PEP")
    assert np.array_equal(prices.times, times)
    assert np.array_equal(prices.values, VALUES)


def test_prices_are_prices() -> None:
    prices = Prices(CLOSES, ("KO", "PEP"), VALUES)
    assert as_prices(prices) is prices


GOOD = pd.DatetimeIndex(DAYS)
REFUSED = [
    (
        pandas_of(pd.DatetimeIndex(MINUTES).tz_localize(None)),
        r"index has no time zone.*tz_localize\('UTC'\)",
    ),
    (polars_of(polars_times(MINUTES)), r"when has no time zone.*replace_time_zone\('UTC'\)"),
    (
        pandas_of(pd.DatetimeIndex(DAYS, tz="America/New_York")),
        r"midnight in America/New_York: .*tz_localize\(None\)",
    ),
    (pandas_of(GOOD[[0, 0]]), "2020-01-02T21:00Z follows 2020-01-02T21:00Z: sort the bars"),
    (pandas_of(GOOD[::-1]), "times increase"),
    (pandas_of(pd.DatetimeIndex([DAYS[0], None])), "bar 1 has no time"),
    (polars_of([None, date(2020, 1, 3)]), "bar 0 has no time"),
    (pandas_of(None), "KO holds Float64, not times"),
    (pandas_of(DAYS), "KO holds Float64, not times; in pandas, pd.to_datetime"),
    (polars_of([DAYS[0], None]).rename({"when": "Date"}), "'' is no date, such as"),
    (pandas_of([DAYS[0], None]).rename_axis("Date").reset_index(), "'' is no date, such as"),
    (polars_of(DAYS), r"the first column is Date, or time, .* not \['when'\]"),
    (pandas_of(GOOD, KO=["a", "b"]), "the column KO holds String, not numbers"),
    (pandas_of(GOOD, KO=[True, True]), "the column KO holds Boolean, not numbers"),
    (polars_of(DATES, PEP=["a", "b"]), "PEP holds String"),
    (pandas_of(GOOD, KO=[1.0, np.nan]), "KO on 2020-01-03T21:00Z is nan; begin where every asset"),
    (polars_of(DATES, PEP=[None, 20]), "PEP on 2020-01-02T21:00Z is nan"),
    (pandas_of(GOOD)[["KO", "KO"]], "two columns are named 'KO'"),
    (pandas_of(GOOD).set_axis([0, 1], axis=1), "the column 0 has no name"),
    (
        pandas_of(GOOD).set_axis([("Close", "KO"), ("Close", "PEP")], axis=1),
        r"\('Close', 'KO'\) has no name",
    ),
    (pandas_of(GOOD)[[]], "assets need names"),
    (pandas_of(None)[[]], "there are no times"),
    (pandas_of(GOOD).iloc[:0], "there is no bar"),
    (pandas_of(GOOD)["KO"], r"a pandas Series is no table; make it one: series.to_frame"),
    (polars_of(DAYS).lazy(), r"a polars LazyFrame is no table; collect\(\) it"),
    (VALUES, "a ndarray is no table of prices: give Prices, the path of a file, or a pandas"),
    (None, "a NoneType is no table of prices"),
]


@pytest.mark.parametrize(("frame", "message"), REFUSED)
def test_what_is_no_table_of_prices_is_refused(frame: object, message: str) -> None:
    with pytest.raises(PricesError, match=message):
        as_prices(frame)


# Files --------------------------------------------------------------------------------------------


def csv_of(times: list[str], name: str) -> str:
    return f"{name},KO,PEP\n{times[0]},1,10\n{times[1]},2,20\n"


FILES = [
    ("Date", DAYS, CLOSES),
    ("date", DAYS, CLOSES),
    ("time", MINUTES, OPENS),
    ("TimeStamp", ["2020-01-02 14:30:00+00:00", "2020-01-02T09:31:00.000-05:00"], OPENS),
    ("datetime", ["2020-01-02t14:30z", "2020-01-02T14:31:00.000000Z"], OPENS),
]


@pytest.mark.parametrize(("name", "texts", "times"), FILES)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".CSV"])
def test_csv(tmp_path: Path, name: str, texts: list[str], times: np.ndarray, suffix: str) -> None:
    content = csv_of(texts, name).encode()
    path = tmp_path / f"prices{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    for prices in (
        read_prices(path),
        read_prices(str(path)),
        as_prices(path),
        as_prices(str(path)),
    ):
        assert prices.assets == ("KO", "PEP")
        assert np.array_equal(prices.times, times)
        assert np.array_equal(prices.values, VALUES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            csv_of(MINUTES, "Date"),
            "line 2: 2020-01-02T14:30:00Z has a time of day; name the column",
        ),
        (csv_of(DAYS, "time"), "line 2: 2020-01-02 has no time of day; .* name the column Date"),
        (csv_of(["2020-01-02T14:30:00"] * 2, "time"), "line 2: .* write 2020-01-02T14:30:00Z if"),
        (csv_of(["2020-02-30"] * 2, "Date"), "line 2: '2020-02-30' is no date"),
        (csv_of(["20200102"] * 2, "Date"), "line 2: '20200102' is no date"),
        (csv_of(["2020-02-30T14:30:00Z"] * 2, "time"), "line 2: .* is no time that there is"),
        (csv_of(["0001-01-01T00:00:00+14:00"] * 2, "time"), "line 2: .* is no time that there is"),
        (csv_of(["1577975400"] * 2, "time"), "line 2: '1577975400' is no instant"),
        (csv_of(DAYS, "day"), r"line 1: the first column is Date, .* not \['day'\]"),
        ("Date,KO\n2020-01-02,1,000\n", "line 2: 3 fields"),
        ("Date,KO\n2020-01-02,N/A\n", "line 2: KO: 'N/A' is no number"),
        ("Date,KO\n2020-01-02, \n", "prices are .*; KO on 2020-01-02T21:00Z is nan; begin"),
    ],
)
def test_a_broken_csv_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(PricesError, match=rf"^{re.escape(str(path))}: {message}"):
        read_prices(path)


def parquet(path: Path, times: object) -> None:
    polars_of(times).write_parquet(path)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (DATES, CLOSES),
        (polars_times(MINUTES, "UTC"), OPENS),
        (polars_times(MINUTES, "America/New_York"), OPENS),
    ],
)
def test_parquet(tmp_path: Path, times: object, expected: np.ndarray) -> None:
    path = tmp_path / "a [1].parquet"  # No pattern.
    parquet(path, times)
    prices = read_prices(path)
    assert prices.assets == ("KO", "PEP")
    assert np.array_equal(prices.times, expected)
    assert np.array_equal(prices.values, VALUES)


@pytest.mark.parametrize("name", ["Date", "time", "__index_level_0__"])
def test_parquet_as_pandas_writes_it_has_its_index_last(tmp_path: Path, name: str) -> None:
    path = tmp_path / "prices.parquet"
    frame = polars_of(DATES)
    frame.select("KO", "PEP", pl.col("when").alias(name)).write_parquet(path)
    prices = read_prices(path)
    assert prices.assets == ("KO", "PEP")
    assert np.array_equal(prices.times, CLOSES)


def test_a_broken_parquet_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    parquet(path, polars_times(MINUTES))
    with pytest.raises(PricesError, match=r"p\.parquet: when has no time zone"):
        read_prices(path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-1], b"Date,KO\n"):
        path.write_bytes(content)
        with pytest.raises(PricesError, match=r"p\.parquet: is no whole Parquet file"):
            read_prices(path)
    with pytest.raises(FileNotFoundError):
        read_prices(tmp_path / "none.parquet")
    with pytest.raises(PricesError, match=r"prices\.xlsx: is none of \.csv, \.csv\.gz, \.parquet"):
        read_prices(tmp_path / "prices.xlsx")


def test_without_polars_pandas_reads_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "polars", None)
    monkeypatch.setattr(pd, "read_parquet", lambda stream: pandas_of(GOOD))
    assert np.array_equal(read_prices(path).values, VALUES)

    def broken(stream: object) -> object:
        raise ValueError("Parquet magic bytes not found")

    monkeypatch.setattr(pd, "read_parquet", broken)
    with pytest.raises(PricesError, match=r"p\.parquet: is no whole Parquet file: Parquet magic"):
        read_prices(path)


@pytest.mark.parametrize("missing", ["'polars', 'pandas'", "'polars', 'pyarrow', 'fastparquet'"])
def test_without_any_reader_of_parquet_polars_is_asked_for(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(b"")
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys([{missing}]))\n"
        f"from qmtl import read_prices\nread_prices({str(path)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"qmtl.sdk.prices.PricesError: {path}: "
        "reading Parquet takes polars: pip install qmtl[polars]"
    )


# Returns ------------------------------------------------------------------------------------------

RETURNS = np.array([0.01, -0.02])


def series(times: object) -> pd.Series:
    return pd.Series(RETURNS, index=times)


SERIES = [
    ("returns", Returns(CLOSES, RETURNS), CLOSES),
    ("a pandas series of days", series(GOOD), CLOSES),
    ("a pandas series of minutes", series(NEW_YORK), OPENS),
    ("a pandas frame of one column", series(GOOD).to_frame("mine"), CLOSES),
    ("a pandas frame of two", series(NEW_YORK).rename("r").rename_axis("t").reset_index(), OPENS),
    ("a polars frame", pl.DataFrame({"time": polars_times(MINUTES, "UTC"), "r": RETURNS}), OPENS),
    ("as it is submitted", {"t": MINUTES, "r": [0.01, -0.02]}, OPENS),
    ("text", (DAYS, RETURNS), CLOSES),
    ("dates", (DATES, RETURNS), CLOSES),
    ("datetimes", ([datetime(2020, 1, 2, 14, 30 + n, tzinfo=UTC) for n in (0, 1)], RETURNS), OPENS),
    ("offsets", ([datetime(2020, 1, 2, 9, n, tzinfo=EASTERN) for n in (30, 31)], RETURNS), OPENS),
    ("datetime64", (OPENS, RETURNS), OPENS),
    ("datetime64 of days", (CLOSES.astype("datetime64[D]"), RETURNS), CLOSES),
    ("a DatetimeIndex", (NEW_YORK, RETURNS), OPENS),
    ("a series of times", (NEW_YORK.to_series(), RETURNS), OPENS),
    ("a polars series of times", (polars_times(MINUTES, "UTC"), pl.Series(RETURNS)), OPENS),
]


@pytest.mark.parametrize(("case", "given", "times"), SERIES, ids=[case for case, *_ in SERIES])
def test_a_series_is_returns(case: str, given: object, times: np.ndarray) -> None:
    returns = as_returns(given)
    assert np.array_equal(returns.times, times)
    assert np.array_equal(returns.values, RETURNS)
    assert returns.bars == 2
    assert not returns.times.flags.writeable
    assert not returns.values.flags.writeable


def with_return(value: float) -> pd.Series:
    return pd.Series([0.01, value], index=GOOD)


NO_RETURNS = [
    (with_return(-1), r"2020-01-03T21:00Z is -1\.0; -1 is the loss of everything"),
    (with_return(-2.5), r"is -2\.5; .* per cent\? 0\.01 is one per cent"),
    (with_return(np.nan), "is nan; where nothing was held it is 0"),
    (with_return(np.inf), "is inf; a price of 0"),
    (with_return(-np.inf), "is -inf; a price of 0"),
    (series(GOOD[[0, 0]]), "times increase; .*: sort the bars"),
    (series([0, 1]), "the index|holds|times"),
    (series(pd.DatetimeIndex(MINUTES).tz_localize(None)), "no time zone"),
    (pandas_of(GOOD), r"one column beside the times, not 2: \['KO', 'PEP'\]"),
    (pl.Series(RETURNS), "a polars Series is no table"),
    (series(GOOD).iloc[:0], "there is no return"),
    ((DAYS, RETURNS[:1]), r"\(2,\) times, \(1,\) returns"),
    ((DAYS, ["a", "b"]), "two rows of equal length"),
    ((1, RETURNS), "two rows of equal length"),
    ([0.01, -0.02], "two rows of equal length"),
    (([datetime(2020, 1, 2, 14, n) for n in (30, 31)], RETURNS), "T14:30:00 has no zone"),
    (([1, 2], RETURNS), "1 is no time"),
    ((["today", "now"], RETURNS), "'today' is no instant"),
    ({"t": DAYS}, "a dict is no series of returns"),
    (RETURNS, "a ndarray is no series of returns: give Returns, "),
]


@pytest.mark.parametrize(("given", "message"), NO_RETURNS)
def test_what_is_no_series_of_returns_is_refused(given: object, message: str) -> None:
    with pytest.raises(ReturnsError, match=message):
        as_returns(given)


@pytest.mark.parametrize("reader", [read_returns, as_returns])
def test_returns_are_read_from_files(
    tmp_path: Path, reader: Callable[[Path | str], Returns]
) -> None:
    text = "time,return\n2020-01-02T14:30:00Z,0.01\n2020-01-02T14:31:00Z,-0.02\n"
    (tmp_path / "r.csv").write_text(text)
    pl.DataFrame({"time": polars_times(MINUTES, "UTC"), "r": RETURNS}).write_parquet(
        tmp_path / "r.parquet"
    )
    for name in ("r.csv", "r.parquet"):
        returns = reader(tmp_path / name)
        assert np.array_equal(returns.times, OPENS)
        assert np.array_equal(returns.values, RETURNS)
    (tmp_path / "r.csv").write_text("Date,a,b\n2020-01-02,0,0\n")
    with pytest.raises(
        ReturnsError, match=r"r\.csv: returns are one column beside the times, not 2"
    ):
        reader(tmp_path / "r.csv")


# Prices of any bar length -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("2020-01-02T21:00:00", "2020-01-02T21:00Z"),
        ("2020-01-02T21:00:05", "2020-01-02T21:00:05Z"),
        ("2020-01-02T21:00:00.25", "2020-01-02T21:00:00.250000Z"),
        ("2020-01-02", "2020-01-02T00:00Z"),
    ],
)
def test_an_instant_is_shown_whole(time: str, text: str) -> None:
    assert stamp(np.datetime64(time)) == text


def test_the_head_of_prices_is_a_view_that_nobody_can_write_to() -> None:
    prices = Prices(CLOSES, ("KO", "PEP"), VALUES)
    head = prices.head(1)
    assert head.digest() == Prices(CLOSES[:1], ("KO", "PEP"), VALUES[:1]).digest()
    assert np.shares_memory(head.values, prices.values)
    assert not head.values.flags.writeable
    assert not head.times.flags.writeable
    assert prices.head(2).digest() == prices.digest()
    for bars in (0, 3, -1):
        with pytest.raises(PricesError, match=f"the first {bars} bars of 2"):
            prices.head(bars)


def test_authors_find_the_readers_in_qmtl_itself() -> None:
    assert qmtl.as_prices is as_prices
    assert qmtl.read_prices is read_prices
    assert qmtl.as_returns is as_returns
    assert qmtl.read_returns is read_returns
    assert (qmtl.Returns, qmtl.ReturnsError) == (Returns, ReturnsError)
    assert (qmtl.Prices, qmtl.PricesError) == (Prices, PricesError)
