"""What time it is.  The only file that asks the machine."""

from datetime import UTC, datetime
from threading import Lock
from typing import Protocol

from qmtl.core.errors import Conflict, Invalid


class Instants(Protocol):
    """Where a replay clock is kept: a store; `shared` when other processes move it, too."""

    @property
    def shared(self) -> bool: ...

    def last_instant(self) -> datetime | None:
        """The latest instant that anything was recorded at, or that a replay clock showed."""
        ...

    def keep_instant(self, now: datetime) -> None:
        """A replay clock shows `now`."""
        ...


class SystemClock:
    """The machine's clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)


# It never goes back, so a slip of the keyboard would be for ever; and terms and windows are added.
LATEST = datetime(2200, 1, 1, tzinfo=UTC)


class ReplayClock:
    """A clock that stands still until it is set, and is never set back.

    It starts at the later of `at` and the last instant that the store knows: what was recorded
    before is never in the future.
    """

    def __init__(self, instants: Instants, at: datetime) -> None:
        last = instants.last_instant()
        self._instants = instants
        self._setting = Lock()
        self._now = at if last is None else max(at, last)
        instants.keep_instant(self._now)

    def now(self) -> datetime:
        if self._instants.shared:
            self._now = max(self._now, self._instants.last_instant() or self._now)
        return self._now

    def set(self, now: datetime) -> None:
        """Show `now` from here on.

        Raises Conflict when that is earlier than what it shows, and Invalid beyond LATEST.
        """
        if now > LATEST:
            raise Invalid(f"now: {now.isoformat()} is later than {LATEST.isoformat()}.")
        with self._setting:
            if now < self.now():
                raise Conflict(f"The clock shows {self._now.isoformat()}, and only goes forward.")
            self._instants.keep_instant(now)
            self._now = now
