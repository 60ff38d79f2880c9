"""Several processes on one database: each store here stands for the one of a process."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from threading import Barrier, Event, Thread

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from qmtl.adapters.sql.errors import StoreAway, StoreDamaged, UnknownSchema
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Commit, Store
from qmtl.app.step import ANYTHING, By, step
from qmtl.core import facts as f
from qmtl.core.errors import Invalid, UnknownWorld, WorldBusy
from qmtl.core.names import SYSTEM, Stage, StrategyId, WorldId
from qmtl.core.view import Expected, WorldView
from tests.postgres import Server, serving

from .histories import ACTORS, EVERYWHERE, START, WORLD
from .test_store import bar, begin, write

ANN = By(actor=ACTORS[0], roles=frozenset(), now=START)
OTHER = WorldId("other")
PROCESSES, JOBS_EACH = 3, 40


@pytest.fixture
def one(database_url: str) -> Iterator[SqlStore]:
    with closing(SqlStore(database_url)) as store:
        begin(store)
        for world_id in (WORLD, OTHER):
            made = f.WorldCreated(
                world_id=world_id, name="", description="", labels={}, allow_live=False
            )
            write(store, made, world=SYSTEM)
        yield store


@pytest.fixture
def other(one: SqlStore, database_url: str) -> Iterator[SqlStore]:
    with closing(SqlStore(database_url)) as store:
        yield store


def kill(view: WorldView) -> tuple[None, list[f.Fact]]:
    return None, [f.Killed(reason=str(view.seq))]


def together(jobs: list[Callable[[], None]]) -> list[BaseException]:
    """Each in a thread of its own, begun at once; what they raised."""
    start, raised = Barrier(len(jobs)), []

    def run(job: Callable[[], None]) -> None:
        start.wait()
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_what_one_wrote_the_other_reads_at_once(one: SqlStore, other: SqlStore) -> None:
    assert other.load(WORLD).seq == one.load(WORLD).seq
    write(one, f.Killed(reason="x"))
    assert other.load(WORLD).killed
    write(other, bar("v1", 1, a=0.01))
    assert len(one.series(WORLD, StrategyId("a"), Stage.PAPER).t) == 1
    assert one.load(WORLD).seq == other.load(WORLD).seq == other.head(WORLD).seq


def test_each_decides_on_what_the_others_wrote(database_url: str, one: SqlStore) -> None:
    """As a job finds it, so the world is until the job is done: no decision is thrown away."""
    stores = [one, *(SqlStore(database_url) for _ in range(PROCESSES - 1))]
    seen: list[int] = []

    def decide(view: WorldView) -> tuple[None, list[f.Fact]]:
        seen.append(view.seq)
        return kill(view)

    def many(store: Store) -> Callable[[], None]:
        def job() -> None:
            for _ in range(JOBS_EACH):
                step(store, WORLD, ANN, decide)

        return job

    before = one.load(WORLD).seq
    assert together([many(store) for store in stores]) == []
    assert sorted(seen) == [before + n for n in range(PROCESSES * JOBS_EACH)]
    entries = one.journal(WORLD, before, PROCESSES * JOBS_EACH)
    assert [entry.fact for entry in entries] == [
        f.Killed(reason=str(entry.seq - 1)) for entry in entries
    ]
    assert one.verify(WORLD) is None
    assert one.audit(WORLD) == []
    for store in stores[1:]:
        store.close()


@pytest.mark.parametrize("alone", [True, False])
def test_one_is_the_first_to_write_to_a_world(database_url: str, alone: bool) -> None:
    """Two processes that start on an empty database: there is no row yet that one could hold.
    `alone`: the job is its batch's first; else it is behind one that holds something."""
    made = f.WorldCreated(world_id=WORLD, name="", description="", labels={}, allow_live=False)
    held, let_go, tried, firsts = Event(), Event(), Event(), list[str]()

    def begins(store: SqlStore, name: str) -> None:
        def job() -> None:
            if not alone:
                store.hold(OTHER if store is one else WORLD)
            tried.set()
            store.hold(SYSTEM)
            view = store.load(SYSTEM)
            if store is one:
                held.set()
                let_go.wait()
            if not view.seq:
                firsts.append(name)
                assert store.commit(SYSTEM, Commit(view.expected, [made], ANN.actor, START))

        store.write(job)

    with closing(SqlStore(database_url)) as one, closing(SqlStore(database_url)) as two:
        first, second = (Thread(target=begins, args=each) for each in ((one, "one"), (two, "two")))
        first.start()
        held.wait()
        tried.clear()
        second.start()
        tried.wait()
        time.sleep(0.02)  # It waits, or tries again.
        let_go.set()
        first.join()
        second.join()
        assert firsts == ["one"]
        assert [entry.fact for entry in two.journal(SYSTEM, 0, 10)] == [made]
        assert two.audit(SYSTEM) == []


