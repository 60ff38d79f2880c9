"""An operator's hand on what is live: down, and never above what was applied."""

from dataclasses import replace
from typing import Any

import pytest
from immutables import Map

from qmtl.core import facts as f
from qmtl.core.activation import WEIGHT_TOLERANCE, Change, acknowledge, lower
from qmtl.core.errors import Conflict, Invalid, UnknownStrategy
from qmtl.core.fold import entries, fold
from qmtl.core.names import Phase, Reason, StrategyId
from qmtl.core.view import WorldView
from qmtl.sim import cast
from tests.worlds import ALPHA, LATER, climbing, ready

APPLIED = 0.1


def lowered(view: WorldView, **change: Any) -> tuple[f.Fact, ...]:
    return lower(view, ALPHA, Change(**change))


def fact(weight: float = APPLIED, freeze: bool = False, drain: bool = False) -> f.Fact:
    return f.ActivationLowered(strategy_id=ALPHA, weight=weight, freeze=freeze, drain=drain)


def with_(**changes: Any) -> WorldView:
    return climbing(live=Map({ALPHA: replace(climbing().live[ALPHA], **changes)}))


@pytest.mark.parametrize(
    ("what", "view", "change", "facts"),
    [
        ("down", climbing(), {"weight": 0.05}, (fact(0.05),)),
        ("to nothing", climbing(), {"weight": 0.0}, (fact(0.0),)),
        ("up again", with_(weight=0.05), {"weight": APPLIED}, (fact(),)),
        ("as it is", climbing(), {"weight": APPLIED, "freeze": False}, ()),
        ("nothing", climbing(), {}, ()),
        ("active already", climbing(), {"active": True}, ()),
        ("freeze", climbing(), {"freeze": True}, (fact(freeze=True),)),
        ("thaw", with_(freeze=True), {"freeze": False}, (fact(),)),
        ("drain", climbing(), {"drain": True}, (fact(drain=True),)),
        ("drain what is frozen", with_(freeze=True), {"drain": True}, (fact(APPLIED, True, True),)),
        ("not live, and not asked to be", ready(), {"freeze": True, "weight": 0.0}, ()),
        ("not live, and off", ready(), {"active": False}, ()),
    ],
)
def test_down_and_back_to_what_was_applied(
    what: str, view: WorldView, change: dict[str, Any], facts: tuple[f.Fact, ...]
) -> None:
    assert lowered(view, **change) == facts, what


@pytest.mark.parametrize("weight", [0.11, 1.0, -0.01, float("nan"), float("inf")])
def test_any_other_weight_is_a_promotion_or_nonsense(weight: float) -> None:
    with pytest.raises(Conflict) as refused:
        lowered(climbing(), weight=weight)
    above = f"a weight of {weight:g} is above the 0.1 that was applied"
    said = f"alpha: {above}; raising it is a promotion."
    assert refused.value.args == (said,)


def test_as_much_as_rounding_makes_of_what_was_applied_is_that() -> None:
    assert lowered(with_(weight=0.05), weight=APPLIED + WEIGHT_TOLERANCE) == (fact(),)


def test_who_is_not_live_is_told_what_activates() -> None:
    for change in ({"active": True}, {"weight": 0.1}):
        with pytest.raises(Conflict) as refused:
            lowered(ready(), **change)
        assert refused.value.args == ("alpha is not live: only a promotion activates it.",)


def test_off_is_a_demotion_by_hand() -> None:
    (down,) = lowered(climbing(), active=False)
    assert down == f.Demoted(
        strategy_id=ALPHA,
        to=Phase.PAPER,
        reason=Reason.MANUAL,
        detail="deactivated by an operator",
        held=True,
    )


def test_a_lease_of_the_future_is_nobodys() -> None:
    with pytest.raises(Invalid) as refused:
        acknowledge(climbing(), ALPHA, 10**6)
    assert refused.value.args == ("sequence 1000000 has not been issued.",)


def test_rounding_does_not_raise_a_weight() -> None:
    (told,) = lowered(with_(weight=0.05), weight=APPLIED + 5e-10)
    assert told == fact(APPLIED)


@pytest.mark.parametrize("change", [{"active": True}, {"weight": 0.01}])
def test_what_is_not_live_is_not_activated(change: dict[str, Any]) -> None:
    with pytest.raises(Conflict):
        lowered(ready(), **change)


def test_off_is_a_demotion_that_holds() -> None:
    (told,) = lowered(climbing(), active=False, weight=5.0)  # Off, whatever else is asked.
    assert isinstance(told, f.Demoted)
    assert (told.to, told.reason, told.held) == (Phase.PAPER, Reason.MANUAL, True)


def test_nobody_knows_omega() -> None:
    omega = StrategyId("omega")
    with pytest.raises(UnknownStrategy):
        lower(climbing(), omega, Change(active=False))
    with pytest.raises(UnknownStrategy):
        acknowledge(climbing(), omega, 1)


def test_a_lease_is_let_go_of_up_to_a_sequence() -> None:
    view = climbing()
    issued = view.governance_generation
    (told,) = acknowledge(view, ALPHA, issued)
    assert told == f.ActivationAcknowledged(strategy_id=ALPHA, sequence=issued)
    known = fold(view, entries(view, (told,), cast.FEED, LATER))
    assert acknowledge(known, ALPHA, issued) == ()
    assert acknowledge(known, ALPHA, issued - 1) == ()
    assert acknowledge(ready(), ALPHA, 1) == ()
    with pytest.raises(Invalid):
        acknowledge(view, ALPHA, issued + 1)
