"""The power goes in every I/O operation of every mutating use case; what was answered is there.

Each cut leaves the disk in seven ways: nothing of what was volatile, all of it, and torn in five:
whatever sectors chance picks. A cut in a read leaves what one in the next write does, so reads are
not cut.
Here a sample, the same every time: with the other tests of this folder under 20 s on one core.
`make power` (QMTL_POWER=all) does them all.
"""

import os
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from .cases import CASES, Case
from .conftest import Tried
from .disk import ALL as EVERYTHING
from .disk import LOSSES, NOTHING, TORN
from .rig import every_cut, expected, left_by, recorded

ALL = os.environ.get("QMTL_POWER") == "all"
CUTS = 4  # Of each case, in the ordinary run.


def named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_power_loss_leaves_all_that_was_answered_and_nothing_half(
    case: Case, tried: Tried
) -> None:
    events = recorded(case)
    chosen = every_cut(events)
    if not ALL:
        chosen = Random(case.name).sample(chosen, CUTS)
    tried("use cases", 1)
    tried("I/O operations of theirs", len({cut.number for cut in every_cut(events)}) - 1)
    tried(f"power cuts ({TORN} torn, 2 clean, at each operation)", len(chosen))
    found = []
    for cut, left in left_by(case, events, chosen):
        tried("disks that they left, each unlike the others", 1)
        found += [f"{cut}: {fault}" for fault in left.faults]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_step_changes_something(case: Case) -> None:
    """Else there is nothing in it to be lost."""
    states = expected(case).states
    assert all(before != after for before, after in pairwise(states))


def test_each_operation_is_cut_with_nothing_left_with_all_and_torn_in_five_ways() -> None:
    assert LOSSES[:2] == (NOTHING, EVERYTHING)
    assert len({loss.seed for loss in LOSSES[2:]}) == TORN == 5
    case = next(case for case in CASES if case.name == "kill")
    ways = Counter(cut.number for cut in every_cut(recorded(case)))
    assert set(ways.values()) == {len(LOSSES)}


def test_a_case_is_recorded_alike_every_time() -> None:
    """So that a cut that is reported can be looked at."""
    case = next(case for case in CASES if case.name == "apply")
    sizes = [[type(event) for event in recorded(case)] for _ in range(2)]
    assert sizes[0] == sizes[1]
