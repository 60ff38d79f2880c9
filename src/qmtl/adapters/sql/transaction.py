"""What the jobs of the running batch have written, and nobody else may see yet.

A batch is one transaction; each job in it is a savepoint, so that one that fails is undone alone.
Nothing is begun before something is written: a job that only reads costs the disk nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from qmtl.core.names import WorldId
from qmtl.core.view import WorldView


@dataclass(frozen=True, slots=True)
class Hot:
    """A world at its head, as a process keeps it."""

    view: WorldView
    head_hash: str  # Of the journal entry at the view's seq.
    checkpoint_seq: int  # Of the newest checkpoint on disk.


@dataclass(slots=True)
class _Mark:
    """A job that runs: what had changed before it, and whether it has its savepoint yet."""

    changed: dict[WorldId, Hot]
    saved: bool = False


class TransactionLost(Exception):
    """SQLite gave up the whole transaction, as on a full disk: earlier jobs are gone too."""


class Transaction:
    """Used by the writer's thread alone."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.changed: dict[WorldId, Hot] = {}
        self._marks: list[_Mark] = []
        self._begun = False

    @property
    def in_job(self) -> bool:
        return bool(self._marks)

    def enter(self) -> None:
        """A job begins, perhaps within another."""
        self._marks.append(_Mark(dict(self.changed)))

    def leave(self, kept: bool) -> None:
        """The innermost job ends.  Raises TransactionLost when it cannot be undone alone."""
        mark = self._marks.pop()
        if not mark.saved:
            return
        name = f"job_{len(self._marks)}"
        if not kept:
            self.changed = mark.changed
            if not self._in_transaction():
                raise TransactionLost
            self._run(f"ROLLBACK TO {name}")
        self._run(f"RELEASE {name}")

    def writing(self) -> Connection:
        """The connection, ready to write what the running job may take back."""
        assert self._marks, "only a job writes"
        if not self._begun:
            self._run("BEGIN IMMEDIATE")
            self._begun = True
        elif not self._in_transaction():
            # INVARIANT: a job that goes on after an error never writes outside the transaction.
            raise TransactionLost
        for depth, mark in enumerate(self._marks):
            if not mark.saved:
                self._run(f"SAVEPOINT job_{depth}")
                mark.saved = True
        return self.connection

    def commit(self, publish: Callable[[dict[WorldId, Hot]], None]) -> None:
        """Make the batch durable, and only then known."""
        assert not self._marks, "every job has ended"
        if self._begun:
            self._run("COMMIT")
            publish(self.changed)
        self._reset()

    def abandon(self) -> None:
        """The batch never was."""
        try:
            if self._in_transaction():
                self._run("ROLLBACK")
        finally:
            self._reset()

    def _reset(self) -> None:
        self.changed, self._marks, self._begun = {}, [], False

    def _in_transaction(self) -> bool:
        return in_transaction(self.connection)

    def _run(self, statement: str) -> None:
        self.connection.exec_driver_sql(statement)


def in_transaction(connection: Connection) -> bool:
    """Whether SQLite has one open: it may have given up by itself what was begun."""
    dbapi = connection.connection.dbapi_connection
    assert dbapi is not None, "the connection is open"
    return bool(dbapi.in_transaction)
