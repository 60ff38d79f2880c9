"""A world's day: what is live and what it earned, what moved, what was refused, what waits.

A day is of UTC.  Of today it is what there is so far.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import numpy as np

from qmtl.adapters.memory import World, joined
from qmtl.core import facts as f
from qmtl.core import notices
from qmtl.core.columns import PHASES as ORDER
from qmtl.core.errors import Invalid
from qmtl.core.happened import happened
from qmtl.core.names import Phase, Stage, StrategyId, Verdict, WorldId
from qmtl.core.times import micros, rfc3339
from qmtl.core.view import WorldView
from qmtl.core.words import PHASES

from .reading import Journal

Data = dict[str, Any]
DAY: Final = timedelta(days=1)

# What a reader of the day wants to know of each; everything else is counted.
HEADINGS: Final[tuple[tuple[str, tuple[type[f.Fact], ...]], ...]] = (
    ("The world", (f.Killed, f.Resumed, f.LiveAllowed, f.StateChanged)),
    ("Up", (f.PromotionApplied,)),
    ("Down", (f.Demoted, f.ActivationLowered)),
    ("Refused", (f.PromotionBlocked, f.CandidateRejected, f.CandidateVoided)),
    (
        "Proposed and approved",
        (f.CandidateProposed, f.ApprovalGiven, f.ApprovalWithdrawn, f.CandidateReleased),
    ),
    ("Campaign", (f.PhaseEntered, f.StrategyBound, f.CampaignExtended, f.HoldReleased)),
    (
        "Policy and people",
        (f.PolicyAdded, f.DefaultPolicySet, f.ConfirmationRequested, f.ConfirmationGiven),
    ),
    ("History that was restated", (f.SeriesRestated,)),
)


def day(journal: Journal, on: date) -> Data:
    """All of it, as plain values.  Raises Invalid for a day that has not begun, or before there
    was anything."""
    begin = datetime.combine(on, time(), UTC)
    if begin > journal.now:
        raise Invalid(f"{on} has not begun: the server's clock shows {rfc3339(journal.now)}.")
    end = begin + DAY
    if not journal.entries or journal.entries[0].at >= end:
        raise Invalid(f"Nothing had happened in {journal.world_id} by the end of {on}.")
    blank = World(WorldView(world_id=WorldId(journal.world_id)), [])
    opened, closed, newest = blank, blank, blank
    told: list[tuple[f.Entry, str]] = []
    for before, entry, world in journal.worlds():
        newest = world
        if entry.at >= end:
            continue  # But for returns of the day that came later.
        closed = world
        if entry.at < begin:
            opened = world
        else:
            told.append((entry, happened(before.view, entry)))
    until = min(end, journal.now)
    return {
        "report": "day",
        "world_id": journal.world_id,
        "date": on.isoformat(),
        "made_at": rfc3339(journal.now),
        "over": end <= journal.now,
        "before": (on - DAY).isoformat() if journal.entries[0].at < begin else None,
        "after": (on + DAY).isoformat() if end <= journal.now else None,
        "entries": len(told),
        "first_seq": told[0][0].seq if told else None,
        "last_seq": told[-1][0].seq if told else None,
        "world": _world(closed.view),
        "live": _live(opened.view, closed.view, newest, begin, end),
        "phases": _phases(opened.view, closed.view),
        "happened": _happened(journal, told),
        "evidence": _evidence(told),
        "waits": _waits(closed.view, until),
        "journal": journal.proof(),
    }


def _world(view: WorldView) -> Data:
    return {
        "state": view.state,
        "allow_live": view.allow_live,
        "killed": view.killed,
        "policy_version": view.default_version,
        "live_weight": sum(held.weight for held in view.live.values()),
    }


def _live(
    opened: WorldView, closed: WorldView, newest: World, begin: datetime, end: datetime
) -> list[Data]:
    """Who was live at either end of the day, at which weight, and what their live returns of it
    are, as they are held now: some may have come late."""
    found = []
    for sid in sorted({*opened.live, *closed.live}):
        was, now = opened.live.get(sid), closed.live.get(sid)
        found.append(
            {
                "strategy_id": sid,
                "before": 0.0 if was is None else was.weight,
                "after": 0.0 if now is None else now.weight,
                **_earned(newest, sid, Stage.LIVE, begin, end),
            }
        )
    return found


def _earned(world: World, sid: StrategyId, stage: Stage, begin: datetime, end: datetime) -> Data:
    """The returns of a day, compounded; None where there were none."""
    series = joined(world.series.get((sid, stage), ()))
    mine = series.r[(series.t >= micros(begin)) & (series.t < micros(end))]
    total = float(np.prod(1.0 + mine) - 1.0) if len(mine) else None
    return {"returns": len(mine), "total_return": total}


def _phases(opened: WorldView, closed: WorldView) -> list[Data]:
    def counts(view: WorldView) -> dict[Phase, int]:
        found = np.bincount(view.standings.phase[: len(view.ids)], minlength=len(ORDER))
        return {phase: int(found[n]) for n, phase in enumerate(ORDER)}

    was, now = counts(opened), counts(closed)
    return [
        {"phase": phase, "name": PHASES[phase], "before": was[phase], "after": now[phase]}
        for phase in ORDER
    ]


def _happened(journal: Journal, told: list[tuple[f.Entry, str]]) -> list[Data]:
    return [
        {
            "heading": heading,
            "entries": [
                {
                    "seq": entry.seq,
                    "at": rfc3339(entry.at),
                    "actor": entry.actor,
                    "kind": entry.fact.kind,
                    "sentence": said,
                    "hash": journal.hashes[entry.seq - 1],
                }
                for entry, said in told
                if isinstance(entry.fact, kinds)
            ],
        }
        for heading, kinds in HEADINGS
    ]


def _evidence(told: list[tuple[f.Entry, str]]) -> Data:
    """How many snapshots and returns came, of each stage, and what runs found."""
    stages = {stage: {"snapshots": 0, "returns": 0} for stage in Stage}
    verdicts = dict.fromkeys(Verdict, 0)
    for entry, _ in told:
        match entry.fact:
            case f.SnapshotStored(stage=stage, points=points):
                stages[stage]["snapshots"] += 1
                stages[stage]["returns"] += sum(points.counts)
            case f.EvaluationsRecorded(runs=runs):
                for run in runs:
                    verdicts[run.verdict] += 1
            case _:
                pass
    return {
        "stages": [{"stage": stage, **counts} for stage, counts in stages.items()],
        "runs": {str(verdict): count for verdict, count in verdicts.items()},
    }


def _waits(view: WorldView, until: datetime) -> list[Data]:
    """What waited for people, or had gone quiet, at the end of the day."""
    stands = notices.standing(view, until)
    return [
        {
            "about": notice.about,
            "title": notice.title,
            "sentences": list(notice.sentences),
            "strategy_id": notice.strategy_id,
            "candidate_id": notice.candidate_id,
        }
        for notice in notices.of_standing(view, stands.items(), until)
    ]
