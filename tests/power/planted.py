"""Bugs put into the store on purpose: a harness that does not find them proves nothing.

Those of SQL sit in the connection, between the store and SQLite, and twist what the store asks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from threading import Event
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from qmtl.adapters.sql import journal, reads
from qmtl.adapters.sql.transaction import Transaction
from qmtl.adapters.sql.writer import Waiter, Writer

from . import dbapi, vfs
from .cases import Case
from .rig import Connect
from .vfs import Recorder

NOTED_SEC = 1.0  # The caller notes its answer in far less; who closes the store notes none.


def synchronous(level: str) -> Callable[[Case], Connect]:
    """Commits that do not wait for the disk."""

    class Hurried(dbapi.Connection):
        def execute(self, sql: str, parameters: dbapi.Parameters = ()) -> dbapi.Cursor:
            hurried = sql.replace("synchronous = FULL", f"synchronous = {level}")
            return super().execute(hurried, parameters)

    return lambda case: lambda uri: Hurried(uri, vfs.NAME, case.log_pages)


def in_a_second_transaction(table: str) -> Callable[[Case], Connect]:
    """What goes into one table is written after the commit, in a transaction of its own."""

    class Late(dbapi.Connection):
        def __init__(self, *given: Any) -> None:
            self.late: list[tuple[str, Any]] = []
            super().__init__(*given)

        def cursor(self) -> dbapi.Cursor:
            return LateCursor(self)

    class LateCursor(dbapi.Cursor):
        def __init__(self, connection: Late) -> None:
            self._late = connection.late
            super().__init__(connection.apsw)

        def execute(self, sql: str, parameters: dbapi.Parameters = ()) -> dbapi.Cursor:
            if sql.startswith(f"INSERT INTO {table} "):
                return self.executemany(sql, [parameters])
            done = super().execute(sql, parameters)
            if sql == "COMMIT" and self._late:
                super().execute("BEGIN IMMEDIATE")
                for statement, many in self._late:
                    super().executemany(statement, many)
                self._late.clear()
                super().execute("COMMIT")
            return done

        def executemany(self, sql: str, parameters: Sequence[dbapi.Parameters]) -> dbapi.Cursor:
            if sql.startswith(f"INSERT INTO {table} "):
                self._late.append((sql, parameters))
                self.rowcount = len(parameters)
                return self
            return super().executemany(sql, parameters)

    return lambda case: lambda uri: Late(uri, vfs.NAME, case.log_pages)


def never_written(table: str) -> Callable[[Case], Connect]:
    """A fact without its row."""

    class Deaf(dbapi.Connection):
        def cursor(self) -> dbapi.Cursor:
            return DeafCursor(self.apsw)

    class DeafCursor(dbapi.Cursor):
        def execute(self, sql: str, parameters: dbapi.Parameters = ()) -> dbapi.Cursor:
            if sql.startswith(f"INSERT INTO {table} "):
                return self
            return super().execute(sql, parameters)

        def executemany(self, sql: str, parameters: Sequence[dbapi.Parameters]) -> dbapi.Cursor:
            if sql.startswith(f"INSERT INTO {table} "):
                return self
            return super().executemany(sql, parameters)

    return lambda case: lambda uri: Deaf(uri, vfs.NAME, case.log_pages)


@contextmanager
def answered_before_the_commit() -> Iterator[None]:
    """The writer tells callers what their jobs came to, and then makes it durable."""
    noted, attempt, answered = Event(), Writer._attempt, Recorder.answered

    def hasty(writer: Writer, waiter: Waiter, first: Waiter) -> Callable[[], None]:
        noted.clear()
        attempt(writer, waiter, first)()
        noted.wait(NOTED_SEC)
        return lambda: None

    def note(recorder: Recorder, step: int) -> None:
        answered(recorder, step)
        noted.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "_attempt", hasty)
        patch.setattr(Recorder, "answered", note)
        yield


@contextmanager
def commits_that_fail_unnoticed() -> Iterator[None]:
    run = Transaction._run

    def careless(transaction: Transaction, statement: str) -> None:
        with suppress(OperationalError) if statement == "COMMIT" else nullcontext():
            run(transaction, statement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transaction, "_run", careless)
        yield


@contextmanager
def unchecked_bodies() -> Iterator[None]:
    """The journal is believed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_is_body", lambda body, digest: True)
        yield


@contextmanager
def unchecked_series() -> Iterator[None]:
    """Returns are believed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reads, "is_whole", lambda blobs, told: True)
        yield
