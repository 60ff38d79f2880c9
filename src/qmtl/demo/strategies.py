"""Ten strategies on 20 US large caps, from honest to hopeless, each to be told from the others.

`python -m qmtl.demo.strategies` prints what each earned in four periods, net of five basis points a
unit of weight traded; `--cost-bps 0` prints the same before costs. Each period starts from cash.

Every strategy is a frozen dataclass whose fields are its parameters. Weights are fractions of
equity; their absolute values add up to at most 1 on every bar, and to 0 while too little is known.
"""

import argparse
from dataclasses import dataclass
from datetime import date
from typing import ClassVar

import numpy as np

from qmtl.core.metrics import Measure, Undefined, performance
from qmtl.demo import us_large_caps
from qmtl.sdk.engine import Engine
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.strategy import HasWeights, name_of, weights_of

BARS_A_YEAR = 252
BARS_A_MONTH = 21
PERIODS = (
    (date(1990, 1, 1), date(1997, 12, 31)),
    (date(1998, 1, 1), date(2003, 12, 31)),
    (date(2004, 1, 1), date(2010, 12, 31)),
    (date(2011, 1, 1), date(2022, 12, 31)),
)
VARIANTS = 200
# The luckiest of five seeds, since what shows luck had better be lucky. An author who did that
# would have tried 1,000 variants, and would have to say so.
VARIANTS_SEED = 4


@dataclass(frozen=True, slots=True)
class Momentum:
    """Buys the five that rose most over the past year, leaving out the last month, once a month."""

    name: ClassVar[str] = "momentum-12-1"
    count: int = 5

    def weights(self, prices: FloatArray) -> FloatArray:
        rise = trailing_return(prices, BARS_A_YEAR, skip=BARS_A_MONTH)
        return held(highest(rise, self.count), BARS_A_MONTH)


@dataclass(frozen=True, slots=True)
class LowVolatility:
    """Buys the five calmest of the past half year, once a month."""

    name: ClassVar[str] = "low-volatility"
    count: int = 5
    window: int = 126

    def weights(self, prices: FloatArray) -> FloatArray:
        return held(highest(-volatility(prices, self.window), self.count), BARS_A_MONTH)


@dataclass(frozen=True, slots=True)
class WeeklyReversal:
    """Buys what fell and sells what rose over the past week, by rank and in equal amounts."""

    name: ClassVar[str] = "weekly-reversal"
    lookback: int = 5

    def weights(self, prices: FloatArray) -> FloatArray:
        return long_short(-trailing_return(prices, self.lookback))


@dataclass(frozen=True, slots=True)
class MovingAverageCross:
    """Holds its share of each asset while the fast moving average is above the slow one."""

    name: ClassVar[str] = "moving-average-cross"
    fast: int = 50
    slow: int = 200

    def weights(self, prices: FloatArray) -> FloatArray:
        # NaN compares as false: nothing is held before the slow average exists.
        above = moving_average(prices, self.fast) > moving_average(prices, self.slow)
        return above.astype(np.float64) / int(prices.shape[1])


@dataclass(frozen=True, slots=True)
class EqualWeight:
    """Holds the same of everything, always: the benchmark."""

    name: ClassVar[str] = "equal-weight"

    def weights(self, prices: FloatArray) -> FloatArray:
        return np.full_like(prices, 1 / prices.shape[1])


@dataclass(frozen=True, slots=True)
class CoinFlipper:
    """Flips a coin for each asset every month and goes long or short: no skill, by construction."""

    name: ClassVar[str] = "coin-flipper"
    seed: int = 7

    def weights(self, prices: FloatArray) -> FloatArray:
        # Drawn bar by bar, so that a flip depends on the seed and the number of its bar only.
        flips = np.random.default_rng(self.seed).random(prices.shape)
        return held(np.where(flips < 0.5, -1.0, 1.0) / prices.shape[1], BARS_A_MONTH)


@dataclass(frozen=True, slots=True)
class BestOfMany:
    """Trades the best of 200 random rules on the past of `fit`: what luck leaves of many tries.

    A rule ranks some of the assets by the sum of up to three ranks, each by the return over
    `lookbacks` bars that ended `skips` bars ago, read in one of two `directions`.
    """

    name: ClassVar[str] = "best-of-200"
    variants_tried: ClassVar[int] = VARIANTS
    assets: tuple[int, ...]
    lookbacks: tuple[int, ...]
    skips: tuple[int, ...]
    directions: tuple[int, ...]
    hold: int

    def weights(self, prices: FloatArray) -> FloatArray:
        chosen = prices[:, list(self.assets)]
        score = np.zeros_like(chosen)
        for lookback, skip, direction in zip(
            self.lookbacks, self.skips, self.directions, strict=True
        ):
            rise = trailing_return(chosen, skip + lookback, skip)
            score += np.where(np.isnan(rise), np.nan, direction * _ranks(rise))
        weights = np.zeros_like(prices)
        weights[:, list(self.assets)] = held(long_short(score), self.hold)
        return weights


