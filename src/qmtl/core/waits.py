"""What a strategy waits for: everything between it and the next step, each with its numbers.

What the gate (`promotion.py`) and the campaign (`campaign.py`) would say, said to a person: who has
to act, and when it is reached where only time is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from . import campaign
from .decision import silent_at
from .leases import outstanding
from .names import Phase, Reason, Stage, StrategyId, Verdict, WorldState
from .outlook import outlook
from .policy import ManualApproval, Policy
from .promotion import (
    Blocked,
    Dossier,
    Problem,
    approval_problems,
    capital_problems,
    clear_for_live,
    is_current,
    next_step,
    risk_problems,
    step_ahead,
    valid_approvals,
    world_problems,
)
from .proving import Eta, apart_because, eta, refuted, shown, unproven
from .snapshot import NotFresh, freshness
from .times import NEVER, in_words, instant, micros, span_us
from .view import Approval, Candidate, Rejected, WorldView
from .windows import INCOMPLETE, Part, evidence_stage, progress
from .words import counted, day, listed, minute, percent, sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One thing that is waited for.  `share` of it that is there, 0 to 1; `reached_at` the date at
    the present rate: None for what has no share, and for what time alone does not bring."""

    reason: Reason
    sentence: str
    share: float | None = None
    reached_at: datetime | None = None


NO_POLICY = Wait(
    reason=Reason.POLICY_MISSING,
    sentence="The world has no policy yet, so nothing is judged and nothing moves.",
)


def waits(
    view: WorldView, strategy_id: StrategyId, dossier: Dossier, now: datetime
) -> tuple[Wait, ...]:
    """Everything that is waited for; nothing for who is at the top.  `dossier` is of the evidence
    for the next step of the ramp."""
    if view.default_version is None:
        return (NO_POLICY,)
    row = view.strategy(strategy_id).row
    match view.phase(row):
        case Phase.BACKTEST:
            return tuple(_in_backtest(view, strategy_id, now))
        case Phase.RETIRED:
            return tuple(_retired(view, row))
        case Phase.PAPER:
            return tuple(_towards_live(view, strategy_id, dossier, now))
        case Phase.LIVE:
            upwards = next_step(view.policy, view, row) is not None
            more = _towards_live(view, strategy_id, dossier, now) if upwards else ()
            return (*_lowered(view, strategy_id, now), *more)


# ---- In backtest, and out of the campaign ------------------------------------------------------


def _in_backtest(view: WorldView, sid: StrategyId, now: datetime) -> Iterator[Wait]:
    row, stage = view.strategies[sid].row, Stage.BACKTEST
    latest = view.runs.get((sid, stage))
    yield from (w for w in _world(view, row, now) if w.reason is Reason.WORLD_SUSPENDED)
    if not view.tracks[stage].points[row]:
        why = "No backtest has been submitted: it is bound, and nothing is known of it."
        yield Wait(reason=Reason.BACKTEST_RUN_MISSING, sentence=why)
        return
    for lack in progress(view, row, stage, view.policy).lacking():
        why = sentence(f"{lack.detail}; submit a longer backtest")
        yield Wait(reason=lack.reason, sentence=why, share=_share(lack.have, lack.need))
    if latest is not None:
        yield from _failing(latest.problems, stage)
    if row in campaign.due(view, stage) or latest is None:
        yield _unjudged(view, row, stage)
    if view.standings.held[row]:
        yield _held()


def _retired(view: WorldView, row: int) -> Iterator[Wait]:
    passed = view.verdict(row, Stage.BACKTEST) is Verdict.PASS
    futile = refuted(view, row, view.policy)
    if futile is not None:
        why = sentence(f"{futile}: nothing brings it back, and changed code is a new version")
        yield Wait(reason=Reason.FUTILE, sentence=why)
        return
    if not (campaign.out_of_time(view, row, view.policy) and passed):
        why = "It has left the campaign and nothing brings it back: changed code is a new version."
        yield Wait(reason=Reason.RETIRED, sentence=why)
        return
    if view.standings.held[row]:
        yield _held()
    observed = progress(view, row, Stage.PAPER, view.policy).observed_sec
    why = (
        f"Its time ran out after {in_words(observed)} in paper without a promotion: "
        "it stays out unless an operator extends it."
    )
    yield Wait(reason=Reason.CAMPAIGN_EXPIRED, sentence=why)


