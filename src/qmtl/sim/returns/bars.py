"""Bars of known character: the honest, the hopeless and the odd, for lives where anything happens.

They are exaggerated on purpose, so that something happens in days.  What a policy makes of returns
as markets have them is asked with `placebo`.
"""

from enum import StrEnum
from random import Random

import numpy as np

from qmtl.core.columns import Float


class Kind(StrEnum):
    GOOD = "good"  # A Sharpe ratio no market gives for long: passes what can be passed.
    LUCKLESS = "luckless"  # No skill: mean zero.
    BAD = "bad"  # Loses steadily.
    CONSTANT = "constant"  # The same return every bar: its Sharpe ratio is not defined.
    QUIET = "quiet"  # Never moves.
    CRASHING = "crashing"  # Good, and then half of it is gone in one bar.
    RUINED = "ruined"  # Good, and then everything is gone.


def bar(kind: Kind, rng: Random) -> float:
    """One return: a fraction per bar, at least -1."""
    match kind:
        case Kind.GOOD:
            return _normal(rng, mean=0.004, deviation=0.004)
        case Kind.LUCKLESS:
            return _normal(rng, mean=0.0, deviation=0.01)
        case Kind.BAD:
            return _normal(rng, mean=-0.01, deviation=0.005)
        case Kind.CONSTANT:
            return 0.001
        case Kind.QUIET:
            return 0.0
        case Kind.CRASHING:
            return -0.5
        case Kind.RUINED:
            return -1.0


def series(kind: Kind, count: int, rng: Random) -> Float:
    """`count` returns, oldest first.  What crashes or ruins comes last, after a good life."""
    if kind in (Kind.CRASHING, Kind.RUINED):
        return np.array([*(bar(Kind.GOOD, rng) for _ in range(count - 1)), bar(kind, rng)])
    return np.array([bar(kind, rng) for _ in range(count)])


def _normal(rng: Random, mean: float, deviation: float) -> float:
    return max(-0.99, rng.gauss(mean, deviation))
