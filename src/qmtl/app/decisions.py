"""Decisions, and the live activations they rest on."""

from collections.abc import Sequence
from datetime import datetime

from qmtl.core import activation, decision
from qmtl.core.activation import Change
from qmtl.core.decision import DecisionEnvelope
from qmtl.core.facts import Fact
from qmtl.core.names import StrategyId, WorldId
from qmtl.core.view import WorldView

from .ports import Store
from .step import GOVERNANCE, By, step, world


def decide(
    store: Store, world_id: WorldId, sid: StrategyId | None, now: datetime
) -> list[DecisionEnvelope]:
    """The envelope of one strategy, or of each of the world's.  Changes nothing."""
    view = world(store, world_id)
    asked = [sid] if sid is not None else [s.strategy_id for s in view.in_order()]
    return [decision.decide(view, strategy_id, now) for strategy_id in asked]


def lower(store: Store, world_id: WorldId, by: By, sid: StrategyId, change: Change) -> WorldView:
    """Freeze, drain, weight down, deactivate; and up again to what was applied."""

    def decide_(view: WorldView) -> tuple[None, Sequence[Fact]]:
        return None, activation.lower(view, sid, change)

    step(store, world_id, by, decide_, reads=GOVERNANCE, archived=True)
    return world(store, world_id)


def acknowledge(
    store: Store, world_id: WorldId, by: By, sid: StrategyId, sequence: int
) -> WorldView:
    """A client lets go of the lease it held."""

    def decide_(view: WorldView) -> tuple[None, Sequence[Fact]]:
        return None, activation.acknowledge(view, sid, sequence)

    step(store, world_id, by, decide_, reads=GOVERNANCE, archived=True)
    return world(store, world_id)
