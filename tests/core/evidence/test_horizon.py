"""Group sequential boundaries: the constants of the literature, and what is never crossed."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.optimize import brentq

from qmtl.core.evidence import horizon
from qmtl.core.evidence.eprocess import BLOCKS_MIN, Blocks, more_blocks, no_blocks
from qmtl.core.evidence.horizon import LEVELS, boundaries, crossing, group_sequential, spent

INV = NormalDist().inv_cdf


@pytest.mark.parametrize(
    ("looks", "chance"), [(1, 0.050), (2, 0.083), (5, 0.142), (10, 0.194), (50, 0.320)]
)
def test_repeated_significance_tests(looks: int, chance: float) -> None:
    """Armitage, McPherson & Rowe (1969): |z| >= 1.96 at some of n equally spaced looks."""
    assert crossing(np.full(looks, INV(0.975)), two_sided=True) == pytest.approx(chance, abs=1e-3)


def test_the_constant_of_obrien_and_fleming() -> None:
    """Five looks at z >= C sqrt(5/k), two-sided .05: C = 2.040."""

    def size(c: float) -> float:
        return crossing(c * np.sqrt(5 / np.arange(1, 6)), two_sided=True)

    assert size(2.040) == pytest.approx(0.05, abs=1e-4)
    assert size(2.030) > 0.0505 > 0.0495 > size(2.050)


@pytest.mark.parametrize("looks", [1, 5, 20, 100])
def test_each_boundary_spends_its_level(looks: int) -> None:
    for i in (3, 12, 15, 24):
        size = crossing(boundaries(looks)[:, i], two_sided=False)
        assert size == pytest.approx(LEVELS[i], rel=0.02)


def test_one_look_is_the_plain_test() -> None:
    expected = [INV(1 - level) for level in LEVELS]
    np.testing.assert_allclose(boundaries(1)[0], expected, atol=0.02)


def test_spending() -> None:
    assert spent(0.05, 0.0) == 0.0
    assert spent(0.05, 1.0) == pytest.approx(0.05)
    assert spent(0.05, 2.0) == pytest.approx(0.05)  # Nothing more after the end.
    assert spent(0.05, 0.5) == pytest.approx(2 * (1 - NormalDist().cdf(INV(0.975) * math.sqrt(2))))


def of(count: float, t: float) -> Blocks:
    return Blocks(*(np.array([x], float) for x in (count, t / math.sqrt(count), count - 1, 0, 0)))


def test_after_the_endsnothing_is_evidence() -> None:
    assert group_sequential(of(100, 10.0), 100)[0] > 1_000
    assert math.isnan(group_sequential(of(101, 10.0), 100)[0])


def test_before_ten_blocks_nothing_is() -> None:
    assert math.isnan(group_sequential(of(9, 10.0), 100)[0])


def test_without_a_endsnothing_is() -> None:
    assert math.isnan(group_sequential(of(50, 10.0), 0)[0])


def test_between_two_looks_there_is_none() -> None:
    """250 blocks and at most 100 looks: one every third block."""
    assert [group_sequential(of(n, 10.0), 250)[0] > 1 for n in (198, 199, 200, 201)] == [
        True,
        False,
        False,
        True,
    ]


def test_it_says_the_strictest_level_that_is_crossed() -> None:
    z = np.linspace(-1, 5, 40)
    found = np.array([group_sequential(of(100, t), 100)[0] for t in z])
    assert (np.diff(found) >= 0).all()
    assert found[0] == 1.0
    assert set(found) <= {1.0, *(1 / level for level in LEVELS)}
    last = boundaries(100)[99]
    t = float(last[14] + 0.1)  # Just above that level at the last look, Student's t allowed for.
    assert group_sequential(of(100, t), 100)[0] == pytest.approx(1 / LEVELS[14])


def test_students_tails_are_made_normal() -> None:
    """Wallace (1959): of the .001 points of Student's t, within .01 of the normal's."""
    for degrees, t in ((9, 4.297), (19, 3.579), (99, 3.175)):
        z = horizon.as_normal(np.array([t, -t]), np.array(float(degrees)))
        np.testing.assert_allclose(z, [INV(0.999), -INV(0.999)], atol=0.02)


def test_looks_are_spaced_over_the_horizon() -> None:
    found = [horizon.spaced(blocks) for blocks in (0, 1, 99, 100, 101, 250, 1_000)]
    assert found == [(1, 1), (1, 1), (1, 99), (1, 100), (2, 50), (3, 83), (10, 100)]


@pytest.mark.parametrize(
    ("count", "ends", "look", "looks"),
    [(10, 20, 10, 20), (20, 20, 20, 20), (12, 40, 12, 40), (99, 250, 33, 83), (249, 250, 83, 83)],
)
def test_a_boundary_is_crossed_by_what_reaches_it(
    monkeypatch: pytest.MonkeyPatch, count: int, ends: int, look: int, looks: int
) -> None:
    """The look's own boundary, of every level; on it is over it, and just below is not."""
    bounds = boundaries(looks)[look - 1]
    for i in (6, 15, 40):
        for z, reached in ((bounds[i], LEVELS[i]), (np.nextafter(bounds[i], -1), LEVELS[i - 1])):
            monkeypatch.setattr(horizon, "as_normal", lambda t, degrees, z=z: np.array([z]))
            assert group_sequential(of(count, 2.0), ends)[0] == 1 / reached


