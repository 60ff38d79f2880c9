"""The gate, shown: every reason stands at its point, none is left out, and no input is made up."""

from dataclasses import replace
from datetime import timedelta

import pytest
from immutables import Map

from qmtl.app.inputs import Input, gate_inputs
from qmtl.app.points import EACH_OTHER, NO_INPUT, POINTS, asked
from qmtl.core.names import Reason, Stage, Verdict
from qmtl.core.view import Outstanding
from tests.core.test_promotion import APPROVAL_CASES, CASES
from tests.worlds import ALPHA, BETA, DOSSIER, GAMMA, NOW, beside, judged, open_candidate, ready


def inputs() -> list[Input]:
    """Of a world in which the gate looks at everything that it ever looks at."""
    view = ready()
    taken = {GAMMA: Outstanding(weight=0.1, until=NOW + timedelta(minutes=1), sequence=1)}
    view = replace(view, live=beside(view, BETA, GAMMA), outstanding=Map(taken))
    dossier = replace(DOSSIER, correlations={BETA: 0.1, GAMMA: 0.9})
    run = judged(view, Stage.PAPER, Verdict.PASS)
    return list(gate_inputs(view, ALPHA, open_candidate(view), dossier, run, NOW))


def test_every_reason_that_the_gate_can_give_has_one_point() -> None:
    placed = [r for point in POINTS.values() for reasons in point.values() for r in reasons]
    assert len(placed) == len(set(placed))
    assert set(placed) == {r for *_, reasons in (*CASES, *APPROVAL_CASES) for r in reasons}


def test_every_input_of_a_point_is_one_of_the_gates() -> None:
    told = [each.name for each in inputs()]
    for name in (name for point in POINTS.values() for name in point if name != NO_INPUT):
        found = [n for n in told if n == name or (name in EACH_OTHER and n.startswith(f"{name} "))]
        assert found, f"no input of the gate is called {name}"


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_speaks_once_and_nothing_else_falls(reason: Reason) -> None:
    rows = asked(inputs(), [(reason, "because beta and gamma say so")])
    against = [row for row in rows if row.against]
    assert {text for row in against for text in row.against} == {"because beta and gamma say so"}
    assert all(row.holds is False for row in against)
    assert {row.point for row in against} == {
        next((p for p, of in POINTS.items() if reason in frozenset().union(*of.values())), "")
    }
    assert [row for row in rows if row.holds is False] == against


def test_what_is_against_one_of_several_is_against_no_other() -> None:
    why = (
        Reason.CORRELATION_EXCEEDED,
        "correlation with live gamma must be at most 0.8: it is 0.9",
    )
    held = {row.name: row.holds for row in asked(inputs(), [why]) if "correlation" in row.name}
    assert held == {"correlation with beta": True, "correlation with gamma": False}


def test_two_reasons_with_one_sentence_are_two() -> None:
    problems = [(Reason.HELD, "it waits"), (Reason.CONFIRMATION_PENDING, "it waits")]
    rows = asked(inputs(), problems)
    assert len([row for row in rows if row.against]) >= 2
    assert {row.point for row in rows if row.against} == {
        "Nobody holds it",
        "Nothing waits for a second person",
    }
