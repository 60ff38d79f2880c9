"""What the store asks of an engine: `folder.py` has SQLite, `postgres.py` PostgreSQL."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from sqlalchemy import Connection, Engine


class Begun(Enum):
    """A transaction, as the engine has it: it may have given up by itself what was begun."""

    NOT = auto()
    OPEN = auto()
    BROKEN = auto()  # To be rolled back, all of it or to a savepoint; a COMMIT would keep nothing.


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An engine, open, with the tables of this program in it.

    writer   for the one connection of this process that writes
    reader   for connections that never do
    begin    a transaction that writes; `begin_reading` one that sees a single instant
    shared   other processes write to it, too
    now      an expression: what its clock shows, in microseconds since 1970
    notify   a statement that tells them, with the commit, that a world has changed; None: nobody
             would hear it
    listen   calls back whenever one was told, by anybody, until what it returns is called
    close    what is to be done when the connections are closed
    """

    writer: Engine
    reader: Engine
    begin: str
    begin_reading: str
    begun: Callable[[Connection], Begun]
    shared: bool
    now: str
    close: Callable[[], None]
    notify: str | None = None
    listen: Callable[[Callable[[], None]], Callable[[], None]] = lambda ring: lambda: None
