"""What only the SQL store promises: durability, a chain, tables that agree, one owner."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from threading import Event, Thread

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from qmtl.adapters.sql import checkpoint, folder, writer
from qmtl.adapters.sql.errors import BodyDropped, FolderInUse, StoreAway, UnknownSchema
from qmtl.adapters.sql.schema import HEAD
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.sql.transaction import TransactionLost
from qmtl.app.ports import Commit
from qmtl.core import facts as f
from qmtl.core.fold import fold
from qmtl.core.names import Phase, Stage, StrategyId, WorldId
from qmtl.core.view import Applied, Void, WorldView, same_view

from .conftest import Reopened
from .histories import WORLD, History
from .test_store import begin, commit, together, write

Monkey = pytest.MonkeyPatch
SEEDS_MAX = 200
COMMITS = 60
WRITERS = 64
GROUPED_AT_MOST = WRITERS // 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the fixture `sql`."""
    return tmp_path / "data"


def eventful() -> list[Commit]:
    """A history after which every table holds something that a test can break."""
    for seed in range(SEEDS_MAX):
        history = History(Random(seed))
        commits = history.commits(COMMITS)
        view = history.view
        standings = {type(candidate.standing) for candidate in view.candidates.values()}
        phases = {view.phase(strategy.row) for strategy in view.in_order()}
        full = (view.live, view.tokens, view.worlds, view.confirmations, view.runs)
        if {Applied, Void} <= standings and Phase.PAPER in phases and all(full):
            return commits
    raise AssertionError("no history is eventful")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to copy, with an eventful world in it."""
    made = tmp_path_factory.mktemp("template") / "data"
    store = SqlStore(made)
    for step in eventful():
        assert store.write(lambda step=step: store.commit(WORLD, step)) is not None
    store.close()
    return made


@pytest.fixture
def busy(template: Path, data: Path) -> Iterator[SqlStore]:
    """A world in which a bit of everything has happened."""
    shutil.copytree(template, data)
    opened = SqlStore(data)
    yield opened
    opened.close()


def edit(data: Path, *statements: str) -> int:
    """Edit the database by hand; how many rows the last statement changed."""
    with closing(sqlite3.connect(data / folder.DATABASE)) as by_hand:
        changed = [by_hand.execute(statement).rowcount for statement in statements]
        by_hand.commit()
    return changed[-1]


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


def definition(data: Path) -> set[tuple[str, str, str]]:
    query = "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name <> 'alembic_version'"
    with closing(sqlite3.connect(data / folder.DATABASE)) as by_hand:
        return set(by_hand.execute(query))


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
    with closing(sqlite3.connect(data / folder.DATABASE)) as by_hand:
        rows = by_hand.execute("SELECT world_id, seq FROM checkpoints").fetchall()
    assert rows == [(WORLD, 20)]
    # What follows the checkpoint is folded onto it.
    with sql._reading_at_once() as connection:
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


# ---- The chain -------------------------------------------------------------------------------

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
        "UPDATE bodies SET body = x'7b7d'",
    ],
)
def test_the_journal_is_append_only(busy: SqlStore, data: Path, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        edit(data, statement)
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


# ---- The tables ------------------------------------------------------------------------------

CORRUPTIONS = [
    ("worlds", "UPDATE worlds SET allow_live = 1 - allow_live"),
    ("policies", "UPDATE policies SET policy = '{}' WHERE version = 1"),
    ("strategies", "UPDATE strategies SET held = 1 - held WHERE row = 0"),
    ("strategies", "UPDATE strategies SET blocked = '[\"held\"]x' WHERE row = 0"),
    ("series_state", "UPDATE series_state SET window_us = window_us + 1 WHERE stage = 'paper'"),
    ("latest_runs", "UPDATE latest_runs SET revision = revision + 1"),
    ("candidates", "UPDATE candidates SET evidence = 'forged'"),
    ("activations", "UPDATE activations SET weight = weight / 2"),
    ("activations", "DELETE FROM activations"),
    ("confirmations", "DELETE FROM confirmations"),
    ("world_list", "UPDATE world_list SET allow_live = 1"),
    ("tokens", "UPDATE tokens SET roles = '[\"admin\"]'"),
    ("series", "UPDATE series SET r = zeroblob(length(r))"),
    ("series", "DELETE FROM series WHERE chunk = 1"),
    ("snapshots", "UPDATE snapshots SET as_of = as_of + 1"),
    ("snapshots", "DELETE FROM snapshots"),
    ("runs", "DELETE FROM runs"),
    ("run_revisions", "UPDATE run_revisions SET actor = 'eve'"),
    ("run_revisions", "UPDATE run_revisions SET run = replace(run, 'pass', 'fail')"),
]


@pytest.mark.parametrize(("table", "statement"), CORRUPTIONS)
def test_an_audit_finds_a_table_that_was_edited(
    busy: SqlStore, data: Path, table: str, statement: str
) -> None:
    assert busy.audit(WORLD) == []
    assert edit(data, statement) > 0
    found = busy.audit(WORLD)
    assert found
    assert {difference.split(":")[0] for difference in found} <= {table, "runs"}
    assert table in {difference.split(":")[0] for difference in found}


def test_an_audit_finds_rows_that_nothing_explains(busy: SqlStore, data: Path) -> None:
    edit(data, "INSERT INTO tokens VALUES ('w', 'planted', 'eve', '[]', NULL, NULL, 1)")
    assert busy.audit(WORLD) == ["tokens: ('planted',) should not be there"]


def test_an_audit_finds_a_checkpoint_that_was_forged(busy: SqlStore, data: Path) -> None:
    with busy._reading_at_once() as connection:
        found = checkpoint.read(connection, WORLD)
    assert found is not None
    forged = replace(found, view=replace(found.view, allow_live=not found.view.allow_live))
    busy.write(lambda: checkpoint.write(busy._transaction.writing(), forged))
    assert [d.split(":")[0] for d in busy.audit(WORLD)] == ["checkpoints"]


IMPOSSIBLE = [
    "UPDATE worlds SET state = 'asleep'",
    "UPDATE worlds SET killed = 2",
    "UPDATE worlds SET seq = 0",
    "UPDATE worlds SET evidence_generation = seq + 1",
    "UPDATE worlds SET seq = 'many'",
    "UPDATE strategies SET phase = 'dryrun'",
    "UPDATE strategies SET step = 0 WHERE phase = 'paper_campaign'",
    "UPDATE strategies SET step = -2",
    "UPDATE series_state SET stage = 'dryrun'",
    "UPDATE series_state SET verdict = 'passed'",
    "UPDATE series_state SET window_points = points + 1",
    "UPDATE series_state SET drawdown = 1.5",
    "UPDATE series_state SET peak = equity / 2",
    "UPDATE series_state SET last_t = first_t - 1 WHERE points > 0",
    "UPDATE latest_runs SET verdict = 'inherited'",
    "UPDATE candidates SET standing = 'expired'",
    "UPDATE candidates SET standing = 'applied', applied_seq = NULL",
    "UPDATE candidates SET standing_at = NULL WHERE standing = 'applied'",
    "UPDATE candidates SET approvals = '[]', standing = 'approved', standing_at = 1, "
    "standing_by = NULL, standing_reason = NULL, applied_seq = NULL",
    "UPDATE candidates SET standing_reason = NULL WHERE standing = 'void'",
    "UPDATE activations SET weight = applied_weight + 0.1",
    "UPDATE activations SET weight = -0.1",
    "UPDATE activations SET applied_weight = 1.1, weight = 1.1",
    "UPDATE activations SET freeze = 2",
    "UPDATE series SET t = x'00'",
    "UPDATE snapshots SET stage = 'dryrun'",
    "UPDATE run_revisions SET verdict = 'unknown'",
    "INSERT INTO clock VALUES (2, 0)",
    "DELETE FROM strategies",
    "DELETE FROM candidates",
]


@pytest.mark.parametrize("statement", IMPOSSIBLE)
def test_a_row_that_cannot_be_is_refused(busy: SqlStore, statement: str) -> None:
    with pytest.raises(IntegrityError):
        busy.write(lambda: busy._transaction.writing().exec_driver_sql(statement))
    assert busy.audit(WORLD) == []


# ---- The writer ------------------------------------------------------------------------------


def traced(store: SqlStore) -> list[str]:
    """Every statement that the writer's connection runs from here on."""
    statements: list[str] = []
    dbapi = store._transaction.connection.connection.dbapi_connection
    assert isinstance(dbapi, sqlite3.Connection)
    dbapi.set_trace_callback(statements.append)
    return statements


