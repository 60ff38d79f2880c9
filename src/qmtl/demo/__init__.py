"""Real prices and ten strategies a quant would recognise: for the demo, the tests and the bench.

Where the prices come from, and what is wrong with them, is in `data/README.md`.
"""

from pathlib import Path

from qmtl.sdk.prices import Prices, read_csv

DATA = Path(__file__).parent / "data"


def us_large_caps() -> Prices:
    """Adjusted daily closes of 20 US large caps, 1990-01-02 to 2022-12-28: 8,313 bars, in USD."""
    return read_csv(DATA / "us_large_caps_daily_close.csv.gz")


def sp500_index() -> Prices:
    """Daily closes of the S&P 500 index, without dividends, on the same 8,313 days: one column."""
    return read_csv(DATA / "sp500_index_daily_close.csv.gz")
