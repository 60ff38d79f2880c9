"""Growth and drawdown of a strategy, stage by stage: as numbers for a script, and as a picture for
who has none."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import Query, Response

from qmtl.app.growth import POINTS_MAX, STAGES, Growth, growth
from qmtl.app.step import world
from qmtl.core.columns import Float
from qmtl.core.names import Stage
from qmtl.entry import auth
from qmtl.entry.door import JSON, StrategyIn, WorldIn, dumped

from .visits import Pages, VisitIn

PAGES = Pages()
WIDTH, UPPER, LOWER, GAP = 800.0, 220.0, 80.0, 20.0

Points = Annotated[int, Query(ge=2, le=POINTS_MAX)]


def as_json(found: Growth) -> dict[str, Any]:
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
    found = growth(visit.store, world_id, strategy_id)
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


def picture(found: Growth) -> Picture | None:
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
