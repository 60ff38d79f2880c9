"""How a strategy's evidence and its capital went: the world after each entry, seen through one
strategy."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from math import nan

import numpy as np

from .columns import Float
from .names import Stage, StrategyId
from .policy import Policy
from .promotion import step_ahead
from .proof import e_values, terms
from .proving import shown
from .view import WorldView


@dataclass(frozen=True, slots=True)
class Course:
    """Shape (n,) each, one point for each entry that changed any of them.

    at          when it was recorded, in seconds since 1970
    e_value     ratio; NaN while there is too little to say
    threshold   what the next ramp step asks for, ratio; NaN where it asks for nothing
    weight      of the world's capital, a fraction; 0 while not live
    breaker     the drawdown in live that demotes at once, a fraction; None: none does, today
    """

    at: Float
    e_value: Float
    threshold: Float
    weight: Float
    breaker: float | None

    def __len__(self) -> int:
        return len(self.at)


def course(after: Iterable[tuple[datetime, WorldView]], sid: StrategyId) -> Course:
    """`after`: the instant of each entry of a journal, with the world that it led to.

    Empty when the strategy was never in the world, or the world never had a policy.
    """
    points: list[tuple[float, float, float, float]] = []
    breaker = None
    for when, view in after:
        if sid not in view.strategies or view.default_version is None:
            continue
        policy = view.policy
        point = _point(view, sid, policy)
        breaker = _breaker(policy)
        if not points or not np.array_equal(points[-1][1:], point, equal_nan=True):
            points.append((when.timestamp(), *point))
    at, e_value, threshold, weight = np.array(points).reshape(-1, 4).T
    return Course(at, e_value, threshold, weight, breaker)


def _point(view: WorldView, sid: StrategyId, policy: Policy) -> tuple[float, float, float]:
    row = view.strategies[sid].row
    towards = shown(view, row, step_ahead(view, row), policy)
    held = view.live.get(sid)
    return (
        float(e_values(view.proof, np.array([row]), terms(policy))[0]),
        nan if towards is None else towards.threshold,
        0.0 if held is None else held.weight,
    )


def _breaker(policy: Policy) -> float | None:
    found = (b.max for b in policy.gates.of(Stage.LIVE) if b.metric == "max_drawdown")
    return min((most for most in found if most is not None), default=None)