def test_nobody_waits_for_one_who_waits(one: SqlStore, other: SqlStore) -> None:
    """Two worlds, held in either order by batches of two processes: neither is lost."""
    orders = [(WORLD, OTHER), (OTHER, WORLD)]

    def many(store: Store, worlds: tuple[WorldId, WorldId]) -> list[Callable[[], None]]:
        def job(world_id: WorldId) -> Callable[[], None]:
            def run() -> None:
                for _ in range(JOBS_EACH):
                    step(store, world_id, ANN, kill, reads=ANYTHING)

            return run

        return [job(world_id) for world_id in worlds]

    before = {world_id: one.load(world_id).seq for world_id in orders[0]}
    jobs = [*many(one, orders[0]), *many(other, orders[1])]
    assert together(jobs) == []
    for world_id, seq in before.items():
        assert other.load(world_id).seq == seq + 2 * JOBS_EACH


def test_who_writes_the_same_crosswise_is_tried_again(one: SqlStore, other: SqlStore) -> None:
    """A body is one row, whichever world's it is: PostgreSQL stops one of two that each have what
    the other wants, and neither caller hears of it."""
    both_have_one, said = Barrier(2), [f.Killed(reason="first"), f.Killed(reason="second")]

    def crossing(store: SqlStore, world_id: WorldId, order: list[f.Killed]) -> Callable[[], None]:
        tries = []

        def job() -> None:
            for fact in order:
                commit = Commit(Expected(evidence=None, governance=None), (fact,), ANN.actor, START)
                assert store.commit(world_id, commit) is not None
                if not tries:
                    tries.append(fact)
                    both_have_one.wait(10)

        return lambda: store.write(job)

    before = {world_id: one.load(world_id).seq for world_id in (WORLD, OTHER)}
    assert together([crossing(one, WORLD, said), crossing(other, OTHER, said[::-1])]) == []
    for world_id, order in ((WORLD, said), (OTHER, said[::-1])):
        written = [entry.fact for entry in one.journal(world_id, before[world_id], 10)]
        assert written == order
        assert one.verify(world_id) is None


@contextmanager
def held_by(store: SqlStore, world_id: WorldId) -> Iterator[None]:
    """Another process is in the middle of something."""
    held, let_go = Event(), Event()

    def job() -> None:
        store.hold(world_id)
        held.set()
        let_go.wait()

    holder = Thread(target=store.write, args=(job,))
    holder.start()
    held.wait()
    try:
        yield
    finally:
        let_go.set()
        holder.join()


def test_a_job_that_would_wait_holds_up_no_batch(one: SqlStore, other: SqlStore) -> None:
    """It is the first of the next one."""
    begun, go = Event(), Event()
    done: list[WorldId] = []

    def first() -> None:
        begun.set()
        go.wait()

    def killed(world_id: WorldId) -> None:
        step(one, world_id, ANN, kill)
        done.append(world_id)

    with held_by(other, WORLD):
        threads = [Thread(target=one.write, args=(first,))]
        threads[0].start()
        begun.wait()
        for world_id in (OTHER, WORLD):  # Queued behind it, for the same batch.
            threads.append(Thread(target=killed, args=(world_id,)))
            threads[-1].start()
            while one._writer._queue.qsize() < len(threads) - 1:
                time.sleep(0.001)
        go.set()
        threads[1].join()
        assert done == [OTHER]
        assert other.load(OTHER).killed
        assert not other.load(WORLD).killed
    for thread in threads:
        thread.join()
    assert done == [OTHER, WORLD]
    assert one.audit(WORLD) == one.audit(OTHER) == []


