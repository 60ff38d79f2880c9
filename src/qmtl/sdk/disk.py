"""Files that survive: written whole or not at all, and owned by one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Occupied(Exception):
    """Another process has the lock; `holder` is its id, as far as it said."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"process {holder or '?'} has {path}")
        self.holder = holder


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, so that it is there whole, or not at all (I6).

    INVARIANT: when this returns it survives a power cut.  Raises OSError.
    """
    partial = path.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def alone(path: Path, *, wait: bool = False) -> Iterator[None]:
    """The only process in the block, until its end or that of the process.

    Raises Occupied when another one is in it, unless it is to `wait` for that; OSError.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Occupied(path, lock.read().strip()) from error
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield
