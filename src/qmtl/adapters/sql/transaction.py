"""What the jobs of the running batch have written, and nobody else may see yet.

A batch is one transaction; each job in it is a savepoint, so that one that fails is undone alone.
Nothing is begun before something is written: a job that only reads costs the disk nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from qmtl.app.ports import Head
from qmtl.core.names import WorldId
from qmtl.core.view import WorldView

from .database import Begun, Database


@dataclass(frozen=True, slots=True)
class Hot:
    """A world at its head, as a process keeps it."""

    view: WorldView
    head_hash: str  # Of the journal entry at the view's seq.
    checkpoint_seq: int  # Of the newest checkpoint on disk.

    @property
    def head(self) -> Head:
        return Head(self.view.seq, self.head_hash)


@dataclass(slots=True)
class _Mark:
    """A job that runs: what had changed and was held before it, and whether it has its savepoint
    yet."""

    changed: dict[WorldId, Hot]
    held: frozenset[WorldId]
    saved: bool = False


class TransactionLost(Exception):
    """The engine gave up the whole transaction, as on a full disk: earlier jobs are gone too."""


class Transaction:
    """Used by the writer's thread alone."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection
        self.changed: dict[WorldId, Hot] = {}
        self.held: frozenset[WorldId] = frozenset()  # Of the shared database: nobody else's now.
        self._marks: list[_Mark] = []
        self._begun = False

    @property
    def in_job(self) -> bool:
        return bool(self._marks)

    @property
    def begun(self) -> bool:
        """Whether the batch has written, or holds anything that another process may wait for."""
        return self._begun

    @property
    def connection(self) -> Connection:
        """As the batch is now.  Raises TransactionLost when nothing is left of what it wrote."""
        if self._begun and self._standing is Begun.NOT:
            raise TransactionLost
        if self._connection.invalidated:  # The server went away: the next statement calls it again.
            self._connection.rollback()
        return self._connection

    def enter(self) -> None:
        """A job begins, perhaps within another."""
        self._marks.append(_Mark(dict(self.changed), self.held))

    def leave(self, kept: bool) -> None:
        """The innermost job ends.  Raises TransactionLost when it cannot be undone alone."""
        mark = self._marks.pop()
        if not mark.saved:
            return
        name = f"job_{len(self._marks)}"
        if not kept:
            self.changed, self.held = mark.changed, mark.held
            if self._standing is Begun.NOT:
                raise TransactionLost
            self._run(f"ROLLBACK TO {name}")
        self._run(f"RELEASE {name}")

    def writing(self) -> Connection:
        """The connection, ready to write what the running job may take back."""
        assert self._marks, "only a job writes"
        if not self._begun:
            self._run(self._database.begin)
            self._begun = True
        elif self._standing is not Begun.OPEN:
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
            # INVARIANT: PostgreSQL's COMMIT of a broken transaction keeps nothing, and is silent.
            if self._standing is not Begun.OPEN:
                raise TransactionLost
            self._run("COMMIT")
            publish(self.changed)
        self._reset()

    def abandon(self) -> None:
        """The batch never was."""
        try:
            if self._standing is not Begun.NOT:
                self._run("ROLLBACK")
        finally:
            self._reset()

    def _reset(self) -> None:
        self.changed, self.held, self._marks, self._begun = {}, frozenset(), [], False

    @property
    def _standing(self) -> Begun:
        return self._database.begun(self._connection)

    def _run(self, statement: str) -> None:
        self.connection.exec_driver_sql(statement)
