"""Keeps the tables in step with the journal, in the transaction that writes it.

Two kinds of table.  Current state is the view's: the rows that a commit may have changed are asked
of the view after it (`rows.py`).  Content that no view carries (series, runs, the list of
snapshots) comes from the facts.  Either way the work is in proportion to what the facts name.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import assert_never

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.sqlite import insert

from qmtl.adapters.arrivals import Arrival, arrivals
from qmtl.adapters.codec import run_to_bytes
from qmtl.core import facts as f
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.names import CandidateId, Stage, StrategyId, WorldId
from qmtl.core.times import micros
from qmtl.core.view import WorldView

from . import rows as r
from .schema import CHUNK_POINTS, run_revisions, runs, series, snapshots, sql

Touched = dict[r.Projection, set[r.Key]]


def upsert(table: Table) -> str:
    """Insert a row, or make the row of its key this one."""
    statement = insert(table)
    key = [column.name for column in table.primary_key]
    rest = {c.name: statement.excluded[c.name] for c in table.c if c.name not in key}
    return sql(statement.on_conflict_do_update(index_elements=key, set_=rest))


def delete(projection: r.Projection) -> str:
    match = " AND ".join(f"{name} = :{name}" for name in ("world_id", *projection.names))
    return f"DELETE FROM {projection.table.name} WHERE {match}"


UPSERTS = {p.table: upsert(p.table) for p in r.PROJECTIONS}
DELETES = {p.table: delete(p) for p in r.PROJECTIONS}
REVISION = sql(insert(run_revisions))
RUN = upsert(runs)
SNAPSHOT = sql(insert(snapshots))
CHUNK = sql(insert(series))
CHECKSUM_PRIME = 2**61 - 1  # No power of two is a multiple of it; two terms fit into an INTEGER.
# `||` makes text of blobs, byte for byte; the cast makes it a blob again.
LONGER = f"""
UPDATE series SET points = points + :points, last_t = :last_t,
  checksum = (checksum + :checksum) % {CHECKSUM_PRIME},
  t = CAST(t || :t AS BLOB), r = CAST(r || :r AS BLOB),
  accepted = CAST(accepted || :accepted AS BLOB)
WHERE world_id = :world_id AND strategy_id = :strategy_id AND stage = :stage
  AND chunk = :chunk AND points = :held
"""
NO_SERIES, NO_PARTS = (
    f"DELETE FROM {table} WHERE world_id = :world_id AND strategy_id = :strategy_id "
    "AND stage = :stage"
    for table in ("series", "parts")
)


def content(connection: Connection, before: WorldView, entry: f.Entry) -> None:
    """Write what an entry brings that no view carries: points, runs, the snapshot's header."""
    _append(connection, before.world_id, arrivals(before, entry))
    match entry.fact:
        case f.SnapshotStored() as fact:
            connection.exec_driver_sql(SNAPSHOT, snapshot_row(before.world_id, entry, fact))
        case f.EvaluationsRecorded(runs=recorded) if recorded:
            revisions = [_revision(before.world_id, entry, run) for run in recorded]
            connection.exec_driver_sql(REVISION, revisions)
            connection.exec_driver_sql(RUN, revisions)
        case _:
            pass


def state(
    connection: Connection, before: WorldView, facts: Iterable[f.Fact], after: WorldView
) -> None:
    """Bring the rows that these facts touched to what the view after them says."""
    touched = _touched(before, facts, after)
    for projection in r.PROJECTIONS:
        keys = list(touched.get(projection, ()))
        if not keys:
            continue
        found = list(zip(keys, projection.rows(after, keys), strict=True))
        kept = [row for _, row in found if row is not None]
        gone = [projection.key_row(key) for key, row in found if row is None]
        if kept:
            connection.exec_driver_sql(UPSERTS[projection.table], kept)
        if gone:
            world = {"world_id": after.world_id}
            connection.exec_driver_sql(
                DELETES[projection.table], [{**world, **key} for key in gone]
            )


