"""Every use case runs over every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Store
from qmtl.core.names import SYSTEM


@pytest.fixture(params=["memory", "sql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqlStore(tmp_path / "data")
    yield opened
    if isinstance(opened, SqlStore):
        for world_id in opened.load(SYSTEM).worlds:
            assert opened.audit(world_id) == []
    opened.close()
