"""The control bus over HTTP: a world's journal as CloudEvents, server-sent.

The id of an event is its seq, which is dense: a client that comes back with `Last-Event-ID` goes on
with the next one, without a gap and without a duplicate.  Who comes without one is told the id to
start from before anything happens, and so misses nothing either when the first connection breaks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Annotated, Any, Final

from fastapi import Query, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from qmtl.adapters.wire import answers
from qmtl.adapters.wire.fields import ID_PATTERN
from qmtl.adapters.wire.instants import rfc3339
from qmtl.app.ports import StoredSnapshot
from qmtl.app.step import world as world_of
from qmtl.core.errors import Invalid, Refusal
from qmtl.core.facts import Entry, SnapshotStored
from qmtl.core.names import WorldId

from . import auth
from .contract import Routes
from .door import Call, CallIn, dumped

ROUTES = Routes("events")
MEDIA_TYPE: Final = "text/event-stream"
POLL_SEC: Final = 1.0  # A process that shares the database may be away from who would tell it.
QUIET_SEC: Final = 15.0  # Proxies drop a connection that says nothing for longer.
QUIET_SEC_MIN: Final = 1.0  # Each time the credential is looked at again.
RETRY_MS: Final = 1_000
NAMES: Final[Mapping[str, str]] = {"snapshot_stored": "risk_snapshot_updated"}

WorldAsked = Annotated[WorldId, Query(pattern=ID_PATTERN)]
After = Annotated[int | None, Query(ge=0, le=2**53, description="As Last-Event-ID, which wins.")]
QuietAsked = Annotated[
    float | None,
    Query(
        ge=QUIET_SEC_MIN,
        le=QUIET_SEC,
        allow_inf_nan=False,
        description="Seconds until a comment says that the stream is alive; by default 15.",
    ),
]


def cloud_event(world_id: WorldId, entry: Entry) -> dict[str, object]:
    """CloudEvents 1.0 in JSON.  A snapshot's points stay in the hub; its event says where."""
    data: dict[str, object] = {**answers.entry(entry)} if not _is_snapshot(entry) else {}
    if isinstance(entry.fact, SnapshotStored):
        stored = StoredSnapshot(
            seq=entry.seq, created_at=entry.at, actor=entry.actor, fact=entry.fact
        )
        data = {
            "generation": entry.generation,
            "kind": entry.fact.kind,
            **answers.snapshot(world_id, stored),
        }
    return {
        "specversion": "1.0",
        "id": str(entry.seq),
        "source": f"/worlds/{world_id}",
        "type": NAMES.get(entry.fact.kind, entry.fact.kind),
        "time": rfc3339(entry.at),
        "datacontenttype": "application/json",
        "data": data,
    }


def _is_snapshot(entry: Entry) -> bool:
    return isinstance(entry.fact, SnapshotStored)


def framed(world_id: WorldId, entry: Entry) -> bytes:
    """One server-sent event."""
    event = cloud_event(world_id, entry)
    head = f"id: {entry.seq}\nevent: {event['type']}\ndata: ".encode()
    return head + dumped(event) + b"\n\n"


@ROUTES.reads("/events/subscribe", MEDIA_TYPE)
async def subscribe(
    call: CallIn, world: WorldAsked, after: After = None, quiet_sec: QuietAsked = None
) -> Response:
    """What happens in a world from now on; after `Last-Event-ID`, when there is one."""
    start = await run_in_threadpool(start_of, call, world, after)
    quiet = QUIET_SEC if quiet_sec is None else quiet_sec
    opening = f"retry: {RETRY_MS}\n"
    if after is None and "last-event-id" not in call.headers:
        opening += f"id: {start}\n"  # Without data it is no event, and is remembered as one's id.
    return counted(call, following(call, world, start, quiet, f"{opening}\n".encode(), _framed))


def counted(call: Call, stream: AsyncIterator[bytes]) -> Response:
    """The answer that streams.  Raises SlowDown when the credential has too many open."""
    held = ExitStack()
    held.enter_context(call.services.limiter.stream(call.credential.key))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Counted(held, stream, 200, headers, MEDIA_TYPE)


class Counted(StreamingResponse):
    """A stream that counts as open until it ends, also when its first byte is never sent."""

    def __init__(self, held: ExitStack, *answer: Any) -> None:
        super().__init__(*answer)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


def start_of(call: Call, world_id: WorldId, after: int | None) -> int:
    """The seq after which the stream begins.  Raises Forbidden, UnknownWorld, Invalid."""
    call.by(world_id)
    head = world_of(call.store, world_id).seq
    told = call.headers.get("last-event-id")
    if told is not None:
        if not (told.isascii() and told.isdigit() and len(told) <= 16):
            raise Invalid("Last-Event-ID: must be the id of an event, a whole number.")
        after = int(told)
    if after is not None and after > head:
        raise Invalid(f"Last-Event-ID: {after} is ahead of the journal, which is at {head}.")
    return head if after is None else after


Frames = Callable[[WorldId, Sequence[Entry]], Iterator[bytes]]


def _framed(world_id: WorldId, entries: Sequence[Entry]) -> Iterator[bytes]:
    for entry in entries:
        yield framed(world_id, entry)


async def following(
    call: Call,
    world_id: WorldId,
    after: int,
    quiet_sec: float,
    opening: bytes,
    frames: Frames,
) -> AsyncIterator[bytes]:
    """The journal's tail as `frames` tells it, until the credential opens it no more: that is asked
    every `quiet_sec`.  It ends when the journal cannot be read, too."""
    bell, asked_at = call.services.bell, monotonic()
    rung = bell.listen()
    try:
        yield opening
        while not bell.closing:
            rung.clear()  # Before looking: what is rung from here on is looked for again.
            try:
                entries = await call.services.tails.read(call.store, world_id, after)
            except Refusal:  # The store has logged it; who comes back is told by a status.
                return
            for entry in entries:
                assert entry.seq == after + 1, "seq is dense"
                after = entry.seq
            for frame in frames(world_id, entries):
                yield frame
            if monotonic() - asked_at >= quiet_sec:  # However much there was to tell meanwhile.
                asked_at = monotonic()
                if not await run_in_threadpool(_still_may, call, world_id):
                    return
                yield b": quiet\n\n"
            if not entries:
                await _wait(rung, asked_at + quiet_sec - monotonic())
    finally:
        bell.leave(rung)


async def _wait(rung: asyncio.Event, most_sec: float) -> None:
    try:
        await asyncio.wait_for(rung.wait(), min(most_sec, POLL_SEC))
    except TimeoutError:
        return


def _still_may(call: Call, world_id: WorldId) -> bool:
    """Whether the credential still opens the stream: it may have been revoked, or have expired."""
    try:
        now = call.services.clock.now()
        found = call.services.identity.identify(call.authorization, now, "", held_up=False)
        auth.allow(call.route, found, world_id)
    except Refusal:
        return False
    return True
