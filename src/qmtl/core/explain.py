"""Where a strategy is, what it may do, what it waits for, when, and what would stop it.

`explain` says nothing that the gate, the campaign or the decision do not: it asks them, and puts
their answers into sentences in the order in which a person asks.  The same view and instant give
the same sentences.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from .campaign import out_of_time
from .decision import decide, heard_at
from .names import Mode, Phase, Reason, Stage, StrategyId, WorldId, WorldState
from .policy import AutoApply, Bound, Disabled, ManualApproval, Policy
from .promotion import Dossier, capital_problems, next_step, risk_problems, step_ahead
from .proving import refuted
from .stops import stops
from .times import NEVER, in_words, instant
from .view import Void, WorldView
from .waits import Wait, no_room, slots_taken, waits
from .windows import evidence_stage
from .words import PHASES, counted, day, listed, ordinal, percent, sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A strategy's standing in sentences.

    `sentences` are all of it in order; among them are those of `waits_for` and `would_stop`, which
    repeat them with their parts.
    """

    world_id: WorldId
    strategy_id: StrategyId
    as_of: datetime
    phase: Phase
    since: datetime | None
    sentences: tuple[str, ...]
    waits_for: tuple[Wait, ...]
    would_stop: tuple[str, ...]


def explain(
    view: WorldView, strategy_id: StrategyId, dossier: Dossier, now: datetime
) -> Explanation:
    """The explanation of one strategy.  `dossier` is of the evidence for its next ramp step; of a
    world without a policy it says nothing.  Raises UnknownStrategy."""
    row = view.strategy(strategy_id).row
    waited = waits(view, strategy_id, dossier, now)
    stopping = stops(view, strategy_id, dossier, now)
    return Explanation(
        world_id=view.world_id,
        strategy_id=strategy_id,
        as_of=now,
        phase=view.phase(row),
        since=view.entered_at(row),
        sentences=(
            *_where(view, strategy_id),
            *_may(view, strategy_id, now),
            *(wait.sentence for wait in waited),
            *_all_of_it(waited),
            *_next(view, strategy_id, dossier, now),
            *stopping,
        ),
        waits_for=waited,
        would_stop=stopping,
    )


# ---- Where it is -------------------------------------------------------------------------------


def _where(view: WorldView, sid: StrategyId) -> Iterator[str]:
    row = view.strategies[sid].row
    entered = view.entered_at(row)
    since = "" if entered is None else f" since {day(entered)}"
    phase, held, more = view.phase(row), view.live.get(sid), ""
    if phase is Phase.LIVE and held is not None:
        more = f", on {_step_of(view, held.step)}"
    if phase is Phase.RETIRED:
        expired = view.default_version is not None and out_of_time(view, row, view.policy)
        futile = view.default_version is not None and refuted(view, row, view.policy)
        more = ": its returns speak against it" if futile else ": it was taken out of the campaign"
        more = ": its time on paper ran out" if expired else more
    yield f"{sid} is {PHASES[phase]}{since}{more}."
    yield from _came_down(view, sid)


def _step_of(view: WorldView, step: int) -> str:
    steps = len(view.policy.governance.ramp) if view.default_version is not None else 0
    return f"{ordinal(step)} of {max(steps, step + 1)} of its ramp"


def _came_down(view: WorldView, sid: StrategyId) -> Iterator[str]:
    """That it was live before, until when, and why it is not."""
    row = view.strategies[sid].row
    since = int(view.tracks[Stage.LIVE].window_from[row])
    if view.phase(row) is Phase.LIVE or since == NEVER:
        return
    began = instant(since)
    # The one that took it live: the newest of its first step that was proposed before.
    took = [
        c
        for c in view.candidates.values()
        if c.strategy_id == sid and c.step == 0 and c.proposed_at <= began
    ]
    newest = max(took, key=lambda c: (c.proposed_at, c.candidate_id), default=None)
    if newest is None or not isinstance(newest.standing, Void) or newest.standing.at < began:
        return
    left = newest.standing
    why = _left_because(view, sid, left.reason)
    yield sentence(f"It was live from {day(began)} until {day(left.at)}, when {why}")


def _left_because(view: WorldView, sid: StrategyId, reason: Reason) -> str:
    row = view.strategies[sid].row
    match reason:
        case Reason.DRAWDOWN_BREACHED:
            worst = percent(float(view.tracks[Stage.LIVE].drawdown[row]))
            limits = [b.max for b in _live_bounds(view) if b.metric == "max_drawdown"]
            most = listed(percent(limit) for limit in limits if limit is not None)
            allowed = f", where at most {most} is allowed" if most else ""
            return f"a drawdown in live demoted it: the worst was {worst}{allowed}"
        case Reason.LOSS_BREACHED:
            limits = [b.max for b in _live_bounds(view) if b.metric == "max_bar_loss"]
            most = listed(percent(limit) for limit in limits if limit is not None)
            allowed = f": at most {most} is allowed" if most else ""
            return f"a single bar in live lost too much and demoted it{allowed}"
        case Reason.DECAYED:
            return "its live returns had ceased to be those of paper, which demoted it"
        case Reason.VALIDATION_FAILED:
            run = view.runs.get((sid, Stage.LIVE))
            why = "" if run is None else ": " + "; ".join(detail for _, detail in run.problems)
            return f"a live run failed and demoted it{why}"
        case Reason.EVIDENCE_CHANGED:
            return "the returns it rested on were restated"
        case Reason.MANUAL:
            return "an operator demoted it"
        case Reason.LIVE_NOT_ALLOWED:
            return "the world ceased to allow live"
        case Reason.WORLD_KILLED:
            return "the world was killed"
        case Reason.WORLD_SUSPENDED:
            return "the world was suspended"
        case _:
            return "it was taken out"


