"""Metrics: hand-computed tables, the facts that hold for any series, and two oracles."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import empyrical
import numpy as np
import pytest
from empyrical.stats import drawdown_series
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from qmtl.core.metrics import UNITS, Measure, Undefined, performance

U = Undefined
Series = NDArray[np.float64]

ORDER_FREE = set(UNITS) - {"max_drawdown", "calmar", "cagr", "time_under_water_ratio"}
SCALE_FREE = ("sharpe_annual", "sortino", "skew", "kurtosis", "gain_to_pain")
SCALED = ("volatility", "var_p01", "es_p01")


def series(*returns: float) -> Series:
    return np.array(returns, dtype=np.float64)


def value(measure: Measure) -> float:
    assert not isinstance(measure, Undefined), measure
    return measure


def check(found: dict[str, Measure], expected: dict[str, Measure]) -> None:
    for name, measure in expected.items():
        if isinstance(measure, Undefined):
            assert found[name] is measure, name
        else:
            slack = 1e-15 if measure == 0.0 else 0.0
            assert found[name] == pytest.approx(measure, rel=1e-13, abs=slack), name


# --- Tables: worked by hand, every metric of each series. ---

WORKED: list[tuple[str, Series, float, dict[str, Measure]]] = [
    # Equity .5, .75, .9: under water from the first bar to the last. Deviations in units of 1/30:
    # -17, 13, 4, so m2 = 158, m3 = -884, m4 = 37446. Quantile at (3-1)/100: -.5 + .02 * .7.
    (
        "a loss on the first bar",
        series(-0.5, 0.5, 0.2),
        12.0,
        {
            "sharpe_annual": 4 / math.sqrt(79),
            "volatility": math.sqrt(3.16),
            "sortino": 0.8,
            "max_drawdown": 0.5,
            "calmar": -0.6878,
            "cagr": -0.3439,
            "skew": -884 / 158**1.5,
            "kurtosis": 1.5,
            "var_p01": 0.486,
            "es_p01": 0.5,
            "max_bar_loss": 0.5,
            "gain_to_pain": 0.4,
            "time_under_water_ratio": 1.0,
            "effective_history_years": 0.25,
            "observations": 3.0,
        },
    ),
    # Equity 1.1, .99, 1.188, .9504: peaks 1.1 and 1.188, one bar under each, falls .1 and .2.
    (
        "two peaks, no mean",
        series(0.1, -0.1, 0.2, -0.2),
        4.0,
        {
            "sharpe_annual": 0.0,
            "volatility": 2 * math.sqrt(0.1 / 3),
            "sortino": 0.0,
            "max_drawdown": 0.2,
            "calmar": -0.248,
            "cagr": -0.0496,
            "skew": 0.0,
            "kurtosis": 1.36,
            "var_p01": 0.197,
            "es_p01": 0.2,
            "max_bar_loss": 0.2,
            "gain_to_pain": 0.0,
            "time_under_water_ratio": 0.5,
            "effective_history_years": 1.0,
            "observations": 4.0,
        },
    ),
    (
        "one gain",
        series(0.25),
        1.0,
        {
            "sharpe_annual": U.TOO_SHORT,
            "volatility": U.TOO_SHORT,
            "sortino": U.TOO_SHORT,
            "max_drawdown": 0.0,
            "calmar": U.NO_DRAWDOWN,
            "cagr": 0.25,
            "skew": U.TOO_SHORT,
            "kurtosis": U.TOO_SHORT,
            "var_p01": -0.25,
            "es_p01": -0.25,
            "max_bar_loss": 0.0,
            "gain_to_pain": U.NO_LOSS,
            "time_under_water_ratio": 0.0,
            "effective_history_years": 1.0,
            "observations": 1.0,
        },
    ),
    (
        "one loss",
        series(-0.25),
        2.0,
        {
            "sharpe_annual": U.TOO_SHORT,
            "volatility": U.TOO_SHORT,
            "sortino": U.TOO_SHORT,
            "max_drawdown": 0.25,
            "calmar": -0.4375 / 0.25,
            "cagr": -0.4375,
            "skew": U.TOO_SHORT,
            "kurtosis": U.TOO_SHORT,
            "var_p01": 0.25,
            "es_p01": 0.25,
            "max_bar_loss": 0.25,
            "gain_to_pain": -1.0,
            "time_under_water_ratio": 1.0,
            "effective_history_years": 0.5,
            "observations": 1.0,
        },
    ),
    # Ruin on the second bar of three; the third can't bring it back, whatever the mean says.
    # Deviations from 1/6 in units of 1/6: 2, -7, 5, so the sample variance is 78/2/36.
    (
        "ruin",
        series(0.5, -1.0, 1.0),
        3.0,
        {
            "sharpe_annual": U.RUINED,
            "volatility": math.sqrt(3 * 39 / 36),
            "sortino": U.RUINED,
            "max_drawdown": 1.0,
            "calmar": -1.0,
            "cagr": -1.0,
            "skew": ((8 - 343 + 125) / 3) / 26**1.5,
            "kurtosis": 1.5,
            "var_p01": 1.0 - 0.02 * 1.5,
            "es_p01": 1.0,
            "max_bar_loss": 1.0,
            "gain_to_pain": U.RUINED,
            "time_under_water_ratio": 2 / 3,
            "effective_history_years": 1.0,
            "observations": 3.0,
        },
    ),
    (
        "nothing",
        series(),
        252.0,
        {**dict.fromkeys(UNITS, U.EMPTY), "effective_history_years": 0.0, "observations": 0.0},
    ),
]


@pytest.mark.parametrize(("returns", "per_year", "expected"), [w[1:] for w in WORKED],
                         ids=[w[0] for w in WORKED])  # fmt: skip
def test_worked_by_hand(returns: Series, per_year: float, expected: dict[str, Measure]) -> None:
    assert set(expected) == set(UNITS)
    check(performance(returns, per_year), expected)


BROKEN: list[tuple[str, Series, dict[str, Measure]]] = [
    ("NaN", series(0.1, math.nan, -0.1), dict.fromkeys(UNITS, U.NOT_FINITE)),
    ("infinity", series(0.1, math.inf), dict.fromkeys(UNITS, U.NOT_FINITE)),
    ("minus infinity", series(-math.inf, 0.1), dict.fromkeys(UNITS, U.NOT_FINITE)),
    (
        "all zero",
        np.zeros(252),
        {
            "sharpe_annual": U.CONSTANT,
            "volatility": U.CONSTANT,
            "sortino": U.NO_LOSS,
            "max_drawdown": 0.0,
            "calmar": U.NO_DRAWDOWN,
            "cagr": 0.0,
            "skew": U.CONSTANT,
            "kurtosis": U.CONSTANT,
            "var_p01": 0.0,
            "es_p01": 0.0,
            "max_bar_loss": 0.0,
            "gain_to_pain": U.NO_LOSS,
            "time_under_water_ratio": 0.0,
        },
    ),
    # sd over scale is about 1e-16 here: rounding, out of which a ratio would make 1e16.
    (
        "constant but for rounding",
        np.tile(series(0.1 + 0.2, 0.3), 126),
        {"sharpe_annual": U.CONSTANT, "volatility": U.CONSTANT, "skew": U.CONSTANT,
         "kurtosis": U.CONSTANT,
         "sortino": U.NO_LOSS, "gain_to_pain": U.NO_LOSS, "calmar": U.NO_DRAWDOWN},
    ),
    # Powers of two: 1 +- 2^-30 is exact, and so is all that follows from it.
    (
        "a small spread is a spread",
        series(2.0**-30, -(2.0**-30)) + 1.0,
        {"sharpe_annual": 2.0**30 / math.sqrt(2) * 4, "volatility": math.sqrt(2) / 2**30 * 4,
         "skew": 0.0, "kurtosis": 1.0},
    ),
    # Nothing but losses: no spread, but a downside, so these ratios are finite and small.
    (
        "constant loss",
        np.full(16, -0.01),
        {"sharpe_annual": U.CONSTANT, "volatility": U.CONSTANT, "sortino": -math.sqrt(16.0),
         "gain_to_pain": -1.0, "cagr": 0.99**16 - 1, "max_drawdown": 1 - 0.99**16, "calmar": -1.0},
    ),
    # One real loss too small to tell from rounding must not make a ratio of 1e15.
    (
        "a loss below rounding",
        series(0.01, 0.02, -1e-17, 0.01),
        {"sortino": U.NO_LOSS, "gain_to_pain": U.NO_LOSS, "calmar": U.NO_DRAWDOWN,
         "max_drawdown": 0.0, "time_under_water_ratio": 0.0},
    ),
    (
        "a small loss is a loss",
        series(-1e-9, 0.01, 0.02, 0.01),
        {"gain_to_pain": 0.039999999 / 1e-9, "max_drawdown": 1e-9, "time_under_water_ratio": 0.25},
    ),
    (
        "worse than everything, at once",
        series(-3.0, 5.0),
        {"sharpe_annual": U.RUINED, "sortino": U.RUINED, "gain_to_pain": U.RUINED, "cagr": -1.0,
         "calmar": -1.0, "max_drawdown": 1.0, "time_under_water_ratio": 1.0, "es_p01": 3.0,
         "max_bar_loss": 3.0},
    ),
    # One bar: ruin says more than the lack of a second bar.
    ("ruin in one bar", series(-1.0), {"sharpe_annual": U.RUINED, "sortino": U.RUINED,
                                       "volatility": U.TOO_SHORT, "gain_to_pain": U.RUINED}),
    # Almost nothing left, and all of it earned back: not ruin.
    (
        "a hair from ruin",
        series(-1.0 + 2**-20, 2.0**20 - 1.0),
        {"max_drawdown": 1.0 - 2**-20, "cagr": 0.0, "time_under_water_ratio": 0.5},
    ),
    (
        "recovered exactly is not under water",
        series(-0.2, 0.25, -0.5, 1.0, 0.1, -1 / 11, 0.1),
        {"time_under_water_ratio": 3 / 7, "max_drawdown": 0.5},
    ),
    ("growth beyond float64", series(1e300, -0.5), {"cagr": U.OVERFLOW, "calmar": U.OVERFLOW}),
    (
        "ratio beyond float64",
        series(math.exp(88.5), -0.001),
        {"cagr": math.expm1(8 * (math.log1p(math.exp(88.5)) + math.log1p(-0.001))),
         "calmar": U.OVERFLOW},
    ),
    ("spread beyond float64", series(1e308, 1.0), {"volatility": U.OVERFLOW}),
    # Equity of 1e-400 is no float64; its logarithm is.
    (
        "equity below float64",
        np.full(200, -0.99),
        {"cagr": -1.0, "calmar": -1.0, "max_drawdown": 1.0, "gain_to_pain": -1.0},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("returns", "expected"), [b[1:] for b in BROKEN],
                         ids=[b[0] for b in BROKEN])  # fmt: skip
def test_one_broken_thing(returns: Series, expected: dict[str, Measure]) -> None:
    check(performance(returns, 16.0), expected)


@pytest.mark.parametrize("constant", [np.tile(series(0.1 + 0.2, 0.3), 126), np.full(252, 0.1)])
def test_a_constant_has_no_volatility_to_speak_of(constant: Series) -> None:
    assert performance(constant, 252.0)["volatility"] is U.CONSTANT


def test_every_reason_has_a_case() -> None:
    expectations = [w[3] for w in WORKED] + [b[2] for b in BROKEN]
    seen = {m for expected in expectations for m in expected.values()}
    assert {m for m in seen if isinstance(m, Undefined)} == set(Undefined)


def test_each_end_of_float64() -> None:
    tiny, huge = series(1e-300, -2e-300, 3e-300), series(1e290, -2e-1, 3e290)
    for returns in (tiny, huge):
        expected = empyrical.sharpe_ratio(returns / np.abs(returns).max(), annualization=252)
        assert performance(returns, 252.0)["sharpe_annual"] == pytest.approx(expected, rel=1e-12)
    assert performance(tiny, 1.0)["es_p01"] == 2e-300
    assert performance(series(5e-324, -5e-324), 1.0)["es_p01"] == 5e-324


TAILS = [
    # Returns are -1, -2, ..., -n thousandths, shuffled. Place (n-1)/100 in the sorted series.
    (2, 1.99, 2.0),
    (100, 99.01, 100.0),  # Place .99: one bar at or below it.
    (101, 100.0, 100.5),  # Place 1 exactly: the quantile is the second worst bar, and is counted.
    (151, 149.5, 150.5),
    (252, 249.49, 251.0),
    (501, 496.0, 498.5),
]


@pytest.mark.parametrize(("n", "var", "shortfall"), TAILS)
def test_tail(n: int, var: float, shortfall: float) -> None:
    returns = np.random.default_rng(n).permutation(-np.arange(1, n + 1) / 1000.0)
    found = performance(returns, 252.0)
    assert found["var_p01"] == pytest.approx(var / 1000, rel=1e-12)
    assert found["var_p01"] == pytest.approx(-np.percentile(returns, 1.0), rel=1e-12)
    assert found["es_p01"] == pytest.approx(shortfall / 1000, rel=1e-12)


def test_tail_takes_every_return_tied_with_the_quantile() -> None:
    returns = np.concatenate([[-0.5], np.full(9, -0.1), np.full(200, 0.01)])
    found = performance(returns, 252.0)
    assert found["var_p01"] == pytest.approx(0.1)
    assert found["es_p01"] == pytest.approx((0.5 + 9 * 0.1) / 10)


def test_names_order_and_types() -> None:
    for returns in (series(), series(0.1), series(0.1, math.nan), series(0.1, -0.2), series(-2.0)):
        found = performance(returns, 252.0)
        assert list(found) == list(UNITS)
        assert {type(m) for m in found.values()} <= {float, Undefined}
    assert all(UNITS.values())


@pytest.mark.parametrize("per_year", [0.0, -252.0, math.nan, math.inf])
def test_periods_per_year_is_the_callers_bug(per_year: float) -> None:
    with pytest.raises(AssertionError, match="periods_per_year"):
        performance(series(0.1, -0.1), per_year)


@pytest.mark.parametrize("returns", [np.zeros((2, 2)), np.zeros(2, np.float32), np.zeros(2, int)])
def test_shape_and_dtype_are_the_callers_bug(returns: Series) -> None:
    with pytest.raises(AssertionError, match="returns"):
        performance(returns, 252.0)


# --- Facts: what holds for any series. ---

EXTREME = [0.0, -0.0, 5e-324, -5e-324, 1e-300, -1e-300, 1e-17, -1e-17, 1e-13, -1e-13, 0.01, -0.01,
           1.0, -1.0, math.nextafter(-1.0, 0.0), math.nextafter(-1.0, -2.0), -2.0, 1e15, 1e300,
           -1e300, 1.7976931348623157e308, -1.7976931348623157e308]  # fmt: skip

wild = st.one_of(
    st.lists(st.sampled_from(EXTREME) | st.floats(allow_nan=False, allow_infinity=False)),
    st.lists(st.sampled_from(EXTREME), max_size=12).map(lambda r: r * 25),
    st.lists(st.floats(-0.1, 0.1)),
).map(lambda r: np.array(r, dtype=np.float64))

per_years = st.sampled_from([1e-308, 0.1, 1.0, 12.0, 252.0, 31557600.0, 1.7e308])

# Basis points: sums and halves of them stay clear of subnormals, and examples shrink to read.
sane = st.lists(st.integers(-4000, 5000), min_size=2, max_size=60).map(
    lambda points: np.array(points, dtype=np.float64) / 1e4
)


@given(wild, per_years)
@example(np.full(300, 1e300), 252.0)
@example(np.full(300, -0.999), 252.0)
@example(-np.zeros(300), 252.0)
@example(series(1e-300, 1e300), 252.0)
def test_no_result_is_nan_or_infinite(returns: Series, per_year: float) -> None:
    before = returns.tobytes()
    with np.errstate(all="raise", under="ignore"):
        found = performance(returns, per_year)
    assert returns.tobytes() == before
    assert list(found) == list(UNITS)
    for name, measure in found.items():
        assert isinstance(measure, Undefined) or math.isfinite(measure), name
        assert str(measure) != "-0.0", name


@given(wild)
def test_bounds(returns: Series) -> None:
    n = returns.size
    found = {k: v for k, v in performance(returns, 252.0).items() if not isinstance(v, Undefined)}
    bounds = {
        # No ratio is made of rounding: numerator at most 1, denominator at least 1e-12, of scale.
        "sharpe_annual": (-2e13, 2e13),
        "sortino": (-2e13, 2e13),
        "gain_to_pain": (-1.0, 2e12),
        "volatility": (0.0, math.inf),
        "max_drawdown": (0.0, 1.0),
        "time_under_water_ratio": (0.0, 1.0),
        "cagr": (-1.0, math.inf),
        "skew": (-math.sqrt(n), math.sqrt(n)),
        "kurtosis": (1.0, n),
        "observations": (n, n),
        "effective_history_years": (n / 252.0, n / 252.0),
    }
    for name, (low, high) in bounds.items():
        if name in found:
            slack = 1e-9 * abs(found[name])
            assert low - slack <= found[name] <= high + slack, name
    if "es_p01" in found:
        assert found["es_p01"] >= found["var_p01"] - 1e-12 * abs(found["var_p01"])
    if "kurtosis" in found:  # Pearson's inequality.
        assert found["kurtosis"] >= 1 + found["skew"] ** 2 - 1e-9 * n


@given(wild.filter(len))
def test_no_drawdown_is_no_water_is_no_calmar(returns: Series) -> None:
    found = performance(returns, 252.0)
    dry = found["max_drawdown"] == 0.0
    assert dry == (found["time_under_water_ratio"] == 0.0)
    assert dry == (found["calmar"] is U.NO_DRAWDOWN)


@given(wild.filter(len))
def test_ruin_pays_no_reward(returns: Series) -> None:
    found = performance(returns, 252.0)
    ruined = bool((returns <= -1.0).any())
    for name in ("sharpe_annual", "sortino", "gain_to_pain"):
        assert (found[name] is U.RUINED) == ruined
    if ruined:
        assert (found["cagr"], found["calmar"], found["max_drawdown"]) == (-1.0, -1.0, 1.0)


@given(wild, st.randoms(use_true_random=False))
def test_order_of_bars_changes_only_the_path(returns: Series, random: Random) -> None:
    bars = returns.tolist()
    random.shuffle(bars)
    shuffled = series(*bars)
    found, again = performance(returns, 252.0), performance(shuffled, 252.0)
    for name in ORDER_FREE:
        assert found[name] == again[name], name


@given(sane)
def test_half_the_stake(returns: Series) -> None:
    found, half = performance(returns, 252.0), performance(returns / 2, 252.0)
    for name in SCALE_FREE:
        assert half[name] == found[name], name
    for name in SCALED:
        whole = found[name]
        assert half[name] == (whole if isinstance(whole, Undefined) else whole / 2), name


@given(sane)
def test_the_other_side_of_the_trade(returns: Series) -> None:
    found, other = performance(returns, 252.0), performance(-returns, 252.0)
    for name, sign in (("sharpe_annual", -1), ("volatility", 1), ("skew", -1), ("kurtosis", 1)):
        if isinstance(found[name], Undefined):
            assert other[name] is found[name], name
        else:
            assert other[name] == pytest.approx(sign * value(found[name]), rel=1e-12, abs=1e-12)


@given(sane)
def test_four_times_the_bars_a_year(returns: Series) -> None:
    slow, fast = performance(returns, 1.0), performance(returns, 4.0)
    for name in ("sharpe_annual", "sortino", "volatility"):
        if not isinstance(slow[name], Undefined):
            assert fast[name] == pytest.approx(2 * value(slow[name]), rel=1e-14), name
    for name in ("max_drawdown", "skew", "var_p01", "gain_to_pain", "time_under_water_ratio"):
        assert fast[name] == slow[name], name
    assert math.log1p(value(fast["cagr"])) == pytest.approx(4 * math.log1p(value(slow["cagr"])))


@given(sane, st.integers(2, 5))
def test_the_same_again(returns: Series, times: int) -> None:
    """Population moments don't see a repetition; the sample deviation sees its divisor only."""
    n = returns.size
    once, again = performance(returns, 252.0), performance(np.tile(returns, times), 252.0)
    for name in ("skew", "kurtosis", "sortino", "gain_to_pain"):
        measure = once[name]
        tolerant = measure if isinstance(measure, Undefined) else pytest.approx(measure, abs=1e-9)
        assert again[name] == tolerant, name
    assert again["observations"] == times * n
    shrink = math.sqrt((n - 1) * times / (times * n - 1))
    if once["volatility"] is U.CONSTANT:
        assert again["volatility"] is U.CONSTANT
    else:
        expected = value(once["volatility"]) * shrink
        assert again["volatility"] == pytest.approx(expected, abs=1e-12)


