"""Why a journal entry says what it says: the same code, on the same world, once more.

What the system decided (a verdict, a phase, a candidate, a promotion or its refusal, a demotion for
cause) is derived again from the entries before it, at the instant at which it was recorded, and
compared with what was recorded.  What a person did is not derived; it is said.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from math import isclose

from qmtl.core import approvals, campaign, evaluation, promotion
from qmtl.core import facts as f
from qmtl.core.errors import Refusal
from qmtl.core.evaluation_run import EvaluationRun, Source
from qmtl.core.happened import happened, subject_of
from qmtl.core.names import Reason, RunId, Stage, StrategyId, WorldId
from qmtl.core.promotion import Clearance
from qmtl.core.view import Rejected, WorldView
from qmtl.core.windows import STAGE_OF, evidence_stage
from qmtl.core.words import counted

from . import evaluations, hub
from .inputs import Input, breaker_inputs, gate_inputs, release_inputs, run_inputs
from .ports import Store
from .promotions import dossier_of

RELATIVE = 1e-9  # Another machine may add up in another order; a decision is not that close.
ABSOLUTE = 1e-12
SHOWN_CHARS_MAX = 200
ADDED_SINCE = frozenset({"max_bar_loss"})  # Metrics that runs of before were recorded without.


class Outcome(StrEnum):
    SAME = "same"
    DIFFERENT = "different"
    ACT = "act"  # Somebody did it: there is nothing to derive.


@dataclass(frozen=True, slots=True)
class Difference:
    where: str  # In the fact, as a path.
    recorded: str
    derived: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """An entry, what it says, what it was decided on, and whether that leads to it again."""

    entry: f.Entry
    strategy_id: StrategyId | None
    sentence: str
    outcome: Outcome
    inputs: tuple[Input, ...]
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Derived:
    """What the code makes of the world before an entry: the fact, or nothing; and from what."""

    fact: f.Fact | None
    inputs: tuple[Input, ...]


def why(store: Store, world_id: WorldId, entry: f.Entry) -> Why:
    """Derives an entry again.  `store` holds the world as it was just before it: nothing after."""
    view = store.load(world_id)
    assert view.seq == entry.seq - 1, "the world just before"
    try:
        derived = _derived(store, view, entry)
        refused = None
    except Refusal as refusal:  # The code will not even try, in this world.
        derived, refused = Derived(None, ()), str(refusal)
    found: tuple[Difference, ...] = ()
    if derived is not None:
        found = differences(entry.fact, derived.fact, refused)
    outcome = Outcome.DIFFERENT if found else Outcome.SAME
    return Why(
        entry=entry,
        strategy_id=subject_of(view, entry.fact),
        sentence=happened(view, entry),
        outcome=Outcome.ACT if derived is None else outcome,
        inputs=_posted(entry.fact) if derived is None else derived.inputs,
        differences=found,
    )


def _derived(store: Store, view: WorldView, entry: f.Entry) -> Derived | None:
    """None for what a person did, or posted."""
    fact = entry.fact
    match fact:
        case f.EvaluationsRecorded():
            return _judged(store, view, fact)
        case f.PromotionApplied(strategy_id=sid) | f.PromotionBlocked(strategy_id=sid):
            return _at_the_gate(store, view, sid, fact, entry.at)
        case f.PhaseEntered(strategy_id=sid) | f.CandidateProposed(strategy_id=sid):
            named = fact.run_id if isinstance(fact, f.CandidateProposed) else None
            return _followed(store, view, sid, named)
        case f.CandidateVoided(candidate_id=cid, reason=Reason.FINGERPRINT_CHANGED):
            candidate = view.candidate(cid)
            facts = approvals.renamed(view, candidate.strategy_id)
            return Derived(_first(facts), tuple(release_inputs(view, candidate)))
        case f.CandidateVoided(candidate_id=cid):
            candidate = view.candidate(cid)
            if isinstance(candidate.standing, Rejected):  # Released, and superseded meanwhile.
                facts = approvals.release(view, candidate.strategy_id, "")
                return Derived(_first(facts), tuple(release_inputs(view, candidate)))
            return _followed(store, view, candidate.strategy_id, None)
        case f.Demoted():
            return _taken_down(store, view, fact)
        case _:
            return None


def _first(facts: tuple[f.Fact, ...]) -> f.Fact | None:
    return facts[0] if facts else None


# ---- Verdicts ----------------------------------------------------------------------------------


def _judged(store: Store, view: WorldView, fact: f.EvaluationsRecorded) -> Derived:
    """Every run of a batch, and the cohort's selection."""
    runs = {run.strategy_id: _again(store, view, fact.stage, run) for run in fact.runs}
    cohort = {sid: runs.get(sid) or _of_now(store, view, fact.stage, sid) for sid in fact.cohort}
    everyone = tuple({**cohort, **runs}.values())
    chosen = None
    if fact.cohort:
        chosen = evaluations.selection_of(store, view, fact.stage, everyone)
    members, selected = chosen or ((), ())
    assert view.default_version is not None, "evaluate has refused already"
    derived = f.EvaluationsRecorded(
        stage=fact.stage,
        policy_version=view.default_version,
        runs=tuple(runs.values()),
        cohort=members,
        selected=selected,
    )
    several = len(runs) > 1
    inputs = [i for run in runs.values() for i in run_inputs(view, run, several=several)]
    if fact.cohort:
        inputs.append(Input("cohort", ", ".join(members) or "none: it leaves out a rival"))
        inputs.append(Input("selected", ", ".join(selected) or "nobody"))
    return Derived(derived, tuple(inputs))


