"""The placebos are what they say: a bench that measures error rates rests on them."""

from collections.abc import Callable
from math import inf, isinf, sqrt

import numpy as np
import pytest

from qmtl.core.columns import Float
from qmtl.sim.returns.placebo import (
    CRASH,
    CRASH_EVERY,
    DAYS_PER_YEAR,
    LEAKY_SHARPE,
    REGIME_DAYS,
    REGIME_MEAN,
    RETURN_MAX,
    VOLATILITY,
    Null,
    best_of,
    decaying,
    families,
    leaky,
    null,
    skilled,
    truth,
)

DAYS, PATHS, SEED = 504, 1_000, 20
SE_MAX = 4.0  # One in 16,000 is further out by chance, and the seed is fixed.
Maker = Callable[[int, int, int], Float]

MAKERS: dict[str, Maker] = {
    **{
        kind.name: lambda days, paths, seed, kind=kind: null(kind, days, paths, seed)  # type: ignore[misc]  # A lambda of a loop binds its variable by a default.
        for kind in Null
    },
    "skilled": lambda days, paths, seed: skilled(1.5, days, paths, seed),
    "decaying": lambda days, paths, seed: decaying(2.0, -1.0, days // 2, days, paths, seed),
    "families": lambda days, paths, seed: families(0.6, 4, days, paths // 4, seed),
    "best of": lambda days, paths, seed: best_of(5, days, paths, seed),
    "leaky": leaky,
}


def off(of_each_path: Float, expected: float) -> float:
    """How far the mean of a statistic is from what it should be, in its standard errors."""
    error = of_each_path.std(ddof=1) / sqrt(len(of_each_path))
    return float((of_each_path.mean() - expected) / error)


@pytest.mark.parametrize("kind", Null)
def test_nulls_have_the_moments_they_say(kind: Null) -> None:
    z, is_ = null(kind, DAYS, PATHS, SEED) / VOLATILITY, truth(kind)
    assert (is_.mean, is_.deviation) == (0.0, VOLATILITY)
    assert abs(off(z.mean(axis=0), 0.0)) < SE_MAX
    assert abs(off((z**2).mean(axis=0), 1.0)) < SE_MAX
    assert abs(off((z[1:] * z[:-1]).mean(axis=0), is_.autocorrelation)) < SE_MAX
    if isinf(is_.kurtosis):  # Then no moment above the second has an error; the middle has.
        assert kind is Null.STUDENT
        quartile = 0.7407 * VOLATILITY / sqrt(2)  # Of a t of 4 degrees, 0.7407.
        inside = np.abs(null(kind, DAYS, PATHS, SEED)) < quartile
        assert abs(off(inside.mean(axis=0), 0.5)) < SE_MAX
        return
    assert abs(off((z**3).mean(axis=0), is_.skew)) < SE_MAX
    assert abs(off((z**4).mean(axis=0), is_.kurtosis)) < SE_MAX


def test_garch_clusters_for_months_and_its_variance_starts_where_it_stays() -> None:
    """Sizes, since products of squares have no variance of their own to judge them by."""
    z = null(Null.GARCH, DAYS, PATHS, SEED) / VOLATILITY
    size = np.abs(z) - np.abs(z).mean()
    for lag in (1, 20):
        assert off((size[lag:] * size[:-lag]).mean(axis=0), 0.0) > SE_MAX
    assert abs(off(z[0] ** 2, 1.0)) < SE_MAX


def test_regimes_last_and_pass() -> None:
    """Products of days far apart forget the noise, and show how long a regime lasts."""
    r = null(Null.REGIMES, DAYS, PATHS, SEED)
    for lag in (20, 126):
        expected = REGIME_MEAN**2 * (1 - 2 / REGIME_DAYS) ** lag
        assert abs(off((r[lag:] * r[:-lag]).mean(axis=0), expected)) < SE_MAX


def test_short_volatility_crashes_about_once_a_year() -> None:
    crashes = null(Null.SHORT_VOLATILITY, DAYS, PATHS, SEED) == -CRASH
    assert abs(off(crashes.mean(axis=0), 1 / CRASH_EVERY)) < SE_MAX


@pytest.mark.parametrize("sharpe", [1.0, 1.5, 2.0])
def test_skill_is_the_sharpe_ratio_that_was_asked_for(sharpe: float) -> None:
    r = skilled(sharpe, DAYS, PATHS, SEED)
    found = r.mean(axis=0) / VOLATILITY * sqrt(DAYS_PER_YEAR)
    assert abs(off(found, sharpe)) < SE_MAX
    assert abs(off((r - r.mean()).std(axis=0, ddof=1) ** 2, VOLATILITY**2)) < SE_MAX


def test_a_decaying_edge_is_there_until_its_day_and_not_from_then_on() -> None:
    r = decaying(2.0, -1.0, 252, DAYS, PATHS, SEED)
    annual = r / VOLATILITY * sqrt(DAYS_PER_YEAR)
    assert abs(off(annual[:252].mean(axis=0), 2.0)) < SE_MAX
    assert abs(off(annual[252:].mean(axis=0), -1.0)) < SE_MAX
    same = skilled(2.0, DAYS, PATHS, SEED)
    assert np.array_equal(r[:252], same[:252])
    assert np.all(r[252:] < same[252:])


def test_a_family_moves_together_and_families_do_not() -> None:
    size = 4
    z = families(0.6, size, DAYS, PATHS // size, SEED) / VOLATILITY
    within = (z[:, 0::size] * z[:, 1::size]).mean(axis=0)
    between = (z[:, 0:-size:size] * z[:, size::size]).mean(axis=0)
    assert abs(off(within, 0.6)) < SE_MAX
    assert abs(off(between, 0.0)) < SE_MAX
    assert abs(off((z**2).mean(axis=0), 1.0)) < SE_MAX


def test_the_best_of_many_looks_as_good_as_the_best_of_many_does() -> None:
    """E[max of 10 standard normals] = 1.5388 (Harter 1961)."""
    r = best_of(10, DAYS, PATHS, SEED)
    ratio = r.mean(axis=0) / r.std(axis=0) * sqrt(DAYS)
    assert abs(off(ratio, 1.5388)) < SE_MAX
    assert abs(off((r / VOLATILITY).std(axis=0), 1.0)) < SE_MAX


def test_a_leaky_backtest_is_superb() -> None:
    annual = leaky(DAYS, PATHS, SEED).mean(axis=0) / VOLATILITY * sqrt(DAYS_PER_YEAR)
    assert abs(off(annual, LEAKY_SHARPE)) < SE_MAX


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_is_its_bytes_whatever_else_is_asked_for(name: str) -> None:
    make = MAKERS[name]
    r = make(60, 40, 1)
    assert r.shape == (60, 40)
    assert r.dtype == np.float64
    assert make(60, 40, 1).tobytes() == r.tobytes()
    assert make(60, 8, 1).tobytes() == np.ascontiguousarray(r[:, :8]).tobytes()
    assert not np.any(make(60, 40, 2) == r) or name == Null.SHORT_VOLATILITY.name
    assert len(np.unique(r)) > r.size - CRASH_EVERY  # No path is another's again.
    assert np.all(np.abs(r) <= RETURN_MAX)


def test_kinds_share_no_chance() -> None:
    one = null(Null.NORMAL, DAYS, PATHS, SEED)
    other = skilled(0.0, DAYS, PATHS, SEED)
    assert abs(off((one * other).mean(axis=0) / VOLATILITY**2, 0.0)) < SE_MAX
    assert truth(Null.STUDENT).kurtosis == inf
