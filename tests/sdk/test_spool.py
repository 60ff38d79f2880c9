"""What finds the world away is kept on disk, and sent once: whoever sends, and however it ends."""

import errno
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.adapters.client import Client
from qmtl.sdk import spool
from qmtl.sdk.runner import Runner
from tests.servers import served

URL = "http://world.test"
FORK = multiprocessing.get_context("fork")


@dataclass
class World:
    """A server that answers submissions with one status; `seen` are their strategies."""

    status: int = 200
    away: bool = False
    answer: dict[str, Any] | None = None
    seen: list[str] = field(default_factory=list)

    def client(self, url: str = URL, token: str = "t") -> Client:
        def handle(request: httpx.Request) -> httpx.Response:
            self.seen.append(json.loads(request.content)["strategy_id"])
            if self.away:
                raise httpx.ConnectError("connection refused")
            told = self.answer or {"strategy_id": self.seen[-1], "title": "does not validate"}
            return httpx.Response(self.status, json=told)

        transport = httpx.MockTransport(handle)
        return Client(url, token, transport=transport, sleep=lambda sec: None)


def submission(strategy_id: str, world: str = "us") -> dict[str, Any]:
    return {"strategy_id": strategy_id, "world": world, "returns": {"t": [], "r": []}}


def keep(strategy_id: str, url: str = URL, token: str = "t") -> Path:
    return spool.keep(World().client(url, token), submission(strategy_id))


def outcomes(world: World, **options: Any) -> list[tuple[str, str]]:
    done = Runner.flush(world.client(**options))
    return [(each.strategy_id, each.outcome) for each in done]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


def waiting(home: Path) -> list[str]:
    kept = [json.loads(path.read_bytes()) for path in sorted(home.glob("*.json"))]
    return [each["submission"]["strategy_id"] for each in kept]


# ---- Kept ------------------------------------------------------------------------------------


def test_what_is_kept_is_sent_once_and_oldest_first(home: Path) -> None:
    for name in ("c", "a", "b"):  # Faster than any clock ticks.
        keep(name)
    world = World()
    assert outcomes(world) == [("c", "sent"), ("a", "sent"), ("b", "sent")]
    assert outcomes(world) == []
    assert world.seen == ["c", "a", "b"]


def test_keeping_twice_is_keeping_once_where_it_was(home: Path) -> None:
    first = keep("a")
    keep("b")
    assert keep("a") == first
    assert waiting(home) == ["a", "b"]


def test_after_a_flush_the_queue_begins_anew(home: Path) -> None:
    keep("a")
    keep("b", url="http://other.test")
    outcomes(World())
    keep("c")
    assert waiting(home) == ["b", "c"]


def test_what_is_kept_is_nobody_elses_business(home: Path) -> None:
    path = keep("a", token="secret")
    assert path.stat().st_mode & 0o077 == 0
    assert home.stat().st_mode & 0o077 == 0
    assert b"secret" not in path.read_bytes()


