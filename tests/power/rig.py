"""Plays a case on a watched disk, cuts its power, and asks whether what is left is sound.

What a case should come to is played once, on the standard library's SQLite and a disk that works:
its answers, and everything that the store holds before the first step and after each. What is left
after a power cut must be one of those states, no older than what was answered; and going on from
there must end in the last of them. It is opened as the product opens it, `sqlite3` and all.
"""

import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

import pytest

from qmtl.adapters.sql import checkpoint, folder, writer
from qmtl.adapters.sql.errors import StoreDamaged
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.errors import Refusal
from qmtl.core.fold import fold
from qmtl.core.invariants import check
from qmtl.core.names import SYSTEM
from qmtl.core.view import WorldView, same_view
from qmtl.entry import identity
from qmtl.sim.scene import Scene
from tests.worlds import LATER

from . import dbapi, vfs
from .cases import Case
from .disk import LOSSES, Answered, Event, Image, Loss, cuts
from .vfs import Recorder, watching

SHARED_MEMORY = Path("/dev/shm")  # Where it exists, a real disk is not waited for.
FILES = (folder.DATABASE, f"{folder.DATABASE}-wal", f"{folder.DATABASE}-journal")
LONG_SEC = 60.0
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
        patch.setattr(identity, "new_token", lambda: "qmtl_not_secret")
        if case.view_checkpoints:
            patch.setattr(checkpoint, "CHECKPOINT_EVERY", 1)
        if case.shared:
            patch.setattr(writer, "BATCH_SEC", LONG_SEC)  # However slow the machine, one batch.
        if case.migrated:
            patch.setattr(folder, "create", folder.upgrade)
        yield


def scene_on(store: SqlStore, scene: Scene) -> Scene:
    return Scene(store, scene.now, scene.world_id)


@cache
def template(case: Case, logged: bool) -> tuple[Image, Scene]:
    """A folder where the case begins, as a process that died left it.

    `logged`: all that the case builds on is in the log still; else it has been copied. Either way
    there is no view on disk, unless the case writes them: the journal is read from its beginning.
    """
    nowhere = Scene(cast("SqlStore", None), now=LATER)
    if case.script is not None:
        return {folder.DATABASE: made_by(case.script)}, nowhere
    if case.build is None:
        return {}, nowhere
    with scratch() as directory, settings_of(case):
        store = SqlStore(directory)
        try:
            scene = case.build(store)
            if not logged:
                store.write(partial(copy_log, store))
            return held(directory), scene
        finally:
            store.close()


def made_by(script: str) -> bytes:
    """The file of a database."""
    with scratch() as directory, closing(sqlite3.connect(directory / folder.DATABASE)) as by_hand:
        by_hand.executescript(script)
        return held(directory)[folder.DATABASE]


def copy_log(store: SqlStore) -> None:
    store._transaction.connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


@cache
def expected(case: Case, logged: bool = True) -> Expected:
    """What the case comes to when nothing fails."""
    start, scene = template(case, logged)
    with scratch() as directory, settings_of(case):
        filled(start, directory)
        store = SqlStore(directory)
        try:
            acted = scene_on(store, scene)
            states, answers = [state_of(store, case)], []
            for step in case.steps:
                answers.append(step(acted))
                states.append(state_of(store, case))
        finally:
            store.close()
    return Expected(start, scene, tuple(answers), tuple(states))


def state_of(store: SqlStore, case: Case) -> State:
    """Everything that is kept: every world's journal, remembered answers, the clock."""
    worlds = (SYSTEM, *sorted(store.load(SYSTEM).worlds))
    state: dict[str, Any] = {w: store.journal(w, 0, ENTRIES_MAX) for w in worlds}
    if case.shared:  # Who of them came first is nobody's promise.
        state = {w: sorted(repr((e.actor, e.fact)) for e in state[w]) for w in worlds}
    with store._reading() as connection:
        for table in ("idempotency", "clock"):
            state[f"table {table}"] = connection.exec_driver_sql(f"SELECT * FROM {table}").all()
    return state


def connecting(case: Case) -> Connect:
    """apsw, on the disk that is watched."""
    return lambda uri: dbapi.Connection(uri, vfs.NAME, case.log_pages)


def store_on(directory: Path, connect: Connect) -> SqlStore:
    """The product's store over apsw."""
    return SqlStore(directory, connect=cast("folder.Connect", connect))


@contextmanager
def opened(directory: Path, connect: Connect) -> Iterator[SqlStore]:
    store = store_on(directory, connect)
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


