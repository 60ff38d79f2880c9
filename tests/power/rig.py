"""Plays a case on a watched disk, cuts its power, and asks whether what is left is sound.

What a case should come to is played once, on the standard library's SQLite and a disk that works:
its answers, and everything that the store holds before the first step and after each. What is left
after a power cut must be one of those states, no older than what was answered; and going on from
there must end in the last of them. It is opened as the product opens it, `sqlite3` and all.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

import pytest

from qmtl.adapters.sql import checkpoint, folder
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.errors import Refusal
from qmtl.core.invariants import check
from qmtl.core.names import SYSTEM
from qmtl.entry import auth
from qmtl.sim.scene import Scene

from . import dbapi, vfs
from .cases import Case
from .disk import Event, Image
from .vfs import Fault, Recorder, watching

SHARED_MEMORY = Path("/dev/shm")  # Where it exists, a real disk is not waited for.
FILES = (folder.DATABASE, f"{folder.DATABASE}-wal", f"{folder.DATABASE}-journal")
ENTRIES_MAX = 10_000  # Far more than any case has.

Connect = Callable[[str], dbapi.Connection]
State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Expected:
    """A case undisturbed: `states[i]` is what the store holds once i steps are done."""

    start: Image
    scene: Scene
    answers: tuple[object, ...]
    states: tuple[State, ...]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of its own."""
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    made = Path(mkdtemp(prefix="qmtl-power-", dir=where)).resolve()
    try:
        yield made
    finally:
        shutil.rmtree(made)


def filled(image: Image, into: Path) -> None:
    for name in FILES:
        if name in image:
            (into / name).write_bytes(image[name])


def held(directory: Path) -> Image:
    return {name: (directory / name).read_bytes() for name in FILES if (directory / name).exists()}


@contextmanager
def settings_of(case: Case) -> Iterator[None]:
    """What of the product's settings a case turns; and the one thing in it that is random."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "new_token", lambda: "qmtl_not_secret")
        if case.view_checkpoints:
            patch.setattr(checkpoint, "CHECKPOINT_EVERY", 1)
        if case.migrated:
            patch.setattr(folder, "create", folder.upgrade)
        yield


def scene_on(store: SqlStore, scene: Scene) -> Scene:
    return Scene(store, scene.now, scene.world_id)


@cache
def template(case: Case, logged: bool) -> tuple[Image, Scene]:
    """A folder where the case begins. `logged`: as a process that died left it, with its log."""
    if case.build is None:
        return {}, Scene(cast("SqlStore", None))
    with scratch() as directory, settings_of(case):
        store = SqlStore(directory)
        try:
            scene = case.build(store)
            left = held(directory)
        finally:
            store.close()
        return (left if logged else held(directory)), scene


@cache
def expected(case: Case, logged: bool = True) -> Expected:
    """What the case comes to when nothing fails."""
    start, scene = template(case, logged)
    with scratch() as directory, settings_of(case):
        filled(start, directory)
        store = SqlStore(directory)
        try:
            acted = scene_on(store, scene)
            states, answers = [state_of(store)], []
            for step in case.steps:
                answers.append(step(acted))
                states.append(state_of(store))
        finally:
            store.close()
    return Expected(start, scene, tuple(answers), tuple(states))


def state_of(store: SqlStore) -> State:
    """Everything that is kept: every world's journal, remembered answers, the clock."""
    worlds = (SYSTEM, *sorted(store.load(SYSTEM).worlds))
    state: dict[str, Any] = {w: store.journal(w, 0, ENTRIES_MAX) for w in worlds}
    with store._reading() as connection:
        for table in ("idempotency", "clock"):
            state[f"table {table}"] = connection.exec_driver_sql(f"SELECT * FROM {table}").all()
    return state


def connecting(case: Case) -> Connect:
    """apsw, on the disk that is watched."""

    def connect(uri: str) -> dbapi.Connection:
        connection = dbapi.Connection(uri, vfs.NAME)
        if case.log_pages is not None:
            connection.execute(f"PRAGMA wal_autocheckpoint = {case.log_pages}")
        return connection

    return connect


