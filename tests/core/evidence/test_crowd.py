"""Many strategies: e-BH, spending, and what luck gets of capital."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.core.evidence.crowd import e_bh_threshold, ramp_bound, spending_share


def e_bh(e: list[float], alpha: float, campaigns: int) -> int:
    """How many e-BH discovers (WR22): the largest k with k-th largest >= N/(k alpha)."""
    ranked = sorted(e, reverse=True)
    found = [k for k, x in enumerate(ranked, 1) if x >= campaigns / (k * alpha)]
    return max(found, default=0)


def test_alone_it_is_bonferronis() -> None:
    assert e_bh_threshold(1, 0.05, np.array([])) == pytest.approx(20)
    assert e_bh_threshold(50, 0.05, np.array([])) == pytest.approx(1000)


def test_company_that_is_strong_enough_lowers_it() -> None:
    assert e_bh_threshold(10, 0.05, np.array([100.0])) == pytest.approx(100)
    assert e_bh_threshold(10, 0.05, np.array([99.9])) == pytest.approx(200)
    assert e_bh_threshold(10, 0.05, np.array([99.9, 70.0])) == pytest.approx(200 / 3)


def test_the_strong_are_counted_before_the_weak() -> None:
    """One reaches N/(2 alpha), the other not N/(3 alpha): two are discovered, not three."""
    assert e_bh_threshold(10, 0.05, np.array([1.0, 1000.0])) == pytest.approx(100)
    assert e_bh_threshold(10, 0.05, np.array([1000.0, 1.0])) == pytest.approx(100)


@pytest.mark.parametrize("weak", [0.0, 1.0, math.nan])
def test_weak_company_changes_nothing(weak: float) -> None:
    assert e_bh_threshold(10, 0.05, np.array([weak] * 5)) == pytest.approx(200)


@given(st.lists(st.floats(0, 1e5), max_size=12), st.floats(0, 1e5), st.integers(1, 50))
def test_whoever_reaches_it_is_discovered_by_e_bh(
    others: list[float], mine: float, more: int
) -> None:
    campaigns = len(others) + more
    reached = mine >= e_bh_threshold(campaigns, 0.05, np.array(others))
    discovered = e_bh([mine, *others], 0.05, campaigns)
    ranked = sorted([mine, *others], reverse=True)
    assert reached == (discovered > 0 and mine >= ranked[discovered - 1]) or (
        # The threshold counts mine in: e-BH may discover more than those that stand.
        not reached and discovered > 0
    )
    if reached:
        assert mine >= campaigns / (discovered * 0.05) - 1e-9


def test_spending_never_spends_more_than_there_is() -> None:
    assert sum(spending_share(n) for n in range(1, 200_000)) == pytest.approx(1.0, abs=3e-4)
    assert sum(spending_share(n) for n in range(1, 200_000)) < 1.0


def test_what_spending_asks_for() -> None:
    assert 1 / (0.05 * spending_share(1)) == pytest.approx(1020)
    assert 1 / (0.05 * spending_share(50)) == pytest.approx(3960)


def test_the_ramp_of_the_standard_policy() -> None:
    assert ramp_bound([(0.05, 3), (0.25, 10), (1.0, 20)]) == pytest.approx(0.0742, abs=5e-5)


def test_a_step_that_asks_for_nothing_is_given_away() -> None:
    assert ramp_bound([(0.1, None), (1.0, 20)]) == pytest.approx(0.1 + 0.9 / 20)
    assert ramp_bound([(1.0, None)]) == 1.0
