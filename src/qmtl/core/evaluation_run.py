"""What one evaluation found: an immutable record, the last revision of its run_id."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from .names import Digest, Reason, RunId, Stage, StrategyId, Verdict


class Source(StrEnum):
    """Where a metric came from, in the order the contract fixes."""

    REALIZED_RETURNS = "realized_returns"  # The hub's series of the run's own stage.
    PRIOR_RUN = "prior_run"  # The latest run of the same stage.
    INHERITED = "inherited"  # A run of an earlier stage: informs, never satisfies a gate.
    PRODUCER_STATS = "producer_stats"
    COVARIANCE = "covariance"
    STRESS = "stress"
    REQUEST = "request"  # Backtest only, and only what the hub lacks.


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number with its unit and origin; `value` None is undefined, and `undefined` says why."""

    value: float | None
    unit: str
    source: Source
    snapshot_version: str | None
    undefined: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate of the run's stage: the bound, what was found, and whether it holds."""

    metric: str
    min: float | None
    max: float | None
    value: float | None
    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRun:
    """One revision of one evaluation."""

    strategy_id: StrategyId
    run_id: RunId
    stage: Stage
    revision: int
    verdict: Verdict
    problems: tuple[tuple[Reason, str], ...]  # Why it does not pass, each with its numbers.
    metrics: Mapping[str, Metric]
    gates: tuple[GateResult, ...]
    policy_version: int
    snapshot_version: str | None
    evidence: Digest  # Of the series judged.
    observations: int  # In the window.
    observed_sec: float

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return tuple(dict.fromkeys(reason for reason, _ in self.problems))

    @property
    def details(self) -> tuple[str, ...]:
        return tuple(detail for _, detail in self.problems)

    def value(self, name: str) -> float | None:
        """A metric's value; None when it is absent or undefined."""
        metric = self.metrics.get(name)
        return None if metric is None else metric.value
