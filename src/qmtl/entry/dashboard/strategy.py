"""A strategy: where it is and why, what it has shown, and how it came there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Query, Response

from qmtl.app import evaluations, explanations
from qmtl.app.growth import STAGES, growth
from qmtl.app.ports import Store, StoredRun
from qmtl.app.step import world
from qmtl.core import decision, proving
from qmtl.core.explain import Explanation
from qmtl.core.names import Stage, StrategyId
from qmtl.core.promotion import step_ahead
from qmtl.core.view import Candidate, WorldView
from qmtl.core.windows import Progress, progress
from qmtl.entry import auth
from qmtl.entry.door import RunIn, StrategyIn, WorldIn

from .chart import picture
from .story import Line
from .visits import Pages, VisitIn

PAGES = Pages()
RUNS: Final = 15
MOVES: Final = 40
PICTURE_POINTS: Final = 400  # Enough for a line as wide as a phone.

Before = Annotated[int | None, Query(ge=1, le=2**53)]


@dataclass(frozen=True, slots=True)
class Judged:
    """The newest run of a stage, and where its window stands."""

    stage: Stage
    window: Progress | None
    run: StoredRun | None


@PAGES.shows(auth.UI + "/worlds/{world_id}/strategies/{strategy_id}")
def strategy(
    visit: VisitIn, world_id: WorldIn, strategy_id: StrategyIn, before: Before = None
) -> Response:
    """Everything of a strategy on one page."""
    store, now = visit.store, visit.call.by_token.now
    view = world(store, world_id)
    known = view.strategy(strategy_id)
    governed = view.default_version is not None
    step = step_ahead(view, known.row)
    explained = explanations.explanation(store, view, strategy_id, now)
    drawn = growth(store, world_id, strategy_id, PICTURE_POINTS)
    story, behind = visit.dashboard.stories.of(store, world_id)
    runs = store.runs(world_id, strategy_id, RUNS)
    moves = [m for m in story.moves.get(strategy_id, []) if before is None or m.seq < before]
    return visit.page(
        "strategy.html",
        view=view,
        known=known,
        explained=explained,
        plainly=_plainly(explained),
        envelope=decision.decide(view, strategy_id, now),
        lease=view.live.get(strategy_id),
        held=bool(view.standings.held[known.row]),
        candidate=view.open_candidate(strategy_id),
        candidates=_candidates(view, strategy_id),
        shown=proving.shown(view, known.row, step, view.policy) if governed else None,
        eta=proving.eta(view, known.row, step, view.policy, now) if governed else None,
        step=step,
        judged=list(_judged(store, view, strategy_id)),
        picture=picture(drawn),
        runs=runs,
        last=runs[0] if runs else None,
        moves=_last(moves),
        earlier=moves[-MOVES].seq if len(moves) > MOVES else None,
        behind=behind,
    )


def _candidates(view: WorldView, sid: StrategyId) -> list[Candidate]:
    """Its newest, whatever became of them."""
    mine = [c for c in view.candidates.values() if c.strategy_id == sid]
    return sorted(mine, key=lambda c: c.proposed_at, reverse=True)[:RUNS]


def _last(moves: list[Line]) -> list[Line]:
    """The newest first."""
    return moves[-MOVES:][::-1]


def _plainly(explained: Explanation) -> tuple[list[str], list[str]]:
    """The sentences that stand in no list of their own: before what it waits for, and after."""
    waited = {wait.sentence for wait in explained.waits_for}
    turn = next((n for n, s in enumerate(explained.sentences) if s in waited), None)
    listed = waited | set(explained.would_stop)
    before, after = explained.sentences[:turn], explained.sentences[turn:] if turn else ()
    return [s for s in before if s not in listed], [s for s in after if s not in listed]


def _judged(store: Store, view: WorldView, sid: StrategyId) -> Iterator[Judged]:
    """Each stage that it has been in."""
    row = view.strategies[sid].row
    for stage in STAGES:
        latest, points = view.runs.get((sid, stage)), int(view.tracks[stage].points[row])
        if latest is None and not points:
            continue
        run = None if latest is None else store.run(view.world_id, sid, latest.run_id)
        window = None
        if view.default_version is not None:
            window = progress(view, row, stage, view.policy)
        yield Judged(stage, window, run)


@PAGES.shows(auth.UI + "/worlds/{world_id}/strategies/{strategy_id}/runs/{run_id}")
def run(visit: VisitIn, world_id: WorldIn, strategy_id: StrategyIn, run_id: RunIn) -> Response:
    """One run: its newest revision whole, and every one before it."""
    found = evaluations.run_of(visit.store, world_id, strategy_id, run_id)
    revisions = visit.store.revisions(world_id, strategy_id, run_id)
    return visit.page(
        "run.html",
        view=world(visit.store, world_id),
        strategy_id=strategy_id,
        found=found,
        revisions=revisions[::-1][:MOVES],
        total=len(revisions),
    )
