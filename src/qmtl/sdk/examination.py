"""What is found out about a strategy before it is sent: who it is, what it earns, what to doubt.

Of a strategy all of it is computed here. Of returns that were made elsewhere there is neither code
nor data to look at: their author says which strategy they are of, and which version of it.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from qmtl.core.metrics import performance
from qmtl.sdk import checks
from qmtl.sdk.checks import Examined, Finding, StrategyRejected, Traded
from qmtl.sdk.demands import Demands
from qmtl.sdk.engine import YEAR, Backtest, Engine
from qmtl.sdk.lookahead import find_leak
from qmtl.sdk.prices import FloatArray, Prices, TimeArray, stamp
from qmtl.sdk.result import Precheck
from qmtl.sdk.returns import Returns, ReturnsError
from qmtl.sdk.strategy import Fingerprint, Strategy, StrategyError, fingerprint, name_of, weights_of

# What is computed, how much of it is done, and of how much.
Progress: TypeAlias = Callable[[str, int, int], None]

ELSEWHERE = "elsewhere"  # A part of a fingerprint that is not here to be looked at.


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A strategy, examined.

    times, values  (n,) when each net return is realised, and what it is
    engine         what made them, as the submission says it
    stats          what returns do not tell: trades, turnover
    """

    strategy_id: str
    name: str
    fingerprint: Fingerprint
    times: TimeArray
    values: FloatArray
    engine: Mapping[str, Any]
    stats: Mapping[str, float]
    variants_tried: int | None
    precheck: Precheck

    def submission(self, world: str) -> dict[str, Any]:
        """The body of `POST /strategies`."""
        return {
            "strategy_id": self.strategy_id,
            "world": world,
            "name": self.name,
            "fingerprint": self.fingerprint.digest,
            "parts": self.fingerprint.parts,
            "returns": {"t": _texts(self.times), "r": self.values.tolist()},
            "variants_tried": self.variants_tried,
            "engine": dict(self.engine),
            "stats": dict(self.stats),
        }


def of_strategy(
    strategy: Strategy,
    prices: Prices,
    engine: Engine,
    *,
    strategy_id: str | None,
    variants_tried: int | None,
    demands: Demands | str,
    tell: Progress,
) -> Examination:
    """Backtest and checks.  Raises StrategyRejected, StrategyError, PricesError."""
    name = name_of(strategy, otherwise=strategy_id)
    told = fingerprint(strategy, prices.digest(), engine)  # Before it runs, and remembers.
    weights, found = _tested(strategy, prices, engine, tell)
    stats = {"trades_total": float(found.trades_total), "turnover_annual": found.turnover_annual}
    years = float((prices.times[-1] - prices.times[0]) / YEAR)
    traded = Traded(
        times=prices.times,
        gross=checks.gross_of(weights),
        before_costs=replace(engine, cost_bps=0.0).backtest(weights, prices).returns,
        cost_bps=engine.cost_bps,
        costs_annual=found.costs_total / years,
        turnover_annual=found.turnover_annual,
    )
    bars_a_year = (prices.bars - 1) / years
    examined = Examined(
        times=found.times,
        returns=found.returns,
        starts=prices.times[0],
        metrics=performance(found.returns, bars_a_year),
        periods_per_year=bars_a_year,
        stats=stats,
        traded=traded,
        variants_tried=variants_tried,
        demands=demands,
    )
    return Examination(
        strategy_id=strategy_id or name,
        name=name,
        fingerprint=told,
        times=found.times,
        values=found.returns,
        engine={"name": type(engine).__name__, **asdict(engine), "prices": told.data},
        stats=stats,
        variants_tried=variants_tried,
        precheck=_precheck(examined, prices.times, found.costs_total),
    )


def _tested(
    strategy: Strategy, prices: Prices, engine: Engine, tell: Progress
) -> tuple[FloatArray, Backtest]:
    """Weights and what they earn.  Raises StrategyRejected with everything that is wrong."""
    tell("backtest", 0, 1)
    weights = weights_of(copy.deepcopy(strategy), prices)
    stops: list[Finding] = checks.of_weights(weights, prices)
    found: Backtest | None = None
    if np.isfinite(weights).all():
        try:
            found = engine.backtest(weights, prices)
        except StrategyError as error:
            stops.append(checks.of_ruin(error))
    tell("backtest", 1, 1)
    leak = find_leak(strategy, prices, progress=partial(tell, "look-ahead"))
    if leak is not None:
        stops.insert(0, checks.of_leak(leak))
    if stops:
        raise StrategyRejected(stops, leak)
    assert found is not None, "weights without a backtest have a finding"
    return weights, found


def of_returns(
    returns: Returns,
    *,
    strategy_id: str,
    version: str,
    stats: Mapping[str, float],
    variants_tried: int | None,
    demands: Demands | str,
) -> Examination:
    """What can be said of returns alone.  Raises ReturnsError for fewer than two."""
    if returns.bars < 2:
        raise ReturnsError("one return says nothing: give two or more, with their times")
    years = float((returns.times[-1] - returns.times[0]) / YEAR)
    bars_a_year = (returns.bars - 1) / years
    counted = {name: float(value) for name, value in stats.items()}
    examined = Examined(
        times=returns.times,
        returns=returns.values,
        starts=returns.times[0],
        metrics=performance(returns.values, bars_a_year),
        periods_per_year=bars_a_year,
        stats=counted,
        traded=None,
        variants_tried=variants_tried,
        demands=demands,
    )
    return Examination(
        strategy_id=strategy_id,
        name=strategy_id,
        fingerprint=fingerprint_elsewhere(strategy_id, version),
        times=returns.times,
        values=returns.values,
        engine={"name": ELSEWHERE, "version": version},
        stats=counted,
        variants_tried=variants_tried,
        precheck=_precheck(examined, returns.times, None),
    )


def fingerprint_elsewhere(strategy_id: str, version: str) -> Fingerprint:
    """Of a strategy whose code is not here: it is what its author calls it.

    Neither data nor returns count, so that with more bars it is the same strategy still.
    """
    named = f"qmtl-elsewhere-1\0{strategy_id}\0{version}"
    code = f"sha256:{hashlib.sha256(named.encode()).hexdigest()}"
    return Fingerprint(code=code, parameters=ELSEWHERE, data=ELSEWHERE, engine=ELSEWHERE)


def _precheck(on: Examined, bars: TimeArray, costs_total: float | None) -> Precheck:
    return Precheck(
        metrics=on.metrics,
        periods_per_year=on.periods_per_year,
        bars=len(bars),
        first=stamp(bars[0]),
        last=stamp(bars[-1]),
        trades_total=on.stats.get("trades_total"),
        turnover_annual=on.stats.get("turnover_annual"),
        costs_total=costs_total,
        findings=checks.advice(on),
    )


def _texts(times: TimeArray) -> list[str]:
    return [f"{text}Z" for text in np.datetime_as_string(times, unit="us")]