def test_a_job_of_two_worlds_lets_go_of_one_while_the_other_is_held(
    one: SqlStore, other: SqlStore
) -> None:
    tried: list[None] = []

    def both() -> None:
        step(one, OTHER, ANN, kill)
        tried.append(None)
        step(one, WORLD, ANN, kill)

    before = one.load(OTHER).seq
    with held_by(other, WORLD):
        waiting = Thread(target=one.write, args=(both,))
        waiting.start()
        while len(tried) < 3:
            time.sleep(0.001)
    waiting.join()
    assert other.load(WORLD).killed
    assert other.load(OTHER).seq == before + 1  # Tried three times, done once.
    assert one.audit(OTHER) == []


def test_and_after_a_while_says_that_it_is_busy(one: SqlStore, other: SqlStore) -> None:
    def both() -> None:
        step(one, OTHER, ANN, kill)
        step(one, WORLD, ANN, kill)

    before = one.load(OTHER).seq
    with held_by(other, WORLD), pytest.raises(WorldBusy):
        one.write(both)
    assert one.load(OTHER).seq == before
    assert not one.load(WORLD).killed
    one.write(both)
    assert one.load(WORLD).killed


def test_a_server_that_restarts_is_called_again() -> None:
    """Whoever asks meanwhile is told; nothing that was answered is lost; nobody has to help."""
    with serving() as server:
        server.stop()
        server.start(fsync="on")
        url = server.database()
        store = SqlStore(url)
        begin(store)
        seq = store.load(WORLD).seq
        server.stop()  # As a crash.
        with pytest.raises(StoreAway, match="cannot be reached"):
            store.load(WORLD)
        with pytest.raises(StoreAway):
            write(store, f.Killed(reason="lost"))
        with pytest.raises(StoreAway):
            store.journal(WORLD, 0, 10)
        server.start(fsync="on")
        assert store.load(WORLD).seq == seq
        write(store, f.Killed(reason="kept"))
        assert store.load(WORLD).seq == seq + 1
        assert store.audit(WORLD) == []
        store.close()


def test_a_connection_that_breaks_in_a_job_loses_the_batch_and_no_more(one: SqlStore) -> None:
    before = one.load(WORLD)

    def cut() -> None:
        one.commit(WORLD, Commit(EVERYWHERE, [f.Killed(reason="x")], ANN.actor, START))
        pid = one._transaction.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with one._database.reader.connect() as killer:
            killer.exec_driver_sql("SELECT pg_terminate_backend(:pid)", {"pid": pid})
        time.sleep(0.05)
        one.load(WORLD)

    with pytest.raises(StoreAway):
        one.write(cut)
    assert one.load(WORLD).seq == before.seq
    write(one, f.Killed(reason="again"))
    assert one.load(WORLD).seq == before.seq + 1
    assert one.audit(WORLD) == []


def test_a_statement_that_fails_breaks_no_other_job(one: SqlStore) -> None:
    """PostgreSQL would roll a broken transaction back at COMMIT, and call it done."""
    before = one.load(WORLD)

    def swallows() -> None:
        one.commit(WORLD, Commit(EVERYWHERE, [f.Killed(reason="x")], ANN.actor, START))
        with pytest.raises(Exception, match="nowhere"):
            one._transaction.connection.exec_driver_sql("SELECT * FROM nowhere")

    with pytest.raises(StoreAway):
        one.write(swallows)
    assert one.load(WORLD).seq == before.seq
    write(one, f.Killed(reason="again"))
    assert one.audit(WORLD) == []


