"""The engine: what a table of weights would have earned, after a bar of delay and costs.

The timeline, for weights decided on the close of bar i:

    close of bar i       weights[i] is decided: it may use everything up to and including bar i
    close of bar i+1     weights[i] is put on, at that close, and its cost is paid there and then
    bar i+1 to bar i+2   weights[i] earns; the return is realised, and stamped, at bar i+2
    close of bar i+2     what the prices made of weights[i] is traded into weights[i+1]

Nobody trades at the very close that made up his mind: a close is known when it is over. One bar of
delay is what a desk that computes overnight and trades on the next close can do.

It follows that returns[k] is realised at bar k+1; that returns[0] is the cost of putting on
weights[0] and nothing else; that the last row of weights is never put on; and that the backtest of
a longer history begins with the backtest of a shorter one, so that a recorded return never changes.
"""

from dataclasses import dataclass

import numpy as np

from qmtl.sdk.prices import FloatArray, Prices, PricesError, TimeArray, stamp
from qmtl.sdk.strategy import StrategyError

BPS = 1e-4
# A change of target weight below this is rounding, not a decision.
TRADE_WEIGHT_MIN = 1e-9
FILLING = (
    ": np.nan_to_num(weights) in numpy, weights.fillna(0) in pandas,"
    " weights.fill_null(0).fill_nan(0) in polars"
)
YEAR = np.timedelta64(31_557_600, "s")  # 365.25 days


@dataclass(frozen=True, slots=True, eq=False)
class Backtest:
    """What a strategy would have earned.

    times            (bars-1,) datetime64[us]: when each return is realised; the prices' times[1:]
    returns          (bars-1,) float64: simple returns a bar, net of costs
    turnover_annual  weight bought plus weight sold, as a multiple of equity, a year of 365.25 days
    trades_total     trades. A trade is one asset whose target weight, when it is put on, differs by
                     more than 1e-9 from the target put on a bar before (from zero on the first).
                     Trading a drifted position back to an unchanged target costs, and is turnover,
                     but is no trade: holding equal weights for ten years is not 50,000 decisions
    costs_total      sum over bars of the cost paid, each as a fraction of the equity of its bar
    """

    times: TimeArray
    returns: FloatArray
    turnover_annual: float
    trades_total: int
    costs_total: float


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that trades every bar to its target weights at `cost_bps` a unit of weight traded.

    cost_bps  basis points (1e-4) of what is bought plus what is sold. Raises ValueError when it is
              negative or not finite.
    """

    cost_bps: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.cost_bps < np.inf:
            raise ValueError(f"cost_bps is finite and not negative, not {self.cost_bps}")
        object.__setattr__(self, "cost_bps", float(self.cost_bps))  # 5 and 5.0 are one engine.

    def backtest(self, weights: FloatArray, prices: Prices) -> Backtest:
        """What `weights` would have earned on `prices`.

        weights  (bars, assets) float64, fractions of equity, negative is short; what is not
                 invested is cash and earns nothing. Row i is decided on the close of bar i, as in
                 the timeline above

        Between trades the weights drift with the prices. At each close they are traded to the next
        target, and the cost is cost_bps * 1e-4 * sum |target - drifted weight| of the equity then:
        net return = (1 + gross return) * (1 - cost) - 1.

        Raises StrategyError, naming the first date, when the weights have another shape than the
        prices, are not numbers, or lose everything; PricesError when there are fewer than two bars.
        """
        if prices.bars < 2:
            raise PricesError("a backtest needs two bars: a return is between two prices")
        target = _checked(weights, prices)
        # Absurd weights overflow, and are refused below with their date.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            growth = prices.values[1:] / prices.values[:-1]
            held = np.zeros_like(growth)
            held[1:] = target[:-2]
            gross = 1 + np.sum(held * (growth - 1), axis=1)
            drifted = held * growth / gross[:, np.newaxis]
            traded = np.sum(np.abs(target[:-1] - drifted), axis=1)
            cost = self.cost_bps * BPS * traded
            net = np.where(gross > 0, gross * (1 - cost), gross)  # Two losses make no gain.
        _solvent(net, prices)
        changed = np.abs(np.diff(target[:-1], axis=0, prepend=0.0)) > TRADE_WEIGHT_MIN
        years = float((prices.times[-1] - prices.times[0]) / YEAR)
        return Backtest(
            times=prices.times[1:],
            returns=net - 1,
            turnover_annual=float(traded.sum()) / years,
            trades_total=int(changed.sum()),
            costs_total=float(cost.sum()),
        )


def _checked(weights: FloatArray, prices: Prices) -> FloatArray:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != prices.values.shape:
        raise StrategyError(
            f"weights have shape {weights.shape}; prices from {stamp(prices.times[0])}"
            f" have (bars, assets) = {prices.values.shape}"
        )
    good = np.isfinite(weights)
    if not good.all():
        row, column = (int(at) for at in np.argwhere(~good)[0])
        weight = float(weights[row, column])
        raise StrategyError(
            f"the weight of {prices.assets[column]} on {stamp(prices.times[row])} is {weight};"
            f" where there is nothing to say, say 0{FILLING if np.isnan(weight) else ''}"
        )
    return weights


def _solvent(kept: FloatArray, prices: Prices) -> None:
    """`kept` (bars-1,): the fraction of equity left over each bar. Nothing left is no return."""
    good = (kept > 0) & (kept < np.inf)
    if not good.all():
        row = int(good.argmin()) + 1
        left = float(kept[row - 1])
        raise StrategyError(f"equity ends on {stamp(prices.times[row])}: {left:.6g} of it is left")
