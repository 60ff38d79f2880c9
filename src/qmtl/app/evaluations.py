"""Evaluate a strategy, or a cohort: source, judge, record, and record what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qmtl.core import campaign, evaluation
from qmtl.core.errors import Conflict, Invalid, UnknownRun
from qmtl.core.evaluation import Subject
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.facts import EvaluationsRecorded, Fact
from qmtl.core.names import Phase, RunId, Stage, StrategyId, Verdict, WorldId
from qmtl.core.sourcing import KNOWN_UNITS, Sources
from qmtl.core.view import WorldView

from .ports import Store, StoredRun
from .step import By, foreseen, step, world

COUNTED = frozenset({"observations", "effective_history_years"})
COHORT_MAX = 10_000  # One transaction judges them all; more would hold up every other writer.
EARLIER = {
    Stage.BACKTEST: (),
    Stage.PAPER: (Stage.BACKTEST,),
    Stage.SHADOW: (Stage.PAPER, Stage.BACKTEST),
    Stage.LIVE: (Stage.PAPER, Stage.BACKTEST),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    strategy_id: StrategyId
    stage: Stage | None = None  # None: the campaign's.
    run_id: RunId | None = None  # None: the evidence names it.
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A run, whether the strategy is selected (or passes, where nobody selects), its phase now."""

    run: EvaluationRun
    active: bool
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortRequest:
    campaign_id: str
    strategies: tuple[StrategyId, ...]
    stage: Stage | None = None
    run_id: RunId | None = None


def evaluate(store: Store, world_id: WorldId, by: By, request: Request) -> Evaluated:
    """Judge one strategy and record what follows.  On the same evidence, many calls are one.

    Raises Conflict for metrics of a stage other than backtest, Invalid for unknown ones.
    """
    _check_metrics(request)

    def decide(view: WorldView) -> tuple[Evaluated, Sequence[Fact]]:
        sid = request.strategy_id
        stage = request.stage or evaluation.stage_of(view, sid)
        if request.metrics and stage is not Stage.BACKTEST:
            raise Conflict(f"Metrics of stage {stage} come from the hub, never from a request.")
        run_id = request.run_id or evaluation.run_id_of(view, sid, stage)
        subject = subject_of(store, view, sid, stage, run_id, request.metrics)
        run = evaluation.evaluate(view, stage, subject)
        facts = _recorded(view, stage, (run,), (subject,), by)
        after = foreseen(view, facts, by)
        return _evaluated(after, run), facts

    return step(store, world_id, by, decide)


def evaluate_cohort(
    store: Store, world_id: WorldId, by: By, request: CohortRequest
) -> tuple[Evaluated, ...]:
    """Judge many as one: one transaction, one policy version, selection across all of them.

    Selects only when the cohort leaves out no strategy with returns in the stage's phase: who
    chooses the rivals would choose the winner.  Raises Invalid naming strategies without a source.
    """
    if len(set(request.strategies)) != len(request.strategies) or not request.strategies:
        raise Invalid("candidates: each strategy once, and at least one.")
    if len(request.strategies) > COHORT_MAX:
        raise Invalid(f"candidates: more than {COHORT_MAX}.")

    def decide(view: WorldView) -> tuple[tuple[Evaluated, ...], Sequence[Fact]]:
        stage = request.stage or _common_stage(view, request.strategies)
        subjects = tuple(
            subject_of(
                store, view, sid, stage, request.run_id or evaluation.run_id_of(view, sid, stage)
            )
            for sid in request.strategies
        )
        sourceless = [s.strategy_id for s in subjects if not s.sources.any]
        if sourceless:
            raise Invalid(f"candidates without any source of metrics: {', '.join(sourceless)}.")
        runs = tuple(evaluation.evaluate(view, stage, subject) for subject in subjects)
        facts = _recorded(view, stage, runs, subjects, by, selection_of(store, view, stage, runs))
        after = foreseen(view, facts, by)
        return tuple(_evaluated(after, run) for run in runs), facts

    return step(store, world_id, by, decide)


