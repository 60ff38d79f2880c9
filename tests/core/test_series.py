"""Series and windows: a window holds accepted points after its beginning, gaps capped, no other."""

from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.core.columns import Float, Int64, Track
from qmtl.core.facts import Points
from qmtl.core.names import Stage
from qmtl.core.policy import Data, Policy
from qmtl.core.series import (
    EQUITY_MAX,
    OVERLAP_MIN,
    Series,
    accepted,
    append,
    blank_window,
    correlation,
)
from qmtl.core.snapshot import packed
from qmtl.core.times import NEVER, instant, micros
from qmtl.sim.scene import DAY, START
from tests.worlds import ALPHA, BETA

POLICY = Policy(data=Data(periods_per_year=365.25, max_lag=5 * DAY))  # A bar is a day.
DAY_US = 86_400_000_000
T0 = micros(START)
ROW = np.array([0])
FLOATS = {"equity", "peak", "drawdown"}


def track(window_from: int = T0, rows: int = 1) -> Track:
    return Track.blank(rows).put(slice(None), window_from=window_from)


def points(t: list[int], r: list[float]) -> Points:
    return packed([(ALPHA, np.array(t, np.int64), np.array(r, np.float64))])


def after(held: Track, t: list[int], r: list[float], now_us: int | None = None) -> Track:
    """The track after points of one strategy that came at once: at the last one's time."""
    received_at = instant(t[-1] if now_us is None else now_us)
    return append(held, ROW, points(t, r), Stage.PAPER, received_at, POLICY)


def row(held: Track, i: int = 0) -> dict[str, object]:
    return {name: array[i] for name, array in held.arrays().items()}


# ---- A batch is its points, one by one ---------------------------------------------------------

returns = st.floats(-1, 3, allow_nan=False) | st.sampled_from([0.0, -1.0, 1000.0])
gaps = st.integers(1, 20 * DAY_US) | st.sampled_from([1, DAY_US, 5 * DAY_US, 5 * DAY_US + 1])
bars = st.lists(st.tuples(gaps, returns), min_size=1, max_size=12)


def placed(drawn: list[tuple[int, float]], start: int) -> tuple[list[int], list[float]]:
    times = (start + np.cumsum([gap for gap, _ in drawn])).tolist()
    return times, [r for _, r in drawn]


def same(a: Track, b: Track) -> None:
    for name, array in a.arrays().items():
        if name in FLOATS:  # Compounded in another order of operations.
            assert array == pytest.approx(b.arrays()[name], rel=1e-9, abs=1e-9), name
        elif name != "digest":
            assert array.tobytes() == b.arrays()[name].tobytes(), name


@given(bars, st.integers(-10 * DAY_US, 10 * DAY_US), st.data())
def test_a_batch_is_its_points_one_by_one(
    drawn: list[tuple[int, float]], offset: int, data: st.DataObject
) -> None:
    t, r = placed(drawn, T0 + offset)
    now = t[-1]
    whole = after(track(), t, r, now)
    cut = data.draw(st.integers(0, len(t)))
    one_by_one = track()
    for part in (slice(0, cut), slice(cut, len(t))):
        if t[part]:
            one_by_one = after(one_by_one, t[part], r[part], now)
    same(whole, one_by_one)


@given(st.lists(bars, min_size=1, max_size=4))
def test_strategies_together_are_strategies_apart(several: list[list[tuple[int, float]]]) -> None:
    posted = [placed(drawn, T0 - 3 * DAY_US) for drawn in several]
    now = instant(max(t[-1] for t, _ in posted))
    rows = np.arange(len(posted))
    together = append(
        track(rows=len(posted)),
        rows,
        packed([(ALPHA, np.array(t), np.array(r, np.float64)) for t, r in posted]),
        Stage.PAPER,
        now,
        POLICY,
    )
    for i, (t, r) in enumerate(posted):
        apart = append(track(), ROW, points(t, r), Stage.PAPER, now, POLICY)
        assert row(together, i)["digest"] == row(apart)["digest"]
        for name, array in together.arrays().items():
            # Equal too in floats: each strategy's arithmetic is its own.
            assert array[i].tobytes() == apart.arrays()[name][0].tobytes(), name


