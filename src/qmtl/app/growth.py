"""What a strategy earned, stage by stage: its growth and its drawdown, to be drawn."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from qmtl.core.columns import Float, Int64
from qmtl.core.names import Stage, StrategyId, WorldId

from .ports import Store

STAGES: Final = (Stage.BACKTEST, Stage.PAPER, Stage.LIVE)  # The later one counts where two overlap.
POINTS_MAX: Final = 1_200  # More than a screen is wide.


@dataclass(frozen=True, slots=True)
class Growth:
    """Shape (n,) each: seconds since 1970, growth of 1, drawdown as a fraction from -1 to 0, and
    the stage that each point is of, an index of STAGES."""

    t: Float
    growth: Float
    drawdown: Float
    stage: Int64

    def __len__(self) -> int:
        return len(self.t)


def growth(store: Store, world_id: WorldId, sid: StrategyId, most: int = POINTS_MAX) -> Growth:
    """What was earned, in order: where two stages have a return of one bar, the later one's counts.

    A drawdown is from the highest point since the strategy last changed stages.
    """
    held = [store.series(world_id, sid, stage) for stage in STAGES]
    t = np.concatenate([series.t for series in held])
    r = np.concatenate([series.r for series in held])
    stage = np.repeat(np.arange(len(STAGES)), [len(series.t) for series in held])
    order = np.lexsort((stage, t))
    t, r, stage = t[order], r[order], stage[order]
    last = np.append(t[1:] != t[:-1], True) if len(t) else np.empty(0, dtype=bool)
    t, r, stage = t[last], r[last], stage[last]
    growth = np.cumprod(1.0 + r)
    drawdown = np.zeros(len(r))
    turns = np.flatnonzero(np.diff(stage)) + 1
    for part in np.split(np.arange(len(r)), turns):
        if len(part):
            mine = np.cumprod(1.0 + r[part])
            peak = np.maximum(1.0, np.maximum.accumulate(mine))
            drawdown[part] = mine / peak - 1.0
    return _thinned(Growth(t / 1e6, growth, drawdown, stage), most)


def _thinned(found: Growth, most: int) -> Growth:
    """At most so many points; of each run of bars the last, and the worst drawdown among them.  The
    first and the last point of each stage stay, so that no stage is lost."""
    if len(found) <= most:
        return found
    size = -(-len(found) // most)
    turns = np.flatnonzero(np.diff(found.stage))
    ends = np.unique(
        np.concatenate((np.arange(size - 1, len(found), size), turns, [len(found) - 1]))
    )
    starts = np.append(0, ends[:-1] + 1)
    return Growth(
        found.t[ends],
        found.growth[ends],
        np.minimum.reduceat(found.drawdown, starts),
        found.stage[ends],
    )
