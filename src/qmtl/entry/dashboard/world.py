"""A world: who stands where, what is live, what waits for whom, how fresh, and what is left."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

import numpy as np
from fastapi import Query, Response

from qmtl.app import worlds
from qmtl.app.ports import Store
from qmtl.app.promotions import dossier_of
from qmtl.core import decision, proving
from qmtl.core.confirmations import standing
from qmtl.core.evidence.crowd import e_bh_threshold, ramp_bound, spending_share
from qmtl.core.names import Mode, Phase, Stage, StrategyId
from qmtl.core.promotion import cooldown_remaining_sec, step_ahead
from qmtl.core.proof import campaigns
from qmtl.core.view import Activation, Strategy, WorldView
from qmtl.core.waits import frozen_until, waits
from qmtl.core.windows import STAGE_OF, Progress, progress
from qmtl.core.words import counted
from qmtl.entry import auth
from qmtl.entry.door import WorldIn, offset_of

from .freshness import feeds, phase_counts
from .people import waiting
from .render import number
from .visits import Pages, VisitIn

PAGES = Pages()
ROWS: Final = 25
RECENT: Final = 10
ORDER: Final = (Phase.LIVE, Phase.PAPER, Phase.BACKTEST, Phase.RETIRED)
PHASE_WORDS: Final = {phase.removesuffix("_campaign"): phase for phase in ORDER}

From = Annotated[str | None, Query(alias="from", pattern=r"^[0-9]{1,9}$")]
SORTS: Final = ("phase", "name", "window", "evidence", "weight", "longest here")
PhaseAsked = Annotated[str, Query(alias="phase", pattern=f"^({'|'.join(PHASE_WORDS)}|)$")]
SortAsked = Annotated[str, Query(alias="sort", pattern=f"^({'|'.join(SORTS)}|)$")]
Search = Annotated[str, Query(max_length=128)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A strategy on the list."""

    strategy_id: StrategyId
    phase: Phase
    since: datetime | None
    held: bool
    window: Progress | None
    shown: proving.Shown | None
    mode: Mode
    weight: float
    waits: str
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A strategy that is live: its lease, and what it may do at this moment."""

    lease: Activation
    since: datetime | None
    mode: Mode
    weight: float
    steps: int
    drawdown: float
    silent_at: datetime


@PAGES.shows(auth.UI + "/worlds/{world_id}")
def world(
    visit: VisitIn,
    world_id: WorldIn,
    phase: PhaseAsked = "",
    sort: SortAsked = "",
    q: Search = "",
    start: From = None,
) -> Response:
    """Everything of a world on one page; of its strategies, one page of them."""
    store, now = visit.store, visit.call.by_token.now
    record, view = worlds.record(store, world_id)
    rows = ordered(view, _matching(view, PHASE_WORDS.get(phase), q.strip().lower()), sort)
    total = len(rows)
    first = min(offset_of(start), max(0, (total - 1) // ROWS * ROWS))
    people, more = waiting(store, view, now)
    story, behind = visit.dashboard.stories.of(store, world_id)
    governed = view.default_version is not None
    return visit.page(
        "world.html",
        record=record,
        view=view,
        counts=phase_counts(view),
        at_the_gate=len(view.open_candidates()),
        live=[_live(view, held, now) for _, held in sorted(view.live.items())],
        live_weight=sum(held.weight for held in view.live.values()),
        people=people,
        more=more,
        feeds=list(feeds(store, view, now)),
        budget=list(budget(view)),
        freezes=_freezes(view, now),
        cooldown=cooldown_remaining_sec(view, view.policy, now) if governed else 0.0,
        confirmations=standing(view, now),
        rows=[_row(store, view, sid, now) for sid in rows[first : first + ROWS]],
        total=total,
        first=first,
        page_rows=ROWS,
        phase=phase,
        sort=sort or SORTS[0],
        sorts=SORTS,
        q=q,
        recent=list(story.turns)[-RECENT:][::-1],
        behind=behind,
    )


def _matching(view: WorldView, phase: Phase | None, text: str) -> list[Strategy]:
    """Whom a filter lets through."""
    return [
        known
        for known in view.strategies.values()
        if (phase is None or view.phase(known.row) is phase)
        and (text in known.strategy_id.lower() or text in known.name.lower())
    ]


def ordered(view: WorldView, found: list[Strategy], by: str) -> list[StrategyId]:
    """Who has most first; of the phases, live first; those that are equal by id."""
    order = {each: n for n, each in enumerate(ORDER)}

    def key(known: Strategy) -> float:
        row = known.row
        match by:
            case "name":
                return 0.0
            case "window":
                window = _window(view, row)
                return 0.0 if window is None else -window.share
            case "evidence":
                shown = _shown(view, row)
                return 1.0 if shown is None else -(1.0 if shown.share is None else shown.share)
            case "weight":
                held = view.live.get(known.strategy_id)
                return 0.0 if held is None else -held.weight
            case "longest here":
                since = view.entered_at(row)
                return math.inf if since is None else since.timestamp()
            case _:
                return order[view.phase(row)]

    return [known.strategy_id for known in sorted(found, key=lambda k: (key(k), k.strategy_id))]


def _window(view: WorldView, row: int) -> Progress | None:
    """Of the phase it is in; None where there is none, or no policy asks for one."""
    stage = STAGE_OF.get(view.phase(row))
    if stage is None or view.default_version is None:
        return None
    return progress(view, row, stage, view.policy)


def _shown(view: WorldView, row: int) -> proving.Shown | None:
    """Towards its next step; None where nothing is asked."""
    if view.default_version is None:
        return None
    return proving.shown(view, row, step_ahead(view, row), view.policy)


def _row(store: Store, view: WorldView, sid: StrategyId, now: datetime) -> Row:
    row = view.strategies[sid].row
    phase, envelope = view.phase(row), decision.decide(view, sid, now)
    judged = view.default_version is not None
    waited = waits(view, sid, dossier_of(store, view, sid), now) if judged else ()
    return Row(
        strategy_id=sid,
        phase=phase,
        since=view.entered_at(row),
        held=bool(view.standings.held[row]),
        window=_window(view, row),
        shown=_shown(view, row),
        mode=envelope.effective_mode,
        weight=envelope.weight,
        waits=waited[0].sentence if waited else "",
        more=max(0, len(waited) - 1),
    )


def _live(view: WorldView, held: Activation, now: datetime) -> Live:
    row = view.strategies[held.strategy_id].row
    envelope = decision.decide(view, held.strategy_id, now)
    return Live(
        lease=held,
        since=view.entered_at(row),
        mode=envelope.effective_mode,
        weight=envelope.weight,
        steps=len(view.policy.governance.ramp),
        drawdown=float(view.tracks[Stage.LIVE].drawdown[row]),
        silent_at=decision.silent_at(view, held),
    )


def _freezes(view: WorldView, now: datetime) -> tuple[bool, datetime | None, datetime | None]:
    """Whether a freeze is open, until when, and when the next one starts."""
    if view.default_version is None or not view.policy.governance.freeze:
        return False, None, None
    freezes = view.policy.governance.freeze
    open_now = any(freeze.covers(now) for freeze in freezes)
    return open_now, frozen_until(view.policy, now), min(f.follows(now) for f in freezes)


def budget(view: WorldView) -> Iterator[str]:
    """What of the policy's error rate is spent, in sentences."""
    if view.default_version is None:
        return
    policy, begun = view.policy, campaigns(view)
    asked = policy.evidence
    if asked is None:
        yield "The policy asks for no evidence (evidence: none), so no error rate is promised."
        return
    top = len(policy.governance.ramp) - 1
    there = np.flatnonzero(view.standings.step[: len(view.ids)] == top)
    looked = f"{counted(begun, 'campaign')} begun"
    match asked.multiplicity:
        case "e_bh":
            least = e_bh_threshold(max(1, begun), asked.alpha, np.empty(0))
            yield (
                f"At most {asked.alpha:g} of those at the top of the ramp are expected to be there "
                f"by luck (e_bh). {looked}, {len(there)} at the top: the next alone would have to "
                f"show an e-value of {number(least)}."
            )
        case "spending":
            spent = sum(spending_share(n) for n in range(1, begun + 1))
            least = 1 / (asked.alpha * spending_share(begun + 1))
            yield (
                f"Of alpha {asked.alpha:g}, {100 * spent:.1f} % is spent on {looked}; the next "
                f"has to show an e-value of {number(least)}."
            )
        case "per_strategy":
            yield (
                f"Each strategy spends its own alpha of {asked.alpha:g}: with {looked}, "
                f"{begun * asked.alpha:.3g} without skill are expected to pass."
            )
    steps = ((step.fraction, step.e_value) for step in policy.governance.ramp)
    yield (
        f"A strategy without skill is expected to get at most {100 * ramp_bound(steps):.1f} % of "
        "an allocation, however often anyone looks."
    )