# ---- Live, and lowered -------------------------------------------------------------------------


def _lowered(view: WorldView, sid: StrategyId, now: datetime) -> Iterator[Wait]:
    """What keeps a live strategy from its weight."""
    held = view.live.get(sid)
    if held is None:
        return
    if now > silent_at(view, held):
        why = "It may compute only until live returns come again: nobody sees how it does."
        yield Wait(reason=Reason.RISK_SNAPSHOT_STALE, sentence=why)
    if held.freeze:
        why = "An operator froze it: it may compute only until an operator lifts that."
        yield Wait(reason=Reason.FROZEN, sentence=why)
    if held.drain:
        why = "An operator drains it: it has no capital until an operator lifts that."
        yield Wait(reason=Reason.DRAINING, sentence=why)


# ---- Towards live, and up its ramp -------------------------------------------------------------


def _towards_live(
    view: WorldView, sid: StrategyId, dossier: Dossier, now: datetime
) -> Iterator[Wait]:
    """What the gate would say, and before it the campaign.  Never nothing."""
    row, policy = view.strategies[sid].row, view.policy
    step = step_ahead(view, row)
    stage = evidence_stage(step)
    candidate = view.open_candidate(sid)
    cleared = clear_for_live(view, sid, candidate, dossier, now)
    if not isinstance(cleared, Blocked):
        manual = isinstance(policy.governance.live_promotion, ManualApproval)
        who = "an operator applies it" if manual else "the campaign loop applies it"
        yield Wait(reason=Reason.APPLY_DUE, sentence=f"Every gate holds: it waits until {who}.")
        return
    found = [
        *(w for w in _world(view, row, now) if candidate or w.reason is not Reason.FROZEN),
        *_window(view, row, stage, policy, now),
        *_judgement(view, sid, stage, dossier, candidate),
        *_proof(view, row, step, policy, now),
        *_risk(view, sid, step, policy, dossier, candidate),
    ]
    if candidate is not None:
        found += _candidate(view, candidate, policy, now)
        found += _capital(view, sid, step, policy, now)
        found += _snapshot(view, row, stage, policy, now)
    if not found and candidate is None:
        why = "No candidate stands: one is proposed when its next returns are judged and pass."
        found = [Wait(reason=Reason.EVALUATION_DUE, sentence=why)]
    yield from found or (Wait(reason=r, sentence=sentence(d)) for r, d in cleared.problems)


def _world(view: WorldView, row: int, now: datetime) -> Iterator[Wait]:
    """What the world itself forbids."""
    for reason, detail in world_problems(view, row, view.policy, now):
        match reason:
            case Reason.LIVE_NOT_ALLOWED:
                why = "The world does not allow live until a policy admin allows it."
                yield Wait(reason=reason, sentence=why)
            case Reason.WORLD_KILLED:
                why = "The world was killed: nothing goes live until an operator resumes it."
                yield Wait(reason=reason, sentence=why)
            case Reason.PROMOTION_DISABLED:
                why = "The policy promotes nobody to live: that takes another policy."
                yield Wait(reason=reason, sentence=why)
            case Reason.WORLD_SUSPENDED:
                archived = view.state is WorldState.ARCHIVED
                why = f"The world is {'archived' if archived else 'suspended'}: nothing moves "
                yield Wait(reason=reason, sentence=why + "until an operator makes it active again.")
            case Reason.CONFIRMATION_PENDING:
                yield Wait(reason=reason, sentence=sentence(detail))
            case Reason.HELD:
                yield _held()
            case Reason.FROZEN:
                ends = frozen_until(view.policy, now)
                until = "without an end in sight" if ends is None else f"until {minute(ends)}"
                why = f"The policy's freeze allows no promotion {until}."
                yield Wait(reason=reason, sentence=why, reached_at=ends)
            case _:
                yield Wait(reason=reason, sentence=sentence(detail))


