"""Intervals over worlds: wide enough where a world's strategies go together, and never made up."""

import numpy as np
import pytest

from qmtl.sim import spread


def test_a_share_is_wilsons() -> None:
    assert spread.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert spread.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert spread.wilson(0, 0) == (0.0, 1.0)


def test_strategies_that_go_together_are_worth_one() -> None:
    apart = spread.of_share([True, False] * 5, [n for n in range(5) for _ in range(2)])
    assert apart == pytest.approx(spread.wilson(5, 10)), "of each world half: no effect"
    worlds = [n for n in range(10) for _ in range(4)]
    together = spread.of_share([n < 5 for n in worlds], worlds)
    assert together == pytest.approx(spread.wilson(5, 10))


def test_where_all_are_alike_a_world_counts_once() -> None:
    assert spread.of_share([False] * 16, [*range(8), *range(8)]) == spread.wilson(0, 8)
    assert spread.of_share([True] * 6, [3] * 6) == spread.wilson(1, 1)
    assert spread.of_share([True, False], [3, 3]) == spread.wilson(0.5, 1)
    assert spread.of_share([], []) == (0.0, 1.0)


def test_one_world_tells_nothing_of_others() -> None:
    assert spread.of_mean([1.0, 2.0], [7, 7]) is None
    assert spread.of_median([1.0, None, 3.0], [7, 8, 7]) is None
    assert spread.of_median([None, None], [7, 8]) is None


def test_a_median_is_of_those_that_have_a_value() -> None:
    values = [10.0, None, 20.0, 30.0, None, 40.0, 25.0]
    found = spread.of_median(values, [0, 0, 1, 2, 3, 4, 5])
    assert found is not None
    low, high = found
    assert 10.0 <= low < 20.0 < 30.0 < high <= 40.0
    assert spread.of_median(values[:6], [0, 0, 1, 2, 3, 4]) is None, "of four worlds"


def test_where_all_are_alike_nothing_is_told() -> None:
    assert spread.of_median([5.0] * 8, list(range(8))) is None
    assert spread.of_mean([0.0, 0.0, 0.0], [0, 1, 2]) is None


@pytest.mark.parametrize("together", [0.0, 0.8])
@pytest.mark.parametrize("count", [8, 20])
def test_nine_in_ten_hold_the_truth(together: float, count: int) -> None:
    """Means of a normal, medians, and the share above .5, whose truth is known; 200 trials."""
    rng, trials = np.random.default_rng(1), 200
    held = np.zeros(3)
    worlds = [n for n in range(count) for _ in range(2)]
    for _ in range(trials):
        common = np.repeat(rng.normal(size=count), 2)
        x = np.sqrt(together) * common + np.sqrt(1 - together) * rng.normal(size=2 * count)
        mean = spread.of_mean((x + 10).tolist(), worlds)
        middle = spread.of_median((x + 10).tolist(), worlds)
        assert mean is not None
        assert middle is not None
        share = spread.of_share((x > 0.5).tolist(), worlds)
        truths = ((mean, 10.0), (middle, 10.0), (share, 0.3085))
        held += [low <= truth <= high for (low, high), truth in truths]
    assert (held / trials >= 0.88).all(), held / trials
