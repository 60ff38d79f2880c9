"""Paper against its replay, and live against paper."""

import math

import numpy as np
import pytest

from qmtl.core.columns import Float
from qmtl.core.evidence import drift
from qmtl.core.evidence.drift import DRIFTS_MIN, HEALTHY_MIN, RATES, Healthy, Sums


def sums(values: np.ndarray) -> Sums:
    held = Sums(np.zeros(1), np.zeros(1), np.zeros(1))
    for value in values:
        held = drift.more(held, np.array([value]), np.array([True]))
    return held


def test_the_sums_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(0.3, 2.0, 40)
    held = sums(values)
    assert held.count == 40
    assert held.mean == pytest.approx(values.mean(), rel=1e-12)
    assert held.deviation == pytest.approx(values.std(ddof=1), rel=1e-12)


def test_what_is_not_counted_was_not_there() -> None:
    held = sums(np.array([1.0, 2.0]))
    after = drift.more(held, np.array([math.nan]), np.array([False]))
    assert (after.count, after.mean, after.m2) == (held.count, held.mean, held.m2)


@pytest.mark.parametrize("count", [0, 1])
def test_one_value_has_no_deviation(count: int) -> None:
    assert math.isnan(sums(np.ones(count)).deviation[0])


def test_the_radius_by_hand() -> None:
    """WS24, eq. 3, for 60 values of deviation 1 at 5 %."""
    held = Sums(np.array([60.0]), np.array([0.0]), np.array([59.0]))
    wide = -2 * math.log(0.05)
    rho2 = (wide + math.log(wide + 1)) / 60
    by_hand = math.sqrt(
        2 * (60 * rho2 + 1) / (60**2 * rho2) * math.log(math.sqrt(60 * rho2 + 1) / 0.05)
    )
    assert drift.drift_radius(held, 0.05)[0] == pytest.approx(by_hand, rel=1e-12)


def test_too_few_say_nothing() -> None:
    few = sums(np.arange(DRIFTS_MIN - 1.0))
    assert math.isnan(drift.drift_radius(few, 0.05)[0])
    assert math.isnan(drift.drift_radius(sums(np.empty(0)), 0.05)[0])
    assert drift.drift_radius(sums(np.arange(float(DRIFTS_MIN))), 0.05)[0] > 0


def test_without_drift_the_sequence_seldom_excludes_zero() -> None:
    paths, rng, out = 1_000, np.random.default_rng(1), np.zeros(1_000, bool)
    held = Sums(*(np.zeros(paths) for _ in range(3)))
    for _ in range(250):
        held = drift.more(held, rng.normal(0, 1, paths), np.ones(paths, bool))
        radius = drift.drift_radius(held, 0.05)
        out |= np.abs(held.mean) > radius
    assert out.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / paths)


def test_a_steady_cost_is_found() -> None:
    rng = np.random.default_rng(2)
    held = sums(rng.normal(-0.0005, 0.0005, 60))
    assert held.mean[0] < -drift.drift_radius(held, 0.05)[0]


@pytest.mark.parametrize("apart", [0.0, 1e-18, -1e-18, 5e-13])
def test_what_two_ways_of_adding_up_differ_by_is_no_drift(apart: float) -> None:
    """A replay that adds up in another order is the same replay, though it always errs one way."""
    held = sums(np.full(60, apart))
    assert np.abs(held.mean[0]) <= drift.drift_radius(held, 0.05)[0]


@pytest.mark.parametrize("cost", [-1e-5, 1e-5])
def test_a_cost_that_never_varies_is_drift(cost: float) -> None:
    held = sums(np.full(60, cost))
    assert np.abs(held.mean[0]) > drift.drift_radius(held, 0.05)[0]


# ---- The likely cause --------------------------------------------------------------------------


def planted(name: str, rng: np.random.Generator) -> tuple[Float, Float]:
    """120 days of paper, and of its replay, NaN where there is none; 16 % a year of volatility."""
    replay = rng.normal(0.0005, 0.01, 120)
    traded = rng.uniform(0.5, 1.5, 120)  # What is turned over varies from day to day.
    match name:
        case "costs":
            return replay - 0.001 * traded, replay
        case "costs that nobody pays":
            return replay + 0.001 * traded, replay
        case "another vendor":
            return replay + rng.normal(0, 0.004, 120), replay
        case "a bar late":
            return np.roll(replay, 1), replay
        case "another strategy":
            return rng.normal(0.0005, 0.01, 120), replay
        case "missing bars":
            return replay, np.where(rng.uniform(size=120) < 0.25, np.nan, replay)
        case _:
            return replay - 0.0035 + rng.normal(0, 0.0035, 120), replay


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("costs", drift.Cause.COSTS),
        ("costs that nobody pays", drift.Cause.COSTS),
        ("another vendor", drift.Cause.OTHER_DATA),
        ("a bar late", drift.Cause.OTHER_DATA),
        ("another strategy", drift.Cause.OTHER_DATA),
        ("missing bars", drift.Cause.MISSING_BARS),
        ("both costs and data", drift.Cause.UNCLEAR),
    ],
)
def test_what_was_planted_is_named(name: str, cause: drift.Cause) -> None:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(200):
        paper, replay = planted(name, rng)
        apart = paper - replay
        held = sums(apart[np.isfinite(apart)])
        found.append(drift.likely_cause(held, 0.05, len(paper), float(paper.std(ddof=1))))
    assert found.count(cause) >= 190, {each: found.count(each) for each in drift.Cause}


def apart_by(count: int, deviation: float, mean: float = 1.0) -> Sums:
    return Sums(*(np.array([each]) for each in (count, mean, deviation**2 * (count - 1))))