def frozen_until(policy: Policy, now: datetime) -> datetime | None:
    """When the last of the policy's freezes that cover `now` ends; None for one without an end."""
    ends = [freeze.until(now) for freeze in policy.governance.freeze if freeze.covers(now)]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def _held() -> Wait:
    why = "An operator took it down by hand, and holds it until an operator releases it."
    return Wait(reason=Reason.HELD, sentence=why)


def _window(
    view: WorldView, row: int, stage: Stage, policy: Policy, now: datetime
) -> Iterator[Wait]:
    for lack in progress(view, row, stage, policy).lacking():
        if lack.part is Part.DENSITY:
            yield Wait(reason=lack.reason, sentence=sentence(lack.detail))
            continue
        seen = outlook(view, row, stage, policy, lack.part, lack.need - lack.have, now)
        yield Wait(
            reason=lack.reason,
            sentence=sentence(f"{lack.detail}; {seen.words}"),
            share=_share(lack.have, lack.need),
            reached_at=seen.at,
        )


def _share(have: float, need: float) -> float | None:
    """None for what is there, and not good enough."""
    return max(0.0, have / need) if need > have else None


def _judgement(
    view: WorldView, sid: StrategyId, stage: Stage, dossier: Dossier, candidate: Candidate | None
) -> Iterator[Wait]:
    """What the newest evidence fails on, and whether somebody has yet to look at it."""
    row = view.strategies[sid].row
    if not view.tracks[stage].window_points[row]:
        return  # Nothing to judge; the window says so.
    judged = view.verdict(row, stage)
    if judged is not None and dossier.verdict is not Verdict.PASS:
        yield from _failing(dossier.problems, stage)
        why = apart_because(view, row, view.policy, dossier.volatility)
        if why is not None:
            yield Wait(reason=Reason.CONSISTENCY_FAILED, sentence=sentence(why))
    behind = judged is None or dossier.verdict is None or dossier.verdict is not judged
    if behind or (candidate is None and row in campaign.due(view, stage)):
        yield _unjudged(view, row, stage)


def _proof(view: WorldView, row: int, step: int, policy: Policy, now: datetime) -> Iterator[Wait]:
    """What the returns have not proven yet, how much of it there is, and how long that takes."""
    asked = shown(view, row, step, policy)
    for reason, detail in unproven(view, row, step, policy):
        assert asked is not None, "something is asked of it"
        why = f"{detail}; {_in_time(eta(view, row, step, policy, now))}"
        yield Wait(reason=reason, sentence=sentence(why), share=asked.share)


def _in_time(expected: Eta) -> str:
    """When the evidence is there, at each Sharpe ratio that is assumed."""
    ends = (("1", expected.sharpe_1), ("2", expected.sharpe_2))
    dates = listed(f"on {day(end)} at a true Sharpe ratio of {at}" for at, end in ends if end)
    return f"expected {dates}" if dates else "not in a lifetime at a Sharpe ratio of 2"


def _failing(problems: tuple[Problem, ...], stage: Stage) -> Iterator[Wait]:
    """The gates a run does not hold; its window is said apart, as it is now."""
    window = (INCOMPLETE[stage], Reason.OBSERVATIONS_INSUFFICIENT)
    for reason, detail in problems:
        if reason not in window:
            yield Wait(reason=reason, sentence=sentence(detail))


