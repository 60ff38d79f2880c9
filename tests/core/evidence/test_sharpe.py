"""The numbers that the literature gives, and what must hold of any."""

import math

import jsharpe
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qmtl.core.evidence import sharpe
from qmtl.core.evidence.normal import phi
from qmtl.core.evidence.sharpe import Moments

FUND = Moments(count=24, sharpe=0.036 / 0.079, skew=-2.448, kurtosis=10.164)  # B12's example.
NORMAL = Moments(count=24, sharpe=0.036 / 0.079)
DEFLATED = Moments(count=1250, sharpe=2.5 / math.sqrt(250), skew=-3.0, kurtosis=10.0)  # B14's.


def test_the_deviation_of_a_sharpe_ratio() -> None:
    """B12 divides by T-1, L25 by T: both are .329 and .214 to three digits of the latter."""
    assert math.sqrt(sharpe.sharpe_variance(FUND, FUND.sharpe)) == pytest.approx(0.329, abs=5e-4)
    assert math.sqrt(sharpe.sharpe_variance(NORMAL, NORMAL.sharpe)) == pytest.approx(
        0.214, abs=5e-4
    )


def test_psr() -> None:
    assert sharpe.psr(FUND) == pytest.approx(0.913, abs=5e-4)
    assert sharpe.psr_at_null(FUND) == pytest.approx(0.987, abs=5e-4)
    assert sharpe.psr_at_null(FUND, 0.1) == pytest.approx(0.939, abs=5e-4)


def test_min_trl_with_the_variance_at_the_null() -> None:
    assert sharpe.min_trl(FUND, 0.0, 0.05, plus_one=False) == pytest.approx(13.029, abs=5e-4)


