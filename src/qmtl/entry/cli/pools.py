"""Processes that compute for a command, and of which Ctrl-C leaves no word and no trace."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.pool import Pool


@contextmanager
def pool(count: int) -> Iterator[Pool]:
    """So many, until the block ends, in whatever way.

    They begin while Ctrl-C is ignored here, and so ignore it from their first moment: it is for
    who started them.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        made = get_context("spawn").Pool(count)
    finally:
        signal.signal(signal.SIGINT, before)
    with made:
        yield made
