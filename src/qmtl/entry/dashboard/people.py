"""What waits for people: who has to do what, and where."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

import numpy as np

from qmtl.app import promotions
from qmtl.app.ports import Store
from qmtl.core.confirmations import standing
from qmtl.core.names import Reason, StrategyId
from qmtl.core.view import Candidate, Rejected, WorldView
from qmtl.core.words import ASKED, counted, listed, ordinal, sentence

from .render import path

SHOWN_MAX: Final = 25  # More, and nobody reads the list; each is judged by the gate.
PEOPLES: Final = frozenset(
    {Reason.MANUAL_APPROVAL_REQUIRED, Reason.APPROVALS_INSUFFICIENT, Reason.APPROVAL_EXPIRED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Something that waits.  `whom` empty: for no person, but for what `why` says."""

    whom: str
    what: str
    why: str
    since: datetime | None
    url: str


def waiting(store: Store, view: WorldView, now: datetime) -> tuple[list[Waiting], int]:
    """The first SHOWN_MAX, those that wait for people first; and how many more there are."""
    if view.default_version is None:
        return [], 0
    open_candidates = view.open_candidates()
    held = [int(row) for row in np.flatnonzero(view.standings.held[: len(view.ids)])]
    found = [
        *_asked(view, now),
        *(_candidate(store, view, each, now) for each in open_candidates[:SHOWN_MAX]),
        *islice(_held(view, held), SHOWN_MAX),
    ]
    total = len(found) + max(0, len(open_candidates) - SHOWN_MAX) + max(0, len(held) - SHOWN_MAX)
    found.sort(key=lambda w: not w.whom)
    return found[:SHOWN_MAX], total - len(found[:SHOWN_MAX])


def _asked(view: WorldView, now: datetime) -> Iterator[Waiting]:
    for asked in standing(view, now):
        what = ASKED[asked.what].format(asked.policy_version)
        yield Waiting(
            whom="a second person",
            what=f"{asked.by} asked {what}",
            why="It takes two people.",
            since=asked.at,
            url=path("worlds", view.world_id) + "#confirmations",
        )


def _candidate(store: Store, view: WorldView, candidate: Candidate, now: datetime) -> Waiting:
    found = promotions.standing(store, view, candidate, now)
    whom, why = whom_it_waits_for(found)
    return Waiting(
        whom=whom,
        what=f"{candidate.strategy_id} to {ordinal(candidate.step)} of its ramp",
        why=why,
        since=candidate.proposed_at,
        url=path("worlds", view.world_id, "candidates", candidate.candidate_id),
    )


def whom_it_waits_for(found: promotions.Standing) -> tuple[str, str]:
    """Who has to act on a candidate, and why; nobody where it is not a person that is missing."""
    candidate, blocked = found.candidate, found.plan.blocked
    if isinstance(candidate.standing, Rejected):
        said = f"{candidate.standing.by} rejected it ({candidate.standing.reason})"
        return "an operator", f"{said}: it waits until an operator releases it."
    if blocked is None:
        return "an operator", "Every gate holds: it may be applied."
    if set(blocked.reasons) & PEOPLES:
        roles = listed(sorted(found.approver_roles), "or")
        missing = counted(found.approvals_missing, "approval")
        others = [d for r, d in blocked.problems if r not in PEOPLES]
        more = f"; besides: {'; '.join(others)}" if others else ""
        return f"an {roles}", sentence(f"{missing} of {found.approvals_needed} missing{more}")
    return "", sentence("; ".join(blocked.details))


def _held(view: WorldView, rows: list[int]) -> Iterator[Waiting]:
    for row in rows:
        sid: StrategyId = view.ids[row]
        yield Waiting(
            whom="an operator",
            what=f"{sid} is held",
            why="It was taken down by hand, and stays down until it is released.",
            since=None,
            url=path("worlds", view.world_id, "strategies", sid),
        )
