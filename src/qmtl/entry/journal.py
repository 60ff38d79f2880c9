"""The journal's routes: what happened, and where it ends, signed.  The key is public: `http.py`."""

from typing import Annotated

from fastapi import Query, Response

from qmtl.adapters.wire import answers
from qmtl.adapters.wire import shapes as j
from qmtl.core.names import SYSTEM, WorldId

from .contract import Routes
from .door import PAGE_DEFAULT, Call, CallIn, Limit, WorldIn, named

ROUTES = Routes("journal")
J = "/worlds/{world_id}/journal"

After = Annotated[int, Query(ge=0, le=2**53)]


@ROUTES.reads(J, j.JournalJson)
def journal(
    call: CallIn, world_id: WorldIn, after: After = 0, limit: Limit = PAGE_DEFAULT
) -> Response:
    """What happened, in order, after an entry; fewer than `limit` when they are large."""
    return _told(call, world_id, after, limit)


@ROUTES.reads("/system/journal", j.JournalJson)
def system_journal(call: CallIn, after: After = 0, limit: Limit = PAGE_DEFAULT) -> Response:
    """What happened to tokens and to the list of worlds: who let whom in, and who confirmed it."""
    return _told(call, SYSTEM, after, limit)


def _told(call: Call, world_id: WorldId, after: int, limit: int) -> Response:
    entries = call.store.chained(world_id, after, limit)
    more = entries and entries[-1].seq < call.store.load(world_id).seq
    following = str(entries[-1].seq) if more else None
    items = [answers.chained(entry) for entry in entries]
    return call.answer({"entries": items, "next_cursor": following})


@ROUTES.reads(J + "/head", j.HeadJson)
def head(call: CallIn, world_id: WorldIn) -> Response:
    """The journal's newest entry, signed: kept elsewhere, it shows whether the past was rewritten.

    Signed when it is asked for, and recorded nowhere.
    """
    key, newest = call.services.journal_key, call.store.head(world_id)
    etag = named([newest.seq, newest.hash, key.key_id])
    return call.answer(key.signed(world_id, newest, call.by_token.now), etag=etag)
