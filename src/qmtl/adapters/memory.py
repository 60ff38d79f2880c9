"""A store without a disk: for tests, simulations and demos.  It is the fold, and little else.

A job works on copies; when it ends well they become the store's, in one assignment.  Whatever is
kept is persistent or only ever appended to, so that a copy costs nothing.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from threading import RLock, get_ident
from typing import TypeVar

import numpy as np
from immutables import Map

from qmtl.app.ports import PAGE_BYTES_MAX, ChainedEntry, Commit, Head, StoredRun, StoredSnapshot
from qmtl.core import retention
from qmtl.core.facts import (
    Entry,
    EvaluationsRecorded,
    Reduced,
    Removed,
    RetentionApplied,
    SnapshotStored,
)
from qmtl.core.fold import advance, entries
from qmtl.core.names import ActorId, Digest, RunId, Stage, StrategyId, WorldId
from qmtl.core.series import EMPTY, Series
from qmtl.core.view import WorldView

from .arrivals import arrivals
from .chain import GENESIS, Line, lines
from .codec import fact_to_bytes, stored

REMEMBER_FOR = timedelta(days=7)  # No client retries a request longer than this.
ANSWERS_PRUNED_AT = 10_000  # Looking for old ones costs what there is, so not at every answer.
PARTS_MAX = 64  # Of a series: more are joined, so that reading it stays cheap.

T = TypeVar("T")
RunKey = tuple[StrategyId, RunId]
SeriesKey = tuple[StrategyId, Stage]
Latest = tuple[Stage | None, ActorId | None]


@dataclass(frozen=True)
class World:
    """One world at one seq.  `journal` is shared by all its versions: only `seq` entries count."""

    view: WorldView
    journal: list[Entry]
    series: Map[SeriesKey, tuple[Series, ...]] = Map()
    runs: Map[RunKey, tuple[StoredRun, ...]] = Map()
    versions: Map[str, int] = Map()  # Of snapshots, to the seq that stored each.
    latest: Map[Latest, int] = Map()  # Seq of the snapshot with the greatest (as_of, seq).
    left: Map[int, Entry] = Map()  # Of snapshots that were reduced, what is told in their place.

    def entry(self, seq: int) -> Entry:
        return self.left.get(seq) or self.journal[seq - 1]

    def snapshot(self, seq: int) -> StoredSnapshot | None:
        if not 0 < seq <= self.view.seq:
            return None
        return snapshot_of(self.entry(seq))


def removed_of(entry: Entry) -> Removed | None:
    """What retention took of the snapshot that an entry stored."""
    assert isinstance(entry.fact, SnapshotStored), "only snapshots are reduced"
    return entry.fact.removed


def left_of(entry: Entry, at: datetime) -> Entry:
    """The entry of a snapshot, reduced at an instant."""
    assert isinstance(entry.fact, SnapshotStored), "only snapshots are reduced"
    return replace(entry, fact=retention.reduced(entry.fact, at))


def reduction(seq: int, entry: Entry, at: datetime) -> Reduced:
    """As a fact names it."""
    body, left = fact_to_bytes(entry.fact), fact_to_bytes(left_of(entry, at).fact)
    digests = (Digest(sha256(each).hexdigest()) for each in (body, left))
    return Reduced(seq, *digests)


def snapshot_of(entry: Entry) -> StoredSnapshot | None:
    """The snapshot that an entry stored; None when it stored none."""
    if not isinstance(entry.fact, SnapshotStored):
        return None
    return StoredSnapshot(seq=entry.seq, created_at=entry.at, actor=entry.actor, fact=entry.fact)


@dataclass(frozen=True)
class State:
    """Everything, at one instant."""

    worlds: Map[WorldId, World] = Map()
    answers: Map[tuple[ActorId, str], tuple[str, int, bytes, datetime]] = Map()
    instant: datetime | None = None


@dataclass
class MemoryStore:
    """`app.ports.Store`, in this process and gone with it."""

    shared = False  # Nobody else writes to it.
    _state: State = field(default_factory=State)
    _staged: State | None = None  # What the running job sees; None when none runs.
    _writer: int | None = None  # The thread whose job runs.
    _lock: RLock = field(default_factory=RLock)
    # The chain, as far as somebody asked for it: simulations never do.
    _chains: dict[WorldId, list[tuple[Entry, ChainedEntry]]] = field(default_factory=dict)

    _loops: dict[WorldId, dict[str, float]] = field(default_factory=dict)

    def beat(self, world_id: WorldId, loop: str, ttl: timedelta) -> list[str]:
        now = time.monotonic()
        with self._lock:
            there = self._loops.setdefault(world_id, {})
            there[loop] = now + ttl.total_seconds()
            for name in [name for name, until in there.items() if until <= now]:
                del there[name]
            return sorted(there)

    def write(self, job: Callable[[], T]) -> T:
        with self._lock:
            outer = self._staged
            kept = self._state if outer is None else outer
            self._staged, self._writer = kept, get_ident()
            try:
                answer = job()
                kept = self._seen()
                return answer
            finally:
                if outer is None:
                    self._state, self._staged, self._writer = kept, None, None
                else:
                    self._staged = kept

    def _seen(self) -> State:
        """What this thread may see: in a job, what it staged."""
        if self._writer == get_ident() and self._staged is not None:
            return self._staged
        return self._state

    def _world(self, world_id: WorldId) -> World:
        found = self._seen().worlds.get(world_id)
        return found if found is not None else World(WorldView(world_id=world_id), [])

    def hold(self, world_id: WorldId) -> None:
        """It has one writer at a time."""

    def load(self, world_id: WorldId) -> WorldView:
        return self._world(world_id).view

    def at_hand(self, world_id: WorldId) -> WorldView | None:
        return self.load(world_id)

    def commit(self, world_id: WorldId, commit: Commit) -> tuple[Entry, ...] | None:
        assert self._writer == get_ident(), "commit is for jobs of write"
        staged, world = self._seen(), self._world(world_id)
        view = world.view
        if not view.stands(commit.expected):
            return None
        # As they will be read: what cannot be stored must not pass here either.
        facts = [stored(fact)[1] for fact in commit.facts]
        written = entries(view, facts, commit.actor, commit.at)
        del world.journal[view.seq :]  # What a job that failed left behind.
        for entry in written:
            world.journal.append(entry)
            world = after(world, entry)
        at = commit.at if staged.instant is None else max(staged.instant, commit.at)
        worlds = staged.worlds.set(world_id, world)
        self._staged = replace(staged, worlds=worlds, instant=at)
        return written

    def journal(self, world_id: WorldId, after: int, limit: int) -> list[Entry]:
        world = self._world(world_id)
        upto = min(after + limit, world.view.seq)
        return [world.left.get(each.seq, each) for each in world.journal[after:upto]]

    def chained(self, world_id: WorldId, after: int, limit: int) -> list[ChainedEntry]:
        found: list[ChainedEntry] = []
        size = 0
        for each in self._chain(world_id)[after : after + limit]:
            size += len(each.body)
            if found and size > PAGE_BYTES_MAX:
                break
            found.append(each)
        return found

    def head(self, world_id: WorldId) -> Head:
        chain = self._chain(world_id)
        return Head(chain[-1].seq, chain[-1].hash) if chain else Head(0, GENESIS)

    def _chain(self, world_id: WorldId) -> list[ChainedEntry]:
        """Every entry that counts, chained."""
        with self._lock:
            world = self._world(world_id)
            known = self._chains.setdefault(world_id, [])
            # What a job that failed left behind is no part of it.
            while known and (
                len(known) > world.view.seq or known[-1][0] is not world.journal[len(known) - 1]
            ):
                known.pop()
            for entry in world.journal[len(known) : world.view.seq]:
                previous = known[-1][1].hash if known else GENESIS
                body = fact_to_bytes(entry.fact)
                (row,) = lines(world_id, previous, [(entry, body)])
                line = Line(**row)  # type: ignore[arg-type]  # Its own columns.
                known.append((entry, line.told(previous, body)))
            return [
                replace(each, body=fact_to_bytes(world.left[each.seq].fact))
                if each.seq in world.left
                else each
                for _, each in known
            ]

    def series(self, world_id: WorldId, strategy_id: StrategyId, stage: Stage) -> Series:
        return joined(self._world(world_id).series.get((strategy_id, stage), ()))

    def snapshot(self, world_id: WorldId, version: str) -> StoredSnapshot | None:
        world = self._world(world_id)
        return world.snapshot(world.versions.get(version, 0))

    def snapshot_at(self, world_id: WorldId, seq: int) -> StoredSnapshot | None:
        return self._world(world_id).snapshot(seq)

    def reduction(self, world_id: WorldId, seq: int, at: datetime) -> Reduced | None:
        entry = self._world(world_id).entry(seq)
        return None if removed_of(entry) else reduction(seq, entry, at)

    def collect(self, age: timedelta) -> int:
        return 0  # It has everything in this process.

    def _snapshots(
        self, world_id: WorldId, stage: Stage | None, actor: ActorId | None
    ) -> Iterator[StoredSnapshot]:
        """Newest stored first."""
        world = self._world(world_id)
        for seq in range(world.view.seq, 0, -1):
            found = world.snapshot(seq)
            if found and stage in (None, found.fact.stage) and actor in (None, found.actor):
                yield found

    def snapshots(
        self,
        world_id: WorldId,
        limit: int,
        before: int | None = None,
        stage: Stage | None = None,
        actor: ActorId | None = None,
    ) -> list[StoredSnapshot]:
        found = self._snapshots(world_id, stage, actor)
        return [s for s in found if before is None or s.seq < before][:limit]

    def latest_snapshot(
        self,
        world_id: WorldId,
        stage: Stage | None = None,
        actor: ActorId | None = None,
        as_of: datetime | None = None,
    ) -> StoredSnapshot | None:
        world = self._world(world_id)
        if as_of is None:
            return world.snapshot(world.latest.get((stage, actor), 0))
        found = [s for s in self._snapshots(world_id, stage, actor) if s.fact.as_of <= as_of]
        return max(found, key=lambda s: (s.fact.as_of, s.seq), default=None)

    def run(self, world_id: WorldId, strategy_id: StrategyId, run_id: RunId) -> StoredRun | None:
        found = self._world(world_id).runs.get((strategy_id, run_id), ())
        return found[-1] if found else None

    def runs(
        self, world_id: WorldId, strategy_id: StrategyId, limit: int, before: int | None = None
    ) -> list[StoredRun]:
        found = [
            revisions[-1]
            for (sid, _), revisions in self._world(world_id).runs.items()
            if sid == strategy_id and (before is None or revisions[-1].seq < before)
        ]
        return sorted(found, key=lambda run: (-run.seq, run.run.run_id))[:limit]

    def revisions(
        self, world_id: WorldId, strategy_id: StrategyId, run_id: RunId
    ) -> list[StoredRun]:
        return list(self._world(world_id).runs.get((strategy_id, run_id), ()))

    def remembered(self, actor: ActorId, key: str) -> tuple[str, int, bytes] | None:
        found = self._seen().answers.get((actor, key))
        return None if found is None else found[:3]

    def remember(
        self, actor: ActorId, key: str, request: str, status: int, body: bytes, at: datetime
    ) -> None:
        def job() -> None:
            kept = self._seen().answers
            if len(kept) >= ANSWERS_PRUNED_AT:
                recent = ((k, v) for k, v in kept.items() if v[3] > at - REMEMBER_FOR)
                kept = Map(recent)
            if (actor, key) not in kept:
                kept = kept.set((actor, key), (request, status, body, at))
            self._staged = replace(self._seen(), answers=kept)

        self.write(job)

    def last_instant(self) -> datetime | None:
        """The latest instant that anything was recorded at, or that a replay clock showed."""
        return self._seen().instant

    def keep_instant(self, now: datetime) -> None:
        """A replay clock shows `now`."""

        def job() -> None:
            last = self.last_instant()
            self._staged = replace(self._seen(), instant=now if last is None else max(last, now))

        self.write(job)

    def close(self) -> None:
        """There is nothing to close."""


def joined(parts: Sequence[Series]) -> Series:
    """The parts of a series as one."""
    if not parts:
        return EMPTY
    return Series(
        np.concatenate([part.t for part in parts]),
        np.concatenate([part.r for part in parts]),
        np.concatenate([part.accepted for part in parts]),
    )


def replay(world_id: WorldId, entries: Iterable[Entry]) -> World:
    """A world as its journal tells it, from the first entry."""
    world = World(WorldView(world_id=world_id), [])
    for entry in entries:
        world.journal.append(entry)
        world = after(world, entry)
    return world


def store_of(world: World) -> MemoryStore:
    """A store that holds one world, and nothing else."""
    return MemoryStore(State(worlds=Map({world.view.world_id: world})))


def after(world: World, entry: Entry) -> World:
    """The world after one more entry."""
    series, runs = world.series, world.runs
    for arrival in arrivals(world.view, entry):
        key = (arrival.strategy_id, arrival.stage)
        parts = () if arrival.restated else series.get(key, ())
        parts = (*parts, Series(arrival.t, arrival.r, arrival.accepted))
        series = series.set(key, parts if len(parts) < PARTS_MAX else (joined(parts),))
    match entry.fact:
        case EvaluationsRecorded(runs=recorded):
            for run in recorded:
                revision = StoredRun(run=run, seq=entry.seq, at=entry.at, actor=entry.actor)
                run_key = (run.strategy_id, run.run_id)
                runs = runs.set(run_key, (*runs.get(run_key, ()), revision))
        case SnapshotStored():
            world = _with_snapshot(world, entry, entry.fact)
        case RetentionApplied(reduced=reduced):
            world = replace(world, left=_left(world, entry, reduced))
        case _:
            pass  # All that other facts mean is in the view.
    return replace(world, view=advance(world.view, entry), series=series, runs=runs)


def _left(world: World, entry: Entry, reduced: Sequence[Reduced]) -> Map[int, Entry]:
    """With what is left of more snapshots; of a journal that was read they are reduced already."""
    left = world.left
    for each in reduced:
        before = world.entry(each.seq)
        if removed_of(before) is None:
            left = left.set(each.seq, left_of(before, entry.at))
    return left


def _with_snapshot(world: World, entry: Entry, fact: SnapshotStored) -> World:
    latest = world.latest
    for stage in (None, fact.stage):
        for actor in (None, entry.actor):
            newest = world.snapshot(latest.get((stage, actor), 0))
            if newest is None or fact.as_of >= newest.fact.as_of:
                latest = latest.set((stage, actor), entry.seq)
    return replace(world, versions=world.versions.set(fact.version, entry.seq), latest=latest)
