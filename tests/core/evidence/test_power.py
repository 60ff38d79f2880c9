"""Times by simulation: when it looks, that shares and medians agree, and what the truth is."""

import math

import numpy as np
import pytest

from qmtl.core.evidence import eprocess, power
from qmtl.core.evidence.eprocess import BLOCKS_MIN, Blocks, mixture, t_mixture
from qmtl.core.evidence.horizon import group_sequential, strictest
from qmtl.core.evidence.horizon import t_needed as strictest_t
from qmtl.core.evidence.normal import Bool, Float
from qmtl.core.evidence.power import LOOKS, PATHS, bars_until, blocks_until, median

A_BLOCK = math.sqrt(5 / 252)  # What a year's Sharpe ratio is in a block.
DESIGN = 1.5 * A_BLOCK
A_BAR = math.sqrt(1 / 252)
ASKED = (3.0, 10.0, 20.0)
OFF = power.POINTS_OFF / 100


@pytest.mark.parametrize(
    ("most", "first", "looks"),
    [
        (9, 10, []),
        (0, 1, []),
        (10, 10, [10]),
        (12, 10, [10, 11, 12]),
        (LOOKS, 1, list(range(1, LOOKS + 1))),
        (LOOKS + 2, LOOKS - 1, [LOOKS - 1, LOOKS, LOOKS + 1, LOOKS + 2]),
    ],
)
def test_each_is_looked_at_while_they_are_few(most: int, first: int, looks: list[int]) -> None:
    assert power._looks(most, first).tolist() == looks


def test_later_looks_are_apart_in_proportion() -> None:
    at = power._looks(1_000_003, 1)
    assert at[-1] == 1_000_003
    apart = np.diff(at)
    assert (apart >= 1).all()
    assert (apart <= np.maximum(1, at[:-1] / LOOKS)).all()
    assert (apart[:-1] > at[:-2] / LOOKS - 1).all()
    assert len(at) < LOOKS * (2 + math.log(1_000_003 / LOOKS) * 1.1)


def test_half_are_there_in_time_when_the_median_is() -> None:
    assert median(np.array([[4.0, 1.0, 3.0, 2.0], [9.0, 1.0, 9.0, 9.0]])).tolist() == [2.0, 9.0]
    assert median(np.array([1.0, math.inf, math.inf, 1.0])) == 1.0
    assert median(np.array([1.0, math.inf, math.inf, math.inf])) == math.inf
    found = blocks_until(ASKED, (A_BLOCK, 2 * A_BLOCK), DESIGN, 600)
    for blocks in range(10, 600, 7):
        shares = (found <= blocks).mean(axis=-1)
        np.testing.assert_array_equal(shares >= 0.5, median(found) <= blocks)


def test_a_table_of_ten_thousand_paths_says_the_same() -> None:
    """docs/evidence.md, "With skill: who gets there": days of .16 a year for `bounded`."""
    for horizon, shares in (
        (0, ((0.5802, 0.2608, 0.1504), (0.9274, 0.7386, 0.6057))),
        (100, ((0.7952, 0.5211, 0.3643), (0.9858, 0.9247, 0.8525))),
    ):
        found = blocks_until(ASKED, (A_BLOCK, 2 * A_BLOCK), DESIGN, 2_520, horizon)
        np.testing.assert_allclose((found <= 100).mean(axis=-1), shares, atol=OFF)
    found = bars_until(ASKED, (A_BAR, 2 * A_BAR), 0.01, 0.1, 2_520)
    shares = ((0.5937, 0.2091, 0.0970), (0.9401, 0.7100, 0.5233))
    np.testing.assert_allclose((found <= 504).mean(axis=-1), shares, atol=OFF)


