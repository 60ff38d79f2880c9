"""The look-ahead check: each way to cheat is caught with its date, and no honest strategy is."""

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qmtl.demo import us_large_caps
from qmtl.demo.strategies import PERIODS, BestOfMany, CentredAverage, highest, strategies
from qmtl.sdk.lookahead import find_leak
from qmtl.sdk.prices import Prices, PricesError
from qmtl.sdk.strategy import Strategy, StrategyError, name_of

Table = NDArray[np.float64]
BARS = 300
CRASH = (
    251  # The price of everything falls by half at this bar, and by less than 15 % at any other.
)


def walk() -> Prices:
    """A random walk of five assets over 300 days, with one crash."""
    moves = np.random.default_rng(3).normal(0.0005, 0.02, size=(BARS, 5))
    moves[CRASH] = np.log(0.5)
    days = [date(2020, 1, 1) + timedelta(days=day) for day in range(BARS)]
    times = np.array(days, dtype="datetime64[us]") + np.timedelta64(21, "h")
    return Prices(times, tuple("ABCDE"), 100 * np.exp(np.cumsum(moves, axis=0)))


WALK = walk()


# Ways to look ahead -------------------------------------------------------------------------------


def peeks_at_tomorrow(prices: Table) -> Table:
    weights = np.zeros_like(prices)
    for bar in range(len(prices) - 1):
        weights[bar] = np.sign(prices[bar + 1] - prices[bar]) / 5
    return weights


def rolls_the_wrong_way(prices: Table) -> Table:
    return (np.roll(prices, -1, axis=0) / prices - 1).clip(-0.2, 0.2)


def peeks_after_fifty_bars(prices: Table) -> Table:
    weights = np.zeros_like(prices)
    weights[50:-1] = (prices[51:] / prices[50:-1] - 1).clip(-0.2, 0.2)
    return weights


def peeks_on_the_last_bars_only(prices: Table) -> Table:
    """Bar 297, of 300, knows bar 299."""
    weights = np.zeros_like(prices)
    if len(prices) == BARS:
        weights[-3] = np.sign(prices[-1] - prices[-3]) / 5
    return weights


def normalises_by_the_whole_sample(prices: Table) -> Table:
    score = (prices - prices.mean(axis=0)) / (prices.std(axis=0) + 1)
    return score.clip(-1, 1) / 5


def scales_by_the_whole_sample(prices: Table) -> Table:
    return prices / prices.max() / 5


def weighs_by_the_volatility_of_the_whole_sample(prices: Table) -> Table:
    swing = np.diff(np.log(prices), axis=0, prepend=np.log(prices[:1])).std(axis=0) + 0.001
    return np.broadcast_to(1 / swing / np.sum(1 / swing), prices.shape)


def averaged(prices: Table, window: int) -> Table:
    total = np.cumsum(prices, axis=0)
    average = np.full_like(prices, np.nan)
    average[window - 1 :] = total[window - 1 :]
    average[window:] -= total[:-window]
    return average / window


def fills_backward(prices: Table) -> Table:
    average = averaged(prices, 20)
    if len(prices) >= 20:
        average[:19] = average[19]
    return np.nan_to_num(np.sign(prices - average)) / 5


def fills_the_month_from_its_end(prices: Table) -> Table:
    """Each row takes the close of the last bar of its month, where the prices go that far."""
    row = np.arange(len(prices))
    month_end = np.minimum(row - row % 21 + 20, len(prices) - 1)
    return np.sign(prices[month_end] - 100) / 5


def selects_on_the_whole_sample(prices: Table) -> Table:
    """Follows the trend over the lookback that would have earned most."""

    def following(lookback: int) -> Table:
        weights = np.zeros_like(prices)
        weights[lookback:] = np.sign(prices[lookback:] - prices[:-lookback]) / 5
        return weights

    def earned(weights: Table) -> float:
        return float(np.sum(weights[:-1] * (prices[1:] / prices[:-1] - 1)))

    return max((following(lookback) for lookback in (1, 2, 3, 5, 8, 13, 21)), key=earned)


def centres_its_average(prices: Table) -> Table:
    padded = np.pad(prices, ((2, 2), (0, 0)), mode="edge")
    return np.sign(prices - sliding_window_view(padded, 5, axis=0).mean(axis=-1)) / 5


