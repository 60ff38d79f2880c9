"""The journal: what happened, whether it is as it was written, and one entry whole."""

from collections.abc import Iterator
from typing import Annotated, Final, get_args

import orjson
from fastapi import Path, Query, Response

from qmtl.adapters.wire import answers, export
from qmtl.adapters.wire import verify as verifying
from qmtl.adapters.wire.fields import ID_PATTERN
from qmtl.adapters.wire.shapes import EntryJson
from qmtl.app.ports import Store
from qmtl.app.step import world
from qmtl.core import facts
from qmtl.core.errors import Unknown
from qmtl.core.names import StrategyId, WorldId
from qmtl.entry import auth
from qmtl.entry.door import WorldIn

from .story import Wanted, newest, told
from .visits import Pages, Visit, VisitIn

PAGES = Pages()
LINES: Final = 50
CHUNK: Final = 500  # Entries read at once while a journal is verified.
KINDS: Final = tuple(
    sorted(fact.__dataclass_fields__["kind"].default for fact in get_args(facts.Fact))
)

Seq = Annotated[int, Path(ge=1, le=2**53)]
Before = Annotated[int | None, Query(ge=1, le=2**53)]
OfStrategy = Annotated[str, Query(pattern=f"{ID_PATTERN}|^$")]
OfKind = Annotated[str, Query(pattern=f"^({'|'.join(KINDS)}|)$")]
OfActor = Annotated[str, Query(max_length=128)]


@PAGES.shows(auth.UI + "/worlds/{world_id}/journal")
def get(
    visit: VisitIn,
    world_id: WorldIn,
    strategy: OfStrategy = "",
    kind: OfKind = "",
    actor: OfActor = "",
    before: Before = None,
) -> Response:
    """What happened, the newest first, as far as it is asked for."""
    view = world(visit.store, world_id)
    story, behind = visit.dashboard.stories.of(visit.store, world_id)
    wanted = Wanted(StrategyId(strategy) if strategy else None, kind, actor, before)
    found = newest(story, wanted, LINES + 1)
    return visit.page(
        "journal.html",
        view=view,
        lines=list(told(visit.store, world_id, found[:LINES])),
        earlier=found[LINES - 1].seq if len(found) > LINES else None,
        behind=behind,
        kinds=KINDS,
        strategy=strategy,
        kind=kind,
        by=actor,
    )


def verified(visit: Visit, world_id: WorldId) -> verifying.Verified:
    """The journal up to its head, exported, and verified by the code that verifies exports, which
    shares none with the store."""
    key, store = visit.call.services.journal_key, visit.store
    head = key.signed(world_id, store.head(world_id), visit.call.by_token.now)
    return verifying.verify(export.lines(head, key.told, entries(store, world_id)))


def entries(store: Store, world_id: WorldId) -> Iterator[EntryJson]:
    """All of them, as the API tells them."""
    after = 0
    while page := store.chained(world_id, after, CHUNK):
        yield from map(answers.chained, page)
        after = page[-1].seq


@PAGES.shows(auth.UI + "/worlds/{world_id}/journal/verified")
def verify(visit: VisitIn, world_id: WorldIn) -> Response:
    """Whether every entry is as it was written, from the first to the head."""
    view = world(visit.store, world_id)
    return visit.page("verified.html", view=view, found=verified(visit, world_id))


@PAGES.shows(auth.UI + "/worlds/{world_id}/journal/{seq}")
def entry(visit: VisitIn, world_id: WorldIn, seq: Seq) -> Response:
    """One entry as it is stored, and its place in the chain."""
    view = world(visit.store, world_id)
    found = visit.store.chained(world_id, seq - 1, 1)
    if not found:
        raise Unknown(f"entry {seq}")
    fact = orjson.dumps(orjson.loads(found[0].body), option=orjson.OPT_INDENT_2).decode()
    return visit.page("entry.html", view=view, entry=found[0], fact=fact)
