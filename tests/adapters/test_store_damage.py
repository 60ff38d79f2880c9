"""What the disk gives back is not what was written: nobody judges by it, and nobody is told it."""

from functools import partial
from pathlib import Path
from random import Random

import pytest

from qmtl.adapters.sql.errors import StoreDamaged
from qmtl.adapters.sql.project import CHECKSUM_PRIME, checksum
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.facts import SnapshotStored
from qmtl.core.names import SYSTEM, ActorId, Stage, StrategyId

from .by_hand import edit, rows
from .conftest import Reopened
from .histories import START, WORLD
from .test_store_sql import UNLOCKED

OF_NINE = "digest = (SELECT body_digest FROM journal WHERE seq = 9)"
DAMAGE = [
    "UPDATE journal SET actor = 'eve' WHERE seq = 9",
    "UPDATE journal SET at = at + 1 WHERE seq = 9",
    "UPDATE journal SET at = 9223372036854775807 WHERE seq = 9",
    "UPDATE journal SET generation = generation + 1 WHERE seq = 9",
    "UPDATE journal SET hash = replace(hash, 'a', 'b') WHERE seq = 9",
    "DELETE FROM journal WHERE seq = 9",
    "DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)",
    f"UPDATE bodies SET body = CAST(replace(body, '}}', ' }}') AS BLOB) WHERE {OF_NINE}",
    "UPDATE worlds SET seq = seq - 1",
    "UPDATE worlds SET head_hash = replace(head_hash, substr(head_hash, 1, 1), 'x')",
]


@pytest.mark.parametrize("statement", DAMAGE)
def test_no_view_is_folded_from_a_damaged_journal(
    busy: SqlStore, data: Path, reopened: Reopened, statement: str
) -> None:
    busy.close()
    edit(data, *UNLOCKED, "DELETE FROM checkpoints")
    assert edit(data, statement) == 1
    again = reopened(busy)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=f"journal of {WORLD}"):
            again.load(WORLD)


@pytest.mark.parametrize("statement", DAMAGE[-2:])
def test_a_checkpoint_is_held_against_the_head_of_the_world(
    busy: SqlStore, data: Path, reopened: Reopened, statement: str
) -> None:
    busy.close()
    assert edit(data, statement) == 1
    with pytest.raises(StoreDamaged):
        reopened(busy).load(WORLD)


def test_a_damaged_body_is_not_read_as_an_entry(busy: SqlStore, data: Path) -> None:
    edit(data, *UNLOCKED, f"UPDATE bodies SET body = CAST(body || ' ' AS BLOB) WHERE {OF_NINE}")
    with pytest.raises(StoreDamaged, match="Entry 9"):
        busy.journal(WORLD, 0, 100)
    assert busy.journal(WORLD, 9, 1)[0].seq == 10


def stored_at(store: SqlStore) -> int:
    """The entry of a snapshot that is whole."""
    facts = ((entry.seq, entry.fact) for entry in store.journal(WORLD, 0, 10_000))
    return next(
        seq for seq, fact in facts if isinstance(fact, SnapshotStored) and fact.removed is None
    )


def test_a_damaged_snapshot_is_not_read(busy: SqlStore, data: Path) -> None:
    seq = stored_at(busy)
    version = rows(data, f"SELECT version FROM snapshots WHERE seq = {seq}")[0][0]
    of_it = f"digest = (SELECT body_digest FROM journal WHERE seq = {seq})"
    edit(data, *UNLOCKED, f"UPDATE bodies SET body = CAST(body || ' ' AS BLOB) WHERE {of_it}")
    with pytest.raises(StoreDamaged):
        busy.snapshot(WORLD, str(version))
    with pytest.raises(StoreDamaged):
        busy.snapshot_at(WORLD, seq)