def _append(connection: Connection, world_id: WorldId, arriving: list[Arrival]) -> None:
    """Fill each series' last chunk and begin new ones.

    INVARIANT: every chunk but the last is full, so what a series holds says where the next goes.
    """
    longer: list[dict[str, r.Cell]] = []
    begun: list[dict[str, r.Cell]] = []
    gone: list[dict[str, r.Cell]] = []
    for arrival in arriving:
        ids: dict[str, r.Cell] = {
            "world_id": world_id,
            "strategy_id": arrival.strategy_id,
            "stage": arrival.stage.value,
        }
        if arrival.restated:
            gone.append(ids)
        start, points = 0, len(arrival.t)
        while start < points:
            chunk, held = divmod(arrival.held + start, CHUNK_POINTS)
            stop = min(points, start + CHUNK_POINTS - held)
            row = {**ids, "chunk": chunk, "held": held, **_chunk(arrival, start, stop)}
            (longer if held else begun).append(row)
            start = stop
    if gone:
        connection.exec_driver_sql(NO_SERIES, gone)
        connection.exec_driver_sql(NO_PARTS, gone)
    if longer:
        changed = connection.exec_driver_sql(LONGER, longer).rowcount
        assert changed == len(longer), "a series' last chunk is as long as the view says"
    if begun:
        connection.exec_driver_sql(CHUNK, begun)


def _chunk(arrival: Arrival, start: int, stop: int) -> dict[str, r.Cell]:
    t = arrival.t[start:stop]
    blobs = {
        "t": t.astype("<i8").tobytes(),
        "r": arrival.r[start:stop].astype("<f8").tobytes(),
        "accepted": arrival.accepted[start:stop].tobytes(),
    }
    return {
        "points": stop - start,
        "first_t": int(t[0]),
        "last_t": int(t[-1]),
        "checksum": checksum(*blobs.values()),
        **blobs,
    }


def checksum(t: bytes, r: bytes, accepted: bytes) -> int:
    """Of some points: their words and bytes, added up modulo a prime.

    Any one bit that is wrong changes it, and that of more points is the sum of theirs, so that a
    chunk gets longer without being read.  It is there against disks, and no proof against people.
    """
    words: tuple[int, ...] = struct.unpack(f"<{2 * len(accepted)}Q", t + r)
    return (sum(words) + sum(accepted)) % CHECKSUM_PRIME


def is_whole(blobs: Sequence[object], told: int) -> bool:
    """Whether a chunk's blobs are those that its checksum was made of."""
    if not all(isinstance(blob, bytes) for blob in blobs):
        return False  # A damaged row may say that it holds text.
    t, r, accepted = (blob for blob in blobs if isinstance(blob, bytes))
    return len(t) == len(r) == 8 * len(accepted) and checksum(t, r, accepted) == told


def snapshot_row(world_id: WorldId, entry: f.Entry, fact: f.SnapshotStored) -> dict[str, r.Cell]:
    """What `snapshots` says of a snapshot."""
    return {
        "world_id": world_id,
        "seq": entry.seq,
        "version": fact.version,
        "stage": fact.stage.value,
        "as_of": micros(fact.as_of),
        "ttl_sec": fact.ttl_sec,
        "content": fact.content,
        "actor": entry.actor,
        "created_at": micros(entry.at),
    }


def _revision(world_id: WorldId, entry: f.Entry, run: EvaluationRun) -> dict[str, r.Cell]:
    return {
        "world_id": world_id,
        "strategy_id": run.strategy_id,
        "run_id": run.run_id,
        "stage": run.stage.value,
        "revision": run.revision,
        "seq": entry.seq,
        "at": micros(entry.at),
        "actor": entry.actor,
        "verdict": run.verdict.value,
        "run": run_to_bytes(run).decode(),
    }