@pytest.mark.parametrize(
    ("periods", "skew", "kurtosis", "years"),
    [(252, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_min_trl_of_two_against_one_a_year(
    periods: int, skew: float, kurtosis: float, years: float
) -> None:
    seen = Moments(100, 2 / math.sqrt(periods), skew, kurtosis)
    needed = sharpe.min_trl(seen, 1 / math.sqrt(periods), 0.05)
    assert needed / periods == pytest.approx(years, abs=5e-3)


@pytest.mark.parametrize("seen", [0.1, 0.1 - 1e-9])
def test_what_is_not_above_it_is_never_told_from_it(seen: float) -> None:
    assert sharpe.min_trl(Moments(100, seen), 0.1, 0.05) == math.inf


@pytest.mark.parametrize(("trials", "dsr"), [(100, 0.9004), (46, 0.9505)])
def test_dsr(trials: int, dsr: float) -> None:
    assert sharpe.dsr(DEFLATED, 0.5 / 250, trials) == pytest.approx(dsr, abs=5e-5)


def test_one_trial_deflates_nothing() -> None:
    assert sharpe.dsr(DEFLATED, 0.5 / 250, 1) == sharpe.psr(DEFLATED)


def test_min_btl() -> None:
    assert sharpe.min_btl_years(45, 1.0) == pytest.approx(5.0, abs=5e-3)
    assert sharpe.min_btl_years(45, 2.0) == pytest.approx(1.25, abs=2e-3)


def test_the_variance_takes_autocorrelation_into_account() -> None:
    """L25: at a null of 0, normal returns, the factor is (1+p)/(1-p)."""
    for p in (-0.3, 0.0, 0.1, 0.5):
        seen = Moments(100, 0.1, autocorrelation=p)
        assert sharpe.sharpe_variance(seen, 0.0) == pytest.approx((1 + p) / (1 - p) / 100)


def test_the_variance_at_another_null() -> None:
    """L25's b and c, by hand at p = 1/2: b = 1 + 1 + 1/3, c = 1 + 2/3."""
    seen = Moments(60, 0.3, skew=-1.0, kurtosis=7.0, autocorrelation=0.5)
    by_hand = (3 + (7 / 3) * 0.2 + (5 / 3) * 6 / 4 * 0.04) / 60
    assert sharpe.sharpe_variance(seen, 0.2) == pytest.approx(by_hand)


def test_what_rounding_makes_of_perfect_autocorrelation_is_bounded() -> None:
    for p in (-1.0, 1.0):
        variance = sharpe.sharpe_variance(Moments(10, 0.1, autocorrelation=p), 0.0)
        assert 0.0 < variance == pytest.approx((1 + 0.99 * p) / (1 - 0.99 * p) / 10)


def test_moments_are_those_of_scipy() -> None:
    r = np.random.default_rng(1).standard_t(4, 500) * 0.01 + 0.001
    found = sharpe.moments(r)
    assert found is not None
    assert found.count == 500
    assert found.sharpe == pytest.approx(r.mean() / r.std(ddof=1), rel=1e-12)
    assert found.skew == pytest.approx(float(stats.skew(r)), rel=1e-12)
    assert found.kurtosis == pytest.approx(float(stats.kurtosis(r, fisher=False)), rel=1e-12)
    apart = r - r.mean()
    assert found.autocorrelation == pytest.approx(float(apart[1:] @ apart[:-1] / (apart @ apart)))


@pytest.mark.parametrize(
    "returns",
    [[], [0.01], [0.01, 0.02], [0.01] * 30, [0.0] * 30, [0.01, math.nan, 0.02], [0.1, math.inf, 0]],
)
def test_what_has_no_sharpe_ratio_has_no_p(returns: list[float]) -> None:
    assert sharpe.moments(np.array(returns)) is None
    assert math.isnan(sharpe.selection_p(np.array(returns), 1))


def test_three_returns_are_the_fewest() -> None:
    assert sharpe.moments(np.array([0.01, 0.02, -0.01])) is not None


def test_the_selection_test_is_sidaks() -> None:
    r = np.random.default_rng(2).normal(0.0005, 0.01, 504)
    one = sharpe.selection_p(r, 1)
    seen = sharpe.moments(r)
    assert seen is not None
    assert one == pytest.approx(1 - sharpe.psr_at_null(seen))
    assert sharpe.selection_p(r, 10) == pytest.approx(1 - (1 - one) ** 10)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_more_trials_never_look_better(a: int, b: int) -> None:
    r = np.random.default_rng(3).normal(0.001, 0.01, 300)
    low, high = sorted((a, b))
    assert sharpe.selection_p(r, low) <= sharpe.selection_p(r, high) <= 1.0


def test_a_hopeless_backtest_is_not_worse_than_certain() -> None:
    r = np.random.default_rng(4).normal(-0.1, 0.001, 300)
    assert sharpe.selection_p(r, 5) == 1.0


@pytest.mark.parametrize(
    ("p", "cap", "credit"),
    [
        (0.01, 1.0, 1.0),  # No credit by default.
        (0.01, 3.0, 3.0),  # .5/sqrt(.01) = 5, capped.
        (0.01, 2.0, 2.0),
        (0.04, 3.0, 2.5),
        (0.25, 3.0, 1.0),
        (1.0, 3.0, 0.5),  # A poor backtest takes away.
        (0.0, 3.0, 3.0),
        (0.01, 100.0, 3.0),  # Whatever the policy says.
        (math.nan, 3.0, 1.0),
        (1.0, 1.0, 1.0),  # Nor does no credit take away.
        (1.5, 3.0, 1.0),  # No probability.
        (-0.1, 3.0, 1.0),
    ],
)
def test_credit(p: float, cap: float, credit: float) -> None:
    assert sharpe.credit(p, cap) == pytest.approx(credit)


# ---- Oracle: jsharpe ---------------------------------------------------------------------------

OBSERVED = [
    Moments(24, 0.4557, -2.448, 10.164, 0.0),
    Moments(504, 0.08, 0.0, 3.0, 0.0),
    Moments(504, 0.08, -0.7, 6.0, 0.2),
    Moments(60, -0.05, 1.2, 9.0, -0.3),
]


@pytest.mark.parametrize("m", OBSERVED)
@pytest.mark.parametrize("against", [0.0, 0.05, -0.02])
def test_it_agrees_with_jsharpe(m: Moments, against: float) -> None:
    told = {"gamma3": m.skew, "gamma4": m.kurtosis, "rho": m.autocorrelation}
    variance = jsharpe.sharpe_ratio_variance(against, m.count, **told)
    assert sharpe.sharpe_variance(m, against) == pytest.approx(variance, rel=1e-12)
    psr = jsharpe.probabilistic_sharpe_ratio(m.sharpe, against, T=m.count, **told)
    assert sharpe.psr_at_null(m, against) == pytest.approx(psr, rel=1e-12)
    if m.sharpe > against:
        needed = jsharpe.minimum_track_record_length(m.sharpe, against, alpha=0.05, **told)
        found = sharpe.min_trl(m, against, 0.05, plus_one=False)
        assert found == pytest.approx(needed, rel=1e-12)


@pytest.mark.parametrize("trials", [2, 45, 1000])
def test_the_best_of_many_agrees_with_jsharpe(trials: int) -> None:
    expected = jsharpe.expected_maximum_sharpe_ratio(trials, 0.002)
    assert sharpe.expected_best(0.002, trials) == pytest.approx(expected, rel=1e-12)


def test_phi_is_the_normal_distribution_in_both_tails() -> None:
    x = np.array([-30.0, -8.0, -1.96, 0.0, 0.5, 8.0])
    np.testing.assert_allclose(phi(x), stats.norm.cdf(x), rtol=1e-12)


def test_a_spread_that_cannot_be_has_no_psr() -> None:
    assert math.isnan(sharpe.psr(Moments(10, 1.0, skew=3.0, kurtosis=1.0)))


def test_returns_of_two_values_have_none_beyond_their_own() -> None:
    """Skew 2 and kurtosis 5 are the least that go together: at 1 nothing is left to vary."""
    two = Moments(10, 1.0, skew=2.0, kurtosis=5.0)
    assert math.isnan(sharpe.psr(two))
    assert math.isnan(sharpe.psr_at_null(two, 1.0))
    assert sharpe.psr_at_null(two, 0.5) > 0.5


def test_a_small_spread_is_one() -> None:
    m = Moments(10, 0.5, skew=1.0)
    assert sharpe.psr(m) == pytest.approx(stats.norm.cdf(0.5 * 3 / math.sqrt(0.625)))