def _again(store: Store, view: WorldView, stage: Stage, run: EvaluationRun) -> EvaluationRun:
    """A recorded run, judged once more; what its request told is in its metrics."""
    told = {
        name: metric.value
        for name, metric in run.metrics.items()
        if metric.source is Source.REQUEST and metric.value is not None
    }
    subject = evaluations.subject_of(store, view, run.strategy_id, stage, run.run_id, told)
    again = evaluation.evaluate(view, stage, subject)
    unknown_then = {name for name in ADDED_SINCE if name not in run.metrics}
    kept = {name: metric for name, metric in again.metrics.items() if name not in unknown_then}
    return replace(again, metrics=kept)


def _of_now(store: Store, view: WorldView, stage: Stage, sid: StrategyId) -> EvaluationRun:
    """Of a member of a cohort that nothing new was recorded of."""
    run_id = evaluation.run_id_of(view, sid, stage)
    return evaluation.evaluate(view, stage, evaluations.subject_of(store, view, sid, stage, run_id))


# ---- What follows from a run -------------------------------------------------------------------


def _followed(store: Store, view: WorldView, sid: StrategyId, named: RunId | None) -> Derived:
    """What a strategy's newest run, or the one that is named, leads to in the phase it is in."""
    stage = STAGE_OF.get(view.phase(view.strategy(sid).row))
    latest = None if stage is None else view.runs.get((sid, stage))
    if stage is None or latest is None:
        return Derived(None, (Input("run", "there is none for the phase it is in"),))
    stored = store.run(view.world_id, sid, named or latest.run_id)
    if stored is None:
        return Derived(None, (Input("run", f"there is no run {named}"),))
    facts = campaign.consequences(view, stored.run)
    return Derived(_first(facts), tuple(run_inputs(view, stored.run)))


def _taken_down(store: Store, view: WorldView, fact: f.Demoted) -> Derived | None:
    sid = fact.strategy_id
    match fact.reason:
        case Reason.MANUAL:
            return None
        case Reason.DRAWDOWN_BREACHED | Reason.LOSS_BREACHED | Reason.DECAYED:
            bars = campaign.fresh(view, sid, _brought(store, view))
            facts = campaign.broken(view, sid, bars)
            return Derived(_first(facts), tuple(breaker_inputs(view, sid, bars)))
        case Reason.EVIDENCE_CHANGED:
            (before,) = store.journal(view.world_id, view.seq - 1, 1)
            if not isinstance(before.fact, f.SeriesRestated):
                return Derived(None, (Input("restatement", "there is none just before"),))
            said = f"entry {before.seq}: {before.fact.stage} returns, {before.fact.reason}"
            facts = hub.relied_upon(view, before.fact)
            return Derived(_first(facts), (Input("restatement", said),))
        case _:
            return _followed(store, view, sid, None)


