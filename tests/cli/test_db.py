"""`qmtl db`: the shared database, read whole and brought up to date."""

import json
from contextlib import closing
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from qmtl.adapters.sql import postgres as engine
from qmtl.adapters.sql.errors import UnknownSchema
from qmtl.adapters.sql.schema import HEAD
from qmtl.adapters.sql.store import SqlStore
from qmtl.entry.cli import app
from tests.adapters.test_store import begin
from tests.postgres import Server

RUN = CliRunner()


def ran(*words: str, code: int = 0) -> str:
    done = RUN.invoke(app, ["db", *words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def durable(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """One whose server, a test's, says that it does not lose what it answered."""
    monkeypatch.setattr(engine, "NEEDED", {"synchronous_commit": "never shown"})
    with closing(SqlStore(database_url)) as store:
        begin(store)
    return database_url


def by_hand(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_all_is_well(durable: str) -> None:
    assert ran("check", "--database", durable) == "1 worlds: journals whole, tables as they say.\n"
    found = json.loads(ran("check", "--database", durable, "--json"))
    assert found == {"database": [], "worlds": {"w": []}, "unreplayed": [], "exit_code": 0}


def test_what_is_wrong_is_said_and_left_as_it_is(durable: str) -> None:
    by_hand(durable, "UPDATE strategies SET phase = 'retired' WHERE strategy_id = 'a'")
    told = ran("check", "--database", durable, code=1)
    assert "world w: strategies: ('a',) has phase 'retired'" in told
    found = json.loads(ran("check", "--database", durable, "--json", code=1))
    assert len(found["worlds"]["w"]) == found["exit_code"] == 1


def test_a_server_that_forgets_is_named(database_url: str) -> None:
    told = ran("check", "--database", database_url, code=1)
    assert "database: fsync is off: an answered commit is lost when the machine stops" in told


COLUMNS = """
SELECT table_name, column_name, data_type, collation_name, is_nullable, ordinal_position
FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 6
"""
KEYS = """
SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = current_schema()::regnamespace ORDER BY 1, 2
"""


def tables(url: str) -> list[list[tuple[Any, ...]]]:
    with psycopg.connect(url) as connection:
        return [connection.execute(asked).fetchall() for asked in (COLUMNS, KEYS)]


def test_an_older_database_is_brought_up_to_date_by_hand_alone(durable: str) -> None:
    fresh = tables(durable)
    by_hand(durable, "DROP INDEX bodies_due, series_due")
    by_hand(durable, "DROP TABLE loops, parts, objects, reduced")
    by_hand(durable, "UPDATE alembic_version SET version_num = '0005'")
    with pytest.raises(UnknownSchema, match="qmtl db upgrade"):
        SqlStore(durable)
    assert "of version 0005, and this program's of" in ran("check", "--database", durable, code=1)
    told = ran("upgrade", "--database", durable)
    assert told == f"Its tables are of version {HEAD} now; before: 0005.\n"
    assert ran("upgrade", "--database", durable) == f"Its tables are of version {HEAD} already.\n"
    assert tables(durable) == fresh
    SqlStore(durable).close()


def test_an_empty_one_gets_its_tables(postgres: Server) -> None:
    url = postgres.database()
    found = json.loads(ran("upgrade", "--database", url, "--json"))
    assert found == {"was": None, "is": HEAD}


def test_which_database_must_be_said(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    assert "QMTL_DATABASE_URL" in ran("check", code=2)
    monkeypatch.setenv("QMTL_DATABASE_URL", database_url)
    assert HEAD in ran("upgrade")


def test_a_database_that_is_away_is_no_traceback() -> None:
    done = RUN.invoke(app, ["db", "check", "--database", "postgresql://u:secret@127.0.0.1:1/x"])
    assert done.exit_code != 0
    assert "cannot be reached" in done.output
    assert "secret" not in done.output
    assert "Traceback" not in done.output
