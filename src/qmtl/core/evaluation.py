"""Judging runs: metrics against the gates of their stage, a window, and a cohort's selection.

`evaluate` answers runs; what follows from one (phases, candidates, demotions) is `campaign.py`'s.
A comparison says what must hold, so that NaN, missing and inherited can only fail.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite

from . import proving
from .errors import Invalid
from .evaluation_run import EvaluationRun, GateResult, Metric, Source
from .metrics import Undefined
from .names import Phase, Reason, RunId, Stage, StrategyId, Verdict
from .policy import Bound, OnMissing, Policy, Selection
from .series import Series, correlation
from .sourcing import Sources, source
from .view import WorldView
from .windows import STAGE_OF, progress

YOUNG = frozenset({Undefined.EMPTY.value, Undefined.TOO_SHORT.value})
RUN_DIGEST_HEX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One strategy to be judged: its sources, and the run that is to be written."""

    strategy_id: StrategyId
    run_id: RunId
    sources: Sources
    recorded: EvaluationRun | None  # The newest revision of `run_id`.


def stage_of(view: WorldView, strategy_id: StrategyId) -> Stage:
    """The stage a strategy's campaign is in.  Raises Invalid once it is retired."""
    phase = view.phase(view.strategy(strategy_id).row)
    if phase is Phase.RETIRED:
        raise Invalid(f"{strategy_id} is retired; name a stage to evaluate it all the same.")
    return STAGE_OF[phase]


def run_id_of(view: WorldView, strategy_id: StrategyId, stage: Stage) -> RunId:
    """The run that the evidence held names: the same evidence, the same run."""
    digest = view.digest(view.strategy(strategy_id).row, stage)
    return RunId(f"{stage}-{digest[:RUN_DIGEST_HEX] or 'empty'}")


def evaluate(view: WorldView, stage: Stage, subject: Subject) -> EvaluationRun:
    """The run of one strategy under the policy in force; its recorded revision when nothing is new.

    Raises Conflict when the world has no policy, and Invalid when the run_id is another stage's.
    """
    policy, row = view.policy, view.strategy(subject.strategy_id).row
    recorded = subject.recorded
    if recorded is not None and recorded.stage is not stage:
        raise Invalid(f"run {recorded.run_id} is of stage {recorded.stage}, not {stage}.")
    metrics = source(subject.sources, subject.strategy_id, policy.data.periods_per_year)
    metrics = {**metrics, **_measured(view, stage, subject)}
    on_missing = policy.gates.on_missing
    window = progress(view, row, stage, policy)
    shortfalls = window.shortfalls() if stage in (Stage.BACKTEST, Stage.PAPER) else []
    if stage in (Stage.LIVE, Stage.SHADOW) and not len(subject.sources.returns):
        shortfalls = [(Reason.OBSERVATIONS_INSUFFICIENT, f"no {stage} returns yet")]
        on_missing = OnMissing.INCONCLUSIVE  # Nobody is taken out of live for being new there.
    gates = tuple(
        judge(bound, metrics.get(bound.metric), stage, on_missing)
        for bound in (*policy.gates.of(stage), *_of_evidence(view, stage, subject))
    )
    problems = [_problem(gate) for gate in gates if gate.verdict is not Verdict.PASS]
    problems += shortfalls
    snapshot = subject.sources.snapshot
    assert view.default_version is not None, "view.policy has refused already"
    found = EvaluationRun(
        strategy_id=subject.strategy_id,
        run_id=subject.run_id,
        stage=stage,
        revision=1 if recorded is None else recorded.revision + 1,
        verdict=_verdict(gates, bool(shortfalls)),
        problems=tuple(problems),
        metrics=metrics,
        gates=gates,
        policy_version=view.default_version,
        snapshot_version=None if snapshot is None else snapshot.version,
        evidence=view.digest(row, stage),
        observations=window.observations,
        observed_sec=window.observed_sec,
    )
    if recorded is not None and _stands(view, row, found) and _same(found, recorded):
        return recorded
    return found


def _measured(view: WorldView, stage: Stage, subject: Subject) -> dict[str, Metric]:
    """What evidence adds to the metrics.  INVARIANT: what is not finite has no value (I9)."""
    found = proving.measured(view, subject.strategy_id, stage, subject.sources.returns)
    snapshot = subject.sources.snapshot
    return {
        name: Metric(
            value=value if isfinite(value) else None,
            unit=proving.UNITS[name],
            source=Source.REALIZED_RETURNS,
            snapshot_version=None if snapshot is None else snapshot.version,
            undefined=None if isfinite(value) else proving.UNKNOWN[name],
        )
        for name, value in found.items()
    }


def _of_evidence(view: WorldView, stage: Stage, subject: Subject) -> tuple[Bound, ...]:
    if not len(subject.sources.returns):
        return ()  # The window says so.
    return proving.bounds(view, subject.strategy_id, stage)


