"""`app.ports.Store` in a database.  See `writer.py` for who writes, and `transaction.py` for when.

A process keeps a hot view of each world: the newest checkpoint and the fold of what follows, then
advanced by every commit.  Readers see what is durable; a job sees also what it and the jobs before
it in its batch have written.

Where other processes write to the same database, a view is asked for its head before it is given
out, and brought there by the fold of what they wrote; and a job that decides holds its world's row.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TypeVar

from sqlalchemy import Connection

from qmtl.adapters.clock import SystemClock
from qmtl.adapters.codec import stored
from qmtl.adapters.memory import snapshot_of
from qmtl.adapters.objects import Remembered
from qmtl.app.ports import (
    ChainedEntry,
    Commit,
    Head,
    Kept,
    Objects,
    StoredRun,
    StoredSnapshot,
)
from qmtl.core.facts import Entry, Reduced, RetentionApplied
from qmtl.core.fold import advance, entries
from qmtl.core.names import ActorId, RunId, Stage, StrategyId, WorldId
from qmtl.core.series import Series
from qmtl.core.times import micros
from qmtl.core.view import WorldView

from . import answers, audit, checkpoint, folder, journal, loops, outside, project, reads, reduction
from .cold import vouched
from .database import Begun, Database
from .errors import StoreAway, StoreDamaged, told
from .outside import Elsewhere, Hasty, Moved
from .transaction import Hot, Transaction
from .writer import Alone, Writer

MICROSECOND = timedelta(microseconds=1)
KEEP_INSTANT = (
    "INSERT INTO clock VALUES (1, :at) "
    "ON CONFLICT (id) DO UPDATE SET at = excluded.at WHERE excluded.at > clock.at"
)
HOLD = "SELECT seq FROM worlds WHERE world_id = :world_id FOR UPDATE"
FETCHES_MAX = 4  # Turns of a job that needs what is outside, before the writer waits for it.
FIRST = "SELECT pg_advisory_xact_lock(:worlds, hashtext(:world_id))"
FIRST_AT_ONCE = "SELECT pg_try_advisory_xact_lock(:worlds, hashtext(:world_id))"
WORLDS = 0x716D776F  # Names the locks of worlds that have no row yet.
SNAPSHOTS_KEPT = 16  # Many strategies are judged by the same few, one after the other.
NEWEST = "s.seq DESC"
LATEST = "s.as_of DESC, s.seq DESC"

T = TypeVar("T")


class SqlStore:
    """A data folder, owned by this process until `close`; or what a database's URL names."""

    def __init__(
        self,
        where: Path | str,
        connect: folder.Connect = folder.sqlite,
        objects: Objects | None = None,
    ) -> None:
        """`where`: a folder, or the URL of a PostgreSQL database.  `objects`: see `offload`.

        Raises FolderInUse, UnknownSchema, StoreAway, Invalid.
        """
        self._objects = objects
        with told(), ExitStack() as opened:
            remembered = None if objects is None else Remembered(objects)
            self._database, self._hasty = outside.beside(_database(where, connect), remembered)
            opened.callback(self._database.close)
            connection = opened.enter_context(self._database.writer.connect())
            outside.must_be_known(connection)
            # Readers go before the writer: SQLite's is the last to close, and empties the log.
            opened.callback(self._database.reader.dispose)
            self._hot: dict[WorldId, Hot] = {}
            self._publishing, self._warming = Lock(), Lock()
            self._kept_snapshot = lru_cache(SNAPSHOTS_KEPT)(self._snapshot_at)
            self._transaction = Transaction(self._database, connection)
            self._writer = Writer(self._transaction, self._commit_batch)
            opened.callback(self._writer.close)
            opened.callback(self._checkpoint_last)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Finish what is queued, checkpoint every world, and give the folder back."""
        self._opened.close()

    # ---- Writing -----------------------------------------------------------------------------

    def write(self, job: Callable[[], T]) -> T:
        """A job that needs what is not at hand is undone, and done again once it is."""
        with told():
            if self._hasty is None or self._writer.here:
                return self._writer.write(job)
            for _ in range(FETCHES_MAX):
                try:
                    return self._writer.write(job)
                except Elsewhere as missing:
                    for kept in missing.wanted:
                        self._hasty.of.get(kept)
            return self._writer.write(partial(self._patiently, self._hasty, job))

    def _patiently(self, hasty: Hasty, job: Callable[[], T]) -> T:
        """A job of very much: it does not fit in what is remembered, or takes too many turns."""
        hasty.patient = True
        try:
            return job()
        finally:
            hasty.patient = False

    def hold(self, world_id: WorldId) -> None:
        assert self._writer.here, "hold is for jobs of write"
        if not self._database.shared or world_id in self._transaction.held:
            return
        # INVARIANT: a process waits for another only while it holds nothing that could be waited
        # for: no two wait for each other.
        waits = not self._transaction.begun
        if not _held(self._transaction.writing(), world_id, waits):
            raise Alone(world_id)
        self._transaction.held |= {world_id}

    def commit(self, world_id: WorldId, commit: Commit) -> tuple[Entry, ...] | None:
        assert self._writer.here, "commit is for jobs of write"
        self.hold(world_id)
        hot = self._head(world_id)
        if not hot.view.stands(commit.expected):
            return None
        if not commit.facts:
            return ()
        pairs = [stored(fact) for fact in commit.facts]
        # INVARIANT: what is folded is what will be read back, here and in every later process.
        written = entries(hot.view, [fact for _, fact in pairs], commit.actor, commit.at)
        views = list(accumulate(written, advance, initial=hot.view))
        bodies = (body for body, _ in pairs)
        connection = self._transaction.writing()
        head_hash = journal.append(
            connection,
            hot.view.seq,
            hot.head_hash,
            views[-1],
            list(zip(written, bodies, strict=True)),
        )
        if head_hash is None:  # Another process wrote: what we know of the world is old.
            self._forget(world_id)
            return None
        project.state(connection, hot.view, [entry.fact for entry in written], views[-1])
        for before, entry in zip(views[:-1], written, strict=True):
            project.content(connection, before, entry)
            if isinstance(entry.fact, RetentionApplied):
                reduction.write(connection, world_id, entry, self._database.shared)
        self._transaction.changed[world_id] = Hot(views[-1], head_hash, hot.checkpoint_seq)
        return written

    def remember(
        self, actor: ActorId, key: str, request: str, status: int, body: bytes, at: datetime
    ) -> None:
        def job() -> None:
            connection = self._transaction.writing()
            answers.remember(connection, actor, key, request, status, body, at)

        self.write(job)

    def keep_instant(self, now: datetime) -> None:
        """A replay clock shows `now`."""

        def job() -> None:
            self._transaction.writing().exec_driver_sql(KEEP_INSTANT, {"at": micros(now)})

        self.write(job)

    def beat(self, world_id: WorldId, loop: str, ttl: timedelta) -> list[str]:
        def job() -> list[str]:
            connection, now = self._transaction.writing(), self._database.now
            return loops.beat(connection, now, world_id, loop, ttl // MICROSECOND)

        return self.write(job)

    def listen(self, ring: Callable[[], None]) -> None:
        """Call back, until it is closed, when another process wrote: soon, in another thread."""
        self._opened.callback(self._database.listen(ring))

    def _commit_batch(self) -> None:
        changed = self._transaction.changed
        for world_id, hot in changed.items():
            if hot.view.seq - hot.checkpoint_seq >= checkpoint.CHECKPOINT_EVERY:
                checkpoint.write(self._transaction.connection, hot)
                changed[world_id] = replace(hot, checkpoint_seq=hot.view.seq)
        if self._database.notify is not None and changed:
            told = [{"world_id": world_id} for world_id in changed]
            self._transaction.connection.exec_driver_sql(self._database.notify, told)
        self._transaction.commit(self._publish)

    def _checkpoint_last(self) -> None:
        with suppress(StoreAway):  # Nothing is lost: the next start folds a little more.
            self.write(self._checkpoint_all)

    def _checkpoint_all(self) -> None:
        for hot in self._hot.values():
            if hot.view.seq > hot.checkpoint_seq:
                checkpoint.write(self._transaction.writing(), hot)

    # ---- What leaves the database ------------------------------------------------------------

    def offload(self, enough: Callable[[], bool] = lambda: False) -> Moved:
        """Move what is large to the object store: bodies of the journal, full parts of series.

        Whoever reads or writes goes on meanwhile.  `enough`: whether to leave the rest for later.
        Raises StoreAway, StoreDamaged.
        """
        moved = Moved()
        while self._objects is not None and not enough():
            more = self._moved(self._objects)
            if more == Moved():
                break
            moved += more
        return moved

    def collect(self, age: timedelta) -> int:
        if self._objects is None:
            return 0
        until = SystemClock().now() - age  # The object store's clock is no replay clock.
        orphans = [each.key for each in self._objects.listed() if each.at < until]
        with self._reading() as connection:  # After they were listed.
            orphans = outside.unnamed(connection, orphans)
        for key in orphans:
            self._objects.delete(key)
        return len(orphans)

    def _moved(self, objects: Objects) -> Moved:
        """Some of what is due."""
        with self._reading() as connection:
            bodies, parts = outside.due_bodies(connection), outside.due_parts(connection)
        if bodies:
            self._cover()
        kept = outside.put_bodies(self._reading, objects, bodies)
        if kept:
            self.write(lambda: outside.take_bodies(self._transaction.writing(), kept))
        held = outside.put_parts(self._reading, objects, parts)
        taken = [each for part, each in held if self.write(partial(self._take, part, each))]
        size = sum(each.size for each in (*kept, *taken))
        return Moved(len(kept), len(taken), size)

    def _take(self, part: outside.Part, kept: Kept) -> bool:
        self.hold(part.world_id)
        return outside.take_part(self._transaction.writing(), part, kept)

    def _cover(self) -> None:
        """INVARIANT: a world is opened, and stopped, without the object store: no body leaves
        before a checkpoint stands for it."""
        with self._reading() as connection:
            behind = checkpoint.behind(connection)
        for world_id in behind:
            self.write(partial(self._checkpoint, world_id))

    def _checkpoint(self, world_id: WorldId) -> None:
        self.hold(world_id)
        hot = self._head(world_id)
        checkpoint.write(self._transaction.writing(), hot)
        self._transaction.changed[world_id] = replace(hot, checkpoint_seq=hot.view.seq)

    # ---- The head of each world --------------------------------------------------------------

    def load(self, world_id: WorldId) -> WorldView:
        return self._head(world_id).view

    def at_hand(self, world_id: WorldId) -> WorldView | None:
        found = None if self._database.shared else self._hot.get(world_id)
        return None if found is None else found.view

    def _head(self, world_id: WorldId) -> Hot:
        written = self._transaction.changed.get(world_id) if self._writer.here else None
        found = written or self._hot.get(world_id)
        if found is None:
            return self._warm(world_id)
        # What this batch wrote to, it holds.
        return found if written or not self._database.shared else self._followed(found)

    def _warm(self, world_id: WorldId) -> Hot:
        """The world from disk, kept from here on unless nobody ever wrote to it."""
        with self._warming:  # Others that want it wait for the one who reads it.
            found = self._hot.get(world_id)
            if found is None:
                with self._reading_at_once(world_id) as connection:
                    found = vouched(connection, world_id)
                if found.view.seq:
                    self._publish({world_id: found})
            return found

    def _followed(self, known: Hot) -> Hot:
        """With what other processes wrote to the world since."""
        with self._reading() as connection:
            if journal.head(connection, known.view.world_id) == known.head:
                return known
        with self._warming, self._reading_at_once(known.view.world_id) as connection:
            known = self._hot.get(known.view.world_id, known)
            found = vouched(connection, known.view.world_id, known)
        self._publish({found.view.world_id: found})
        return found

    def _publish(self, changed: Mapping[WorldId, Hot]) -> None:
        """INVARIANT: a world that is known never goes back; its seq says how far it has come."""
        with self._publishing:
            for world_id, hot in changed.items():
                known = self._hot.get(world_id)
                if known is None or known.view.seq < hot.view.seq:
                    self._hot[world_id] = hot

    def _forget(self, world_id: WorldId) -> None:
        with self._publishing:
            self._hot.pop(world_id, None)
            self._transaction.changed.pop(world_id, None)

    # ---- Reading -----------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A job reads what it wrote; others, on connections of their own, what is durable."""
        if self._writer.here:
            yield self._transaction.connection
        else:
            with told(), self._database.reader.connect() as connection:
                yield connection

    @contextmanager
    def _reading_at_once(self, world_id: WorldId) -> Iterator[Connection]:
        """The same, all of it as of one instant."""
        alone = not self._database.shared or world_id in self._transaction.held
        if self._writer.here and alone:
            yield self._transaction.connection
            return
        with told(), self._database.reader.connect() as connection:
            connection.exec_driver_sql(self._database.begin_reading)
            try:
                yield connection
            finally:
                if self._database.begun(connection) is not Begun.NOT:  # Else it was given up.
                    connection.exec_driver_sql("COMMIT")

    def journal(self, world_id: WorldId, after: int, limit: int) -> list[Entry]:
        with self._reading() as connection:
            return journal.read(connection, world_id, after, limit)

    def chained(self, world_id: WorldId, after: int, limit: int) -> list[ChainedEntry]:
        with self._reading() as connection:
            return journal.chained(connection, world_id, after, limit)

    def head(self, world_id: WorldId) -> Head:
        with self._reading() as connection:
            return journal.head(connection, world_id)

    def verify(self, world_id: WorldId) -> int | None:
        """The first journal entry that is missing or was edited; None when all is well."""
        with self._reading_at_once(world_id) as connection:
            return journal.first_bad_seq(connection, world_id)

    def audit(self, world_id: WorldId) -> list[str]:
        """How the tables differ from what the journal says, in words; empty when they agree."""
        with self._reading_at_once(world_id) as connection:
            return audit.differences(connection, world_id)

    def series(self, world_id: WorldId, strategy_id: StrategyId, stage: Stage) -> Series:
        with self._reading() as connection:
            found = reads.series(connection, world_id, strategy_id, stage)
        # INVARIANT: a job judges all the points that its view counts.  Others may look while the
        # world moves on.
        if self._writer.here and len(found.t) != self._points(world_id, strategy_id, stage):
            raise StoreDamaged(f"The {stage} returns of {strategy_id} are not all there.")
        return found

    def _points(self, world_id: WorldId, strategy_id: StrategyId, stage: Stage) -> int:
        view = self._head(world_id).view
        strategy = view.strategies.get(strategy_id)
        return 0 if strategy is None else int(view.tracks[stage].points[strategy.row])

    def snapshot(self, world_id: WorldId, version: str) -> StoredSnapshot | None:
        with self._reading() as connection:
            found = reads.snapshots(connection, world_id, 1, NEWEST, version=version)
        return found[0] if found else None

    def snapshot_at(self, world_id: WorldId, seq: int) -> StoredSnapshot | None:
        known = self._hot.get(world_id)
        # INVARIANT: what is kept is durable. What a job wrote may yet be undone.
        durable = known is not None and seq <= known.view.seq
        return (self._kept_snapshot if durable else self._snapshot_at)(world_id, seq)

    def _snapshot_at(self, world_id: WorldId, seq: int) -> StoredSnapshot | None:
        found = self.journal(world_id, seq - 1, 1)
        if not found and 0 < seq <= self._head(world_id).view.seq:
            raise StoreDamaged(f"Entry {seq} of the journal of {world_id} is missing.")
        return snapshot_of(found[0]) if found else None

    def reduction(self, world_id: WorldId, seq: int, at: datetime) -> Reduced | None:
        with self._reading() as connection:
            return reduction.reduction(connection, world_id, seq, at)

    def snapshots(
        self,
        world_id: WorldId,
        limit: int,
        before: int | None = None,
        stage: Stage | None = None,
        actor: ActorId | None = None,
    ) -> list[StoredSnapshot]:
        with self._reading() as connection:
            return reads.snapshots(
                connection, world_id, limit, NEWEST, before=before, stage=stage, actor=actor
            )

    def latest_snapshot(
        self,
        world_id: WorldId,
        stage: Stage | None = None,
        actor: ActorId | None = None,
        as_of: datetime | None = None,
    ) -> StoredSnapshot | None:
        until = None if as_of is None else micros(as_of)
        with self._reading() as connection:
            found = reads.snapshots(
                connection, world_id, 1, LATEST, until=until, stage=stage, actor=actor
            )
        return found[0] if found else None

    def run(self, world_id: WorldId, strategy_id: StrategyId, run_id: RunId) -> StoredRun | None:
        with self._reading() as connection:
            return reads.run(connection, world_id, strategy_id, run_id)

    def runs(
        self, world_id: WorldId, strategy_id: StrategyId, limit: int, before: int | None = None
    ) -> list[StoredRun]:
        with self._reading() as connection:
            return reads.runs(connection, world_id, strategy_id, limit, before)

    def revisions(
        self, world_id: WorldId, strategy_id: StrategyId, run_id: RunId
    ) -> list[StoredRun]:
        with self._reading() as connection:
            return reads.revisions(connection, world_id, strategy_id, run_id)

    def remembered(self, actor: ActorId, key: str) -> tuple[str, int, bytes] | None:
        with self._reading() as connection:
            return answers.remembered(connection, actor, key)

    @property
    def shared(self) -> bool:
        """Whether other processes write to it, too."""
        return self._database.shared

    @property
    def replayed(self) -> bool:
        """Whether it ever lived under a replay clock: an instant that one showed is kept."""
        with self._reading() as connection:
            return connection.exec_driver_sql("SELECT 1 FROM clock").first() is not None

    def last_instant(self) -> datetime | None:
        """The latest instant that anything was recorded at, or that a replay clock showed."""
        with self._reading() as connection:
            return reads.last_instant(connection)


def _database(where: Path | str, connect: folder.Connect) -> Database:
    if isinstance(where, Path):
        return folder.database(where, connect)
    from . import postgres  # Its driver is not needed for a folder, and may not be installed.

    return postgres.database(where)


def _held(connection: Connection, world_id: WorldId, waits: bool) -> bool:
    """Whether the world is this process's until the transaction ends; False only of who does not
    wait.  A world that nobody has written to has no row: who would be the first holds its name."""
    key, hold = {"world_id": world_id}, HOLD if waits else f"{HOLD} SKIP LOCKED"
    if connection.exec_driver_sql(hold, key).first() is not None:
        return True
    if journal.head(connection, world_id).seq:
        return False
    first = FIRST if waits else FIRST_AT_ONCE
    if connection.exec_driver_sql(first, {**key, "worlds": WORLDS}).scalar() is False:
        return False
    # Another may have been the first, just now.
    held = connection.exec_driver_sql(hold, key).first() is not None
    return held or not journal.head(connection, world_id).seq
