"""Writing and reading the journal, and proving that nobody edited it."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from qmtl.adapters.chain import GENESIS, Line, lines
from qmtl.adapters.codec import fact_from_bytes
from qmtl.app.ports import PAGE_BYTES_MAX, ChainedEntry, Head
from qmtl.core.facts import Entry, RetentionApplied
from qmtl.core.names import ActorId, WorldId
from qmtl.core.times import instant, micros
from qmtl.core.view import WorldView

from . import outside
from .errors import BodyDropped, StoreDamaged
from .rows import Cell, world_row
from .schema import bodies, journal, sql, worlds

Left = dict[int, tuple[str, str]]  # By entry: the digest recorded, and that of what is left.
RETENTION = "retention_applied"  # The kind of the fact.
PAGE = 100  # Entries held in memory at once while a world is read: a body may be large.

FIRST = sql(insert(worlds).on_conflict_do_nothing())
_SET = ", ".join(f"{c.name} = :{c.name}" for c in worlds.c if c.name not in ("world_id", "last_at"))
NEXT = (
    f"UPDATE worlds SET {_SET}, "
    "last_at = CASE WHEN last_at < :last_at THEN :last_at ELSE last_at END "
    "WHERE world_id = :world_id AND seq = :was"
)
ENTRY = sql(insert(journal))
BODY = sql(insert(bodies).on_conflict_do_nothing())
OF_WORLD = (
    f"FROM journal j {outside.BODIES} "
    "WHERE j.world_id = :world_id AND j.seq > :after ORDER BY j.seq LIMIT :limit"
)
ENTRIES = f"SELECT j.seq, j.generation, j.at, j.actor, {outside.WHERE} {OF_WORLD}"
LINES = f"SELECT {', '.join(f'j.{c.name}' for c in journal.c)}, {outside.WHERE} {OF_WORLD}"
RETENTIONS = (  # Of what is reduced: of most worlds nothing is, and then nothing is looked for.
    f"SELECT {outside.WHERE} FROM journal j {outside.BODIES} "
    f"WHERE j.world_id = :world_id AND j.seq > :after AND j.kind = '{RETENTION}' "
    "AND EXISTS (SELECT 1 FROM reduced r WHERE r.world_id = :world_id AND r.seq > :after)"
)
WHERE_IT_IS = 4  # Columns of outside.WHERE, the last of a row.
HASH = "SELECT hash FROM journal WHERE world_id = :world_id AND seq = :after"
HEAD = "SELECT seq, head_hash FROM worlds WHERE world_id = :world_id"


def append(
    connection: Connection,
    was: int,
    previous: str,
    view: WorldView,
    written: Sequence[tuple[Entry, bytes]],
) -> str | None:
    """Write entries that lead to `view`; the new head's hash, or None when the world has moved.

    Compare-and-set: the world's row must still be at seq `was`.
    """
    rows = list(lines(view.world_id, previous, written))
    head = rows[-1]["hash"]
    last_at = max(micros(entry.at) for entry, _ in written)
    row: dict[str, Cell] = {**world_row(view), "head_hash": head, "last_at": last_at}
    moved = connection.exec_driver_sql(NEXT if was else FIRST, {**row, "was": was} if was else row)
    if moved.rowcount != 1:
        return None
    connection.exec_driver_sql(
        BODY,
        [
            {"digest": line["body_digest"], "body": body}
            for line, (_, body) in zip(rows, written, strict=True)
        ],
    )
    connection.exec_driver_sql(ENTRY, rows)
    assert isinstance(head, str), "a hash"
    return head


def read(connection: Connection, world_id: WorldId, after: int, limit: int) -> list[Entry]:
    """Entries with a greater seq, in order.  Raises BodyDropped, StoreDamaged."""
    key = {"world_id": world_id, "after": after, "limit": limit}
    found = connection.exec_driver_sql(ENTRIES, key).all()
    bodies = outside.bodies_of(connection, found)
    entries = []
    for follows, (row, body) in enumerate(zip(found, bodies, strict=True), start=after + 1):
        seq, generation, at, actor, *_, digest, _ = row
        if seq != follows or not _is_body(body, digest):
            raise _damaged(world_id, follows)
        entries.append(_entry(seq, generation, at, actor, body))
    return entries


def read_all(connection: Connection, world_id: WorldId, after: int) -> Iterator[Entry]:
    """Every entry with a greater seq, a page at a time."""
    while page := read(connection, world_id, after, PAGE):
        yield from page
        after = page[-1].seq


def proven(connection: Connection, world_id: WorldId, after: int, previous: str) -> Iterator[Entry]:
    """Every entry with a greater seq up to the world's head, each held against the chain.

    `previous` is the hash of entry `after`.  Raises BodyDropped, StoreDamaged.
    """
    newest = head(connection, world_id)
    left = _left(connection, world_id, after)
    while page := _lines(connection, world_id, after):
        for line, digest, body in page:
            if not _stands(line, digest, body, after, previous, left):
                raise _damaged(world_id, after + 1)
            yield _entry(line.seq, line.generation, line.at, line.actor, body)
            after, previous = line.seq, line.hash
    if newest != Head(after, previous):
        raise _damaged(world_id, min(after, newest.seq) + 1)


def _damaged(world_id: WorldId, seq: int) -> StoreDamaged:
    return StoreDamaged(f"Entry {seq} of the journal of {world_id} is missing or was edited.")


def chained(
    connection: Connection, world_id: WorldId, after: int, limit: int
) -> list[ChainedEntry]:
    """Entries with a greater seq, in order, as they are stored; see `Store.chained`.

    Raises BodyDropped.
    """
    key = {"world_id": world_id, "after": after}
    previous = connection.exec_driver_sql(HASH, key).scalar() or GENESIS
    page: list[Any] = []
    size = 0
    with connection.exec_driver_sql(LINES, {**key, "limit": limit}) as rows:
        for row in rows:
            *_, body, name, _, kept = row
            size += kept if name is not None else len(body or b"")
            if page and size > PAGE_BYTES_MAX:
                break
            page.append(row)
    found: list[ChainedEntry] = []
    for row, body in zip(page, outside.bodies_of(connection, page), strict=True):
        line = Line(*row[:-WHERE_IT_IS])
        if body is None:
            raise BodyDropped(f"Entry {line.seq}.")
        found.append(line.told(previous, body))
        previous = line.hash
    return found


def head(connection: Connection, world_id: WorldId) -> Head:
    """The world's newest entry; GENESIS before there is one."""
    found = connection.exec_driver_sql(HEAD, {"world_id": world_id}).first()
    return Head(0, GENESIS) if found is None else Head(*found)