def _touched(before: WorldView, facts: Iterable[f.Fact], after: WorldView) -> Touched:
    """The keys whose rows these facts may have changed.

    INVARIANT: fold changes no row that is not named here; `audit` finds it when it does.
    """
    touched: Touched = defaultdict(set)
    strategies: set[StrategyId] = set()
    candidates: set[CandidateId] = set()
    for fact in facts:
        strategies |= _named(before, fact, touched, candidates)
    if before.live is not after.live:
        strategies |= {sid for sid in before.live if sid not in after.live}
    if before.confirmations is not after.confirmations:
        touched[r.CONFIRMATIONS] |= {*before.confirmations, *after.confirmations}
    strategies |= {after.candidates[cid].strategy_id for cid in candidates}
    for sid in strategies:
        candidates |= {*before.current.get(sid, ()), *after.current.get(sid, ())}
    touched[r.CANDIDATES] |= {
        cid for cid in candidates if before.candidates.get(cid) is not after.candidates[cid]
    }
    touched[r.ACTIVATIONS] |= {
        sid for sid in strategies if before.live.get(sid) is not after.live.get(sid)
    }
    unchanged = before.standings is after.standings and before.strategies is after.strategies
    if not unchanged or before.blocked is not after.blocked:
        touched[r.STRATEGIES] |= strategies
    new = {sid for sid in strategies if sid not in before.strategies}
    for stage in Stage:
        changed = new if before.tracks[stage] is after.tracks[stage] else strategies
        touched[r.SERIES_STATE] |= {(sid, stage) for sid in changed}
        touched[r.LATEST_RUNS] |= {
            (sid, stage)
            for sid in strategies
            if before.runs.get((sid, stage)) is not after.runs.get((sid, stage))
        }
    return touched


def _named(
    before: WorldView, fact: f.Fact, touched: Touched, candidates: set[CandidateId]
) -> set[StrategyId]:
    """The strategies that a fact names or implies; what else it names goes into the sets given."""
    match fact:
        case f.WorldCreated(world_id=world_id):
            touched[r.WORLD_LIST].add(world_id)
        case f.TokenCreated(token_sha256=token, replaces=replaced):
            touched[r.TOKENS] |= {key for key in (token, replaced) if key is not None}
        case f.TokenRevoked(token_sha256=token):
            touched[r.TOKENS].add(token)
        case f.PolicyAdded(version=version):
            touched[r.POLICIES].add(version)
        case (
            f.ConfirmationRequested(confirmation_id=key) | f.ConfirmationGiven(confirmation_id=key)
        ):
            touched[r.CONFIRMATIONS].add(key)
        case f.DefaultPolicySet():
            return set(before.current)  # It may void any open candidate.
        case f.SnapshotStored(points=points, covered=covered):
            return {*points.strategies, *covered}
        case f.RetentionApplied():
            pass  # What is no longer whole is in no view.
        case f.EvaluationsRecorded(runs=recorded, cohort=cohort):
            return {*cohort, *(run.strategy_id for run in recorded)}
        case f.CandidateProposed(candidate_id=cid) | f.PromotionApplied(candidate_id=cid):
            candidates.add(cid)
        case f.ApprovalGiven(candidate_id=cid) | f.ApprovalWithdrawn(candidate_id=cid):
            candidates.add(cid)
        case f.CandidateRejected(candidate_id=cid) | f.CandidateReleased(candidate_id=cid):
            candidates.add(cid)
        case f.CandidateVoided(candidate_id=cid):
            candidates.add(cid)
        case f.StrategyBound() | f.PhaseEntered() | f.Demoted() | f.HoldReleased():
            return {fact.strategy_id}
        case f.CampaignExtended() | f.ActivationLowered() | f.ActivationAcknowledged():
            return {fact.strategy_id}
        case f.SeriesRestated() | f.PromotionBlocked():
            return {fact.strategy_id}
        case f.ProgramStarted():
            pass  # Of no row: the view is asked, and a person asks the journal.
        case f.LiveAllowed() | f.StateChanged() | f.Killed() | f.Resumed():
            pass  # Who left the live set, and what was asked for, is found by looking at it.
        case _:
            assert_never(fact)
    return set()
