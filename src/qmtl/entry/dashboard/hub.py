"""The hub: what came in, from whom, and how long it is good for."""

from typing import Annotated, Final

from fastapi import Query, Response

from qmtl.adapters.wire.fields import VERSION_PATTERN
from qmtl.app import hub
from qmtl.app.step import world
from qmtl.core.names import Stage
from qmtl.entry import auth
from qmtl.entry.door import WorldIn

from .freshness import feeds
from .visits import Pages, VisitIn

PAGES = Pages()
SNAPSHOTS: Final = 30
StageAsked = Annotated[str, Query(pattern=f"^({'|'.join(Stage)}|)$")]
VersionAsked = Annotated[str | None, Query(pattern=VERSION_PATTERN)]
Before = Annotated[int | None, Query(ge=1, le=2**53)]


@PAGES.shows(auth.UI + "/worlds/{world_id}/hub")
def get(
    visit: VisitIn,
    world_id: WorldIn,
    stage: StageAsked = "",
    version: VersionAsked = None,
    before: Before = None,
) -> Response:
    """Freshness, the newest snapshots, and one of them whole where it is asked for."""
    store = visit.store
    view = world(store, world_id)
    found = store.snapshots(world_id, SNAPSHOTS + 1, before, Stage(stage) if stage else None)
    return visit.page(
        "hub.html",
        view=view,
        feeds=list(feeds(store, view, visit.call.by_token.now)),
        snapshots=found[:SNAPSHOTS],
        earlier=found[SNAPSHOTS - 1].seq if len(found) > SNAPSHOTS else None,
        one=None if version is None else hub.get(store, world_id, version),
        stage=stage,
    )