def test_a_snapshot_that_is_missing_is_not_taken_for_none(busy: SqlStore, data: Path) -> None:
    seq = stored_at(busy)
    edit(data, *UNLOCKED, f"DELETE FROM journal WHERE seq >= {seq}")
    with pytest.raises(StoreDamaged, match=f"journal of {WORLD}"):
        busy.snapshot_at(WORLD, seq)


def held(store: SqlStore) -> tuple[StrategyId, Stage]:
    """A series that has points."""
    view = store.load(WORLD)
    return next(
        (strategy.strategy_id, stage)
        for strategy in view.in_order()
        for stage in Stage
        if view.tracks[stage].points[strategy.row]
    )


@pytest.mark.parametrize(
    "change",
    [
        "r = CAST(x'01' || substr(r, 2) AS BLOB)",
        "t = CAST(x'01' || substr(t, 2) AS BLOB)",
        "accepted = CAST(x'02' || substr(accepted, 2) AS BLOB)",
        "checksum = checksum + 1",
        "chunk = chunk + 1000",
    ],
)
def test_damaged_returns_are_not_read(busy: SqlStore, data: Path, change: str) -> None:
    assert edit(data, f"UPDATE series SET {change}") > 0
    with pytest.raises(StoreDamaged, match="returns of"):
        busy.series(WORLD, *held(busy))
    assert any(said.startswith("series: ") for said in busy.audit(WORLD))


def test_a_job_judges_all_the_returns_or_none(busy: SqlStore, data: Path) -> None:
    sid, stage = held(busy)
    edit(data, "DELETE FROM series")
    with pytest.raises(StoreDamaged, match="not all there"):
        busy.write(partial(busy.series, WORLD, sid, stage))


@pytest.mark.parametrize(
    "change",
    [
        "body = CAST(body || ' ' AS BLOB)",
        "status = 201",
        "request = 'another'",
        "actor = 'eve'",
        "digest = replace(digest, substr(digest, 1, 1), 'x')",
    ],
)
def test_a_damaged_answer_is_not_given_again(busy: SqlStore, data: Path, change: str) -> None:
    ann = ActorId("ann")
    busy.remember(ann, "k", "request", 200, b"{}", START)
    assert busy.remembered(ann, "k") == ("request", 200, b"{}")
    assert busy.audit(SYSTEM) == []
    assert edit(data, f"UPDATE idempotency SET {change} WHERE key = 'k'") == 1
    with pytest.raises(StoreDamaged, match="Idempotency-Key"):
        busy.remembered(ActorId("eve") if "eve" in change else ann, "k")
    assert [said.partition(":")[0] for said in busy.audit(SYSTEM)] == ["idempotency"]


def test_text_that_is_no_text_is_damage_and_no_bug(busy: SqlStore, data: Path) -> None:
    edit(data, "UPDATE strategies SET name = CAST(x'ff' AS TEXT)")
    with pytest.raises(StoreDamaged, match="UTF-8"):
        busy.audit(WORLD)


def test_any_one_bit_changes_a_checksum() -> None:
    draw = Random(0)
    t, r = draw.randbytes(8 * 5), draw.randbytes(8 * 5)
    blobs = t, r, bytes([1, 0, 1, 1, 0])
    whole = checksum(*blobs)
    for number, blob in enumerate(blobs):
        for bit in range(8 * len(blob)):
            flipped = bytearray(blob)
            flipped[bit // 8] ^= 1 << bit % 8
            changed = [*blobs[:number], bytes(flipped), *blobs[number + 1 :]]
            assert checksum(*changed) != whole


def test_the_checksum_of_more_points_is_the_sum_of_theirs() -> None:
    draw = Random(1)
    t, r, accepted = draw.randbytes(8 * 5), draw.randbytes(8 * 5), bytes([1, 1, 0, 0, 1])
    parts = checksum(t[:16], r[:16], accepted[:2]) + checksum(t[16:], r[16:], accepted[2:])
    assert parts % CHECKSUM_PRIME == checksum(t, r, accepted)
