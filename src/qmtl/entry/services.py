"""What every door of a process shares: the store, the clock, and a bell that says `look again`."""

import asyncio
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from starlette.concurrency import run_in_threadpool

from qmtl.adapters.program import digest_of_core
from qmtl.adapters.signing import JournalKey
from qmtl.app import program
from qmtl.app.ports import Clock, Store
from qmtl.app.step import By
from qmtl.core.facts import Entry
from qmtl.core.names import ActorId, Digest, Role, WorldId

from .identity import Identity, IssuerActors, Roles
from .limits import Limiter
from .sessions import Sessions

BATCH_MAX: Final = 500  # Entries read at once; a client far behind does not hold them all.
ADMIN = ActorId("admin")  # Of the token that a first start makes, and of what it sets up.


class MovableClock(Clock, Protocol):
    """A clock that stands until it is moved."""

    def set(self, now: datetime) -> None:
        """Forward.  Raises Conflict backwards."""
        ...


class Bell:
    """Wakes whoever follows a journal, from any thread.  What was rung before is not heard."""

    def __init__(self) -> None:
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self.closing = False

    def ring(self) -> None:
        with self._lock:
            for loop, event in self._waiting:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """Streams end: the server stops."""
        self.closing = True
        self.ring()

    def listen(self) -> asyncio.Event:
        """An event that is set at every ring; give it back with `leave`."""
        event = asyncio.Event()
        with self._lock:
            self._waiting.add((asyncio.get_running_loop(), event))
        return event

    def leave(self, event: asyncio.Event) -> None:
        with self._lock:
            self._waiting = {pair for pair in self._waiting if pair[1] is not event}


class Tails:
    """Reads a page of a journal once for all who follow it, however many they are."""

    def __init__(self) -> None:
        self._reading: dict[tuple[object, ...], asyncio.Future[list[Entry]]] = {}

    async def read(self, store: Store, world_id: WorldId, after: int) -> list[Entry]:
        """The entries after one, as far as a page goes.

        INVARIANT: whoever knows of an entry is told it.  A read is shared by those who saw the same
        head before it began; who cannot see the head without waiting reads alone.
        """
        view = store.at_hand(world_id)
        if view is None:
            return await run_in_threadpool(store.journal, world_id, after, BATCH_MAX)
        if view.seq <= after:
            return []
        key = (asyncio.get_running_loop(), id(store), world_id, after, view.seq)
        reading = self._reading.get(key)
        if reading is None:
            page = run_in_threadpool(store.journal, world_id, after, BATCH_MAX)
            reading = self._reading[key] = asyncio.ensure_future(page)
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        return await asyncio.shield(reading)  # Who goes away does not take it from the others.


class Ticks:
    """When each world was last ticked as a whole, as far as this process was asked."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last: dict[WorldId, float] = {}

    def seen(self, world_id: WorldId) -> None:
        self._last[world_id] = time.monotonic()

    def since_sec(self, world_id: WorldId) -> float:
        """Since the last tick; since the process started, before the first."""
        return time.monotonic() - self._last.get(world_id, self._began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    store: Store
    clock: Clock
    dual_control: bool = False
    code: Digest = field(default_factory=digest_of_core)
    replay: MovableClock | None = None  # `clock` itself, when it is one.
    bell: Bell = field(default_factory=Bell)
    tails: Tails = field(default_factory=Tails)
    ticks: Ticks = field(default_factory=Ticks)
    journal_key: JournalKey = field(default_factory=JournalKey.new)  # Gone with the process.
    limiter: Limiter = field(default_factory=Limiter)
    sessions: Sessions = field(default_factory=Sessions)
    issuer: IssuerActors | None = None
    token_roles: Roles = frozenset(Role)
    hosts: frozenset[str] | None = None  # By which it is reached; None: by whatever name.
    https: bool = False  # It is reached through TLS only.

    @property
    def identity(self) -> Identity:
        """How it tells who asks."""
        return Identity(
            store=self.store,
            limiter=self.limiter,
            sessions=self.sessions,
            issuer=self.issuer,
            token_roles=self.token_roles,
        )

    def must_decide(self) -> None:
        """In a job that takes somebody live, or up.  Raises CodeDiffers."""
        program.must_decide(self.store, self.code)

    def as_admin(self) -> By:
        """Who sets up an empty store, before there is any credential."""
        return By(actor=ADMIN, roles=frozenset(Role), now=self.clock.now())
