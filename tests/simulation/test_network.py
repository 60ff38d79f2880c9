"""Stories over a network that fails: nothing breaks in them, and a story is its seed."""

import json
from collections import Counter
from random import Random

import pytest
from typer.testing import CliRunner

from qmtl.entry.cli import app
from qmtl.sim import story
from qmtl.sim.network import Network
from qmtl.sim.story import play, shrunk
from qmtl.sim.weather import CHANCES, Fault, Weather
from qmtl.sim.witness import Witness

STORIES, PARTS, STEPS = 160, 4, 1_000  # About half a minute; `make sim` has a million steps.


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_breaks(part: int) -> None:
    faults: Counter[Fault] = Counter()
    promotions = 0
    for seed in range(part, STORIES, PARTS):
        outcome = play(seed, STEPS)
        assert not outcome.broken, f"qmtl sim --seed {seed}: {outcome.broken}"
        assert outcome.steps == STEPS
        faults += outcome.faults
        promotions += outcome.promotions
    assert set(faults) == set(CHANCES), "everything goes wrong somewhere"
    assert promotions >= 10, "and something goes right"


def test_a_story_is_its_seed() -> None:
    first, again, other = play(7, 300), play(7, 300), play(8, 300)
    assert first == again
    assert first.trace != other.trace


def test_a_fault_left_out_changes_nothing_before_it() -> None:
    whole = play(7, 300)
    before, last = whole.struck[:-1], whole.struck[-1]
    without = play(7, 300, without=frozenset({last})).struck
    assert without[: len(before)] == before
    assert last not in without


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world in which a kill counts as a breach."""
    plain = Witness.look

    def look(self, scene, clients, now) -> None:  # type: ignore[no-untyped-def]  # As it is there.
        plain(self, scene, clients, now)
        if scene.view.killed:
            raise story.Broken("I10: somebody was killed")

    monkeypatch.setattr(Witness, "look", look)


def test_what_breaks_is_shrunk_to_what_matters(fragile: None) -> None:
    broken = next(found for seed in range(1, 50) if (found := play(seed, 600)).broken)
    small = shrunk(broken)
    assert small.outcome.broken == broken.broken
    assert small.outcome.steps <= broken.steps
    assert not small.outcome.struck, "no fault is needed for it"
    assert len(small.mute) > len(small.outcome.people) // 2
    assert small.again() == small.outcome


def test_the_command_says_what_broke_and_how_to_see_it_again(fragile: None) -> None:
    told = CliRunner().invoke(
        app, ["sim", "--seeds", "1-49", "--steps", "600", "--executor", "inline", "--json"]
    )
    assert told.exit_code == 1
    assert json.loads(told.stdout)["broken"] == 1
    assert "broken: I10: somebody was killed" in told.stderr
    assert "next: qmtl sim --seed " in told.stderr


def test_the_command_counts_what_was_played() -> None:
    told = CliRunner().invoke(app, ["sim", "--seed", "3", "--steps", "200", "--json"])
    assert told.exit_code == 0
    found = json.loads(told.stdout)
    assert (found["stories"], found["steps"], found["broken"]) == (1, 200, 0)
    assert found["requests"] > 40
    assert sum(found["faults"].values()) > 5


@pytest.mark.parametrize("seeds", ["5", "5-", "-5", "9-5", "a-b"])
def test_seeds_are_a_range(seeds: str) -> None:
    told = CliRunner().invoke(app, ["sim", "--seeds", seeds])
    assert told.exit_code == 2
    assert "is not A-B, such as 0-99" in told.stderr


def test_whoever_is_mute_never_acts() -> None:
    with story._store(1) as store:
        people = set(_people(store))
    only = play(1, 100, mute=frozenset(people - {"feed"}))
    assert set(only.acts) == {"bar"}


def _people(store: story.Store) -> list[str]:
    network = Network(1, store, Weather(Random(1)))
    story.everyone(network)
    return list(network.people)