def _unjudged(view: WorldView, row: int, stage: Stage) -> Wait:
    track, them = view.tracks[stage], "them"
    if int(track.judged_t[row]) == NEVER:
        what = f"Its {stage} returns have not been judged yet"
    elif int(track.judged_policy[row]) != view.default_version:
        what = f"The policy in force has not judged its {stage} returns yet"
    elif track.judged_digest[row] != track.digest[row]:
        what = (
            f"Its {stage} returns up to {day(instant(int(track.last_t[row])))} are not judged yet"
        )
    else:
        what, them = f"Its {stage} run is to be looked at again", "it"
    cohort = view.policy.selection is not None and stage is Stage.PAPER
    whom = "the cohort" if cohort else them
    why = f"{what}: it waits until the campaign loop judges {whom}."
    return Wait(reason=Reason.EVALUATION_DUE, sentence=why)


def _risk(
    view: WorldView,
    sid: StrategyId,
    step: int,
    policy: Policy,
    dossier: Dossier,
    candidate: Candidate | None,
) -> Iterator[Wait]:
    """Selection; and, once there is a candidate, stress and correlation."""
    for reason, detail in risk_problems(view, sid, step, policy, dossier):
        match reason:
            case Reason.SELECTION_FAILED:
                if candidate is not None or dossier.verdict is Verdict.PASS:
                    yield Wait(reason=reason, sentence=_not_selected(view))
            case _:
                if candidate is not None:
                    yield Wait(reason=reason, sentence=sentence(detail))


def _not_selected(view: WorldView) -> str:
    chosen = [s.strategy_id for s in view.in_order() if view.standings.selected[s.row]]
    if not chosen:
        return "No cohort has selected it yet: the campaign loop judges all in paper together."
    return (
        f"The latest cohort did not select it, but {listed(chosen)}: it waits for a cohort in "
        "which it is among the best."
    )


# ---- The candidate, and what the live set has room for -----------------------------------------


def _candidate(
    view: WorldView, candidate: Candidate, policy: Policy, now: datetime
) -> Iterator[Wait]:
    standing = candidate.standing
    if isinstance(standing, Rejected):
        why = (
            f"{standing.by} rejected the candidate on {day(standing.at)} ({standing.reason}): "
            "it waits until an operator releases it."
        )
        yield Wait(reason=Reason.CANDIDATE_REJECTED, sentence=why)
        return
    if not is_current(view, candidate):
        why = (
            "The candidate was proposed for another fingerprint, policy or entry into the phase: "
            "the next passing run replaces it."
        )
        yield Wait(reason=Reason.CANDIDATE_SUPERSEDED, sentence=why)
        return
    promotion = policy.governance.live_promotion
    if isinstance(promotion, ManualApproval):
        yield from _approvals(view, candidate, promotion, policy, now)


def _approvals(
    view: WorldView,
    candidate: Candidate,
    promotion: ManualApproval,
    policy: Policy,
    now: datetime,
) -> Iterator[Wait]:
    valid = valid_approvals(view, promotion, candidate, now)
    for reason, detail in approval_problems(view, policy, candidate, now):
        match reason:
            case Reason.MANUAL_APPROVAL_REQUIRED | Reason.APPROVALS_INSUFFICIENT:
                has = f"has {len(valid)}" + (f", by {_given(valid)}" if valid else "")
                needs = counted(promotion.min, "approval")
                why = f"It needs {needs} and {has}: {_may_approve(view, candidate, promotion)}."
                share = len(valid) / promotion.min
                yield Wait(reason=reason, sentence=why, share=share)
            case Reason.APPROVAL_EXPIRED:
                late = tuple(a for a in candidate.approvals if a not in valid)
                lasts = in_words(promotion.expires.total_seconds())
                why = f"Approvals last {lasts}; those by {_given(late)} have expired."
                yield Wait(reason=reason, sentence=why)
            case _:
                yield Wait(reason=reason, sentence=sentence(detail))


def _given(approvals: tuple[Approval, ...]) -> str:
    return listed(f"{approval.by} on {day(approval.at)}" for approval in approvals)