@given(bars, st.integers(-5 * DAY_US, 5 * DAY_US))
def test_a_window_is_what_its_definition_says(drawn: list[tuple[int, float]], offset: int) -> None:
    t, r = placed(drawn, T0 + offset)
    found = row(after(track(), t, r))
    counted = [
        (time, ret)
        for time, ret in zip(t, r, strict=True)
        if time > T0 and time >= t[-1] - 5 * DAY_US
    ]
    equity = peak = 1.0
    drawdown = 0.0
    for ret in (ret for time, ret in zip(t, r, strict=True) if time > T0):  # Late ones, too.
        equity = min(equity * (1 + ret), EQUITY_MAX)
        peak = max(peak, equity)
        drawdown = max(drawdown, 1 - equity / peak)
    steps = [min(b - a, 5 * DAY_US) for (a, _), (b, _) in pairwise(counted)]
    assert found["points"] == len(t)
    assert found["window_points"] == len(counted)
    assert found["window_us"] == sum(steps)
    assert found["window_first_t"] == (counted[0][0] if counted else NEVER)
    assert found["window_last_t"] == (counted[-1][0] if counted else NEVER)
    assert found["equity"] == pytest.approx(equity, rel=1e-9)
    assert found["drawdown"] == pytest.approx(drawdown, rel=1e-9, abs=1e-9)


# ---- What counts -------------------------------------------------------------------------------


def test_a_gap_counts_as_five_bars_at_most() -> None:
    for gap, counts in ((DAY_US, DAY_US), (5 * DAY_US, 5 * DAY_US), (5 * DAY_US + 1, 5 * DAY_US)):
        held = after(track(), [T0 + DAY_US], [0.0])
        held = after(held, [T0 + DAY_US + gap], [0.0])
        assert row(held)["window_us"] == counts


def test_a_late_point_is_kept_and_counts_for_no_window_but_its_loss_is_a_loss() -> None:
    now = T0 + 10 * DAY_US
    late, in_time = now - 5 * DAY_US - 1, now - 5 * DAY_US
    held = after(track(), [late, in_time, now], [-0.5, 0.0, 0.0], now)
    found = row(held)
    assert (found["points"], found["window_points"]) == (3, 2)
    assert found["window_us"] == 5 * DAY_US  # Since the first that counts.
    assert found["drawdown"] == 0.5
    assert found["first_t"] == late


def test_a_late_point_does_not_bridge_a_gap() -> None:
    held = after(track(), [T0 + DAY_US], [0.0])
    now = T0 + 12 * DAY_US
    held = after(held, [T0 + 2 * DAY_US, now], [0.0, 0.0], now)
    assert row(held)["window_us"] == 5 * DAY_US  # From day 1 to day 12, capped.


def test_a_point_from_before_the_entry_does_not_count() -> None:
    held = after(track(), [T0 - DAY_US, T0, T0 + 1], [-0.5, -0.5, 0.1])
    found = row(held)
    assert (found["points"], found["window_points"], found["window_us"]) == (3, 1, 0)
    assert found["drawdown"] == 0.0


def test_nothing_counts_before_a_window_is_entered() -> None:
    found = row(after(track(NEVER), [T0, T0 + DAY_US], [0.1, -0.1]))
    assert (found["points"], found["window_points"], found["window_us"]) == (2, 0, 0)
    assert found["equity"] == 1.0


def test_without_a_policy_only_a_backtest_counts() -> None:
    t = np.array([T0, T0 + 1])
    assert not accepted(t, Stage.PAPER, START, None).any()
    assert not accepted(t, Stage.LIVE, START, None).any()
    assert accepted(t, Stage.BACKTEST, START + 9999 * DAY, None).all()


def test_a_loss_on_the_first_bar_counts() -> None:
    assert row(after(track(), [T0 + 1], [-0.25]))["drawdown"] == 0.25


def test_ruin_is_forever() -> None:
    held = after(track(), [T0 + 1, T0 + 2, T0 + 3], [0.5, -1.0, 1000.0])
    found = row(held)
    assert (found["equity"], found["drawdown"]) == (0.0, 1.0)


def test_equity_never_overflows() -> None:
    held = track()
    for i in range(4):
        t = [T0 + 200 * i + j for j in range(1, 101)]
        held = after(held, t, [1000.0] * 100, T0 + DAY_US)
    found = row(held)
    assert found["equity"] == found["peak"] == EQUITY_MAX
    assert found["drawdown"] == 0.0
    ruined = row(after(held, [T0 + 1000], [-1.0], T0 + DAY_US))
    assert (ruined["equity"], ruined["drawdown"]) == (0.0, 1.0)


