"""Worlds for the dashboard's tests, over the memory store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.harness import Harness, harness_over, with_candidate, with_world


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with harness_over("memory", tmp_path) as made:
        yield made


@pytest.fixture
def ready(harness: Harness) -> Harness:
    """A world with a candidate that waits for two approvals."""
    with_world(harness)
    with_candidate(harness)
    return harness
