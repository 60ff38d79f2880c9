"""Where each metric of a run comes from, in the order the contract fixes (DESIGN 7.1).

First the hub's series of the run's own stage.  Where it has none: the latest run of the same
stage, else one of an earlier stage, marked inherited.  Then what else the hub's snapshot carries.
Last, for a backtest, what the request says, where the hub says nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .evaluation_run import EvaluationRun, Metric, Source
from .facts import SnapshotStored
from .metrics import UNITS, Measure, Undefined, performance
from .names import StrategyId

SNAPSHOT_UNITS: Mapping[str, str] = {
    "trades_total": "count",
    "turnover_annual": "per year",
    "stress_loss_max": "fraction",
    "ex_ante_volatility": "per year",
}
KNOWN_UNITS: Mapping[str, str] = {**UNITS, **SNAPSHOT_UNITS}
REUSED = (Source.PRIOR_RUN, Source.INHERITED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All that may be said about one strategy in one stage."""

    returns: NDArray[np.float64]  # Of the window, accepted ones only, oldest first.
    snapshot: SnapshotStored | None  # The newest of the stage that contains it.
    same_stage: EvaluationRun | None
    earlier_stage: EvaluationRun | None
    requested: Mapping[str, float]

    @property
    def any(self) -> bool:
        """Whether there is anything to judge by."""
        return bool(len(self.returns) or self.same_stage or self.earlier_stage or self.requested)


def source(sources: Sources, strategy_id: StrategyId, periods_per_year: float) -> dict[str, Metric]:
    """Every metric that can be had, each with unit, origin and snapshot."""
    snapshot = sources.snapshot
    version = None if snapshot is None else snapshot.version
    metrics: dict[str, Metric] = {}

    if len(sources.returns):
        for name, value in performance(sources.returns, periods_per_year).items():
            metrics[name] = _metric(name, value, Source.REALIZED_RETURNS, version)
    else:
        for run, origin in (
            (sources.same_stage, Source.PRIOR_RUN),
            (sources.earlier_stage, Source.INHERITED),
        ):
            if run is not None:
                for name, metric in run.metrics.items():
                    inherited = metric.source is Source.INHERITED
                    said = Source.INHERITED if inherited else origin
                    metrics.setdefault(name, replace(metric, source=said))

    if snapshot is not None:
        for name, value, origin in _carried(snapshot, strategy_id, periods_per_year):
            if name not in metrics or metrics[name].source in REUSED:
                metrics[name] = _metric(name, value, origin, version)

    for name, value in sources.requested.items():
        had = metrics.get(name)  # What the hub's returns leave undefined, nobody may define.
        if had is None or had.source in REUSED:
            metrics[name] = _metric(name, value, Source.REQUEST, None)
    if not metrics:
        for name, value in performance(sources.returns, periods_per_year).items():
            metrics[name] = _metric(name, value, Source.REALIZED_RETURNS, version)
    return metrics


def _metric(name: str, value: Measure, origin: Source, version: str | None) -> Metric:
    """INVARIANT: what is not a finite number has no value (I9)."""
    if not isinstance(value, Undefined) and not math.isfinite(value):
        value = Undefined.NOT_FINITE
    return Metric(
        value=None if isinstance(value, Undefined) else value,
        unit=KNOWN_UNITS.get(name, ""),
        source=origin,
        snapshot_version=version,
        undefined=value.value if isinstance(value, Undefined) else None,
    )


def _carried(
    snapshot: SnapshotStored, sid: StrategyId, periods_per_year: float
) -> list[tuple[str, float, Source]]:
    """What a snapshot says of a strategy beside its returns; where two say it, the first counts."""
    said: list[tuple[str, float, Source]] = []
    variance = (snapshot.covariance or {}).get(f"{sid},{sid}")
    if variance is not None and variance >= 0:
        annual = float(np.sqrt(variance * periods_per_year))
        said.append(("ex_ante_volatility", annual, Source.COVARIANCE))
    scenarios = (snapshot.stress or {}).get(sid)
    if scenarios:
        said.append(("stress_loss_max", max(scenarios.values()), Source.STRESS))
    said += [
        (name, value, Source.PRODUCER_STATS)
        for name, value in (snapshot.stats or {}).get(sid, {}).items()
        if name not in UNITS  # Performance comes from returns, never from a producer's word.
    ]
    return said
