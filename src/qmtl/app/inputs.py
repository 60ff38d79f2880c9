"""What a decision was made on, as names and values: gates, window, snapshot, approvals, weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from qmtl.core import proving
from qmtl.core.campaign import out_of_time
from qmtl.core.columns import Float
from qmtl.core.evaluation import limits_of
from qmtl.core.evaluation_run import EvaluationRun, GateResult, Source
from qmtl.core.leases import outstanding
from qmtl.core.names import Stage, StrategyId, Verdict
from qmtl.core.policy import Bound, ManualApproval, Policy
from qmtl.core.promotion import (
    Dossier,
    cooldown_remaining_sec,
    is_current,
    step_ahead,
    valid_approvals,
)
from qmtl.core.snapshot import Fresh, freshness
from qmtl.core.times import DAY_SEC, NEVER, in_words, instant, micros
from qmtl.core.view import Candidate, WorldView
from qmtl.core.windows import evidence_stage, progress
from qmtl.core.words import PHASES, minute, percent, second


@dataclass(frozen=True, slots=True)
class Input:
    name: str
    value: str


def run_inputs(view: WorldView, run: EvaluationRun, *, several: bool = False) -> Iterator[Input]:
    """A run's verdict and everything it rests on; `several`: each line names the strategy."""
    of = f"{run.strategy_id} " if several else ""
    row = view.strategy(run.strategy_id).row
    yield Input(f"{of}run", f"{run.run_id}, revision {run.revision}, {run.stage}: {run.verdict}")
    yield Input(f"{of}policy", f"version {run.policy_version}")
    yield from (Input(f"{of}gate {gate.metric}", _gate(gate)) for gate in run.gates)
    for name, metric in sorted(run.metrics.items()):
        if metric.source is Source.REQUEST and metric.value is not None:
            yield Input(f"{of}metric {name}", f"{metric.value:.6g}, as the request told it")
    window = progress(view, row, run.stage, view.policy)
    days = f"{run.observed_sec / DAY_SEC:.1f} of {window.required_sec / DAY_SEC:.1f} days"
    yield Input(f"{of}window", days)
    yield Input(f"{of}observations", f"{run.observations} of {window.required_observations}")
    snapshot = "none" if run.snapshot_version is None else run.snapshot_version
    yield Input(f"{of}snapshot", snapshot)
    yield Input(f"{of}evidence", run.evidence or "no returns")
    yield Input(f"{of}held", _yes(bool(view.standings.held[row])))
    if run.stage is Stage.PAPER and view.policy.campaign.paper.max_window is not None:
        yield Input(f"{of}out of time", _yes(out_of_time(view, row, view.policy)))


def _gate(gate: GateResult) -> str:
    bound = Bound(metric=gate.metric, min=gate.min, max=gate.max)
    value = "no value" if gate.value is None else f"{gate.value:.6g}"
    return f"{limits_of(bound)}: {value}, {gate.verdict}"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def breaker_inputs(view: WorldView, sid: StrategyId, bars: Float) -> Iterator[Input]:
    """The live drawdown, the new bars' worst and their limits, with the snapshot they came in."""
    track, row = view.tracks[Stage.LIVE], view.strategy(sid).row
    worst = {
        "max_drawdown": float(track.drawdown[row]),
        "max_bar_loss": max(0.0, -float(bars.min(initial=0.0))),
    }
    for bound in view.policy.gates.of(Stage.LIVE):
        value = worst.get(bound.metric)
        if value is not None:
            breached = bound.max is not None and not value <= bound.max
            verdict = Verdict.FAIL if breached else Verdict.PASS
            yield Input(f"gate {bound.metric}", f"{limits_of(bound)}: {value:.6g}, {verdict}")
    yield Input("live", _yes(sid in view.live))
    yield Input("last return", _at(int(track.last_t[row])))
    yield Input("snapshot", f"entry {int(track.covered_seq[row])}")


def _at(us: int) -> str:
    return "none" if us == NEVER else instant(us).isoformat()


def release_inputs(view: WorldView, candidate: Candidate) -> Iterator[Input]:
    """Why a release makes a candidate void: it is no longer the one of today."""
    yield Input("candidate", f"{candidate.candidate_id}, step {candidate.step + 1}")
    yield Input("still current", _yes(is_current(view, candidate)))


def gate_inputs(
    view: WorldView,
    sid: StrategyId,
    candidate: Candidate | None,
    dossier: Dossier,
    run: EvaluationRun | None,
    at: datetime,
) -> Iterator[Input]:
    """Everything that `clear_for_live` looks at."""
    row, policy = view.strategy(sid).row, view.policy
    step = step_ahead(view, row)
    yield from _of_world(view, row, policy, at)
    yield from _of_candidate(view, candidate, policy, at)
    if run is not None:
        yield from run_inputs(view, run)
    yield Input("verdict recorded", _word(view.verdict(row, evidence_stage(step))))
    yield Input("verdict now", _word(dossier.verdict))
    yield from _of_risk(view, sid, step, policy, dossier)
    yield from _of_capital(view, sid, step, policy, at)
    yield Input("snapshot relied upon", _snapshot(view, row, evidence_stage(step), policy, at))


