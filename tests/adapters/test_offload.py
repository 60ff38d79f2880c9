"""What leaves the database for an object store: it is as if it were there, or it is refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.objects import MemoryObjects, ObjectDamaged, ObjectsAway
from qmtl.adapters.sql import outside, schema
from qmtl.adapters.sql import store as store_module
from qmtl.adapters.sql.errors import StoreAway
from qmtl.adapters.sql.outside import Moved
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Kept, Listed, Store
from qmtl.core.fold import fold
from qmtl.core.names import Mode, Stage
from qmtl.core.snapshot import PostedSeries
from qmtl.core.view import Activation, WorldView, same_view
from qmtl.sim.scene import WORLD, Scene
from tests.objects import Server, everything_leaves
from tests.worlds import ALPHA, BETA, approved, good, live, observe, opened

from .by_hand import edit, rows
from .test_objects import bucket

PART = schema.PART_CHUNKS * schema.CHUNK_POINTS
LONG = 2 * PART + 200
MINUTE = timedelta(minutes=1)
WAIT_SEC = 20.0


class Fickle(MemoryObjects):
    """Does not answer while `away`; counts what it is asked."""

    away = False
    asked = 0

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise ObjectsAway("It is away.")

    def put(self, chunk: bytes) -> Kept:
        self._ask()
        return super().put(chunk)

    def get(self, kept: Kept) -> bytes:
        self._ask()
        return super().get(kept)

    def listed(self) -> Iterator[Listed]:
        self._ask()
        return super().listed()


@pytest.fixture
def held() -> Fickle:
    return Fickle()


@pytest.fixture
def store(data: Path, held: Fickle) -> Iterator[SqlStore]:
    store = SqlStore(data, objects=held)
    yield store
    store.close()


def minutes(count: int, scene: Scene) -> PostedSeries:
    """Returns of so many minutes, up to now."""
    back = np.arange(count - 1, -1, -1, dtype=np.int64)
    last = np.int64(scene.now.timestamp()) * 1_000_000
    return PostedSeries(last - back * 60_000_000, good(count))


def everything(store: Store) -> list[object]:
    """All that anybody can ask of a world."""
    view = store.load(WORLD)
    series = [store.series(WORLD, s.strategy_id, stage) for s in view.in_order() for stage in Stage]
    return [
        [(s.t.tolist(), s.r.tolist(), s.accepted.tolist()) for s in series],
        *(store.journal(WORLD, 0, 10_000), store.chained(WORLD, 0, 10_000), store.head(WORLD)),
        *(store.snapshots(WORLD, 100), store.latest_snapshot(WORLD)),
        [store.runs(WORLD, s.strategy_id, 100) for s in view.in_order()],
    ]


def long(store: Store) -> Scene:
    """A world with two long backtests."""
    scene = opened(store)
    scene.submit(ALPHA, good(30))
    scene.submit(BETA, good(LONG))
    scene.post(Stage.SHADOW, {ALPHA: minutes(LONG, scene)})
    return scene


# ---- As if it were there -----------------------------------------------------------------------


def test_what_is_large_leaves_and_nothing_is_missed(
    store: SqlStore, data: Path, held: Fickle
) -> None:
    long(store)
    before = everything(store)
    assert held.held == {}
    moved = store.offload()
    assert moved == Moved(bodies=2, parts=4, size=sum(len(c) for c, _ in held.held.values()))
    assert len(held.held) == 6
    assert everything(store) == before
    assert store.verify(WORLD) is None
    assert store.audit(WORLD) == []
    assert rows(data, "SELECT count(*), max(length(body)) < 65536 FROM bodies") == [
        (rows(data, "SELECT count(*) FROM bodies")[0][0], 1)
    ]
    assert rows(
        data, "SELECT stage, sum(points), min(chunk) FROM series GROUP BY 1 ORDER BY 1"
    ) == [
        ("backtest", 30 + 200, 0),
        ("shadow", 200, 64),
    ]
    assert store.offload() == Moved()


def test_nothing_leaves_without_a_place_to_go(data: Path) -> None:
    store = SqlStore(data)
    long(store)
    assert store.offload() == Moved()
    store.close()


def test_it_is_there_after_a_start_and_grows_and_is_restated(
    store: SqlStore, data: Path, held: Fickle
) -> None:
    scene, plain = long(store), long(MemoryStore())
    store.offload()
    store.close()
    again = SqlStore(data, objects=held)
    scene.store = again
    for each in (scene, plain):
        each.wait(timedelta(days=1))
        each.post(Stage.SHADOW, {ALPHA: minutes(1, each)})
        each.post(Stage.SHADOW, {BETA: minutes(PART, each)})
        each.wait(timedelta(days=1))
        each.restate(Stage.SHADOW, ALPHA, minutes(PART + 1, each))
    assert everything(again) == everything(plain.store)
    again.offload()
    assert everything(again) == everything(plain.store)
    assert again.audit(WORLD) == []
    assert rows(data, "SELECT strategy_id, chunk, chunks FROM parts WHERE stage = 'shadow'") == [
        (ALPHA, 0, 32),
        (BETA, 0, 32),
    ]
    again.close()


def test_the_same_on_a_real_store(data: Path, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqlStore(data, objects=bucket(s3, "offload", monkeypatch))
    long(store)
    before = everything(store)
    assert store.offload().parts == 4
    assert everything(store) == before
    assert store.audit(WORLD) == []
    store.close()


def test_the_same_on_postgresql(database_url: str, held: Fickle) -> None:
    store, other = SqlStore(database_url, objects=held), SqlStore(database_url, objects=held)
    long(store)
    before = everything(other)
    assert (moved := store.offload()).bodies == 2
    assert moved.parts == 4
    assert everything(other) == everything(store) == before
    assert other.audit(WORLD) == []
    for each in (store, other):
        each.close()


def test_a_body_that_is_written_again_leaves_again(store: SqlStore, data: Path) -> None:
    long(store)
    store.offload()
    elsewhere = Scene(store, world_id=type(WORLD)("elsewhere"))
    elsewhere.create()
    elsewhere.bind(ALPHA)
    elsewhere.post(Stage.SHADOW, {ALPHA: minutes(LONG, elsewhere)})  # The very same fact.
    assert rows(data, "SELECT count(*) FROM bodies WHERE length(body) > 65536") == [(1,)]
    assert store.offload().bodies == 1
    assert store.audit(WORLD) == store.audit(elsewhere.world_id) == []


# ---- Object first, then commit -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["take_bodies", "take_part"])
def test_a_crash_between_object_and_commit_names_no_object(
    store: SqlStore, data: Path, held: Fickle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    long(store)
    before = everything(store)
    taken: Callable[..., Any] = getattr(outside, name)

    def cut_off(*given: Any) -> None:
        taken(*given)
        raise KeyboardInterrupt  # The commit is not reached.

    monkeypatch.setattr(outside, name, cut_off)
    with pytest.raises(KeyboardInterrupt):
        store.offload()
    orphans = set(held.held)
    named = {key for (key,) in rows(data, "SELECT key FROM objects")}
    assert orphans - named, "an object that nobody names"
    assert named <= orphans, "none is named that is not there"
    assert everything(store) == before
    monkeypatch.undo()
    store.offload()
    assert everything(store) == before
    assert {key for (key,) in rows(data, "SELECT key FROM objects")} <= set(held.held)


def test_what_cannot_be_read_back_does_not_leave(
    store: SqlStore, data: Path, held: Fickle, monkeypatch: pytest.MonkeyPatch
) -> None:
    long(store)
    before = everything(store)
    put = MemoryObjects.put

    def torn(self: MemoryObjects, chunk: bytes) -> Kept:
        kept = put(self, chunk)
        self.held[kept.key] = chunk[:-1], self.held[kept.key][1]
        return kept

    monkeypatch.setattr(MemoryObjects, "put", torn)
    with pytest.raises(ObjectDamaged):
        store.offload()
    assert rows(data, "SELECT count(*) FROM objects") == [(0,)]
    assert everything(store) == before


def test_a_restatement_while_a_part_leaves_wins(
    store: SqlStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = long(store)
    put_parts = outside.put_parts

    def slow(*given: Any) -> Any:
        put = put_parts(*given)
        series = minutes(LONG, scene)
        scene.restate(Stage.SHADOW, ALPHA, PostedSeries(series.t, -series.r))
        return put

    monkeypatch.setattr(outside, "put_parts", slow)
    moved = store._moved(store._objects)  # type: ignore[arg-type]  # It has one.
    assert moved.parts == 2, "those of the backtest"
    assert store.series(WORLD, ALPHA, Stage.SHADOW).r[0] == -0.01
    monkeypatch.undo()
    store.offload()
    assert store.series(WORLD, ALPHA, Stage.SHADOW).r[0] == -0.01
    assert store.audit(WORLD) == []


# ---- Away, missing, another --------------------------------------------------------------------


def damage(held: MemoryObjects, how: str) -> None:
    for key, (chunk, at) in list(held.held.items()):
        if how == "missing":
            del held.held[key]
        else:
            held.held[key] = chunk[:-1] + bytes([chunk[-1] ^ 1]), at


@pytest.mark.parametrize("how", ["missing", "another"])
def test_what_the_store_lost_is_refused_and_found(store: SqlStore, held: Fickle, how: str) -> None:
    scene = long(store)
    store.offload()
    damage(held, how)
    with pytest.raises(ObjectDamaged):
        store.series(WORLD, BETA, Stage.BACKTEST)
    with pytest.raises(ObjectDamaged):
        store.journal(WORLD, 0, 10_000)
    with pytest.raises(ObjectDamaged):
        store.chained(WORLD, 0, 10_000)
    seq = store.load(WORLD).seq
    with pytest.raises(ObjectDamaged):
        scene.evaluate(BETA, Stage.BACKTEST)
    assert store.load(WORLD).seq == seq, "no run is recorded of what is not there"
    bad = store.verify(WORLD)
    assert bad is not None
    assert store.audit(WORLD) == [f"journal: entry {bad} is missing or was edited"]


@pytest.mark.parametrize("how", ["missing", "another", "away"])
def test_nobody_goes_live_on_what_is_not_there(
    data: Path, held: Fickle, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything_leaves(monkeypatch)
    store = SqlStore(data, objects=held)
    scene = approved(store)
    observe(scene, Stage.PAPER, 1)  # Not judged yet: `apply` will.
    store.offload()
    store.close()
    store = scene.store = SqlStore(data, objects=held)  # It remembers nothing.
    held.away = how == "away"
    if how != "away":
        whole = dict(held.held)
        damage(held, how)
    with pytest.raises(StoreAway) as refused:
        scene.apply(ALPHA)
    assert refused.value.status == 503
    assert scene.decide(ALPHA).effective_mode is Mode.PAPER
    held.away = False
    if how != "away":
        held.held = whole
    assert isinstance(scene.apply(ALPHA), Activation)
    store.close()


def test_while_the_store_is_away_the_world_opens_stops_and_goes_on(
    data: Path, held: Fickle, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything_leaves(monkeypatch)
    store = SqlStore(data, objects=held)
    scene = live(store)
    store.offload()
    crashed = data.with_name("crashed")
    shutil.copytree(data, crashed)  # As it lies there now: nobody closed it.
    store.close()
    held.away, held.asked = True, 0
    store = scene.store = SqlStore(crashed, objects=held)
    assert scene.decide(ALPHA).effective_mode is Mode.LIVE
    observe(scene, Stage.LIVE, 1)
    scene.wait(timedelta(days=1))
    scene.bar(Stage.LIVE, {ALPHA: -0.5})  # Beyond the drawdown that is allowed.
    assert ALPHA not in scene.view.live
    scene.kill()
    assert held.asked == 0, "none of this waits for it"
    with pytest.raises(ObjectsAway):
        store.offload()
    assert scene.view.killed
    held.away = False
    store.offload()
    assert store.audit(WORLD) == []
    store.close()


class Hanging(MemoryObjects):
    """Does not come back from a `get` until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may = Event(), Event()
        self.may.set()

    def get(self, kept: Kept) -> bytes:
        self.asked.set()
        assert self.may.wait(WAIT_SEC)
        return super().get(kept)


