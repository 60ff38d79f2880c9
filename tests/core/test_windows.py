"""Progress: how full each stage's window is, and what is missing."""

from typing import Any

import pytest

from qmtl.core.names import Reason, Stage
from qmtl.core.policy import RampStep
from qmtl.core.times import NEVER, instant
from qmtl.core.view import WorldView
from qmtl.core.windows import Progress, evidence_stage, progress
from qmtl.sim.scene import DAY, START
from tests.worlds import POLICY, climbing, governed, ready

R = Reason
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


def of(view: WorldView, stage: Stage) -> Progress:
    return progress(view, 0, stage, POLICY)


def test_a_backtest_is_the_span_of_its_series() -> None:
    found = of(ready(), Stage.BACKTEST)
    assert (found.observations, found.observed_sec) == (30, 29 * 86_400.0)
    assert found.required_sec == 20 * 86_400.0
    assert found.satisfied
    assert found.share == 1.0


def test_paper_is_its_window_since_it_was_entered() -> None:
    found = of(ready(), Stage.PAPER)
    assert (found.observations, found.observed_sec) == (12, 11 * 86_400.0)
    assert (found.started_at, found.ended_at) == (START + DAY, START + 12 * DAY)
    assert found.satisfied


CASES: list[tuple[Stage, dict[str, Any], tuple[Reason, ...]]] = [
    (Stage.BACKTEST, {"first_t": 0, "last_t": 20 * DAY_US - 1}, (R.BACKTEST_WINDOW_INCOMPLETE,)),
    (Stage.BACKTEST, {"points": 19}, (R.OBSERVATIONS_INSUFFICIENT,)),
    (
        Stage.BACKTEST,
        {"points": 0, "first_t": NEVER, "last_t": NEVER},
        (R.BACKTEST_WINDOW_INCOMPLETE, R.OBSERVATIONS_INSUFFICIENT),
    ),
    (Stage.PAPER, {"window_us": 10 * DAY_US - 1}, (R.PAPER_WINDOW_INCOMPLETE,)),
    (Stage.PAPER, {"window_points": 7}, (R.OBSERVATIONS_INSUFFICIENT,)),
    (Stage.PAPER, {"window_us": 10 * DAY_US, "window_points": 8}, ()),
]


@pytest.mark.parametrize(("stage", "track", "reasons"), CASES)
def test_what_is_missing_is_told(
    stage: Stage, track: dict[str, Any], reasons: tuple[Reason, ...]
) -> None:
    view = ready()
    changed = view.tracks[stage].put(0, **track)
    found = of(ready(tracks={**view.tracks, stage: changed}), stage)
    assert tuple(reason for reason, _ in found.shortfalls()) == reasons
    assert found.satisfied == (not reasons)
    assert (found.share < 1.0) == bool(reasons)


def test_a_step_is_observed_since_it_was_reached() -> None:
    view = climbing()
    whole = of(view, Stage.LIVE)
    assert whole.required_sec == 5 * 86_400.0  # Of the step ahead.
    assert whole.observed_sec == 6 * 86_400.0
    since = of(climbing(standing={"step_window_us": 2 * DAY_US}), Stage.LIVE)
    assert since.observed_sec == 4 * 86_400.0
    assert [reason for reason, _ in since.shortfalls()] == [R.OBSERVATIONS_INSUFFICIENT]


def test_at_the_top_of_the_ramp_nothing_is_asked() -> None:
    assert of(climbing(standing={"step": 1}), Stage.LIVE).required_sec == 0.0
    short = governed(ramp=POLICY.governance.ramp[:1])
    assert progress(climbing(), 0, Stage.LIVE, short).required_sec == 0.0


def test_each_step_asks_for_its_own() -> None:
    ramp = tuple(
        RampStep(fraction=fraction, observe=days * DAY)
        for fraction, days in ((0.1, 1), (0.5, 2), (0.8, 3), (1.0, 4))
    )
    asked = [
        progress(climbing(standing={"step": step}), 0, Stage.LIVE, governed(ramp=ramp))
        for step in range(4)
    ]
    days = [found.required_sec / 86_400 for found in asked]
    assert days == [2.0, 3.0, 4.0, 0.0]
    assert {found.required_observations for found in asked} == {1}


def test_of_nothing_nothing_was_observed() -> None:
    nothing = {"points": 0, "first_t": NEVER, "last_t": NEVER}
    view = ready()
    tracks = {**view.tracks, Stage.BACKTEST: view.tracks[Stage.BACKTEST].put(0, **nothing)}  # type: ignore[arg-type]  # Columns.
    assert of(ready(tracks=tracks), Stage.BACKTEST).observed_sec == 0.0


def test_a_share_is_of_what_is_further_behind() -> None:
    half = {"window_us": 5 * DAY_US, "window_points": 100}
    assert of(ready(track=half), Stage.PAPER).share == 0.5
    few = {"window_us": 99 * DAY_US, "window_points": 2}
    assert of(ready(track=few), Stage.PAPER).share == 0.25


def test_shadow_asks_for_one_observation() -> None:
    found = of(ready(), Stage.SHADOW)
    assert (found.required_sec, found.required_observations) == (0.0, 1)
    assert (found.started_at, found.ended_at) == (None, None)


def test_paper_proves_the_first_step_and_live_the_rest() -> None:
    assert [evidence_stage(step) for step in range(3)] == [Stage.PAPER, Stage.LIVE, Stage.LIVE]


def test_instants_survive_the_columns() -> None:
    found = of(ready(track={"window_first_t": 1, "window_last_t": HOUR_US}), Stage.PAPER)
    assert found.started_at == instant(1)


@pytest.mark.parametrize(("points", "full"), [(600, True), (601, False), (50_000, False)])
def test_bars_of_another_length_fill_no_window(points: int, full: bool) -> None:
    """Ten daily bars a day, and 500 beyond: ten days have room for 600."""
    view = ready()
    dense = view.tracks[Stage.PAPER].put(0, window_us=10 * DAY_US, window_points=points)
    found = of(ready(tracks={**view.tracks, Stage.PAPER: dense}), Stage.PAPER)
    assert found.satisfied == full
    if not full:
        assert [reason for reason, _ in found.shortfalls()] == [R.OBSERVATIONS_INSUFFICIENT]
        assert "periods_per_year" in found.shortfalls()[0][1]
