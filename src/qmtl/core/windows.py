"""How far a window has been filled, and what is missing.  Data time only (DESIGN 7.2)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import assert_never

from .names import Phase, Reason, Stage
from .policy import Policy, Window
from .times import DAY_SEC, NEVER, in_words, instant_or_none
from .view import WorldView

PHASE_OF = {
    Stage.BACKTEST: Phase.BACKTEST,
    Stage.PAPER: Phase.PAPER,
    Stage.LIVE: Phase.LIVE,
}
STAGE_OF = {phase: stage for stage, phase in PHASE_OF.items()}
INCOMPLETE = {
    Stage.BACKTEST: Reason.BACKTEST_WINDOW_INCOMPLETE,
    Stage.PAPER: Reason.PAPER_WINDOW_INCOMPLETE,
    Stage.LIVE: Reason.OBSERVATIONS_INSUFFICIENT,
    Stage.SHADOW: Reason.OBSERVATIONS_INSUFFICIENT,
}


def evidence_stage(step: int) -> Stage:
    """Where the evidence for a ramp step comes from: paper for the first, live for the rest."""
    return Stage.PAPER if step == 0 else Stage.LIVE


# Markets open a few hours a day, so bars come in bursts. More than this many in the time of a
# window are bars of another length than the policy annualises by: their Sharpe has no unit (I9).
DENSITY_MAX = 10.0  # Observations a bar of the policy's,
DENSITY_SLACK = 500  # beyond a first handful.


class Part(Enum):
    """What of a window can be short: data time, observations, or the length of their bars."""

    TIME = "time"
    COUNT = "count"
    DENSITY = "density"


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One part of a window that is not full: how much of it there is, and is needed."""

    reason: Reason
    detail: str
    part: Part
    have: float  # Seconds, or observations.
    need: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A window: what the policy asks, what has been observed, and the share of it (0 to 1)."""

    stage: Stage
    required_sec: float
    observed_sec: float
    required_observations: int
    observations: int
    bar_sec: float  # Of the policy: a year over its periods_per_year.
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def satisfied(self) -> bool:
        return not self.shortfalls()

    @property
    def share(self) -> float:
        by_time = self.observed_sec / self.required_sec if self.required_sec else 1.0
        needed = self.required_observations
        by_count = self.observations / needed if needed else 1.0
        return min(1.0, by_time, by_count)

    def shortfalls(self) -> list[tuple[Reason, str]]:
        """Every reason why the window is not full, with its numbers."""
        return [(lack.reason, lack.detail) for lack in self.lacking()]

    def lacking(self) -> list[Shortfall]:
        """Every part of the window that is not full."""
        checks = (
            (
                self.observed_sec >= self.required_sec,
                Shortfall(
                    INCOMPLETE[self.stage],
                    f"{self.stage} window: {self.observed_sec / DAY_SEC:.1f} of "
                    f"{self.required_sec / DAY_SEC:.1f} days observed",
                    Part.TIME,
                    self.observed_sec,
                    self.required_sec,
                ),
            ),
            (
                self.observations >= self.required_observations,
                Shortfall(
                    Reason.OBSERVATIONS_INSUFFICIENT,
                    f"{self.stage} observations: {self.observations} of "
                    f"{self.required_observations}",
                    Part.COUNT,
                    self.observations,
                    self.required_observations,
                ),
            ),
            (
                self.observations <= DENSITY_SLACK + DENSITY_MAX * self.observed_sec / self.bar_sec,
                Shortfall(
                    Reason.OBSERVATIONS_INSUFFICIENT,
                    f"{self.stage}: {self.observations} observations in "
                    f"{in_words(self.observed_sec)} are no bars of {in_words(self.bar_sec)}; "
                    "see the policy's periods_per_year",
                    Part.DENSITY,
                    self.observations,
                    self.observations,
                ),
            ),
        )
        return [lack for holds, lack in checks if not holds]


def progress(view: WorldView, row: int, stage: Stage, policy: Policy) -> Progress:
    """The window in the phase of `stage`; of live, that of the next ramp step."""
    track = view.tracks[stage]
    if stage is Stage.BACKTEST:
        first, last = int(track.first_t[row]), int(track.last_t[row])
        observed = 0 if first == NEVER else last - first
        points = int(track.points[row])
    else:
        first, last = int(track.window_first_t[row]), int(track.window_last_t[row])
        observed = int(track.window_us[row])
        points = int(track.window_points[row])
    if stage is Stage.LIVE:
        observed -= int(view.standings.step_window_us[row])
    window = _window(policy, stage, int(view.standings.step[row]))
    return Progress(
        stage=stage,
        required_sec=window.span.total_seconds(),
        observed_sec=observed / 1e6,
        required_observations=window.min_observations,
        observations=points,
        bar_sec=policy.data.bar.total_seconds(),
        started_at=instant_or_none(first),
        ended_at=instant_or_none(last),
    )


def _window(policy: Policy, stage: Stage, step: int) -> Window:
    match stage:
        case Stage.BACKTEST:
            return policy.campaign.backtest
        case Stage.PAPER:
            return policy.campaign.paper
        case Stage.LIVE:  # What the next ramp step asks to be observed; at the top, nothing.
            ahead = policy.governance.ramp[step + 1 : step + 2]
            return Window(span=ahead[0].observe if ahead else timedelta(0), min_observations=1)
        case Stage.SHADOW:
            return Window(span=timedelta(0), min_observations=1)
        case _:
            assert_never(stage)
