"""The points that a journal entry brings, series by series: what a store adds to what it holds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qmtl.core.columns import Float, Int64
from qmtl.core.facts import Entry, SeriesRestated, SnapshotStored
from qmtl.core.names import Stage, StrategyId
from qmtl.core.series import accepted
from qmtl.core.view import WorldView


@dataclass(frozen=True, slots=True)
class Arrival:
    """New points of one series: `held` points are there already, or nothing when restated."""

    strategy_id: StrategyId
    stage: Stage
    t: Int64
    r: Float
    accepted: NDArray[np.bool_]
    held: int
    restated: bool


def arrivals(before: WorldView, entry: Entry) -> list[Arrival]:
    """What an entry adds to the series of the view before it.

    INVARIANT: a point is accepted here if and only if `fold` counts it as accepted; both ask
    `core.series.accepted` with the policy in force when it came, and none for a restatement.
    """
    match entry.fact:
        case SnapshotStored(points=points, stage=stage):
            version = before.default_version
            policy = None if version is None else before.policies[version].policy
            restated = False
        case SeriesRestated(points=points, stage=stage, strategy_id=strategy_id):
            policy, restated = None, True
            if not points.strategies:  # Restated as nothing at all.
                empty = np.empty(0, np.int64)
                nothing = Arrival(
                    strategy_id, stage, empty, empty.astype(float), empty.astype(bool), 0, True
                )
                return [nothing]
        case _:
            return []
    t, r = points.times(), points.returns()
    counted = accepted(t, stage, entry.at, policy)
    held = before.tracks[stage].points
    found, start = [], 0
    for sid, count in zip(points.strategies, points.counts, strict=True):
        mine = slice(start, start + count)
        start += count
        already = 0 if restated else int(held[before.strategies[sid].row])
        if count or restated:
            found.append(Arrival(sid, stage, t[mine], r[mine], counted[mine], already, restated))
    return found