@pytest.mark.parametrize("horizon", [0, 40])
def test_each_path_is_there_when_its_e_value_is(horizon: int) -> None:
    sharpe, at = 2 * A_BLOCK, power._looks(40, BLOCKS_MIN)
    ((_, total, squares),) = power._walks(at)
    n = np.broadcast_to(at[:, None].astype(float), total.shape)
    held = Blocks(n, sharpe + total / n, squares - total**2 / n, 0 * n, 0 * n)
    shown = np.array(
        [
            group_sequential(row, horizon) if horizon else t_mixture(row, DESIGN)
            for row in (
                Blocks(*(each[k] for each in (held.count, held.mean, held.m2, 0 * n, 0 * n)))
                for k in range(len(at))
            )
        ]
    )
    for c, found in zip(ASKED, blocks_until(ASKED, (sharpe,), DESIGN, 40, horizon)[0], strict=True):
        there = shown >= c
        first = np.where(there.any(axis=0), at[there.argmax(axis=0)], math.inf)
        np.testing.assert_array_equal(found, first)


def test_medians_are_those_of_paths_that_are_walked_block_by_block() -> None:
    """EVIDENCE: for E >= 20 the median is 5.7 years at Sharpe 1, 1.7 at 2, .9 at 3."""
    sharpes = tuple(annual * A_BLOCK for annual in (1.0, 2.0, 3.0))
    years = median(blocks_until(ASKED, sharpes, DESIGN, 2_520)) * 5 / 252
    assert years[:, 2] == pytest.approx((5.7, 1.7, 0.9), rel=0.05)
    rng = np.random.default_rng(1)
    r = 2 * A_BLOCK + rng.standard_normal((2_000, 300))
    n = np.arange(1.0, 301.0)
    mean = np.cumsum(r, axis=1) / n
    m2 = np.cumsum(r**2, axis=1) - n * mean**2
    none = np.zeros_like(mean)
    shown = t_mixture(Blocks(np.broadcast_to(n, mean.shape), mean, m2, none, none), DESIGN)
    first = np.where((shown >= 10.0).any(axis=1), (shown >= 10.0).argmax(axis=1) + 1.0, math.inf)
    assert median(first) * 5 / 252 == pytest.approx(years[1, 1], rel=0.05)


def test_what_is_drawn_at_once_is_what_would_have_been_drawn() -> None:
    """Blocks of a minute's bars: the same years, though hardly any of them is looked at."""
    fine = 1_000
    coarse, many = (
        median(blocks_until(ASKED, (2 * A_BLOCK / root,), DESIGN / root, 400 * times)) / times
        for root, times in ((1.0, 1), (math.sqrt(fine), fine))
    )
    # Without ten blocks to wait for, and with looks in between, a few weeks earlier.
    assert (many < coarse).all()
    assert (many > 0.8 * coarse).all()


def walked(r: Float, floor: float) -> Float:
    """The largest `bounded` e-value of each path, bar by bar."""
    held, best = eprocess.no_wealth(len(r)), np.zeros(len(r))
    every: Bool = np.ones((len(r), 1), np.bool_)
    for bar in range(r.shape[1]):
        held = eprocess.more_wealth(held, r[:, bar : bar + 1], every, floor)
        best = np.maximum(best, eprocess.bounded(held))
    return best


@pytest.mark.parametrize(
    ("sharpe", "deviation", "floor", "bars", "off"),
    [
        (0.4, 0.1 / math.sqrt(12), 0.1, 48, OFF),  # Months, whose bets are no small bars.
        (0.15, 0.01, 0.05, 252, OFF),
        (0.15, 0.01, 0.03, 252, 1.5 * OFF),  # A floor that ends one in five.
    ],
)
def test_bets_grow_as_they_do_bar_by_bar(
    sharpe: float, deviation: float, floor: float, bars: int, off: float
) -> None:
    drawn = np.random.default_rng(2).standard_normal((20_000, bars))
    best = walked((sharpe + drawn) * deviation, floor)
    found = bars_until(ASKED, (sharpe,), deviation, floor, bars)
    shares = [float((best >= c).mean()) for c in ASKED]
    np.testing.assert_allclose(np.isfinite(found[0]).mean(axis=-1), shares, atol=off)


def test_too_little_time_shows_nothing() -> None:
    assert np.isinf(blocks_until(ASKED, (5.0,), DESIGN, BLOCKS_MIN - 1)).all()
    assert np.isinf(bars_until(ASKED, (5.0,), 0.01, 0.1, 0)).all()
    assert np.isinf(blocks_until((20_000.0,), (5.0,), DESIGN, 100, 100)).all()
    after = blocks_until((3.0,), (A_BLOCK,), DESIGN, 1_000, 100)
    assert after[np.isfinite(after)].max() == 100