def test_the_degrees_of_freedom_are_one_fewer_than_the_blocks() -> None:
    """Student's t of 10 blocks with the tail that a normal has at the boundary."""
    bound = boundaries(20)[9, 14]
    t = brentq(lambda t: horizon.as_normal(np.array([t]), np.array([9.0]))[0] - bound, 0.0, 50.0)
    assert group_sequential(of(10, t * (1 + 1e-9)), 20)[0] == 1 / LEVELS[14]
    assert group_sequential(of(10, t * (1 - 1e-9)), 20)[0] == 1 / LEVELS[13]


def boundary(level: float, looks: int) -> list[float]:
    """Of one level, made anew: `boundaries` keeps what it has made."""
    walk, found = horizon._Walk(looks, 1), []
    for look in range(1, looks + 1):
        walk.step()
        share = spent(level, look / looks) - spent(level, (look - 1) / looks)
        found.append(walk.cut(0, share) / math.sqrt(look / looks))
    return found


def test_the_boundary_of_lan_and_demets() -> None:
    """Five looks, two-sided .05, as Jennison & Turnbull (2000) and every package since have it."""
    assert boundary(0.025, 5) == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=2e-3)


def test_two_looks_by_integration() -> None:
    """Below the first, above the second: they correlate with sqrt(1/2)."""
    first, second = boundary(0.05, 2)
    assert first == pytest.approx(INV(1 - spent(0.05, 0.5)), abs=1e-3)

    def both(x: float) -> float:
        return float(stats.norm.pdf(x) * stats.norm.sf(second * math.sqrt(2) - x))

    share = 0.05 - spent(0.05, 0.5)
    assert integrate.quad(both, -8, first)[0] == pytest.approx(share, rel=2e-3)


def test_each_copy_of_a_walk_is_cut_by_itself() -> None:
    alone, many = boundary(0.05, 3), horizon._Walk(3, 2)
    for look, expected in enumerate(alone, 1):
        many.step()
        share = spent(0.05, look / 3) - spent(0.05, (look - 1) / 3)
        many.cut(0, share / 2)
        assert many.cut(1, share) / math.sqrt(look / 3) == pytest.approx(expected, abs=1e-9)


def test_what_is_kept_is_what_is_made() -> None:
    np.testing.assert_array_equal(boundaries.__wrapped__(5), boundaries(5))
    found = boundaries(5)[:, 14]
    np.testing.assert_allclose(found, boundary(LEVELS[14], 5), rtol=1e-9)


@pytest.mark.parametrize("ends", [16, 20, 50])
def test_where_blocks_are_few_a_level_is_exceeded_by_little(ends: int) -> None:
    """Normal blocks: Student's t of few of them is not quite the Brownian motion that the
    boundaries are of, and reaches them up to 15 % more often than it should (docs/evidence.md)."""
    paths, rng = 200_000, np.random.default_rng(1)
    total, squares, best = np.zeros(paths), np.zeros(paths), np.ones(paths)
    for n in range(1, ends + 1):
        x = rng.normal(size=paths)
        total, squares = total + x, squares + x * x
        if n >= BLOCKS_MIN:
            t = total / np.sqrt((squares - total**2 / n) / (n - 1) * n)
            best = np.maximum(best, horizon.strictest(t, np.full(paths, float(n)), ends))
    for level in LEVELS[5:24:3]:
        spread = 3 * math.sqrt(level * (1 - level) / paths)
        assert (best >= 1 / level).mean() <= 1.15 * level + spread


def test_without_skill_each_level_is_kept() -> None:
    """P(ever 1/level) <= level, looked at every day for the whole horizon."""
    paths, rng = 2_000, np.random.default_rng(0)
    held, best = no_blocks(paths), np.zeros(paths)
    for _ in range(504):
        day = rng.normal(0, 0.01, (paths, 1))
        held = more_blocks(held, day, np.ones((paths, 1), bool), 5)
        best = np.fmax(best, group_sequential(held, 100))
    for c in (3, 10, 20):
        assert (best >= c).mean() <= 1 / c + 3 * math.sqrt(1 / c * (1 - 1 / c) / paths)
    assert (best >= 3).mean() > 0.25  # And hardly less: it spends what it has.
