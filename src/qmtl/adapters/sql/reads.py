"""What the tables answer: series, snapshots, runs."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row

from qmtl.adapters.codec import fact_from_bytes, run_from_bytes
from qmtl.app.ports import StoredRun, StoredSnapshot
from qmtl.core.facts import SnapshotStored
from qmtl.core.names import ActorId, RunId, Stage, StrategyId, WorldId
from qmtl.core.series import EMPTY, Series
from qmtl.core.times import instant

from .errors import BodyDropped, StoreDamaged
from .project import checksum
from .rows import Cell

CHUNKS = (
    "SELECT chunk, checksum, t, r, accepted FROM series WHERE world_id = :world_id "
    "AND strategy_id = :strategy_id AND stage = :stage ORDER BY chunk"
)
SNAPSHOTS = (
    "SELECT s.seq, s.created_at, s.actor, j.body_digest, b.body FROM snapshots s "
    "JOIN journal j ON j.world_id = s.world_id AND j.seq = s.seq "
    "LEFT JOIN bodies b ON b.digest = j.body_digest WHERE s.world_id = :world_id"
)
REVISIONS = (
    "SELECT v.run, v.seq, v.at, v.actor FROM run_revisions v "
    "WHERE v.world_id = :world_id AND v.strategy_id = :strategy_id AND v.run_id = :run_id "
    "ORDER BY v.revision"
)
NEWEST = (
    "SELECT v.run, v.seq, v.at, v.actor FROM runs r JOIN run_revisions v "
    "ON v.world_id = r.world_id AND v.strategy_id = r.strategy_id "
    "AND v.run_id = r.run_id AND v.revision = r.revision "
    "WHERE r.world_id = :world_id AND r.strategy_id = :strategy_id"
)


def series(
    connection: Connection, world_id: WorldId, strategy_id: StrategyId, stage: Stage
) -> Series:
    """All that is held of one strategy and stage.  Raises StoreDamaged."""
    key = {"world_id": world_id, "strategy_id": strategy_id, "stage": stage.value}
    chunks = connection.exec_driver_sql(CHUNKS, key).all()
    if not chunks:
        return EMPTY
    for number, (chunk, told, *blobs) in enumerate(chunks):
        if chunk != number or not _is_whole(blobs, told):
            raise StoreDamaged(f"The {stage} returns of {strategy_id} are not what was written.")
    t, r, accepted = (b"".join(blobs) for blobs in list(zip(*chunks, strict=True))[2:])
    return Series(
        np.frombuffer(t, "<i8"), np.frombuffer(r, "<f8"), np.frombuffer(accepted, np.bool_)
    )


def _is_whole(blobs: Sequence[object], told: int) -> bool:
    """Whether blobs are those that their checksum was made of."""
    if not all(isinstance(blob, bytes) for blob in blobs):
        return False  # A damaged row may say that it holds text.
    t, r, accepted = (blob for blob in blobs if isinstance(blob, bytes))
    return len(t) == len(r) == 8 * len(accepted) and checksum(t, r, accepted) == told


def snapshots(
    connection: Connection,
    world_id: WorldId,
    limit: int,
    newest_by: str,
    **wanted: Cell,
) -> list[StoredSnapshot]:
    """Those that match what is wanted, the first by `newest_by` (ordering columns) first.

    `before` and `until` bound `seq` (exclusive) and `as_of` (inclusive); other names are columns.
    None asks for nothing.
    """
    asked = {name: value for name, value in wanted.items() if value is not None}
    special = {"before": "s.seq < :before", "until": "s.as_of <= :until"}
    rules = [special.get(name, f"s.{name} = :{name}") for name in asked]
    query = " AND ".join([SNAPSHOTS, *rules]) + f" ORDER BY {newest_by} LIMIT :limit"
    parameters: Mapping[str, Cell] = {"world_id": world_id, "limit": limit, **asked}
    found: Iterable[Any] = connection.exec_driver_sql(query, dict(parameters))
    return [_snapshot(row) for row in found]


def _snapshot(row: Row[int, int, str, str, Any]) -> StoredSnapshot:
    seq, created_at, actor, digest, body = row
    if body is None:
        raise BodyDropped(f"Entry {seq}.")
    if not isinstance(body, bytes) or sha256(body).hexdigest() != digest:
        raise StoreDamaged(f"The snapshot of entry {seq} is not what was written.")
    fact = fact_from_bytes(body)
    assert isinstance(fact, SnapshotStored), "its journal entry stored it"
    return StoredSnapshot(seq=seq, created_at=instant(created_at), actor=ActorId(actor), fact=fact)


def run(
    connection: Connection, world_id: WorldId, strategy_id: StrategyId, run_id: RunId
) -> StoredRun | None:
    """The newest revision of a run."""
    key = {"world_id": world_id, "strategy_id": strategy_id, "run_id": run_id}
    found = connection.exec_driver_sql(f"{NEWEST} AND r.run_id = :run_id", key).first()
    return None if found is None else _run(found)


def runs(
    connection: Connection,
    world_id: WorldId,
    strategy_id: StrategyId,
    limit: int,
    before: int | None,
) -> list[StoredRun]:
    """The newest revision of each run, the latest evaluated first."""
    key = {"world_id": world_id, "strategy_id": strategy_id, "limit": limit}
    rule = ""
    if before is not None:
        key["before"], rule = before, "AND r.seq < :before"
    query = f"{NEWEST} {rule} ORDER BY r.seq DESC, r.run_id LIMIT :limit"
    return [_run(row) for row in connection.exec_driver_sql(query, key)]


def revisions(
    connection: Connection, world_id: WorldId, strategy_id: StrategyId, run_id: RunId
) -> list[StoredRun]:
    """Every revision of a run, the first first."""
    key = {"world_id": world_id, "strategy_id": strategy_id, "run_id": run_id}
    return [_run(row) for row in connection.exec_driver_sql(REVISIONS, key)]


def _run(row: Row[str, int, int, str]) -> StoredRun:
    text, seq, at, actor = row
    try:
        run = run_from_bytes(text)
    except ValueError as error:  # Pydantic's is one.
        raise StoreDamaged(f"The run of entry {seq} is not what was written.") from error
    return StoredRun(run=run, seq=seq, at=instant(at), actor=ActorId(actor))


def last_instant(connection: Connection) -> datetime | None:
    """The latest instant that anything was recorded at, or that a replay clock showed."""
    found = connection.exec_driver_sql(
        "SELECT max(at) FROM (SELECT max(last_at) AS at FROM worlds UNION SELECT at FROM clock) k"
    ).scalar()
    return None if found is None else instant(found)
