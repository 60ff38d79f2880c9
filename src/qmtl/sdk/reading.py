"""A price source read in a thread of its own, so that whoever follows can do something else."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread

from qmtl.sdk.prices import Prices
from qmtl.sdk.sources import PriceSource


class Ended(Exception):
    """The source has no more."""


class Updates:
    """What a source yields, one at a time: it is asked for the next when this one was taken."""

    def __init__(self) -> None:
        self._found: SimpleQueue[Prices | Exception] = SimpleQueue()
        self._wanted = Semaphore(0)

    def next(self, timeout: float) -> Prices | None:
        """The next update; None when there is none within `timeout` seconds.

        Raises Ended, or whatever the source raises.
        """
        try:
            found = self._found.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(found, Exception):
            raise found
        self._wanted.release()
        return found

    def pump(self, source: PriceSource, stop: Event) -> None:
        """Reads to the end; to be run by the thread."""
        try:
            for prices in source.updates(stop):
                self._found.put(prices)
                self._wanted.acquire()
                if stop.is_set():
                    break
        except Exception as error:  # An author's source may raise anything; `next` raises it.
            self._found.put(error)
        else:
            self._found.put(Ended())

    def release(self) -> None:
        """Lets the thread go."""
        self._wanted.release()


@contextmanager
def reading(source: PriceSource, stop: Event) -> Iterator[Updates]:
    """The source's updates.  At the end of the block `stop` is set, and nobody waits for a source
    that does not look at it: the thread is a daemon."""
    updates = Updates()
    Thread(target=updates.pump, args=(source, stop), name="qmtl-prices", daemon=True).start()
    try:
        yield updates
    finally:
        stop.set()
        updates.release()
