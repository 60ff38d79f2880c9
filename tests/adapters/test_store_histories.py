"""fold(journal) == the hot view == the tables == the memory store, whatever happened."""

from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Commit, Store
from qmtl.core.facts import Fact
from qmtl.core.fold import fold
from qmtl.core.names import Stage
from qmtl.core.view import WorldView, same_view
from tests.postgres import Server

from .histories import WORLD, History

ENTRIES_MAX = 10_000
EXAMPLES = 25
EXAMPLES_OF_SERVER = 6
AUDIT_EVERY = 5


def write(store: Store, commit: Commit) -> None:
    assert store.write(lambda: store.commit(WORLD, commit)) is not None


def replayed(store: Store) -> WorldView:
    return fold(WorldView(world_id=WORLD), store.journal(WORLD, 0, ENTRIES_MAX))


def assert_same_answers(a: Store, b: Store) -> None:
    """Whatever a use case may ask of a store."""
    view = a.load(WORLD)
    assert same_view(view, b.load(WORLD))
    assert a.journal(WORLD, 3, 10) == b.journal(WORLD, 3, 10)
    assert a.snapshots(WORLD, 5) == b.snapshots(WORLD, 5)
    assert a.latest_snapshot(WORLD) == b.latest_snapshot(WORLD)
    for stage in Stage:
        assert a.latest_snapshot(WORLD, stage) == b.latest_snapshot(WORLD, stage)
        assert a.snapshots(WORLD, 2, view.seq, stage) == b.snapshots(WORLD, 2, view.seq, stage)
    for strategy in view.in_order():
        sid = strategy.strategy_id
        assert a.runs(WORLD, sid, 4) == b.runs(WORLD, sid, 4)
        for stage in Stage:
            mine, theirs = a.series(WORLD, sid, stage), b.series(WORLD, sid, stage)
            assert mine.t.tolist() == theirs.t.tolist()
            assert mine.r.tolist() == theirs.r.tolist()
            assert mine.accepted.tolist() == theirs.accepted.tolist()
            assert len(mine.t) == view.tracks[stage].points[strategy.row]


def assert_agrees_with_the_fold(seed: int, steps: int, where: Path | str) -> None:
    history, memory = History(Random(seed)), MemoryStore()
    sql = SqlStore(where)
    try:
        for step in range(steps):
            commit = history.commit()
            write(memory, commit)
            write(sql, commit)
            if step % AUDIT_EVERY == 0:  # A later commit may mend what this one missed.
                assert sql.audit(WORLD) == []
        assert same_view(history.view, memory.load(WORLD))
        assert same_view(memory.load(WORLD), replayed(memory))
        assert same_view(sql.load(WORLD), replayed(sql))
        assert sql.audit(WORLD) == []
        assert_same_answers(memory, sql)
        sql.close()
        sql = SqlStore(where)  # From its checkpoint.
        assert_same_answers(memory, sql)
        assert sql.audit(WORLD) == []
    finally:
        sql.close()


# A seed, not `st.randoms`: what hypothesis draws leans to the simple, and a history must ramble.
# It still shortens a history that fails.
@given(seed=st.integers(0, 2**32), steps=st.integers(10, 60))
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_store_agrees_with_the_fold(seed: int, steps: int) -> None:
    with TemporaryDirectory() as folder:
        assert_agrees_with_the_fold(seed, steps, Path(folder))


@given(seed=st.integers(0, 2**32), steps=st.integers(10, 60))
@settings(max_examples=EXAMPLES_OF_SERVER, deadline=None)
def test_a_database_server_agrees_with_the_fold(
    postgres: Server, template_database: str, seed: int, steps: int
) -> None:
    assert_agrees_with_the_fold(seed, steps, postgres.database(template_database))


@given(seed=st.integers(0, 2**32), steps=st.integers(10, 60))
@settings(max_examples=EXAMPLES_OF_SERVER, deadline=None)
def test_processes_that_take_turns_agree(
    postgres: Server, template_database: str, seed: int, steps: int
) -> None:
    """Each begins where the other left off, whoever wrote last."""
    rng, history, memory = Random(seed), History(Random(seed)), MemoryStore()
    url = postgres.database(template_database)
    with closing(SqlStore(url)) as one, closing(SqlStore(url)) as other:
        for _ in range(steps):
            commit = history.commit()
            write(memory, commit)
            write(rng.choice((one, other)), commit)
            assert one.load(WORLD).seq == other.load(WORLD).seq == history.view.seq
        for store in (one, other):
            assert_same_answers(memory, store)
            assert store.audit(WORLD) == []


def test_histories_tell_of_everything_that_can_happen() -> None:
    told: Counter[type] = Counter()
    for seed in range(30):
        for commit in History(Random(seed)).commits(30):
            told.update(type(fact) for fact in commit.facts)
    assert set(told) == set(get_args(Fact))
