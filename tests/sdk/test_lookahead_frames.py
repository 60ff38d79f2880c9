"""The look-ahead check in pandas and polars: the usual ways to peek, and honest strategies."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from qmtl.sdk.lookahead import find_leak
from qmtl.sdk.prices import Prices
from qmtl.sdk.strategy import Strategy, name_of

BARS = 300
FIRST = np.datetime64("2020-01-01T21:00", "us")
PRICE = pl.all().exclude("time")


def walk(assets: int, bar: np.timedelta64) -> Prices:
    moves = np.random.default_rng(3).normal(0.0005, 0.02, size=(BARS, assets))
    names = tuple("ABCDE"[:assets])
    return Prices(FIRST + np.arange(BARS) * bar, names, 100 * np.exp(np.cumsum(moves, axis=0)))


MANY = walk(5, np.timedelta64(1, "D"))
ONE = walk(1, np.timedelta64(1, "m"))


# Ways to look ahead -------------------------------------------------------------------------------


def pandas_peeks(prices: pd.DataFrame) -> pd.DataFrame:
    return (prices.shift(-1) / prices - 1).clip(-0.2, 0.2).fillna(0)


def pandas_normalises(prices: pd.DataFrame) -> pd.DataFrame:
    return ((prices - prices.mean()) / prices.std()).fillna(0).clip(-1, 1) / 5


def pandas_fills_backward(prices: pd.DataFrame) -> pd.DataFrame:
    return (1 - prices / prices.rolling(20).mean().bfill()).clip(-0.2, 0.2).fillna(0)


def pandas_centres(prices: pd.DataFrame) -> pd.DataFrame:
    average = prices.rolling(5, center=True, min_periods=1).mean()
    return (1 - prices / average).clip(-0.2, 0.2)


def pandas_interpolates(prices: pd.DataFrame) -> pd.DataFrame:
    weekly = prices.iloc[::5].reindex(prices.index)
    return (1 - prices / weekly.interpolate(limit_direction="both")).clip(-0.2, 0.2)


def polars_peeks(prices: pl.DataFrame) -> pl.DataFrame:
    return prices.with_columns((PRICE.shift(-1) / PRICE - 1).clip(-0.2, 0.2).fill_null(0))


def polars_normalises(prices: pl.DataFrame) -> pl.DataFrame:
    score = (PRICE - PRICE.mean()) / PRICE.std()
    return prices.select(score.fill_null(0).fill_nan(0).clip(-1, 1) / 5)


def polars_fills_backward(prices: pl.DataFrame) -> pl.DataFrame:
    average = PRICE.rolling_mean(20).backward_fill()
    return prices.with_columns((PRICE / average - 1).clip(-0.2, 0.2).fill_null(0))


def polars_ranks_over_time(prices: pl.DataFrame) -> pl.DataFrame:
    return prices.with_columns(PRICE.rank() / (PRICE.count() * 5))


LEAKY = [
    pandas_peeks,
    pandas_normalises,
    pandas_fills_backward,
    pandas_centres,
    pandas_interpolates,
    polars_peeks,
    polars_normalises,
    polars_fills_backward,
    polars_ranks_over_time,
]


@pytest.mark.parametrize("prices", [MANY, ONE], ids=["daily", "minutes"])
@pytest.mark.parametrize("strategy", LEAKY, ids=name_of)
def test_what_looks_ahead_in_a_frame_is_caught(strategy: Strategy, prices: Prices) -> None:
    leak = find_leak(strategy, prices)
    assert leak is not None
    assert leak.kind == "look_ahead"
    # At once; but for what stands between two Mondays, the first Monday is what it is.
    assert leak.date == prices.times[1 if strategy is pandas_interpolates else 0]
    assert leak.asset == "A"


# Honest -------------------------------------------------------------------------------------------


def pandas_reverts(prices: pd.DataFrame) -> pd.DataFrame:
    return (1 - prices / prices.rolling(20).mean()).clip(-0.2, 0.2).fillna(0)


def pandas_smooths(prices: pd.DataFrame) -> pd.DataFrame:
    return (prices / prices.ewm(span=10).mean() - 1).clip(-0.2, 0.2)


def pandas_expands(prices: pd.DataFrame) -> pd.DataFrame:
    past = prices.expanding(2)
    return ((prices - past.mean()) / past.std()).clip(-1, 1).fillna(0) / 5


def pandas_targets_volatility(prices: pd.DataFrame) -> pd.DataFrame:
    swing = prices.pct_change().rolling(20).std()
    return (0.01 / swing).clip(0, 1).fillna(0) / len(prices.columns)


def pandas_ranks_across(prices: pd.DataFrame) -> pd.DataFrame:
    rank = prices.pct_change(5).rank(axis=1)
    return rank.sub(rank.mean(axis=1), axis=0).fillna(0) / 10


def polars_reverts(prices: pl.DataFrame) -> pl.DataFrame:
    return prices.with_columns((PRICE / PRICE.rolling_mean(20) - 1).clip(-0.2, 0.2).fill_null(0))


def polars_smooths(prices: pl.DataFrame) -> pl.DataFrame:
    return prices.with_columns((PRICE / PRICE.ewm_mean(span=10) - 1).clip(-0.2, 0.2))


def polars_carries_forward(prices: pl.DataFrame) -> pl.DataFrame:
    monthly = pl.when(pl.int_range(pl.len()) % 21 == 0).then(PRICE).otherwise(None)
    return prices.with_columns((PRICE / monthly.forward_fill() - 1).clip(-0.2, 0.2))


def polars_targets_volatility(prices: pl.DataFrame) -> pl.DataFrame:
    swing = PRICE.pct_change().rolling_std(20)
    return prices.select((swing.pow(-1) * 0.01).clip(0, 1).fill_null(0) / 5)


HONEST = [
    pandas_reverts,
    pandas_smooths,
    pandas_expands,
    pandas_targets_volatility,
    pandas_ranks_across,
    polars_reverts,
    polars_smooths,
    polars_carries_forward,
    polars_targets_volatility,
]


@pytest.mark.parametrize("prices", [MANY, ONE], ids=["daily", "minutes"])
@pytest.mark.parametrize("strategy", HONEST, ids=name_of)
def test_what_is_honest_in_a_frame_passes(strategy: Strategy, prices: Prices) -> None:
    assert find_leak(strategy, prices) is None


# Short histories ----------------------------------------------------------------------------------


def pandas_drops(prices: pd.DataFrame) -> pd.DataFrame:
    """Fails on fewer than twenty bars, and answers with fewer rows than it was asked for."""
    average = prices.rolling(20).mean()
    return average if len(prices) == BARS else average.dropna()


def test_dropped_rows_on_a_short_history_are_told_with_the_way_out() -> None:
    leak = find_leak(pandas_drops, MANY)
    assert leak is not None
    assert (leak.kind, leak.cut) == ("fails_on_short_history", BARS - 1)
    assert "weights lack 19 bars, the first 2020-01-01T21:00Z; keep every bar" in leak.message
