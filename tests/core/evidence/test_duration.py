"""How long evidence takes."""

import math
from functools import partial

import numpy as np
import pytest

from qmtl.core.evidence import duration
from qmtl.core.evidence.eprocess import BETS, BLOCKS_MIN, Blocks, bounded, mixture
from qmtl.core.evidence.horizon import (
    LEVELS,
    as_normal,
    boundaries,
    group_sequential,
    spaced,
    strictest,
)

DESIGN = 1.5 * math.sqrt(5 / 252)
A_YEAR = 252 / 5
needed = partial(duration.blocks_needed, seen=0.0, t=0.0)
looks = partial(duration.looks_needed, seen=0.0, t=0.0)


@pytest.mark.parametrize(("annual", "median"), [(1.0, 5.7), (2.0, 1.7), (3.0, 0.9)])
def test_twenty_takes_years(annual: float, median: float) -> None:
    """EVIDENCE gives the median of the first crossing, which luck makes come a little earlier."""
    found = needed(20, annual * math.sqrt(5 / 252), DESIGN, most=10_000)
    assert found is not None
    assert median < found / A_YEAR < 1.5 * median


def test_it_is_the_first_block_that_reaches_it() -> None:
    sharpe = 0.25
    found = needed(20, sharpe, DESIGN, most=10_000)
    assert found is not None

    def e(n: int) -> float:
        t = math.sqrt(n) * sharpe
        return float(mixture(np.array([t]), np.array([float(n)]), DESIGN)[0])

    assert e(found) >= 20 > e(found - 1)


@pytest.mark.parametrize("sharpe", [0.0, -0.2])
def test_without_skill_it_is_never(sharpe: float) -> None:
    assert needed(20, sharpe, DESIGN, most=5_000) is None


def test_the_limit_counts() -> None:
    found = needed(20, 0.25, DESIGN, most=10_000)
    assert found is not None
    assert needed(20, 0.25, DESIGN, most=found) == found
    assert needed(20, 0.25, DESIGN, most=found - 1) is None


def test_a_limit_below_the_fewest_blocks_is_never_met() -> None:
    """However strong: an e-value takes ten blocks, and five are all there will be."""
    assert needed(1.5, 5.0, DESIGN, most=5) is None
    assert needed(1.5, 5.0, DESIGN, most=10) == 10
    assert needed(1.5, 5.0, DESIGN, seen=30, t=9.0, most=29) is None


def test_what_has_been_shown_already_shortens_it_and_bad_luck_does_the_contrary() -> None:
    fresh = needed(20, 0.2, DESIGN, most=10_000)
    lucky = needed(20, 0.2, DESIGN, seen=40, t=2.5, most=10_000)
    unlucky = needed(20, 0.2, DESIGN, seen=40, t=-2.0, most=10_000)
    assert None not in (lucky, fresh, unlucky)
    assert (lucky or 0) < (fresh or 0) < (unlucky or 0)


def test_a_declared_end_is_reached_before_it_or_never() -> None:
    """The first look at which the expected t is over the boundary, and not one after the end."""
    found = looks(20, 0.35, 100)
    assert found is not None

    def expected(n: int) -> float:
        held = Blocks(*(np.array([x], float) for x in (n, 0.35, n - 1, 0, 0)))
        return float(group_sequential(held, 100)[0])

    assert expected(found) >= 20 > expected(found - 1)
    assert BLOCKS_MIN < found <= 100
    assert looks(20, 0.05, 100) is None  # It would take 1,000 blocks.
    assert needed(20, 0.05, DESIGN, most=100_000) is not None


def test_only_looks_count() -> None:
    """250 blocks are looked at every third time."""
    found = looks(20, 0.35, 250)
    assert found is not None
    assert found % 3 == 0


@pytest.mark.parametrize("horizon", [0, 9])
def test_a_horizon_of_fewer_than_ten_blocks_is_never_met(horizon: int) -> None:
    assert looks(3, 5.0, horizon) is None


def test_luck_so_far_brings_a_look_nearer_and_a_horizon_that_is_over_has_none() -> None:
    fresh = looks(20, 0.3, 100)
    lucky = looks(20, 0.3, 100, seen=20, t=3.0)
    unlucky = looks(20, 0.3, 100, seen=20, t=0.0)
    assert None not in (lucky, fresh, unlucky)
    assert 20 <= (lucky or 0) < (fresh or 0) < (unlucky or 0)
    assert looks(20, 5.0, 100, seen=101, t=50.0) is None
    assert looks(3, 0.3, 100, seen=100, t=9.0) == 100