@given(sane, sane)
def test_one_after_the_other(first: Series, second: Series) -> None:
    # One bar a year: annualised, a bad month is -1 to the last digit and its logarithm is lost.
    a, b = performance(first, 1.0), performance(second, 1.0)
    both = performance(np.concatenate([first, second]), 1.0)
    logs = [value(m["observations"]) * math.log1p(value(m["cagr"])) for m in (a, b, both)]
    assert logs[2] == pytest.approx(logs[0] + logs[1], rel=1e-9, abs=1e-9)
    for name in ("observations", "effective_history_years"):
        assert both[name] == pytest.approx(value(a[name]) + value(b[name]))
    falls = [value(m["max_drawdown"]) for m in (a, b, both)]
    assert max(falls[0], falls[1]) - 1e-12 <= falls[2]
    assert falls[2] <= 1 - (1 - falls[0]) * (1 - falls[1]) + 1e-12
    worst = max(value(a["es_p01"]), value(b["es_p01"]))
    assert value(both["es_p01"]) <= worst + 1e-12


@given(sane, st.integers(1, 20))
def test_idle_bars_hide_no_drawdown(returns: Series, idle: int) -> None:
    found = performance(returns, 252.0)
    longer = performance(np.concatenate([np.zeros(idle), returns, np.zeros(idle)]), 252.0)
    assert longer["max_drawdown"] == found["max_drawdown"]
    assert longer["gain_to_pain"] == pytest.approx(found["gain_to_pain"], abs=1e-12) or (
        longer["gain_to_pain"] is found["gain_to_pain"]
    )


