"""Any I/O operation of any mutating use case fails: callers are told, nothing is lost or half.

EIO on each operation, once, or on all of its kind from there on, or on everything; ENOSPC on each
write, once or until there is room again; and each read comes short, or with one bit flipped. A
sample, the same every time; `make power` does them all.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest
from starlette.testclient import TestClient

from qmtl.adapters.sql.errors import StoreAway, StoreDamaged, refusal
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.names import SYSTEM
from qmtl.sim import cast
from qmtl.sim.scene import Scene
from tests.http.harness import Harness, begin
from tests.worlds import ALPHA, approved, opened

from . import dbapi, vfs
from .cases import CASES, Case
from .conftest import Tried
from .faulty import faults, outcome_of
from .rig import scratch, store_on
from .vfs import Fault, Kind, Recorder, Way, watching

ALL = os.environ.get("QMTL_POWER") == "all"
FAULTS = 3  # Of each case, in the ordinary run.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_disk_that_fails_loses_nothing_and_misleads_nobody(case: Case, tried: Tried) -> None:
    chosen = list(faults(case))
    if not ALL:
        chosen = Random(case.name).sample(chosen, FAULTS)
    found = []
    for fault in chosen:
        ended = outcome_of(case, fault)
        tried(f"{fault.way}: {ended.word}", 1)
        found += [f"{fault}: {said}" for said in ended.faults]
    assert not found, "\n".join(found)


# ---- What a caller is told -----------------------------------------------------------------------


def connect(uri: str) -> dbapi.Connection:
    return dbapi.Connection(uri, vfs.NAME)


@contextmanager
def serving() -> Iterator[tuple[Harness, Recorder]]:
    """An application whose disk can be made to fail."""
    with scratch() as directory, watching(directory) as recorder:
        store = store_on(directory, connect)
        try:
            harness = begin(store)
            with harness.client:
                yield harness, recorder
        finally:
            recorder.heal()
            store.close()


def test_a_full_disk_is_a_503_that_says_so_until_there_is_room() -> None:
    with serving() as (harness, recorder):
        recorder.fault = Fault(Way.FULL, Kind.WRITE, at=1, lasts=True)
        answer = harness.call("admin", "POST", "/worlds", {"id": "w"})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        problem = answer.json()
        assert problem["type"] == "urn:qmtl:problem:store-away"
        assert problem["details"][0] == "The disk of the data folder is full: make room there."
        assert not harness.store.load(SYSTEM).worlds
        recorder.heal()
        assert harness.call("admin", "POST", "/worlds", {"id": "w"}).status_code == 201


def test_a_disk_that_fails_is_a_503_and_no_bug() -> None:
    with serving() as (harness, recorder):
        quiet = TestClient(harness.client.app, raise_server_exceptions=False)
        recorder.fault = Fault(Way.EIO, None, at=1, lasts=True)
        body = {"id": "w"}
        answer = quiet.post("/worlds", json=body, headers=harness.headers("admin"))
        assert answer.status_code == 503
        assert "disk of the data folder fails" in answer.json()["detail"]


def test_an_answer_that_the_disk_refused_is_remembered_under_no_key() -> None:
    key = {"Idempotency-Key": "k"}
    with serving() as (harness, recorder):
        recorder.fault = Fault(Way.EIO, Kind.SYNC, at=recorder.counts[Kind.SYNC] + 1)
        refused = harness.call("admin", "POST", "/worlds", {"id": "w"}, headers=key)
        assert refused.status_code == 503
        done = harness.call("admin", "POST", "/worlds", {"id": "w"}, headers=key)
        assert done.status_code == 201
        assert "Idempotency-Replayed" not in done.headers


@contextmanager
def kept() -> Iterator[Path]:
    """A folder with a world in it, whose journal has to be read from its beginning."""
    with scratch() as directory:
        store = SqlStore(directory)
        opened(store)
        store._checkpoint_all = lambda: None  # type: ignore[method-assign]  # As when it is killed.
        store.close()
        yield directory


def test_an_error_within_a_read_is_what_the_reader_is_told() -> None:
    """Not that there was no transaction left to end."""
    with kept() as directory, watching(directory) as recorder:
        store = store_on(directory, connect)
        recorder.fault = Fault(Way.EIO, Kind.READ, recorder.counts[Kind.READ] + 1, lasts=True)
        with pytest.raises(StoreAway, match="EIO on read"):
            store.load(SYSTEM)
        recorder.heal()
        assert store.load(SYSTEM).worlds
        store.close()


def test_a_connection_that_cannot_be_set_up_is_closed() -> None:
    closed: list[bool] = []

    class Watched(dbapi.Connection):
        def execute(self, sql: str, parameters: dbapi.Parameters = ()) -> dbapi.Cursor:
            if "foreign_keys" in sql:
                raise vfs_error()
            return super().execute(sql, parameters)

        def close(self) -> None:
            closed.append(True)
            super().close()

    def vfs_error() -> Exception:
        return dbapi.translated(vfs.error(Kind.READ, Way.EIO))

    with scratch() as directory, watching(directory):
        with pytest.raises(StoreAway, match="data folder fails"):
            store_on(directory, lambda uri: Watched(uri, vfs.NAME))
        assert closed == [True]


def test_a_file_that_is_no_database_is_said_to_be_damaged() -> None:
    with kept() as directory:
        path = directory / "qmtl.db"
        path.write_bytes(b"x" * path.stat().st_size)
        with pytest.raises(StoreDamaged, match="not a database"):
            SqlStore(directory)


Act = Callable[[Scene], object]
DAMAGE: list[tuple[str, tuple[str, ...], Act, str]] = [
    (
        "a row that others refer to is gone",
        ("DELETE FROM strategies",),
        lambda s: s.reject(ALPHA),
        "rows are not those of its journal",
    ),
    (
        "a row is there that nobody wrote",
        (
            "CREATE TABLE made AS SELECT * FROM journal WHERE seq = 1 AND world_id = 'w'",
            "UPDATE made SET hash = substr(hash, 2) || 0, seq = (SELECT w.seq + 1 FROM worlds w "
            "WHERE w.world_id = 'w')",
            "INSERT INTO journal SELECT * FROM made",
        ),
        lambda s: s.reject(ALPHA),
        "is missing or was edited",
    ),
    (
        "a table is gone",
        ("DROP TABLE candidates",),
        lambda s: s.reject(ALPHA),
        "tables are not as they were made",
    ),
    (
        "a column has another name",
        ("ALTER TABLE candidates RENAME COLUMN step TO stop",),
        lambda s: s.reject(ALPHA),
        "tables are not as they were made",
    ),
    (
        "a table that others refer to is another",
        ("DROP TABLE strategies", "CREATE TABLE strategies (world_id TEXT, strategy_id TEXT)"),
        lambda s: s.reject(ALPHA),
        "tables are not as they were made",
    ),
    (
        "a run is no run",
        ("UPDATE run_revisions SET run = '{}'",),
        lambda s: s.approve(ALPHA, cast.PETE),
        "not what was written",
    ),
    (
        "what a world is folded from is gone",
        ("DELETE FROM checkpoints", "DELETE FROM bodies"),
        lambda s: s.kill(),
        "is not all there",
    ),
]


@pytest.mark.parametrize(
    ("damage", "act", "told"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE]
)
def test_what_damage_a_write_comes_upon_is_said(
    damage: tuple[str, ...], act: Act, told: str
) -> None:
    """A 503 that says what to do, and no 500; and nothing is kept of what was asked."""
    with scratch() as directory:
        store = SqlStore(directory)
        scene = approved(store)
        store.close()
        with closing(sqlite3.connect(directory / "qmtl.db")) as by_hand:
            for statement in damage:
                by_hand.execute(statement)
            by_hand.commit()
            before = list(by_hand.execute("SELECT hash FROM journal"))
        store = SqlStore(directory)
        try:
            with pytest.raises(StoreDamaged, match=told) as refused:
                act(Scene(store, scene.now, scene.world_id))
            assert refused.value.status == 503
        finally:
            store.close()
        with closing(sqlite3.connect(directory / "qmtl.db")) as by_hand:
            assert list(by_hand.execute("SELECT hash FROM journal")) == before


@pytest.mark.parametrize(
    ("code", "message", "refused"),
    [
        (sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY, "FOREIGN KEY constraint failed", StoreDamaged),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, "UNIQUE constraint failed: journal.hash", StoreDamaged),
        (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, "UNIQUE constraint failed: t.id", StoreDamaged),
        (sqlite3.SQLITE_CONSTRAINT_TRIGGER, "the journal is append-only", StoreDamaged),
        (sqlite3.SQLITE_CONSTRAINT_CHECK, "CHECK constraint failed: weight >= 0", type(None)),
        (sqlite3.SQLITE_CONSTRAINT_NOTNULL, "NOT NULL constraint failed: t.r", type(None)),
        (sqlite3.SQLITE_ERROR, "no such column: ABORT", StoreDamaged),
        (sqlite3.SQLITE_ERROR, 'near "SELCT": syntax error', type(None)),
        (sqlite3.SQLITE_IOERR, "disk I/O error", StoreAway),
    ],
)
def test_what_sqlite_says_is_the_disk_or_a_bug(code: int, message: str, refused: type) -> None:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = code
    assert type(refusal(error)) is refused