@contextmanager
def opened(directory: Path, connect: Connect) -> Iterator[SqlStore]:
    """The product's store over apsw."""
    store = SqlStore(directory, connect=cast("folder.Connect", connect))
    try:
        yield store
    finally:
        store.close()


def recorded(case: Case, connect: Connect | None = None) -> list[Event]:
    """What the disk is asked from the store's opening to its closing, and when it was answered."""
    begun = expected(case)
    with scratch() as directory, settings_of(case):
        filled(begun.start, directory)
        with (
            watching(directory) as recorder,
            opened(directory, connect or connecting(case)) as store,
        ):
            act(case, scene_on(store, begun.scene), recorder)
        return recorder.events


def act(case: Case, scene: Scene, recorder: Recorder) -> list[object]:
    """Every step, one after the other; the answers."""
    answers = []
    for number, step in enumerate(case.steps, start=1):
        answers.append(step(scene))
        recorder.answered(number)
    return answers


# ---- What is left ------------------------------------------------------------------------------


def faults_of(case: Case, image: Image, answered: int, logged: bool = True) -> list[str]:
    """What is wrong with what a power cut left, in words; nothing when it is as it must be.

    `answered` steps were answered before. The folder is opened and used as the product does.
    """
    begun = expected(case, logged)
    with scratch() as directory, settings_of(case), ExitStack() as stack:
        filled(image, directory)
        try:
            store = SqlStore(directory)
        except Exception as error:
            return [f"it does not open: {error!r}"]
        stack.callback(store.close)
        try:
            return list(_faults(case, begun, store, answered))
        except Exception as error:
            return [f"it fails: {error!r}"]


def _faults(case: Case, begun: Expected, store: SqlStore, answered: int) -> Iterator[str]:
    if found := list(unsound(store, begun.scene)):
        yield from found
        return
    state = state_of(store)
    possible = range(answered, min(answered + 2, len(begun.states)))
    if not any(begun.states[n] == state for n in possible):
        earlier = [n for n in range(answered) if begun.states[n] == state]
        yield f"answered {answered} steps, has {earlier[-1]}" if earlier else "a step is there half"
        return
    again = min(answered, len(case.steps) - 1)
    done = begun.states[again] != state
    yield from repeated(case, begun, store, again, done)


def repeated(
    case: Case, begun: Expected, store: SqlStore, first: int, done: bool
) -> Iterator[str]:
    """From step `first` on, each is sent (again, when it is `done`): the effect is of once."""
    scene = scene_on(store, begun.scene)
    for number in range(first, len(case.steps)):
        try:
            answer = case.steps[number](scene)
        except Refusal as refusal:  # It may be told that it was done.
            if not done:
                yield f"step {number + 1} is refused: {refusal}"
                return
        else:
            if not done and answer != begun.answers[number]:
                yield f"step {number + 1} answers {answer}, not {begun.answers[number]}"
        done = False
    if state_of(store) != begun.states[-1]:
        yield "the same again does not have the effect of once"
    yield from unsound(store, begun.scene)


def unsound(store: SqlStore, scene: Scene) -> Iterator[str]:
    """Whatever a sound store cannot say of itself."""
    with store._reading() as connection:
        for pragma, sound in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
            told = [tuple(row) for row in connection.exec_driver_sql(f"PRAGMA {pragma}")]
            if told != sound:
                yield f"{pragma}: {told[:3]}"
    for world in (SYSTEM, *sorted(store.load(SYSTEM).worlds)):
        bad = store.verify(world)
        if bad is not None:
            yield f"{world}: entry {bad} is missing or was edited"
        else:
            yield from (f"{world}: {said}" for said in store.audit(world))
            yield from (f"{world}: {said}" for said in check(store.load(world), scene.now))


@contextmanager
def failing(case: Case, fault: Fault | None, logged: bool) -> Iterator[tuple[Path, Recorder]]:
    """A folder where the case begins, on a disk that fails."""
    with scratch() as directory, settings_of(case):
        filled(expected(case, logged).start, directory)
        with watching(directory, fault) as recorder:
            yield directory, recorder