@dataclass(frozen=True, slots=True)
class CentredAverage:
    """Follows the day's change of a centred five-day average, which needs the next two closes."""

    name: ClassVar[str] = "centred-average"
    half: int = 2

    def weights(self, prices: FloatArray) -> FloatArray:
        padded = np.pad(prices, ((self.half, self.half), (0, 0)), mode="edge")
        window = 2 * self.half + 1
        smooth = moving_average(padded, window)[window - 1 :]
        change = np.diff(smooth, axis=0, prepend=smooth[:1])
        return np.sign(change).astype(np.float64) / int(prices.shape[1])


@dataclass(frozen=True, slots=True)
class YesterdaysLosers:
    """Buys, every day, the five that fell most that day: good money until 2003, none since.

    Its Sharpe ratio in the four periods of the table is 1.43, 0.83, -0.09 and 0.00. Its return beat
    equal weight in the first two by six points a year (for more risk: equal weight's Sharpe ratio
    was 1.67 and 0.85) and fell behind by 16 and 19 in the last two. It turns its equity over 360
    times a year, so costs take 18 % of it; but costs are not what changed. Before them (`python -m
    qmtl.demo.strategies --cost-bps 0`) it made 62 % and 48 % a year where equal weight made 29 %
    and 17 %, and then 12.0 % and 16.7 % where equal weight made 9.5 % and 16.4 %: the edge went.
    All of it is flattered by names that survived, and the early part by coarse prices.
    """

    name: ClassVar[str] = "yesterdays-losers"
    count: int = 5

    def weights(self, prices: FloatArray) -> FloatArray:
        return highest(-trailing_return(prices, 1), self.count)


@dataclass(frozen=True, slots=True)
class TargetedMomentum:
    """Holds momentum, less of it the more it has been swinging: aims at 12 % volatility a year."""

    name: ClassVar[str] = "momentum-vol-target"
    volatility_annual: float = 0.12
    window: int = 63

    def weights(self, prices: FloatArray) -> FloatArray:
        weights = Momentum().weights(prices)
        earned = np.zeros((len(prices), 1))
        earned[1:, 0] = np.sum(weights[:-1] * daily_returns(prices)[1:], axis=1)
        swing = deviation(earned, self.window) * np.sqrt(BARS_A_YEAR)
        known = np.isfinite(swing) & (swing > 0)
        return weights * np.minimum(1.0, self.volatility_annual / np.where(known, swing, np.inf))


def fit(prices: Prices) -> BestOfMany:
    """The rule with the best Sharpe ratio, net of costs, of 200 drawn at random from a fixed seed.

    Raises PricesError or StrategyError as the engine does.
    """
    generator = np.random.default_rng(VARIANTS_SEED)
    rules = [_drawn(generator, len(prices.assets)) for _ in range(VARIANTS)]
    engine = Engine()

    def score(rule: BestOfMany) -> float:
        returns = engine.backtest(rule.weights(prices.values), prices).returns
        sharpe = performance(returns, BARS_A_YEAR)["sharpe_annual"]
        return -np.inf if isinstance(sharpe, Undefined) else sharpe

    return max(rules, key=score)


def strategies(prices_fit: Prices) -> tuple[HasWeights, ...]:
    """All ten, in a fixed order; the one that is fitted is fitted on `prices_fit`."""
    return (
        EqualWeight(),
        Momentum(),
        TargetedMomentum(),
        LowVolatility(),
        MovingAverageCross(),
        YesterdaysLosers(),
        WeeklyReversal(),
        CoinFlipper(),
        fit(prices_fit),
        CentredAverage(),
    )


def _drawn(generator: np.random.Generator, assets: int) -> BestOfMany:
    chosen = generator.choice(assets, size=int(generator.integers(6, 13)), replace=False)
    ranks = int(generator.integers(1, 4))
    return BestOfMany(
        assets=tuple(sorted(chosen.tolist())),
        lookbacks=tuple(generator.integers(2, 253, size=ranks).tolist()),
        skips=tuple(generator.integers(0, 22, size=ranks).tolist()),
        directions=tuple(generator.choice((-1, 1), size=ranks).tolist()),
        hold=int(generator.choice((5, 10, 21))),
    )


