"""Copies of a data folder's database: taken beside a server that runs, and put back stopped.

INVARIANT: a restored world is never more alive than the one it is a copy of.  A copy is marked, and
no server starts on it; what takes the mark off kills every world (`app/restored.py`) before the
database has the name under which a server would find it.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from qmtl.adapters.directories import synced
from qmtl.app import restored
from qmtl.app.ports import Head, Objects
from qmtl.core.errors import Refusal
from qmtl.core.names import WorldId
from qmtl.core.times import instant

from . import checkup, folder
from .errors import StoreDamaged, told
from .schema import BACKUP
from .store import SqlStore

PAGES: Final = 4_096  # Copied between two looks at how far it is: 16 MiB.
HEADS: Final = "SELECT world_id, seq, head_hash, last_at FROM worlds ORDER BY world_id"
MODE: Final = 0o600

Progress = Callable[[int, int], None]  # Pages left, pages in all.


class NoDatabase(Refusal):
    """There is no database to copy."""


class HasDatabase(Refusal):
    """It has a database: restore into another folder, or move that one away."""


class NotABackup(Refusal):
    """It is not what qmtl db backup makes."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Where each world's journal ends in a copy, and the instant of its last entry."""

    heads: dict[WorldId, Head]
    last: datetime | None


def take(
    directory: Path,
    out: Path,
    now: datetime,
    on_pages: Progress,
    objects: Objects | None = None,
) -> Copy:
    """Copy a folder's database into the file `out`, as of one instant, and check the copy.

    What is in `objects` is read, and not copied.

    A server may run on the folder meanwhile; else none can start.  `out` is there once all of it
    is, durable and its owner's alone; one that was there is replaced.
    Raises NoDatabase, UnknownSchema, StoreAway, StoreDamaged, OSError.
    """
    if not (directory / folder.DATABASE).is_file():
        raise NoDatabase(f"{directory} has no {folder.DATABASE}.")
    into = out.absolute().parent
    with TemporaryDirectory(prefix=".qmtl-backup-", dir=into) as beside:
        path = Path(beside) / folder.DATABASE
        with told():
            _copied(directory, path, on_pages)
        _must_be_sound(checkup.look(path.parent, now, replay=False, objects=objects))
        with told(), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # One file, and none beside it.
            copy = _described(connection)
            mark = "UPDATE alembic_version SET version_num = version_num || ?"
            connection.execute(mark, [BACKUP])
        os.replace(path, out)
        synced(into)
    return copy


def put_back(
    file: Path,
    directory: Path,
    now: datetime,
    *,
    keep_tokens: bool = False,
    objects: Objects | None = None,
) -> tuple[Copy, restored.Stopped]:
    """Make the database of a folder that has none of what `take` made: stopped, and read whole.

    Tables of an older program are brought up to date.  Nothing is there when it does not succeed.
    Raises FolderInUse, HasDatabase, NotABackup, UnknownSchema, StoreAway, StoreDamaged, OSError.
    """
    with told():
        version = _version(file)
    descriptor = folder.lock(directory)
    try:
        if (directory / folder.DATABASE).exists():
            raise HasDatabase(f"{directory / folder.DATABASE}.")
        with TemporaryDirectory(prefix=".restoring-", dir=directory) as beside:
            with told():
                copy = _unmarked(file, version, Path(beside) / folder.DATABASE)
            SqlStore(Path(beside), objects=objects).close()  # Brings its tables up to date.
            # First: a kill writes over tables.
            _must_be_sound(checkup.look(Path(beside), now, objects=objects))
            with closing(SqlStore(Path(beside), objects=objects)) as store:
                stopped = restored.stop(store, instant_of(store, now), keep_tokens=keep_tokens)
            log = Path(beside) / checkup.LOG
            assert not log.exists(), "the last to close a database takes its log with it"
            os.replace(Path(beside) / folder.DATABASE, directory / folder.DATABASE)
            synced(directory)
    finally:
        os.close(descriptor)
    return copy, stopped


def instant_of(store: SqlStore, now: datetime) -> datetime:
    """When something happens in a database: now, or when its replay clock stands."""
    last = store.last_instant() or now
    return last if store.replayed else max(now, last)


def _copied(directory: Path, path: Path, on_pages: Progress) -> None:
    with (
        folder.at_rest(directory) as rests,
        checkup.opened(directory, rests) as engine,
        engine.connect() as source,
        closing(_new(path)) as target,
    ):
        # All of it is of one instant.  Without this, SQLite begins again at every write by others.
        source.exec_driver_sql("BEGIN")
        source.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar()
        driver = source.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection), "a folder's database is SQLite's"
        driver.backup(target, pages=PAGES, progress=lambda _, left, all_: on_pages(left, all_))
        source.exec_driver_sql("COMMIT")


def _new(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, MODE))
    return sqlite3.connect(path, isolation_level=None)


def _reading(file: Path) -> sqlite3.Connection:
    uri = f"{file.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _version(file: Path) -> str:
    """Of the tables of what was copied.  Raises NotABackup."""
    try:
        with closing(_reading(file)) as connection:
            (known,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.DatabaseError, TypeError) as error:
        raise NotABackup(f"{file}: {error}.") from error
    if not known.endswith(BACKUP):
        raise NotABackup(f"{file}.")
    return str(known.removesuffix(BACKUP))


def _unmarked(file: Path, version: str, path: Path) -> Copy:
    """Makes of `file` a database that a store opens."""
    with closing(_reading(file)) as source, closing(_new(path)) as target:
        source.backup(target)
        target.execute("UPDATE alembic_version SET version_num = ?", [version])
        return _described(target)


def _described(connection: sqlite3.Connection) -> Copy:
    rows = connection.execute(HEADS).fetchall()
    heads = {WorldId(world_id): Head(seq, digest) for world_id, seq, digest, _ in rows}
    last = max((at for *_, at in rows), default=None)
    return Copy(heads, None if last is None else instant(last))


def _must_be_sound(found: checkup.Checkup) -> None:
    faults = list(found.database)
    faults += [f"World {world}: {each}." for world, all_ in found.worlds.items() for each in all_]
    if faults:
        raise StoreDamaged(*faults)
