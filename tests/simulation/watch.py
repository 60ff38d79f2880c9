"""Scenes under watch: every command runs on all of them, and nothing it does goes unquestioned."""

from collections.abc import Sequence
from dataclasses import dataclass

from qmtl.core.errors import Refusal
from qmtl.core.fold import fold
from qmtl.core.invariants import check
from qmtl.core.names import Mode, WorldState
from qmtl.core.times import micros
from qmtl.core.view import WorldView, same_view
from qmtl.sim.chaos import Command
from qmtl.sim.scene import Scene
from tests.simulation.oracle import (
    Past,
    disagreements,
    misnamed,
    overcommitted,
    read,
    tell,
    unfair,
    unjustified,
)


@dataclass(frozen=True)
class Refused:
    """What a command came to when it was refused."""

    kind: type[Refusal]
    told: str
    reasons: tuple[str, ...]


def outcome(scene: Scene, command: Command) -> object:
    try:
        return command(scene)
    except Refusal as refusal:
        return Refused(type(refusal), str(refusal), refusal.reasons)


def nothing(found: Sequence[str]) -> None:
    assert not found, "; ".join(found)


class Watched:
    """The same world in several stores, and what the first one's journal tells of it."""

    def __init__(self, *scenes: Scene) -> None:
        self.scenes = list(scenes)
        self.past = Past()
        self.told = WorldView(world_id=scenes[0].world_id)

    @property
    def one(self) -> Scene:
        return self.scenes[0]

    @property
    def view(self) -> WorldView:
        return self.one.view

    def do(self, command: Command) -> object:
        """Run it in every store; they answer alike, and what it wrote was right to be written."""
        before, live = self.told.seq, dict(self.told.live)
        first, *others = (outcome(scene, command) for scene in self.scenes)
        assert all(other == first for other in others)
        told, *same = (s.store.journal(s.world_id, before, 10_000) for s in self.scenes)
        assert all(other == told for other in same)
        assert not (isinstance(first, Refused) and told), "a refusal changes nothing"
        for entry in told:
            nothing(unfair(self.past, entry))
            nothing(misnamed(self.past, entry))
            if entry.fact.kind == "promotion_applied":
                nothing(unjustified(self.past, entry))
            read(self.past, entry)
        self.told = fold(self.told, told)
        applied = {e.fact.strategy_id for e in told if e.fact.kind == "promotion_applied"}
        for sid in set(self.told.live) - applied:  # Nobody goes live, or up, any other way.
            was, now = live[sid], self.told.live[sid]
            assert (was.step, was.applied_weight) == (now.step, now.applied_weight)
        for sid in self.told.live:  # A client each, of which nobody hears again.
            tell(self.past, self.one.decide(sid))
        nothing(overcommitted(self.past, self.one.now))
        return first

    def look(self) -> None:
        """What always holds."""
        nothing(check(self.view, self.one.now))
        assert all(same_view(self.told, scene.view) for scene in self.scenes)
        nothing(disagreements(self.past, self.view))
        self._series()
        self._ticks()
        self._decisions()

    def _series(self) -> None:
        for sid, life in self.past.lives.items():
            for stage, posted in life.points.items():
                for scene in self.scenes:
                    held = scene.store.series(scene.world_id, sid, stage)
                    assert held.t.tolist() == [micros(point[0]) for point in posted]
                    assert held.r.tolist() == [point[1] for point in posted]
                    assert held.accepted.tolist() == [point[2] for point in posted]

    def _ticks(self) -> None:
        """A tick only looks, and sees the same each time and everywhere."""
        view = self.view
        first = self.one.tick()
        assert all(scene.tick() == first for scene in self.scenes)
        assert self.view is view

    def _decisions(self) -> None:
        """Live is decided for who is live, while the world allows it."""
        view = self.view
        for sid in view.strategies:
            told, *others = (scene.decide(sid) for scene in self.scenes)
            assert all(other == told for other in others)
            if told.effective_mode is not Mode.LIVE:
                assert told.weight == 0.0
                continue
            assert sid in view.live
            assert (view.allow_live, view.killed, view.state) == (True, False, WorldState.ACTIVE)
            assert 0.0 <= told.weight <= view.live[sid].applied_weight
