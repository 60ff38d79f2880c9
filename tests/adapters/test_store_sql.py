"""What only the SQL store promises: one owner, a journal nobody edits, views that come back."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from qmtl.adapters.chain import Line, link
from qmtl.adapters.sql import checkpoint, folder
from qmtl.adapters.sql.errors import BodyDropped, FolderInUse, StoreAway, UnknownSchema
from qmtl.adapters.sql.schema import HEAD
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Commit
from qmtl.core import facts as f
from qmtl.core.fold import fold
from qmtl.core.names import Stage, StrategyId, WorldId
from qmtl.core.view import WorldView, same_view

from .by_hand import edit, rows
from .conftest import Reopened
from .histories import ACTORS, EVERYWHERE, START, WORLD
from .test_store import begin, commit, write

Monkey = pytest.MonkeyPatch

# ---- The folder ------------------------------------------------------------------------------


def test_only_the_owner_may_read_what_is_kept(sql: SqlStore, data: Path) -> None:
    begin(sql)
    assert data.stat().st_mode & 0o777 == 0o700
    names = {path.name: path.stat().st_mode & 0o777 for path in data.iterdir()}
    assert names == dict.fromkeys(("lock", "qmtl.db", "qmtl.db-wal", "qmtl.db-shm"), 0o600)


def test_a_second_store_is_refused_and_told_why(sql: SqlStore, data: Path) -> None:
    begin(sql)
    with pytest.raises(FolderInUse, match=str(os.getpid())):
        SqlStore(data)
    script = "import sys; from pathlib import Path; from qmtl.adapters.sql.store import SqlStore\n"
    script += "SqlStore(Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(data)]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert f"Process {os.getpid()} holds" in other.stderr
    assert sql.load(WORLD).seq == 4


def test_closing_gives_the_folder_back(sql: SqlStore, data: Path, reopened: Reopened) -> None:
    begin(sql)
    again = reopened(sql)
    assert again.load(WORLD).seq == 4
    sql.close()  # Twice is once.
    with pytest.raises(StoreAway):
        write(sql, f.Killed(reason="x"))
    again.close()
    assert not (data / "qmtl.db-wal").exists(), "the last to close empties the log"


def test_a_failed_start_gives_the_folder_back(data: Path) -> None:
    data.mkdir()
    edit(data, "CREATE TABLE somebody_elses (x)")
    for _ in range(2):
        with pytest.raises(UnknownSchema, match="not made by qmtl"):
            SqlStore(data)


def test_a_schema_of_the_future_is_refused_and_left_alone(
    sql: SqlStore, data: Path, reopened: Reopened
) -> None:
    begin(sql)
    sql.close()
    edit(data, "UPDATE alembic_version SET version_num = '9999'")
    before = (data / folder.DATABASE).read_bytes()
    with pytest.raises(UnknownSchema, match="9999"):
        SqlStore(data)
    assert (data / folder.DATABASE).read_bytes() == before
    edit(data, f"UPDATE alembic_version SET version_num = '{HEAD}'")
    assert reopened(sql).load(WORLD).seq == 4


def definition(data: Path) -> set[tuple[object, ...]]:
    query = "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name <> 'alembic_version'"
    return set(rows(data, query))


def test_the_migrations_lead_to_what_a_fresh_database_is(sql: SqlStore, tmp_path: Path) -> None:
    """After a change of the tables, write a migration; see `schema.definition`."""
    migrated = tmp_path / "migrated"
    os.close(folder.lock(migrated))
    engine = folder._engine(migrated / folder.DATABASE, "rwc", "PRAGMA journal_mode = WAL")
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        folder.upgrade(connection)
        connection.exec_driver_sql("COMMIT")
        version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    engine.dispose()
    assert version == HEAD
    assert definition(migrated) == definition(tmp_path / "data")


def test_alembic_is_not_imported_when_there_is_nothing_to_migrate(data: Path) -> None:
    script = """
import sys
from pathlib import Path
from qmtl.adapters.sql.store import SqlStore
for _ in range(2):
    SqlStore(Path(sys.argv[1])).close()
assert not any(name.split(".")[0] == "alembic" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(data)], check=True)


def test_a_reader_cannot_write(sql: SqlStore) -> None:
    begin(sql)
    with (
        sql._reading() as connection,
        pytest.raises(OperationalError, match="readonly"),
    ):
        connection.exec_driver_sql("DELETE FROM series")


def test_the_writer_waits_for_the_disk_and_checks_references(sql: SqlStore) -> None:
    settings = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2 is FULL.

    def held(name: str) -> object:
        return sql._transaction.connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    assert sql.write(lambda: {name: held(name) for name in settings}) == settings


