"""Copies taken under load and put back: whole, of one instant, and no more alive than before.

The load is the campaign of `tests/crash/test_kill.py`: requests one after the other, in which
strategies go live and one is demoted. Copies are taken while it runs.
"""

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qmtl.adapters.credentials import ADMIN_TOKEN
from qmtl.adapters.signing import KEY_FILE
from qmtl.adapters.sql import backup, folder, postgres
from qmtl.adapters.sql.errors import FolderInUse, IsBackup
from qmtl.adapters.sql.store import SqlStore
from qmtl.app import restored
from qmtl.core import facts as f
from qmtl.core.names import SYSTEM, WorldId
from qmtl.entry.cli import app
from tests.crash.test_kill import DAYS, WORLD, begin, campaign, send, unharmed
from tests.postgres import serving
from tests.servers import Served

W = WorldId(WORLD)
WAIT_SEC = 120.0
NOW = datetime(2026, 11, 25, tzinfo=UTC)
COPIES_AT = (60, 180, 330)  # Requests answered when a copy begins; by the last, some are live.
RUN = CliRunner()


def ran(*words: str, code: int = 0, env: dict[str, str] | None = None) -> str:
    done = RUN.invoke(app, list(words), env=env)
    assert done.exit_code == code, done.output
    return done.stdout


# ---- Under load --------------------------------------------------------------------------------


@dataclass
class Load:
    """A client that sends the whole campaign, but for the kill at its end."""

    server: Served
    answered: int = 0
    failed: list[str] = field(default_factory=list)

    def send(self) -> None:
        with httpx.Client() as client:
            for call in islice(campaign(), 5 + 7 * (DAYS - 1)):
                answer = send(self.server, client, call)
                if answer.status_code >= 300:
                    self.failed.append(answer.text)
                    return
                self.answered += 1

    def until(self, answered: int) -> None:
        limit = time.monotonic() + WAIT_SEC
        while self.answered < answered:
            assert not self.failed
            assert time.monotonic() < limit
            time.sleep(0.002)


@contextmanager
def loaded(server: Served) -> Iterator[Load]:
    load = Load(server)
    thread = threading.Thread(target=load.send)
    thread.start()
    try:
        yield load
    finally:
        thread.join()
    assert not load.failed


def head(server: Served) -> dict[str, Any]:
    """Signed, as an auditor keeps it."""
    answer = httpx.get(f"{server.url}/worlds/{WORLD}/journal/head", headers=server.headers)
    return dict(answer.raise_for_status().json())


def copied_under(load: Load, copy: Callable[[int], object], heads: Path) -> None:
    """A copy at each of COPIES_AT; the head that was answered before each is kept."""
    during = 0
    with heads.open("w") as kept:
        for number, answered in enumerate(COPIES_AT):
            load.until(answered)
            kept.write(json.dumps(head(load.server)) + "\n")
            kept.flush()
            before = load.answered
            copy(number)
            during += load.answered - before
    assert during > 0, "it was copied under load"
    assert load.answered < 5 + 7 * (DAYS - 1), "and the load went on"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: of a server whose load ended, three copies, a head before each, its public key."""
    home = tmp_path_factory.mktemp("original")
    server = begin(home / "data")

    def copy(number: int) -> None:
        words = ("db", "backup", "--data", str(home / "data"), "--json")
        told = json.loads(ran(*words, "--out", str(home / f"{number}.copy")))
        assert told["heads"][WORLD]["seq"] <= head(server)["seq"]

    try:
        with pytest.MonkeyPatch.context() as patch, loaded(server) as load:
            patch.setattr(backup, "PAGES", 8)  # Many steps, with writes between them.
            copied_under(load, copy, home / "heads")
        key = httpx.get(f"{server.url}/journal/key").raise_for_status().json()
        (home / "key").write_text(json.dumps(key))
    finally:
        server.stop()
    return home


@pytest.fixture(params=range(len(COPIES_AT)))
def copy(request: pytest.FixtureRequest, original: Path) -> Path:
    return original / f"{request.param}.copy"


def put_back(original: Path, copy: Path, data: Path) -> None:
    """With the folder's keys, which are kept elsewhere."""
    ran("db", "restore", str(copy), "--data", str(data), "--keep-tokens")
    for name in (KEY_FILE, ADMIN_TOKEN):
        shutil.copy(original / "data" / name, data / name)


def chain(where: Path | str) -> list[str]:
    with closing(SqlStore(where)) as store:
        return [entry.hash for entry in store.chained(W, 0, 100_000)]