def test_bets_take_as_long_as_their_growth_says() -> None:
    found = duration.returns_needed(20, 0.1, 0.01, 0.1, None, 100_000)
    assert found is not None
    bets = np.array(BETS) / 0.1
    growth = bets * 0.1 * 0.01 - (bets * 0.01) ** 2 * 1.01 / 2

    def e(n: int) -> float:
        return float(bounded((n * growth)[None, :])[0])

    assert e(found) >= 20 > e(found - 1)
    assert duration.returns_needed(20, 0.0, 0.01, 0.1, None, 100_000) is None


def test_ruined_bets_never_recover() -> None:
    ruined = np.full(len(BETS), -np.inf)
    assert duration.returns_needed(20, 0.2, 0.01, 0.1, ruined, 10_000) is None


# ---- Exactly -----------------------------------------------------------------------------------


def expected_e(n: int, sharpe: float, seen: float, t: float) -> float:
    """Of n blocks, by hand: the sum of standardised blocks over sqrt(n)."""
    total = t * math.sqrt(seen) + (n - seen) * sharpe
    return float(mixture(np.array([total / math.sqrt(n)]), np.array([float(n)]), DESIGN)[0])


@pytest.mark.parametrize(("seen", "t"), [(0.0, 0.0), (40.0, 1.0), (12.0, -0.5)])
def test_a_threshold_that_is_just_met_is_met(seen: float, t: float) -> None:
    for n in (60, 90):
        exactly = expected_e(n, 0.3, seen, t)
        assert duration.blocks_needed(exactly, 0.3, DESIGN, seen=seen, t=t, most=1_000) == n
        more = math.nextafter(exactly, math.inf)
        assert duration.blocks_needed(more, 0.3, DESIGN, seen=seen, t=t, most=1_000) == n + 1


def test_what_is_there_now_needs_no_more() -> None:
    assert duration.blocks_needed(3, 0.3, DESIGN, seen=40, t=3.0, most=100) == 40
    assert duration.blocks_needed(3, 0.3, DESIGN, seen=40, t=3.0, most=40) == 40


@pytest.mark.parametrize("horizon", [80, 100, 105, 999, 1_000])
def test_each_look_is_looked_at_and_the_last_is_one(horizon: int) -> None:
    stride, count = spaced(horizon)
    n = stride * np.arange(1.0, count + 1)
    n = n[n >= BLOCKS_MIN]
    sharpe = 2.5 / math.sqrt(horizon)
    found = strictest(np.sqrt(n) * sharpe, n, horizon)
    for threshold in sorted(set(found[found > 1.0]))[::5]:
        assert looks(threshold, sharpe, horizon) == n[np.argmax(found >= threshold)]
    weak = next(s for s in np.linspace(0.5, 1.0, 800) if looks(20, s * sharpe, horizon))
    assert looks(20, weak * sharpe, horizon) == stride * count


def test_a_level_that_is_just_crossed_is_crossed() -> None:
    level = 14
    bounds = boundaries(100)[:, level]
    crossed = [
        n
        for n in range(10, 101)
        if as_normal(np.array([math.sqrt(n) * 0.35]), np.array([n - 1.0]))[0] >= bounds[n - 1]
    ]
    assert looks(1 / LEVELS[level], 0.35, 100) == crossed[0]


def test_one_return_can_be_enough() -> None:
    held = np.zeros(len(BETS))
    once = float(bounded((held + 1.0 * growth_of(1.0, 0.05, 0.1))[None, :])[0])
    assert duration.returns_needed(once, 1.0, 0.05, 0.1, None, 10) == 1
    assert duration.returns_needed(math.nextafter(once, 2.0), 1.0, 0.05, 0.1, None, 10) == 2
    assert duration.returns_needed(once * 1.01, 1.0, 0.05, 0.1, None, 1) is None


def growth_of(sharpe: float, deviation: float, floor: float) -> np.ndarray:
    bets = np.array(BETS) / floor
    return bets * sharpe * deviation - (bets * deviation) ** 2 * (1 + sharpe**2) / 2
