"""What is outside the database, in an object store: large bodies of the journal, parts of series.

The database holds the digest, the size and the key.  What an object store does not have, or has
otherwise, is not there: whoever asks is refused (`StoreAway`, `StoreDamaged`), never told less.

INVARIANT: an object is there, and was read back whole, before a commit names it; what it holds
leaves the database in that same commit.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from qmtl.adapters.objects import Remembered
from qmtl.app.ports import Kept, Objects
from qmtl.core.names import WorldId

from .database import Database
from .errors import StoreAway, StoreDamaged
from .project import is_whole, upsert
from .schema import LAST_OF_PART, OBJECT_BYTES_MIN, PART_CHUNKS, objects, parts

OPTION: Final = "objects"  # Of an engine: where its connections find what is outside.
AT_ONCE: Final = 8  # Objects that are asked for together.
BATCH: Final = 32  # Objects that one commit names.
POINT_BYTES: Final = 17  # Time, return, and whether it counts.

ANY = "SELECT 1 FROM objects LIMIT 1"
DUE_BODIES = f"SELECT digest FROM bodies WHERE length(body) >= {OBJECT_BYTES_MIN} LIMIT {BATCH}"
DUE_PARTS = (
    f"SELECT world_id, strategy_id, stage, chunk FROM series WHERE {LAST_OF_PART} LIMIT {BATCH}"
)
BODY = "SELECT body FROM bodies WHERE digest = :digest"
NO_BODY = "DELETE FROM bodies WHERE digest = :digest"
OF_PART = (
    "FROM series WHERE world_id = :world_id AND strategy_id = :strategy_id AND stage = :stage "
    "AND chunk BETWEEN :first AND :last"
)
CHUNKS = f"SELECT checksum, t, r, accepted {OF_PART} ORDER BY chunk"
NO_CHUNKS = f"DELETE {OF_PART}"
OBJECT = upsert(objects)  # Of a body that was written again after it left, the newer object counts.
PART = upsert(parts)
# Of the journal's rows, as `j`: each body as it is now, or where it is, and its digest.
BODIES = (
    "LEFT JOIN reduced x ON x.world_id = j.world_id AND x.seq = j.seq "
    "LEFT JOIN bodies b ON b.digest = coalesce(x.digest, j.body_digest) "
    "LEFT JOIN objects o ON b.digest IS NULL AND o.digest = coalesce(x.digest, j.body_digest)"
)
WHERE = 'b.body, o."key", coalesce(x.digest, j.body_digest), o.size'


T = TypeVar("T")
U = TypeVar("U")
Reading = Callable[[], AbstractContextManager[Connection]]


class Got(Protocol):
    """Where what is outside is got from."""

    def get(self, kept: Kept) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Moved:
    """What left the database."""

    bodies: int = 0
    parts: int = 0
    size: int = 0  # In bytes.

    def __add__(self, more: "Moved") -> "Moved":
        return Moved(self.bodies + more.bodies, self.parts + more.parts, self.size + more.size)


class Elsewhere(Exception):
    """A job needs what is outside and not at hand: to be fetched by who asked, and not by the
    writer, behind which everybody waits."""

    def __init__(self, wanted: Sequence[Kept]) -> None:
        super().__init__(f"{len(wanted)} objects")
        self.wanted = wanted


@dataclass
class Hasty:
    """What the writer has at hand.  `patient`: it fetches the rest itself."""

    of: Remembered
    patient: bool = False

    def get(self, kept: Kept) -> bytes:
        chunk = self.of.at_hand(kept)
        if chunk is None and not self.patient:
            raise Elsewhere([kept])
        return self.of.get(kept) if chunk is None else chunk


def beside(database: Database, held: Remembered | None) -> tuple[Database, Hasty | None]:
    """The database, whose connections find what is outside; the writer's do not wait for it."""
    if held is None:
        return database, None
    hasty = Hasty(held)
    writer, reader = told(database.writer, hasty), told(database.reader, held)
    return replace(database, writer=writer, reader=reader), hasty


def told(engine: Engine, held: Got | None) -> Engine:
    """The engine, whose connections find what is outside."""
    return engine if held is None else engine.execution_options(**{OPTION: held})


def must_be_known(connection: Connection) -> None:
    """Raises StoreAway of a database of which a part is outside, when nobody said where."""
    if connection.exec_driver_sql(ANY).first() is not None:
        objects_of(connection)


def unnamed(connection: Connection, keys: Iterable[str]) -> list[str]:
    """Those of the keys that the database does not name."""
    named = set(connection.exec_driver_sql('SELECT "key" FROM objects').scalars())
    return [key for key in keys if key not in named]


def objects_of(connection: Connection) -> Got:
    """Where its database keeps what is outside.  Raises StoreAway when nobody said."""
    found: Got | None = connection.get_execution_options().get(OPTION)
    if found is None:
        raise StoreAway("A part of it is in an object store: QMTL_OBJECTS_URL says which.")
    return found


