"""Every store that there is, behind the one fixture that the conformance suite asks for."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Commit, Store
from qmtl.core.names import Phase
from qmtl.core.view import Applied, Void
from tests.objects import Restless, everything_leaves

from .histories import WORLD, History

Reopened = Callable[[SqlStore], SqlStore]
SEEDS_MAX = 200
COMMITS = 60


@pytest.fixture(params=["memory", "sqlite", "sqlite-outside", "postgresql"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    opened: Store
    match request.param:
        case "memory":
            opened = MemoryStore()
        case "sqlite":
            opened = SqlStore(tmp_path / "data")
        case "sqlite-outside":
            everything_leaves(monkeypatch)
            opened = Restless(tmp_path / "data")
        case _:
            opened = SqlStore(request.getfixturevalue("database_url"))
    yield opened
    opened.close()


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def reopened(tmp_path: Path) -> Iterator[Reopened]:
    """Close a store as a server that stops does, and open its folder as one that starts does."""
    opened: list[SqlStore] = []

    def again(store: SqlStore) -> SqlStore:
        store.close()
        opened.append(SqlStore(tmp_path / "data"))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


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
        later = [strategy for strategy in view.in_order() if strategy.version > 1]
        facts = [fact for commit in commits for fact in commit.facts]
        alone = facts[8] not in facts[:8] + facts[9:]  # Tests edit the body of the ninth.
        full = (alone, view.live, view.tokens, view.worlds, view.confirmations, view.runs, later)
        if {Applied, Void} <= standings and Phase.PAPER in phases and all(full):
            return commits
    raise AssertionError("no history is eventful")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to copy, with an eventful world in it."""
    made = tmp_path_factory.mktemp("template") / "data"
    store = SqlStore(made)
    for step in eventful():
        store.write(partial(store.commit, WORLD, step))
    store.close()
    return made


@pytest.fixture
def busy(template: Path, data: Path) -> Iterator[SqlStore]:
    """A world in which a bit of everything has happened."""
    shutil.copytree(template, data)
    opened = SqlStore(data)
    yield opened
    opened.close()
