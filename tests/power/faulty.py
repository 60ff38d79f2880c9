"""Plays a case on a disk of which one operation fails, or every one from there on.

Whoever asks is answered as ever, or refused because the database is away; nothing that was answered
is lost, and nothing is half. Once the disk works again so does the store, without a restart.

A disk that gives back something else than was written (a short read, a flipped bit) is another
matter. Then nobody gets a wrong answer; and what was written on the strength of it is found by the
store itself: it does not open, or an audit says so.
"""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial
from threading import Thread
from typing import TypeVar

from sqlalchemy.exc import IntegrityError

from qmtl.adapters.sql.errors import StoreAway, StoreDamaged
from qmtl.adapters.sql.folder import DATABASE
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.errors import Refusal
from qmtl.sim.scene import Scene

from .cases import Case, outcome
from .disk import NOTHING, Volatile
from .rig import (
    Expected,
    connecting,
    expected,
    filled,
    held,
    left,
    misled,
    opened,
    repeated,
    scene_on,
    scratch,
    settings_of,
    store_on,
)
from .vfs import Fault, Kind, Recorder, Way, watching

ANSWER_SEC = 30.0  # Every answer takes milliseconds: after so long it hangs.
LIES = {Way.SHORT, Way.FLIP}
T = TypeVar("T")
FLIPS = 5  # Bits of each read that are tried, one at a time.

WAYS: dict[Kind, tuple[tuple[Way, bool], ...]] = {
    Kind.OPEN: ((Way.EIO, False),),
    Kind.READ: ((Way.EIO, False), (Way.SHORT, False), *[(Way.FLIP, False)] * FLIPS),
    Kind.WRITE: ((Way.EIO, False), (Way.EIO, True), (Way.FULL, False), (Way.FULL, True)),
    Kind.SYNC: ((Way.EIO, False), (Way.EIO, True)),
    Kind.TRUNCATE: ((Way.EIO, False),),
    Kind.DELETE: ((Way.EIO, False),),
}


@cache
def undisturbed(case: Case, logged: bool) -> Recorder:
    """What a disk that works is asked."""
    with scratch() as directory, settings_of(case):
        filled(expected(case, logged).start, directory)
        with watching(directory) as recorder, opened(directory, connecting(case)) as store:
            for step in case.steps:
                step(scene_on(store, expected(case, logged).scene))
        return recorder


def faults(case: Case) -> Iterator[Fault]:
    """Every way in which any operation of the case can fail."""
    for kind, count in undisturbed(case, logged=True).counts.items():
        for at in range(1, count + 1):
            for seed, (way, lasts) in enumerate(WAYS[kind]):
                if way not in LIES:
                    yield Fault(way, kind, at, lasts, seed)
    for at in range(1, undisturbed(case, logged=True).counts.total() + 1):
        yield Fault(Way.EIO, None, at, lasts=True)
    if case.shared:
        return
    # Of a log that is read at the start, SQLite takes what is damaged for its end: decision 0021.
    # And the answers that a database of before remembers have no digest until it is migrated.
    blind = page_of(case, "idempotency") if case.script else None
    for at, page in enumerate(undisturbed(case, logged=False).reads, start=1):
        for seed, (way, _) in enumerate(WAYS[Kind.READ]):
            if way in LIES and page != blind:
                yield Fault(way, Kind.READ, at, seed=seed)


def page_of(case: Case, table: str) -> tuple[str, int]:
    """Where a table begins: the file, and from where in it."""
    with scratch() as directory:
        filled(expected(case, logged=False).start, directory)
        with closing(sqlite3.connect(directory / DATABASE)) as connection:
            query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
            [page] = connection.execute(query, (table,)).fetchone()
            [size] = connection.execute("PRAGMA page_size").fetchone()
    return DATABASE, (page - 1) * size