def live(where: Path | str) -> set[str]:
    with closing(SqlStore(where)) as store:
        return {str(sid) for sid in store.load(W).live}


def judged(server: Served, original: Path, heads: Path) -> None:
    """By the commands an auditor has, with what was kept elsewhere."""
    env = {"QMTL_URL": server.url, "QMTL_TOKEN": server.token}
    export = original / "export.jsonl"
    ran("journal", "export", WORLD, "--out", str(export), env=env)
    kept = ("--head", str(heads), "--key", str(original / "key"))
    assert json.loads(ran("journal", "verify", str(export), *kept, "--json"))["not_checked"] == []
    assert json.loads(ran("journal", "audit", str(export), "--json"))["ok"]


def test_a_copy_holds_all_that_was_answered_and_is_verified(
    original: Path, copy: Path, tmp_path: Path
) -> None:
    data, number = tmp_path / "data", int(copy.stem)
    put_back(original, copy, data)
    heads = tmp_path / "heads"
    heads.write_text("\n".join((original / "heads").read_text().splitlines()[: number + 1]))
    server = begin(data)
    try:
        judged(server, original, heads)
        envelopes = httpx.get(
            f"{server.url}/worlds/{WORLD}/decide",
            params={"strategy_id": "steady"},
            headers=server.headers,
        ).raise_for_status()
        assert '"live"' not in envelopes.text
    finally:
        server.stop()
    unharmed(data)
    kept = chain(data)
    assert kept[:-1] == chain(original / "data")[: len(kept) - 1], "nothing but the kill is new"
    assert live(data) == set()


def test_what_was_live_is_down_until_two_people_resume_it(original: Path, tmp_path: Path) -> None:
    copy, data = original / f"{len(COPIES_AT) - 1}.copy", tmp_path / "data"
    put_back(original, copy, data)
    with closing(SqlStore(data)) as store:
        last = store.journal(W, 0, 100_000)[-1]
        before = store.load(W)
    assert last.fact == f.Killed(reason=restored.WHY)
    assert last.actor == restored.RESTORER
    assert before.outstanding, "it was live in the copy, and clients may believe it still"
    server = begin(data, "--dual-control")
    try:
        asked = httpx.post(
            f"{server.url}/worlds/{WORLD}/resume", json={"reason": "r"}, headers=server.headers
        )
        assert asked.status_code == 202
        one = f"{server.url}/worlds/{WORLD}/confirmations/{asked.json()['confirmation_id']}"
        assert httpx.post(one, json={}, headers=server.headers).status_code == 403
    finally:
        server.stop()


def test_postgresql_is_dumped_under_load_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "NEEDED", {})  # A test's server may forget what it answered.
    with serving() as database:
        url, again = database.database(), database.database()
        server = begin(tmp_path / "data", "--database", url)

        def copy(number: int) -> None:
            file = f"--file={tmp_path / f'{number}.copy'}"
            database.tool("pg_dump", "--format=custom", file, url)

        try:
            with loaded(server) as load:
                copied_under(load, copy, tmp_path / "heads")
            key = httpx.get(f"{server.url}/journal/key").raise_for_status().json()
            (tmp_path / "key").write_text(json.dumps(key))
        finally:
            server.stop()
        restore = ("--exit-on-error", "--single-transaction", f"--dbname={again}")
        database.tool("pg_restore", *restore, str(tmp_path / f"{len(COPIES_AT) - 1}.copy"))
        assert live(again), "what pg_restore puts there is as alive as it was"
        told = json.loads(ran("db", "restore", "--database", again, "--keep-tokens", "--json"))
        assert (told["killed"], told["exit_code"]) == (["crash", "sandbox"], 0)
        assert live(again) == set()
        server = begin(tmp_path / "data", "--database", again)
        try:
            judged(server, tmp_path, tmp_path / "heads")
        finally:
            server.stop()
        unharmed(again)


# ---- What is refused ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose server ended, and `copy`, of it."""
    data = tmp_path_factory.mktemp("whole") / "data"
    begin(data).stop()
    ran("db", "backup", "--data", str(data), "--out", str(data.parent / "copy"))
    return data


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {folder.LOCK}


def test_no_server_starts_on_a_copy(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole.parent / "copy", tmp_path / folder.DATABASE)
    with pytest.raises(IsBackup, match="qmtl db restore"):
        SqlStore(tmp_path)


def test_a_folder_that_has_a_database_keeps_it(whole: Path, tmp_path: Path) -> None:
    before = (whole / folder.DATABASE).read_bytes()
    with pytest.raises(backup.HasDatabase):
        backup.put_back(whole.parent / "copy", whole, NOW)
    assert (whole / folder.DATABASE).read_bytes() == before