def test_writes_that_wait_together_share_a_commit(sql: SqlStore) -> None:
    begin(sql)
    statements = traced(sql)

    def task(number: int) -> None:
        write(sql, f.CampaignExtended(strategy_id=StrategyId("a"), by_sec=1, reason=str(number)))

    together(WRITERS, task)
    assert sql.load(WORLD).seq == 4 + WRITERS
    assert 1 <= statements.count("COMMIT") <= GROUPED_AT_MOST


def test_a_job_that_only_reads_runs_nothing_on_the_writer(sql: SqlStore) -> None:
    begin(sql)
    statements = traced(sql)
    assert sql.write(lambda: sql.load(WORLD).seq) == 4
    assert statements == []


def unkept(store: SqlStore) -> None:
    """Write what no COMMIT takes: a run of a strategy that is not there."""
    connection = store._transaction.writing()
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    connection.exec_driver_sql("INSERT INTO runs VALUES ('w', 'nobody', 'r', 'paper', 1, 1)")


def held_up(store: SqlStore, *jobs: Callable[[], object]) -> list[BaseException | None]:
    """Run jobs as one batch; what each was told."""
    told: list[BaseException | None] = [None] * len(jobs)
    started, release = Event(), Event()

    def first() -> None:
        started.set()
        release.wait()

    def ask(number: int) -> None:
        try:
            store.write(jobs[number])
        except Exception as error:
            told[number] = error

    blocker = Thread(target=store.write, args=(first,))
    blocker.start()
    started.wait()
    waiting = [Thread(target=ask, args=(number,)) for number in range(len(jobs))]
    for number, thread in enumerate(waiting):
        thread.start()
        while store._writer._queue.qsize() <= number:
            pass
    release.set()
    for thread in (blocker, *waiting):
        thread.join()
    return told