def _may_approve(view: WorldView, candidate: Candidate, promotion: ManualApproval) -> str:
    author, proposer = view.strategies[candidate.strategy_id].author, candidate.proposer
    barred = f"{author}, who wrote it, nor {proposer}, who proposed it"
    if author == proposer:
        barred = f"{author}, who wrote and proposed it"
    roles = listed(sorted(promotion.roles), "or")
    return f"anyone else with the role {roles} may approve, but not {barred}"


def _capital(
    view: WorldView, sid: StrategyId, step: int, policy: Policy, now: datetime
) -> Iterator[Wait]:
    for reason, detail in capital_problems(view, sid, step, policy, now):
        match reason:
            case Reason.MAX_LIVE_SLOTS_EXCEEDED:
                yield Wait(reason=reason, sentence=slots_taken(view, sid, policy))
            case Reason.COOLDOWN_ACTIVE if view.promoted_at is not None:
                ends = view.promoted_at + policy.governance.cooldown
                why = (
                    f"The world promoted on {day(view.promoted_at)}; its cooldown ends on "
                    f"{minute(ends)}."
                )
                yield Wait(reason=reason, sentence=why, reached_at=ends)
            case Reason.MAX_LIVE_WEIGHT_EXCEEDED:
                yield Wait(reason=reason, sentence=no_room(view, sid, step, policy))
            case Reason.LEASE_OUTSTANDING:
                free_at = leases_end(view, sid, step, policy, now)
                yield Wait(reason=reason, sentence=sentence(detail), reached_at=free_at)
            case _:
                yield Wait(reason=reason, sentence=sentence(detail))


def leases_end(
    view: WorldView, sid: StrategyId, step: int, policy: Policy, now: datetime
) -> datetime | None:
    """When what was taken back is outstanding no more, as far as it is in the way."""
    for until in sorted({lease.until for lease in outstanding(view, now).values()}):
        left = capital_problems(view, sid, step, policy, until)
        if Reason.LEASE_OUTSTANDING not in {reason for reason, _ in left}:
            return until
    return None


def slots_taken(view: WorldView, sid: StrategyId, policy: Policy) -> str:
    """Who has the live slots."""
    slots = counted(policy.governance.max_live_slots, "live slot")
    taken = listed(sorted(other for other in view.live if other != sid))
    return f"The world has {slots}, taken by {taken}: one has to leave first."


def no_room(view: WorldView, sid: StrategyId, step: int, policy: Policy) -> str:
    """By how much the live set would be over its weight."""
    governance = policy.governance
    others = sum(a.applied_weight for other, a in view.live.items() if other != sid)
    weight = governance.ramp[step].fraction * governance.allocation
    return (
        f"Its weight of {percent(weight)} does not fit: the others have {percent(others)} of at "
        f"most {percent(governance.max_live_weight)}."
    )


def _snapshot(
    view: WorldView, row: int, stage: Stage, policy: Policy, now: datetime
) -> Iterator[Wait]:
    """Since when the newest snapshot is not fresh; the next bar brings another."""
    found = freshness(view, row, stage, policy, now)
    if not isinstance(found, NotFresh):
        return
    track, oldest = view.tracks[stage], policy.risk.snapshot_max_age
    as_of, ttl = int(track.covered_as_of[row]), int(track.covered_ttl_us[row])
    newest = (
        ""
        if as_of == NEVER
        else f"The newest {stage} snapshot with it, of {minute(instant(as_of))},"
    )
    match found.reason:
        case Reason.RISK_SNAPSHOT_MISSING:
            why = f"No {stage} snapshot holds both its weight and its returns"
        case Reason.RISK_SNAPSHOT_EXPIRED:
            why = f"{newest} expired on {minute(instant(as_of + ttl))}"
        case Reason.RISK_SNAPSHOT_STALE if oldest is not None and as_of <= micros(now):
            since = minute(instant(as_of + span_us(oldest)))
            why = f"{newest} is too old for the policy since {since}"
        case _:
            why = f"{newest} is from the future"
    yield Wait(reason=found.reason, sentence=f"{why}: the gate takes a fresh one only.")