def _entry(seq: int, generation: int, at: int, actor: str, body: bytes | None) -> Entry:
    if body is None:
        raise BodyDropped(f"Entry {seq}.")
    return Entry(
        seq=seq,
        generation=generation,
        at=instant(at),
        actor=ActorId(actor),
        fact=fact_from_bytes(body),
    )


def _is_body(body: object, digest: str) -> bool:
    """Whether it is what its digest says; one that retention dropped says nothing."""
    return body is None or (isinstance(body, bytes) and sha256(body).hexdigest() == digest)


def _stands(
    line: Line, digest: str, body: bytes | None, after: int, previous: str, left: Left
) -> bool:
    """Whether a line is the one after `after`, whose hash is `previous`, unedited.

    INVARIANT: a body is what the line names, or what an entry further on says is left of it.
    """
    named = digest == line.body_digest or left.get(line.seq) == (line.body_digest, digest)
    return named and line.seq == after + 1 and _is_body(body, digest) and line.follows(previous)


def _left(connection: Connection, world_id: WorldId, after: int, lost: bytes | None = None) -> Left:
    """What the entries after one say that retention left; whether they stand is seen later."""
    rows = connection.exec_driver_sql(RETENTIONS, {"world_id": world_id, "after": after}).all()
    found: Left = {}
    for row, body in zip(rows, outside.bodies_of(connection, rows, lost), strict=True):
        if body and _is_body(body, row[-2]):
            fact = fact_from_bytes(body)
            reduced = fact.reduced if isinstance(fact, RetentionApplied) else ()
            found |= {each.seq: (each.body, each.left) for each in reduced}
    return found


def first_bad_seq(connection: Connection, world_id: WorldId) -> int | None:
    """The first entry that is missing, was edited, or does not follow from its predecessor."""
    newest, left = head(connection, world_id), _left(connection, world_id, 0, lost=b"")
    after, previous = 0, GENESIS
    while page := _lines(connection, world_id, after, lost=b""):  # Of which no body is made.
        for line, digest, body in page:
            if not _stands(line, digest, body, after, previous, left):
                return after + 1
            after, previous = line.seq, line.hash
    if newest == Head(after, previous):
        return None
    return newest.seq if newest.seq == after else min(newest.seq, after) + 1


def _lines(
    connection: Connection, world_id: WorldId, after: int, lost: bytes | None = None
) -> list[tuple[Line, str, bytes | None]]:
    key = {"world_id": world_id, "after": after, "limit": PAGE}
    found = connection.exec_driver_sql(LINES, key).all()
    bodies = outside.bodies_of(connection, found, lost)
    lines = (Line(*row[:-WHERE_IT_IS]) for row in found)
    return [(line, row[-2], body) for line, row, body in zip(lines, found, bodies, strict=True)]