def flees_the_crash(prices: Table) -> Table:
    """Holds everything but on the three bars before a fall by more than 15 %: one crash in 300."""
    weights = np.full_like(prices, 0.2)
    for bar in np.flatnonzero((prices[1:] / prices[:-1] < 0.85).any(axis=1)) + 1:
        weights[max(0, bar - 3) : bar] = 0
    return weights


def leaks_a_little(prices: Table) -> Table:
    return 0.2 + 1e-9 * np.sign(np.roll(prices, -1, axis=0) - prices)


def knows_how_long_it_will_last(prices: Table) -> Table:
    return np.full_like(prices, 1 / len(prices))


def undefined_without_a_future(prices: Table) -> Table:
    weights = np.full_like(prices, 0.2)
    weights[-1] = 0.2 if len(prices) == BARS else np.nan
    return weights


class FitsOnFirstUse:
    """Selects on the whole sample when it is first asked, and keeps what it selected."""

    def __init__(self) -> None:
        self.chosen: Table | None = None

    def weights(self, prices: Table) -> Table:
        if self.chosen is None:
            self.chosen = np.sign(prices[-1] - prices[0]) / 5
        return np.broadcast_to(self.chosen, prices.shape)


LEAKY: list[tuple[Strategy, int]] = [
    (peeks_at_tomorrow, 0),
    (rolls_the_wrong_way, 0),
    (peeks_after_fifty_bars, 50),
    (peeks_on_the_last_bars_only, 297),
    (normalises_by_the_whole_sample, 0),
    (scales_by_the_whole_sample, 0),
    (weighs_by_the_volatility_of_the_whole_sample, 0),
    (fills_backward, 0),
    (fills_the_month_from_its_end, 0),
    (selects_on_the_whole_sample, 1),
    (centres_its_average, 0),
    (flees_the_crash, 0),
    (leaks_a_little, 0),
    (knows_how_long_it_will_last, 0),
    (undefined_without_a_future, 0),
    (FitsOnFirstUse(), 0),
]