# What they are made of. NaN stands for "not enough is known yet". --------------------------------


def daily_returns(prices: FloatArray) -> FloatArray:
    """(bars, assets): price over the price a bar before, less 1; zero on the first bar."""
    returns = np.zeros_like(prices)
    returns[1:] = prices[1:] / prices[:-1] - 1
    return returns


def trailing_return(prices: FloatArray, lookback: int, skip: int = 0) -> FloatArray:
    """(bars, assets): the return from `lookback` bars ago to `skip` bars ago."""
    returns = np.full_like(prices, np.nan)
    returns[lookback:] = prices[lookback - skip : len(prices) - skip] / prices[:-lookback] - 1
    return returns


def moving_average(values: FloatArray, window: int) -> FloatArray:
    """(bars, columns): the mean of the last `window` rows, this one included."""
    total = np.cumsum(values, axis=0)
    average = np.full_like(values, np.nan)
    average[window - 1 :] = total[window - 1 :]
    average[window:] -= total[:-window]
    return average / window


def deviation(values: FloatArray, window: int) -> FloatArray:
    """(bars, columns): the standard deviation of the last `window` rows, this one included."""
    variance = moving_average(values**2, window) - moving_average(values, window) ** 2
    return np.sqrt(np.maximum(variance, 0.0))


def volatility(prices: FloatArray, window: int) -> FloatArray:
    """(bars, assets): the standard deviation of the last `window` daily returns, not annualised."""
    return deviation(daily_returns(prices), window)


def highest(score: FloatArray, count: int) -> FloatArray:
    """(bars, assets): 1/count on the `count` highest scores of a row; nothing where one is NaN."""
    chosen = _ranks(score) >= score.shape[1] - count
    return _where_known(score, chosen / count)


def long_short(score: FloatArray) -> FloatArray:
    """(bars, assets): weights by rank of score, long the high ones, half the equity a side."""
    centred = _ranks(score) - (score.shape[1] - 1) / 2
    return _where_known(score, centred / np.sum(np.abs(centred), axis=1, keepdims=True))


def held(weights: FloatArray, bars: int) -> FloatArray:
    """(bars, assets): decides on every `bars`-th row only, and keeps to it until the next."""
    row = np.arange(len(weights))
    kept: FloatArray = weights[row - row % bars]
    return kept


def _ranks(score: FloatArray) -> FloatArray:
    """0 for the lowest of each row; of equals the first asset is the lower."""
    order = np.argsort(score, axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable").astype(np.float64)


def _where_known(score: FloatArray, weights: FloatArray) -> FloatArray:
    known: FloatArray = np.where(np.isnan(score).any(axis=1, keepdims=True), 0.0, weights)
    return known


# The table ----------------------------------------------------------------------------------------


def main() -> None:
    """Prints, for each strategy and period, what it earned and how much it traded."""
    parser = argparse.ArgumentParser(prog="python -m qmtl.demo.strategies", description=__doc__)
    parser.add_argument("--cost-bps", type=float, default=Engine().cost_bps)
    engine = Engine(cost_bps=parser.parse_args().cost_bps)
    prices = us_large_caps()
    print(f"{'strategy':22}{'period':>9}{'a year':>9}{'sharpe':>8}{'drawdown':>10}", end="")
    print(f"{'trades':>9}{'turnover':>10}")
    for strategy in strategies(prices.between(*PERIODS[0])):
        weights = weights_of(strategy, prices)
        for start, end in PERIODS:
            test = engine.backtest(weights[prices.rows(start, end)], prices.between(start, end))
            metrics = performance(test.returns, BARS_A_YEAR)
            print(
                f"{name_of(strategy):22}{start.year}-{end.year}"
                f"{_shown(metrics['cagr'], '.1%'):>9}{_shown(metrics['sharpe_annual'], 'z.2f'):>8}"
                f"{_shown(metrics['max_drawdown'], '.1%'):>10}"
                f"{test.trades_total:>9,}{test.turnover_annual:>10.1f}"
            )
        print()


def _shown(value: Measure, form: str) -> str:
    return value.value if isinstance(value, Undefined) else format(value, form)


if __name__ == "__main__":
    main()
