"""A database of before: `made_by_0001.sql` is what the program of schema 0001 left in one.

In it alpha is live, beta never told a fingerprint, gamma is retired and held; with a checkpoint of
each world, as they were laid out then.  It is never made again: nobody can.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from qmtl.adapters.sql import folder
from qmtl.adapters.sql.errors import UnknownSchema
from qmtl.adapters.sql.schema import HEAD
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.fold import fold
from qmtl.core.invariants import check
from qmtl.core.names import SYSTEM, ActorId, Phase, Stage, StrategyId
from qmtl.core.view import WorldView, same_view
from qmtl.sim import cast
from qmtl.sim.scene import Scene
from tests.worlds import ALPHA, BETA, GAMMA, LATER, good

from .by_hand import rows
from .histories import WORLD

MADE = Path(__file__).with_name("made_by_0001.sql").read_text()
ALPHA2 = StrategyId("alpha.2")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A data folder as the program of 0001 left it."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with closing(sqlite3.connect(data / folder.DATABASE)) as by_hand:
        by_hand.executescript(MADE)
    return data


def dumped(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / folder.DATABASE)) as by_hand:
        return sorted(by_hand.iterdump())


def as_made() -> list[str]:
    """Sorted: in what order tables were made, and made anew, says nothing of what is in them."""
    with closing(sqlite3.connect(":memory:")) as by_hand:
        by_hand.executescript(MADE)
        return sorted(by_hand.iterdump())


def migrate(data: Path, move: Callable[[Connection], None]) -> None:
    """In one transaction, on a connection that checks references: as a start does it."""
    engine = folder._engine(data / folder.DATABASE, "rw", "PRAGMA journal_mode = WAL")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            move(connection)
            connection.exec_driver_sql("COMMIT")
    finally:
        engine.dispose()


def down(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(folder.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.downgrade(config, "0001")


def test_a_start_brings_it_up_to_date_and_nothing_is_lost(old: Path, tmp_path: Path) -> None:
    checkpoints = rows(old, "SELECT world_id, seq FROM checkpoints ORDER BY world_id")
    journal = rows(old, "SELECT * FROM journal ORDER BY world_id, seq")
    SqlStore(tmp_path / "fresh").close()
    store = SqlStore(old)
    assert rows(old, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    query = "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name <> 'alembic_version'"
    assert set(rows(old, query)) == set(rows(tmp_path / "fresh", query))
    assert rows(old, "PRAGMA foreign_key_check") == []
    assert rows(old, "SELECT * FROM journal ORDER BY world_id, seq") == journal
    for world_id in (SYSTEM, WORLD):
        assert store.verify(world_id) is None
        assert store.audit(world_id) == []
        assert dict(checkpoints)[world_id] == store.load(world_id).seq
        assert store._hot[world_id].checkpoint_seq == 0, "one laid out otherwise is not read"
    view = store.load(WORLD)
    assert [view.phase(view.strategies[s].row) for s in (ALPHA, BETA, GAMMA)] == [
        *(Phase.LIVE, Phase.BACKTEST, Phase.RETIRED)
    ]
    assert view.live[ALPHA].weight == 0.1
    assert len(store.series(WORLD, ALPHA, Stage.BACKTEST).t) == 30
    assert store.remembered(ActorId("ann"), "key") == ("digest", 200, b"{}")
    told = rows(old, "SELECT strategy_id, family, version, previous, parts FROM strategies")
    assert told == [(sid, sid, 1, None, "{}") for sid in (ALPHA, BETA, GAMMA)]
    store.close()


def test_what_is_in_it_goes_on(old: Path) -> None:
    store = SqlStore(old)
    scene = Scene(store, now=LATER)
    run = scene.submit(ALPHA, good(30), fingerprint="f2")
    assert run.strategy_id == ALPHA2
    assert scene.view.live[ALPHA].weight == 0.1, "what is live stays so"
    first = scene.submit(BETA, good(30), cast.BOB, fingerprint="its first")
    assert first.strategy_id == BETA
    assert store.audit(WORLD) == []
    assert check(scene.view, scene.now) == ()
    before = scene.view
    store.close()
    again = SqlStore(old)
    assert same_view(again.load(WORLD), before)
    assert again._hot[WORLD].checkpoint_seq == before.seq, "from here on there is one"
    assert same_view(before, fold(WorldView(world_id=WORLD), again.journal(WORLD, 0, 1_000)))
    again.close()


def test_a_start_that_was_cut_off_leaves_it_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = folder.upgrade

    def cut_off(connection: Connection) -> None:
        upgrade(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "upgrade", cut_off)
    with pytest.raises(KeyboardInterrupt):
        SqlStore(old)
    assert dumped(old) == as_made()
    monkeypatch.undo()
    SqlStore(old).close()
    assert rows(old, "SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_up_and_down_is_where_it_was(old: Path) -> None:
    migrate(old, folder.upgrade)
    assert rows(old, "SELECT count(*) FROM strategies WHERE family = strategy_id") == [(3,)]
    migrate(old, down)
    assert dumped(old) == as_made()


def test_there_is_no_way_down_from_what_the_program_before_could_not_read(old: Path) -> None:
    store = SqlStore(old)
    Scene(store, now=LATER).bind(StrategyId("new"))
    store.close()
    before = dumped(old)
    with pytest.raises(UnknownSchema, match="a copy from before"):
        migrate(old, down)
    assert dumped(old) == before