def flips_in(case: Case, table: str, count: int) -> Iterator[Fault]:
    """Bits of the page where a table begins, each the first time that it is read."""
    at = undisturbed(case, logged=False).reads.index(page_of(case, table))
    return (Fault(Way.FLIP, Kind.READ, at + 1, seed=seed) for seed in range(count))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended, in a word, and what must not have been, in words."""

    word: str
    faults: tuple[str, ...] = ()


def outcome_of(case: Case, fault: Fault) -> Outcome:
    """What happens when the disk fails so."""
    lies = fault.way in LIES
    begun = expected(case, logged=not lies)
    with scratch() as directory, settings_of(case):
        filled(begun.start, directory)
        with watching(directory, fault) as recorder:
            trial = Trial(case, begun, recorder, lies)
            try:
                store = store_on(directory, connecting(case))
            except Exception as error:
                trial.word = "does not open"
                if not lies and not isinstance(error, StoreAway):
                    trial.faults.append(f"it raises {error!r}")
            else:
                trial.use(store)
        here = left(case, held(directory), trial.done, logged=not lies)
    if lies and here.unsound:
        return Outcome(f"{trial.word}, found", tuple(trial.faults))
    closed = (f"closed, {found}" for found in here.faults)
    return Outcome(trial.word, (*trial.faults, *closed))


@dataclass
class Trial:
    """One use of a store on a disk that fails: how it goes, and what is wrong with that."""

    case: Case
    begun: Expected
    recorder: Recorder
    lies: bool
    word: str = "answered"
    done: int = 0  # Steps that were answered.
    faults: list[str] = field(default_factory=list)

    def use(self, store: SqlStore) -> None:
        """From the first step to the store's end, and a power loss just before or after that."""
        scene = scene_on(store, self.begun.scene)
        self._ask(scene)
        if self.done < len(self.case.steps) and not self.lies and not self.faults:
            self._ask_again(scene)
        elif self.recorder.failed and self.word == "answered":
            self._look(store, scene)
        struck, events = self.recorder.failed, self.recorder.events
        before = len(events)
        closed = within(partial(outcome, lambda _: store.close(), scene))
        if self.lies or self.faults:
            return
        if isinstance(closed, Exception):
            self.faults.append(f"closing raises {closed!r}")
        disk = Volatile(self.begun.start)
        disk.see(events[:before] if struck else events)
        cut = left(self.case, disk.after(NOTHING.draw(0)), self.done)
        self.faults += [f"without power, {found}" for found in cut.faults]

    def _ask(self, scene: Scene) -> None:
        """The steps, until one is refused."""
        for number, step in enumerate(self.case.steps):
            answer = within(partial(outcome, step, scene))
            if self._may_refuse(answer):
                self.word = f"refused ({type(answer).__name__})"
                return
            right = self.case.shared or answer == self.begun.answers[number]
            if isinstance(answer, Exception) or not right:
                self.word = "wrong"
                self.faults.append(f"step {number + 1} is answered wrong: {answer!r}")
                return
            self.done = number + 1
            self.recorder.answered(self.done)

    def _may_refuse(self, answer: object) -> bool:
        """Only a disk that lies is damaged; and it, too, is told of in our words.

        But for a CHECK that fails, which looks like a bug of ours: a bit of its text flipped.
        """
        if not self.lies:
            return isinstance(answer, StoreAway) and not isinstance(answer, StoreDamaged)
        checked = isinstance(answer, IntegrityError) and "CHECK constraint" in str(answer)
        return isinstance(answer, Refusal) or checked

    def _ask_again(self, scene: Scene) -> None:
        """The disk works again, and so does the store."""
        self.recorder.heal()
        again = partial(repeated, self.case, scene, self.begun, self.done, done=False)
        self.faults += within(lambda: list(again()))
        self.done = len(self.case.steps)

    def _look(self, store: SqlStore, scene: Scene) -> None:
        """The disk works again: does the store remember what the disk says?"""
        self.recorder.heal()
        seen = within(partial(outcome, lambda _: list(misled(store)), scene))
        if isinstance(seen, list):  # Else it was written back, and is found when it is read.
            self.faults += seen


def within(job: Callable[[], T]) -> T:
    """What the job returns.  Raises TimeoutError when it hangs; its thread is left behind."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(job())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    return answer.result(ANSWER_SEC)