def test_nobody_waits_for_a_store_that_hangs_but_who_needs_it(data: Path) -> None:
    held = Hanging()
    store = SqlStore(data, objects=held)
    scene = long(store)
    store.offload()
    held.asked.clear()
    held.may.clear()
    found: list[object] = []
    judge = Thread(target=lambda: found.append(scene.evaluate(BETA, Stage.BACKTEST)))
    judge.start()
    assert held.asked.wait(WAIT_SEC)
    scene.kill()
    assert scene.view.killed
    assert not found
    held.may.set()
    judge.join(WAIT_SEC)
    assert len(found) == 1
    store.close()


@pytest.mark.parametrize("turns", [0, 1, 4])
def test_a_job_that_needs_much_gets_it_and_is_done_once(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    scene = long(store)
    store.offload()
    monkeypatch.setattr(store_module, "FETCHES_MAX", turns)
    before, tries = scene.view.seq, []

    def job() -> int:
        tries.append(1)
        scene.kill()
        points = [
            len(store.series(WORLD, sid, stage).t)
            for sid, stage in ((BETA, Stage.BACKTEST), (ALPHA, Stage.SHADOW))
        ]
        return sum(points)

    assert store.write(job) == 2 * LONG
    assert len(tries) == min(turns, 2) + 1
    assert scene.view.seq == before + 1


def test_no_body_leaves_before_a_checkpoint_stands_for_it(
    store: SqlStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long(store)
    assert rows(data, "SELECT count(*) FROM checkpoints") == [(0,)]
    store.offload()
    view = store.load(WORLD)
    assert rows(data, f"SELECT seq FROM checkpoints WHERE world_id = '{WORLD}'") == [(view.seq,)]
    assert same_view(view, fold(WorldView(world_id=WORLD), store.journal(WORLD, 0, 10_000)))


def test_a_start_that_does_not_know_the_store_is_refused(store: SqlStore, data: Path) -> None:
    long(store)
    store.offload()
    store.close()
    with pytest.raises(StoreAway, match="QMTL_OBJECTS_URL"):
        SqlStore(data)


def test_no_part_is_named_that_no_object_is_known_of(store: SqlStore, data: Path) -> None:
    long(store)
    store.offload()
    edit(data, "DELETE FROM objects WHERE digest IN (SELECT digest FROM parts LIMIT 1)")
    assert rows(data, "PRAGMA foreign_key_check")


# ---- What it costs -----------------------------------------------------------------------------


@contextmanager
def counted(store: SqlStore) -> Iterator[list[int]]:
    """Bytes that each statement was given, while the block runs."""
    found: list[int] = []

    def said(c: object, cursor: object, statement: str, parameters: Any, *more: Any) -> None:
        found.append(len(statement) + len(json.dumps(parameters, default=str)))

    event.listen(store._database.writer, "before_cursor_execute", said)
    try:
        yield found
    finally:
        event.remove(store._database.writer, "before_cursor_execute", said)


def cost(store: SqlStore, data: Path, scene: Scene) -> tuple[int, int, int]:
    """Of a bar: statements, bytes in them, bytes written to the log."""
    log = data / "qmtl.db-wal"
    with store._database.writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    scene.wait(MINUTE)
    with counted(store) as found:
        scene.post(Stage.SHADOW, {ALPHA: minutes(1, scene)}, version=f"v{scene.now:%m%dT%H%M}")
    return len(found), sum(found), log.stat().st_size


@pytest.mark.parametrize("outside", [False, True])
def test_what_an_append_costs_does_not_depend_on_how_much_is_held(
    store: SqlStore, data: Path, held: Fickle, outside: bool
) -> None:
    scene = opened(store)
    scene.bind(ALPHA)
    scene.post(Stage.SHADOW, {ALPHA: minutes(100, scene)})
    short = cost(store, data, scene)
    scene.wait(timedelta(days=365))
    scene.post(Stage.SHADOW, {ALPHA: minutes(128 * 1_000, scene)})  # As full as before.
    if outside:
        assert store.offload().parts > 30
    asked = held.asked
    many = cost(store, data, scene)
    assert many[0] == short[0], "statements"
    assert abs(many[1] - short[1]) < 64, "bytes, but for longer numbers"
    assert many[2] <= short[2] + 3 * 4_120, "pages: an index may be deeper by one"
    assert held.asked == asked, "no object is read or written"
    assert len(store.series(WORLD, ALPHA, Stage.SHADOW).t) == 128_102
