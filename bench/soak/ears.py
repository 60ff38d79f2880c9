"""Who listens all the while: to each world's events over SSE, to the bus, to the notifier.

Over SSE whoever is cut off comes back with the id of the last event, at the other server: each id
comes once, without a gap.  The bus promises less, at least once and in order: an event may come
again, and none comes before the one that precedes it has come.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nats
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from qmtl.adapters import jetstream
from qmtl.adapters.client import ApiError, Away, BadEvent, Client, Event, Subscription
from qmtl.core.names import WorldId

AGAIN_SEC = 0.1
WRONG_MAX = 20  # More need not be told.
BATCH = 200
FETCH_SEC = 0.5
DURABLE = "soak"


@dataclass
class Follower:
    """Follows a world's events from `start` to `stop`.

    last   the id of the newest that came
    wrong  what came instead of the one after it
    opened how often a stream was
    """

    world: str
    clients: tuple[Client, ...]
    last: int = 0
    wrong: list[str] = field(default_factory=list)
    opened: int = 0

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._open: Subscription | None = None
        self._thread = threading.Thread(target=self._follow, name=f"sse-{self.world}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._open is not None:
            self._open.interrupt()
        self._thread.join()

    def _follow(self) -> None:
        number = 0
        while not self._over.is_set():
            try:
                client = self.clients[number % len(self.clients)]
                with client.subscribe(self.world, after=self.last, quiet_sec=1) as stream:
                    self._open = stream
                    self.opened += 1
                    self._read(stream)
            except Away:
                pass
            except (ApiError, BadEvent) as error:
                self._say(str(error))
            number += 1
            self._over.wait(AGAIN_SEC)

    def _read(self, stream: Subscription) -> None:
        for event in stream:
            if self._over.is_set():
                return
            if isinstance(event, Event):
                if event.seq != self.last + 1:
                    self._say(f"after {self.last} came {event.seq}")
                self.last = max(self.last, event.seq)

    def _say(self, wrong: str) -> None:
        if len(self.wrong) < WRONG_MAX:
            self.wrong.append(f"{self.world}: {wrong}")


@dataclass
class BusEar:
    """A durable consumer of everything that the bus tells, from `start` to `stop`.

    last   by world, the newest that came
    wrong  an event that came before the one that precedes it
    again  how many came again
    broke  how often the bus was away
    """

    url: str
    last: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    again: int = 0
    broke: int = 0

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._hear()), name="bus", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    async def _hear(self) -> None:
        while not self._over.is_set():
            try:
                client = await nats.connect(
                    self.url, connect_timeout=2, allow_reconnect=False, error_cb=_unsaid
                )
                try:
                    await self._pull(client.jetstream())
                finally:
                    await client.close()
            except NotFoundError:  # No server has made the stream yet.
                await asyncio.sleep(AGAIN_SEC)
            except (NatsError, OSError, TimeoutError):
                self.broke += 1
                await asyncio.sleep(AGAIN_SEC)

    async def _pull(self, stream: nats.js.JetStreamContext) -> None:
        subject = f"{jetstream.SUBJECTS}.>"
        # One batch at a time: what is not acknowledged in time comes again, in between.
        config = ConsumerConfig(max_ack_pending=BATCH, ack_wait=10)
        pull = await stream.pull_subscribe(
            subject, durable=DURABLE, stream=jetstream.STREAM, config=config
        )
        while not self._over.is_set():
            try:
                messages = await pull.fetch(BATCH, timeout=FETCH_SEC)
            except TimeoutError:
                continue
            for message in messages:
                self._heard(message.subject, int(json.loads(message.data)["id"]))
            for message in messages:
                await message.ack()

    def _heard(self, subject: str, seq: int) -> None:
        last = self.last.get(subject, 0)
        if seq <= last:
            self.again += 1
        elif seq != last + 1 and len(self.wrong) < WRONG_MAX:
            self.wrong.append(f"{subject}: {seq} came after {last}")
        self.last[subject] = max(last, seq)

    def reached(self, world: str) -> int:
        return self.last.get(jetstream.subject(WorldId(world)), 0)


async def _unsaid(_error: Exception) -> None:
    """Whoever waits is told."""


@contextmanager
def receiving() -> Iterator[tuple[str, set[str]]]:
    """A webhook's URL, and the ids of the messages that came to it, however often."""
    came: set[str] = set()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            came.add(self.headers["webhook-id"])
            self.send_response(204)
            with suppress(BrokenPipeError, ConnectionResetError):  # The notifier was killed.
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, name="receiver")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
