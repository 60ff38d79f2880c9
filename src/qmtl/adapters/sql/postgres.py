"""PostgreSQL, by URL: shared by every process that serves the same worlds.

Statements are written once, as SQLite reads them; what PostgreSQL calls otherwise is put right
where a statement goes out.
"""

import re
from functools import lru_cache
from typing import Any, Final

from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from qmtl.core.errors import Invalid

from .database import Begun, Database
from .errors import UnknownSchema
from .migrate import upgrade
from .schema import HEAD, POSTGRESQL, REVISIONS, definition

SCHEME: Final = "postgresql"
READERS_MAX: Final = 8
READER_WAIT_SEC: Final = 30.0
SETTINGS: Final = {
    "connect_timeout": "5",
    "application_name": "qmtl",
    # An answered commit is on disk, whatever the server's own settings say.  Who waits for a world
    # longer than this asks again; and a process that stops in the middle holds nothing for long.
    "options": "-c synchronous_commit=on -c lock_timeout=5s -c statement_timeout=60s"
    " -c idle_in_transaction_session_timeout=30s",
}
PREPARING: Final = 0x716D746C  # Names the lock under which one process makes the tables.

_MARK = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")


class _Truth(Dumper):
    """A truth value is 0 or 1, as everywhere in these tables."""

    oid = types["int2"].oid

    def dump(self, obj: bool) -> bytes:
        return b"1" if obj else b"0"


def database(url: str) -> Database:
    """The database of a URL, which may have other users.  Raises Invalid, UnknownSchema."""
    at = url_of(url)
    write_engine = _engine(at, poolclass=NullPool)
    with write_engine.connect() as connection:
        prepare(connection)
    read_engine = _engine(
        at,
        poolclass=QueuePool,
        pool_size=READERS_MAX,
        max_overflow=0,
        pool_timeout=READER_WAIT_SEC,
        pool_pre_ping=True,  # The server may have been started anew since.
    )
    return Database(
        writer=write_engine,
        reader=read_engine,
        begin="BEGIN",
        begin_reading="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        begun=begun,
        shared=True,
        close=write_engine.dispose,
    )


def url_of(url: str) -> URL:
    """Raises Invalid.  What it says is never shown: it may hold a password."""
    try:
        at = make_url(url)
    except (ArgumentError, ValueError):  # Of a port that is no number.
        raise Invalid("The database's URL cannot be read: postgresql://user@host/name.") from None
    if at.get_backend_name() != SCHEME or not at.database:
        raise Invalid("The database's URL: postgresql://user@host/name, or none for SQLite.")
    return at.set(drivername="postgresql+psycopg")


def begun(connection: Connection) -> Begun:
    """A statement that fails breaks its transaction; with the connection goes all of it."""
    if connection.invalidated:
        return Begun.NOT
    driver: Any = connection.connection.dbapi_connection
    match driver.info.transaction_status:
        case TransactionStatus.INTRANS | TransactionStatus.ACTIVE:
            return Begun.OPEN
        case TransactionStatus.INERROR:
            return Begun.BROKEN
        case _:
            return Begun.NOT


def _engine(at: URL, **pool: Any) -> Engine:
    """Transactions are begun by hand (AUTOCOMMIT), as with SQLite."""
    engine = create_engine(
        at,
        connect_args=SETTINGS,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        **pool,
    )
    event.listen(engine, "connect", _connected)
    event.listen(engine, "before_cursor_execute", _said, retval=True)
    return engine


def _connected(driver: Any, record: object) -> None:
    driver.adapters.register_dumper(bool, _Truth)


def _said(
    connection: Connection,
    cursor: object,
    statement: str,
    parameters: Any,
    context: object,
    many: bool,
) -> tuple[str, Any]:
    return as_said(statement), parameters


@lru_cache(maxsize=1024)
def as_said(statement: str) -> str:
    """A statement as the driver reads it: its marks, and the types that are called otherwise."""
    said = statement.replace("%", "%%").replace(" AS BLOB)", " AS BYTEA)")
    return _MARK.sub(r"%(\1)s", said)


def prepare(connection: Connection) -> None:
    """Make the tables, or bring them up to date: one process at a time.  Raises UnknownSchema."""
    connection.exec_driver_sql("BEGIN")
    try:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(:key)", {"key": PREPARING})
        known = revision(connection)
        if known is None:
            for statement in definition(POSTGRESQL):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES (:head)", {"head": HEAD})
        elif known != HEAD and known in REVISIONS:
            upgrade(connection)
        elif known != HEAD:
            raise UnknownSchema(f"It is {known}; this is {HEAD}.")
        connection.exec_driver_sql("COMMIT")
    finally:
        if begun(connection) is not Begun.NOT:
            connection.exec_driver_sql("ROLLBACK")


def revision(connection: Connection) -> str | None:
    """What the database says it is; None when it is empty."""
    listed = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    tables = connection.exec_driver_sql(listed).scalars().all()
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise UnknownSchema("It was not made by qmtl.")
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
