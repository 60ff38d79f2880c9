"""Campaigns: what follows from a run, where each strategy stands, what to do next.

`consequences` moves phases, as facts.  `tick` recommends and never acts: no facts come out of it.
Both are functions of the view; `tick` looks at columns, so that its cost is a few passes over
arrays and then that of the actions on the page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from . import facts as f
from . import proving
from .columns import PHASES, VERDICTS, Float
from .errors import Conflict, Invalid
from .evaluation import RUN_DIGEST_HEX, run_id_of
from .evaluation_run import EvaluationRun
from .names import Phase, Reason, RunId, Stage, StrategyId, Verdict, WorldState
from .policy import AutoApply, Disabled, ManualApproval, Policy
from .promotion import (
    Blocked,
    Clearance,
    Dossier,
    clear_for_live,
    demote,
    next_step,
    propose,
    step_ahead,
    void,
)
from .times import NEVER, span_us
from .view import Candidate, Rejected, WorldView
from .windows import PHASE_OF, evidence_stage, progress

NO_RETURNS: Float = np.empty(0)
EXTENSION_SEC_MAX = 10 * 365 * 86_400  # Ten years: longer is a change of policy.
ACTIONS_MAX = 1_000  # A page: what one loop may do before it looks again.


def consequences(view: WorldView, run: EvaluationRun) -> tuple[f.Fact, ...]:
    """What follows from a run that was just recorded in `view`, for the phase it is evidence of."""
    row = view.strategy(run.strategy_id).row
    policy, phase = view.policy, view.phase(row)
    if PHASE_OF.get(run.stage) is not phase or view.digest(row, run.stage) != run.evidence:
        return ()
    match run.stage:
        case Stage.BACKTEST:
            ready = run.verdict is Verdict.PASS and not view.standings.held[row]
            if not ready:
                return ()
            return (f.PhaseEntered(strategy_id=run.strategy_id, phase=Phase.PAPER),)
        case Stage.PAPER:
            if out_of_time(view, row, policy):
                why = Reason.CAMPAIGN_EXPIRED
                return (_retired(run.strategy_id, why),)
            if proving.refuted(view, row, policy):
                return (_retired(run.strategy_id, Reason.FUTILE),)
        case Stage.LIVE:
            down = broken(view, run.strategy_id, NO_RETURNS)
            if down:
                return down  # The policy may have changed since the returns came.
            if run.verdict is Verdict.FAIL:
                why, detail = Reason.VALIDATION_FAILED, "; ".join(run.details)
                return demote(view, run.strategy_id, Phase.PAPER, why, detail, held=False)
        case Stage.SHADOW:
            raise AssertionError("shadow is not a phase")
    if run.verdict is not Verdict.PASS:
        return void(view.open_candidate(run.strategy_id), Reason.VALIDATION_FAILED)
    if next_step(policy, view, row) is None:
        return ()
    if proving.unproven(view, row, step_ahead(view, row), policy):
        return void(view.open_candidate(run.strategy_id), Reason.EVIDENCE_INSUFFICIENT)
    if not progress(view, row, run.stage, policy).satisfied:
        return ()
    return propose(view, run.strategy_id, run.run_id, run.evidence)


def _retired(sid: StrategyId, why: Reason) -> f.PhaseEntered:
    return f.PhaseEntered(strategy_id=sid, phase=Phase.RETIRED, reason=why)


def out_of_time(view: WorldView, row: int, policy: Policy) -> bool:
    """Whether a paper campaign has been observed for all the time it had."""
    most = policy.campaign.paper.max_window
    if most is None:
        return False
    allowed = span_us(most) + int(view.standings.extension_us[row])
    return int(view.tracks[Stage.PAPER].window_us[row]) >= allowed


def extend(
    view: WorldView, strategy_id: StrategyId, by_sec: int, reason: str
) -> tuple[f.Fact, ...]:
    """More time beyond the policy's max_window, for a campaign in paper or one that ran out of it.

    Raises Invalid for a length out of range, Conflict for a strategy that lacks no time.
    """
    if not 0 < by_sec <= EXTENSION_SEC_MAX:
        raise Invalid(f"by: {by_sec} s is not within 1..{EXTENSION_SEC_MAX}.")
    row = view.strategy(strategy_id).row
    phase = view.phase(row)
    # Its backtest may have been restated since: then it would begin again, and not in paper.
    passed = view.verdict(row, Stage.BACKTEST) is Verdict.PASS
    expired = phase is Phase.RETIRED and passed and out_of_time(view, row, view.policy)
    if phase is not Phase.PAPER and not (expired and not view.standings.held[row]):
        raise Conflict(f"{strategy_id} is in {phase}: there is no paper campaign to extend.")
    return (f.CampaignExtended(strategy_id=strategy_id, by_sec=by_sec, reason=reason),)


BREAKERS = {  # The live gates that wait for no evaluation.
    "max_drawdown": Reason.DRAWDOWN_BREACHED,
    "max_bar_loss": Reason.LOSS_BREACHED,
}


def breakers(view: WorldView, points: f.Points) -> tuple[f.Fact, ...]:
    """Demotes everyone whom new live returns take beyond a hard limit.  For a view that holds the
    returns already; late ones count, too."""
    if view.default_version is None:
        return ()
    live = (sid for sid in points.strategies if sid in view.live)
    down = (broken(view, sid, fresh(view, sid, points)) for sid in live)
    return tuple(fact for facts in down for fact in facts)


def fresh(view: WorldView, sid: StrategyId, points: f.Points) -> Float:
    """A strategy's new live returns since it went live."""
    if sid not in points.strategies:
        return NO_RETURNS
    i = points.strategies.index(sid)
    mine = slice(sum(points.counts[:i]), sum(points.counts[: i + 1]))
    since = int(view.tracks[Stage.LIVE].window_from[view.strategies[sid].row])
    return points.returns()[mine][points.times()[mine] > since]


