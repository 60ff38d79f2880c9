"""The control bus beyond this process: NATS JetStream, a subject a world.

The stream itself says how far it has come: the newest message of a subject is the last that was
told.  Each message names the one that it must follow: of several who tell the same, one is heard.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import nats
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import Header, RetentionPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError

from qmtl.core.errors import Refusal
from qmtl.core.names import WorldId

STREAM: Final = "QMTL"
SUBJECTS: Final = "qmtl.events"
CONTENT_TYPE: Final = "application/cloudevents+json"
CONNECT_SEC: Final = 5
ACK_SEC: Final = 5.0  # A stream that is replicated over continents answers within it.
WRONG_LAST: Final = 10071  # JetStream's code: another message is the newest.
AWAY: Final = (NatsError, OSError, TimeoutError)


class BusBehind(Exception):
    """Somebody else told the bus more, meanwhile: ask it again how far it has come."""


class UnusableBus(Refusal):
    """The bus is there, and cannot be used so."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The last that was told of a world: its seq in the journal, and in the stream."""

    seq: int
    stream_seq: int


NOTHING: Final = Newest(0, 0)


def subject(world_id: WorldId) -> str:
    """A world's own, one token: a dot would be two."""
    return f"{SUBJECTS}.{quote(world_id, safe='').replace('.', '%2E')}"


def message_id(world_id: WorldId, seq: int) -> str:
    return f"{world_id}/{seq}"


class Bus:
    """A connection; see `connected`."""

    def __init__(self, stream: JetStreamContext) -> None:
        self._stream = stream

    async def newest(self, world_id: WorldId) -> Newest:
        """What the stream knows of a world."""
        try:
            found = await self._stream.get_last_msg(STREAM, subject(world_id))
        except NotFoundError:
            return NOTHING
        told = (found.headers or {}).get(Header.MSG_ID, "")
        seq = told.rpartition("/")[2]
        if not seq.isdigit() or found.seq is None:
            raise UnusableBus(f"The newest message on {subject(world_id)} is not qmtl's.")
        return Newest(int(seq), found.seq)

    async def tell(self, world_id: WorldId, seq: int, body: bytes, after: Newest) -> Newest:
        """Put the event `seq` behind `after`; when this returns the stream has stored it.

        Raises BusBehind, and any of AWAY.
        """
        headers = {
            Header.MSG_ID: message_id(world_id, seq),
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(after.stream_seq),
            "Content-Type": CONTENT_TYPE,
        }
        try:
            stored = await self._stream.publish(
                subject(world_id), body, timeout=ACK_SEC, headers=headers
            )
        except APIError as error:
            if error.err_code == WRONG_LAST:
                raise BusBehind from error
            raise
        if stored.duplicate:  # It was, before the answer to the one who told it was lost.
            raise BusBehind
        return Newest(seq, stored.seq)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Bus]:
    """A bus whose stream is there, made when it is not.  Raises any of AWAY."""
    client = await nats.connect(
        url, name="qmtl", connect_timeout=CONNECT_SEC, allow_reconnect=False, error_cb=_heard
    )
    try:
        stream = client.jetstream()
        try:
            await stream.stream_info(STREAM)
        except NotFoundError:
            kept = StreamConfig(
                name=STREAM, subjects=[f"{SUBJECTS}.>"], retention=RetentionPolicy.LIMITS
            )
            await stream.add_stream(kept)
        yield Bus(stream)
    finally:
        await client.close()


async def _heard(error: Exception) -> None:
    """Whoever waits is told; the client would print it."""
