"""Every store that there is, behind the one fixture that the conformance suite asks for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Store

Reopened = Callable[[SqlStore], SqlStore]


@pytest.fixture(params=["memory", "sql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqlStore(tmp_path / "data")
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
