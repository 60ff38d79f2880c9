"""The data folder: owned by one process, its database of the schema this program knows."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine

from qmtl.adapters.directories import made

from .database import Begun, Database
from .errors import FolderInUse, IsBackup, UnknownSchema
from .migrate import upgrade
from .schema import BACKUP, HEAD, REVISIONS, definition

DATABASE = "qmtl.db"
LOCK = "lock"
READERS_MAX = 8  # A read takes well under a millisecond; more connections would only share a core.
READER_WAIT_SEC = 30.0
CACHE_KIB = 65_536

Connect = Callable[[str], sqlite3.Connection]  # To the database of a URI, nothing begun.


def sqlite(uri: str) -> sqlite3.Connection:
    """The standard library's SQLite.  Tests put another in its place, on a disk that fails."""
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512
    )


def lock(directory: Path) -> int:
    """Own the folder, making it if need be.  Raises FolderInUse; give it back with `os.close`.

    INVARIANT: one process writes.  The lock is the kernel's, so it ends with the process, however
    that ends.
    """
    made(directory)
    descriptor = os.open(directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise FolderInUse(f"Process {owner or 'unknown'} holds {directory}.") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


@contextmanager
def at_rest(directory: Path) -> Iterator[bool]:
    """Whether no server holds the folder; if so none can take it before the block ends.

    Changes nothing.  Raises OSError when the folder is not to be read.
    """
    path = directory / LOCK
    if not path.exists():  # Nobody ever started a server on it.
        yield True
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def database(directory: Path, connect: Connect = sqlite) -> Database:
    """The folder's own, which is this process's until it is closed.

    Raises FolderInUse, UnknownSchema.
    """
    with ExitStack() as opened:
        opened.callback(os.close, lock(directory))
        write_engine = writer(directory, connect)
        opened.callback(write_engine.dispose)
        return Database(
            writer=write_engine,
            reader=reader(directory, connect),
            begin="BEGIN IMMEDIATE",
            begin_reading="BEGIN",
            begun=begun,
            shared=False,
            now="CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
            close=opened.pop_all().close,
        )


def begun(connection: Connection) -> Begun:
    """SQLite gives up by itself what was begun, as on a full disk; it breaks nothing."""
    dbapi = connection.connection.dbapi_connection
    assert dbapi is not None, "the connection is open"
    return Begun.OPEN if dbapi.in_transaction else Begun.NOT


def writer(directory: Path, connect: Connect = sqlite) -> Engine:
    """For the one connection that writes, on a database that is there and up to date."""
    path = directory / DATABASE
    # SQLite gives the files beside the database the permissions of the database.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    engine = _engine(path, "rw", "PRAGMA journal_mode = WAL", connect)
    with engine.connect() as connection:
        prepare(connection)
    return engine


def reader(directory: Path, connect: Connect = sqlite) -> Engine:
    """For connections that cannot write, whatever they are asked."""
    return _engine(directory / DATABASE, "ro", "PRAGMA query_only = ON", connect)


def still(directory: Path) -> Engine:
    """For connections to a database that is at rest, whole in one file: they leave none beside it,
    as the log and the index of other connections would be."""
    return _engine(directory / DATABASE, "ro&immutable=1", "PRAGMA query_only = ON")


def _engine(path: Path, mode: str, pragma: str, connect: Connect = sqlite) -> Engine:
    """Transactions are begun by hand (AUTOCOMMIT): the driver would begin them at its own times."""

    def creator() -> sqlite3.Connection:
        connection = connect(f"file:{quote(str(path.absolute()))}?mode={mode}")
        # FULL, never NORMAL: in WAL mode NORMAL loses answered commits when the power goes.
        settings = (
            pragma,
            "PRAGMA synchronous = FULL",
            "PRAGMA foreign_keys = ON",
            f"PRAGMA cache_size = -{CACHE_KIB}",
        )
        with ExitStack() as failed:  # Left open, it would hold its locks until it is collected.
            failed.callback(connection.close)
            for setting in settings:
                connection.execute(setting).close()
            failed.pop_all()
        return connection

    # What a statement was given may be a body that somebody sent: no log is to have it.
    always: dict[str, Any] = {
        "creator": creator,
        "isolation_level": "AUTOCOMMIT",
        "hide_parameters": True,
    }
    if mode == "rw":
        return create_engine("sqlite://", poolclass=NullPool, **always)
    return create_engine(
        "sqlite://",
        poolclass=QueuePool,
        pool_size=READERS_MAX,
        max_overflow=0,
        pool_timeout=READER_WAIT_SEC,
        pool_reset_on_return=None,
        **always,
    )


def prepare(connection: Connection) -> None:
    """Make the tables, or bring them up to date.  Raises UnknownSchema."""
    known = revision(connection)
    if known == HEAD:
        return
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        if known is None:
            create(connection)
        elif known in REVISIONS:
            upgrade(connection)
        elif known.endswith(BACKUP):
            raise IsBackup
        else:
            raise UnknownSchema(f"It is {known}; this is {HEAD}.")
        connection.exec_driver_sql("COMMIT")
    finally:
        if begun(connection) is Begun.OPEN:
            connection.exec_driver_sql("ROLLBACK")


def revision(connection: Connection) -> str | None:
    """What the database says it is; None when it is empty."""
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_schema").scalars().all()
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise UnknownSchema("It was not made by qmtl.")
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return str(found)


def create(connection: Connection) -> None:
    """Every table, at once: what the migrations lead to, without importing Alembic."""
    for statement in definition():
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (:head)", {"head": HEAD})
