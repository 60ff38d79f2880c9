"""Snapshots of which only a part is left: the smaller body stands in the place of the one that the
journal names.

What stands there is what an entry further on says that it is: `journal.py` asks that of it wherever
it follows the chain.
"""

from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from qmtl.adapters.codec import fact_to_bytes
from qmtl.adapters.memory import left_of, removed_of
from qmtl.core.facts import Entry, Reduced, RetentionApplied, SnapshotStored
from qmtl.core.names import Digest, WorldId

from . import journal
from .schema import bodies, reduced, sql

DIGEST = "SELECT body_digest FROM journal WHERE world_id = :world_id AND seq = :seq"
LEFT = sql(insert(bodies).on_conflict_do_nothing())
REDUCED = sql(insert(reduced))
# A world's entry may be another's, too: the same snapshot, posted to both.
WANTED = (
    "SELECT 1 FROM worlds w "
    "JOIN snapshots s ON s.world_id = w.world_id AND s.version = :version "
    "JOIN journal j ON j.world_id = s.world_id AND j.seq = s.seq "
    "LEFT JOIN reduced x ON x.world_id = j.world_id AND x.seq = j.seq "
    "WHERE j.body_digest = :digest AND x.seq IS NULL LIMIT 1"
)
GONE = tuple(f"DELETE FROM {table} WHERE digest = :digest" for table in ("bodies", "objects"))
# Nobody else's commit counts on a body that is about to go.
ALONE = "LOCK TABLE bodies IN SHARE ROW EXCLUSIVE MODE"
TOLD = "SELECT seq, digest FROM reduced WHERE world_id = :world_id"


def reduction(connection: Connection, world_id: WorldId, seq: int, at: datetime) -> Reduced | None:
    """As `Store.reduction`."""
    (entry,) = journal.read(connection, world_id, seq - 1, 1)
    if removed_of(entry) is not None:
        return None
    body = connection.exec_driver_sql(DIGEST, {"world_id": world_id, "seq": seq}).scalar_one()
    return Reduced(seq, Digest(body), Digest(sha256(_left(entry, at)).hexdigest()))


def _left(entry: Entry, at: datetime) -> bytes:
    return fact_to_bytes(left_of(entry, at).fact)


def write(connection: Connection, world_id: WorldId, applied: Entry, shared: bool) -> None:
    """Make it so, in the transaction of the entry that says it."""
    assert isinstance(applied.fact, RetentionApplied), "it says what is reduced"
    if shared:
        connection.exec_driver_sql(ALONE)
    for each in applied.fact.reduced:
        (entry,) = journal.read(connection, world_id, each.seq - 1, 1)
        assert isinstance(entry.fact, SnapshotStored), "only snapshots are reduced"
        left = _left(entry, applied.at)
        assert sha256(left).hexdigest() == each.left, "what is left is what the entry says"
        connection.exec_driver_sql(LEFT, {"digest": each.left, "body": left})
        row = {"world_id": world_id, "seq": each.seq, "digest": each.left}
        connection.exec_driver_sql(REDUCED, row)
        of_it = {"digest": each.body, "version": entry.fact.version}
        if connection.exec_driver_sql(WANTED, of_it).first() is None:
            for statement in GONE:
                connection.exec_driver_sql(statement, {"digest": each.body})


def told(connection: Connection, world_id: WorldId) -> dict[int, str]:
    """The digest of what is left, by entry."""
    found = connection.exec_driver_sql(TOLD, {"world_id": world_id})
    return {row[0]: row[1] for row in found}
