"""E-values: the formula, its sums, and that luck does not get far."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from qmtl.core.evidence import eprocess
from qmtl.core.evidence.eprocess import BLOCKS_MIN, E_MAX, Blocks, more_blocks, no_blocks
from qmtl.core.evidence.normal import Float

DESIGN = 1.5 * math.sqrt(5 / 252)


def blocks(returns: Float, size: int = 5) -> Blocks:
    """Of returns of shape (strategies, points), told at once."""
    return more_blocks(no_blocks(len(returns)), returns, np.ones(returns.shape, bool), size)


def of(count: float, mean: float, deviation: float) -> Blocks:
    m2 = deviation**2 * (count - 1)
    return Blocks(*(np.array([x], float) for x in (count, mean, m2, 0, 0)))


def e_of(held: Blocks, design: float = DESIGN) -> float:
    return float(eprocess.t_mixture(held, design)[0])


def test_the_sums_are_those_of_numpy() -> None:
    r = np.random.default_rng(0).normal(0.001, 0.01, (3, 57))
    held, sums = blocks(r), r[:, :55].reshape(3, 11, 5).sum(axis=2)
    np.testing.assert_array_equal(held.count, 11)
    np.testing.assert_allclose(held.mean, sums.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(held.m2, sums.var(axis=1) * 11, rtol=1e-12)
    np.testing.assert_allclose(held.part_sum, r[:, 55:].sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(held.part_points, 2)


@given(st.permutations(range(5)), st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_the_order_within_a_block_is_none_of_its_business(order: list[int], block: int) -> None:
    r = np.random.default_rng(4).normal(0.001, 0.01, (1, 55))
    other = r.copy()
    other[0, 5 * block : 5 * block + 5] = r[0, [5 * block + i for i in order]]
    assert e_of(blocks(other)) == pytest.approx(e_of(blocks(r)), rel=1e-12)


WILD = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1e-300, 5e-324, 1e3])


@given(st.lists(WILD, min_size=1, max_size=60), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_nothing_wild_is_evidence(returns: list[float], size: int) -> None:
    """What has an e-value has one between 0 and E_MAX; the rest has none, and passes none."""
    with np.errstate(all="ignore"):
        held = blocks(np.array([returns]), size)
        found = [
            e_of(held),
            float(eprocess.futility(held, 0.1, DESIGN)[0]),
            float(
                eprocess.bounded(
                    eprocess.more_wealth(
                        eprocess.no_wealth(1),
                        np.array([returns]),
                        np.ones((1, len(returns)), bool),
                        0.1,
                    )
                )[0]
            ),
        ]
    for e in found:
        assert math.isnan(e) or 0.0 <= e <= E_MAX
    if not np.isfinite(returns).all():
        assert not found[2] > 0.0


@given(st.lists(st.integers(0, 60), max_size=6), st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_any_split_of_the_same_returns_gives_the_same(cuts: list[int], size: int) -> None:
    r = np.random.default_rng(1).normal(0.001, 0.01, (2, 60))
    held, wealth = no_blocks(2), eprocess.no_wealth(2)
    for part in np.split(r, sorted(cuts), axis=1):
        counted = np.ones(part.shape, bool)
        held = more_blocks(held, part, counted, size)
        wealth = eprocess.more_wealth(wealth, part, counted, 0.5)
    whole = blocks(r, size)
    for mine, theirs in zip(
        (held.count, held.mean, held.m2, held.part_sum, held.part_points),
        (whole.count, whole.mean, whole.m2, whole.part_sum, whole.part_points),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-15)
    at_once = eprocess.more_wealth(eprocess.no_wealth(2), r, np.ones(r.shape, bool), 0.5)
    np.testing.assert_allclose(wealth, at_once, rtol=1e-12, atol=1e-14)


def test_what_is_not_counted_was_not_there() -> None:
    r = np.random.default_rng(2).normal(0.001, 0.01, (1, 80))
    counted = np.random.default_rng(3).random((1, 80)) < 0.7
    held = more_blocks(no_blocks(1), r, counted, 5)
    bare = blocks(r[counted][None, :])
    assert (held.count, held.mean, held.m2) == (bare.count, bare.mean, pytest.approx(bare.m2))
    wealth = eprocess.more_wealth(eprocess.no_wealth(1), r, counted, 0.5)
    np.testing.assert_allclose(
        wealth,
        eprocess.more_wealth(
            eprocess.no_wealth(1), r[counted][None, :], np.ones((1, counted.sum()), bool), 0.5
        ),
    )


def test_the_formula_by_hand() -> None:
    """EVIDENCE's, term by term, with scipy's normal."""
    n, t, tau = 40, 2.0, 0.2
    v, k = n - 1, n * tau**2
    by_hand = (
        2
        * stats.norm.cdf(t * math.sqrt(k / (1 + k)))
        / math.sqrt(1 + k)
        * ((1 + t**2 / v) / (1 + t**2 / (v * (1 + k)))) ** ((v + 1) / 2)
    )
    assert e_of(of(n, t / math.sqrt(n), 1.0), tau) == pytest.approx(by_hand, rel=1e-12)


def bayes_factor(t: float, n: int, tau: float) -> float:
    """The half-normal mixture of noncentral t densities, integrated."""

    def weighted(delta: float) -> float:
        prior = 2 * stats.norm.pdf(delta, 0, tau)
        return float(prior * stats.nct.pdf(t, n - 1, delta * math.sqrt(n)))

    near = [t / math.sqrt(n)] if 0 < t / math.sqrt(n) < 10 * tau else None
    over = integrate.quad(weighted, 0.0, 10 * tau, points=near)[0]
    return float(over / stats.t.pdf(t, n - 1))


@pytest.mark.parametrize(("tau", "above"), [(0.05, 0.46), (0.1, 0.23), (0.21, 0.07), (0.5, 0.02)])
@pytest.mark.parametrize("n", [10, 40, 100])
def test_it_is_nearly_the_bayes_factor_it_stands_for(n: int, tau: float, above: float) -> None:
    """As near as `t_mixture` says, on the side of skill; on the other, below it."""
    for t in (-2.0, -1.0, 0.0, 1.0, 2.0, 3.5, 5.0, 8.0, 15.0):
        exact = min(bayes_factor(t, n, tau), E_MAX)
        ratio = e_of(of(n, t / math.sqrt(n), 1.0), tau) / exact
        assert 0.7 < ratio <= 1 + above, (t, ratio)
        assert ratio <= 1.0 + 1e-6 or t > 0.0


@pytest.mark.parametrize("tau", [0.05, 0.21, 0.5])
@pytest.mark.parametrize("n", [10, 20, 40])
def test_without_skill_it_is_1_on_average_after_any_number_of_blocks(n: int, tau: float) -> None:
    def weighted(t: float) -> float:
        return e_of(of(n, t / math.sqrt(n), 1.0), tau) * float(stats.t.pdf(t, n - 1))

    mean = sum(integrate.quad(weighted, *over)[0] for over in ((-30, 0), (0, 10), (10, 200)))
    assert mean == pytest.approx(1.0, abs=2e-4)  # Less what E_MAX cuts off.


@pytest.mark.parametrize("count", range(BLOCKS_MIN))
def test_fewer_than_ten_blocks_say_nothing(count: int) -> None:
    assert math.isnan(e_of(of(count, 1.0, 0.001)))


def test_ten_do() -> None:
    assert e_of(of(BLOCKS_MIN, 0.01, 0.01)) > 1


@pytest.mark.parametrize("mean", [0.0, 0.01, -0.01])
def test_no_spread_is_no_evidence(mean: float) -> None:
    assert math.isnan(e_of(of(50, mean, 0.0)))
    assert math.isnan(e_of(of(50, mean, abs(mean) * 1e-13)))


@given(st.floats(10, 1e5), st.floats(-1e3, 1e3), st.floats(1e-6, 1e3), st.floats(0.001, 3.0))
def test_it_is_a_finite_number_and_not_negative(
    n: float, mean: float, deviation: float, design: float
) -> None:
    held = of(math.floor(n), mean, deviation)
    found = np.array([e_of(held, design), float(eprocess.futility(held, 0.1, design)[0])])
    assert (np.isnan(found) | ((found >= 0) & (found <= E_MAX))).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_spread_is_more_than_rounding_of_the_mean(sign: float) -> None:
    """Just a billionth of a thousandth of it is none; the next number is one."""
    deviation = 2.0**-40  # So that squares and roots are exact.
    mean = deviation / 1e-12
    assert mean * 1e-12 == deviation
    assert math.isnan(e_of(of(17, sign * mean, deviation)))
    assert e_of(of(17, sign * math.nextafter(mean, 0.0), deviation)) >= 0.0


@given(st.floats(1e-9, 1e9))
def test_leverage_proves_nothing(scale: float) -> None:
    r = np.random.default_rng(5).normal(0.001, 0.01, (1, 100))
    assert e_of(blocks(r * scale)) == pytest.approx(e_of(blocks(r)), rel=1e-9)


def test_more_is_more() -> None:
    means = np.linspace(-0.02, 0.02, 41)
    found = [e_of(of(60, mean, 0.01)) for mean in means]
    assert found == sorted(found)


def test_futility_is_the_same_test_from_the_other_side() -> None:
    held, mirrored = of(50, 0.004, 0.02), of(50, 0.1 * 0.02 - 0.004, 0.02)
    assert eprocess.futility(held, 0.1, DESIGN)[0] == pytest.approx(e_of(mirrored), rel=1e-12)


def test_bets_are_what_they_are_worth() -> None:
    r, floor = np.array([[0.02, -0.03, 0.05]]), 0.1
    held = eprocess.more_wealth(eprocess.no_wealth(1), r, np.ones(r.shape, bool), floor)
    by_hand = np.mean([np.prod(1 + bet / floor * r[0]) for bet in eprocess.BETS])
    assert eprocess.bounded(held)[0] == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(("loss", "left"), [(0.1, True), (0.1 + 1e-12, False), (0.2, False)])
def test_a_loss_beyond_the_floor_leaves_nothing_for_good(loss: float, left: bool) -> None:
    held = eprocess.no_wealth(1)
    for r in (0.05, -loss, 0.05, 0.05):
        held = eprocess.more_wealth(held, np.array([[r]]), np.ones((1, 1), bool), 0.1)
    assert bool(eprocess.bounded(held)[0] > 0) is left


@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf])
def test_what_is_no_return_leaves_nothing_either(wild: float) -> None:
    """It proves nothing of either method, whatever follows."""
    r = np.array([[0.01, wild, *np.tile([0.02, 0.01], 100)]])
    counted = np.ones(r.shape, bool)
    held = eprocess.more_wealth(eprocess.no_wealth(1), r, counted, 0.1)
    assert eprocess.bounded(held)[0] == 0.0
    with np.errstate(invalid="ignore"):
        assert not e_of(blocks(r)) >= 0.0


def test_ones_ruin_is_no_others() -> None:
    r = np.array([[0.01, -0.2, 0.01], [0.01, -0.02, 0.01]])
    held = eprocess.more_wealth(eprocess.no_wealth(2), r, np.ones(r.shape, bool), 0.1)
    alone = eprocess.more_wealth(eprocess.no_wealth(1), r[1:], np.ones((1, 3), bool), 0.1)
    np.testing.assert_array_equal(eprocess.bounded(held), [0.0, *eprocess.bounded(alone)])


def test_what_is_not_counted_may_be_anything() -> None:
    r, counted = np.array([[0.01, math.nan, 0.02]]), np.array([[True, False, True]])
    held = eprocess.more_wealth(eprocess.no_wealth(1), r, counted, 0.1)
    bare = eprocess.more_wealth(eprocess.no_wealth(1), r[counted][None], counted[:, :2] | True, 0.1)
    np.testing.assert_array_equal(held, bare)


def test_riches_are_capped() -> None:
    r = np.full((1, 2_000), 0.05)
    held = eprocess.more_wealth(eprocess.no_wealth(1), r, np.ones(r.shape, bool), 0.1)
    assert E_MAX * 0.999 < eprocess.bounded(held)[0] <= E_MAX


# ---- Luck --------------------------------------------------------------------------------------

PATHS, DAYS = 2_000, 252


def ever(returns: Float) -> tuple[Float, Float]:
    """The largest e-value of each path, of both methods, looked at every day."""
    held, wealth = no_blocks(len(returns)), eprocess.no_wealth(len(returns))
    best_t, best_b = np.zeros(len(returns)), np.zeros(len(returns))
    counted = np.ones((len(returns), 1), bool)
    for day in returns.T:
        held = more_blocks(held, day[:, None], counted, 5)
        wealth = eprocess.more_wealth(wealth, day[:, None], counted, 0.1)
        best_t = np.fmax(best_t, eprocess.t_mixture(held, DESIGN))
        best_b = np.maximum(best_b, eprocess.bounded(wealth))
    return best_t, best_b


@pytest.mark.parametrize("tails", ["normal", "student"])
def test_without_skill_it_is_seldom_large(tails: str) -> None:
    """Ville: P(ever >= c) <= 1/c; EVIDENCE's table says .13, .011, .004 for normal returns."""
    rng = np.random.default_rng(6)
    r = rng.normal(size=(PATHS, DAYS)) if tails == "normal" else rng.standard_t(4, (PATHS, DAYS))
    for best in ever(np.clip(r * 0.01, -0.1, None)):
        for c in (3, 10, 20):
            spread = 3 * math.sqrt(1 / c * (1 - 1 / c) / PATHS)
            assert (best >= c).mean() <= 1 / c + spread
    assert (ever(r * 0.01)[0] >= 3).mean() == pytest.approx(0.13, abs=0.03)


