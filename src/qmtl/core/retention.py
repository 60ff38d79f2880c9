"""What of an old snapshot may go: what the world is not folded from, and no decision rests on.

Returns never go, nor weights, replays and each strategy's worst stress: the digest of what a run
was judged on is over every return from the first.  What may go is what a snapshot carries beside
them, and a covariance grows with the square of the strategies.

A hold is a decision that looked at a snapshot.  What is held is whole for ever.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from .evaluation_run import EvaluationRun
from .facts import (
    ApprovalGiven,
    CandidateProposed,
    Entry,
    EvaluationsRecorded,
    PromotionApplied,
    PromotionBlocked,
    Removed,
    SeriesRestated,
    SnapshotStored,
)
from .names import CandidateId, RunId, Stage, StrategyId
from .words import counted

PARTS: Final = ("covariance", "stress", "stats", "extra")
REASONS_MAX: Final = 5  # A snapshot of ten thousand strategies is held by as many runs.

Hold = tuple[int, str]  # The snapshot's entry, and why it is held.


def parts_of(fact: SnapshotStored) -> tuple[str, ...]:
    """What of a snapshot may go; nothing of one that is reduced already."""
    if fact.removed is not None:
        return ()
    scenarios = (fact.stress or {}).values()
    there = {
        "covariance": fact.covariance is not None,
        "stress": any(len(losses) > 1 for losses in scenarios),  # All but the worst.
        "stats": fact.stats is not None,
        "extra": bool(fact.extra),
    }
    return tuple(name for name in PARTS if there[name])


def reduced(fact: SnapshotStored, at: datetime) -> SnapshotStored:
    """What is left of a snapshot: all that `fold` looks at."""
    parts = parts_of(fact)
    assert parts, "there is something to remove"
    stress = fact.stress and {sid: _worst(losses) for sid, losses in fact.stress.items()}
    removed = Removed(parts=parts, at=at)
    return replace(fact, covariance=None, stress=stress, stats=None, extra={}, removed=removed)


def _worst(losses: Mapping[str, float]) -> Mapping[str, float]:
    if not losses:
        return losses
    name = max(sorted(losses), key=lambda each: losses[each])
    return {name: losses[name]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """A snapshot that is old enough, with something to remove; why it is held, if it is."""

    seq: int
    version: str
    stage: Stage
    stored_at: datetime
    parts: tuple[str, ...]
    held: tuple[str, ...] = ()  # At most REASONS_MAX, and how many more.


def survey(entries: Iterable[Entry], before: datetime) -> tuple[Old, ...]:
    """The snapshots stored before an instant that have more than has to stay, oldest first.

    `entries` are the whole journal, from the first.
    """
    seen = _Seen()
    old: dict[int, Old] = {}
    why: dict[int, dict[str, None]] = {}
    for entry in entries:
        fact = entry.fact
        if isinstance(fact, SnapshotStored):
            parts = parts_of(fact)
            if parts and entry.at < before:
                told = {"version": fact.version, "stage": fact.stage, "parts": parts}
                old[entry.seq] = Old(seq=entry.seq, stored_at=entry.at, **told)  # type: ignore[arg-type]  # Fields by name.
        for seq, reason in _looked_at(seen, entry):
            if seq in old:
                why.setdefault(seq, {})[reason] = None
    for seq, reason in _newest(seen):
        if seq in old:
            why.setdefault(seq, {})[reason] = None
    return tuple(replace(each, held=_shortened(why.get(seq, {}))) for seq, each in old.items())


def _shortened(reasons: Mapping[str, None]) -> tuple[str, ...]:
    told = tuple(reasons)
    more = len(told) - REASONS_MAX
    return told if more <= 0 else (*told[:REASONS_MAX], f"and {counted(more, 'more reason')}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the journal said so far; filled while it is read.

    newest    of a stage and strategy, the snapshot that a run would look at: as_of, entry
    versions  the entry of each
    runs      the snapshots that each run looked at, in any revision
    of        whose a candidate is
    """

    newest: dict[tuple[Stage, StrategyId], tuple[datetime, int]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    runs: dict[tuple[StrategyId, RunId], set[int]] = field(default_factory=dict)
    of: dict[CandidateId, StrategyId] = field(default_factory=dict)

    def newest_of(self, sid: StrategyId, stages: Iterable[Stage]) -> Iterator[int]:
        """The newest snapshots of a strategy."""
        found = (self.newest.get((stage, sid)) for stage in stages)
        return (seq for each in found if each is not None for seq in each[1:])

    def of_run(self, sid: StrategyId, run_id: RunId) -> Set[int]:
        return self.runs.get((sid, run_id), set())


def _looked_at(seen: _Seen, entry: Entry) -> Iterator[Hold]:
    """What the decision of an entry looked at, besides returns; and what it changes of `seen`."""
    match entry.fact:
        case SnapshotStored() as fact:
            seen.versions[fact.version] = entry.seq
            for sid in fact.covered:
                known = seen.newest.get((fact.stage, sid))
                if sid in fact.weights and (known is None or known[0] <= fact.as_of):
                    seen.newest[fact.stage, sid] = fact.as_of, entry.seq
        case SeriesRestated(stage=stage, strategy_id=sid):
            seen.newest.pop((stage, sid), None)
        case EvaluationsRecorded() as fact:
            for run in fact.runs:
                yield from _of_run(seen, run)
            said = f"the selection of entry {entry.seq} rests on it"
            for sid in fact.cohort:
                yield from ((seq, said) for seq in seen.newest_of(sid, [fact.stage]))
        case CandidateProposed(candidate_id=cid, strategy_id=sid, run_id=run_id):
            seen.of[cid] = sid
            said = f"candidate {cid} of {sid} rests on run {run_id}"
            yield from ((seq, said) for seq in seen.of_run(sid, run_id))
        case ApprovalGiven(candidate_id=cid, run_id=run_id):
            sid = seen.of[cid]
            said = f"{entry.actor} approved {sid} on run {run_id}"
            yield from ((seq, said) for seq in seen.of_run(sid, run_id))
        case PromotionApplied(strategy_id=sid, run_id=run_id, snapshot_seq=snapshot):
            said = f"{sid} went live on it (entry {entry.seq})"
            looked = {snapshot, *seen.of_run(sid, run_id), *seen.newest_of(sid, Stage)}
            yield from ((seq, said) for seq in sorted(looked))
        case PromotionBlocked(strategy_id=sid):
            said = f"{sid} was refused live on it (entry {entry.seq})"
            yield from ((seq, said) for seq in seen.newest_of(sid, Stage))
        case _:
            pass  # It rests on a run, on returns, or on a person.


def _of_run(seen: _Seen, run: EvaluationRun) -> Iterator[Hold]:
    named = {run.snapshot_version, *(metric.snapshot_version for metric in run.metrics.values())}
    looked = {seen.versions[version] for version in named if version in seen.versions}
    looked |= set(seen.newest_of(run.strategy_id, [run.stage]))
    seen.runs.setdefault((run.strategy_id, run.run_id), set()).update(looked)
    said = f"run {run.run_id} of {run.strategy_id} ({run.stage}, {run.verdict}) was judged by it"
    return ((seq, said) for seq in sorted(looked))


def _newest(seen: _Seen) -> Iterator[Hold]:
    """What the next decision will look at."""
    for (stage, sid), (_, seq) in seen.newest.items():
        yield seq, f"it is the newest {stage} snapshot of {sid}"
