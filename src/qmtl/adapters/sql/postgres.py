"""PostgreSQL, by URL: shared by every process that serves the same worlds.

Statements are written once, as SQLite reads them; what PostgreSQL calls otherwise is put right
where a statement goes out.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import lru_cache
from threading import Event, Thread
from typing import Any, Final

import psycopg
from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from qmtl.app.ports import Objects
from qmtl.core.errors import Invalid

from . import outside
from .checkup import Checkup, looked
from .database import Begun, Database
from .errors import LOG, UnknownSchema, told
from .migrate import upgrade
from .schema import HEAD, REVISIONS, tables

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
CHANNEL: Final = "qmtl"
HEARS_SEC: Final = 0.5  # Until it looks whether it is to stop.
AGAIN_SEC: Final = 1.0  # Until it calls again a server that went away.
READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
NEEDED: Final = {
    "fsync": "an answered commit is lost when the machine stops",
    "full_page_writes": "a page that is half written is not noticed",
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
        begin_reading=READING,
        begun=begun,
        shared=True,
        now="CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
        close=write_engine.dispose,
        notify=f"SELECT pg_notify('{CHANNEL}', :world_id)",
        listen=lambda ring: Listener(at, ring).close,
    )


class Listener:
    """A thread that rings whenever a world changed, and when it may have missed that."""

    def __init__(self, at: URL, ring: Callable[[], None]) -> None:
        self._at, self._ring = at.set(drivername=SCHEME), ring
        self._closing = Event()
        self._thread = Thread(target=self._serve, name="qmtl-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                LOG.warning("nothing is heard of other processes: %s", str(error).strip())
                self._closing.wait(AGAIN_SEC)

    def _listen(self) -> None:
        where = self._at.render_as_string(hide_password=False)
        with psycopg.connect(where, autocommit=True, **SETTINGS) as driver:  # type: ignore[arg-type]  # All are text.
            driver.execute(f"LISTEN {CHANNEL}".encode())
            while not self._closing.is_set():
                self._ring()
                while not self._closing.is_set():
                    if any(True for _ in driver.notifies(timeout=HEARS_SEC, stop_after=1)):
                        break


def upgraded(url: str) -> tuple[str | None, str]:
    """Its version before, and now that its tables are this program's.

    Raises Invalid, StoreAway, UnknownSchema.
    """
    with _connection(url) as connection:
        was = revision(connection)
        prepare(connection, older=True)
        return was, HEAD


def look(url: str, now: datetime, objects: Objects | None = None) -> Checkup:
    """All of it read, `objects` too, and nothing changed.  Raises Invalid, StoreAway."""
    with _connection(url, objects) as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = on")
        try:
            faults = tuple(_faults(connection))
        except UnknownSchema as error:
            faults = (str(error.args[0]),)
        if faults:
            return Checkup(served=False, database=faults, worlds={})
        return looked(connection, READING, now, replay=True)


def _faults(connection: Connection) -> Iterator[str]:
    known = revision(connection)
    if known != HEAD:
        yield f"its tables are of version {known or 'none'}, and this program's of {HEAD}"
    for name, why in NEEDED.items():
        if connection.exec_driver_sql(f"SHOW {name}").scalar() == "off":
            yield f"{name} is off: {why}"


@contextmanager
def _connection(url: str, objects: Objects | None = None) -> Iterator[Connection]:
    engine = outside.told(_engine(url_of(url), poolclass=NullPool), objects)
    with told(), ExitStack() as opened:
        opened.callback(engine.dispose)
        yield opened.enter_context(engine.connect())


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
    context: Any,
    many: bool,
) -> tuple[str, Any]:
    ours = context.compiled is None  # What SQLAlchemy writes, as for Alembic, it writes right.
    return as_said(statement) if ours else statement, parameters


@lru_cache(maxsize=1024)
def as_said(statement: str) -> str:
    """A statement as the driver reads it: its marks, and the types that are called otherwise."""
    said = statement.replace("%", "%%").replace(" AS BLOB)", " AS BYTEA)")
    return _MARK.sub(r"%(\1)s", said)


def prepare(connection: Connection, *, older: bool = False) -> None:
    """Make the tables when there are none; `older`: bring those of an older program up to date.

    One process at a time.  Raises UnknownSchema.
    """
    connection.exec_driver_sql("BEGIN")
    try:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(:key)", {"key": PREPARING})
        known = revision(connection)
        if known is None:
            for statement in definition():
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES (:head)", {"head": HEAD})
        elif known in REVISIONS[:-1]:
            if not older:  # Servers of that program may be running.
                raise UnknownSchema(
                    f"It is {known}; this is {HEAD}. Stop the servers on it, then: qmtl db upgrade."
                )
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
    names = connection.exec_driver_sql(listed).scalars().all()
    if not names:
        return None
    if "alembic_version" not in names:
        raise UnknownSchema("It was not made by qmtl.")
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())


def definition() -> list[str]:
    """The statements that make the tables, indices and triggers."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's is not typed.
    statements = tables(dialect)
    for ours, theirs in OTHERWISE.items():
        statements = [text.replace(ours, theirs) for text in statements]
    return [*statements, *TRIGGERS]


OTHERWISE: Final = {
    "json_array_length(approvals)": "json_array_length(approvals::json)",
    "CHECK (freeze": 'CHECK ("freeze"',
}
# PostgreSQL replaces no row on INSERT; it can empty a table at once.
TRIGGERS: Final = (
    "CREATE FUNCTION qmtl_refuses() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$",
    "CREATE FUNCTION qmtl_follows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF NEW.seq <> (SELECT 1 + coalesce(max(seq), 0) FROM journal WHERE world_id = NEW.world_id) "
    "THEN RAISE EXCEPTION 'the journal is append-only'; END IF; RETURN NEW; END $$",
    "CREATE FUNCTION qmtl_is_its_digest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF EXISTS (SELECT 1 FROM bodies WHERE digest = NEW.digest AND body <> NEW.body) "
    "THEN RAISE EXCEPTION 'a body is its digest'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER journal_is_not_changed BEFORE UPDATE OR DELETE ON journal "
    "FOR EACH ROW EXECUTE FUNCTION qmtl_refuses('the journal is append-only')",
    "CREATE TRIGGER journal_is_not_emptied BEFORE TRUNCATE ON journal "
    "FOR EACH STATEMENT EXECUTE FUNCTION qmtl_refuses('the journal is append-only')",
    "CREATE TRIGGER journal_follows BEFORE INSERT ON journal "
    "FOR EACH ROW EXECUTE FUNCTION qmtl_follows()",
    "CREATE TRIGGER bodies_are_not_updated BEFORE UPDATE ON bodies "
    "FOR EACH ROW EXECUTE FUNCTION qmtl_refuses('a body is its digest')",
    "CREATE TRIGGER bodies_are_not_replaced BEFORE INSERT ON bodies "
    "FOR EACH ROW EXECUTE FUNCTION qmtl_is_its_digest()",
)
