"""A Dask cluster as a place for heavy work, through the executor that it has itself.

Loaded only when one is asked for: distributed is the extra `dask`.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Final

from distributed import Client

from .workers import WorkersError

ANSWER_SEC: Final = 10.0  # A scheduler that does not answer in that time is not there.


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """The executor of the scheduler at HOST:PORT, which has at least one worker.

    Raises WorkersError when nobody answers there, or there is no worker.
    """
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
