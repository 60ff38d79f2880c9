"""A database looked at as it lies: whole, broken, served, crashed; and it is left as it was."""

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from qmtl.adapters.sql import checkup, folder
from qmtl.adapters.sql.errors import FolderInUse
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.names import WorldId
from tests.http import harness

NOW = datetime(2030, 1, 1, tzinfo=UTC)
W = WorldId(harness.W)


def content(directory: Path) -> dict[str, str]:
    """Every file of a folder, by the digest of what it holds."""
    return {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        # Readers and writers tell each other in it where they are; it is no file of ours.
        if path.name != f"{folder.DATABASE}-shm"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world that has a strategy, closed in good order."""
    directory = tmp_path_factory.mktemp("whole")
    with harness.harness_over("sql", directory) as server:
        harness.with_world(server)
    return directory / "data"


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def test_a_sound_database_is_sound_and_stays_as_it_was(data: Path) -> None:
    before = content(data)
    found = checkup.look(data, NOW)
    assert (found.served, found.database, found.unreplayed) == (False, (), ())
    assert found.worlds == {WorldId("_system"): (), W: ()}
    assert content(data) == before


def edited(directory: Path, *statements: str) -> None:
    """As somebody with a database shell would."""
    with sqlite3.connect(directory / folder.DATABASE) as connection:
        triggers = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        for (name,) in connection.execute(triggers).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


Break = Callable[[Path], None]
BROKEN: list[tuple[str, Break, str]] = [
    (
        "a table",
        lambda data: edited(data, "UPDATE strategies SET author = 'me'"),
        "strategies: .* has author 'me'",
    ),
    (
        "the journal",
        lambda data: edited(data, f"UPDATE journal SET actor = 'me' WHERE world_id = '{W}'"),
        "journal: entry 1 is missing or was edited",
    ),
    (
        "what an entry says",
        lambda data: edited(data, "UPDATE bodies SET body = x'7b7d'"),
        "journal: entry 1 is missing or was edited",
    ),
]


@pytest.mark.parametrize(("break_", "said"), [c[1:] for c in BROKEN], ids=[c[0] for c in BROKEN])
def test_what_is_broken_in_a_world_is_named(data: Path, break_: Break, said: str) -> None:
    break_(data)
    faults = checkup.look(data, NOW).worlds[W]
    assert any(re.match(said, fault) for fault in faults), faults


def test_a_quick_look_sees_the_chain_and_not_the_tables(data: Path) -> None:
    edited(data, "UPDATE strategies SET author = 'me'")
    assert checkup.look(data, NOW, replay=False).worlds[W] == ()
    edited(data, "UPDATE journal SET actor = 'me'")
    assert checkup.look(data, NOW, replay=False).worlds[W] != ()


def test_a_world_is_judged_by_its_own_clock_where_that_is_ahead(data: Path) -> None:
    assert checkup.look(data, datetime(2000, 1, 1, tzinfo=UTC)).worlds[W] == ()


@pytest.mark.parametrize(
    ("content_", "said"), [(b"not a database" * 100, "not a database"), (None, "was not made by")]
)
def test_what_is_no_database_of_ours_is_said(data: Path, content_: bytes | None, said: str) -> None:
    path = data / folder.DATABASE
    path.unlink()
    if content_ is None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE other (x)")
        connection.close()
    else:
        path.write_bytes(content_)
    found = checkup.look(data, NOW)
    assert said in found.database[0]
    assert found.worlds == {}


def test_a_newer_database_is_not_judged(data: Path) -> None:
    edited(data, "UPDATE alembic_version SET version_num = '9999'")
    assert "of version 9999" in checkup.look(data, NOW).database[0]


@pytest.fixture
def served(data: Path) -> Iterator[SqlStore]:
    store = SqlStore(data)
    yield store
    store.close()


def test_beside_a_server_it_reads_and_does_not_hold_it_up(data: Path, served: SqlStore) -> None:
    served.keep_instant(NOW)  # So that there is a log to read.
    before = content(data)
    found = checkup.look(data, NOW)
    assert (found.served, found.worlds[W]) == (True, ())
    assert content(data) == before
    served.keep_instant(NOW.replace(year=2031))


def test_what_a_crash_left_in_the_log_is_seen_and_left_there(tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with harness.harness_over("sql", tmp_path) as server:
        harness.with_world(server)
        for path in (tmp_path / "data").iterdir():  # A crash leaves the files, and no lock.
            shutil.copyfile(path, crashed / path.name)
    (crashed / f"{folder.DATABASE}-shm").unlink()
    before = content(crashed)
    seen: list[WorldId] = []
    found = checkup.look(crashed, NOW, on_world=seen.append)
    assert (found.served, found.database) == (False, ())
    assert found.worlds == {WorldId("_system"): (), W: ()}, "all of it is in the log only"
    assert seen == [WorldId("_system"), W]
    assert content(crashed) == before
    assert not (crashed / f"{folder.DATABASE}-shm").exists()


def test_no_server_starts_under_its_hands(data: Path) -> None:
    with folder.at_rest(data) as rests:
        assert rests
        with pytest.raises(FolderInUse):
            SqlStore(data)
    SqlStore(data).close()


def test_a_folder_without_a_lock_is_at_rest_and_gets_none(tmp_path: Path) -> None:
    with folder.at_rest(tmp_path) as rests:
        assert rests
    assert list(tmp_path.iterdir()) == []
