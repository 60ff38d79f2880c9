"""What people are told without opening anything: of an entry of the journal, and of what stands.

`of_entry` says what an entry means to somebody who has to know.  `standing` is what waits for
people, or has gone quiet, at an instant: when returns stop nothing happens, so that is looked for.
Whoever tells it keeps the keys of what stood before, and tells what is new.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np

from . import facts as f
from .columns import PHASES as ORDER
from .decision import silent_at
from .happened import happened
from .names import CandidateId, Reason, Stage, StrategyId, WorldId, WorldState
from .outlook import quiet_us
from .policy import ManualApproval
from .promotion import valid_approvals
from .times import in_words, instant, micros, span_us
from .view import Candidate, Rejected, WorldView
from .windows import PHASE_OF, evidence_stage
from .words import PHASES, counted, listed, minute, ordinal, percent, sentence


class About(StrEnum):
    """What a notice is about; what rules choose by."""

    APPROVAL = "approval"  # A candidate waits for people.
    BLOCKED = "blocked"  # A promotion was refused.
    DEMOTED = "demoted"  # A strategy was taken down.
    STALE = "stale"  # Returns that should have come have not.
    KILL = "kill"  # Nothing in the world may trade live any more, or again.


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to tell.  `title` fits a subject line; `sentences` say the rest, in order.

    `key` names what it tells, once in a world; `seq` is the journal entry that says it, None for
    what was found by looking, at `at`.
    """

    world_id: WorldId
    about: About
    key: str
    at: datetime
    title: str
    sentences: tuple[str, ...]
    seq: int | None = None
    strategy_id: StrategyId | None = None
    candidate_id: CandidateId | None = None
    reasons: tuple[Reason, ...] = ()


# ---- Of an entry -------------------------------------------------------------------------------


def of_entry(before: WorldView, entry: f.Entry) -> Notice | None:
    """What an entry tells people; None for most.  `before` is the world just before it."""
    fact = entry.fact

    def notice(about: About, title: str, *more: str, **parts: object) -> Notice:
        return Notice(
            world_id=before.world_id,
            about=about,
            key=f"entry {entry.seq}",
            at=entry.at,
            title=title,
            sentences=more if about is About.BLOCKED else (happened(before, entry), *more),
            seq=entry.seq,
            **parts,  # type: ignore[arg-type]  # Fields of Notice, given just below.
        )

    match fact:
        case f.PromotionBlocked(strategy_id=sid):
            return notice(
                About.BLOCKED,
                f"{sid} is not let through to live",
                f"{entry.actor} asked for it, and the gate is closed:",
                *(sentence(detail) for detail in fact.details),
                strategy_id=sid,
                candidate_id=fact.candidate_id,
                reasons=fact.reasons,
            )
        case f.Demoted(strategy_id=sid):
            return notice(
                About.DEMOTED,
                f"{sid} was taken down: it is {PHASES[fact.to]} now",
                *_what_it_had(before, sid),
                strategy_id=sid,
                reasons=(fact.reason,),
            )
        case f.Killed():
            return notice(About.KILL, f"The world {before.world_id} was killed")
        case f.Resumed():
            more = "What was live before does not come back by itself: each is promoted anew."
            return notice(About.KILL, f"The world {before.world_id} was resumed", more)
        case f.LiveAllowed(allowed=False) if before.allow_live:
            return notice(About.KILL, f"The world {before.world_id} may not trade live any more")
        case f.StateChanged(state=state) if state is not WorldState.ACTIVE:
            return notice(About.KILL, f"The world {before.world_id} is {state}")
        case _:
            return None


def _what_it_had(before: WorldView, sid: StrategyId) -> Iterator[str]:
    held = before.live.get(sid)
    if held is not None:
        yield f"It was live with {percent(held.weight)} of capital, which is free now."


# ---- Of what stands ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quiet:
    """A strategy whose returns of a stage have not come since `since`."""

    strategy_id: StrategyId
    stage: Stage
    since: datetime


Standing = Candidate | Quiet


def about(what: Standing) -> About:
    return About.APPROVAL if isinstance(what, Candidate) else About.STALE


def standing(
    view: WorldView, now: datetime, stale_after: timedelta | None = None
) -> Mapping[str, Standing]:
    """What waits for approvals at `now`, and what has gone quiet, each by a key of its own.

    `stale_after`: for how long no returns are nothing to be told of; None: for as long as the
    policy lets them be late, or a window run on without any (`outlook.quiet_us`).
    """
    if view.default_version is None or view.state is not WorldState.ACTIVE:
        return {}
    found: dict[str, Standing] = {}
    for candidate in view.open_candidates():
        if _missing(view, candidate, now):
            found[f"approval {candidate.candidate_id}"] = candidate
    for what in quiet(view, now, stale_after):
        found[f"stale {what.stage} {what.strategy_id}"] = what
    return found


