"""Over the memory store, which is fast; what is about storing, over each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.harness import Harness, harness_over


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with harness_over("memory", tmp_path) as made:
        yield made


@pytest.fixture(params=["memory", "sql", "postgresql"])
def each_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    kind = request.param
    if kind == "postgresql":
        kind = request.getfixturevalue("database_url")
    with harness_over(kind, tmp_path) as made:
        yield made