def test_a_folder_that_is_served_is_nobody_elses(whole: Path, tmp_path: Path) -> None:
    with closing(SqlStore(tmp_path)), pytest.raises(FolderInUse):
        backup.put_back(whole.parent / "copy", tmp_path, NOW)


@pytest.mark.parametrize("name", ["data/qmtl.db", "data/journal.key"])
def test_what_no_backup_made_is_not_put_back(whole: Path, tmp_path: Path, name: str) -> None:
    words = ("db", "restore", str(whole.parent / name), "--data", str(tmp_path / "new"))
    assert "not what qmtl db backup makes" in RUN.invoke(app, words).stderr
    assert not (tmp_path / "new").exists()


def test_a_copy_that_was_damaged_is_not_put_back(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy(whole.parent / "copy", copy)
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE worlds SET last_at = last_at, allow_live = 1 - allow_live")
    done = RUN.invoke(app, ["db", "restore", str(copy), "--data", str(tmp_path / "new")])
    assert done.exit_code == 1
    assert "What the disk gave is not what was written" in done.stderr
    assert files(tmp_path / "new") == set()


def test_a_folder_that_is_damaged_is_not_backed_up(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / folder.DATABASE)) as connection, connection:
        connection.execute("DROP TRIGGER bodies_are_not_updated")
        connection.execute("UPDATE bodies SET body = CAST(replace(body, 'a', 'b') AS BLOB)")
    (tmp_path / "copy").write_text("the last good one")
    done = RUN.invoke(
        app, ["db", "backup", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "copy")]
    )
    assert done.exit_code == 1
    assert (tmp_path / "copy").read_text() == "the last good one"
    assert files(tmp_path) == {"data", "copy"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("backup", "--data", "nowhere", "--out", "x"), "no database to copy"),
        (("restore",), "say FILE and --data DIR, or --database URL alone"),
        (("restore", "--data", "x"), "say FILE and --data DIR, or --database URL alone"),
        (("restore", "--database", "a-name"), "database's URL"),
    ],
)
def test_what_is_missing_is_said(words: tuple[str, ...], says: str) -> None:
    done = RUN.invoke(app, ["db", *words], env={"QMTL_DATABASE_URL": "postgresql://u@h/never"})
    assert done.exit_code != 0
    assert says in done.output


# ---- What else is stopped ----------------------------------------------------------------------


def test_a_token_that_was_revoked_since_opens_nothing(whole: Path, tmp_path: Path) -> None:
    _, stopped = backup.put_back(whole.parent / "copy", tmp_path / "new", NOW)
    assert (stopped.tokens_revoked, stopped.tokens_kept) == (1, 0)
    old = (whole / ADMIN_TOKEN).read_text().strip()
    server = begin(tmp_path / "new")  # Founded anew, as any folder of nobody's.
    try:
        for token, status in ((old, 401), (server.token, 200)):
            asked = {"Authorization": f"Bearer {token}"}
            assert httpx.get(f"{server.url}/worlds", headers=asked).status_code == status
    finally:
        server.stop()


def test_who_was_killed_already_is_killed_once(whole: Path, tmp_path: Path) -> None:
    _, stopped = backup.put_back(whole.parent / "copy", tmp_path / "one", NOW)
    assert stopped.killed == ("sandbox",)
    backup.take(tmp_path / "one", tmp_path / "again", NOW, lambda left, pages: None)
    _, stopped = backup.put_back(tmp_path / "again", tmp_path / "two", NOW)
    assert (stopped.killed, stopped.tokens_revoked) == ((), 0)


def test_under_a_replay_clock_time_does_not_jump(whole: Path, tmp_path: Path) -> None:
    """`whole` lives in 2024: what a restore records there is of then, not of the machine's now."""
    backup.put_back(whole.parent / "copy", tmp_path / "new", NOW)
    with closing(SqlStore(tmp_path / "new")) as store:
        assert store.last_instant() is not None
        assert store.journal(SYSTEM, 0, 1_000)[-1].at.year == 2024


def test_a_copy_is_its_owners_alone_and_one_file(whole: Path) -> None:
    assert (whole.parent / "copy").stat().st_mode & 0o777 == 0o600
    assert files(whole.parent) == {"data", "copy"}


def test_how_far_it_is_is_told(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PAGES", 8)
    seen: list[int] = []
    backup.take(whole, tmp_path / "copy", NOW, lambda left, pages: seen.append(pages - left))
    assert seen == sorted(seen)
    assert len(seen) > 2
