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
from dataclasses import dataclass
from functools import cache, partial
from threading import Thread
from typing import TypeVar

from qmtl.adapters.sql.errors import StoreAway
from qmtl.adapters.sql.folder import DATABASE
from qmtl.adapters.sql.store import SqlStore
from qmtl.sim.scene import Scene

from .cases import Case, outcome
from .disk import NOTHING, Volatile
from .rig import (
    Connect,
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
    for at in range(1, undisturbed(case, logged=False).counts[Kind.READ] + 1):
        for seed, (way, _) in enumerate(WAYS[Kind.READ]):
            if way in LIES:
                yield Fault(way, Kind.READ, at, seed=seed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended, in a word, and what must not have been, in words."""

    word: str
    faults: tuple[str, ...] = ()


def flips_in(case: Case, table: str, count: int) -> Iterator[Fault]:
    """Bits of the page where a table begins, each the first time that it is read."""
    start = expected(case, logged=False).start
    with scratch() as directory:
        filled(start, directory)
        with closing(sqlite3.connect(directory / DATABASE)) as connection:
            query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
            [page] = connection.execute(query, (table,)).fetchone()
            [[bytes_]] = connection.execute("PRAGMA page_size").fetchall()
    at = undisturbed(case, logged=False).reads.index((DATABASE, (page - 1) * bytes_))
    return (Fault(Way.FLIP, Kind.READ, at + 1, seed=seed) for seed in range(count))


def outcome_of(case: Case, fault: Fault, connect: Connect | None = None) -> Outcome:
    """What happens when the disk fails so."""
    lies = fault.way in LIES
    begun = expected(case, logged=not lies)
    with scratch() as directory, settings_of(case):
        filled(begun.start, directory)
        with watching(directory, fault) as recorder:
            try:
                store = store_on(directory, connect or connecting(case))
            except Exception as error:
                told = lies or isinstance(error, StoreAway)
                ended = Outcome("does not open", () if told else (f"it raises {error!r}",))
                done = 0
            else:
                ended, done = _used(case, begun, store, recorder, lies)
        here = left(case, held(directory), done, logged=not lies)
    said = ended.faults
    if lies and here.unsound:
        return Outcome(f"{ended.word}, found", said)
    return Outcome(ended.word, said + tuple(f"closed, {found}" for found in here.faults))


def _used(
    case: Case, begun: Expected, store: SqlStore, recorder: Recorder, lies: bool
) -> tuple[Outcome, int]:
    """From the first step to the store's end; and how many steps were answered until then."""
    scene = scene_on(store, begun.scene)
    said: list[str] = []
    word, done = _answered(case, begun, scene, recorder, lies, said)
    if not lies and done < len(case.steps) and not said:
        recorder.heal()
        said += within(lambda: list(repeated(case, scene, begun, done, done=False)))
        done = len(case.steps)
    struck = bool(recorder.failed)
    if word == "answered" and struck:
        recorder.heal()
        seen = within(partial(outcome, lambda _: list(misled(store)), scene))
        if isinstance(seen, list):  # Else it was written back, and is found when it is read.
            said += seen
    at_close = len(recorder.events)
    closed = within(partial(outcome, lambda _: store.close(), scene))
    if isinstance(closed, Exception) and not lies:
        said.append(f"closing raises {closed!r}")
    if not lies and not said:
        disk = Volatile(begun.start)
        disk.see(recorder.events[:at_close] if struck else recorder.events)
        cut = left(case, disk.after(NOTHING.draw(0)), done)
        said += [f"without power, {found}" for found in cut.faults]
    return Outcome(word, tuple(said)), done


def _answered(
    case: Case,
    begun: Expected,
    scene: Scene,
    recorder: Recorder,
    lies: bool,
    said: list[str],
) -> tuple[str, int]:
    """The steps, until one is refused; what is wrong goes into `said`."""
    for number, step in enumerate(case.steps):
        answer = within(partial(outcome, step, scene))
        if isinstance(answer, StoreAway) or (lies and isinstance(answer, Exception)):
            return f"refused ({type(answer).__name__})", number
        right = case.shared or answer == begun.answers[number]
        if isinstance(answer, Exception) or not right:
            said.append(f"step {number + 1} is answered wrong: {answer!r}")
            return "wrong", number
        recorder.answered(number + 1)
    return "answered", len(case.steps)


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