def _word(verdict: Verdict | None) -> str:
    return "none" if verdict is None else verdict


def _of_world(view: WorldView, row: int, policy: Policy, at: datetime) -> Iterator[Input]:
    frozen = any(freeze.covers(at) for freeze in policy.governance.freeze)
    yield Input("policy in force", f"version {view.default_version}")
    yield Input("live promotion", policy.governance.live_promotion.mode.replace("_", " "))
    yield Input("live allowed", _yes(view.allow_live))
    yield Input("world", f"{view.state}{', killed' if view.killed else ''}")
    yield Input("freeze open", _yes(frozen))
    yield Input("phase", PHASES[view.phase(row)])


def _of_candidate(
    view: WorldView, candidate: Candidate | None, policy: Policy, at: datetime
) -> Iterator[Input]:
    if candidate is None:
        yield Input("candidate", "none")
        return
    standing = type(candidate.standing).__name__.lower()
    said = f"{candidate.candidate_id}, step {candidate.step + 1}, {standing}"
    yield Input("candidate", said)
    yield Input("proposed", f"by {candidate.proposer} at {minute(candidate.proposed_at)}")
    yield Input("still current", _yes(is_current(view, candidate)))
    promotion = policy.governance.live_promotion
    if isinstance(promotion, ManualApproval):
        valid = valid_approvals(view, promotion, candidate, at)
        given = [
            f"{a.by} at {minute(a.at)}{'' if a in valid else ' (expired)'}"
            for a in candidate.approvals
        ]
        count = f"{len(valid)} of {promotion.min} valid"
        yield Input("approvals", ": ".join((count, ", ".join(given))) if given else count)


def _of_risk(
    view: WorldView, sid: StrategyId, step: int, policy: Policy, dossier: Dossier
) -> Iterator[Input]:
    row = view.strategies[sid].row
    shown = proving.shown(view, row, step, policy)
    if shown is None:
        yield Input("e-value", "none asked")
    else:
        told = "too little to say" if shown.e_value is None else f"{shown.e_value:.6g}"
        yield Input("e-value", f"at least {shown.threshold:.6g}: {told}")
    chosen = _yes(bool(view.standings.selected[row]))
    yield Input("selected", "nobody selects" if policy.selection is None else chosen)
    limit = policy.risk.max_stress_loss
    if limit is not None:
        loss = float(view.tracks[evidence_stage(step)].stress_loss[row])
        yield Input("stress loss", f"at most {limit:g}: {loss:.6g}")
    most = policy.risk.max_pairwise_correlation_to_live
    for other, known in sorted(dossier.correlations.items()):
        if other == sid:
            continue
        told = "unknown" if known is None else f"{known:.6g}"
        yield Input(f"correlation with {other}", f"at most {most}: {told}")


def _of_capital(
    view: WorldView, sid: StrategyId, step: int, policy: Policy, at: datetime
) -> Iterator[Input]:
    governance = policy.governance
    others = {other: a.applied_weight for other, a in view.live.items() if other != sid}
    taken = f"{len(others)} of {governance.max_live_slots} taken"
    yield Input("live slots", f"{taken}: {', '.join(sorted(others))}" if others else taken)
    if step < len(governance.ramp):
        weight = governance.ramp[step].fraction * governance.allocation
        total = sum(others.values()) + weight
        yield Input(
            "live weight",
            f"{percent(weight)}, and with the others {percent(total)} of at most "
            f"{percent(governance.max_live_weight)}",
        )
    for other, lease in sorted(outstanding(view, at).items()):
        told = f"{percent(lease.weight)} until {second(lease.until)}"
        yield Input(f"taken back from {other}", told)
    left = cooldown_remaining_sec(view, policy, at)
    yield Input("cooldown left", in_words(left) if left else "none")


def _snapshot(view: WorldView, row: int, stage: Stage, policy: Policy, at: datetime) -> str:
    found, track = freshness(view, row, stage, policy, at), view.tracks[stage]
    as_of = int(track.covered_as_of[row])
    if as_of == NEVER:
        return f"no {stage} snapshot contains it"
    age = timedelta(microseconds=micros(at) - as_of).total_seconds()
    ttl = int(track.covered_ttl_us[row]) / 1_000_000
    state = "fresh" if isinstance(found, Fresh) else found.reason.removeprefix("risk_snapshot_")
    seq = int(track.covered_seq[row])
    told = f"entry {seq}, of {minute(instant(as_of))}, {in_words(age)} old"
    return f"{told}, good for {in_words(ttl)}: {state}"