def test_commit_outside_a_job_is_a_bug(sql: SqlStore) -> None:
    with pytest.raises(AssertionError, match="jobs of write"):
        commit(sql, f.Killed(reason="x"))


# ---- The view --------------------------------------------------------------------------------


def folded(store: SqlStore) -> WorldView:
    return fold(WorldView(world_id=WORLD), store.journal(WORLD, 0, 10_000))


def test_a_restart_gives_the_same_view_from_its_checkpoint(
    busy: SqlStore, reopened: Reopened
) -> None:
    before = busy.load(WORLD)
    again = reopened(busy)
    assert same_view(again.load(WORLD), before)
    assert same_view(again.load(WORLD), folded(again))
    assert again._hot[WORLD].checkpoint_seq == before.seq


def test_a_checkpoint_is_written_every_so_many_entries(
    sql: SqlStore, data: Path, monkeypatch: Monkey
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_EVERY", 10)
    begin(sql)
    for n in range(25):
        write(sql, f.CampaignExtended(strategy_id=StrategyId("a"), by_sec=n, reason="x"))
    assert rows(data, "SELECT world_id, seq FROM checkpoints") == [(WORLD, 20)]
    # What follows the checkpoint is folded onto it.
    with sql._reading_at_once(WORLD) as connection:
        found = checkpoint.read(connection, WORLD)
    assert found is not None
    assert found.view.seq == 20
    assert same_view(fold(found.view, sql.journal(WORLD, 20, 99)), sql.load(WORLD))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE checkpoints SET layout = 'older'",
        "UPDATE checkpoints SET hash = replace(hash, substr(hash, 1, 1), 'x')",
        "UPDATE checkpoints SET seq = seq - 1",
        "UPDATE checkpoints SET dense = CAST(dense || x'00' AS BLOB)",
        "UPDATE checkpoints SET sparse = CAST(replace(sparse, 'false', 'true') AS BLOB)",
        "DELETE FROM checkpoints",
    ],
)
def test_a_checkpoint_that_cannot_be_trusted_is_ignored(
    busy: SqlStore, data: Path, reopened: Reopened, damage: str
) -> None:
    before = busy.load(WORLD)
    busy.close()
    assert edit(data, damage) == 1
    again = reopened(busy)
    assert same_view(again.load(WORLD), before)
    assert again._hot[WORLD].checkpoint_seq == 0, "it was folded from the first entry"


def test_a_world_nobody_wrote_to_is_not_kept(sql: SqlStore) -> None:
    for n in range(3):
        sql.load(WorldId(f"guess{n}"))
    assert sql._hot == {}


def test_what_another_process_wrote_is_noticed(
    sql: SqlStore, data: Path, monkeypatch: Monkey
) -> None:
    """The lock forbids it; if it happens all the same, compare-and-set says so."""
    begin(sql)
    stale = sql.load(WORLD)
    monkeypatch.setattr(folder, "lock", lambda _: os.open(os.devnull, os.O_RDONLY))
    other = SqlStore(data)
    write(other, f.Killed(reason="elsewhere"))
    other.close()
    assert sql.load(WORLD) is stale

    def job() -> int:
        made = Commit(EVERYWHERE, [f.Resumed(reason="here")], ACTORS[0], START)
        assert sql.commit(WORLD, made) is None
        assert sql.load(WORLD).killed
        written = sql.commit(WORLD, made)
        assert written is not None
        return written[0].seq

    assert sql.write(job) == 6
    assert sql.audit(WORLD) == []


# ---- The chain -------------------------------------------------------------------------------

COLUMNS = "world_id, seq, stream, generation, at, 'eve', kind, body_digest, hash"
UNLOCKED = (
    "DROP TRIGGER journal_is_not_updated",
    "DROP TRIGGER journal_is_not_deleted",
    "DROP TRIGGER bodies_are_not_updated",
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal SET actor = 'eve' WHERE seq = 9",
        "DELETE FROM journal WHERE seq = 9",
        "DELETE FROM journal",
        "UPDATE OR REPLACE journal SET seq = 9 WHERE seq = 10",
        "UPDATE OR IGNORE journal SET hash = body_digest",
        "INSERT OR REPLACE INTO journal SELECT * FROM journal WHERE seq = 9",
        f"REPLACE INTO journal SELECT {COLUMNS} FROM journal WHERE seq = 9",
        f"INSERT INTO journal SELECT {COLUMNS} FROM journal WHERE seq = 9 "
        "ON CONFLICT DO UPDATE SET actor = 'eve'",
        f"INSERT INTO journal SELECT {COLUMNS.replace('seq', 'seq + 1000')} FROM journal "
        "WHERE seq = 9",
        "INSERT INTO journal SELECT 'beta' AS world_id, seq, stream, generation, at, actor, kind, "
        "body_digest, hash FROM journal WHERE seq = 9",
        "UPDATE bodies SET body = x'7b7d'",
        "INSERT OR REPLACE INTO bodies SELECT digest, x'7b7d' FROM bodies",
        "INSERT INTO bodies SELECT digest, x'7b7d' FROM bodies WHERE true "
        "ON CONFLICT DO UPDATE SET body = excluded.body",
        "INSERT OR IGNORE INTO bodies SELECT digest, x'7b7d' FROM bodies",
    ],
)
def test_the_journal_is_append_only(busy: SqlStore, data: Path, statement: str) -> None:
    before = rows(data, "SELECT * FROM journal"), rows(data, "SELECT * FROM bodies")
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|is its digest"):
        edit(data, statement)
    assert (rows(data, "SELECT * FROM journal"), rows(data, "SELECT * FROM bodies")) == before
    assert busy.verify(WORLD) is None


