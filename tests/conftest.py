"""No test depends on what the shell of whoever runs it exports; PostgreSQL and an object store,
for those that ask."""

import os
from collections.abc import Iterator

import pytest

from qmtl.adapters.sql.store import SqlStore

from . import objects
from .postgres import Server, serving

PREFIX = "QMTL_"  # Of every variable that the program reads.


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_shell() -> Iterator[None]:
    """How much a campaign does (QMTL_POWER and the like) is read before: at import."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def s3() -> Iterator[objects.Server]:
    """An object store of this process's tests."""
    with objects.serving() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of this process's tests."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres: Server) -> str:
    """One with empty tables, to copy."""
    url = postgres.database()
    SqlStore(url).close()
    return url.rpartition("/")[2]


@pytest.fixture
def database_url(postgres: Server, template_database: str) -> str:
    """A database of the test's own."""
    return postgres.database(template_database)
