"""A kill wins against every promotion, whichever of the two reads or writes first."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.app import promotions, worlds
from qmtl.app.ports import Commit, Store
from qmtl.core import facts as f
from qmtl.core import promotion
from qmtl.core.names import Mode, Reason, WorldId
from qmtl.core.promotion import Blocked, Clearance, clear_for_live
from qmtl.sim import cast as people
from qmtl.sim.scene import Scene
from tests.worlds import ALPHA, AUTO, approved, climbed

ROUNDS = 12


class Between:
    """A store on which others write between what a step read and what it commits."""

    def __init__(self, store: Store, meanwhile: Callable[[], object], times: int) -> None:
        self._store, self._meanwhile, self._left = store, meanwhile, times
        self.lost = 0

    def commit(self, world_id: WorldId, commit: Commit) -> tuple[f.Entry, ...] | None:
        if self._left:
            self._left -= 1
            self._meanwhile()
        done = self._store.commit(world_id, commit)
        self.lost += done is None
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def between(store: Store, meanwhile: Callable[[], object], times: int = 1) -> Any:
    return cast("Any", Between(store, meanwhile, times))


def dead(scene: Scene) -> None:
    assert scene.view.killed
    assert not scene.view.live
    assert scene.decide(ALPHA).effective_mode is not Mode.LIVE
    kinds = [entry.fact.kind for entry in scene.store.journal(scene.world_id, 0, 10_000)]
    assert "promotion_applied" not in kinds[kinds.index("killed") :]


def manually(store: Store, scene: Scene) -> object:
    run_id = scene.candidate(ALPHA).run_id
    return promotions.apply(store, scene.world_id, scene.by(people.OTTO), ALPHA, run_id)


def automatically(store: Store, scene: Scene) -> object:
    by = scene.by(people.LOOP)
    return promotions.auto_apply(store, scene.world_id, by, None, None)


PATHS: list[tuple[str, Callable[[Store], Scene], Callable[[Store, Scene], object]]] = [
    ("to live", approved, manually),
    ("up the ramp", climbed, manually),
    ("by itself", lambda store: approved(store, AUTO), automatically),
    ("up the ramp by itself", lambda store: climbed(store, AUTO), automatically),
]


@pytest.mark.parametrize(("what", "build", "apply"), PATHS, ids=[what for what, *_ in PATHS])
def test_what_was_read_before_a_kill_is_not_committed_after_it(
    store: Store,
    what: str,
    build: Callable[[Store], Scene],
    apply: Callable[[Store, Scene], object],
) -> None:
    scene = build(store)
    racing = between(store, lambda: scene.kill())
    answer = apply(racing, scene)
    assert racing.lost == 1, what
    if isinstance(answer, Blocked):
        assert Reason.WORLD_KILLED in answer.reasons
    else:
        assert isinstance(answer, promotions.AutoApplied)
        assert answer.applied == ()
    dead(scene)


@pytest.mark.parametrize(("what", "build", "apply"), PATHS, ids=[what for what, *_ in PATHS])
def test_what_is_committed_while_a_kill_is_decided_is_undone_by_it(
    store: Store,
    what: str,
    build: Callable[[Store], Scene],
    apply: Callable[[Store, Scene], object],
) -> None:
    scene = build(store)
    racing = between(store, lambda: apply(store, scene))
    worlds.kill(racing, scene.world_id, scene.by(people.OTTO), "enough")
    assert racing.lost == 0, what
    dead(scene)


def test_a_kill_loses_to_nobody_however_many_write(store: Store) -> None:
    scene = climbed(store)

    def busy() -> None:
        scene.approve(ALPHA, people.PIA)
        scene.withdraw(ALPHA, people.PIA)

    racing = between(store, busy, times=99)
    worlds.kill(racing, scene.world_id, scene.by(people.OTTO), "enough")
    assert racing.lost == 0
    dead(scene)


def test_two_commits_on_the_same_generation(store: Store) -> None:
    """At the level of the store: what both read is one generation; either order ends dead."""
    scene = approved(store)
    read = scene.view
    applied = Commit(read.expected, promoted(scene), people.OTTO, scene.now)
    scene.kill()
    assert store.write(lambda: store.commit(scene.world_id, applied)) is None
    dead(scene)


def promoted(scene: Scene) -> tuple[f.Fact, ...]:
    """The facts of a promotion that every gate lets through."""
    view, store = scene.view, scene.store
    dossier = promotions.dossier_of(store, view, ALPHA)
    cleared = clear_for_live(view, ALPHA, scene.candidate(ALPHA), dossier, scene.now)
    assert isinstance(cleared, Clearance)
    return promotion.apply(cleared)


def test_at_once(store: Store) -> None:
    """Threads, as a server has them: after the kill's answer nothing is live."""
    for _ in range(ROUNDS if isinstance(store, MemoryStore) else 1):
        here = MemoryStore() if isinstance(store, MemoryStore) else store
        scene = approved(here)
        run_id = scene.candidate(ALPHA).run_id
        by = scene.by(people.OTTO)

        def kill(scene: Scene = scene) -> None:
            scene.kill()
            assert not scene.view.live

        with ThreadPoolExecutor(4) as pool:
            args = (here, scene.world_id, by, ALPHA, run_id)
            doing = [pool.submit(promotions.apply, *args) for _ in range(3)]
            doing.append(pool.submit(kill))
            for each in doing:
                each.result()
        dead(scene)
