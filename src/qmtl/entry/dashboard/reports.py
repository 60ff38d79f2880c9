"""A candidate's dossier and a world's day, as `qmtl report` makes them, to read and to print.

They stand alone, without the frame of the dashboard: what is printed or kept is the whole of it.
"""

from datetime import date
from typing import Annotated, Any, Final

from fastapi import Query, Response

from qmtl.core.errors import TooLarge
from qmtl.core.names import WorldId
from qmtl.entry import auth
from qmtl.entry.door import WorldIn
from qmtl.entry.reports import pages
from qmtl.entry.reports.day import day as of_day
from qmtl.entry.reports.dossier import dossier as of_candidate
from qmtl.entry.reports.reading import Journal, read_back

from . import render
from .candidate import CandidateIn
from .journal import entries
from .visits import Pages, Visit, VisitIn

PAGES = Pages()
ENTRIES_MAX: Final = 10_000  # Some seven seconds of a processor, which others want, too.
HEADERS: Final = render.HEADERS | {
    "Content-Security-Policy": f"default-src 'none'; style-src {pages.STYLE}; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
}

On = Annotated[date | None, Query(alias="date", description="Such as 2024-01-31, in UTC.")]


def journal(visit: Visit, world_id: WorldId, command: str) -> Journal:
    """All of it, verified on the way.  Raises TooLarge, naming the command that reads any."""
    store, services = visit.store, visit.call.services
    head = store.head(world_id)
    if head.seq > ENTRIES_MAX:
        raise TooLarge(
            f"The journal has {head.seq:,} entries; a page reads at most {ENTRIES_MAX:,}. On a "
            f"machine of your own, of any length: {command}"
        )
    now = visit.call.by_token.now
    signed = services.journal_key.signed(world_id, head, now)
    return read_back(signed, services.journal_key.told, entries(store, world_id), now)


def _page(data: dict[str, Any]) -> Response:
    return Response(pages.html(data, pages=""), 200, HEADERS, "text/html; charset=utf-8")


@PAGES.shows(auth.UI + "/worlds/{world_id}/candidates/{candidate_id}/dossier")
def dossier(visit: VisitIn, world_id: WorldIn, candidate_id: CandidateIn) -> Response:
    """A candidate's dossier, as of now."""
    command = f"qmtl report candidate {world_id} {candidate_id} -o dossier.html"
    return _page(of_candidate(journal(visit, world_id, command), candidate_id))


@PAGES.shows(auth.UI + "/worlds/{world_id}/day")
def day(visit: VisitIn, world_id: WorldIn, on: On = None) -> Response:
    """A world's day, by default today."""
    wanted = on or visit.call.by_token.now.date()
    command = f"qmtl report day {world_id} --date {wanted} -o day.html"
    return _page(of_day(journal(visit, world_id, command), wanted))
