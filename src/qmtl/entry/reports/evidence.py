"""What a strategy's returns are, as plain values: runs with each metric and gate, and curves."""

from typing import Any, Final

import numpy as np

from qmtl.adapters.memory import World, joined, store_of
from qmtl.app.ports import StoredRun
from qmtl.core.evaluation import limits_of
from qmtl.core.names import RunId, Stage, StrategyId
from qmtl.core.policy import Bound
from qmtl.core.times import DAY_SEC, instant, rfc3339

Data = dict[str, Any]

POINTS_MAX: Final = 240  # Of a curve: more than a page has room for.
STAGES: Final = (Stage.BACKTEST, Stage.PAPER, Stage.LIVE)


def runs(world: World, sid: StrategyId, run_id: RunId) -> list[Data]:
    """The run that the candidate stands on, and the newest of each earlier stage."""
    store = store_of(world)
    stands_on = store.run(world.view.world_id, sid, run_id)
    found = [] if stands_on is None else [stands_on]
    for stage in STAGES:
        newest = world.view.runs.get((sid, stage))
        if newest is not None and newest.run_id != run_id:
            stored = store.run(world.view.world_id, sid, newest.run_id)
            found += [] if stored is None else [stored]
    return [_run(each, of_candidate=each is stands_on) for each in found]


def _run(stored: StoredRun, *, of_candidate: bool) -> Data:
    run = stored.run
    return {
        "of_candidate": of_candidate,
        "run_id": run.run_id,
        "revision": run.revision,
        "stage": run.stage,
        "verdict": run.verdict,
        "at": rfc3339(stored.at),
        "seq": stored.seq,
        "evidence_digest": run.evidence,
        "observations": run.observations,
        "observed_days": run.observed_sec / DAY_SEC,
        "snapshot_version": run.snapshot_version,
        "policy_version": run.policy_version,
        "problems": [detail for _, detail in run.problems],
        "gates": [
            {
                "metric": gate.metric,
                "asks": limits_of(Bound(metric=gate.metric, min=gate.min, max=gate.max)),
                "value": gate.value,
                "verdict": gate.verdict,
                "detail": gate.detail,
            }
            for gate in run.gates
        ],
        "metrics": [
            {
                "name": name,
                "value": metric.value,
                "unit": metric.unit,
                "source": metric.source,
                "undefined": metric.undefined,
            }
            for name, metric in sorted(run.metrics.items())
        ],
    }


def curves(world: World, sid: StrategyId) -> list[Data]:
    """Per stage, what one unit of capital became: times, and growth from 1 on."""
    found = []
    for stage in STAGES:
        series = joined(world.series.get((sid, stage), ()))
        if len(series.r) < 2:
            continue
        growth = np.cumprod(1.0 + series.r)
        drawdown = float((1.0 - growth / np.maximum(1.0, np.maximum.accumulate(growth))).max())
        at = np.unique(np.linspace(0, len(growth) - 1, POINTS_MAX).astype(np.intp))
        found.append(
            {
                "stage": stage,
                "observations": len(series.r),
                "from": rfc3339(instant(int(series.t[0]))),
                "until": rfc3339(instant(int(series.t[-1]))),
                "total_return": float(growth[-1] - 1.0),
                "max_drawdown": drawdown,
                "growth": [1.0, *(float(growth[i]) for i in at)],
            }
        )
    return found