def fetched(
    connection: Connection, wanted: Sequence[Kept], lost: bytes | None = None
) -> list[bytes]:
    """What is outside, in this order; in place of what is damaged `lost`, if that is given.

    Raises StoreAway, StoreDamaged.
    """
    if not wanted:  # Almost always; and then nobody need have said where it is.
        return []
    held = objects_of(connection)

    def got(kept: Kept) -> bytes:
        try:
            return held.get(kept)
        except StoreDamaged:
            if lost is None:
                raise
            return lost

    try:
        return _together(got, wanted)
    except Elsewhere:
        raise Elsewhere(wanted) from None  # All of it at once.


def _together(one: Callable[[T], U], all_: Sequence[T]) -> list[U]:
    with ThreadPoolExecutor(min(AT_ONCE, len(all_)) or 1) as pool:
        return list(pool.map(one, all_))


def bodies_of(
    connection: Connection, rows: Sequence[Sequence[Any]], lost: bytes | None = None
) -> list[bytes | None]:
    """Of rows that end with `WHERE`: the bodies; None of one that is nowhere.  As `fetched`."""
    away = [Kept(*row[-3:]) for row in rows if row[-3] is not None]
    there = iter(fetched(connection, away, lost))
    return [row[-4] if row[-3] is None else next(there) for row in rows]


def put(held: Objects, chunk: bytes) -> Kept:
    """Kept, and read back: the database is about to be without it."""
    kept = held.put(chunk)
    held.get(kept)
    return kept


# ---- Bodies ----------------------------------------------------------------------------------


def due_bodies(connection: Connection) -> list[str]:
    """Digests of bodies that are to leave; some of them, when there are many."""
    return list(connection.exec_driver_sql(DUE_BODIES).scalars())


def body_of(connection: Connection, digest: str) -> bytes | None:
    """As it is in the database; None when it is no longer.  Raises StoreDamaged."""
    body = connection.exec_driver_sql(BODY, {"digest": digest}).scalar()
    if body is not None and sha256(body).hexdigest() != digest:
        raise StoreDamaged(f"Body {digest} is not what was written.")
    return body


def put_bodies(reading: Reading, held: Objects, digests: Sequence[str]) -> list[Kept]:
    """Those that are still in the database, put into the store.  Raises StoreAway, StoreDamaged."""

    def kept(digest: str) -> Kept | None:
        with reading() as connection:
            body = body_of(connection, digest)
        return None if body is None else put(held, body)

    return [each for each in _together(kept, digests) if each is not None]


def take_bodies(connection: Connection, kept: Sequence[Kept]) -> None:
    """Name the objects instead of the bodies."""
    connection.exec_driver_sql(OBJECT, [_row(each) for each in kept])
    connection.exec_driver_sql(NO_BODY, [{"digest": each.digest} for each in kept])


def _row(kept: Kept) -> dict[str, Any]:
    return {"digest": kept.digest, "key": kept.key, "size": kept.size}


# ---- Parts of series ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Full chunks of a series, in a row."""

    world_id: WorldId
    strategy_id: str
    stage: str
    first: int

    def cells(self) -> dict[str, Any]:
        last = self.first + PART_CHUNKS - 1
        return {
            "world_id": self.world_id,
            "strategy_id": self.strategy_id,
            "stage": self.stage,
            "first": self.first,
            "last": last,
        }


def due_parts(connection: Connection) -> list[Part]:
    """Parts of series that are to leave; some of them, when there are many."""
    rows = connection.exec_driver_sql(DUE_PARTS)
    return [Part(world, sid, stage, last + 1 - PART_CHUNKS) for world, sid, stage, last in rows]


def part_of(connection: Connection, part: Part) -> bytes | None:
    """Its times, its returns and what counts, one after the other; None when it is no longer.

    Raises StoreDamaged.
    """
    rows = connection.exec_driver_sql(CHUNKS, part.cells()).all()
    if len(rows) != PART_CHUNKS:
        return None
    if not all(is_whole(blobs, told) for told, *blobs in rows):
        raise StoreDamaged(f"The {part.stage} returns of {part.strategy_id} are not as written.")
    return b"".join(b"".join(column) for column in list(zip(*rows, strict=True))[1:])


def put_parts(reading: Reading, held: Objects, due: Sequence[Part]) -> list[tuple[Part, Kept]]:
    """Those that are still in the database, put into the store.  Raises StoreAway, StoreDamaged."""

    def kept(part: Part) -> tuple[Part, Kept] | None:
        with reading() as connection:
            whole = part_of(connection, part)
        return None if whole is None else (part, put(held, whole))

    return [each for each in _together(kept, due) if each is not None]


def take_part(connection: Connection, part: Part, kept: Kept) -> bool:
    """Name the object instead of the chunks; False when they are others now."""
    now = part_of(connection, part)
    if now is None or sha256(now).hexdigest() != kept.digest:
        return False  # A restatement came between.
    connection.exec_driver_sql(OBJECT, _row(kept))
    cells = part.cells()
    row = {**cells, "chunk": part.first, "chunks": PART_CHUNKS, "digest": kept.digest}
    connection.exec_driver_sql(PART, row)
    connection.exec_driver_sql(NO_CHUNKS, cells)
    return True


def columns(part: bytes) -> tuple[bytes, bytes, bytes]:
    """Times, returns, and what counts, of a part's bytes."""
    points = len(part) // POINT_BYTES
    return part[: 8 * points], part[8 * points : 16 * points], part[16 * points :]
