"""The first page: every world, and whatever of it needs somebody."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import Query, Response

from qmtl.app import worlds
from qmtl.app.ports import Store
from qmtl.core.names import Phase
from qmtl.core.view import WorldRecord, WorldView
from qmtl.entry import auth
from qmtl.entry.door import offset_of, page

from .freshness import Fed, feeds, phase_counts
from .people import Waiting, waiting
from .visits import Pages, VisitIn

PAGES = Pages()
WORLDS_MAX: Final = 1_000_000
PAGE: Final = 20

From = Annotated[str | None, Query(alias="from", pattern=r"^[0-9]{1,9}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A world on the list."""

    record: WorldRecord
    view: WorldView
    counts: dict[Phase, int]
    weight: float
    people: list[Waiting]
    more: int
    stale: list[Fed]


def shown(store: Store, record: WorldRecord, now: datetime) -> Shown:
    view = store.load(record.world_id)
    people, more = waiting(store, view, now)
    return Shown(
        record=record,
        view=view,
        counts=phase_counts(view),
        weight=sum(held.weight for held in view.live.values()),
        people=people,
        more=more,
        stale=[fed for fed in feeds(store, view, now) if fed.state == "stale"],
    )


@PAGES.shows(auth.UI)
def listed(visit: VisitIn, start: From = None) -> Response:
    """Worlds by id; a credential for one world sees that one."""
    known = worlds.listed(visit.store, None, WORLDS_MAX)
    mine = [w for w in known if visit.call.credential.roles_in(w.world_id)]
    found, following = page(mine, start, PAGE)
    now = visit.call.by_token.now
    return visit.page(
        "worlds.html",
        worlds=[shown(visit.store, record, now) for record in found],
        total=len(mine),
        first=offset_of(start) + 1,
        following=following,
    )
