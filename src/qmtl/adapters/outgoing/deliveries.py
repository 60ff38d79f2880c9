"""What was told to whom, how far each journal has been read, and what is still to be told.

A SQLite file of the notifier's own.  INVARIANT: how far a journal was read moves in the transaction
that keeps what it told; so whatever happens in between, a notice is sent, and under one id.

The rollback journal, not WAL: `qmtl notify replay` writes beside the notifier (DESIGN 8).
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Any, Final, Literal

from qmtl.adapters.directories import made
from qmtl.core.errors import Refusal
from qmtl.core.times import instant, micros

BUSY_SEC: Final = 30.0
VERSION: Final = 1
KEEP: Final = timedelta(days=90)  # Of what was settled; what waits is kept until it is.
SCHEMA: Final = """
CREATE TABLE positions (
  world_id TEXT PRIMARY KEY, seq INTEGER NOT NULL CHECK (seq >= 0), hash TEXT NOT NULL
) STRICT;
CREATE TABLE standing (
  target TEXT NOT NULL, world_id TEXT NOT NULL, key TEXT NOT NULL,
  PRIMARY KEY (target, world_id, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE deliveries (
  number INTEGER PRIMARY KEY,
  message_id TEXT NOT NULL, target TEXT NOT NULL, world_id TEXT NOT NULL, about TEXT NOT NULL,
  seq INTEGER, title TEXT NOT NULL, message TEXT NOT NULL, made_at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0, due_at INTEGER NOT NULL, tried_at INTEGER,
  status INTEGER, said TEXT NOT NULL DEFAULT '',
  UNIQUE (message_id, target)
) STRICT;
CREATE INDEX due ON deliveries (target, state, due_at);
"""

State = Literal["waiting", "delivered", "failed"]


class NotifierRuns(Refusal):
    """Another notifier works with this state; one is enough."""


class UnknownState(Refusal):
    """The state file is not one that this program reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """A message for one target.  `message` is all of it, as plain values."""

    message_id: str
    target: str
    world_id: str
    about: str
    seq: int | None
    title: str
    message: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message and what became of it.  Times are UTC; `status` is HTTP's or SMTP's."""

    number: int
    message_id: str
    target: str
    world_id: str
    about: str
    seq: int | None
    title: str
    message: dict[str, Any]
    made_at: datetime
    state: State
    attempts: int
    due_at: datetime
    tried_at: datetime | None
    status: int | None
    said: str


@dataclass(frozen=True, slots=True)
class Position:
    seq: int
    hash: str


class Deliveries:
    """The file, opened and made if need be.  May be used by several threads.

    Raises UnknownState.
    """

    def __init__(self, path: Path) -> None:
        made(path.absolute().parent)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self.path = path
        self._lock = RLock()
        self._db = sqlite3.connect(
            path, timeout=BUSY_SEC, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._writing():
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {VERSION}")
                elif version != VERSION:
                    raise UnknownState(f"{path} is of version {version}, not {VERSION}.")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise UnknownState(f"{path}: {error}.") from error

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:  # It did not come so far.
                    self._db.execute("ROLLBACK")

    # ---- What is to be told ------------------------------------------------------------------

    def position(self, world_id: str) -> Position | None:
        """How far the world's journal was read; None: never."""
        with self._lock:
            query = "SELECT seq, hash FROM positions WHERE world_id = ?"
            found = self._db.execute(query, (world_id,)).fetchone()
        return None if found is None else Position(*found)

    def standing(self, target: str, world_id: str) -> frozenset[str]:
        """The keys of what stands in a world, as the target was told."""
        with self._lock:
            query = "SELECT key FROM standing WHERE target = ? AND world_id = ?"
            return frozenset(key for (key,) in self._db.execute(query, (target, world_id)))

    def keep(
        self,
        world_id: str,
        position: Position,
        standing: dict[str, frozenset[str]],
        new: Sequence[New],
        now: datetime,
    ) -> None:
        """All of what one look at a world found, or nothing of it.  The same again is once."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT (world_id) "
                "DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
                (world_id, position.seq, position.hash),
            )
            for target, keys in standing.items():
                db.execute(
                    "DELETE FROM standing WHERE target = ? AND world_id = ?", (target, world_id)
                )
                rows = [(target, world_id, key) for key in sorted(keys)]
                db.executemany("INSERT INTO standing VALUES (?, ?, ?)", rows)
            self._add(db, new, now)
            settled = micros(now - KEEP)
            db.execute(
                "DELETE FROM deliveries WHERE state <> 'waiting' AND made_at < ?", (settled,)
            )

    def _add(self, db: sqlite3.Connection, new: Iterable[New], now: datetime) -> None:
        at = micros(now)
        db.executemany(
            "INSERT INTO deliveries (message_id, target, world_id, about, seq, title, message, "
            "made_at, state, due_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?) "
            "ON CONFLICT (message_id, target) DO NOTHING",
            [
                (
                    *(n.message_id, n.target, n.world_id, n.about, n.seq, n.title),
                    *(json.dumps(n.message), at, at),
                )
                for n in new
            ],
        )

    # ---- Telling it --------------------------------------------------------------------------

    def due(self, target: str, now: datetime) -> Delivery | None:
        """What to tell a target next; None when nothing is due."""
        found = self._some(
            "state = 'waiting' AND target = ? AND due_at <= ? ORDER BY due_at, number LIMIT 1",
            (target, micros(now)),
        )
        return found[0] if found else None

    def tried(
        self,
        delivery: Delivery,
        state: State,
        said: str,
        status: int | None,
        now: datetime,
        due_at: datetime,
        quiet_until: datetime | None = None,
    ) -> None:
        """What became of one more attempt.  Until `quiet_until` the target is told nothing else."""
        with self._writing() as db:
            db.execute(
                "UPDATE deliveries SET state = ?, said = ?, status = ?, attempts = attempts + 1, "
                "tried_at = ?, due_at = ? WHERE number = ?",
                (state, said, status, micros(now), micros(due_at), delivery.number),
            )
            if quiet_until is not None:
                db.execute(
                    "UPDATE deliveries SET due_at = ? "
                    "WHERE target = ? AND state = 'waiting' AND due_at < ?",
                    (micros(quiet_until), delivery.target, micros(quiet_until)),
                )

    def again(self, message_id: str, target: str | None, now: datetime) -> list[Delivery]:
        """Make a message due once more, for one target or all that it was for; those it is now."""
        with self._writing() as db:
            where, values = "message_id = ?", [message_id]
            if target is not None:
                where, values = where + " AND target = ?", [*values, target]
            db.execute(
                f"UPDATE deliveries SET state = 'waiting', attempts = 0, due_at = ? WHERE {where}",
                (micros(now), *values),
            )
            return self._some(f"{where} ORDER BY number", tuple(values))

    def log(self, limit: int, state: State | None = None) -> list[Delivery]:
        """The newest first."""
        where, values = ("state = ?", (state,)) if state is not None else ("TRUE", ())
        return self._some(f"{where} ORDER BY number DESC LIMIT ?", (*values, limit))

    def _some(self, where: str, values: tuple[object, ...]) -> list[Delivery]:
        names = list(Delivery.__dataclass_fields__)
        query = f"SELECT {', '.join(names)} FROM deliveries WHERE {where}"
        with self._lock:
            rows = self._db.execute(query, values).fetchall()
        return [_delivery(dict(zip(names, row, strict=True))) for row in rows]


def _delivery(row: dict[str, Any]) -> Delivery:
    for name in ("made_at", "due_at", "tried_at"):
        row[name] = None if row[name] is None else instant(row[name])
    return Delivery(**{**row, "message": json.loads(row["message"])})


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """One notifier works with a state file.  Raises NotifierRuns.  The lock is the kernel's."""
    made(path.absolute().parent)
    lock = path.with_name(f"{path.name}.lock")
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotifierRuns(f"It holds {path}.") from None
        yield
    finally:
        os.close(descriptor)