def test_path_against_a_loop() -> None:
    """The plain way: compound, remember the peak, count."""
    for seed in range(20):
        returns = np.random.default_rng(seed).normal(0.0, 0.02, 300)
        equity, peak, deepest, under = 1.0, 1.0, 0.0, 0
        for r in returns.tolist():
            equity *= 1.0 + r
            peak = max(peak, equity)
            deepest = max(deepest, 1.0 - equity / peak)
            under += equity < peak
        found = performance(returns, 252.0)
        assert found["max_drawdown"] == pytest.approx(deepest, rel=1e-12)
        assert found["time_under_water_ratio"] == under / 300
        assert found["cagr"] == pytest.approx(equity ** (252 / 300) - 1, rel=1e-12)


def test_a_long_series() -> None:
    returns = np.random.default_rng(3).normal(0.001, 0.01, 1_000_000)
    found = performance(returns, 252.0)
    assert found["skew"] == pytest.approx(0.0, abs=0.02)
    assert found["kurtosis"] == pytest.approx(3.0, abs=0.02)
    assert found["var_p01"] == pytest.approx(0.01 * 2.3263 - 0.001, rel=0.01)
    assert found["es_p01"] == pytest.approx(0.01 * 2.6652 - 0.001, rel=0.01)
    assert found["sharpe_annual"] == pytest.approx(0.1 * math.sqrt(252), rel=0.05)
    # E = sd^2/mean (.635 + ln(n)/2 + ln(mean/sd)) = .52 of log equity (Magdon-Ismail et al. 2004).
    assert found["max_drawdown"] == pytest.approx(1 - math.exp(-0.52), abs=0.1)