def test_when_the_commit_fails_everybody_is_told_and_nothing_is_kept(busy: SqlStore) -> None:
    before = busy.load(WORLD)
    told = held_up(
        busy,
        lambda: commit(busy, f.Killed(reason="first")),
        lambda: unkept(busy),
        lambda: busy.load(WORLD),  # It read what the first had written, and nobody kept.
    )
    assert [type(error) for error in told] == [StoreAway] * 3
    assert busy.load(WORLD) is before
    assert len(busy.journal(WORLD, 0, 10_000)) == before.seq
    write(busy, f.Killed(reason="again"))
    assert busy.load(WORLD).seq == before.seq + 1
    assert busy.audit(WORLD) == []


def test_when_the_disk_is_full_nobody_is_lied_to(busy: SqlStore) -> None:
    before = busy.load(WORLD)

    def full() -> None:
        connection = busy._transaction.connection
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # At least what is used.

    def large(reason: str) -> Callable[[], None]:
        return lambda: commit(busy, f.Killed(reason=reason * 100_000))

    def roomy() -> None:
        connection = busy._transaction.connection
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")

    busy.write(full)
    told = held_up(
        busy, lambda: commit(busy, f.HoldReleased(strategy_id=StrategyId("s1"), reason="x")),
        large("y"),
    )  # fmt: skip
    assert all(told), told
    assert busy.load(WORLD) is before
    busy.write(roomy)
    write(busy, f.Killed(reason="again"))
    assert busy.load(WORLD).seq == before.seq + 1
    assert busy.audit(WORLD) == []


def test_series_are_read_by_the_stage(busy: SqlStore) -> None:
    view = busy.load(WORLD)
    for strategy in view.in_order():
        for stage in Stage:
            held = busy.series(WORLD, strategy.strategy_id, stage)
            assert len(held.t) == view.tracks[stage].points[strategy.row]
            assert (held.t[1:] > held.t[:-1]).all()


def test_a_job_cannot_go_on_after_its_transaction_is_lost(busy: SqlStore) -> None:
    before = busy.load(WORLD)

    def stubborn() -> None:
        commit(busy, f.Killed(reason="x"))
        busy._transaction.connection.exec_driver_sql("ROLLBACK")  # As SQLite does by itself.
        with pytest.raises(TransactionLost):
            commit(busy, f.Killed(reason="y"))

    with pytest.raises(StoreAway):
        busy.write(stubborn)
    assert busy.load(WORLD) is before
    assert busy.audit(WORLD) == []
    write(busy, f.Killed(reason="z"))
    assert busy.audit(WORLD) == []


def test_a_writer_that_breaks_answers_everybody(sql: SqlStore, monkeypatch: Monkey) -> None:
    begin(sql)

    def broken() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(sql._transaction, "abandon", broken)
    with pytest.warns(pytest.PytestUnhandledThreadExceptionWarning, match="broken"):
        told = held_up(sql, lambda: unkept(sql), lambda: None)
        sql._writer._thread.join()
    assert [type(error) for error in told] == [StoreAway] * 2
    with pytest.raises(StoreAway, match="closed"):
        write(sql, f.Killed(reason="x"))


def test_a_batch_ends_when_it_is_old(sql: SqlStore, monkeypatch: Monkey) -> None:
    begin(sql)
    monkeypatch.setattr(writer, "BATCH_SEC", -1.0)
    statements = traced(sql)
    held_up(sql, *[lambda: write(sql, f.Killed(reason="x"))] * 5)
    assert statements.count("COMMIT") == 5