@pytest.mark.parametrize(
    ("strategy", "row"), LEAKY, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_looks_ahead_is_caught_with_its_date(strategy: Strategy, row: int) -> None:
    leak = find_leak(strategy, WALK)
    assert leak is not None
    assert leak.kind == "look_ahead"
    assert leak.date == WALK.times[row]
    assert leak.asset in WALK.assets
    assert row < leak.cut <= BARS
    day = str(leak.date)[:10]
    assert leak.message.startswith(f"{name_of(strategy)} looks ahead: its weight of {leak.asset}")
    assert f"on {day}T21:00Z" in leak.message


# Cutting shows the flight from the crash just before the crash only; and what is fitted once on all
# prices is no function of the prices it is given.
CUTTABLE = [case for case in LEAKY if case[0] is not flees_the_crash and callable(case[0])]


@pytest.mark.parametrize(("strategy", "row"), CUTTABLE, ids=lambda v: getattr(v, "__name__", ""))
def test_the_date_is_the_one_that_trying_every_cut_finds(
    strategy: Callable[[Table], Table], row: int
) -> None:
    full = strategy(WALK.values)
    differing = [
        int(np.flatnonzero((part != full[:cut]).any(axis=1))[0])
        for cut in range(1, BARS)
        if ((part := strategy(WALK.values[:cut])) != full[:cut]).any()
    ]
    assert min(differing) == row


def test_the_asset_is_the_one_that_leaks() -> None:
    def peeks_at_c(prices: Table) -> Table:
        weights = np.zeros_like(prices)
        weights[:-1, 2] = np.sign(prices[1:, 2] - prices[:-1, 2])
        return weights

    leak = find_leak(peeks_at_c, WALK)
    assert leak is not None
    assert leak.asset == "C"


# Honest -------------------------------------------------------------------------------------------


def rolling_mean(prices: Table) -> Table:
    weights = np.zeros_like(prices)
    if len(prices) >= 20:
        mean = sliding_window_view(prices, 20, axis=0).mean(axis=-1)
        weights[19:] = np.sign(prices[19:] - mean) / 5
    return weights


def rolling_mean_by_cumulative_sum(prices: Table) -> Table:
    return np.nan_to_num(prices / averaged(prices, 20) - 1).clip(-0.2, 0.2)


def rolling_mean_by_convolution(prices: Table) -> Table:
    means = [np.convolve(column, np.ones(7) / 7)[: len(prices)] for column in prices.T]
    return (prices / np.transpose(means) - 1).clip(-0.2, 0.2)


def exponential_average(prices: Table) -> Table:
    average = prices.copy()
    for bar in range(1, len(prices)):
        average[bar] = 0.9 * average[bar - 1] + 0.1 * prices[bar]
    return (prices / average - 1).clip(-0.2, 0.2)


def expanding_score(prices: Table) -> Table:
    count = np.arange(1, len(prices) + 1)[:, np.newaxis]
    mean = np.cumsum(prices, axis=0) / count
    spread = np.sqrt(np.maximum(np.cumsum(prices**2, axis=0) / count - mean**2, 0)) + 1
    return ((prices - mean) / spread).clip(-1, 1) / 5


def mixed_by_a_matrix(prices: Table) -> Table:
    """A matrix product may round in another order on fewer rows."""
    mix = np.random.default_rng(0).normal(size=(5, 5))
    moves = np.diff(np.log(prices), axis=0, prepend=np.log(prices[:1]))
    return moves @ mix - (moves @ mix).mean(axis=1, keepdims=True)


def rounds_as_its_history_is_long(prices: Table) -> Table:
    """A running sum, taken as all there is less what follows: causal but for its last digits."""
    moves = np.diff(np.log(prices), axis=0, prepend=np.log(prices[:1])) / 3
    what_follows = np.cumsum(moves[::-1], axis=0)[::-1] - moves
    return moves.sum(axis=0) - what_follows + 0.1


def draws_from_its_own_seed(prices: Table) -> Table:
    return np.random.default_rng(5).normal(size=prices.shape).clip(-1, 1) / 5


def follows_the_highest(prices: Table) -> Table:
    return highest(prices / prices[0], 2)


class Counts:
    """Remembers how often it was asked, which is nobody's business."""

    def __init__(self) -> None:
        self.asked = 0

    def weights(self, prices: Table) -> Table:
        self.asked += 1
        return np.full_like(prices, 0.2)


HONEST: list[Strategy] = [
    rolling_mean,
    rolling_mean_by_cumulative_sum,
    rolling_mean_by_convolution,
    exponential_average,
    expanding_score,
    mixed_by_a_matrix,
    rounds_as_its_history_is_long,
    draws_from_its_own_seed,
    follows_the_highest,
    Counts(),
]


@pytest.mark.parametrize("strategy", HONEST, ids=name_of)
@pytest.mark.parametrize("seed", [0, 1990])
def test_what_is_honest_passes(strategy: Strategy, seed: int) -> None:
    assert find_leak(strategy, WALK, seed=seed) is None


def test_the_callers_own_strategy_is_never_run() -> None:
    counts = Counts()
    assert find_leak(counts, WALK) is None
    assert counts.asked == 0


CAPS = us_large_caps()
DEMO = strategies(CAPS.between(*PERIODS[0]))


@pytest.mark.parametrize("strategy", DEMO, ids=name_of)
def test_of_the_demo_strategies_only_one_looks_ahead(strategy: Strategy) -> None:
    leak = find_leak(strategy, CAPS)
    if isinstance(strategy, CentredAverage):
        assert leak is not None
        assert leak.kind == "look_ahead"
        # The first bar has no change to follow, whatever comes; the second already knows the third.
        assert leak.date == CAPS.times[1]
    else:
        assert leak is None


def test_the_demo_strategies_hold_what_they_have() -> None:
    assert len({name_of(strategy) for strategy in DEMO}) == len(DEMO) == 10
    for strategy in DEMO:
        weights = strategy.weights(CAPS.values)
        assert np.abs(weights).sum(axis=1).max() <= 1 + 1e-12
        assert np.abs(weights[-1]).sum() > 0
    assert [s.variants_tried for s in DEMO if isinstance(s, BestOfMany)] == [200]


# Chance -------------------------------------------------------------------------------------------


def draws_without_a_seed(prices: Table) -> Table:
    return np.random.default_rng().normal(size=prices.shape) / 100


class KeepsItsGenerator:
    """Draws on, and so answers differently each time it is asked."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(1)

    def weights(self, prices: Table) -> Table:
        return self.generator.normal(size=prices.shape) / 100


class Learns:
    """Holds more each time it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def weights(self, prices: Table) -> Table:
        self.asked += 1
        return np.full_like(prices, self.asked / 100)


class SeedsFromItsAddress:
    """Gives one answer in each life."""

    def weights(self, prices: Table) -> Table:
        return np.random.default_rng(id(self)).normal(size=prices.shape) / 100


def draws_when_history_is_short(prices: Table) -> Table:
    if len(prices) == BARS:
        return np.full_like(prices, 0.2)
    return draws_without_a_seed(prices)


CHANCE: list[tuple[Strategy, int]] = [
    (draws_without_a_seed, BARS),
    (KeepsItsGenerator(), BARS),
    (Learns(), BARS),
    (SeedsFromItsAddress(), BARS),
    (draws_when_history_is_short, 1),
]


@pytest.mark.parametrize(("strategy", "cut"), CHANCE)
def test_chance_is_not_called_looking_ahead(strategy: Strategy, cut: int) -> None:
    leak = find_leak(strategy, WALK)
    assert leak is not None
    assert (leak.kind, leak.date, leak.asset, leak.cut) == (
        "not_deterministic",
        WALK.times[0],
        "A",
        cut,
    )
    assert "asked twice with the same prices" in leak.message


# Short histories ----------------------------------------------------------------------------------


def needs_twenty_bars(prices: Table) -> Table:
    weights = np.zeros_like(prices)
    mean = sliding_window_view(prices, 20, axis=0).mean(axis=-1)
    weights[19:] = np.sign(prices[19:] - mean) / 5
    return weights


def knows_the_number_of_bars(prices: Table) -> Table:
    return np.full((BARS, prices.shape[1]), 0.2)


def raises_on_any_other_history(prices: Table) -> Table:
    if len(prices) != BARS:
        raise KeyError("2020-10-26")
    return np.full_like(prices, 0.2)


@pytest.mark.parametrize(
    ("strategy", "cut", "message"),
    [
        (needs_twenty_bars, 16, "ValueError"),
        (knows_the_number_of_bars, BARS - 1, "shape (300, 5) for prices of (299, 5)"),
        (raises_on_any_other_history, BARS - 1, "KeyError('2020-10-26')"),
    ],
)
def test_failing_on_a_short_history_is_reported(strategy: Strategy, cut: int, message: str) -> None:
    leak = find_leak(strategy, WALK)
    assert leak is not None
    assert (leak.kind, leak.asset, leak.cut) == ("fails_on_short_history", None, cut)
    assert leak.date == WALK.times[cut - 1]
    assert message in leak.message


def test_looking_ahead_is_worse_than_failing() -> None:
    def does_both(prices: Table) -> Table:
        return needs_twenty_bars(prices) + rolls_the_wrong_way(prices)

    leak = find_leak(does_both, WALK)
    assert leak is not None
    assert leak.kind == "look_ahead"
    assert leak.date == WALK.times[19]


# What is passed on --------------------------------------------------------------------------------


def test_what_fails_on_all_prices_fails_as_it_is() -> None:
    def divides(prices: Table) -> Table:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        find_leak(divides, WALK)


def test_what_fails_on_another_future_says_so() -> None:
    def refuses_booms(prices: Table) -> Table:
        if (prices[1:] / prices[:-1] > 1.8).any():
            raise ValueError("no price doubles overnight")
        return np.full_like(prices, 0.2)

    with pytest.raises(StrategyError, match=r"no price doubles.* are multiplied by 2\.0"):
        find_leak(refuses_booms, WALK)


def test_what_cannot_be_copied_cannot_be_checked() -> None:
    class Streams:
        def __init__(self) -> None:
            self.source = (bar for bar in range(3))

        def weights(self, prices: Table) -> Table:
            return np.full_like(prices, 0.2)

    with pytest.raises(StrategyError, match="Streams cannot be copied"):
        find_leak(Streams(), WALK)


def test_one_bar_is_too_few() -> None:
    with pytest.raises(PricesError, match="two bars"):
        find_leak(rolling_mean, Prices(WALK.times[:1], WALK.assets, WALK.values[:1]))


def test_two_bars_are_enough() -> None:
    two = Prices(WALK.times[:2], WALK.assets, WALK.values[:2])
    leak = find_leak(peeks_at_tomorrow, two)
    assert leak is not None
    assert (leak.kind, leak.date, leak.cut) == ("look_ahead", two.times[0], 1)
    assert find_leak(rolling_mean, two) is None
