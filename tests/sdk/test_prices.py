"""Prices: what is refused and why, and that nothing can change them."""

import gzip
import re
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from qmtl.demo import sp500_index, us_large_caps
from qmtl.sdk.prices import Prices, PricesError, read_csv, stamp

TIMES = np.array(["2020-01-02T21:00", "2020-01-03T21:00", "2020-01-06T21:00"], "datetime64[us]")
VALUES = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
ASSETS = ("KO", "PEP")
CSV = "Date,KO,PEP\n2020-01-02,1,10\n2020-01-03,2,20.0\n2020-01-06,3,3e1\n"


def with_value(value: float) -> np.ndarray:
    values = VALUES.copy()
    values[1, 1] = value
    return values


BROKEN = [
    ("a price of zero", {"values": with_value(0)}, "PEP on 2020-01-03T21:00Z is 0.0"),
    ("a negative price", {"values": with_value(-1)}, "PEP on 2020-01-03T21:00Z is -1.0"),
    ("no price", {"values": with_value(np.nan)}, "PEP on 2020-01-03T21:00Z is nan"),
    ("an infinite price", {"values": with_value(np.inf)}, "is inf"),
    ("a row too few", {"values": VALUES[:2]}, r"shape \(2, 2\); .* \(3, 2\)"),
    ("a column too few", {"values": VALUES[:, :1]}, r"shape \(3, 1\)"),
    ("one dimension", {"values": VALUES[:, 0]}, r"shape \(3,\)"),
    ("time stands still", {"times": TIMES[[0, 1, 1]]}, "2020-01-03T21:00Z follows 2020-01-03"),
    ("time runs back", {"times": TIMES[[0, 2, 1]]}, "2020-01-03T21:00Z follows 2020-01-06"),
    ("no time", {"times": np.array([*TIMES[:2], "NaT"], "datetime64[us]")}, "bar 2 has no time"),
    ("no bars", {"times": TIMES[:0], "values": VALUES[:0]}, "there is no bar"),
    ("a table of times", {"times": TIMES[:, np.newaxis]}, "times are one row, not of shape"),
    ("no assets", {"assets": (), "values": VALUES[:, :0]}, "each its own"),
    ("one name twice", {"assets": ("KO", "KO")}, "each its own"),
    ("no name", {"assets": ("KO", "")}, "each its own"),
]


@pytest.mark.parametrize(("case", "changes", "message"), BROKEN, ids=lambda v: str(v)[:20])
def test_broken_prices_are_refused(case: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PricesError, match=message):
        Prices(**{"times": TIMES, "assets": ASSETS, "values": VALUES} | changes)


def test_nobody_can_change_them() -> None:
    values, times = VALUES.copy(), TIMES.copy()
    prices = Prices(times, ASSETS, values)
    digest = prices.digest()
    values[0, 0] = 99
    times[0] = times[0] - np.timedelta64(1, "D")
    assert prices.digest() == digest
    with pytest.raises(ValueError, match="read-only"):
        prices.values[0, 0] = 99
    with pytest.raises(ValueError, match="read-only"):
        prices.times[0] = times[1]


def test_the_digest_is_of_the_content() -> None:
    prices = Prices(TIMES, ASSETS, VALUES)
    again = Prices(TIMES.astype("datetime64[s]"), ASSETS, np.asfortranarray(VALUES))
    assert prices.digest() == again.digest()
    assert prices.digest() == (
        "sha256:418b2f71a5bbf068bb69b2f32a598bdd1ea010338142ec70cb8cdc7d40468c27"
    )


@pytest.mark.parametrize(
    "other",
    [
        Prices(TIMES, ("PEP", "KO"), VALUES),
        Prices(TIMES, ("K", "OPEP"), VALUES),
        Prices(TIMES + np.timedelta64(1, "us"), ASSETS, VALUES),
        Prices(TIMES, ASSETS, with_value(np.nextafter(20.0, 21.0))),
        Prices(TIMES[:2], ASSETS, VALUES[:2]),
    ],
)
def test_any_change_changes_the_digest(other: Prices) -> None:
    assert Prices(TIMES, ASSETS, VALUES).digest() != other.digest()