def _brought(store: Store, view: WorldView) -> f.Points:
    """The new points of the snapshot with which the view's last commit began; none without one."""
    most = len(view.strategies) + 1  # A commit demotes each at most once.
    for entry in reversed(store.journal(view.world_id, max(0, view.seq - most), most)):
        if isinstance(entry.fact, f.SnapshotStored):
            return entry.fact.points
        if not isinstance(entry.fact, f.Demoted):
            break
    return f.Points()


# ---- The gate ----------------------------------------------------------------------------------


def _at_the_gate(
    store: Store,
    view: WorldView,
    sid: StrategyId,
    fact: f.PromotionApplied | f.PromotionBlocked,
    at: datetime,
) -> Derived:
    cid = fact.candidate_id
    candidate = None if cid is None else view.candidate(cid)
    dossier = dossier_of(store, view, sid)
    cleared = promotion.clear_for_live(view, sid, candidate, dossier, at)
    if isinstance(cleared, Clearance):
        facts = promotion.apply(cleared)
    else:
        facts = promotion.block(view, sid, candidate, cleared)
    run = _newest_run(store, view, sid)
    return Derived(_first(facts), tuple(gate_inputs(view, sid, candidate, dossier, run, at)))


def _newest_run(store: Store, view: WorldView, sid: StrategyId) -> EvaluationRun | None:
    """Of the evidence for the next step, as it would be judged now."""
    row = view.strategy(sid).row
    stage = evidence_stage(promotion.step_ahead(view, row))
    latest = view.runs.get((sid, stage))
    if latest is None:
        return None
    subject = evaluations.subject_of(store, view, sid, stage, latest.run_id)
    return evaluation.evaluate(view, stage, subject)


# ---- What was not derived ----------------------------------------------------------------------


def _posted(fact: f.Fact) -> tuple[Input, ...]:
    """What a snapshot brought of each strategy; of everything else the sentence says it all."""
    if not isinstance(fact, f.SnapshotStored):
        return ()
    new = dict(zip(fact.points.strategies, fact.points.counts, strict=True))
    covered = [
        Input(
            sid, f"{counted(new.get(sid, 0), 'new return')}, weight {fact.weights.get(sid, 0):.4g}"
        )
        for sid in fact.covered
    ]
    return (Input("as of", fact.as_of.isoformat()), *covered)


# ---- Comparing ---------------------------------------------------------------------------------


def differences(
    recorded: f.Fact, derived: f.Fact | None, refused: str | None = None
) -> tuple[Difference, ...]:
    """Where two facts differ; numbers by more than rounding."""
    if derived is None:
        nothing = "nothing" if refused is None else f"nothing: {refused}"
        return (Difference(recorded.kind, "recorded", nothing),)
    if recorded.kind != derived.kind:
        return (Difference("kind", recorded.kind, f"{derived.kind}: {_short(asdict(derived))}"),)
    return tuple(_differ("", asdict(recorded), asdict(derived)))


def _differ(where: str, a: object, b: object) -> Iterator[Difference]:
    match a, b:
        case dict(), dict():
            for key in sorted({*a, *b}, key=str):
                at = f"{where}.{key}" if where else str(key)
                if key in a and key in b:
                    yield from _differ(at, a[key], b[key])
                else:
                    yield Difference(at, _shown(a, key), _shown(b, key))
        case (list() | tuple(), list() | tuple()) if len(a) == len(b):
            for number, (mine, theirs) in enumerate(zip(a, b, strict=True)):
                yield from _differ(f"{where}.{number}", mine, theirs)
        case float(), float():
            if not isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
                yield Difference(where, repr(a), repr(b))
        case _:
            if a != b:
                yield Difference(where, _short(a), _short(b))


def _shown(values: dict[object, object], key: object) -> str:
    return _short(values[key]) if key in values else "nothing"


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"
