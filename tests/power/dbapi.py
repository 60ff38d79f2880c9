"""apsw, spoken to as the standard library's sqlite3 is: as much of it as SQLAlchemy needs here.

The product runs on `sqlite3`, whose SQLite takes no VFS from Python; apsw brings another one that
does. This is what stands between the two, so that the store's own code runs on a simulated disk.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import apsw

Parameters = Mapping[str, Any] | Sequence[Any]
LOG_PAGES = 1_000  # SQLite's default.
PRIMARY_CODE = 0xFF  # Of an extended error code.

# As CPython's Modules/_sqlite/util.c sorts them; what is not named there is a DatabaseError.
KINDS: tuple[tuple[type[sqlite3.Error], tuple[int, ...]], ...] = (
    (sqlite3.InternalError, (apsw.SQLITE_INTERNAL, apsw.SQLITE_NOTFOUND)),
    (
        sqlite3.OperationalError,
        (
            *(apsw.SQLITE_ERROR, apsw.SQLITE_PERM, apsw.SQLITE_ABORT, apsw.SQLITE_BUSY),
            *(apsw.SQLITE_LOCKED, apsw.SQLITE_READONLY, apsw.SQLITE_INTERRUPT, apsw.SQLITE_IOERR),
            *(apsw.SQLITE_FULL, apsw.SQLITE_CANTOPEN, apsw.SQLITE_PROTOCOL, apsw.SQLITE_EMPTY),
            apsw.SQLITE_SCHEMA,
        ),
    ),
    (sqlite3.DataError, (apsw.SQLITE_TOOBIG,)),
    (sqlite3.IntegrityError, (apsw.SQLITE_CONSTRAINT, apsw.SQLITE_MISMATCH)),
    (sqlite3.InterfaceError, (apsw.SQLITE_MISUSE, apsw.SQLITE_RANGE)),
)


def translated(error: apsw.Error) -> sqlite3.Error:
    """The error as sqlite3 would have raised it."""
    code = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
    primary = code & PRIMARY_CODE
    kind = next((kind for kind, codes in KINDS if primary in codes), sqlite3.DatabaseError)
    told = kind(str(error))
    told.sqlite_errorcode = code
    return told


def run(statement: Callable[[], Any]) -> Any:
    try:
        return statement()
    except apsw.Error as error:
        raise translated(error) from error
    except UnicodeDecodeError as error:
        raise sqlite3.OperationalError("Could not decode to UTF-8 column") from error


class Cursor:
    """Rows are fetched at once: a read ends when it is answered."""

    arraysize = 1
    lastrowid = None

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._rows: Iterator[Any] = iter(())
        self.description: tuple[Any, ...] | None = None
        self.rowcount = -1

    def execute(self, sql: str, parameters: Parameters = ()) -> "Cursor":
        return self._run(lambda cursor: cursor.execute(sql, parameters))

    def executemany(self, sql: str, parameters: Sequence[Parameters]) -> "Cursor":
        return self._run(lambda cursor: cursor.executemany(sql, parameters))

    def _run(self, ask: Callable[[apsw.Cursor], Any]) -> "Cursor":
        cursor, before = self._connection.cursor(), self._connection.total_changes()
        self.description = None

        def described(running: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
            columns = running.get_description()
            self.description = tuple((name, *[None] * 6) for name, *_ in columns) or None
            return True

        cursor.exec_trace = described  # apsw describes no statement that has ended.
        try:
            self._rows = iter(run(lambda: list(ask(cursor))))
        finally:
            cursor.close(force=True)
        changed = self._connection.total_changes() - before
        self.rowcount = changed if self.description is None else -1
        return self

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchmany(self, size: int = arraysize) -> list[Any]:
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def close(self) -> None:
        self._rows = iter(())


class Connection:
    """Nothing is begun but by a statement that says so, as the product has it."""

    isolation_level = None

    def __init__(self, uri: str, vfs: str, log_pages: int = LOG_PAGES) -> None:
        """A log of `log_pages` or more is copied into the database at the next commit."""
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        self.apsw = run(lambda: apsw.Connection(uri, flags=flags, vfs=vfs))

        def copied(connection: apsw.Connection, database: str, pages: int) -> int:
            # sqlite3WalDefaultHook, but for errors: apsw would raise what SQLite ignores there.
            if pages >= log_pages:
                with suppress(apsw.Error):
                    connection.wal_checkpoint(database)
            return apsw.SQLITE_OK

        self.apsw.set_wal_hook(copied)

    @property
    def in_transaction(self) -> bool:
        return bool(self.apsw.in_transaction)

    def cursor(self) -> Cursor:
        return Cursor(self.apsw)

    def execute(self, sql: str, parameters: Parameters = ()) -> Cursor:
        return self.cursor().execute(sql, parameters)

    def create_function(self, name: str, narg: int, func: Any, *, deterministic: bool) -> None:
        self.apsw.create_scalar_function(name, func, narg, deterministic=deterministic)

    def commit(self) -> None:
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        run(lambda: self.apsw.close(force=True))
