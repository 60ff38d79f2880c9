"""Versions: which belong together, what the next is called, what changed."""

from dataclasses import replace

import pytest

from qmtl.core.columns import PHASES
from qmtl.core.errors import Conflict
from qmtl.core.facts import StrategyBound
from qmtl.core.fold import entries, fold
from qmtl.core.invariants import check
from qmtl.core.names import ID_CHARS_MAX, Phase, StrategyId, WorldId
from qmtl.core.versions import PARTS, VERSIONS_MAX, changed, family, next_id
from qmtl.core.view import WorldView
from qmtl.sim import cast
from qmtl.sim.scene import DAY, START

M, M2, M3 = (StrategyId(name) for name in ("momentum", "momentum.2", "momentum.3"))
TOLD = dict.fromkeys(PARTS, "sha256:1")
FIRST = StrategyBound(
    strategy_id=M, name="", author=cast.ANN, fingerprint="f1", variants_tried=None, parts=TOLD
)
SECOND = replace(FIRST, strategy_id=M2, fingerprint="f2", family=M, version=2, previous=M, parts={})
STRANGER = replace(FIRST, strategy_id=StrategyId("mean"), fingerprint="f3")


def world(*facts: StrategyBound) -> WorldView:
    view = WorldView(world_id=WorldId("w"))
    return fold(view, entries(view, facts, cast.ANN, START))


def test_the_first_version_is_its_family() -> None:
    (first,) = family(world(FIRST), M)
    assert (first.strategy_id, first.family, first.version, first.previous) == (M, M, 1, None)
    assert first.parts == TOLD


def test_a_later_version_is_a_strategy_of_its_own() -> None:
    view = world(FIRST, STRANGER, SECOND)
    assert [s.strategy_id for s in family(view, M)] == [M, M2]
    second = view.strategies[M2]
    assert (second.family, second.version, second.previous, second.row) == (M, 2, M, 2)
    assert PHASES[int(view.standings.phase[second.row])] is Phase.BACKTEST
    assert view.entered_at(second.row) == START
    assert check(view, START) == ()


def test_a_journal_of_before_there_were_versions_means_what_it_meant() -> None:
    """Its facts say nothing of a family, and then each is the first of its own."""
    bare = StrategyBound(
        strategy_id=M, name="", author=cast.ANN, fingerprint=None, variants_tried=None
    )
    view = world(bare)
    told = fold(view, entries(view, [replace(bare, fingerprint="f1")], cast.ANN, START + DAY))
    for found in (view.strategies[M], told.strategies[M]):
        assert (found.family, found.version, found.previous, found.parts) == (M, 1, None, {})
    assert check(told, START + DAY) == ()


def test_versions_are_named_by_their_number() -> None:
    assert next_id(world(FIRST), M, 2) == M2
    assert next_id(world(FIRST, SECOND), M, 3) == M3


def test_a_name_that_is_taken_is_passed_over() -> None:
    taken = [replace(STRANGER, strategy_id=StrategyId(f"momentum.{n}")) for n in (2, 3, 4, 6)]
    assert next_id(world(FIRST, *taken), M, 2) == "momentum.5"


def test_a_family_has_a_most() -> None:
    assert next_id(world(FIRST), M, VERSIONS_MAX) == f"momentum.{VERSIONS_MAX}"
    with pytest.raises(Conflict, match=r"1000 versions.*another strategy_id"):
        next_id(world(FIRST), M, VERSIONS_MAX + 1)


def test_a_name_without_room_for_a_number_has_no_versions() -> None:
    for room, version in ((2, 9), (3, 10), (5, 1000)):
        fits = StrategyId("m" * (ID_CHARS_MAX - room))
        assert len(next_id(world(FIRST), fits, version)) == ID_CHARS_MAX
        with pytest.raises(Conflict, match=r"characters of 128.*shorter strategy_id"):
            next_id(world(FIRST), StrategyId(f"{fits}m"), version)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (TOLD, TOLD, ()),
        (TOLD, {**TOLD, "code": "x"}, ("code",)),
        (TOLD, {**TOLD, "engine": "x", "parameters": "y"}, ("parameters", "engine")),
        (TOLD, {}, ()),
        ({}, TOLD, ()),
        ({"code": "a"}, {"code": "b", "data": "c"}, ("code",)),
    ],
)
def test_what_changed_is_what_both_told(
    before: dict[str, str], now: dict[str, str], expected: tuple[str, ...]
) -> None:
    view = world(replace(FIRST, parts=before), replace(SECOND, parts=now))
    assert changed(view, view.strategies[M2]) == expected
    assert changed(view, view.strategies[M]) == ()


# (what the violation says, the facts that should never have been)
BROKEN: list[tuple[str, tuple[StrategyBound, ...]]] = [
    ("versions have gaps", (FIRST, replace(SECOND, version=3))),
    ("versions have gaps", (FIRST, SECOND, replace(SECOND, strategy_id=M3, fingerprint="f3"))),
    ("has another name", (SECOND,)),
    ("does not follow", (FIRST, replace(SECOND, previous=None))),
    ("does not follow", (FIRST, replace(SECOND, previous=M2))),
    ("does not follow", (replace(FIRST, previous=M2), SECOND)),
    ("one fingerprint", (FIRST, replace(SECOND, fingerprint="f1"))),
    ("no fingerprint", (replace(FIRST, fingerprint=None), SECOND)),
    ("several authors", (FIRST, replace(SECOND, author=cast.BOB))),
]


@pytest.mark.parametrize(("told", "facts"), BROKEN)
def test_versions_that_cannot_be_are_told(told: str, facts: tuple[StrategyBound, ...]) -> None:
    found = check(world(*facts), START)
    assert any(told in violation for violation in found), found
