"""What a world demands before it promotes.  Immutable; a change is a new version.

The document format is POLICY's; `adapters/policies` reads it.  Here are its meaning and its
defaults, as types: what is not here cannot be asked of a strategy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Literal

from cronsim import CronSim  # Pure: a cron expression and an instant give an instant.

from .names import Role, Stage
from .times import SECONDS_PER_YEAR

FREEZES_MAX = 1_000  # That run into one another; more are one without an end.
GAP_BARS_MAX = 5  # A longer gap between observations fills a window as five bars would.


class OnMissing(StrEnum):
    """What a gate answers when its metric has no value.  There is no `pass`."""

    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    periods_per_year: float = 252.0
    max_lag: timedelta = timedelta(days=5)

    @property
    def bar(self) -> timedelta:
        """The length of one bar: a year over `periods_per_year`."""
        return timedelta(seconds=SECONDS_PER_YEAR / self.periods_per_year)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How long a strategy is observed in a phase: data time, and a number of observations."""

    span: timedelta
    min_observations: int
    max_window: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    backtest: Window = Window(span=timedelta(days=730), min_observations=504)
    paper: Window = Window(
        span=timedelta(days=60), min_observations=40, max_window=timedelta(days=730)
    )
    evaluate_every: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One gate: a metric, unit in its name, and the least or the most it may be."""

    metric: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """All gates of a stage are required.  There is no OR: it would need a correction."""

    by_stage: Mapping[Stage, tuple[Bound, ...]] = field(default_factory=dict)
    on_missing: OnMissing = OnMissing.FAIL

    def of(self, stage: Stage) -> tuple[Bound, ...]:
        return self.by_stage.get(stage, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperEvidence:
    method: Literal["t_mixture", "bounded", "group_sequential"] = "t_mixture"
    hurdle_annual: float = 0.0
    block: int = 5
    design_sharpe_annual: float = 1.5
    backtest_credit_cap: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Futility:
    sharpe_annual: float = 1.0
    beta: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    max_tracking_error_annual: float = 0.10
    alpha: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the returns must prove.  Until it can be computed, a world that asks for it
    promotes nobody: `evidence_insufficient`."""

    alpha: float = 0.05
    multiplicity: Literal["e_bh", "spending", "per_strategy"] = "e_bh"
    trials_default: int = 10
    selection_max_p: float | None = 0.05
    paper: PaperEvidence = PaperEvidence()
    futility: Futility | None = Futility()
    consistency: Consistency | None = Consistency()
    decay_mean_false_alarm: int | None = 504


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    metric: str
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hysteresis:
    """Enter the selection at `enter`; leave it below `exit`."""

    metric: str
    enter: float
    exit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    top_k: TopK | None = None
    correlation_max: float | None = None
    hysteresis: Hysteresis | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    mode: Literal["disabled"] = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualApproval:
    roles: frozenset[Role] = frozenset({Role.APPROVER})
    min: int = 2
    expires: timedelta = timedelta(hours=72)
    mode: Literal["manual_approval"] = "manual_approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoApply:
    mode: Literal["auto_apply"] = "auto_apply"


LivePromotion = Disabled | ManualApproval | AutoApply


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """No promotion from each start that `cron` names, for `length`.  Demotion is never frozen."""

    cron: str
    length: timedelta

    def covers(self, now: datetime) -> bool:
        """Whether the latest start at or before `now` (UTC) was less than `length` ago."""
        return now - self._latest(now) < self.length

    def until(self, now: datetime) -> datetime | None:
        """When the freeze that covers `now` ends; None when none covers it, or none ends: each
        starts before the one before it is over."""
        end = self._latest(now) + self.length
        if end <= now:
            return None
        for start in islice(CronSim(self.cron, now), FREEZES_MAX):
            if start > end:
                return end
            end = start + self.length
        return None

    def follows(self, now: datetime) -> datetime:
        """When the next freeze after `now` starts."""
        return next(CronSim(self.cron, now))

    def _latest(self, now: datetime) -> datetime:
        just_after = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
        return next(CronSim(self.cron, just_after, reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class RampStep:
    """A share of the allocation, and what reaching it takes."""

    fraction: float
    e_value: float | None = None
    observe: timedelta = timedelta(0)


FULL_STEP = RampStep(fraction=1.0)
STANDARD_RAMP = (
    RampStep(fraction=0.05, e_value=3.0),
    RampStep(fraction=0.25, e_value=10.0, observe=timedelta(days=20)),
    RampStep(fraction=1.00, e_value=20.0, observe=timedelta(days=60)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    live_promotion: LivePromotion = Disabled()
    cooldown: timedelta = timedelta(hours=24)
    max_live_slots: int = 10
    max_live_weight: float = 1.0
    freeze: tuple[Freeze, ...] = ()
    ramp: tuple[RampStep, ...] = STANDARD_RAMP

    @property
    def allocation(self) -> float:
        """A strategy's share of capital at the top of its ramp."""
        return self.max_live_weight / self.max_live_slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    snapshot_max_age: timedelta | None = None  # None: the snapshot's own TTL.
    max_stress_loss: float | None = None
    max_pairwise_correlation_to_live: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    data: Data = Data()
    campaign: Campaign = Campaign()
    gates: Gates = Gates()
    evidence: Evidence | None = Evidence()
    selection: Selection | None = None
    governance: Governance = Governance()
    risk: Risk = Risk()
