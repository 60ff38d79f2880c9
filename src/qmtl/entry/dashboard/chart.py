"""Growth and drawdown of a strategy, stage by stage: as numbers for a script, and as a picture for
who has none."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from fastapi import Query, Response

from qmtl.app.ports import Store
from qmtl.app.step import world
from qmtl.core.columns import Float, Int64
from qmtl.core.names import Stage, StrategyId, WorldId
from qmtl.entry import auth
from qmtl.entry.door import JSON, StrategyIn, WorldIn, dumped

from .visits import Pages, VisitIn

PAGES = Pages()
STAGES: Final = (Stage.BACKTEST, Stage.PAPER, Stage.LIVE)  # The later one counts where two overlap.
POINTS_MAX: Final = 1_200  # More than a screen is wide.
WIDTH, UPPER, LOWER, GAP = 800.0, 220.0, 80.0, 20.0

Points = Annotated[int, Query(ge=2, le=POINTS_MAX)]


@dataclass(frozen=True, slots=True)
class Chart:
    """Shape (n,) each: seconds since 1970, growth of 1, drawdown as a fraction from -1 to 0, and
    the stage that each point is of, an index of STAGES."""

    t: Float
    growth: Float
    drawdown: Float
    stage: Int64

    def __len__(self) -> int:
        return len(self.t)


def chart(store: Store, world_id: WorldId, sid: StrategyId, most: int = POINTS_MAX) -> Chart:
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
    return _thinned(Chart(t / 1e6, growth, drawdown, stage), most)


def _thinned(found: Chart, most: int) -> Chart:
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
    return Chart(
        found.t[ends],
        found.growth[ends],
        np.minimum.reduceat(found.drawdown, starts),
        found.stage[ends],
    )


def as_json(found: Chart) -> dict[str, Any]:
    """Columns as the script draws them: a stage's is null where another's is drawn."""
    columns: dict[str, Any] = {"t": found.t.tolist(), "stages": [], "growth": [], "drawdown": []}
    for n, stage in enumerate(STAGES):
        mine = found.stage == n
        if mine.any():
            columns["stages"].append(stage)
            columns["growth"].append(_or_null(found.growth, mine))
            columns["drawdown"].append(_or_null(found.drawdown, mine))
    return columns


def _or_null(values: Float, mine: Any) -> list[float | None]:
    return [float(v) if yes else None for v, yes in zip(values, mine, strict=True)]


@PAGES.shows(auth.UI + "/worlds/{world_id}/strategies/{strategy_id}/chart")
def get(visit: VisitIn, world_id: WorldIn, strategy_id: StrategyIn) -> Response:
    """The numbers."""
    world(visit.store, world_id).strategy(strategy_id)
    found = chart(visit.store, world_id, strategy_id)
    return Response(dumped(as_json(found)), media_type=JSON)


@dataclass(frozen=True, slots=True)
class Line:
    stage: Stage
    growth: str  # The points of a polyline.
    drawdown: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The same as lines of an SVG, growth on a logarithmic scale above, drawdown below."""

    lines: list[Line]
    low: float
    high: float
    worst: float
    width: float = WIDTH
    height: float = UPPER + GAP + LOWER
    upper: float = UPPER
    lower: float = UPPER + GAP


def picture(found: Chart) -> Picture | None:
    """None where there is nothing to draw, or what there is has lost everything."""
    if len(found) < 2 or not (found.growth > 0.0).all():
        return None
    log = np.log(found.growth)
    span_t, span = max(float(np.ptp(found.t)), 1.0), max(float(np.ptp(log)), 1e-9)
    worst = min(float(found.drawdown.min()), -1e-9)
    x = (found.t - found.t[0]) / span_t * WIDTH
    up = UPPER - (log - log.min()) / span * UPPER
    down = UPPER + GAP + found.drawdown / worst * LOWER
    lines = [
        Line(
            STAGES[int(found.stage[part[0]])],
            _points(x[part], up[part]),
            _points(x[part], down[part]),
        )
        for part in np.split(np.arange(len(found)), np.flatnonzero(np.diff(found.stage)) + 1)
    ]
    return Picture(lines, float(found.growth.min()), float(found.growth.max()), worst)


def _points(x: Float, y: Float) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
