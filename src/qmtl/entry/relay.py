"""Tells the bus what the journals say: each world's events in order, each of them once.

The journal is the outbox.  The stream says how far it has come, so a relay keeps nothing, and any
number of processes may relay the same worlds.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Final

from qmtl.adapters import jetstream
from qmtl.adapters.jetstream import Bus, BusBehind, Newest, UnusableBus
from qmtl.adapters.sql.errors import LOG, StoreAway
from qmtl.core.names import SYSTEM, WorldId

from .door import dumped
from .events import cloud_event
from .services import Bell, Services

BATCH_MAX: Final = 500  # Entries read at once.
POLL_SEC: Final = 1.0  # Another process may write, and not be heard.
AGAIN_SEC: Final = 1.0  # Until it calls again a bus, or a database, that is away.


@dataclass
class Relay:
    """A thread that tells the bus until `close`.

    reached   the seq that the bus was last seen to have come to, by world
    unusable  worlds of which nothing is told, and why
    away      why nothing is told at all now; None while all goes well
    """

    services: Services
    url: str
    reached: dict[WorldId, int] = field(default_factory=dict)
    unusable: dict[WorldId, str] = field(default_factory=dict)
    away: str | None = None

    def __post_init__(self) -> None:
        self._closing = Event()
        self._wake: Callable[[], None] = lambda: None
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="qmtl-relay")
        self._thread.daemon = True
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    async def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                async with jetstream.connected(self.url) as bus:
                    await self._relay(bus, self.services.bell)
            except (*jetstream.AWAY, StoreAway) as error:
                if self.away is None:
                    LOG.warning("the bus is told nothing: %s: %s", type(error).__name__, error)
                self.away = f"{type(error).__name__}: {error}"
                await asyncio.to_thread(self._closing.wait, AGAIN_SEC)

    async def _relay(self, bus: Bus, bell: Bell) -> None:
        told: dict[WorldId, Newest] = {}
        rung = bell.listen()
        try:
            while not self._closing.is_set():
                rung.clear()
                for world_id in sorted(await asyncio.to_thread(self._worlds)):
                    await self._tell(bus, world_id, told)
                self.away = None
                try:
                    await asyncio.wait_for(rung.wait(), POLL_SEC)
                except TimeoutError:
                    continue
        finally:
            bell.leave(rung)

    def _worlds(self) -> list[WorldId]:
        """Every world but `_system`, which tells of credentials."""
        return list(self.services.store.load(SYSTEM).worlds)

    async def _tell(self, bus: Bus, world_id: WorldId, told: dict[WorldId, Newest]) -> None:
        store = self.services.store
        try:
            newest = told.get(world_id) or await bus.newest(world_id)
            head = (await asyncio.to_thread(store.head, world_id)).seq
            if newest.seq > head:
                raise UnusableBus(
                    f"It was told {newest.seq} entries of {world_id}, whose journal has {head}: "
                    "was an older copy of the database restored? Purge the subject "
                    f"{jetstream.subject(world_id)}, or move the stream away."
                )
            while newest.seq < head and not self._closing.is_set():
                self.reached[world_id] = newest.seq
                entries = await asyncio.to_thread(store.journal, world_id, newest.seq, BATCH_MAX)
                for entry in entries:
                    body = dumped(cloud_event(world_id, entry))
                    newest = await bus.tell(world_id, entry.seq, body, newest)
            told[world_id] = newest
            self.reached[world_id] = newest.seq
            self.unusable.pop(world_id, None)
        except BusBehind:
            told.pop(world_id, None)  # Another told it; the next round asks how far that came.
        except UnusableBus as error:
            if world_id not in self.unusable:
                LOG.error("of %s the bus is told nothing: %s", world_id, error)
            self.unusable[world_id] = str(error)