@pytest.mark.parametrize(
    ("start", "end", "rows"),
    [
        ("2020-01-02", "2020-01-06", slice(0, 3)),
        ("2020-01-03", "2020-01-03", slice(1, 2)),
        ("2020-01-04", "2020-01-31", slice(2, 3)),
        ("1990-01-01", "2020-01-02", slice(0, 1)),
    ],
)
def test_between_dates_both_included(start: str, end: str, rows: slice) -> None:
    prices = Prices(TIMES, ASSETS, VALUES)
    dates = date.fromisoformat(start), date.fromisoformat(end)
    part = prices.between(*dates)
    assert prices.rows(*dates) == rows
    assert np.array_equal(part.times, TIMES[rows])
    assert np.array_equal(part.values, VALUES[rows])
    assert part.assets == ASSETS


def test_between_dates_without_a_bar() -> None:
    prices = Prices(TIMES, ASSETS, VALUES)
    weekend = date(2020, 1, 4), date(2020, 1, 5)
    assert prices.rows(*weekend) == slice(2, 2)
    with pytest.raises(PricesError, match="no bar between 2020-01-04 and 2020-01-05"):
        prices.between(*weekend)
    with pytest.raises(PricesError, match="no bar"):
        prices.between(date(2020, 1, 6), date(2020, 1, 2))
    with pytest.raises(PricesError, match="not an instant"):
        prices.rows(datetime(2020, 1, 2, 22, tzinfo=UTC), date(2020, 1, 6))


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
@pytest.mark.parametrize("text", [CSV, "\ufeff" + CSV, CSV.replace("\n", "\r\n")])
def test_a_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    prices = read_csv(tmp_path / name)
    assert prices.assets == ASSETS
    assert np.array_equal(prices.times, TIMES)
    assert np.array_equal(prices.values, VALUES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: nothing is there; it names the columns, such as Date,KO,PEP"),
        ("\n2020-01-02,1\n", "line 1: nothing is there"),
        ("Date;KO;PEP\n", r"separated by ';', .*sep=';', decimal=','\)\.to_csv"),
        ("Date\tKO\tPEP\n", r"separated by '\\t', not by commas; .*sep='\\t'\)\.to_csv"),
        ("KO,Date\n1,2020-01-02\n", "line 1: the first column is Date"),
        ("Date\n2020-01-02\n", "each its own"),
        ("Date,KO\n", "there is no bar: prices are at least one row below the assets' names"),
        ("Date,KO\n2020-01-02,1\n2020-01-03\n", "line 3: 1 fields"),
        ("Date,KO\n2020-01-02,1,2\n", "line 2: 3 fields"),
        ("Date,KO\n1/2/2020,1\n", "line 2: .*1/2/2020"),
        ("Date,KO\ntoday,1\n", "line 2: .*today"),
        ("Date,KO\n2020-01-02,ten\n", "line 2: KO: 'ten' is no number"),
        ("Date,KO\n2020-01-02,\n", "KO on 2020-01-02T21:00Z is nan; begin where"),
        ("Date,KO\n2020-01-02,nan\n", "KO on 2020-01-02T21:00Z is nan"),
        ("Date,KO\n2020-01-02,1\n2020-01-02,1\n", "2020-01-02T21:00Z follows"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(PricesError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_csv(path)


def test_what_is_no_text_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "utf16.csv"
    path.write_bytes(CSV.encode("utf-16"))
    with pytest.raises(PricesError, match="is no text in UTF-8"):
        read_csv(path)


def test_half_a_download_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.csv.gz"
    path.write_bytes(gzip.compress(CSV.encode())[:-9])
    with pytest.raises(PricesError, match="half"):
        read_csv(path)
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv")


def test_the_prices_that_come_along() -> None:
    caps, index = us_large_caps(), sp500_index()
    assert caps.values.shape == (8313, 20)
    assert caps.assets[:3] == ("AAPL", "AMD", "BAC")
    assert stamp(caps.times[0]) == "1990-01-02T21:00Z"
    assert stamp(caps.times[-1]) == "2022-12-28T21:00Z"
    assert index.assets == ("SP500",)
    assert np.array_equal(caps.times, index.times)
