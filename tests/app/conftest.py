"""Every use case runs over every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Store
from qmtl.core.names import SYSTEM


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store
    match request.param:
        case "memory":
            opened = MemoryStore()
        case "sqlite":
            opened = SqlStore(tmp_path / "data")
        case _:
            opened = SqlStore(request.getfixturevalue("database_url"))
    yield opened
    if isinstance(opened, SqlStore):
        for world_id in opened.load(SYSTEM).worlds:
            assert opened.audit(world_id) == []
    opened.close()
