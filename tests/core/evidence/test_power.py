"""Power by simulation: the spacing of its looks, and what it has to agree with."""

import math

import numpy as np
import pytest

from qmtl.core.evidence import power
from qmtl.core.evidence.eprocess import BLOCKS_MIN
from qmtl.core.evidence.power import LOOKS

DESIGN = 1.5 * math.sqrt(5 / 252)


@pytest.mark.parametrize(
    ("total", "first", "steps"),
    [
        (9, 10, []),
        (0, 1, []),
        (10, 10, [10]),
        (12, 10, [10, 1, 1]),
        (10 + LOOKS, 10, [10, *[1] * LOOKS]),
        (11 + LOOKS, 10, [10, *[2] * (LOOKS // 2), 1]),
        (10 + 2 * LOOKS, 10, [10, *[2] * LOOKS]),
        (1_000, 10, [10, *[17] * 58, 4]),
    ],
)
def test_steps_add_up(total: int, first: int, steps: list[int]) -> None:
    assert power._steps(total, first) == steps
    assert sum(steps) in (0, total)
    assert len(steps) <= LOOKS + 1


def test_a_year_of_skill_is_what_the_table_says() -> None:
    """EVIDENCE: at Sharpe 2, .72, .35, .21 reach 3, 10, 20 within a year; at 1, .38, .10, .04."""
    for annual, shares in ((2.0, (0.72, 0.35, 0.21)), (1.0, (0.38, 0.10, 0.04))):
        best = power.best_of_blocks(annual * math.sqrt(5 / 252), DESIGN, 50)
        found = [float((best >= c).mean()) for c in (3, 10, 20)]
        assert found == pytest.approx(shares, abs=0.05)


def test_too_little_time_shows_nothing() -> None:
    assert not power.best_of_blocks(5.0, DESIGN, BLOCKS_MIN - 1).any()
    assert not power.best_of_bets(5.0, 0.01, 0.1, 0).any()


def test_without_skill_the_bound_holds_for_each_method() -> None:
    paths = power.PATHS
    for best in (
        power.best_of_blocks(0.0, DESIGN, 100),
        power.best_of_blocks(0.0, DESIGN, 100, 100),
        power.best_of_bets(0.0, 0.10 / math.sqrt(252), 0.1, 504),
    ):
        for c in (3, 10, 20):
            assert (best >= c).mean() <= 1 / c + 3 * math.sqrt(1 / c * (1 - 1 / c) / paths)


def test_a_declared_end_has_more_power_at_it() -> None:
    sharpe = 2 * math.sqrt(5 / 252)
    declared = power.best_of_blocks(sharpe, DESIGN, 100, 100)
    open_ended = power.best_of_blocks(sharpe, DESIGN, 100)
    assert (declared >= 20).mean() > (open_ended >= 20).mean()


def test_chance_is_the_same_each_time() -> None:
    again = power.best_of_blocks.__wrapped__(0.1, DESIGN, 30)
    np.testing.assert_array_equal(again, power.best_of_blocks(0.1, DESIGN, 30))