def _live_bounds(view: WorldView) -> tuple[Bound, ...]:
    return view.policy.gates.of(Stage.LIVE) if view.default_version is not None else ()


# ---- What it may do now ------------------------------------------------------------------------


def _may(view: WorldView, sid: StrategyId, now: datetime) -> Iterator[str]:
    told = decide(view, sid, now)
    held = view.live.get(sid)
    match told.effective_mode:
        case Mode.COMPUTE_ONLY:
            yield f"It may compute only, and trades nothing: {_because(view, sid, told.reasons)}."
        case Mode.PAPER:
            killed = Reason.WORLD_KILLED in told.reasons
            yield "It may trade on paper, without capital." + (
                " Nothing in this world may trade live: it was killed." if killed else ""
            )
        case Mode.LIVE:
            assert held is not None, "nothing else is live"
            full = percent(told.ramp_fraction)
            yield (
                f"It may trade live with {percent(told.weight)} of capital; "
                f"its step is {full} of its full allocation."
            )
            if held.weight < held.applied_weight and not held.drain:
                had = percent(held.applied_weight)
                yield f"An operator lowered its weight from {had} to {percent(held.weight)}."


LOWERED = {
    Reason.WORLD_KILLED: "the world was killed",
    Reason.LIVE_NOT_ALLOWED: "the world does not allow live",
    Reason.FROZEN: "an operator froze it",
    Reason.RETIRED: "it has left the campaign",
    Reason.DECISION_MISSING: "it has no weight",
}


def _because(view: WorldView, sid: StrategyId, reasons: tuple[str, ...]) -> str:
    said = []
    for reason in reasons:
        match reason:
            case Reason.WORLD_SUSPENDED:
                archived = view.state is WorldState.ARCHIVED
                said.append(f"the world is {'archived' if archived else 'suspended'}")
            case Reason.RISK_SNAPSHOT_STALE:
                said.append(f"no live returns have come since {day(heard_at(view, sid))}")
            case Phase.BACKTEST:
                said.append("it has not passed its backtest")
            case _:
                said.append(LOWERED[Reason(reason)])
    return listed(said)


# ---- What comes after that ---------------------------------------------------------------------


def _all_of_it(waited: tuple[Wait, ...]) -> Iterator[str]:
    """When the last of several dates is."""
    dates = [wait.reached_at for wait in waited if wait.reached_at is not None]
    if len(dates) > 1:
        yield f"The last of these dates is {day(max(dates))}."


def _next(view: WorldView, sid: StrategyId, dossier: Dossier, now: datetime) -> Iterator[str]:
    if view.default_version is None:
        yield "Then its backtest is judged by the policy's gates."
        return
    row, policy = view.strategies[sid].row, view.policy
    match view.phase(row):
        case Phase.BACKTEST:
            window = policy.campaign.paper
            yield (
                f"Then it goes on paper, and is watched for {in_words(window.span.total_seconds())}"
                f" and {counted(window.min_observations, 'observation')}."
            )
        case Phase.RETIRED:
            return
        case Phase.PAPER | Phase.LIVE if next_step(policy, view, row) is None:
            yield "It is at the top of its ramp: it waits for nothing, and no step is left."
        case Phase.PAPER | Phase.LIVE:
            yield _the_step(view, sid, policy)
            yield from _foreseen(view, sid, dossier, now)


def _the_step(view: WorldView, sid: StrategyId, policy: Policy) -> str:
    """Who lets it through, and to what."""
    step, governance = step_ahead(view, view.strategies[sid].row), policy.governance
    weight = percent(governance.ramp[step].fraction * governance.allocation)
    reaches = f"{_step_of(view, step)}, a weight of {weight}"
    to = f"goes live at {reaches}" if step == 0 else f"climbs to {reaches}"
    if view.open_candidate(sid) is not None:
        return f"Then it {to}."
    match governance.live_promotion:
        case Disabled():
            return f"Under a policy that promotes, it then {to}."
        case AutoApply():
            return f"Then a passing run proposes it, the campaign loop applies it, and it {to}."
        case ManualApproval(min=needed, roles=roles):
            who = listed(sorted(roles), "or")
            return (
                f"Then a passing run proposes it, {counted(needed, 'approval')} of the role {who} "
                f"and an operator let it through, and it {to}."
            )


def _foreseen(view: WorldView, sid: StrategyId, dossier: Dossier, now: datetime) -> Iterator[str]:
    """What the gate would hold against it today, though it is not there yet."""
    if view.open_candidate(sid) is not None:
        return
    row, policy = view.strategies[sid].row, view.policy
    step = step_ahead(view, row)
    known = int(view.tracks[evidence_stage(step)].covered_as_of[row]) != NEVER
    for reason, detail in risk_problems(view, sid, step, policy, dossier):
        # Stress and correlation, which change slowly; of neither is anything known at first.
        if known and reason in (Reason.VALIDATION_FAILED, Reason.CORRELATION_EXCEEDED):
            yield sentence(f"As things stand the gate would refuse that: {detail}")
    for reason, _ in capital_problems(view, sid, step, policy, now):
        if reason is Reason.MAX_LIVE_SLOTS_EXCEEDED:
            yield f"As things stand there is no room. {slots_taken(view, sid, policy)}"
        if reason is Reason.MAX_LIVE_WEIGHT_EXCEEDED:
            yield f"As things stand there is no room. {no_room(view, sid, step, policy)}"
