"""Work that tests have done elsewhere. A worker imports no more, so that it starts at once."""

import os
import signal
import time
from pathlib import Path

import numpy as np

DEADLINE_SEC = 20.0


def drawn(seed: int) -> bytes:
    """Of a seed, to the last bit."""
    return np.random.default_rng(seed).standard_normal(1_000).cumsum().tobytes()


def late(folder: Path, number: int) -> int:
    """The first is done after the second, which somebody else has to do."""
    if number == 0:
        until = time.monotonic() + DEADLINE_SEC
        while not (folder / "1").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.1)  # So that whoever waits for both has seen the second.
    (folder / str(number)).touch()
    return number


def failing(number: int) -> int:
    if number == 3:
        raise ZeroDivisionError("the third")
    return number


def dying(folder: Path, number: int) -> bytes:
    """The sixth dies where it is computed first, and there only: with all of that process."""
    if number == 6:
        try:
            (folder / "died").touch(exist_ok=False)
        except FileExistsError:
            return drawn(number)
        os.kill(os.getpid(), signal.SIGKILL)
    return drawn(number)


def deadly(number: int) -> int:
    """Five of six are well."""
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def busy(folder: Path, number: int) -> bytes:
    """Says which process it is in, and takes its time."""
    (folder / str(os.getpid())).touch()
    time.sleep(0.1)
    return drawn(number)


def slow(number: int) -> int:
    """Which process it is in."""
    time.sleep(1.0)
    return os.getpid()


def endless(folder: Path, number: int) -> None:
    """Says which process it is in, and never ends."""
    (folder / str(os.getpid())).touch()
    while True:
        time.sleep(60)
