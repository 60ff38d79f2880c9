"""Where heavy work runs: in this process, in others, in threads, or on a cluster of machines.

Work is a function and the pieces it is asked for. A piece carries all that it depends on, its seed
too, so that it does not matter who computes it, when, or how often: a piece whose worker dies is
computed again.

INVARIANT: there is one answer for each piece, in the order of the pieces, or there is none at all.

Workers are spawned, not forked. A fork copies no threads but all locks, so that polars, BLAS or
whatever else has threads may wait in it for ever. A spawned worker imports what it needs: what it
is to call lives in a module, and a script asks under `if __name__ == "__main__":`. And it can be
told, before they are loaded, that libraries shall compute with one thread: there is a worker for
each core.
"""

import os
import pickle
import platform
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np

from .program import digest_of_all

P = TypeVar("P")
T = TypeVar("T")

LOOK_SEC: Final = 5.0
DEATHS_MAX: Final = 3  # Of workers, one after the other, while no piece is finished.
# What a worker's libraries read once, when they are loaded.
THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
# Tables come and go with every piece. Memory that is given back and asked for again each time is
# cleared page by page, which can cost more than the work: keep 256 MiB, tables up to 32 MiB in it.
KEEPS_MEMORY: Final = {
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
ENVIRONMENT: Final = {**dict.fromkeys(THREADS, "1"), **KEEPS_MEMORY}
UNPICKLED: Final = (pickle.PicklingError, AttributeError, TypeError)
DASK: Final = "distributed.cfexecutor"
CONTEXT: Final = get_context("spawn")
WAYS_OUT: Final = (
    "in a script, call under `if __name__ == '__main__':`; define in a module what is computed, not"
    " in a notebook; or give executor=ThreadPoolExecutor()"
)


class NotAPlace(ValueError):
    """Nothing is computed there."""


class WorkersError(RuntimeError):
    """Nothing was computed, for want of workers; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Here:
    """This process, one piece after the other."""


@dataclass(frozen=True, slots=True)
class Processes:
    """So many processes of this machine, which end with the work they were started for."""

    count: int


Place: TypeAlias = Here | Processes | Executor
HERE: Final = Here()


def silent(number: int) -> None:
    """Tells nobody."""


PLACES: Final = "processes, threads, inline, or dask://HOST:PORT"


@contextmanager
def at(named: str, jobs: int | None = None) -> Iterator[Place]:
    """One of PLACES, by its name; what was made or connected for it ends with the block.

    jobs  how many processes or threads; by default one for each of `cores()`

    Raises NotAPlace for any other name, and for a number of jobs where that is not for us to say;
    WorkersError when a cluster has nobody who answers, or no worker, or Dask is not installed.
    """
    kind, _, address = named.partition("://")
    if jobs is not None and kind in ("dask", "inline"):
        raise NotAPlace(f"jobs are of processes and threads: {named} has the workers it has")
    match kind, address:
        case "inline", "":
            yield Here()
        case "processes", "":
            yield Processes(jobs or cores())
        case "threads", "":
            with ThreadPoolExecutor(jobs or cores()) as threads:
                yield threads
        case "dask", address if address:
            try:
                from .cluster import connected
            except ImportError as error:
                raise WorkersError("a cluster takes Dask: pip install 'qmtl[dask]'") from error
            with connected(address) as cluster:
                yield cluster
        case _:
            raise NotAPlace(f"{named!r} is none of {PLACES}")


def cores() -> int:
    """Those this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computed(
    call: Callable[[P], T],
    pieces: Sequence[P],
    place: Place,
    *,
    finished: Callable[[int], None] = silent,
    enough: Callable[[T], bool] = lambda answer: False,
) -> list[T]:
    """The answer of `call` for each piece, in the order of the pieces, wherever each was computed.

    finished  is told the number of each piece when it is done, in whatever order that is
    enough    after the first answer, in the order of the pieces, for which it holds, no other is
              waited for, and that one is the last

    Raises what `call` raises, and WorkersError when workers cannot start, when they keep dying, and
    when they run another qmtl, numpy or Python than this process. Whatever ends it early, Ctrl-C
    too, ends the processes that it started, and takes back from an executor what has not begun.
    """
    found: dict[int, T] = {}
    first = 0
    with closing(_answers(call, pieces, place)) as answers:
        for number, answer in answers:
            found[number] = answer
            finished(number)
            while first in found:
                if enough(found[first]):
                    return [found[each] for each in range(first + 1)]
                first += 1
    return [found[each] for each in range(len(pieces))]


Answers: TypeAlias = Generator[tuple[int, T], None, None]  # Each with the number of its piece.


def _answers(call: Callable[[P], T], pieces: Sequence[P], place: Place) -> Answers[T]:
    match place:
        case Here():
            return ((number, call(piece)) for number, piece in enumerate(pieces))
        case Processes(count):
            return _of_processes(call, pieces, count)
        case _ if type(place).__module__ == DASK:
            from . import cluster

            return cluster.answers(call, pieces, place)
        case _:
            return _of_executor(call, pieces, place)


# ---- What a worker does ----------------------------------------------------------------------

Code: TypeAlias = tuple[str, str, str]  # Whatever of it differs, the last bit of an answer may.


@cache
def code_here() -> Code:
    """What computes here: qmtl by its content, numpy and Python by their versions."""
    python = ".".join(platform.python_version_tuple()[:2])
    return f"qmtl {digest_of_all()[:12]}", f"numpy {np.__version__}", f"Python {python}"


def answered(call: Callable[[P], T], piece: P) -> tuple[Code, T]:
    """The answer, and what computed it: to be called where the work is done."""
    return code_here(), call(piece)


_HELD: list[Callable[[Any], Any]] = []  # In a worker of ours: what it was started for, sent once.


def _begin(pickled: bytes, parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # It was, while this one started.
    # What a piece prints is no part of what the caller prints, which may be JSON.
    sys.stdout = sys.stderr
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    _HELD[:] = [pickle.loads(pickled)]


def _end_with(parent: Connection) -> None:
    """Ends this process when the other end is closed: by who stops, or by the death of its holder.

    A worker that nobody waits for would else go on with its piece, and then wait for ever.
    """
    parent.poll(None)
    os._exit(1)


def _started() -> None:
    """Answers: so a worker did start."""


def _answered_held(piece: Any) -> tuple[Code, Any]:
    return answered(_HELD[0], piece)


# ---- Processes of our own --------------------------------------------------------------------


def _of_processes(call: Callable[[P], T], pieces: Sequence[P], count: int) -> Answers[T]:
    """What is left when a worker dies is done by a new pool: none outlives one of its workers."""
    pickled, left, deaths = _pickled(call), dict(enumerate(pieces)), 0
    while left:
        before = len(left)
        with closing(_of_pool(pickled, left, count)) as answers:
            for number, answer in answers:
                del left[number]
                yield number, answer
        deaths = 1 if len(left) < before else deaths + 1
        if left and deaths == DEATHS_MAX:
            raise WorkersError(
                f"workers died {DEATHS_MAX} times in a row, with {len(pieces) - len(left)} of"
                f" {len(pieces)} pieces done. Something ends them: too little memory (ask for fewer"
                " processes), or what they compute (executor=ThreadPoolExecutor(1), or --executor"
                " inline, has it in this process, to look at)"
            )


def _of_pool(pickled: bytes, left: Mapping[int, Any], count: int) -> Answers[Any]:
    """Until all is done, or a worker dies."""
    reader, writer = CONTEXT.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(count, len(left)), mp_context=CONTEXT, initializer=_begin, initargs=(pickled, reader)
    )
    futures: dict[Future[tuple[Code, Any]], int] = {}
    started: Future[None] | None = None
    done = False
    try:
        with _environment_of_workers():
            started = pool.submit(_started)
            for number, piece in left.items():
                futures[pool.submit(_answered_held, piece)] = number
        yield from as_they_end(futures)
        done = True
    except (BrokenExecutor, BrokenPipeError) as error:
        if started is None or not started.done() or started.exception() is not None:
            raise WorkersError(f"a worker could not start: {WAYS_OUT}") from error
    finally:
        if not done:
            writer.close()  # Whatever they are at, nobody waits for it.
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


def _pickled(call: Callable[[P], T]) -> bytes:
    try:
        return pickle.dumps(call)
    except UNPICKLED as error:
        raise WorkersError(f"it cannot be sent to a worker ({error}): {WAYS_OUT}") from error


@contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Workers that start meanwhile have ENVIRONMENT, where the author's does not say otherwise.

    Two workers with two BLAS threads each, on two cores, are slower than one.  And Ctrl-C, which a
    terminal sends to all of them, does not find them half started.
    """
    added = ENVIRONMENT.keys() - os.environ.keys()
    os.environ.update({name: ENVIRONMENT[name] for name in added})
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name in added:
            os.environ.pop(name, None)


# ---- An executor of somebody else's ----------------------------------------------------------


def _of_executor(call: Callable[[P], T], pieces: Sequence[P], executor: Executor) -> Answers[T]:
    with taken_back() as futures:
        try:
            for number, piece in enumerate(pieces):
                futures[executor.submit(answered, call, piece)] = number
            yield from as_they_end(futures)
        except BrokenExecutor as error:
            raise WorkersError(
                f"a worker of the executor died, and an executor does not outlive one ({error}):"
                " make a new one and ask again, or give none and have dead workers replaced"
            ) from error
        except CancelledError as error:
            raise WorkersError(
                "the executor gave up pieces that it had taken: it was shut down meanwhile; make a"
                " new one and ask again"
            ) from error


@contextmanager
def taken_back() -> Iterator[dict[Future[Any], int]]:
    """Futures, with the numbers of their pieces.  Whoever stops leaves nobody to do them."""
    futures: dict[Future[Any], int] = {}
    try:
        yield futures
    finally:
        for future in futures:
            future.cancel()


def as_they_end(
    futures: Mapping[Future[tuple[Code, T]], int], look: Callable[[], None] = lambda: None
) -> Answers[T]:
    """Answers, the sooner the earlier.

    look  is called every LOOK_SEC in which nothing ended

    Raises what a future has instead of an answer: a BrokenExecutor only when all that did end has
    been told.  Raises WorkersError for an answer that other code computed.
    """
    broken: BrokenExecutor | None = None
    open_ = set(futures)
    while open_:
        ended, open_ = wait(open_, LOOK_SEC, FIRST_COMPLETED)
        if not ended:
            look()
        for future in ended:
            try:
                code, answer = future.result()
            except BrokenExecutor as error:
                broken = broken or error
                continue
            _same_code(code)
            yield futures[future], answer
    if broken is not None:
        raise broken


def _same_code(code: Code) -> None:
    apart = [each for each in zip(code, code_here(), strict=True) if each[0] != each[1]]
    if apart:
        raise WorkersError(
            f"a worker runs {', '.join(there for there, _ in apart)}, where this process runs"
            f" {', '.join(here for _, here in apart)}: their answers may differ; install the"
            " same there, start the workers again, and ask again"
        )
