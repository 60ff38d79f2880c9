"""What the tables answer: series, snapshots, runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row

from qmtl.adapters.codec import fact_from_bytes, run_from_bytes
from qmtl.app.ports import Kept, StoredRun, StoredSnapshot
from qmtl.core.facts import SnapshotStored
from qmtl.core.names import ActorId, RunId, Stage, StrategyId, WorldId
from qmtl.core.series import EMPTY, Series
from qmtl.core.times import instant

from . import outside
from .errors import BodyDropped, StoreDamaged
from .project import is_whole
from .rows import Cell

OF_SERIES = "world_id = :world_id AND strategy_id = :strategy_id AND stage = :stage"
CHUNKS = (  # As of one instant: chunks may just be leaving the database.
    "SELECT chunk, 1, checksum, t, r, accepted, NULL, NULL, NULL "
    f"FROM series WHERE {OF_SERIES} UNION ALL "
    'SELECT chunk, chunks, 0, NULL, NULL, NULL, o."key", o.digest, o.size '
    f"FROM parts JOIN objects o ON o.digest = parts.digest WHERE {OF_SERIES} ORDER BY 1"
)
SNAPSHOTS = (
    f"SELECT s.seq, s.created_at, s.actor, {outside.WHERE} FROM snapshots s "
    "JOIN journal j ON j.world_id = s.world_id AND j.seq = s.seq "
    f"{outside.BODIES} WHERE s.world_id = :world_id"
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
    """All that is held of one strategy and stage.  Raises StoreAway, StoreDamaged."""
    key = {"world_id": world_id, "strategy_id": strategy_id, "stage": stage.value}
    rows = connection.exec_driver_sql(CHUNKS, key).all()
    away = [Kept(*row[-3:]) for row in rows if row[-3] is not None]
    there = iter(outside.fetched(connection, away))
    columns, follows = [], 0
    for chunk, chunks, told, *blobs, name, _, _ in rows:
        whole = name is not None or is_whole(blobs, told)
        t, r, accepted = blobs if name is None else outside.columns(next(there))
        if chunk != follows or not whole:
            raise StoreDamaged(f"The {stage} returns of {strategy_id} are not what was written.")
        columns.append((t, r, accepted))
        follows += chunks
    if not columns:
        return EMPTY
    t, r, accepted = (b"".join(blobs) for blobs in zip(*columns, strict=True))
    return Series(
        np.frombuffer(t, "<i8"), np.frombuffer(r, "<f8"), np.frombuffer(accepted, np.bool_)
    )


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
    found: Sequence[Any] = connection.exec_driver_sql(query, dict(parameters)).all()
    bodies = outside.bodies_of(connection, found)
    return [_snapshot(row, body) for row, body in zip(found, bodies, strict=True)]


def _snapshot(row: Row[*tuple[Any, ...]], body: bytes | None) -> StoredSnapshot:
    seq, created_at, actor, *_, digest, _ = row
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
