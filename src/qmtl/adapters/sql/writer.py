"""One thread writes.  Whoever wants something written queues, and waits until it is durable.

SQLite has one writer at a time whatever we do; owning it makes waiting fair, and lets jobs that
queued during one disk write share the next: a batch is one transaction, hence one fsync.  On
PostgreSQL a job that would wait for another process, or is stopped because both wait for each
other, ends the batch, and is the next one's first.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread, current_thread
from typing import Any, Protocol, TypeVar

from qmtl.core.errors import Refusal, WorldBusy

from .errors import LOG, StoreAway, is_deadlock, refusal
from .transaction import TransactionLost

BATCH_MAX = 256  # Jobs a disk write,
BATCH_SEC = 0.05  # and how long more are taken: a kill never waits long for the work of others.
QUEUE_MAX = 10_000  # Far more waiters than threads: something is wrong, and piling up helps nobody.

PUT_OFF_MAX = 8  # Times, one after the other: a job that needs two worlds may be, as the first.
PUT_OFF_SEC = 0.004  # Until it is tried again; then twice as long.

T = TypeVar("T")
Waiter = tuple[Callable[[], Any], Future[Any]]  # A job, and where its caller waits.


class Alone(Exception):
    """A job needs what another process holds, and this batch holds what others may wait for."""


class Batch(Protocol):
    """What a batch of jobs is written with."""

    def enter(self) -> None: ...

    def leave(self, kept: bool) -> None: ...

    def abandon(self) -> None: ...


class Writer:
    """Runs jobs one after the other, in batches; see `write`."""

    def __init__(self, batch: Batch, commit: Callable[[], None]) -> None:
        self._batch = batch
        self._commit = commit
        self._queue: SimpleQueue[Waiter | None] = SimpleQueue()
        self._put_off: Waiter | None = None
        self._put_off_first = 0  # Times that a batch's first job was, one after the other.
        self._door = Lock()
        self._closed = False
        self._thread = Thread(target=self._serve, name="qmtl-writer", daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether this is the writer's thread."""
        return current_thread() is self._thread

    def write(self, job: Callable[[], T]) -> T:
        """What the job returns, once it is durable.  Raises what it raises, or StoreAway."""
        if self.here:
            return self._run(job)
        answer: Future[T] = Future()
        with self._door:
            if self._closed:
                raise StoreAway("It is closed.")
            if self._queue.qsize() >= QUEUE_MAX:
                raise WorldBusy
            self._queue.put((job, answer))
        return answer.result()

    def close(self) -> None:
        """Finish what is queued, and take nothing more."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self, job: Callable[[], T]) -> T:
        """A job of its own savepoint; an inner one is part of the outer one, and fails alone."""
        self._batch.enter()
        kept = False
        try:
            answer = job()
            kept = True
            return answer
        finally:
            self._batch.leave(kept)

    def _serve(self) -> None:
        try:
            while (first := self._first()) is not None:
                self._settle(first)
        finally:
            self._turn_away()

    def _first(self) -> Waiter | None:
        waiter, self._put_off = self._put_off, None
        if waiter is None:
            return self._queue.get()
        if self._put_off_first:
            time.sleep(PUT_OFF_SEC * 2**self._put_off_first)
        return waiter

    def _waiting(self, first: Waiter) -> Iterator[Waiter]:
        """The first job of a batch and those queued behind it, until the batch is full or old."""
        full = time.monotonic() + BATCH_SEC
        yield first
        for _ in range(BATCH_MAX - 1):
            if time.monotonic() > full or self._put_off is not None:
                return
            try:
                waiter = self._queue.get_nowait()
            except Empty:
                return
            if waiter is None:
                self._queue.put(None)  # For `_serve`; nothing is queued behind it.
                return
            yield waiter

    def _settle(self, first: Waiter) -> None:
        """Run a batch of jobs, write the disk once, and answer.

        INVARIANT: nobody is answered before the batch is durable, and everybody is answered.
        """
        batch: list[Waiter] = []
        answers: list[Callable[[], None]] = []
        try:
            for waiter in self._waiting(first):
                batch.append(waiter)
                answers.append(self._attempt(waiter, first))
                if self._put_off is not None:
                    batch.pop()
                    answers.pop()
            self._commit()
        except BaseException as cause:
            known = _refusal(cause)  # What a disk or a server does is told; a bug is shown.
            said, shown = (f": {known.args[-1]}", None) if known else ("", cause)
            LOG.error("nothing of a batch of %d writes is kept%s", len(batch), said, exc_info=shown)
            answers = [partial(_fail, waiter, cause) for waiter in batch]
            self._batch.abandon()
        finally:
            for answer in answers:
                answer()

    def _attempt(self, waiter: Waiter, first: Waiter) -> Callable[[], None]:
        """Run one job; the answer is given later.  What it raises is its caller's alone."""
        job, answer = waiter
        self._batch.enter()
        try:
            value = job()
        except BaseException as raised:
            self._batch.leave(kept=False)  # What this raises ends the batch, with that as context.
            if not isinstance(raised, Alone) and not is_deadlock(raised):
                return partial(answer.set_exception, raised)
            self._put_off_first = self._put_off_first + 1 if waiter is first else 0
            if self._put_off_first > PUT_OFF_MAX:
                return partial(answer.set_exception, WorldBusy(str(raised)))
            self._put_off = waiter
            return _not_yet
        self._batch.leave(kept=True)
        return partial(answer.set_result, value)

    def _turn_away(self) -> None:
        with self._door:
            self._closed = True
        if self._put_off is not None:
            _fail(self._put_off, None)
        while not self._queue.empty():
            waiter = self._queue.get()
            if waiter is not None:
                _fail(waiter, None)


def _not_yet() -> None:
    """The answer of a job that was put off."""


def _fail(waiter: Waiter, cause: BaseException | None) -> None:
    told = f"{type(cause).__name__}." if cause else "It is closed."
    error = _refusal(cause) or StoreAway(told)
    error.__cause__ = cause
    waiter[1].set_exception(error)


def _refusal(cause: BaseException | None) -> Refusal | None:
    """Of what ended a batch, or of what made the engine give up the transaction before."""
    if isinstance(cause, StoreAway):  # A job within a job was told already.
        return type(cause)(*cause.args)
    if isinstance(cause, TransactionLost):
        return _refusal(cause.__context__)
    return refusal(cause)
