"""Load, decide, commit: once, whoever else commits meanwhile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.app.ports import Commit, Store
from qmtl.app.step import ATTEMPTS_MAX, BOTH, EVIDENCE, GOVERNANCE, foreseen, step
from qmtl.core.activation import Change
from qmtl.core.errors import Conflict, UnknownWorld, WorldBusy
from qmtl.core.facts import Fact, Killed, Resumed
from qmtl.core.names import Stage, Stream, WorldId
from qmtl.core.view import Expected, WorldView
from qmtl.sim import cast
from qmtl.sim.scene import Scene
from tests.worlds import ALPHA, MINUTE, approved, in_paper, live


@dataclass
class Contended:
    """A store in which, before each of the next commits, another writer is quicker."""

    store: Store
    meanwhile: list[Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit(self, world_id: WorldId, commit: Commit) -> Any:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        return self.store.commit(world_id, commit)


def kill(view: WorldView) -> tuple[str, Sequence[Fact]]:
    return "done", () if view.killed else (Killed(reason=""),)


def contended(*meanwhile: Any) -> tuple[Scene, Any]:
    scene = in_paper(MemoryStore())
    scene.wait(MINUTE)
    return scene, Contended(scene.store, list(meanwhile))


def resume(scene: Scene) -> Any:
    return lambda: scene.store.commit(
        scene.world_id, Commit(Expected(), (Resumed(reason=""),), cast.OTTO, scene.now)
    )


def test_who_lost_the_race_decides_again() -> None:
    scene, store = contended()
    store.meanwhile = [resume(scene)] * (ATTEMPTS_MAX - 1)
    assert step(store, scene.world_id, scene.by(cast.OTTO), kill) == "done"
    assert scene.view.killed
    assert not store.meanwhile


def test_who_loses_too_often_is_told_and_nothing_is_written() -> None:
    scene, store = contended()
    store.meanwhile = [resume(scene)] * ATTEMPTS_MAX
    with pytest.raises(WorldBusy):
        step(store, scene.world_id, scene.by(cast.OTTO), kill)
    assert not scene.view.killed


def test_a_decision_that_is_overtaken_may_find_it_done() -> None:
    scene, store = contended()

    def killed() -> None:
        commit = Commit(Expected(), (Killed(reason="first"),), cast.OTTO, scene.now)
        scene.store.commit(scene.world_id, commit)

    store.meanwhile = [killed]
    seq = scene.view.seq
    assert step(store, scene.world_id, scene.by(cast.OTTO), kill) == "done"
    assert scene.view.seq == seq + 1


@pytest.mark.parametrize(
    ("reads", "contended_by_evidence"), [(BOTH, True), (EVIDENCE, True), (GOVERNANCE, False)]
)
def test_only_the_streams_that_were_read_are_expected(
    reads: frozenset[Stream], contended_by_evidence: bool
) -> None:
    scene, store = contended()
    tries: list[int] = []

    def decide(view: WorldView) -> tuple[None, Sequence[Fact]]:
        tries.append(view.evidence_generation)
        return None, (Killed(reason=""),)

    store.meanwhile = [lambda: scene.bar(Stage.PAPER, {ALPHA: 0.1})]
    step(store, scene.world_id, scene.by(cast.OTTO), decide, reads=reads)
    assert len(tries) == (2 if contended_by_evidence else 1)


DOWN: list[Callable[[Scene], object]] = [
    lambda scene: scene.kill(),
    lambda scene: scene.allow_live(False),
    lambda scene: scene.demote(ALPHA),
    lambda scene: scene.lower(ALPHA, Change(active=False)),
]


@pytest.mark.parametrize("down", DOWN, ids=["kill", "allow_live", "demote", "switch off"])
def test_going_down_does_not_wait_for_evidence(down: Callable[[Scene], object]) -> None:
    """I10: bars that keep coming in never hold up a kill, a closing or a demotion."""
    scene = live(MemoryStore())

    def bar(minute: int) -> None:
        scene.wait(MINUTE)
        scene.bar(Stage.PAPER, {ALPHA: 0.001 * minute})

    bars = [partial(bar, minute) for minute in range(ATTEMPTS_MAX)]
    down(Scene(Contended(scene.store, bars), scene.now))  # type: ignore[arg-type]  # It has all.
    assert not scene.view.live


def test_no_facts_no_commit() -> None:
    scene, store = contended()
    store.meanwhile = [lambda: pytest.fail("it committed")]
    seq = scene.view.seq
    assert step(store, scene.world_id, scene.by(cast.OTTO), lambda view: ("seen", ())) == "seen"
    assert scene.view.seq == seq


def test_what_a_decision_raises_is_raised_and_nothing_is_written(store: Store) -> None:
    scene = in_paper(store)
    seq = scene.view.seq

    def decide(view: WorldView) -> tuple[None, Sequence[Fact]]:
        raise Conflict("no")

    with pytest.raises(Conflict):
        step(store, scene.world_id, scene.by(cast.OTTO), decide)
    assert scene.view.seq == seq


def test_nowhere_is_unknown(store: Store) -> None:
    with pytest.raises(UnknownWorld):
        step(store, WorldId("nowhere"), cast.by(cast.OTTO, in_paper(store).now), kill)


def test_what_is_foreseen_is_what_comes(store: Store) -> None:
    scene = approved(store)
    by = scene.by(cast.OTTO)
    ahead = foreseen(scene.view, (Killed(reason=""),), by)
    step(store, scene.world_id, by, kill)
    assert scene.view.killed
    assert (ahead.seq, ahead.governance_generation, ahead.killed) == (
        scene.view.seq,
        scene.view.governance_generation,
        True,
    )
