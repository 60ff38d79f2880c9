"""Campaign status and tick, which only look; and the loops that do what the tick says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from qmtl.core import campaign, proving
from qmtl.core.campaign import Page
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.names import Phase, Reason, Stage, StrategyId, WorldId
from qmtl.core.promotion import Blocked, Dossier, clear_for_live, step_ahead
from qmtl.core.times import in_words
from qmtl.core.view import Candidate, WorldView
from qmtl.core.windows import Progress, progress

from .ports import Store
from .promotions import dossier_of
from .step import world

CAMPAIGN_STAGES = (Stage.BACKTEST, Stage.PAPER, Stage.LIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyStatus:
    """Where a strategy stands, how full its windows are, and every reason why it is not further."""

    strategy_id: StrategyId
    phase: Phase
    entered_at: datetime | None
    runs: Mapping[Stage, EvaluationRun]  # The latest of each stage that has one.
    windows: Mapping[Stage, Progress]
    promotable_to_paper: bool
    promotable_to_live: bool
    problems: tuple[tuple[Reason, str], ...]
    shown: proving.Shown | None  # Towards the next step of the ramp; None: nothing is asked.
    eta: proving.Eta | None


def beat(store: Store, world_id: WorldId, loop: str, ttl: timedelta) -> list[str]:
    """A loop is there for so long; all that are.  Raises UnknownWorld."""
    return store.beat(world(store, world_id).world_id, loop, ttl)


def status(store: Store, view: WorldView, sid: StrategyId, now: datetime) -> StrategyStatus:
    """One strategy's status.  Raises UnknownStrategy, and Conflict when there is no policy."""
    policy, row = view.policy, view.strategy(sid).row
    phase = view.phase(row)
    runs = {}
    for stage in CAMPAIGN_STAGES:
        latest = view.runs.get((sid, stage))
        found = None if latest is None else store.run(view.world_id, sid, latest.run_id)
        if found is not None:
            runs[stage] = found.run
    blocked = _blocked_from_live(store, view, sid, now)
    step = step_ahead(view, row)
    shown = proving.shown(view, row, step, policy)
    return StrategyStatus(
        strategy_id=sid,
        phase=phase,
        entered_at=view.entered_at(row),
        runs=runs,
        windows={stage: progress(view, row, stage, policy) for stage in CAMPAIGN_STAGES},
        promotable_to_paper=phase is Phase.BACKTEST and not _unmet(view, sid, Stage.BACKTEST),
        promotable_to_live=phase is Phase.PAPER and not blocked,
        problems=_problems(view, sid, phase, blocked),
        shown=shown,
        eta=None if shown is None else proving.eta(view, row, step, policy, now),
    )


Problems = tuple[tuple[Reason, str], ...]


def _problems(view: WorldView, sid: StrategyId, phase: Phase, blocked: Problems) -> Problems:
    """Why the strategy is not one phase further; once live, what its stage holds against it."""
    match phase:
        case Phase.BACKTEST:
            return _unmet(view, sid, Stage.BACKTEST)
        case Phase.PAPER:
            return blocked
        case Phase.LIVE:
            return _unmet(view, sid, Stage.LIVE)
        case Phase.RETIRED:
            return _retired(view, sid)


def _retired(view: WorldView, sid: StrategyId) -> Problems:
    """That it left, whether its time ran out, and what its last paper run held against it."""
    row = view.strategies[sid].row
    problems: Problems = ((Reason.RETIRED, "it has left the campaign"),)
    if campaign.out_of_time(view, row, view.policy):
        observed = progress(view, row, Stage.PAPER, view.policy).observed_sec
        detail = f"{in_words(observed)} in paper without a promotion: its time ran out"
        problems += ((Reason.CAMPAIGN_EXPIRED, detail),)
    elif (futile := proving.refuted(view, row, view.policy)) is not None:
        problems += ((Reason.FUTILE, futile),)
    latest = view.runs.get((sid, Stage.PAPER))
    return problems if latest is None else (*problems, *latest.problems)


def _blocked_from_live(store: Store, view: WorldView, sid: StrategyId, now: datetime) -> Problems:
    candidate = view.open_candidate(sid)
    cleared = clear_for_live(view, sid, candidate, dossier_of(store, view, sid), now)
    return cleared.problems if isinstance(cleared, Blocked) else ()


def _unmet(view: WorldView, sid: StrategyId, stage: Stage) -> Problems:
    """Why the latest run of a stage does not carry the strategy on."""
    latest, row = view.runs.get((sid, stage)), view.strategies[sid].row
    window = tuple(progress(view, row, stage, view.policy).shortfalls())
    held: Problems = (
        ((Reason.HELD, "an operator demoted it; it is held until released"),)
        if view.standings.held[row]
        else ()
    )
    if latest is None:
        missing = Reason.BACKTEST_RUN_MISSING
        if stage is not Stage.BACKTEST:
            missing = Reason.OBSERVATIONS_INSUFFICIENT
        return ((missing, f"there is no {stage} run"), *window, *held)
    short = {reason for reason, _ in window}
    judged = tuple(problem for problem in latest.problems if problem[0] not in short)
    return (*judged, *window, *held)


def statuses(
    store: Store, world_id: WorldId, only: StrategyId | None, now: datetime
) -> tuple[WorldView, list[StrategyStatus]]:
    """The view, and the status of one strategy or of all, in the order they were bound."""
    view = world(store, world_id)
    asked = [only] if only is not None else [s.strategy_id for s in view.in_order()]
    return view, [status(store, view, sid, now) for sid in asked]


def tick(
    store: Store,
    world_id: WorldId,
    now: datetime,
    *,
    only: StrategyId | None = None,
    limit: int = campaign.ACTIONS_MAX,
    offset: int = 0,
) -> tuple[WorldView, Page]:
    """What to do next.  Load and compute: there is no commit, because there are no facts."""
    view = world(store, world_id)

    def dossier(candidate: Candidate) -> Dossier:
        return dossier_of(store, view, candidate.strategy_id)

    return view, campaign.tick(view, now, dossier, only=only, limit=limit, offset=offset)
