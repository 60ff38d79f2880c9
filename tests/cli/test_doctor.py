"""`qmtl doctor`: everything well; then one thing broken at a time, and what is said about it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import qmtl
from qmtl.adapters.client import Client
from qmtl.adapters.sql import checkup
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.names import WorldId
from qmtl.entry.cli import app, check_here, doctor
from qmtl.entry.cli.context import Setting
from qmtl.sdk import spool
from tests.servers import served

URL = "http://world.test"
TOKEN = "secret"
WORLD = {
    "id": "us",
    "default_policy_version": 1,
    "killed": False,
    "state": "active",
    "confirmations": [],
}
MINE = {
    "token_id": sha256(TOKEN.encode()).hexdigest(),
    "actor": "ana",
    "roles": ["admin", "author"],
    "world_id": None,
    "expires_at": None,
}


@dataclass
class Place:
    """An installation in which all is well: a server, a project, an empty spool, no database."""

    home: Path
    monkeypatch: pytest.MonkeyPatch
    url: str = URL
    worlds: list[dict[str, Any]] = field(default_factory=lambda: [dict(WORLD)])
    tokens: list[dict[str, Any]] = field(default_factory=lambda: [dict(MINE)])
    version: str = qmtl.__version__
    ahead: timedelta = timedelta(0)
    refusals: dict[str, httpx.Response] = field(default_factory=dict)
    away: bool = False
    seen: list[httpx.Request] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.home / "data"

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        path = request.url.path
        if self.away:
            raise httpx.ConnectError("connection refused")
        if path in self.refusals:
            return self.refusals[path]
        now = (datetime.now(UTC) + self.ahead).isoformat()
        answers: dict[str, Any] = {
            "/healthz": {"status": "ok", "version": self.version},
            "/readyz": {"status": "ready", "version": self.version},
            "/worlds": {"worlds": self.worlds, "next_cursor": None},
            "/tokens": {"tokens": self.tokens, "next_cursor": None},
            "/clock": {"now": now, "replay": False},
        }
        return httpx.Response(200, json=answers[path])

    def look(self, *options: str) -> tuple[list[dict[str, Any]], int]:
        """What the doctor found, and the exit code."""
        setting = Setting(transport=httpx.MockTransport(self.answer))
        arguments = ["--url", self.url, "doctor", *options]
        result = CliRunner().invoke(app, [*arguments, "--json"], obj=setting)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        told = json.loads(result.stdout)
        assert told["exit_code"] == result.exit_code
        return told["checks"], result.exit_code

    def keep(self, url: str, token: str | None) -> Path:
        with Client(url, token) as client:
            return spool.keep(client, {"strategy_id": "s", "world": "us"})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    home = tmp_path
    (home / "project").mkdir()
    (home / "data").mkdir(mode=0o700)
    (home / "project" / "mine.py").write_text("")
    (home / "project" / "prices.csv").write_text("")
    told = 'world = "us"\nstrategy = "mine.py:x"\nprices = "prices.csv"\n'
    (home / "project" / "qmtl.toml").write_text(told)
    monkeypatch.chdir(home / "project")
    monkeypatch.setenv("QMTL_TOKEN", TOKEN)
    monkeypatch.setenv("QMTL_DATA", str(home / "data"))
    monkeypatch.setenv("QMTL_SPOOL", str(home / "spool"))
    monkeypatch.delenv("QMTL_URL", raising=False)
    return Place(home, monkeypatch)


def test_where_all_is_well_it_says_so(place: Place) -> None:
    found, code = place.look()
    assert {each["level"] for each in found} == {"ok"}
    assert {each["check"] for each in found} >= {
        *("python", "optional packages", "QMTL_URL", "QMTL_TOKEN", "project", "server"),
        *("credential", "worlds", "clock", "spool", "data folder", "database", "disk"),
    }
    assert code == 0
    (mine,) = [each["found"] for each in found if each["check"] == "credential"]
    assert mine == "ana: admin, author in every world"
    assert not any(each["remedy"] for each in found)


def test_it_changes_nothing(place: Place) -> None:
    place.keep(URL, TOKEN)

    def content() -> dict[str, bytes]:
        files = sorted(path for path in place.home.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files}

    before = content()
    place.look()
    assert content() == before
    assert {request.method for request in place.seen} == {"GET"}
    assert not any("journal" in str(request.url) for request in place.seen)


Break = Callable[[Place], object]


def refuses(path: str, status: int) -> Break:
    def broken(place: Place) -> None:
        place.refusals[path] = httpx.Response(status, json={"title": "Refused."})

    return broken


def world(**parts: Any) -> Break:
    return lambda place: place.worlds[0].update(parts)


def free(bytes_: int) -> Break:
    usage = type("", (), {"free": bytes_})
    return lambda place: place.monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def admin_token(place: Place) -> None:
    (place.data / "admin.token").touch()
    (place.data / "admin.token").chmod(0o644)


def refused_one(place: Place) -> None:
    path = place.keep(URL, TOKEN)
    (path.parent / spool.REFUSED).mkdir()
    path.rename(path.parent / spool.REFUSED / path.name)


def project_says(text: str) -> Break:
    return lambda place: (place.home / "project" / "qmtl.toml").write_text(text)


PENDING = {"confirmation_id": "1f", "what": "resume", "by": "rita"}

BROKEN: list[tuple[str, Break, str, str, str, int]] = [
    (
        "an old Python",
        lambda p: p.monkeypatch.setattr("sys.version_info", (3, 9, 0)),
        "python",
        "fail",
        "use Python 3.11 or later",
        1,
    ),
    (
        "no address",
        lambda p: setattr(p, "url", "nowhere"),
        "QMTL_URL",
        "fail",
        "set QMTL_URL, or --url",
        1,
    ),
    (
        "a token that is none",
        lambda p: p.monkeypatch.setenv("QMTL_TOKEN", "two\nlines"),
        "QMTL_TOKEN",
        "fail",
        "export QMTL_TOKEN=",
        1,
    ),
    (
        "no token",
        lambda p: p.monkeypatch.delenv("QMTL_TOKEN"),
        "QMTL_TOKEN",
        "warn",
        "export QMTL_TOKEN=",
        0,
    ),
    ("a bad project", project_says("wrld = 1"), "project", "fail", "mend qmtl.toml", 1),
    (
        "a project without its prices",
        lambda p: (p.home / "project" / "prices.csv").unlink(),
        "project",
        "fail",
        "put it there",
        1,
    ),
    (
        "a project without its strategy",
        lambda p: (p.home / "project" / "mine.py").unlink(),
        "project",
        "fail",
        "put it there",
        1,
    ),
    (
        "Parquet that nothing reads",
        lambda p: (
            (p.home / "project" / "p.parquet").touch(),
            project_says('world = "us"\nprices = "p.parquet"')(p),
            p.monkeypatch.setattr(check_here, "_version", lambda package: None),
        ),
        "project",
        "fail",
        "pip install 'qmtl[polars]'",
        1,
    ),
    ("no server", lambda p: setattr(p, "away", True), "server", "away", "qmtl serve", 3),
    ("another server", refuses("/healthz", 404), "server", "fail", "another port", 1),
    (
        "another version",
        lambda p: setattr(p, "version", "9.9"),
        "server",
        "warn",
        "the same version",
        0,
    ),
    ("a gateway without a world", refuses("/readyz", 503), "world service", "away", "wait", 3),
    ("a token of another server", refuses("/worlds", 401), "credential", "fail", "export", 1),
    ("no worlds", lambda p: p.worlds.clear(), "worlds", "warn", "qmtl world create WORLD", 1),
    (
        "a project's world that is not there",
        project_says('world = "usa"'),
        "worlds",
        "fail",
        "in qmtl.toml: world = 'us'",
        1,
    ),
    (
        "no policy",
        world(default_policy_version=None),
        "world us",
        "warn",
        "qmtl policy set us sandbox",
        0,
    ),
    ("killed", world(killed=True), "world us", "warn", "qmtl world resume us", 0),
    (
        "suspended",
        world(state="suspended"),
        "world us",
        "warn",
        "qmtl world set us --state active",
        0,
    ),
    (
        "a second person is waited for",
        world(confirmations=[PENDING]),
        "world us",
        "warn",
        "qmtl world confirm us 1f",
        0,
    ),
    (
        "a clock that is ahead",
        lambda p: setattr(p, "ahead", timedelta(seconds=30)),
        "clock",
        "warn",
        "synchronise",
        0,
    ),
    (
        "a clock far behind",
        lambda p: setattr(p, "ahead", timedelta(seconds=-90)),
        "clock",
        "fail",
        "synchronise",
        1,
    ),
    (
        "a submission that waits",
        lambda p: p.keep(URL, TOKEN),
        "spool",
        "warn",
        f"qmtl --url {URL} submit --flush",
        0,
    ),
    (
        "one of another credential",
        lambda p: p.keep(URL, "other"),
        "spool",
        "warn",
        "set QMTL_TOKEN to the credential",
        0,
    ),
    ("one that was refused", refused_one, "spool", "warn", "submit anew", 0),
    (
        "one that is torn",
        lambda p: p.keep(URL, TOKEN).write_text("{"),
        "spool",
        "fail",
        "look at",
        1,
    ),
    ("a folder others may use", lambda p: p.data.chmod(0o755), "data folder", "warn", "chmod", 0),
    ("a token others may read", admin_token, "data folder", "fail", "chmod 600", 1),
    ("little space", free(500 << 20), "disk", "warn", "make room", 0),
    ("no space", free(1 << 20), "disk", "fail", "make room", 1),
]


@pytest.mark.parametrize(
    ("break_", "check", "level", "remedy", "code"),
    [case[1:] for case in BROKEN],
    ids=[case[0] for case in BROKEN],
)
def test_each_thing_broken_is_found_and_has_a_remedy(
    place: Place, break_: Break, check: str, level: str, remedy: str, code: int
) -> None:
    break_(place)
    found, exit_code = place.look()
    hits = [each for each in found if each["check"] == check and each["level"] == level]
    assert any(remedy in each["remedy"] for each in hits), found
    assert exit_code == code
    for each in found:
        assert bool(each["remedy"]) is (each["level"] != "ok"), each


def test_a_failure_is_worse_than_a_world_that_is_away(place: Place) -> None:
    place.away = True
    project_says("wrld = 1")(place)
    assert place.look()[1] == 1


def test_who_is_no_admin_is_told_that_roles_are_not_to_be_seen(place: Place) -> None:
    refuses("/tokens", 403)(place)
    found, code = place.look()
    (mine,) = [each for each in found if each["check"] == "credential"]
    assert (mine["level"], code) == ("ok", 0)
    assert "for an admin to see" in mine["found"]


def test_people_get_a_table(place: Place) -> None:
    place.away = True
    setting = Setting(transport=httpx.MockTransport(place.answer))
    result = CliRunner().invoke(app, ["--url", URL, "doctor"], obj=setting)
    assert result.exit_code == 3
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert any(row.startswith("away server") for row in rows)
    assert any(row.startswith("next: qmtl serve") for row in rows)
    assert rows[-1].endswith(" ok, 1 away")


# ---- The database ----------------------------------------------------------------------------


@pytest.fixture
def database(place: Place) -> Place:
    SqlStore(place.data).close()
    return place


def found_by(place: Place, name: str, *options: str) -> list[dict[str, Any]]:
    return [each for each in place.look(*options)[0] if each["check"] == name]


def test_a_database_at_rest(database: Place) -> None:
    (found,) = found_by(database, "database")
    assert (found["level"], found["found"]) == ("ok", "whole; no server holds it")


@pytest.mark.parametrize(
    ("checked", "check", "said"),
    [
        (checkup.Checkup(served=False, database=("torn",), worlds={}), "database", "torn"),
        (
            checkup.Checkup(served=True, database=(), worlds={WorldId("us"): ("live: two",)}),
            "world us",
            "live: two",
        ),
    ],
)
def test_what_the_checkup_found_is_a_failure(
    database: Place, checked: checkup.Checkup, check: str, said: str
) -> None:
    database.monkeypatch.setattr(checkup, "look", lambda *given, **options: checked)
    (found,) = found_by(database, check)
    assert (found["level"], said in found["found"]) == ("fail", True)
    assert "restore" in found["remedy"]


def test_quick_does_not_replay(database: Place) -> None:
    asked: list[bool] = []

    def look(*given: Any, replay: bool, **options: Any) -> checkup.Checkup:
        asked.append(replay)
        return checkup.Checkup(served=False, database=(), worlds={WorldId("us"): ()})

    database.monkeypatch.setattr(checkup, "look", look)
    (quick,) = found_by(database, "journal", "--quick")
    (whole,) = found_by(database, "journal")
    assert asked == [False, True]
    assert "not replayed" in quick["found"]
    assert "tables as the journal says" in whole["found"]


@pytest.mark.parametrize("closed", ["data", "data/qmtl.db"])
def test_what_is_another_users_is_said(database: Place, closed: str) -> None:
    ours = os.access
    path = database.home / closed

    def access(asked: Path, mode: int) -> bool:
        return Path(asked) != path and ours(asked, mode)  # Root, who may run this, reads it all.

    database.monkeypatch.setattr(os, "access", access)
    found = [each for each in database.look()[0] if each["level"] == "warn"]
    assert [f"{path} is not this user's to read" in each["found"] for each in found] == [True]


def test_beside_a_real_server(place: Place) -> None:
    place.monkeypatch.delenv("QMTL_TOKEN")
    at = "2024-01-01T21:00:00Z"
    project_says('world = "sandbox"')(place)
    with served(place.data, "--clock", "replay", "--at", at) as server:
        result = CliRunner().invoke(app, ["--url", server.url, "doctor", "--json"])
    told = json.loads(result.stdout)
    assert [each for each in told["checks"] if each["level"] != "ok"] == []
    said = {each["check"]: each["found"] for each in told["checks"]}
    assert said["database"] == "whole; a server holds it"
    assert said["journal"].startswith("2 of 2 worlds: hash chain whole, tables as")
    assert said["clock"] == f"a replay clock: it stands at {at} until it is moved"
    assert "admin" in said["credential"]


def test_every_level_has_its_colour() -> None:
    assert set(doctor.MARK) == set(doctor.Level)
