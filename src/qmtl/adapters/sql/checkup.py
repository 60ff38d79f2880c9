"""A database looked at as it lies in its folder, changing nothing: for doctor.

Beside a server that runs it is read as the server's own readers read it.  At rest it is read as one
file; what a crash left in the log beside it is seen in a copy, for to read that log in place is to
write its index.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from qmtl.app.ports import Objects
from qmtl.core import invariants
from qmtl.core.names import WorldId

from . import audit, folder, journal, reads
from .cold import cold
from .errors import BodyDropped, StoreAway, UnknownSchema
from .outside import told
from .schema import HEAD

LOG = f"{folder.DATABASE}-wal"
FAULTS_MAX = 10  # More than anybody reads.


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What was found; each fault is a sentence.

    served      whether a server holds the folder
    database    faults of the database as such; when there are any, nothing else was looked at
    worlds      faults by world: journal, tables, invariants; none when all is well
    unreplayed  worlds whose journal cannot be replayed, because retention dropped bodies
    """

    served: bool
    database: tuple[str, ...]
    worlds: dict[WorldId, tuple[str, ...]]
    unreplayed: tuple[WorldId, ...] = ()


def look(
    directory: Path,
    now: datetime,
    *,
    replay: bool = True,
    on_world: Callable[[WorldId], None] = lambda world_id: None,
    objects: Objects | None = None,
) -> Checkup:
    """The whole of it: minutes, for a large world.  Without `replay` only what is quick.

    now       the machine's instant; a world whose clock is ahead of it is judged by its own
    on_world  called before each world is read
    objects   where a part of it may be; what is there is read, too

    Raises OSError.
    """
    with folder.at_rest(directory) as rests, opened(directory, rests) as engine:
        try:
            with told(engine, objects).connect() as connection:
                return _looked(connection, not rests, now, replay, on_world)
        except DBAPIError as error:  # Of a file that is no database, or a broken one.
            return Checkup(served=not rests, database=(str(error.orig),), worlds={})
        except UnknownSchema as error:
            return Checkup(served=not rests, database=(str(error.args[0]),), worlds={})


@contextmanager
def opened(directory: Path, rests: bool) -> Iterator[Engine]:
    """For connections that read a folder's database, and change nothing; `rests`: of `at_rest`."""
    with TemporaryDirectory(prefix="qmtl-doctor-") as copy:
        log = directory / LOG
        if not rests:
            engine = folder.reader(directory)
        elif log.exists() and log.stat().st_size:
            for path in (directory / folder.DATABASE, log):
                shutil.copyfile(path, Path(copy) / path.name)
            engine = folder.reader(Path(copy))
        else:
            engine = folder.still(directory)
        try:
            yield engine
        finally:
            engine.dispose()


def _looked(
    connection: Connection,
    served: bool,
    now: datetime,
    replay: bool,
    on_world: Callable[[WorldId], None],
) -> Checkup:
    faults = tuple(_database(connection))
    if faults:
        return Checkup(served=served, database=faults, worlds={})
    return replace(looked(connection, "BEGIN", now, replay, on_world), served=served)


def looked(
    connection: Connection,
    begin: str,
    now: datetime,
    replay: bool,
    on_world: Callable[[WorldId], None] = lambda world_id: None,
) -> Checkup:
    """Every world of a database that is sound as such; `begin` a transaction of one instant."""
    last = reads.last_instant(connection)
    judged_at = now if last is None else max(now, last)
    listed = "SELECT world_id FROM worlds ORDER BY world_id"
    ids = connection.exec_driver_sql(listed).scalars()
    found: dict[WorldId, tuple[str, ...]] = {}
    unreplayed: list[WorldId] = []
    for world_id in map(WorldId, ids.all()):
        on_world(world_id)
        connection.exec_driver_sql(begin)  # All of a world as of one instant.
        try:
            faults = tuple(_journal(connection, world_id, replay))
            # Of entries that somebody edited there is no view to ask.
            faults = faults or invariants.check(cold(connection, world_id).view, judged_at)
            found[world_id] = faults[:FAULTS_MAX]
        except BodyDropped:
            found[world_id] = ()
            unreplayed.append(world_id)
        except StoreAway as error:
            found[world_id] = (str(error),)
        finally:
            connection.exec_driver_sql("COMMIT")
    return Checkup(served=False, database=(), worlds=found, unreplayed=tuple(unreplayed))


def _journal(connection: Connection, world_id: WorldId, replay: bool) -> Iterator[str]:
    if replay:
        yield from audit.differences(connection, world_id)
    elif bad := journal.first_bad_seq(connection, world_id):
        yield f"journal: entry {bad} is missing or was edited"


def _database(connection: Connection) -> Iterator[str]:
    known = folder.revision(connection)
    if known != HEAD:
        yield f"its tables are of version {known}, and this program's of {HEAD}"
        return
    said = connection.exec_driver_sql(f"PRAGMA integrity_check({FAULTS_MAX})").scalars().all()
    yield from (str(each) for each in said if each != "ok")
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        yield f"row {row} of {table} refers to a row of {parent} that is not there"
