"""What would stop a strategy, or set it back, from where it stands: each with how near that is."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from .campaign import BREAKERS, out_of_time
from .decision import heard_at, silent_at
from .evaluation import limits_of
from .names import Phase, Stage, StrategyId, Verdict
from .outlook import outlook
from .policy import Disabled, ManualApproval, Policy
from .promotion import Dossier, next_step, valid_approvals
from .times import in_words
from .view import Candidate, Rejected, WorldView
from .windows import Part
from .words import day, listed, minute, ordinal, percent, sentence

FREEZE_AHEAD = timedelta(days=14)  # A freeze further ahead than this concerns nobody yet.


def stops(
    view: WorldView, strategy_id: StrategyId, dossier: Dossier, now: datetime
) -> tuple[str, ...]:
    """Sentences.  Nothing for who has left the campaign, or where there is no policy."""
    if view.default_version is None:
        return ()
    row, policy = view.strategy(strategy_id).row, view.policy
    match view.phase(row):
        case Phase.BACKTEST:
            return (
                "A new default policy judges its backtest anew.",
                "Changed code under its id is a new version, with a backtest of its own.",
            )
        case Phase.PAPER:
            candidate = view.open_candidate(strategy_id)
            return (
                *_time(view, row, policy, now),
                *_gates(view, row, Stage.PAPER, policy, candidate is not None),
                *_lateness(policy),
                *_of_candidate(view, candidate, policy, now),
                *_freezes(policy, now),
            )
        case Phase.LIVE:
            candidate = view.open_candidate(strategy_id)
            upwards = next_step(policy, view, row) is not None
            return (
                *_breaker(view, row, policy),
                *_live_gates(policy, dossier),
                *_silence(view, strategy_id, now),
                "A kill, a suspension of the world, an end of its leave for live or an operator's "
                "demotion takes it out at once.",
                *_of_candidate(view, candidate, policy, now),
                *(_freezes(policy, now) if upwards else ()),
            )
        case Phase.RETIRED:
            return ()


def _time(view: WorldView, row: int, policy: Policy, now: datetime) -> Iterator[str]:
    """The paper campaign's max_window."""
    most = policy.campaign.paper.max_window
    if most is None:
        return
    extra = int(view.standings.extension_us[row])
    allowed_sec = most.total_seconds() + extra / 1e6
    used_sec = int(view.tracks[Stage.PAPER].window_us[row]) / 1e6
    has = f"It may be watched on paper for {in_words(allowed_sec)} of data"
    has += f" ({in_words(extra / 1e6)} of them an operator's)" if extra else ""
    if out_of_time(view, row, policy):
        yield f"{has}, which are over: unless an operator extends it, its next run retires it."
        return
    left = allowed_sec - used_sec
    seen = outlook(view, row, Stage.PAPER, policy, Part.TIME, left, now)
    when = "" if seen.at is None else f", which at the present rate is on {day(seen.at)}"
    used = "none are used" if not used_sec else f"{in_words(used_sec)} are used"
    yield (
        f"{has}; {used}: without a promotion it is retired when they are over{when}, unless an "
        "operator extends it."
    )


def _gates(
    view: WorldView, row: int, stage: Stage, policy: Policy, candidate: bool
) -> Iterator[str]:
    """What its run must keep, and the worst drawdown so far."""
    bounds = policy.gates.of(stage)
    if not bounds:
        return
    asked = listed(f"{bound.metric} {limits_of(bound)}" for bound in bounds)
    does = "voids the candidate" if candidate else "does not pass"
    worst = float(view.tracks[stage].drawdown[row])
    told = any(bound.metric == "max_drawdown" for bound in bounds)
    so_far = f"; its worst drawdown on {stage} is {percent(worst)}" if told else ""
    yield f"A {stage} run {does} unless it keeps {asked}{so_far}."


def _lateness(policy: Policy) -> Iterator[str]:
    lag = in_words(policy.data.max_lag.total_seconds())
    yield f"Returns that come more than {lag} late count for nothing."


def _breaker(view: WorldView, row: int, policy: Policy) -> Iterator[str]:
    worst = float(view.tracks[Stage.LIVE].drawdown[row])
    for bound in policy.gates.of(Stage.LIVE):
        if bound.metric == "max_drawdown" and bound.max is not None:
            yield (
                f"A drawdown above {percent(bound.max)} in live demotes it at once; "
                f"the worst so far is {percent(worst)}."
            )
        if bound.metric == "max_bar_loss" and bound.max is not None:
            yield f"A single bar that loses more than {percent(bound.max)} demotes it at once."


def _live_gates(policy: Policy, dossier: Dossier) -> Iterator[str]:
    """The gates that a live run judges; what fails them already."""
    bounds = [b for b in policy.gates.of(Stage.LIVE) if b.metric not in BREAKERS or b.max is None]
    if bounds:
        asked = listed(f"{bound.metric} {limits_of(bound)}" for bound in bounds)
        yield f"A live run demotes it unless it keeps {asked}."
    if dossier.verdict is Verdict.FAIL:
        why = "; ".join(dossier.details)
        yield sentence(f"As things stand its next live run demotes it: {why}")


def _silence(view: WorldView, sid: StrategyId, now: datetime) -> Iterator[str]:
    held = view.live.get(sid)
    if held is None:
        return
    until = silent_at(view, held)
    if now <= until:
        heard = day(heard_at(view, sid))
        yield (
            f"Without live returns after {heard} it may compute only from {minute(until)} on, "
            "until they come again."
        )


def _of_candidate(
    view: WorldView, candidate: Candidate | None, policy: Policy, now: datetime
) -> Iterator[str]:
    if candidate is None or isinstance(candidate.standing, Rejected):
        return
    promotion = policy.governance.live_promotion
    if isinstance(promotion, ManualApproval):
        for approval in valid_approvals(view, promotion, candidate, now):
            ends = minute(approval.at + promotion.expires)
            yield f"The approval of {approval.by} expires on {ends}."
    what = (
        "the candidate" if candidate.step == 0 else f"the candidate for {ordinal(candidate.step)}"
    )
    yield f"A new default policy voids {what} and its approvals."


def _freezes(policy: Policy, now: datetime) -> Iterator[str]:
    """The next freeze, when it is near."""
    governance = policy.governance
    if isinstance(governance.live_promotion, Disabled):
        return
    ahead = [(freeze.follows(now), freeze.length) for freeze in governance.freeze]
    near = [(start, length) for start, length in ahead if start - now <= FREEZE_AHEAD]
    if near:
        start, length = min(near)
        yield (
            f"The policy allows no promotion for {in_words(length.total_seconds())} from "
            f"{minute(start)} on."
        )
