"""How much one credential may ask for at once, and how often one address may guess.

Stopping is never limited (`auth.STOPS`), and who shows a good credential is not held up by others
who guess from the same address.  Generous: they are there for a client that has gone wild.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Final

from qmtl.core.errors import SlowDown

BUCKETS_MAX: Final = 10_000  # Who has not been seen for longest is forgotten, and begins anew.
STREAM_WAIT_SEC: Final = 10.0  # One of the streams has to end first.


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one credential, but for the last, which is of one address."""

    requests_per_sec: float = 500.0  # About half of what a process answers.
    burst: int = 5_000  # A loop that has slept does a world's work at once.
    streams: int = 200  # Each looks at the journal once a second.
    failures_per_min: float = 300.0  # Nobody guesses 256 bits; verifying a JWT costs.


class Buckets:
    """A bucket of tokens for each key: `burst` at most, `per_sec` more each second."""

    def __init__(self, per_sec: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._per_sec, self._burst, self._monotonic = per_sec, burst, monotonic
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def wait_sec(self, key: str) -> float:
        """Until there is one to take; 0 when there is."""
        with self._lock:
            return self._wait(self._level(key)[0])

    def take(self, key: str) -> float:
        """Take one.  0 when there was one; else in how many seconds there is."""
        with self._lock:
            level, now = self._level(key)
            wait = self._wait(level)
            self._held[key] = (level if wait else level - 1, now)
            self._held.move_to_end(key)
            while len(self._held) > BUCKETS_MAX:
                self._held.popitem(last=False)
            return wait

    def _level(self, key: str) -> tuple[float, float]:
        now = self._monotonic()
        level, at = self._held.get(key, (self._burst, now))
        return min(self._burst, level + (now - at) * self._per_sec), now

    def _wait(self, level: float) -> float:
        return max(0.0, (1 - level) / self._per_sec)


class Limiter:
    """The limits of one process.  May be used by several threads."""

    def __init__(
        self, limits: Limits | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits or Limits()
        per_min = self.limits.failures_per_min
        self._requests = Buckets(self.limits.requests_per_sec, self.limits.burst, monotonic)
        self._failures = Buckets(per_min / 60, max(1.0, math.floor(per_min)), monotonic)
        self._streams: dict[str, int] = {}
        self._lock = Lock()

    def request(self, credential: str) -> None:
        """One more request.  Raises SlowDown."""
        wait = self._requests.take(credential)
        if wait:
            most = self.limits.requests_per_sec
            raise SlowDown(f"One credential may ask {most:g} times a second.", wait_sec=wait)

    def may_guess(self, address: str) -> None:
        """Before a credential that nobody knows is looked at.  Raises SlowDown."""
        self._guessing(self._failures.wait_sec(address))

    def guessed(self, address: str) -> None:
        """It was none.  Raises SlowDown."""
        self._guessing(self._failures.take(address))

    def _guessing(self, wait: float) -> None:
        if wait:
            most = self.limits.failures_per_min
            raise SlowDown(f"{most:g} wrong credentials a minute are enough.", wait_sec=wait)

    @contextmanager
    def stream(self, credential: str) -> Iterator[None]:
        """While a stream is open.  Raises SlowDown."""
        with self._lock:
            held = self._streams.get(credential, 0)
            if held >= self.limits.streams:
                raise SlowDown(
                    f"One credential may have {held} streams open.", wait_sec=STREAM_WAIT_SEC
                )
            self._streams[credential] = held + 1
        try:
            yield
        finally:
            with self._lock:
                left = self._streams.pop(credential) - 1
                if left:
                    self._streams[credential] = left