# --- Oracles: empyrical-reloaded, and scipy for the moments. ---


def _normal(n: int) -> Series:
    return np.random.default_rng(n).normal(0.0006, 0.011, n)


ORACLE_SERIES = {
    "a month": _normal(21),
    "a year": _normal(252),
    "ten years": _normal(2520),
    "fat tails": np.clip(np.random.default_rng(5).standard_t(3, 1000) * 0.01, -0.9, None),
    "a loss on the first bar": np.concatenate([[-0.3], np.abs(_normal(250))]),
    "few trades": np.where(np.random.default_rng(6).random(504) < 0.8, 0.0, _normal(504)),
    "a loser": _normal(756) - 0.004,
}


@pytest.mark.parametrize("per_year", [52.0, 252.0, 365.25])
@pytest.mark.parametrize("name", ORACLE_SERIES)
def test_agrees_with_empyrical(name: str, per_year: float) -> None:
    """Same definition, agreement to 1e-12; every function of empyrical that has a counterpart here.

    Left out: `tail_ratio`, `stability_of_timeseries` and everything against a factor (no
    counterpart). `drawdown_series` and `omega_ratio` stand in for time under water and gain to
    pain, which empyrical lacks. `annual_return` is `cagr`. Where the two differ on purpose is the
    next tests. Bars a year start at 52: below, `cagr` there loses digits as x**(1/years) - 1.
    """
    r = ORACLE_SERIES[name]
    expected = {
        "sharpe_annual": empyrical.sharpe_ratio(r, annualization=per_year),
        "volatility": empyrical.annual_volatility(r, annualization=per_year),
        "sortino": empyrical.sortino_ratio(r, annualization=per_year),
        "max_drawdown": -empyrical.max_drawdown(r),
        "calmar": empyrical.calmar_ratio(r, annualization=per_year),
        "cagr": empyrical.cagr(r, annualization=per_year),
        "skew": stats.skew(r),
        "kurtosis": stats.kurtosis(r, fisher=False),
        "var_p01": -empyrical.value_at_risk(r, 0.01),
        "es_p01": -empyrical.conditional_value_at_risk(r, 0.01),
        "time_under_water_ratio": np.mean(drawdown_series(r) < -1e-12),
    }
    found = performance(r, per_year)
    for metric, oracle in expected.items():
        assert found[metric] == pytest.approx(float(oracle), rel=1e-12, abs=0.0), metric
    omega = empyrical.omega_ratio(r, annualization=1)  # Gains over pain, so one more.
    assert value(found["gain_to_pain"]) + 1 == pytest.approx(omega, rel=1e-12, abs=0.0)