def test_a_window_begins_anew_and_the_series_goes_on() -> None:
    held = after(track(), [T0 + DAY_US, T0 + 2 * DAY_US], [0.1, -0.5])
    anew = blank_window(held, 0, T0 + 2 * DAY_US)
    found, was = row(anew), row(held)
    assert (found["window_points"], found["window_us"], found["drawdown"]) == (0, 0, 0.0)
    assert (found["points"], found["digest"]) == (was["points"], was["digest"])
    later = row(after(anew, [T0 + 3 * DAY_US], [0.1]))
    assert (later["window_points"], later["window_us"]) == (1, 0)  # No gap reaches back.


# ---- Digests -----------------------------------------------------------------------------------


def test_a_digest_chains_the_one_before_and_tells_every_part() -> None:
    first = after(track(), [T0 + 1], [0.1])
    assert row(after(first, [T0 + 2], [0.1]))["digest"] != row(first)["digest"]
    digests = {
        bytes(row(held)["digest"])  # type: ignore[call-overload]  # It is bytes.
        for held in (
            after(first, [T0 + 2], [0.1]),
            after(first, [T0 + 3], [0.1]),
            after(first, [T0 + 2], [0.2]),
            after(first, [T0 + 2], [0.1], T0 + 9 * DAY_US),  # Late.
            after(track(), [T0 + 2], [0.1]),
        )
    }
    assert len(digests) == 5


def test_an_empty_batch_changes_nothing() -> None:
    held = after(track(), [T0 + 1], [0.1])
    nothing = Points(strategies=(ALPHA, BETA), counts=(0, 0))
    assert append(held, np.array([0, 0]), nothing, Stage.PAPER, START, POLICY) is held


def test_what_was_handed_out_does_not_change() -> None:
    held = after(track(), [T0 + 1], [0.1])
    before = {name: array.copy() for name, array in held.arrays().items()}
    after(held, [T0 + 2], [0.1])
    blank_window(held, 0, T0)
    for name, array in held.arrays().items():
        assert array.tobytes() == before[name].tobytes()
        assert not array.flags.writeable


# ---- Series ------------------------------------------------------------------------------------


def series(r: Float, start: int = 0) -> Series:
    t: Int64 = np.arange(start, start + len(r), dtype=np.int64)
    return Series(t, r, np.ones(len(r), np.bool_))


def test_since_is_strictly_after_and_accepted() -> None:
    held = Series(
        np.array([1, 2, 3, 4]), np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, True, False, True])
    )
    assert held.since(1).tolist() == [0.2, 0.4]
    assert held.since(NEVER).tolist() == [0.1, 0.2, 0.4]
    assert held.since(4).tolist() == []


RNG = np.random.default_rng(1)
NOISE, OTHER = RNG.normal(size=OVERLAP_MIN), RNG.normal(size=OVERLAP_MIN)


def test_correlation_is_pearsons_at_common_times() -> None:
    assert correlation(series(NOISE), series(NOISE)) == pytest.approx(1.0)
    assert correlation(series(NOISE), series(-2 * NOISE)) == pytest.approx(-1.0)
    expected = np.corrcoef(NOISE, OTHER)[0, 1]
    assert correlation(series(NOISE), series(OTHER)) == pytest.approx(expected)
    longer = series(np.concatenate([[9.0, -9.0], OTHER]), start=-2)
    assert correlation(series(NOISE), longer) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (series(NOISE), series(OTHER[1:], start=1)),  # One too few in common.
        (series(NOISE), series(OTHER, start=1000)),
        (series(NOISE), series(np.full(OVERLAP_MIN, 0.1))),
        (series(NOISE), series(np.full(OVERLAP_MIN, 0.1 + 0.2))),
        (series(NOISE), series(np.where(np.arange(OVERLAP_MIN) % 2, 0.3, 0.1 + 0.2))),  # Rounding.
        (series(NOISE), series(np.zeros(OVERLAP_MIN))),
    ],
    ids=["few", "none", "constant", "rounded", "constant but for rounding", "quiet"],
)
def test_a_correlation_that_says_nothing_is_none(a: Series, b: Series) -> None:
    assert correlation(a, b) is None
    assert correlation(b, a) is None


@pytest.mark.parametrize("scale", [1e-100, 1e-9, 1e3])
def test_a_correlation_has_no_scale(scale: float) -> None:
    expected = correlation(series(NOISE), series(OTHER))
    assert correlation(series(NOISE * scale), series(OTHER)) == pytest.approx(expected)


def test_a_bar_is_a_year_over_its_periods() -> None:
    assert Data(periods_per_year=365.25).bar == DAY
    assert Data(periods_per_year=365.25 * 24).bar == timedelta(hours=1)