def misled(store: SqlStore) -> Iterator[str]:
    """Whether what a process keeps in memory is what the disk says, now that it is read again."""
    for world in (SYSTEM, *sorted(store.load(SYSTEM).worlds)):
        if store.verify(world) is not None:
            continue  # The journal was written on the strength of it, and that is found.
        told = fold(WorldView(world_id=world), store.journal(world, 0, ENTRIES_MAX))
        if not same_view(store.load(world), told):
            yield f"{world}: its view is not what its journal says"


@dataclass(frozen=True, slots=True)
class Left:
    """What is wrong with a folder, in words: what it says of itself, and what only we know."""

    unsound: tuple[str, ...] = ()  # It does not open, or what is there does not fit together.
    wrong: tuple[str, ...] = ()  # It fits together, and is not what it must be.

    @property
    def faults(self) -> tuple[str, ...]:
        return self.unsound + self.wrong


def left(case: Case, image: Image, answered: int, logged: bool = True) -> Left:
    """How a folder is found after `answered` steps were answered, opened and used as ever.

    `logged` is how the case began: see `template`.
    """
    begun = expected(case, logged)
    with scratch() as directory, settings_of(case), ExitStack() as stack:
        filled(image, directory)
        try:
            store = SqlStore(directory)
        except Exception as error:
            return Left(unsound=(f"it does not open: {error!r}",))
        stack.callback(store.close)
        try:
            found = tuple(unsound(store, begun.scene))
            return Left(unsound=found) if found else _left(case, begun, store, answered)
        except Exception as error:
            return Left(unsound=(f"it fails: {error!r}",))


def _left(case: Case, begun: Expected, store: SqlStore, answered: int) -> Left:
    state = state_of(store, case)
    possible = begun.states[answered : answered + 2]  # One step at most was under way.
    if state not in possible:
        older = [n for n in range(answered) if begun.states[n] == state]
        said = f"{answered} steps were answered, and {older[-1]} are there" if older else ""
        return Left(wrong=(said or "a step is there half",))
    first = min(answered, len(case.steps) - 1)
    done = begun.states[first] != state
    said_again = tuple(repeated(case, scene_on(store, begun.scene), begun, first, done))
    if state == begun.states[-1]:  # Nothing was written on top of what was left.
        return Left(wrong=said_again)
    return Left(tuple(unsound(store, begun.scene)), said_again)


def repeated(case: Case, scene: Scene, begun: Expected, first: int, done: bool) -> Iterator[str]:
    """From step `first` on, each is sent (again, when it is `done`): the effect is of once."""
    for number in range(first, len(case.steps)):
        try:
            answer = case.steps[number](scene)
        except StoreDamaged:  # What the store finds by itself is not what only we know.
            raise
        except Refusal as refusal:  # It may be told that it was done.
            if not done:
                yield f"step {number + 1} is refused: {refusal}"
                return
        else:
            if not done and not case.shared and answer != begun.answers[number]:
                yield f"step {number + 1} answers {answer}, not {begun.answers[number]}"
        done = False
    if state_of(scene.store, case) != begun.states[-1]:
        yield "the same again does not have the effect of once"


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


# ---- Cutting the power ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """The power goes in the middle of operation `number`, and leaves what `loss` leaves."""

    number: int
    loss: Loss

    def __str__(self) -> str:
        return f"in operation {self.number}, of what is volatile {self.loss.name} is left"


def every_cut(events: Sequence[Event]) -> list[Cut]:
    """In each operation, and once after the last, in each way."""
    operations = sum(not isinstance(event, Answered) for event in events)
    return [Cut(number, loss) for number in range(operations + 1) for loss in LOSSES]


def left_by(
    case: Case, events: Sequence[Event], chosen: Iterable[Cut]
) -> Iterator[tuple[Cut, Left]]:
    """What each of these cuts leaves.  One that leaves the same as another is not looked at."""
    ways = defaultdict(list)
    for cut in chosen:
        ways[cut.number].append(cut)
    seen: set[tuple[int, frozenset[tuple[str, bytes]]]] = set()
    for number, disk, answered in cuts(expected(case).start, events):
        for cut in ways[number]:
            image = disk.after(cut.loss.draw(number))
            found = (answered, frozenset((name, digest(held)) for name, held in image.items()))
            if found not in seen:
                seen.add(found)
                yield cut, left(case, image, answered)


def digest(content: bytes) -> bytes:
    return sha256(content).digest()