DIFFERENCES = [
    ("infinite: no spread", "sharpe_annual", np.full(9, 0.01), U.CONSTANT, empyrical.sharpe_ratio),
    ("infinite: no downside", "sortino", series(0.01, 0.02), U.NO_LOSS, empyrical.sortino_ratio),
    ("NaN: no drawdown", "calmar", series(0.01, 0.02), U.NO_DRAWDOWN, empyrical.calmar_ratio),
    ("NaN: too short", "volatility", series(0.01), U.TOO_SHORT, empyrical.annual_volatility),
    ("NaN: empty", "max_drawdown", series(), U.EMPTY, empyrical.max_drawdown),
]


@pytest.mark.parametrize(("metric", "returns", "expected", "oracle"), [d[1:] for d in DIFFERENCES],
                         ids=[d[0] for d in DIFFERENCES])  # fmt: skip
def test_names_what_empyrical_leaves_infinite_or_nan(
    metric: str, returns: Series, expected: Undefined, oracle: Callable[[Series], float]
) -> None:
    assert not math.isfinite(oracle(returns))
    assert performance(returns, 252.0)[metric] is expected


def test_differs_from_empyrical_on_purpose() -> None:
    # A missing return is dropped there, and refused here.
    holed = series(0.01, math.nan, -0.02, 0.03)
    assert math.isfinite(empyrical.sharpe_ratio(holed))
    assert performance(holed, 252.0)["sharpe_annual"] is U.NOT_FINITE
    # Equity goes below zero and a second such loss makes it a fortune there; here it stays lost.
    twice = series(-3.0, -3.0)
    assert empyrical.cagr(twice, annualization=2) == pytest.approx(3.0)
    assert performance(twice, 2.0)["cagr"] == -1.0
    # Ties at the quantile: the tail there is the worst int((n-1)/100)+1 bars, here all tied ones.
    tied = np.concatenate([[-0.5], np.full(9, -0.1), np.full(200, 0.01)])
    assert empyrical.conditional_value_at_risk(tied, 0.01) == pytest.approx(-0.7 / 3)
    assert performance(tied, 252.0)["es_p01"] == pytest.approx(1.4 / 10)