def _stands(view: WorldView, row: int, found: EvaluationRun) -> bool:
    """Whether what was recorded last of the stage says just this already."""
    track = view.tracks[found.stage]
    judged = track.judged_digest[row] == track.digest[row]
    same_policy = int(track.judged_policy[row]) == found.policy_version
    return bool(judged) and same_policy and view.verdict(row, found.stage) is found.verdict


def _same(a: EvaluationRun, b: EvaluationRun) -> bool:
    """Equal in all that was found.  Which snapshot repeated it does not matter."""

    def bare(run: EvaluationRun) -> EvaluationRun:
        metrics = {n: replace(m, snapshot_version=None) for n, m in run.metrics.items()}
        return replace(run, revision=0, snapshot_version=None, metrics=metrics)

    return bare(a) == bare(b)


def judge(bound: Bound, metric: Metric | None, stage: Stage, on_missing: OnMissing) -> GateResult:
    """One gate.  INVARIANT: only a finite number of the run's own stage can pass (I9)."""
    limits = limits_of(bound)
    value = None if metric is None or metric.source is Source.INHERITED else metric.value
    if metric is None or value is None:
        if metric is None:
            why = "nobody reported it"
        elif metric.source is Source.INHERITED:
            why = "known of an earlier stage only"
        else:
            why = f"undefined ({(metric.undefined or '').replace('_', ' ')})"
        young = stage is Stage.LIVE and metric is not None and metric.undefined in YOUNG
        ruined = (
            metric is not None
            and metric.undefined == Undefined.RUINED.value
            and metric.source is not Source.INHERITED
        )
        inconclusive = young or (on_missing is OnMissing.INCONCLUSIVE and not ruined)
        verdict = Verdict.INCONCLUSIVE if inconclusive else Verdict.FAIL
        detail = f"{stage} {bound.metric} must be {limits}: {why}"
    else:
        above = bound.min is None or value >= bound.min
        below = bound.max is None or value <= bound.max
        verdict = Verdict.PASS if above and below else Verdict.FAIL
        detail = f"{stage} {bound.metric} must be {limits}: it is {value:.4g}"
    return GateResult(
        metric=bound.metric,
        min=bound.min,
        max=bound.max,
        value=value,
        verdict=verdict,
        detail=detail,
    )


def limits_of(bound: Bound) -> str:
    """`at least 0.5 and at most 2`."""
    return " and ".join(
        f"{word} {limit:g}"
        for word, limit in (("at least", bound.min), ("at most", bound.max))
        if limit is not None
    )


def _problem(gate: GateResult) -> tuple[Reason, str]:
    if gate.metric in proving.REASONS:
        return proving.REASONS[gate.metric], gate.detail
    missing = gate.value is None
    return (Reason.METRIC_MISSING if missing else Reason.VALIDATION_FAILED), gate.detail


def _verdict(gates: tuple[GateResult, ...], short: bool) -> Verdict:
    if any(gate.verdict is Verdict.FAIL for gate in gates):
        return Verdict.FAIL
    if short or any(gate.verdict is Verdict.INCONCLUSIVE for gate in gates):
        return Verdict.INCONCLUSIVE
    return Verdict.PASS


def select(
    view: WorldView,
    policy: Policy,
    runs: tuple[EvaluationRun, ...],
    series: Mapping[StrategyId, Series],
) -> tuple[StrategyId, ...] | None:
    """The cohort's selection, best first; None when the policy selects nobody.

    Only passing runs are eligible.  Hysteresis decides who may be considered, `top_k` ranks, and
    one that is correlated above the limit with a better one is left out; so is one whose
    correlation cannot be known.
    """
    selection = policy.selection
    if selection is None:
        return None
    ranked = sorted(
        (run for run in runs if run.verdict is Verdict.PASS and _considered(view, selection, run)),
        key=lambda run: (-_rank(selection, run), run.strategy_id),
    )
    chosen: list[StrategyId] = []
    for run in ranked:
        if selection.top_k is not None and len(chosen) >= selection.top_k.k:
            break
        if selection.correlation_max is not None:
            mine = series[run.strategy_id]
            known = [correlation(mine, series[other]) for other in chosen]
            if not all(c is not None and c <= selection.correlation_max for c in known):
                continue
        chosen.append(run.strategy_id)
    return tuple(chosen)


def _considered(view: WorldView, selection: Selection, run: EvaluationRun) -> bool:
    if selection.hysteresis is None:
        return True
    inside = bool(view.standings.selected[view.strategies[run.strategy_id].row])
    least = selection.hysteresis.exit if inside else selection.hysteresis.enter
    value = run.value(selection.hysteresis.metric)
    return value is not None and value >= least


def _rank(selection: Selection, run: EvaluationRun) -> float:
    metric = selection.top_k.metric if selection.top_k else "sharpe_annual"
    value = run.value(metric)
    return float("-inf") if value is None else value
