"""Does the database say what its journal says?  For doctor, simulation and tests.

The journal is replayed from its first entry through the memory store's world, which is the fold;
then every table is compared with what that holds.  It reads everything: minutes, for a large world.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection

from qmtl.adapters import memory
from qmtl.adapters.memory import World, joined
from qmtl.core.facts import RetentionApplied, SnapshotStored
from qmtl.core.fold import fold
from qmtl.core.names import SYSTEM, RunId, StrategyId, WorldId
from qmtl.core.view import WorldView, same_view

from . import answers, checkpoint, journal, project, reads, reduction
from .errors import StoreDamaged
from .rows import PROJECTIONS, Cell, Projection, Row, rows_of, world_row

DIFFERENCES_MAX = 100  # More than anybody reads; after so many the audit stops.


def differences(connection: Connection, world_id: WorldId) -> list[str]:
    """How the tables differ from what the journal says, in words; empty when they agree."""
    found: list[str] = []
    for difference in _differences(connection, world_id):
        found.append(difference)
        if len(found) == DIFFERENCES_MAX:
            break
    return found


def _differences(connection: Connection, world_id: WorldId) -> Iterator[str]:
    bad = journal.first_bad_seq(connection, world_id)
    if bad is not None:
        yield f"journal: entry {bad} is missing or was edited"
        return
    world = replay(connection, world_id)
    yield from _state(connection, world.view)
    yield from _series(connection, world)
    yield from _runs(connection, world)
    yield from _snapshots(connection, world)
    yield from _reduced(connection, world)
    yield from _checkpoint(connection, world)
    if world_id == SYSTEM:  # They are no world's, and in no journal.
        yield from answers.damaged(connection)


def replay(connection: Connection, world_id: WorldId) -> World:
    """The world as its journal tells it, from the first entry."""
    return memory.replay(world_id, journal.read_all(connection, world_id, 0))


def _state(connection: Connection, view: WorldView) -> Iterator[str]:
    key = {"world_id": view.world_id}
    query = "SELECT * FROM worlds WHERE world_id = :world_id"
    held = connection.exec_driver_sql(query, key).mappings().first()
    if view.seq:
        yield from _compare("worlds", view.world_id, world_row(view), held)
    expected = rows_of(view)
    for projection in PROJECTIONS:
        table = projection.table
        query = f"SELECT * FROM {table.name} WHERE world_id = :world_id"
        rows = connection.exec_driver_sql(query, key).mappings()
        found = {_key(projection, row): row for row in rows}
        wanted = {_key(projection, row): row for row in expected[table].values()}
        for name in sorted(wanted.keys() | found.keys(), key=str):
            yield from _compare(table.name, name, wanted.get(name), found.get(name))


def _key(projection: Projection, row: Mapping[Any, Any]) -> tuple[Cell, ...]:
    return tuple(row[name] for name in projection.names)


def _compare(
    table: str, key: object, wanted: Row | None, held: Mapping[Any, Any] | None
) -> Iterator[str]:
    """Of the columns that the view speaks of."""
    if wanted is None:
        yield f"{table}: {key} should not be there"
    elif held is None:
        yield f"{table}: {key} is missing"
    else:
        for name, value in wanted.items():
            if held[name] != value:
                yield f"{table}: {key} has {name} {held[name]!r}, not {value!r}"


def _series(connection: Connection, world: World) -> Iterator[str]:
    query = (
        "SELECT strategy_id, stage FROM series WHERE world_id = :world_id "
        "UNION SELECT strategy_id, stage FROM parts WHERE world_id = :world_id"
    )
    key = {"world_id": world.view.world_id}
    held = {(row[0], row[1]) for row in connection.exec_driver_sql(query, key)}
    for sid, word in sorted(held - {(sid, stage.value) for sid, stage in world.series}):
        yield f"series: {sid} {word} should not be there"
    for (sid, stage), parts in world.series.items():
        wanted = joined(parts)
        try:
            found = reads.series(connection, world.view.world_id, sid, stage)
        except StoreDamaged as damaged:
            yield f"series: {damaged.args[0]}"
            continue
        pairs = ((wanted.t, found.t), (wanted.r, found.r), (wanted.accepted, found.accepted))
        if not all(np.array_equal(a, b) for a, b in pairs):
            yield f"series: {sid} {stage} differs from the points that arrived"


def _runs(connection: Connection, world: World) -> Iterator[str]:
    world_id = world.view.world_id
    for table in ("runs", "run_revisions"):
        query = f"SELECT DISTINCT strategy_id, run_id FROM {table} WHERE world_id = :world_id"
        held = {
            (StrategyId(row[0]), RunId(row[1]))
            for row in connection.exec_driver_sql(query, {"world_id": world_id})
        }
        for sid, run_id in sorted(held - set(world.runs)):
            yield f"{table}: {sid} {run_id} should not be there"
    for (sid, run_id), revisions in world.runs.items():
        if tuple(reads.revisions(connection, world_id, sid, run_id)) != revisions:
            yield f"run_revisions: {sid} {run_id} differs from what was recorded"
        if reads.run(connection, world_id, sid, run_id) != revisions[-1]:
            yield f"runs: {sid} {run_id} is not its newest revision"


def _snapshots(connection: Connection, world: World) -> Iterator[str]:
    query = "SELECT * FROM snapshots WHERE world_id = :world_id ORDER BY seq"
    rows = connection.exec_driver_sql(query, {"world_id": world.view.world_id}).mappings()
    held = {row["seq"]: row for row in rows}
    wanted = {
        entry.seq: project.snapshot_row(world.view.world_id, entry, entry.fact)
        for entry in world.journal
        if isinstance(entry.fact, SnapshotStored)
    }
    for seq in sorted(held.keys() | wanted.keys()):
        yield from _compare("snapshots", seq, wanted.get(seq), held.get(seq))


def _reduced(connection: Connection, world: World) -> Iterator[str]:
    """The entries that are not whole must be those of which the journal says so."""
    facts = (entry.fact for entry in world.journal)
    said = {
        each.seq: each.left
        for fact in facts
        if isinstance(fact, RetentionApplied)
        for each in fact.reduced
    }
    held = reduction.told(connection, world.view.world_id)
    for seq in sorted(seq for seq in said.keys() | held.keys() if said.get(seq) != held.get(seq)):
        yield f"reduced: entry {seq} is not what the journal says is left of it"


def _checkpoint(connection: Connection, world: World) -> Iterator[str]:
    """A checkpoint that would be used must be the fold of what it stands for."""
    found = checkpoint.read(connection, world.view.world_id)
    if found is not None:
        blank = WorldView(world_id=world.view.world_id)
        if not same_view(found.view, fold(blank, world.journal[: found.view.seq])):
            yield f"checkpoints: at {found.view.seq} it is not what the journal leads to"
