"""Each check at submit alone finds what it is there to find; a clean strategy, nothing at all."""

import inspect
import re
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from qmtl.demo import us_large_caps
from qmtl.demo.strategies import YesterdaysLosers, strategies
from qmtl.sdk import checks
from qmtl.sdk.checks import Finding, StrategyRejected
from qmtl.sdk.demands import Demands
from qmtl.sdk.engine import Engine
from qmtl.sdk.examination import Examination, of_returns, of_strategy
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.returns import Returns
from qmtl.sdk.strategy import name_of

BARS = 1_200
TIMES = np.datetime64("2020-01-01T21:00", "us") + np.arange(BARS) * np.timedelta64(1, "D")
DEMANDS = Demands(
    policy_version=1,
    window=timedelta(days=1_000),
    observations=1_000,
    periods_per_year=365.25,
    gates={"trades_total": (30.0, None), "max_drawdown": (None, 0.5), "cagr": (-1.0, 10.0)},
    variants_assumed=10,
)
CHEAP = Engine(cost_bps=0.1)


def walk(drift: float = 0.0008, volatility: float = 0.01, bars: int = BARS) -> Prices:
    steps = np.random.default_rng(11).normal(drift, volatility, (bars, 2))
    return Prices(TIMES[:bars], ("A", "B"), 100 * np.exp(steps.cumsum(axis=0)))


def weights() -> FloatArray:
    """Changed every ten bars, and never more than all there is."""
    turn = (np.arange(BARS) // 10 % 2 * 0.2)[:, np.newaxis]
    return np.hstack([0.4 + turn, 0.6 - turn])


@dataclass(frozen=True)
class Given:
    """A strategy that answers with a table, whatever the prices."""

    table: FloatArray

    def weights(self, prices: FloatArray) -> FloatArray:
        return self.table[: len(prices)]


def examined(table: FloatArray | None = None, **options: Any) -> Examination:
    strategy = options.pop("strategy", None) or Given(weights() if table is None else table)
    given = {
        "prices": walk(),
        "engine": CHEAP,
        "strategy_id": None,
        "variants_tried": 1,
        "demands": DEMANDS,
        "tell": lambda what, done, total: None,
        **options,
    }
    return of_strategy(strategy, **given)


def names(found: Examination) -> list[str]:
    return [finding.name for finding in found.precheck.findings]


def test_a_clean_strategy_is_told_nothing() -> None:
    assert examined().precheck.findings == ()


# ---- What stops a submission -----------------------------------------------------------------


def changed(row: int, column: int, value: float) -> FloatArray:
    table = weights()
    table[row, column] = value
    return table


class Tomorrow:
    def weights(self, prices: FloatArray) -> FloatArray:
        held = np.full_like(prices, 0.1)
        held[:-1] += (prices[1:] > prices[:-1]) / 4
        return held


class Dice:
    drawn = np.random.default_rng()

    def weights(self, prices: FloatArray) -> FloatArray:
        return type(self).drawn.random(prices.shape) / 2


class Impatient:
    def weights(self, prices: FloatArray) -> FloatArray:
        return np.full_like(prices, prices[20, 0] * 0 + 0.25)


def fallen(row: int) -> Prices:
    """Prices that stand still, and fall by a tenth on one bar."""
    level = np.where(np.arange(BARS) < row, 10.0, 9.0)
    return Prices(TIMES, ("A", "B"), np.column_stack([level, level]))


STOPS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("look_ahead", {"strategy": Tomorrow()}, ["Tomorrow looks ahead", "of A on 2020-"]),
    ("not_deterministic", {"strategy": Dice()}, ["Dice is not deterministic", "seed"]),
    ("fails_on_short_history", {"strategy": Impatient()}, ["IndexError", "zeros"]),
    (
        "nan_weights",
        {"table": changed(700, 1, np.nan)},
        ["weight of B on 2021-12-01T21:00Z is nan", "first of 1 on 1 of 1,200 bars", "say 0"],
    ),
    (
        "nan_weights",
        {"table": changed(700, 1, -np.inf)},
        ["weight of B on 2021-12-01T21:00Z is -inf"],
    ),
    (
        "weights_without_limit",
        {"table": weights() * np.where(np.arange(BARS) == 800, 25.0, 1.0)[:, np.newaxis]},
        ["25 times equity on 2022-03-11T21:00Z", "4.00% against it", "fractions of equity"],
    ),
    (
        "equity_ends",
        {
            "table": np.full((BARS, 2), 9.0),
            "prices": fallen(900),
        },
        ["equity ends on 2022-06-19T21:00Z", "hold less"],
    ),
]