def test_a_spool_has_a_limit_and_says_how_to_empty_it(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setattr(spool, "KEPT_MAX", 1)
    keep("a")
    keep("a")
    with pytest.raises(spool.NotKept, match=r"holds 1 submissions.*qmtl flush"):
        keep("b")
    assert waiting(home) == ["a"]


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_said_and_keeps_no_half_file(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    keep("a")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(spool.NotKept) as caught:
            keep("b")
    assert "No space left on device" in str(caught.value)
    assert "QMTL_SPOOL" in str(caught.value)
    assert [path.name for path in home.iterdir() if path.suffix == ".partial"] == []
    keep("b")
    assert waiting(home) == ["a", "b"]


def test_a_folder_that_cannot_be_made_is_said(home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(spool.NotKept, match="File exists"):
        keep("a")


def test_half_a_file_is_no_submission_and_is_cleared_away(home: Path) -> None:
    keep("a")
    (home / "00000002-torn.partial").write_bytes(b'{"format": 1, "ur')
    assert outcomes(World()) == [("a", "sent")]
    keep("b")
    assert not list(home.glob("*.partial"))


# ---- Sent ------------------------------------------------------------------------------------


def test_nothing_kept_is_nothing_to_do(home: Path) -> None:
    assert outcomes(World()) == []
    assert not home.exists()


def test_flushing_while_the_world_is_away_keeps_everything(home: Path) -> None:
    keep("a")
    keep("b")
    world = World(away=True)
    assert outcomes(world) == [("a", "waiting"), ("b", "waiting")]
    assert world.seen == ["a"], "the second would have waited for nothing"
    assert waiting(home) == ["a", "b"]


@pytest.mark.parametrize("status", [401, 429, 500])
def test_what_is_not_the_submissions_fault_keeps_it(status: int, home: Path) -> None:
    keep("a")
    assert outcomes(World(status)) == [("a", "waiting")]
    assert waiting(home) == ["a"]


@pytest.mark.parametrize(
    ("status", "answer"),
    [(302, {"title": "log in"}), (200, {"ok": True}), (200, {"strategy_id": 1})],
)
def test_what_a_stranger_answers_neither_sends_nor_refuses_it(
    status: int, answer: dict[str, Any], home: Path
) -> None:
    keep("a")
    assert outcomes(World(status, answer=answer)) == [("a", "waiting")]
    assert outcomes(World()) == [("a", "sent")]


def test_what_the_world_refuses_is_put_aside(home: Path) -> None:
    keep("a")
    (done,) = Runner.flush(World(422).client())
    assert (done.outcome, "does not validate" in done.detail) == ("refused", True)
    assert outcomes(World(422)) == []
    assert len(list((home / spool.REFUSED).glob("*.json"))) == 1


def test_a_submission_goes_to_the_server_it_was_for_and_the_others_hear_of_it(home: Path) -> None:
    keep("a")
    keep("b", url="http://other.test")
    world = World()
    first, second = Runner.flush(world.client("http://other.test"))
    assert (first.outcome, first.detail) == ("elsewhere", spool.OTHER_SERVER.format(url=URL))
    assert (second.strategy_id, second.outcome) == ("b", "sent")
    assert world.seen == ["b"]
    assert waiting(home) == ["a"]


def test_a_submission_keeps_its_author(home: Path) -> None:
    keep("a")
    world = World()
    (done,) = Runner.flush(world.client(token="somebody else's"))
    assert (done.outcome, done.detail) == ("waiting", spool.OTHER_CREDENTIAL)
    assert not world.seen
    assert outcomes(world) == [("a", "sent")]


def test_what_another_version_kept_is_left_to_it(home: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(spool, "FORMAT", 2)
        keep("a")
    world = World()
    (done,) = Runner.flush(world.client())
    assert (done.outcome, done.detail) == ("elsewhere", spool.OTHER_FORMAT)
    assert not world.seen


DAMAGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("empty", lambda content: b""),
    ("cut short", lambda content: content[:40]),
    ("no JSON", lambda content: b"\0" * len(content)),
    ("one bit", lambda content: content.replace(b'"us"', b'"uk"')),
    ("other JSON", lambda content: b"[]"),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=[case[0] for case in DAMAGES])
def test_a_damaged_file_stops_no_other(
    name: str, damage: Callable[[bytes], bytes], home: Path
) -> None:
    bad = keep("a")
    keep("b")
    bad.write_bytes(damage(bad.read_bytes()))
    world = World()
    first, second = Runner.flush(world.client())
    assert first.outcome == "refused"
    assert str(home / spool.REFUSED / bad.name) in first.detail
    assert (second.strategy_id, second.outcome) == ("b", "sent")
    assert world.seen == ["b"]
    assert outcomes(world) == []
    assert (home / spool.REFUSED / bad.name).exists(), "not lost"


def test_a_file_that_cannot_be_read_stops_no_other(home: Path) -> None:
    keep("a")
    (home / "00000000-loop.json").symlink_to("00000000-loop.json")
    assert outcomes(World()) == [("?", "waiting"), ("a", "sent")]


# ---- Two of them, and none of them -----------------------------------------------------------


def _flush(results: "multiprocessing.Queue[int]", log: str) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        with open(log, "a") as file:
            file.write(json.loads(request.content)["strategy_id"])
        time.sleep(0.05)  # Long enough for the others to send it as well, if nothing stops them.
        return httpx.Response(200, json={"strategy_id": "any"})

    client = Client(URL, "t", transport=httpx.MockTransport(handle))
    results.put(len(Runner.flush(client)))


def test_two_processes_send_it_once(home: Path, tmp_path: Path) -> None:
    for name in "abc":
        keep(name)
    results: multiprocessing.Queue[int] = FORK.Queue()
    log = tmp_path / "log"
    processes = [FORK.Process(target=_flush, args=(results, str(log))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert sorted(results.get(timeout=5) for _ in processes) == [0, 0, 0, 3]
    assert log.read_text() == "abc"


def _keep(name: str) -> None:
    for number in range(10):
        keep(f"{name}{number}")


def test_processes_that_keep_at_once_lose_nothing(home: Path) -> None:
    processes = [FORK.Process(target=_keep, args=(name,)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    kept = waiting(home)
    assert len(kept) == 40
    for name in "abcd":
        assert [each for each in kept if each[0] == name] == [f"{name}{n}" for n in range(10)]


def _killed_after_sending(url: str, token: str) -> None:
    """Sends, and dies before it can remove what it sent."""
    client = Client(url, token)
    send = client.submit

    def submit(asked: Any) -> Any:
        send(asked)
        os.kill(os.getpid(), signal.SIGKILL)

    client.submit = submit  # type: ignore[method-assign]  # The instance's only, for the test.
    spool.flush(client)


def test_killed_between_sending_and_removing_it_is_sent_once(home: Path, tmp_path: Path) -> None:
    began = datetime(2024, 1, 1, 21, tzinfo=UTC)
    returns = {
        "t": [(began + timedelta(days=day)).isoformat() for day in range(300)],
        "r": [0.001 if day % 2 else -0.0005 for day in range(300)],
    }
    with served(tmp_path / "data") as server, Client(server.url, server.token) as client:
        client.create_world("us")
        client.add_policy("us", "version: 1\nevidence: none")
        kept = {**submission("a"), "fingerprint": "sha256:1", "returns": returns}
        path = spool.keep(client, kept)
        before = list(client.journal("us"))
        process = FORK.Process(target=_killed_after_sending, args=(server.url, server.token))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert path.exists(), "it died before it removed it"
        told = list(client.journal("us"))
        assert len(told) > len(before), "the world has it"
        assert [each.outcome for each in Runner.flush(client)] == ["sent"]
        assert list(client.journal("us")) == told, "and took it for what it has"
        assert not path.exists()
