"""A Dask cluster as a place for heavy work, through the executor that it has itself.

Loaded only when one is asked for: distributed is the extra `dask`. A piece whose worker is lost is
computed by another, which is Dask's own doing; what stands here is what it leaves open.
"""

import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import cloudpickle  # type: ignore[import-untyped]  # Of Dask's; it has no types.
import dask
from distributed import Client
from distributed.scheduler import KilledWorker

from .workers import Answers, WorkersError, answered, as_they_end, taken_back

P = TypeVar("P")
T = TypeVar("T")

ANSWER_SEC: Final = 10.0  # A scheduler that does not answer in that time is not there.
ALONE_SEC: Final = 60.0  # Without one worker. By then a nanny has started it again.
NO_WARNING: Final = {"distributed.admin.large-graph-warning-threshold": "1TB"}  # It is sent once.
LOGGERS: Final = ("distributed", "distributed.client", "tornado.application")  # We say it in words.
GONE: Final = (
    "the Dask cluster went away, and the pieces with it: start its scheduler again, and ask again"
)


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """The executor of the scheduler at HOST:PORT, which has at least one worker.

    Raises WorkersError when nobody answers there, or there is no worker.
    """
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(f"tcp://{address}", timeout=ANSWER_SEC, set_as_default=False)  # type: ignore[no-untyped-call]  # It has no types.
    except (OSError, ValueError) as error:
        raise WorkersError(
            f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER_SEC)
        except TimeoutError as error:
            raise WorkersError(
                f"the Dask scheduler at {address} has no worker: start some with `dask worker"
                f" tcp://{address}`, where this qmtl is installed"
            ) from error
        yield client.get_executor()  # type: ignore[no-untyped-call]  # It has no types.


def answers(call: Callable[[P], T], pieces: Sequence[P], executor: Any) -> Answers[T]:
    """As `workers.computed` has them, of a `distributed.cfexecutor.ClientExecutor`.

    What all pieces share is sent once. It is a task, not data that was put somewhere: when the
    worker that holds it dies, another unpacks it again.
    """
    client = executor._client
    with taken_back() as greetings, taken_back() as futures:
        try:
            with dask.config.set(NO_WARNING):
                shared = client.submit(_unpacked, cloudpickle.dumps(call), pure=False)
            # Dask takes work to where its data is: until all have it, that is to one of them.
            for worker in client.scheduler_info(n_workers=-1)["workers"]:
                there = {"workers": [worker], "allow_other_workers": True, "pure": False}
                greetings[executor.submit(answered, _greeted, shared, **there)] = 0
            for _ in as_they_end(greetings, _alone(client)):
                pass
            for number, piece in enumerate(pieces):
                futures[executor.submit(answered, shared, piece, pure=False)] = number
            yield from as_they_end(futures, _alone(client))
        except KilledWorker as error:
            raise WorkersError(
                f"a piece ended each of the {error.allowed_failures + 1} workers that took it: too"
                " little memory, or what it computes; their logs may say which, and --executor"
                " inline has it in this process, to look at"
            ) from error
        except CancelledError as error:
            raise WorkersError(GONE) from error


def _greeted(call: Callable[[Any], Any]) -> None:
    """Nothing: but whoever is asked this has the call then."""


def _unpacked(packed: bytes) -> Callable[[Any], Any]:
    try:
        found: Callable[[Any], Any] = pickle.loads(packed)
    except (ImportError, AttributeError) as error:
        raise WorkersError(
            f"a worker has not what it is to compute ({error}): install that there, too, or start"
            " the worker where it can be imported"
        ) from error
    return found


def _alone(client: Client) -> Callable[[], None]:
    """To be called while nothing ends.  Raises WorkersError when nobody is there to end it."""
    since: float | None = None

    def look() -> None:
        nonlocal since
        try:
            there = client.scheduler_info()["workers"]
        except OSError as error:
            raise WorkersError(GONE) from error
        now = time.monotonic()
        since = None if there else since or now
        if since is not None and now - since > ALONE_SEC:
            raise WorkersError(
                f"the Dask cluster has had no worker for {ALONE_SEC:.0f} s: they died, perhaps of"
                " what they compute (their logs may say), or were stopped; start some, ask again"
            )

    return look