@pytest.mark.parametrize(("name", "broken", "says"), STOPS, ids=[case[0] for case in STOPS])
def test_each_of_these_alone_stops_a_submission(
    name: str, broken: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(StrategyRejected) as caught:
        examined(**broken)
    assert [(each.name, each.severity) for each in caught.value.findings] == [(name, "stop")]
    for words in says:
        assert words in str(caught.value)
    assert (caught.value.leak is None) is (name not in checks.LEAKS)


class Everything:
    """Wrong in every way that stops a submission."""

    def weights(self, prices: FloatArray) -> FloatArray:
        held = np.full_like(prices, 30.0)
        held[:-1] += prices[1:] > prices[:-1]
        held[3:4, 0] = np.nan
        return held


def test_every_reason_is_told() -> None:
    with pytest.raises(StrategyRejected) as caught:
        examined(strategy=Everything())
    told = [finding.name for finding in caught.value.findings]
    assert told == ["look_ahead", "nan_weights", "weights_without_limit"]
    assert len(str(caught.value).splitlines()) == 3


def test_weights_that_are_prices_have_no_limit_and_equity_ends() -> None:
    with pytest.raises(StrategyRejected) as caught:
        examined(walk().values)
    told = [finding.name for finding in caught.value.findings]
    assert told == ["weights_without_limit", "equity_ends"]


# ---- What is advice --------------------------------------------------------------------------


def asking(**changes: Any) -> dict[str, Any]:
    return {"demands": replace(DEMANDS, **changes)}


def gates(**asked: tuple[float | None, float | None]) -> dict[str, Any]:
    return asking(gates=asked)


def still(share: float) -> Prices:
    """Prices of which the last ones do not move."""
    values = walk().values.copy()
    first = int(BARS * (1 - share))
    values[first:] = values[first]
    return Prices(TIMES, ("A", "B"), values)


def smoothed(weight: float) -> Prices:
    """Prices of which each return is spread over two bars."""
    steps = np.diff(np.log(walk(0.0004).values), axis=0, prepend=np.log([[100.0, 100.0]]))
    steps[1:] = weight * steps[1:] + (1 - weight) * steps[:-1]
    return Prices(TIMES, ("A", "B"), 100 * np.exp(steps.cumsum(axis=0)))


def daily(scale: float = 1.0) -> FloatArray:
    """Everything into the one, then into the other, every day."""
    turn = (np.arange(BARS) % 2)[:, np.newaxis] * scale
    return np.hstack([turn, scale - turn])


ADVICE: list[tuple[str, dict[str, Any], list[str]]] = [
    ("policy_unknown", {"demands": "the world is away"}, ["compared", "the world is away"]),
    (
        "history_short",
        asking(window=timedelta(days=1_500), observations=1_300),
        [
            "asks a backtest for 1,500 days and 1,300 observations",
            "this has 1,198.0 and 1,199: 302.0 days and 101 observations are missing",
            "start on 2019-03-05 or before, not on 2020-01-01",
        ],
    ),
    (
        "history_short",
        asking(observations=1_300),
        ["1,199: 101 observations are missing", "start on 2019-09-22 or before"],
    ),
    ("gate_trades_total", gates(trades_total=(500.0, None)), ["at least 500; this has 240"]),
    (
        "gate_max_drawdown",
        gates(max_drawdown=(None, 0.05)),
        ["of at most 0.05; this has 0.", "times the weights it would be about that"],
    ),
    ("gate_sharpe_annual", gates(sharpe_annual=(2.9, None)), ["at least 2.9", "every variant"]),
    ("gate_turnover_annual", gates(turnover_annual=(None, 1.0)), ["trade less"]),
    ("gate_skew", gates(skew=(None, -3.0)), ["at most -3", "will not pass it as it is"]),
    ("gate_stress_loss_max", gates(stress_loss_max=(None, 0.1)), ["not known", "no submission"]),
    ("gate_cagr", gates(cagr=(9.0, 10.0)), ["at least 9 and at most 10"]),
    (
        "gate_volatility",
        asking(periods_per_year=252.0, gates={"volatility": (0.5, None)}),
        ["at the policy's 252 bars a year"],
    ),
    (
        "leverage",
        {"table": weights() * np.where(np.arange(BARS) == 800, 3.0, 1.0)[:, np.newaxis]},
        ["3.00 times equity, on 2022-03-11", "a move of 33%"],
    ),
    (
        "weights_grow",
        {"table": weights() * np.linspace(0.1, 1.9, BARS)[:, np.newaxis]},
        ["0.32 times equity in the first quarter of the history, 1.68 in the last"],
    ),
    (
        "costs_exceed_edge",
        {"table": daily(), "engine": Engine(cost_bps=20.0), **gates()},
        [
            "a year before costs; costs of 20 bps take 146",
            "turnover of 730",
            "even at",
            "trade less",
        ],
    ),
    (
        "costs_exceed_edge",
        {"table": -weights(), **gates()},
        ["it earns -", "no saving of costs helps"],
    ),
    ("costs_zero", {"engine": Engine(cost_bps=0.0)}, ["no cost", "Engine(cost_bps="]),
    (
        "smooth_returns",
        {"prices": smoothed(0.6)},
        ["autocorrelation is 0.4", "Getmansky, Lo and Makarov 2004", "times as high"],
    ),
    ("sharpe_suspicious", {"prices": walk(0.0012, 0.005)}, ["a Sharpe ratio of 6", "above 3"]),
    (
        "zero_returns",
        {"prices": still(0.3)},
        ["30% of the returns while something is held are exactly zero", "leave bars out"],
    ),
    (
        "variants_unknown",
        {"variants_tried": None},
        ["the world assumes 10", "count every variant"],
    ),
    (
        "holds_nothing",
        {"table": np.zeros((BARS, 2)), **gates()},
        ["every weight of all 1,200 bars is 0", "which condition is never met"],
    ),
]


@pytest.mark.parametrize(
    ("name", "broken", "says"), ADVICE, ids=[f"{n}-{case[0]}" for n, case in enumerate(ADVICE)]
)
def test_each_of_these_alone_is_advice(name: str, broken: dict[str, Any], says: list[str]) -> None:
    (finding,) = examined(**broken).precheck.findings
    assert (finding.name, finding.severity) == (name, "advice")
    for words in says:
        assert words in str(finding)


def elsewhere(values: FloatArray, **options: Any) -> list[Finding]:
    given = {"variants_tried": 1, "demands": DEMANDS, "stats": {"trades_total": 99}, **options}
    returns = Returns(TIMES[: len(values)], values)
    found = of_returns(returns, strategy_id="x", version="", **given)
    return list(found.precheck.findings)


RETURNS = np.random.default_rng(12).normal(0.0008, 0.01, BARS)


def test_returns_made_elsewhere_are_not_checked_and_it_is_said() -> None:
    (finding,) = elsewhere(RETURNS)
    assert finding.name == "not_checked"
    assert "look ahead" in finding.message


ELSEWHERE: list[tuple[str, FloatArray, dict[str, Any], str]] = [
    ("zero_returns", np.where(np.arange(BARS) % 3 == 1, 0.0, RETURNS), {}, "after the first"),
    ("gate_trades_total", RETURNS, {"stats": {}}, "stats={'trades_total': ...}"),
    ("history_short", RETURNS[:900], {}, "give returns that start on 2019-09-22 or before"),
    ("variants_unknown", RETURNS, {"variants_tried": None}, "assumes 10"),
    ("metrics_undefined", np.where(np.arange(BARS) == 600, 0.1, 1e-9), {}, "sortino (no_loss)"),
]


@pytest.mark.parametrize(
    ("name", "values", "options", "says"), ELSEWHERE, ids=[case[0] for case in ELSEWHERE]
)
def test_returns_have_their_own_doubts(
    name: str, values: FloatArray, options: dict[str, Any], says: str
) -> None:
    finding, last = elsewhere(values, **options)
    assert (finding.name, last.name) == (name, "not_checked")
    assert says in str(finding)


def test_warm_up_is_no_stale_price() -> None:
    table = weights()
    table[:600] = 0
    assert names(examined(table)) == []
    assert [each.name for each in elsewhere(np.where(np.arange(BARS) < 600, 0.0, RETURNS))] == [
        "not_checked"
    ]


def test_a_gate_is_looked_at_by_the_policys_own_bars_a_year() -> None:
    asked = asking(periods_per_year=252.0, gates={"volatility": (0.5, None)})
    (finding,) = examined(**asked).precheck.findings
    found = examined()
    volatility = found.values.std(ddof=1) * np.sqrt(252)
    assert f"this has {volatility:.4g} at the policy's 252" in finding.message
    assert found.precheck.metrics["volatility"] != pytest.approx(volatility)


QUIET: list[tuple[str, FloatArray]] = [
    ("from little to all there is", np.linspace(0.1, 0.99, BARS)),
    ("a little more each quarter", np.linspace(1.2, 1.9, BARS)),
    ("up, and down, and up", 1.0 + 0.9 * np.sin(np.linspace(0, 12, BARS))),
    ("more in the end", np.where(np.arange(BARS) < 1_000, 0.4, 1.9)),
]


@pytest.mark.parametrize(("name", "gross"), QUIET, ids=[case[0] for case in QUIET])
def test_a_level_that_moves_is_no_growth_without_limit(name: str, gross: FloatArray) -> None:
    assert names(examined(weights() * gross[:, np.newaxis])) == []


def persistent(bars: int, rho: float, seed: int) -> FloatArray:
    """Returns of about that lag-1 autocorrelation."""
    noise = np.random.default_rng(seed).normal(0, 0.01, bars)
    found = np.empty(bars)
    found[0] = noise[0]
    for at in range(1, bars):
        found[at] = rho * found[at - 1] + noise[at]
    return found


def lag_1(values: FloatArray) -> float:
    centred = values - values.mean()
    return float(centred[1:] @ centred[:-1] / (centred @ centred))


@pytest.mark.parametrize(
    ("bars", "rho", "seed", "least", "most", "told"),
    [
        (1_200, 0.15, 1, 0.1, 0.2, False),
        (60, 0.35, 1, 0.2, 0.38, False),
        (60, 0.6, 3, 0.4, 1, True),
    ],
    ids=["many bars of a little", "few bars of much", "few bars of very much"],
)
def test_smooth_is_more_than_noise_and_more_than_a_little(
    bars: int, rho: float, seed: int, least: float, most: float, told: bool
) -> None:
    values = persistent(bars, rho, seed)
    assert least < lag_1(values) < most
    demands = replace(DEMANDS, window=timedelta(days=1), observations=2)
    found = {each.name for each in elsewhere(values, demands=demands)}
    assert ("smooth_returns" in found) is told


def test_leverage_of_just_what_is_allowed_is_none() -> None:
    thirds = np.repeat([[2 / 3, 4 / 3]], BARS, axis=0) * (1 + 1e-12)
    assert "leverage" not in names(examined(thirds))


def test_every_check_has_a_case() -> None:
    fired = {case[0] for case in (*ADVICE, *ELSEWHERE)} | {"not_checked"}
    known = set(re.findall(r'_advice\(\s*"(\w+)"', inspect.getsource(checks)))
    assert {name for name in fired if not name.startswith("gate_")} == known
    assert set(checks.LEAKS) <= {case[0] for case in STOPS}


# ---- Real strategies -------------------------------------------------------------------------


def test_no_honest_strategy_is_stopped_and_what_it_is_told_is_true() -> None:
    prices = us_large_caps().between(date(1995, 1, 1), date(2002, 12, 31))
    standard = Demands(
        policy_version=1,
        window=timedelta(days=730),
        observations=504,
        periods_per_year=252.0,
        gates={
            "sharpe_annual": (0.5, None),
            "max_drawdown": (None, 0.3),
            "trades_total": (30.0, None),
        },
        variants_assumed=10,
    )
    told: dict[str, set[str]] = {}
    for strategy in strategies(prices):
        options: dict[str, Any] = {"prices": prices, "engine": Engine(), "demands": standard}
        try:
            found = examined(strategy=strategy, **options)
        except StrategyRejected as error:
            told[name_of(strategy)] = {finding.name for finding in error.findings}
        else:
            told[name_of(strategy)] = set(names(found))
    assert told.pop("centred-average") == {"look_ahead"}
    assert told == {
        "equal-weight": {"gate_trades_total"},  # It buys 20 names once.
        "momentum-12-1": {"gate_max_drawdown"},
        "momentum-vol-target": set(),
        "low-volatility": set(),
        "moving-average-cross": set(),
        "yesterdays-losers": set(),
        "weekly-reversal": {"gate_max_drawdown"},
        "coin-flipper": {"gate_sharpe_annual"},
        "best-of-200": {"gate_max_drawdown"},
    }


def test_an_edge_that_went_is_told_from_its_costs() -> None:
    prices = us_large_caps().between(date(2004, 1, 1), date(2010, 12, 31))
    found = examined(strategy=YesterdaysLosers(), prices=prices, engine=Engine(), **gates())
    (finding,) = found.precheck.findings
    assert finding.name == "costs_exceed_edge"
    assert "15.4% a year before costs; costs of 5 bps take 18.0% a year" in finding.message
    assert "it breaks even at 4.3 bps" in finding.message