def test_the_same_body_again_is_the_same(busy: SqlStore, data: Path) -> None:
    """Two entries may say the same; a body that was dropped may come back, as it was."""
    assert edit(data, "INSERT OR IGNORE INTO bodies SELECT * FROM bodies") == 0
    copy = "CREATE TEMP TABLE kept AS SELECT * FROM bodies"
    assert edit(data, copy, "DELETE FROM bodies", "INSERT INTO bodies SELECT * FROM kept") > 0
    assert busy.verify(WORLD) is None


@pytest.mark.parametrize(
    ("statement", "bad"),
    [
        ("UPDATE journal SET actor = 'eve' WHERE seq = 9", 9),
        ("UPDATE journal SET at = at + 1 WHERE seq = 9", 9),
        ("UPDATE journal SET kind = kind || 'x' WHERE seq = 9", 9),
        ("UPDATE journal SET generation = generation + 1 WHERE seq = 9", 9),
        ("UPDATE journal SET hash = replace(hash, 'a', 'b') WHERE seq = 9", 9),
        (
            "UPDATE journal SET body_digest = "
            "(SELECT body_digest FROM journal WHERE seq = 10) WHERE seq = 9",
            9,
        ),
        ("DELETE FROM journal WHERE seq = 9", 9),
        ("DELETE FROM journal WHERE seq = 1", 1),
        (
            "UPDATE bodies SET body = CAST(replace(body, '}', ' }') AS BLOB) "
            "WHERE digest = (SELECT body_digest FROM journal WHERE seq = 9)",
            9,
        ),
    ],
)
def test_an_edited_entry_is_found(busy: SqlStore, data: Path, statement: str, bad: int) -> None:
    assert busy.verify(WORLD) is None
    assert edit(data, *UNLOCKED, statement) == 1
    assert busy.verify(WORLD) == bad
    assert busy.audit(WORLD) == [f"journal: entry {bad} is missing or was edited"]


def test_an_edit_that_mends_its_own_hash_breaks_the_next_entry(busy: SqlStore, data: Path) -> None:
    names = ", ".join(name for name in Line.__slots__)
    before, edited = rows(data, f"SELECT {names} FROM journal WHERE seq IN (8, 9) ORDER BY seq")
    cells = {**Line(*edited).cells(), "actor": "eve"}  # type: ignore[arg-type]  # Its own columns.
    mended = link(str(before[-1]), cells)
    edit(data, *UNLOCKED, f"UPDATE journal SET actor = 'eve', hash = '{mended}' WHERE seq = 9")
    assert busy.verify(WORLD) == 10


def test_a_journal_cut_short_is_found(busy: SqlStore, data: Path) -> None:
    last = busy.load(WORLD).seq
    edit(data, *UNLOCKED, f"DELETE FROM journal WHERE seq = {last}")
    assert busy.verify(WORLD) == last
    edit(data, f"UPDATE worlds SET seq = {last - 1}")
    assert busy.verify(WORLD) == last - 1, "its last entry is not the one that was last"


def test_the_chain_holds_when_a_body_is_dropped(busy: SqlStore, data: Path) -> None:
    digest = "(SELECT body_digest FROM journal WHERE seq = 9)"
    assert edit(data, f"DELETE FROM bodies WHERE digest = {digest}") == 1
    assert busy.verify(WORLD) is None
    with pytest.raises(BodyDropped, match="Entry 9"):
        busy.journal(WORLD, 0, 100)
    assert busy.journal(WORLD, 9, 1)[0].seq == 10


def test_series_are_read_by_the_stage(busy: SqlStore) -> None:
    view = busy.load(WORLD)
    for strategy in view.in_order():
        for stage in Stage:
            held = busy.series(WORLD, strategy.strategy_id, stage)
            assert len(held.t) == view.tracks[stage].points[strategy.row]
            assert (held.t[1:] > held.t[:-1]).all()
