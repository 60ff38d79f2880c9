"""News for a page that is open: that something happened, and up to which entry of the journal."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Final

from fastapi import Query, Response
from starlette.concurrency import run_in_threadpool

from qmtl.core.facts import Entry
from qmtl.core.names import WorldId
from qmtl.entry import auth, events
from qmtl.entry.door import WorldIn

from .visits import Pages, VisitIn

PAGES = Pages()
RETRY_MS: Final = 1_000
PAUSE_SEC: Final = 0.5

After = Annotated[int | None, Query(ge=0, le=2**53)]


def _news(_world_id: WorldId, entries: Sequence[Entry]) -> Iterator[bytes]:
    """One event for all of them: a page that looks again sees them all."""
    if entries:
        seq = entries[-1].seq
        yield f"id: {seq}\nevent: changed\ndata: {seq}\n\n".encode()


@PAGES.shows(auth.UI + "/worlds/{world_id}/events")
async def stream(visit: VisitIn, world_id: WorldIn, after: After = None) -> Response:
    """Resumes after `Last-Event-ID`, else after what the page has shown."""
    call = visit.call
    start = await run_in_threadpool(events.start_of, call, world_id, after)
    opening = f"retry: {RETRY_MS}\nid: {start}\n\n".encode()
    frames = events.following(call, world_id, start, events.QUIET_SEC, opening, _news)
    return events.counted(call, _unhurried(frames))


async def _unhurried(frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What happens meanwhile is told as one: a page that is loaded again costs more than an event,
    and none that came last is left out."""
    async for frame in frames:
        yield frame
        await asyncio.sleep(PAUSE_SEC)
