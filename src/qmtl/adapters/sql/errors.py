"""What can go wrong with a database, said to whoever started the server or asked it something."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from qmtl.core.errors import Refusal, Unknown

LOG = logging.getLogger("qmtl.store")
PRIMARY_CODE = 0xFF  # The rest of an SQLite error code says where it happened.
DISK_FULL = "The disk of the data folder is full: make room there."
DISK_FAILS = "The disk of the data folder fails: the system's log says more."
AWAY = {
    sqlite3.SQLITE_FULL: DISK_FULL,
    sqlite3.SQLITE_IOERR: DISK_FAILS,
    sqlite3.SQLITE_CANTOPEN: DISK_FAILS,
    sqlite3.SQLITE_READONLY: "The data folder cannot be written: see to its permissions.",
    sqlite3.SQLITE_BUSY: "Another program holds the database: close it.",
    sqlite3.SQLITE_LOCKED: "Another program holds the database: close it.",
}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
NO_TEXT = "Could not decode to UTF-8"  # The driver says so, without a code.
# Statements are constants, and what they write is derived from the journal: where they do not fit
# the tables, the tables are others; a trigger refuses an entry where one is. A CHECK is for bugs.
CONTRADICTED = {
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_TRIGGER,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
}
NOT_AS_MADE = (
    *("no such table", "no such column", "no such function", "has no column named"),
    "foreign key mismatch",
)

DEADLOCK = "40P01"
SERVER_AWAY = "The database server cannot be reached, or is stopping."
SERVER_FULL = "The database server has no room: connections, memory or disk."
HELD = "Another process holds what this would write: ask again."
# By class of SQLSTATE, or by the whole of it.
AWAY_OF_POSTGRESQL = {
    "08": SERVER_AWAY,
    "57": SERVER_AWAY,
    "53": SERVER_FULL,
    "53100": "The disk of the database server is full: make room there.",
    "58": "The disk of the database server fails: its log says more.",
    "40": HELD,
    "55P03": HELD,
    "57014": HELD,
    "25006": "The database server takes no writes: it is a standby, or was made read-only.",
    "28": "The database server knows no such user, or the password is another.",
    "3D": "The database server has no such database: make it first.",
    "42501": "The database server forbids it: the user needs rights on its tables.",
}
DAMAGED_OF_POSTGRESQL = {"23502", "23503", "23505", "P0001", "XX001", "XX002", "42P01", "42703"}


class FolderInUse(Refusal):
    """Another process serves this data folder: SQLite has one writer.  Stop it first."""


class UnknownSchema(Refusal):
    """The database is not of a version that this program knows; a newer one may have written it."""


class IsBackup(UnknownSchema):
    """It is a backup: it would bring back what was stopped since.  Use qmtl db restore."""


class StoreAway(Refusal):
    """The database cannot be read or written now.  Ask again: done twice is done once."""

    status = 503


class StoreDamaged(StoreAway):
    """What the disk gave is not what was written.  Stop the server; check the disk; restore."""


class BodyDropped(Unknown):
    """Retention has dropped what this journal entry said; that it was said is still on record."""

    status = 410


def refusal(error: BaseException | None) -> Refusal | None:
    """What the disk did to a statement; None of an error that the program itself made."""
    if isinstance(error, NoConnection):
        return StoreAway("All connections to the database are in use.")
    origin = error.orig if isinstance(error, DBAPIError) else error
    if hasattr(origin, "sqlstate"):  # Without importing the driver, which may not be installed.
        return _refusal_of_postgresql(error, origin)
    if not isinstance(origin, sqlite3.Error):
        return None
    extended = getattr(origin, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & PRIMARY_CODE
    if code in DAMAGED or str(origin).startswith(NO_TEXT):
        return StoreDamaged(f"SQLite says: {origin}.")
    if extended in CONTRADICTED:
        return StoreDamaged(f"Its rows are not those of its journal; SQLite says: {origin}.")
    if code == sqlite3.SQLITE_ERROR and any(said in str(origin) for said in NOT_AS_MADE):
        return StoreDamaged(f"Its tables are not as they were made; SQLite says: {origin}.")
    if code in AWAY:
        return StoreAway(AWAY[code], f"SQLite says: {origin}.")
    return None


def is_deadlock(error: BaseException | None) -> bool:
    """Whether PostgreSQL stopped a statement because two processes waited for each other."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__
    return error is not None and getattr(error.orig, "sqlstate", None) == DEADLOCK


def _refusal_of_postgresql(error: BaseException | None, origin: Any) -> Refusal | None:
    state = origin.sqlstate or ("08" if _is_lost(error) else "")
    said = f"PostgreSQL says: {str(origin).strip()}"
    if state in DAMAGED_OF_POSTGRESQL:
        return StoreDamaged(said)
    away = AWAY_OF_POSTGRESQL.get(state) or AWAY_OF_POSTGRESQL.get(state[:2])
    return None if away is None else StoreAway(away, said)


def _is_lost(error: BaseException | None) -> bool:
    """Of an error without a code: never connected, or no more."""
    return isinstance(error, OperationalError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


@contextmanager
def told() -> Iterator[None]:
    """A disk that fails is a refusal, and in the log.  Raises StoreAway, StoreDamaged."""
    try:
        yield
    except (DBAPIError, NoConnection, sqlite3.Error) as error:
        refused = refusal(error)
        if refused is None:
            raise
        if not is_deadlock(error):  # Its job is tried again.
            LOG.error("%s", refused)
        raise refused from error