def broken(view: WorldView, sid: StrategyId, bars: Float) -> tuple[f.Fact, ...]:
    """Demotes a live strategy beyond its drawdown, or that lost too much in one of these bars."""
    drawdown = float(view.tracks[Stage.LIVE].drawdown[view.strategies[sid].row])
    worst = {"max_drawdown": drawdown, "max_bar_loss": -float(bars.min(initial=0.0))}
    for bound in view.policy.gates.of(Stage.LIVE):
        value = worst.get(bound.metric)
        if value is None or bound.max is None or sid not in view.live or value <= bound.max:
            continue
        detail = f"live {bound.metric} must be at most {bound.max:g}: it is {value:.4g}"
        return demote(view, sid, Phase.PAPER, BREAKERS[bound.metric], detail, held=False)
    if sid in view.live:
        decayed = proving.decayed(view, view.strategies[sid].row, view.policy)
        if decayed is not None:
            return demote(view, sid, Phase.PAPER, Reason.DECAYED, decayed, held=False)
    return ()


class ActionKind(StrEnum):
    EVALUATE = "evaluate"
    EVALUATE_COHORT = "evaluate_cohort"
    MANUAL_APPROVAL_REQUIRED = "manual_approval_required"
    AUTO_APPLY_LIVE = "auto_apply_live"
    OBSERVE_LIVE = "observe_live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something to do next, named by its effect: doing it twice is doing it once."""

    kind: ActionKind
    reason: str
    strategy_id: StrategyId | None  # None: the cohort in `cohort`.
    stage: Stage
    run_id: RunId
    cohort: tuple[StrategyId, ...] = ()
    shown: proving.Shown | None = None  # Of what waits at the gate, where evidence is asked for.


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Actions and, when there are more, where the next page starts."""

    actions: tuple[Action, ...]
    next_offset: int | None


Dossiers = Callable[[Candidate], Dossier]


def due(view: WorldView, stage: Stage) -> NDArray[np.intp]:
    """Rows in the phase of `stage` that have something to be learned, longest unjudged first.

    New evidence that is `evaluate_every` newer than what was judged, a policy that has not judged
    yet, or a backtest that passed while it was held, and is not held any more.
    """
    policy, count = view.policy, len(view.ids)
    track, standings = view.tracks[stage], view.standings
    in_phase = standings.phase[:count] == PHASES.index(PHASE_OF[stage])
    held = _observed(view, stage)
    judged_t = track.judged_t[:count]
    never = judged_t == NEVER
    since = track.last_t[:count] - np.where(never, track.last_t[:count], judged_t)
    changed = track.judged_digest[:count] != track.digest[:count]
    other_policy = track.judged_policy[:count] != view.default_version
    rested = since >= span_us(policy.campaign.evaluate_every)
    news = other_policy | never | (changed & rested)
    if stage is Stage.BACKTEST:
        passed = track.verdict[:count] == VERDICTS.index(Verdict.PASS)
        news |= passed & ~standings.held[:count]
    rows = np.flatnonzero(in_phase & held & news)
    return rows[np.argsort(judged_t[rows], kind="stable")]


def tick(
    view: WorldView,
    now: datetime,
    dossiers: Dossiers,
    *,
    only: StrategyId | None = None,
    limit: int = ACTIONS_MAX,
    offset: int = 0,
) -> Page:
    """One page of what to do next.  The same view and instant give the same page.

    What can be applied comes first, then evaluations, the longest unjudged first: with more actions
    than `limit` nobody starves, since what was done leaves the list.  What waits for people stays
    on it however often a loop comes by, and so is last.
    Raises Invalid for a limit out of range.
    """
    if not 1 <= limit <= ACTIONS_MAX:
        raise Invalid(f"limit: {limit} is not within 1..{ACTIONS_MAX}.")
    if view.default_version is None or view.state is not WorldState.ACTIVE:
        return Page(actions=(), next_offset=None)
    ready = _candidate_actions(view, now, dossiers, only)
    people = [a for a in ready if a.kind is ActionKind.MANUAL_APPROVAL_REQUIRED]
    ready = [a for a in ready if a.kind is not ActionKind.MANUAL_APPROVAL_REQUIRED]
    rows = {stage: due(view, stage) for stage in (Stage.LIVE, Stage.PAPER, Stage.BACKTEST)}
    if only is not None:
        mine = view.strategy(only).row
        rows = {stage: found[found == mine] for stage, found in rows.items()}
    if view.policy.selection is not None and only is None:
        cohort = rows.pop(Stage.PAPER)
        ready += _cohort_action(view, cohort)
    judged = [(stage, int(row)) for stage, found in rows.items() for row in found]
    ordered: list[Action | tuple[Stage, int]] = [*ready, *judged, *people]
    end = offset + limit
    page = tuple(
        item if isinstance(item, Action) else _evaluate(view, *item) for item in ordered[offset:end]
    )
    return Page(actions=page, next_offset=end if end < len(ordered) else None)


def _evaluate(view: WorldView, stage: Stage, row: int) -> Action:
    sid = view.ids[row]
    judged = int(view.tracks[stage].judged_t[row])
    reason = "never evaluated" if judged == NEVER else "new evidence"
    if judged != NEVER and int(view.tracks[stage].judged_policy[row]) != view.default_version:
        reason = "another policy is in force"
    live = stage is Stage.LIVE
    return Action(
        kind=ActionKind.OBSERVE_LIVE if live else ActionKind.EVALUATE,
        reason=reason,
        strategy_id=sid,
        stage=stage,
        run_id=run_id_of(view, sid, stage),
    )


def rivals(view: WorldView, stage: Stage) -> tuple[StrategyId, ...]:
    """Whom a selection is made among: all in the phase of `stage` with returns that count there.

    Who has none cannot pass, and has nothing to be judged by.
    """
    count, phase = len(view.ids), PHASE_OF.get(stage)
    if phase is None:
        return ()
    in_phase = view.standings.phase[:count] == PHASES.index(phase)
    return tuple(view.ids[int(row)] for row in np.flatnonzero(in_phase & _observed(view, stage)))


def _observed(view: WorldView, stage: Stage) -> NDArray[np.bool_]:
    """By row, whether there are returns that count: of a window, those since it began."""
    track = view.tracks[stage]
    counted = track.points if stage is Stage.BACKTEST else track.window_points
    return counted[: len(view.ids)] > 0


def _cohort_action(view: WorldView, rows: NDArray[np.intp]) -> list[Action]:
    """With a selection, paper strategies are judged together: all in the phase when one is due."""
    if not len(rows):
        return []
    members = rivals(view, Stage.PAPER)
    digests = "\0".join(view.digest(view.strategies[s].row, Stage.PAPER) for s in members)
    named = sha256(digests.encode()).hexdigest()[:RUN_DIGEST_HEX]
    return [
        Action(
            kind=ActionKind.EVALUATE_COHORT,
            reason="new evidence in the cohort",
            strategy_id=None,
            stage=Stage.PAPER,
            run_id=RunId(f"cohort-{named}"),
            cohort=members,
        )
    ]


def _candidate_actions(
    view: WorldView, now: datetime, dossiers: Dossiers, only: StrategyId | None
) -> list[Action]:
    """What waits at the gate: for people, or to be applied."""
    promotion = view.policy.governance.live_promotion
    if isinstance(promotion, Disabled):
        return []
    actions: list[Action] = []
    for candidate in view.open_candidates():
        if isinstance(candidate.standing, Rejected) or only not in (None, candidate.strategy_id):
            continue
        row = view.strategies[candidate.strategy_id].row
        cleared = clear_for_live(view, candidate.strategy_id, candidate, dossiers(candidate), now)
        kind = _waits_for(promotion, cleared)
        if kind is not None:
            reason = "cleared" if isinstance(cleared, Clearance) else ", ".join(cleared.reasons)
            actions.append(
                Action(
                    kind=kind,
                    reason=reason,
                    strategy_id=candidate.strategy_id,
                    stage=evidence_stage(candidate.step),
                    run_id=candidate.run_id,
                    shown=proving.shown(view, row, candidate.step, view.policy),
                )
            )
    return actions


APPROVAL_REASONS = {
    Reason.MANUAL_APPROVAL_REQUIRED,
    Reason.APPROVALS_INSUFFICIENT,
    Reason.APPROVAL_EXPIRED,
}


def _waits_for(
    promotion: ManualApproval | AutoApply, cleared: Clearance | Blocked
) -> ActionKind | None:
    match promotion, cleared:
        case AutoApply(), Clearance():
            return ActionKind.AUTO_APPLY_LIVE
        case ManualApproval(), Clearance():
            return ActionKind.MANUAL_APPROVAL_REQUIRED  # Approved; an operator applies it.
        case ManualApproval(), Blocked() if APPROVAL_REASONS & set(cleared.reasons):
            return ActionKind.MANUAL_APPROVAL_REQUIRED
        case _:
            return None