@pytest.mark.parametrize(
    ("held", "bars", "cause"),
    [
        (apart_by(89, 0.0), 100, drift.Cause.MISSING_BARS),
        (apart_by(90, 0.0), 100, drift.Cause.COSTS),
        (apart_by(DRIFTS_MIN - 1, 4.0), 10, drift.Cause.UNCLEAR),
        (apart_by(DRIFTS_MIN, 4.0), 10, drift.Cause.OTHER_DATA),
        (apart_by(65, 0.5), 65, drift.Cause.COSTS),
        (apart_by(65, 0.625), 65, drift.Cause.UNCLEAR),
        (apart_by(65, 1.0), 65, drift.Cause.OTHER_DATA),
    ],
)
def test_a_limit_belongs_to_the_side_it_is_told_to(
    held: Sums, bars: int, cause: drift.Cause
) -> None:
    """Of a volatility of 2, what differs by a quarter differs evenly, and by a half does not."""
    assert drift.likely_cause(held, 0.05, bars, 2.0) is cause


def test_bars_that_only_the_engine_has_are_missing() -> None:
    held = apart_by(100, 0.0)
    assert drift.likely_cause(held, 0.05, 90, 2.0, unrealised=10) is drift.Cause.COSTS
    assert drift.likely_cause(held, 0.05, 89, 2.0, unrealised=11) is drift.Cause.MISSING_BARS
    assert drift.likely_cause(held, 0.05, 95, 2.0, unrealised=10) is drift.Cause.MISSING_BARS


def test_a_mean_on_the_radius_is_no_drift() -> None:
    radius = float(drift.drift_radius(apart_by(65, 0.5), 0.05)[0])
    on, beyond = apart_by(65, 0.5, radius), apart_by(65, 0.5, np.nextafter(radius, 1))
    assert drift.likely_cause(on, 0.05, 65, 2.0) is drift.Cause.OTHER_DATA
    assert drift.likely_cause(beyond, 0.05, 65, 2.0) is drift.Cause.COSTS


def test_of_too_little_no_cause_is_named() -> None:
    assert drift.likely_cause(sums(np.full(9, -0.01)), 0.05, 9, 0.01) is drift.Cause.UNCLEAR


# ---- Decay -------------------------------------------------------------------------------------

SOME = np.random.default_rng(8).normal(0.001, 0.01, 40)


def test_what_live_has_to_keep_up() -> None:
    r = np.random.default_rng(3).normal(0.001, 0.01, 252)
    found = drift.healthy(r)
    assert found is not None
    assert found.cap == pytest.approx(3 * r.std(ddof=1))
    assert found.mean == pytest.approx(np.minimum(r, found.cap).mean() / 2)


@pytest.mark.parametrize(
    "returns", [list(SOME[: HEALTHY_MIN - 1]), [0.01] * 19, [0.01] * 50, [math.nan] * 50]
)
def test_of_too_few_or_flat_returns_nothing_is_learnt(returns: list[float]) -> None:
    assert drift.healthy(np.array(returns)) is None


def test_twenty_are_enough() -> None:
    assert drift.healthy(SOME[:HEALTHY_MIN]) is not None


def alarm_at(live: np.ndarray, told: Healthy, limit: float) -> int | None:
    held = np.zeros((1, len(RATES)))
    for day, r in enumerate(live):
        held = drift.more_decay(held, np.array([r]), np.array([told.cap]), np.array([told.mean]))
        if drift.decay(held)[0] >= limit:
            return day
    return None


TOLD = Healthy(cap=0.03, mean=0.0005)


def test_the_detector_by_hand() -> None:
    held = np.zeros((1, len(RATES)))
    for r in (0.01, -0.02, 0.5):
        held = drift.more_decay(held, np.array([r]), np.array([0.03]), np.array([0.0005]))
    by_hand = []
    for rate in RATES:
        m, bet = 0.0, rate / (0.03 - 0.0005)
        for r in (0.01, -0.02, 0.03):  # Capped.
            m = (m + 1) * (1 - bet * (r - 0.0005))
        by_hand.append(m)
    assert drift.decay(held)[0] == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert drift.decay(held[0]) == drift.decay(held)[0]  # Of one strategy alone.


@pytest.mark.parametrize(
    ("wild", "accused"), [(math.nan, True), (-math.inf, True), (math.inf, False)]
)
def test_what_is_no_return_is_the_worst_there_is(wild: float, accused: bool) -> None:
    """Nobody stays live because a number was missing; a gain counts as the cap."""
    held = np.zeros((1, len(RATES)))
    for r in (0.001, wild):
        held = drift.more_decay(held, np.array([r]), np.array([0.03]), np.array([0.0005]))
    assert bool(drift.decay(held)[0] >= 1e6) is accused


def test_a_healthy_strategy_is_seldom_accused() -> None:
    """On average once in `limit` observations at the most: over 504, few of 300 paths."""
    rng = np.random.default_rng(4)
    accused = [alarm_at(rng.normal(0.0013, 0.01, 504), TOLD, 504.0) is not None for _ in range(300)]
    assert np.mean(accused) < 0.2


def test_a_decayed_one_is() -> None:
    """From Sharpe 2 to -1: half are found within two years."""
    rng = np.random.default_rng(5)
    found = [alarm_at(rng.normal(-0.00063, 0.01, 504), TOLD, 504.0) for _ in range(100)]
    assert np.mean([day is not None for day in found]) > 0.5


def test_a_crash_is_found_at_once() -> None:
    assert alarm_at(np.full(50, -0.05), TOLD, 504.0) in range(1, 15)
