"""The live set and its weights.  Only a Clearance adds to it (`promotion.py`); here it shrinks."""

from dataclasses import dataclass

from .errors import Conflict, Invalid
from .facts import ActivationAcknowledged, ActivationLowered, Demoted, Fact
from .names import Phase, Reason, StrategyId
from .view import WorldView

WEIGHT_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an operator asks of a live strategy; None leaves a part as it is."""

    active: bool | None = None
    weight: float | None = None
    freeze: bool | None = None
    drain: bool | None = None


def lower(view: WorldView, strategy_id: StrategyId, change: Change) -> tuple[Fact, ...]:
    """The facts of an operator's change.  Down is always allowed; up to what was applied, too.

    Raises Conflict for anything beyond that: raising is what `apply` is for.
    """
    view.strategy(strategy_id)
    held = view.live.get(strategy_id)
    if held is None:
        if change.active or change.weight:
            raise Conflict(f"{strategy_id} is not live: only a promotion activates it.")
        return ()
    if change.active is False:
        detail = "deactivated by an operator"
        return (
            Demoted(
                strategy_id=strategy_id,
                to=Phase.PAPER,
                reason=Reason.MANUAL,
                detail=detail,
                held=True,
            ),
        )
    weight = held.weight if change.weight is None else change.weight
    if not 0.0 <= weight <= held.applied_weight + WEIGHT_TOLERANCE:
        raise Conflict(
            f"{strategy_id}: a weight of {weight:g} is above the {held.applied_weight:g} that was "
            "applied; raising it is a promotion."
        )
    weight = min(weight, held.applied_weight)
    freeze = held.freeze if change.freeze is None else change.freeze
    drain = held.drain if change.drain is None else change.drain
    if (weight, freeze, drain) == (held.weight, held.freeze, held.drain):
        return ()
    return (ActivationLowered(strategy_id=strategy_id, weight=weight, freeze=freeze, drain=drain),)


def acknowledge(view: WorldView, strategy_id: StrategyId, sequence: int) -> tuple[Fact, ...]:
    """A client lets go of the lease it held, up to a sequence.

    It is told to people, and frees no capital: see `leases.py`.
    """
    view.strategy(strategy_id)
    held = view.live.get(strategy_id)
    if sequence > view.governance_generation:
        raise Invalid(f"sequence {sequence} has not been issued.")
    if held is None or sequence <= held.acknowledged:
        return ()
    return (ActivationAcknowledged(strategy_id=strategy_id, sequence=sequence),)