def test_without_skill_the_bound_holds_for_each_method() -> None:
    for found in (
        blocks_until(ASKED, (0.0,), DESIGN, 100),
        blocks_until(ASKED, (0.0,), DESIGN, 100, 100),
        bars_until(ASKED, (0.0,), 0.10 * A_BAR, 0.1, 504),
    ):
        for c, share in zip(ASKED, np.isfinite(found[0]).mean(axis=-1), strict=True):
            assert share <= 1 / c + 3 * math.sqrt(1 / c * (1 - 1 / c) / PATHS)


def test_chance_is_the_same_each_time() -> None:
    again = blocks_until.__wrapped__(ASKED, (0.1,), DESIGN, 30)
    np.testing.assert_array_equal(again, blocks_until(ASKED, (0.1,), DESIGN, 30))


# ---- Where a threshold lies ------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1.0, 1.3, 3.0, 20.0, 1e4])
def test_a_threshold_is_met_from_its_t_on(threshold: float) -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(BLOCKS_MIN, 101, 4_000).astype(float)
    t = rng.normal(1.5, 2.5, 4_000)
    needed = eprocess.t_needed(threshold, n, DESIGN)
    np.testing.assert_array_equal(mixture(t, n, DESIGN) >= threshold, t >= needed)
    finite = np.isfinite(needed)
    assert (mixture(needed[finite], n[finite], DESIGN) >= threshold).all()
    np.testing.assert_allclose(mixture(needed[finite], n[finite], DESIGN), threshold, rtol=1e-6)
    np.testing.assert_array_equal(
        strictest(t, n, 100) >= threshold, t >= strictest_t(threshold, n, 100)
    )


def test_ten_blocks_cannot_show_everything() -> None:
    n = np.array([10.0, 500.0])
    assert np.isinf(eprocess.t_needed(1e6, n, DESIGN)).tolist() == [True, False]


@pytest.mark.parametrize("horizon", [40, 100, 250])
def test_a_declared_end_has_its_looks_and_no_other(horizon: int) -> None:
    """Of 250 blocks every third is looked at."""
    n = np.repeat(np.arange(10.0, horizon + 1.0), 20)
    t = np.random.default_rng(5).normal(2.0, 2.0, len(n))
    needed = strictest_t(10.0, n, horizon)
    np.testing.assert_array_equal(strictest(t, n, horizon) >= 10.0, t >= needed)
    np.testing.assert_array_equal(np.isfinite(needed), n % (3 if horizon == 250 else 1) == 0)
    of_few = group_sequential(Blocks(*(np.full(1, x) for x in (9.0, 1.0, 8.0, 0.0, 0.0))), horizon)
    assert np.isnan(of_few)


# ---- Drawdowns -------------------------------------------------------------------------------


def test_a_drawdown_is_from_the_highest_point_so_far() -> None:
    found = power.drawdowns((0.0, 2 * A_BAR), 0.01, 252)
    r = np.random.default_rng(4).standard_normal((4_000, 252))
    for sharpe, mine in zip((0.0, 2 * A_BAR), found, strict=True):
        height = np.cumprod(1 + (sharpe + r) * 0.01, axis=1)
        top = np.maximum(np.maximum.accumulate(height, axis=1), 1.0)
        worst = (1 - height / top).max(axis=1)
        for most in (0.05, 0.1, 0.2):
            assert (mine <= most).mean() == pytest.approx((worst <= most).mean(), abs=2 * OFF)
    first = power.drawdowns((-100.0,), 0.01, 1)  # From where it starts.
    assert first.min() > 0.5


def test_no_two_paths_move_alike_between_two_looks() -> None:
    """Three draws at once: what is left of their squares beside their sum is each path's own."""
    ((_, total, squares),) = power._walks(np.array([3]))
    inside = squares[0] - total[0] ** 2 / 3
    assert len(np.unique(inside)) == power.PATHS
    assert inside.mean() == pytest.approx(2.0, abs=4 * 2 / math.sqrt(power.PATHS))
