"""What the use cases ask of the outside.  Adapters implement these; `entry/wiring.py` chooses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.facts import Entry, Fact, Reduced, SnapshotStored
from qmtl.core.names import ActorId, RunId, Stage, StrategyId, WorldId
from qmtl.core.series import Series
from qmtl.core.view import Expected, WorldView

PAGE_BYTES_MAX = 16 << 20  # Of bodies, read at once: a journal may hold many large ones.

T = TypeVar("T")


class Clock(Protocol):
    def now(self) -> datetime:
        """The instant, aware, in UTC."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSnapshot:
    """A snapshot with what the journal knows of it."""

    seq: int
    created_at: datetime
    actor: ActorId
    fact: SnapshotStored


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """The revision of a run that is current, or one of its history."""

    run: EvaluationRun
    seq: int
    at: datetime
    actor: ActorId


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainedEntry:
    """A journal entry as it is stored, and its place in the hash chain (docs/journal.md)."""

    seq: int
    stream: str
    generation: int
    at: datetime
    actor: str
    kind: str
    body: bytes
    body_digest: str
    previous: str  # The hash of the entry before.
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where a journal ends: seq 0 and a hash of zeros before there is an entry."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A chunk outside the database: its key there, the SHA-256 of its bytes, and how many."""

    key: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as the store lists it; `at` by its own clock."""

    key: str
    size: int
    at: datetime


class Objects(Protocol):
    """Chunks outside the database, each known by the SHA-256 of its bytes.

    Every `put` makes a key of its own, so a key is named by the one commit that follows, or by none
    ever.  All raise StoreAway while the store cannot be reached.
    """

    def put(self, chunk: bytes) -> Kept:
        """Keep it.  When this returns it is there to stay."""
        ...

    def get(self, kept: Kept) -> bytes:
        """What was put.  Raises StoreDamaged when it is not there, or not what was put."""
        ...

    def delete(self, key: str) -> None:
        """Be without it.  Done twice is done once."""
        ...

    def listed(self) -> Iterator[Listed]:
        """Every object under the prefix, in any order."""
        ...


@dataclass(frozen=True, slots=True)
class Commit:
    """Facts to be written as one, by one actor at one instant, on the generations read."""

    expected: Expected
    facts: Sequence[Fact]
    actor: ActorId
    at: datetime


class Store(Protocol):
    """Journal and tables.  All of a commit is written, or none of it."""

    def write(self, job: Callable[[], T]) -> T:
        """Run `job` as the only writer of this process.

        When it returns, what it committed is durable; when it raises, nothing of it is.  Jobs of
        several callers may share one disk write.  Inside, `load` sees what the job committed.
        Calls nest: an inner `write` is part of the outer one.  A job may be undone and done again,
        when what it needs is held by another process or is not at hand.
        """
        ...

    def hold(self, world_id: WorldId) -> None:
        """Nobody else writes to the world until what this job writes is durable.  Inside `write`.

        What is loaded from here on is what a commit will find.
        """
        ...

    def load(self, world_id: WorldId) -> WorldView:
        """The world at its head.  A world nobody wrote to yet is blank, at generation 0."""
        ...

    def at_hand(self, world_id: WorldId) -> WorldView | None:
        """As `load`, if nothing has to be waited for; else None."""
        ...

    def commit(self, world_id: WorldId, commit: Commit) -> tuple[Entry, ...] | None:
        """Append the facts; None, with nothing written, when the world moved.  Inside `write`."""
        ...

    def beat(self, world_id: WorldId, loop: str, ttl: timedelta) -> list[str]:
        """A campaign loop is there for so long, of the store's own clock; which are, by name."""
        ...

    def journal(self, world_id: WorldId, after: int, limit: int) -> list[Entry]:
        """Entries with a greater `seq`, in order."""
        ...

    def chained(self, world_id: WorldId, after: int, limit: int) -> list[ChainedEntry]:
        """The same entries, as they are stored; fewer when their bodies pass PAGE_BYTES_MAX."""
        ...

    def head(self, world_id: WorldId) -> Head:
        """The newest entry, as it is durable."""
        ...

    def series(self, world_id: WorldId, strategy_id: StrategyId, stage: Stage) -> Series:
        """All that is held; empty when there is none."""
        ...

    def snapshot(self, world_id: WorldId, version: str) -> StoredSnapshot | None: ...

    def snapshot_at(self, world_id: WorldId, seq: int) -> StoredSnapshot | None:
        """The snapshot that the journal entry `seq` stored."""
        ...

    def snapshots(
        self,
        world_id: WorldId,
        limit: int,
        before: int | None = None,
        stage: Stage | None = None,
        actor: ActorId | None = None,
    ) -> list[StoredSnapshot]:
        """Newest stored first, by journal entry; `before` pages."""
        ...

    def latest_snapshot(
        self,
        world_id: WorldId,
        stage: Stage | None = None,
        actor: ActorId | None = None,
        as_of: datetime | None = None,
    ) -> StoredSnapshot | None:
        """The one with the greatest `as_of` (at or before `as_of` when given), then `seq`."""
        ...

    def reduction(self, world_id: WorldId, seq: int, at: datetime) -> Reduced | None:
        """What would be left of a snapshot, reduced at an instant; None when it is reduced already.

        A commit of `RetentionApplied` that says so makes it so: from then on that is its fact.
        """
        ...

    def collect(self, age: timedelta) -> int:
        """Be without objects that no commit names, older than `age`; how many there were.

        INVARIANT: a key is named by the commit right after its `put`, or never.
        """
        ...

    def run(self, world_id: WorldId, strategy_id: StrategyId, run_id: RunId) -> StoredRun | None:
        """The newest revision of a run."""
        ...

    def runs(
        self, world_id: WorldId, strategy_id: StrategyId, limit: int, before: int | None = None
    ) -> list[StoredRun]:
        """Newest revision of each run, the latest evaluated first; `before` (a seq) pages."""
        ...

    def revisions(
        self, world_id: WorldId, strategy_id: StrategyId, run_id: RunId
    ) -> list[StoredRun]:
        """Every revision of a run, the first first."""
        ...

    def remembered(self, actor: ActorId, key: str) -> tuple[str, int, bytes] | None:
        """What an Idempotency-Key answered: request digest, status, body."""
        ...

    def remember(
        self, actor: ActorId, key: str, request: str, status: int, body: bytes, at: datetime
    ) -> None:
        """Keep an answer under its Idempotency-Key."""
        ...

    def close(self) -> None: ...
