"""The one thread that writes: batches, failures, and who is told what."""

import threading
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from qmtl.adapters.sql import writer
from qmtl.adapters.sql.errors import StoreAway, StoreDamaged
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.sql.transaction import TransactionLost
from qmtl.core import facts as f
from qmtl.core.names import StrategyId

from .histories import WORLD
from .test_store import begin, commit, together, write

Monkey = pytest.MonkeyPatch
WRITERS = 64
GROUPED_AT_MOST = WRITERS // 4


def traced(store: SqlStore) -> list[str]:
    """Every statement that the writer's connection runs from here on."""
    statements: list[str] = []
    dbapi: Any = store._transaction.connection.connection.dbapi_connection
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

    def hold() -> None:
        started.set()
        release.wait()

    def first() -> None:
        with suppress(StoreAway):  # It shares the batch's end; who asks about it are the others.
            store.write(hold)

    def ask(number: int) -> None:
        try:
            store.write(jobs[number])
        except Exception as error:
            told[number] = error

    blocker = Thread(target=first)
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


def test_when_the_commit_fails_everybody_is_told_and_nothing_is_kept(
    busy: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    before = busy.load(WORLD)
    told = held_up(
        busy,
        lambda: commit(busy, f.Killed(reason="first")),
        lambda: unkept(busy),
        lambda: busy.load(WORLD),  # It read what the first had written, and nobody kept.
    )
    assert [type(error) for error in told] == [StoreDamaged] * 3
    (said,) = [each for each in caplog.records if "is kept" in each.message]
    assert said.message.startswith("nothing of a batch of 4 writes is kept: Its rows are not those")
    assert said.exc_info is None, "it is no bug of the program's"
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
    told = held_up(busy, lambda: commit(busy, f.Killed(reason="x")), large("y"))
    assert {type(error) for error in told if error} == {StoreAway}
    assert told[1] is not None
    kept = told.count(None)  # A small one may fit where a large one does not.
    assert busy.load(WORLD).seq == before.seq + kept == busy.journal(WORLD, 0, 10_000)[-1].seq
    busy.write(roomy)
    write(busy, f.Killed(reason="again"))
    assert busy.load(WORLD).seq == before.seq + kept + 1
    assert busy.audit(WORLD) == []


def test_what_is_wrong_with_the_code_is_not_the_disks(sql: SqlStore) -> None:
    begin(sql)
    with pytest.raises(OperationalError, match="syntax error"):
        sql.write(lambda: sql._transaction.connection.exec_driver_sql("SELEKT 1"))


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

    died: list[object] = []
    monkeypatch.setattr(sql._transaction, "abandon", broken)
    monkeypatch.setattr(threading, "excepthook", lambda died_of: died.append(died_of.exc_type))
    told = held_up(sql, lambda: unkept(sql), lambda: None)
    sql._writer._thread.join()
    assert died == [RuntimeError]
    assert [type(error) for error in told] == [StoreDamaged] * 2
    with pytest.raises(StoreAway, match="closed"):
        write(sql, f.Killed(reason="x"))


def test_a_batch_ends_when_it_is_old(sql: SqlStore, monkeypatch: Monkey) -> None:
    begin(sql)
    monkeypatch.setattr(writer, "BATCH_SEC", -1.0)
    statements = traced(sql)
    held_up(sql, *[lambda: write(sql, f.Killed(reason="x"))] * 5)
    assert statements.count("COMMIT") == 5