def quiet(view: WorldView, now: datetime, stale_after: timedelta | None = None) -> Iterator[Quiet]:
    """What has gone quiet at `now`; `stale_after` as for `standing`."""
    if view.default_version is None or view.state is not WorldState.ACTIVE:
        return
    allowed = quiet_us(view.policy) if stale_after is None else span_us(stale_after)
    for stage in (Stage.PAPER, Stage.LIVE):
        yield from _quiet(view, stage, now, allowed)


def of_standing(
    view: WorldView, new: Iterable[tuple[str, Standing]], now: datetime
) -> Iterator[Notice]:
    """The notices of what stands now and did not before.  What went quiet together is one."""
    silent: dict[Stage, list[Quiet]] = {}
    for key, what in new:
        match what:
            case Candidate():
                yield _approval(view, key, what, now)
            case Quiet(stage=stage):
                silent.setdefault(stage, []).append(what)
    for stage, several in silent.items():
        yield _stale(view, stage, several, now)


def _missing(view: WorldView, candidate: Candidate, now: datetime) -> int:
    """The approvals that a candidate waits for."""
    asked = view.policy.governance.live_promotion
    if not isinstance(asked, ManualApproval) or isinstance(candidate.standing, Rejected):
        return 0
    if candidate.policy_version != view.default_version:
        return 0  # The policy of now makes another of it.
    return max(0, asked.min - len(valid_approvals(view, asked, candidate, now)))


def _approval(view: WorldView, key: str, candidate: Candidate, now: datetime) -> Notice:
    governance, sid, step = view.policy.governance, candidate.strategy_id, candidate.step
    asked = governance.live_promotion
    assert isinstance(asked, ManualApproval), "nothing else waits for people"
    weight = percent(governance.ramp[step].fraction * governance.allocation)
    valid = valid_approvals(view, asked, candidate, now)
    missing = counted(_missing(view, candidate, now), "approval")
    lapsed = [a.by for a in candidate.approvals if now - a.at >= asked.expires]
    given = f"{listed(a.by for a in valid)} approved. " if valid else ""
    return Notice(
        world_id=view.world_id,
        about=About.APPROVAL,
        key=f"{key} {view.seq} {micros(now)}",
        at=now,
        title=f"{sid} waits for {missing}",
        sentences=(
            f"{sid} is proposed for {ordinal(step)} of {len(governance.ramp)} of its ramp, a "
            f"weight of {weight}, on its {evidence_stage(step)} run {candidate.run_id}.",
            f"{given}It waits for {missing} of the role {listed(sorted(asked.roles), 'or')}, by "
            "other people than its author and whoever proposed it.",
            *([f"What {listed(lapsed)} approved has expired."] if lapsed else ()),
        ),
        strategy_id=sid,
        candidate_id=candidate.candidate_id,
    )


def _quiet(view: WorldView, stage: Stage, now: datetime, allowed: int) -> Iterator[Quiet]:
    """Those in the stage's phase for longer than is allowed that no snapshot covered meanwhile."""
    count, track = len(view.ids), view.tracks[stage]
    standings = view.standings
    mine = standings.phase[:count] == ORDER.index(PHASE_OF[stage])
    heard = np.maximum(track.covered_as_of[:count], standings.entered_at[:count])
    patience = np.maximum(track.covered_ttl_us[:count], allowed)
    for row in np.flatnonzero(mine & (heard < micros(now) - patience)):
        yield Quiet(view.ids[int(row)], stage, instant(int(heard[row])))


def _stale(view: WorldView, stage: Stage, quiet: list[Quiet], now: datetime) -> Notice:
    names, since = sorted(q.strategy_id for q in quiet), max(q.since for q in quiet)
    lasts = in_words((now - since).total_seconds())
    stopped = [sid for sid, held in view.live.items() if now > silent_at(view, held)]
    lowered = sorted(set(stopped) & set(names))
    after = sorted((silent_at(view, view.live[sid]), sid) for sid in names if sid in view.live)
    ahead = [each for each in after if each[1] not in lowered]
    return Notice(
        world_id=view.world_id,
        about=About.STALE,
        key=f"stale {stage} {view.seq} {micros(now)}",
        at=now,
        title=f"No {stage} returns of {listed(names)} for {lasts}",
        sentences=(
            f"The last {stage} snapshot with {listed(names)} is of {minute(since)}, or they "
            "entered the stage then.",
            "Until returns come again nothing of it is promoted, and no window fills.",
            *([f"{listed(lowered)} may compute only: nobody sees how it does."] if lowered else ()),
            *([f"{ahead[0][1]} may compute only from {minute(ahead[0][0])} on."] if ahead else ()),
        ),
        strategy_id=names[0] if len(names) == 1 else None,
        reasons=(Reason.RISK_SNAPSHOT_STALE,),
    )