def test_a_read_that_fails_lets_nobody_believe_in_what_is_lost(one: SqlStore) -> None:
    """It has no savepoint; what was written before it, in the same batch, goes with it."""
    before = one.load(WORLD)
    begun, go = Event(), Event()
    told: list[BaseException | None] = []

    def first() -> None:
        begun.set()
        go.wait()
        one.commit(WORLD, Commit(EVERYWHERE, [f.Killed(reason="x")], ANN.actor, START))

    def reads() -> None:
        with one._reading() as connection, suppress(DBAPIError):
            connection.exec_driver_sql("SELECT * FROM nowhere")

    def asks(job: Callable[[], None]) -> None:
        try:
            one.write(job)
            told.append(None)
        except StoreAway as error:
            told.append(error)

    threads = [Thread(target=asks, args=(job,)) for job in (first, reads)]
    threads[0].start()
    begun.wait()
    threads[1].start()
    while not one._writer._queue.qsize():
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join()
    assert [type(error) for error in told] == [StoreAway, StoreAway]
    assert one.load(WORLD).seq == one.head(WORLD).seq == before.seq
    write(one, f.Killed(reason="again"))
    assert one.audit(WORLD) == []


def test_the_journal_cannot_be_edited(one: SqlStore, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as by_hand:
        for statement in (
            "UPDATE journal SET actor = 'mallory'",
            "DELETE FROM journal",
            "TRUNCATE journal",
            "UPDATE bodies SET body = 'x'::bytea",
            "INSERT INTO journal SELECT world_id, seq + 7, stream, generation, at, actor, kind,"
            " body_digest, hash FROM journal WHERE seq = 1 LIMIT 1",
        ):
            with pytest.raises(psycopg.errors.RaiseException, match=r"append-only|its digest"):
                by_hand.execute(statement.encode())
    assert one.verify(WORLD) is None


def test_an_edit_by_the_databases_owner_is_found(one: SqlStore, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as by_hand:
        by_hand.execute("ALTER TABLE journal DISABLE TRIGGER USER")
        by_hand.execute("UPDATE journal SET actor = 'mallory' WHERE seq = 2")
    assert one.verify(WORLD) == 2
    with closing(SqlStore(database_url)) as new, pytest.raises(StoreDamaged):
        new.load(WORLD)


def test_an_unknown_schema_is_refused(one: SqlStore, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as by_hand:
        by_hand.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UnknownSchema, match="9999"):
        SqlStore(database_url)


def test_a_database_of_something_else_is_left_alone(postgres: Server) -> None:
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as by_hand:
        by_hand.execute("CREATE TABLE theirs (x int)")
    with pytest.raises(UnknownSchema, match="not made by qmtl"):
        SqlStore(url)


@pytest.mark.parametrize(
    "url", ["", "postgresql://host", "mysql://u@h/db", "sqlite:///x", "postgresql://u:secret@h:x/d"]
)
def test_a_url_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Invalid, match="URL") as told:
        SqlStore(url)
    assert "secret" not in str(told.value)


def test_where_no_server_is_it_is_said() -> None:
    with pytest.raises(StoreAway, match="cannot be reached"):
        SqlStore("postgresql://qmtl:secret@127.0.0.1:1/qmtl")


def test_many_start_at_once_on_an_empty_database(postgres: Server) -> None:
    url, opened = postgres.database(), list[SqlStore]()
    assert together([lambda: opened.append(SqlStore(url))] * PROCESSES) == []
    for store in opened:
        with pytest.raises(UnknownWorld):
            step(store, WORLD, ANN, kill)
        store.close()


@pytest.mark.parametrize("begun", [True, False])
def test_a_connection_that_breaks_within_a_job_of_a_job_is_told_as_what_it_is(
    one: SqlStore, caplog: pytest.LogCaptureFixture, begun: bool
) -> None:
    """As when the database stops while the answer to an Idempotency-Key is kept.  `begun`: the
    inner job has its savepoint already."""

    def cut() -> None:
        pid = one._transaction.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with one._database.reader.connect() as killer:
            killer.exec_driver_sql("SELECT pg_terminate_backend(:pid)", {"pid": pid})
        time.sleep(0.05)

    def inner() -> None:
        one._transaction.writing()
        cut()
        one._transaction.connection.exec_driver_sql("SELECT 1")

    def outer() -> None:
        write(one, f.Killed(reason="x"))
        if begun:
            one.write(inner)
        else:
            cut()
            one.remember(ANN.actor, "key", "request", 200, b"{}", START)

    with pytest.raises(StoreAway, match="is stopping"):
        one.write(outer)
    assert [record.message for record in caplog.records if record.exc_info] == []
