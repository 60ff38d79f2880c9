"""Versions of a strategy: changed code, parameters, data or engine, under the name of the old.

A family is what its author calls by one id.  The first version has that id; each later one is a
strategy of its own, with a row, a series and a campaign of its own, and says which came before it.
A fingerprint stands for one version of a family, however often and under whichever id it comes.
"""

from .errors import Conflict
from .names import ID_CHARS_MAX, StrategyId
from .view import Strategy, WorldView

PARTS = ("code", "parameters", "data", "engine")  # Of a fingerprint, as an author may tell them.
VERSIONS_MAX = 1_000  # A change each working day for four years; beyond it, a search, not research.


def family(view: WorldView, family_id: StrategyId) -> tuple[Strategy, ...]:
    """The versions of a family, the first first; empty when there is none."""
    mine = (strategy for strategy in view.strategies.values() if strategy.family == family_id)
    return tuple(sorted(mine, key=lambda strategy: strategy.version))


def next_id(view: WorldView, family_id: StrategyId, version: int) -> StrategyId:
    """`<family>.<version>`, or the next number up that no strategy has for a name.

    Raises Conflict when the family is full, or its name too long to be numbered.
    """
    if version > VERSIONS_MAX:
        raise Conflict(
            f"{family_id} has {VERSIONS_MAX} versions, and more are not kept: "
            "submit what was changed under another strategy_id."
        )
    number = version
    while (named := StrategyId(f"{family_id}.{number}")) in view.strategies:
        number += 1
    if len(named) > ID_CHARS_MAX:
        raise Conflict(
            f"{family_id} is too long for a version to be named after it "
            f"({named[len(family_id) :]} would make it {len(named)} characters of {ID_CHARS_MAX}): "
            "submit what was changed under a shorter strategy_id."
        )
    return named


def changed(view: WorldView, strategy: Strategy) -> tuple[str, ...]:
    """The parts in which a version differs from the one before, as far as both were told."""
    if strategy.previous is None:
        return ()
    now, before = strategy.parts, view.strategies[strategy.previous].parts
    told = (name for name in PARTS if name in now and name in before)
    return tuple(name for name in told if now[name] != before[name])
