"""What can go wrong with a database, said to whoever started the server or asked it something."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

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


class FolderInUse(Refusal):
    """Another process serves this data folder: SQLite has one writer.  Stop it first."""


class UnknownSchema(Refusal):
    """The database is not of a version that this program knows; a newer one may have written it."""


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
    origin = error.orig if isinstance(error, DBAPIError) else error
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


@contextmanager
def told() -> Iterator[None]:
    """A disk that fails is a refusal, and in the log.  Raises StoreAway, StoreDamaged."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        refused = refusal(error)
        if refused is None:
            raise
        LOG.error("%s", refused)
        raise refused from error