def subject_of(
    store: Store,
    view: WorldView,
    sid: StrategyId,
    stage: Stage,
    run_id: RunId,
    requested: Mapping[str, float] | None = None,
) -> Subject:
    """All that the store knows for judging one strategy.  Raises UnknownStrategy."""
    row, world_id = view.strategy(sid).row, view.world_id
    track = view.tracks[stage]
    returns = store.series(world_id, sid, stage).since(int(track.window_from[row]))
    covered = int(track.covered_seq[row])
    snapshot = store.snapshot_at(world_id, covered) if covered else None
    same = earlier = None
    if not len(returns):
        # A run from before the window was started anew says nothing of this one.
        same = _latest(store, view, sid, stage) if view.verdict(row, stage) else None
        earlier = next(filter(None, (_latest(store, view, sid, s) for s in EARLIER[stage])), None)
    recorded = store.run(world_id, sid, run_id)
    return Subject(
        strategy_id=sid,
        run_id=run_id,
        sources=Sources(
            returns=returns,
            snapshot=None if snapshot is None else snapshot.fact,
            same_stage=same,
            earlier_stage=earlier,
            requested=requested or {},
        ),
        recorded=None if recorded is None else recorded.run,
    )


def _latest(store: Store, view: WorldView, sid: StrategyId, stage: Stage) -> EvaluationRun | None:
    latest = view.runs.get((sid, stage))
    if latest is None:
        return None
    found = store.run(view.world_id, sid, latest.run_id)
    assert found is not None, "a run that the view knows is stored"
    return found.run


def _check_metrics(request: Request) -> None:
    unknown = sorted(set(request.metrics) - set(KNOWN_UNITS))
    if unknown:
        raise Invalid(f"metrics: unknown {', '.join(unknown)}.")
    counted = sorted(set(request.metrics) & COUNTED)
    if counted:
        raise Invalid(f"metrics: {', '.join(counted)} is counted from returns, never told.")


def _common_stage(view: WorldView, strategies: Sequence[StrategyId]) -> Stage:
    stages = {evaluation.stage_of(view, sid) for sid in strategies}
    if len(stages) > 1:
        raise Invalid(f"stage: name one; the candidates are in {', '.join(sorted(stages))}.")
    return stages.pop()


Chosen = tuple[tuple[StrategyId, ...], tuple[StrategyId, ...]]


def selection_of(
    store: Store, view: WorldView, stage: Stage, runs: tuple[EvaluationRun, ...]
) -> Chosen | None:
    """The rivals and those selected from them; None when this cohort selects nobody.

    Who is no rival is judged like the others, but neither takes a place nor stands in the way.
    Rivalry is for the way to live: of those that are live, none is selected anew.
    """
    rivals = set(campaign.rivals(view, stage)) if stage is Stage.PAPER else set()
    if not rivals or not {run.strategy_id for run in runs} >= rivals:
        return None
    runs = tuple(run for run in runs if run.strategy_id in rivals)
    series = {
        run.strategy_id: store.series(view.world_id, run.strategy_id, stage)
        for run in runs
        if run.verdict is Verdict.PASS
    }
    chosen = evaluation.select(view, view.policy, runs, series)
    if chosen is None:
        return None
    return tuple(run.strategy_id for run in runs), chosen


def _recorded(
    view: WorldView,
    stage: Stage,
    runs: tuple[EvaluationRun, ...],
    subjects: tuple[Subject, ...],
    by: By,
    selection: Chosen | None = None,
) -> tuple[Fact, ...]:
    """One fact for what is new among the runs, and then what follows from each."""
    fresh = tuple(
        run for run, subject in zip(runs, subjects, strict=True) if run is not subject.recorded
    )
    cohort, selected = selection or ((), ())
    standing = {sid for sid in cohort if view.standings.selected[view.strategies[sid].row]}
    assert view.default_version is not None, "a run was judged under it"
    facts: tuple[Fact, ...] = ()
    if fresh or standing != set(selected):
        facts = (
            EvaluationsRecorded(
                stage=stage,
                policy_version=view.default_version,
                runs=fresh,
                cohort=cohort,
                selected=selected,
            ),
        )
    after = foreseen(view, facts, by)
    for run in runs:  # Old ones too: a hold that was lifted since may have kept one from its due.
        follows = campaign.consequences(after, run)
        facts += follows
        after = foreseen(after, follows, by)
    return facts


def _evaluated(view: WorldView, run: EvaluationRun) -> Evaluated:
    row = view.strategies[run.strategy_id].row
    selects = view.policy.selection is not None
    active = bool(view.standings.selected[row]) if selects else run.verdict is Verdict.PASS
    return Evaluated(run=run, active=active, phase=view.phase(row))


def run_of(store: Store, world_id: WorldId, sid: StrategyId, run_id: RunId) -> StoredRun:
    """The newest revision of a run.  Raises UnknownWorld, UnknownStrategy, UnknownRun."""
    world(store, world_id).strategy(sid)
    found = store.run(world_id, sid, run_id)
    if found is None:
        raise UnknownRun(run_id)
    return found