@pytest.mark.parametrize("stop", [1.5, 3.0, 10.0])
def test_to_stop_when_it_is_large_gains_nothing(stop: float) -> None:
    """Its mean is at most 1 when everybody stops at that value or else after a year."""
    rng = np.random.default_rng(9)
    r = rng.normal(0, 0.01, (PATHS, DAYS))
    held, wealth, worth = no_blocks(PATHS), eprocess.no_wealth(PATHS), np.ones((2, PATHS))
    going, counted = np.ones((2, PATHS), bool), np.ones((PATHS, 1), bool)
    for day in r.T:
        held = more_blocks(held, day[:, None], counted, 5)
        wealth = eprocess.more_wealth(wealth, day[:, None], counted, 0.1)
        now = np.array([eprocess.t_mixture(held, DESIGN), eprocess.bounded(wealth)])
        worth = np.where(going & ~np.isnan(now), now, worth)
        going &= worth < stop
    for mine in worth:
        assert mine.mean() <= 1 + 3 * mine.std() / math.sqrt(PATHS)


def test_with_skill_it_is() -> None:
    """EVIDENCE's table: at Sharpe 2, .72, .35 and .21 after a year."""
    r = np.random.default_rng(7).normal(2 / math.sqrt(252) * 0.01, 0.01, (PATHS, DAYS))
    best, _ = ever(r)
    found = [float((best >= c).mean()) for c in (3, 10, 20)]
    assert found == pytest.approx([0.72, 0.35, 0.21], abs=0.05)


def test_the_numbers_are_those_of_the_promise() -> None:
    """EVIDENCE: n >= 10; l_j in {.1, ..., .9}/L."""
    assert BLOCKS_MIN == 10
    np.testing.assert_allclose(eprocess.BETS, np.arange(1, 10) / 10)
