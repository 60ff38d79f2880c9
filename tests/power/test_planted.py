"""The harness finds the bugs that are there to be found: each is planted once, and must be seen."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random

import pytest

from . import planted
from .cases import CASES, Case
from .conftest import Tried
from .disk import Event
from .faulty import LIES, faults, flips_in, outcome_of
from .rig import Connect, every_cut, expected, left_by, recorded

CUTS_AT_ONCE = 8  # Then a look whether it was found.
FOUND = "planted bugs, each of them found"
FLIPS = 60  # Bits tried in the page that matters.
BY_NAME = {case.name: case for case in CASES}

Planted = Callable[[], AbstractContextManager[None]]

IN_SQL = [
    ("synchronous = NORMAL", "apply", planted.synchronous("NORMAL")),
    ("synchronous = OFF", "apply", planted.synchronous("OFF")),
    ("the journal in a second transaction", "apply", planted.in_a_second_transaction("journal")),
    ("a row in a second transaction", "apply", planted.in_a_second_transaction("activations")),
    ("a fact without its row", "apply", planted.never_written("activations")),
]


def found_by_cuts(case: Case, events: list[Event], tried: Tried) -> str | None:
    """The first fault that a power loss shows."""
    chosen = every_cut(events)
    Random(case.name).shuffle(chosen)
    for start in range(0, len(chosen), CUTS_AT_ONCE):
        for _, left in left_by(case, events, chosen[start : start + CUTS_AT_ONCE]):
            tried("cuts until a planted bug was found", 1)
            if left.faults:
                return left.faults[0]
    return None


@pytest.mark.parametrize(
    ("case", "plant"), [row[1:] for row in IN_SQL], ids=[row[0] for row in IN_SQL]
)
def test_what_is_wrong_in_sql_is_found(
    case: str, plant: Callable[[Case], Connect], tried: Tried
) -> None:
    broken = BY_NAME[case]
    assert found_by_cuts(broken, recorded(broken, plant(broken)), tried)
    tried(FOUND, 1)


def test_an_answer_before_the_commit_is_found(tried: Tried) -> None:
    case = BY_NAME["kill"]
    expected(case)  # Before the bug is there.
    with planted.answered_before_the_commit():
        events = recorded(case)
    assert found_by_cuts(case, events, tried)
    tried(FOUND, 1)


def test_a_commit_that_fails_unnoticed_is_found(tried: Tried) -> None:
    case = BY_NAME["kill"]
    chosen = [fault for fault in faults(case) if fault.way not in LIES and fault.lasts]
    Random(0).shuffle(chosen)
    with planted.commits_that_fail_unnoticed():
        assert any(outcome_of(case, fault).faults for fault in chosen)
    tried(FOUND, 1)


@pytest.mark.parametrize(
    ("case", "table", "plant"),
    [
        ("evaluate into paper", "bodies", planted.unchecked_bodies),
        ("evaluate and propose", "series", planted.unchecked_series),
    ],
)
def test_believing_what_is_read_is_found(
    case: str, table: str, plant: Planted, tried: Tried
) -> None:
    chosen = list(flips_in(BY_NAME[case], table, FLIPS))
    with plant():
        assert any(outcome_of(BY_NAME[case], fault).faults for fault in chosen)
    tried(FOUND, 1)
