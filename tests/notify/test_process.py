"""`qmtl notify` as a process of its own, beside a real server: it is killed, started again, and
asked what it told; and nothing that it wrote has a secret in it."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from qmtl.adapters.client import Client
from tests.servers import Served, served

from .receiving import SECRET, Answer, Receiver, receiving

W = "alpha"
CHAT = "a-part-of-an-address-that-can-be-told"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "data") as made:
        with Client(made.url, made.token) as client:
            client.create_world(W)
        yield made


class Notifier:
    """Its files, and its process while there is one."""

    def __init__(self, folder: Path, server: Served, receiver: Receiver) -> None:
        self.folder = folder
        self.path = folder / "notify.yaml"
        self.said = folder / "said.txt"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "desk.secret").write_text(SECRET)
        chat = receiver.url.replace("/hook", f"/chat/{CHAT}")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("QMTL_")},
            "NOTIFY_TOKEN": server.token,
            "CHAT_URL": chat,
        }
        self.path.write_text(
            f"""
server: {server.url}
token: {{env: NOTIFY_TOKEN}}
every: 1s
targets:
  desk: {{kind: webhook, url: "{receiver.url}", secret: {{file: desk.secret}}}}
  chat: {{kind: slack, url: {{env: CHAT_URL}}}}
rules:
  - {{to: [desk]}}
  - {{to: [chat], world: elsewhere}}
"""
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "qmtl", "notify", *words]

    def start(self) -> None:
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                self.command("--config", str(self.path)),
                stdout=said,
                stderr=said,
                env=self.environment,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)

    def ask(self, *words: str, code: int = 0) -> Any:
        done = subprocess.run(
            self.command(*words, "--config", str(self.path), "--json"),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout or done.stderr)

    def until_it_watches(self) -> None:
        """It has seen the world once, so whatever happens from now on is news."""
        deadline = time.monotonic() + 30
        while not self.watches():
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.05)

    def watches(self) -> bool:
        with suppress(sqlite3.OperationalError):  # The file, or its tables, are not there yet.
            uri = f"file:{self.folder / 'notify.db'}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as kept:
                found = kept.execute("SELECT 1 FROM positions WHERE world_id = ?", (W,))
                return found.fetchone() is not None
        return False


@contextmanager
def notifying(folder: Path, server: Served, receiver: Receiver) -> Iterator[Notifier]:
    made = Notifier(folder, server, receiver)
    made.start()
    try:
        made.until_it_watches()
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait(timeout=10)


def test_a_notifier_that_dies_before_it_notes_what_it_told_tells_it_again_under_the_same_id(
    tmp_path: Path, server: Served
) -> None:
    with receiving() as receiver, notifying(tmp_path, server, receiver) as notifier:
        receiver.script = [Answer(first=notifier.kill)]  # It has come; the answer never arrives.
        with Client(server.url, server.token) as client:
            client.kill(W, "a fire")
            receiver.wait_for(1)
            assert notifier.process is not None
            assert notifier.process.wait(timeout=10) == -signal.SIGKILL
            client.resume(W, "it is out")  # While nobody listens.
        notifier.start()
        first, again, then = receiver.wait_for(3)
        assert first.id == again.id != then.id
        assert first.body == again.body
        for got in (again, then):
            assert Verifier(SECRET).verify(got.body, got.headers)["data"]["world_id"] == W
        time.sleep(1.5)
        assert len(receiver.got) == 3, "what was noted is not told again"
        assert notifier.stop() == 0
        told = notifier.ask("log")["deliveries"]
        assert [(each["id"], each["state"]) for each in told] == [
            (then.id, "delivered"),
            (first.id, "delivered"),
        ]


def test_the_log_a_replay_a_test_and_no_secret_anywhere(tmp_path: Path, server: Served) -> None:
    with receiving() as receiver, notifying(tmp_path, server, receiver) as notifier:
        receiver.script = [Answer(500)]
        with Client(server.url, server.token) as client:
            client.kill(W, "a fire")
        first = receiver.wait_for(1)[0]
        (waiting,) = notifier.ask("log", "--state", "waiting")["deliveries"]
        assert (waiting["status"], waiting["said"]) == (500, "refused: 500")
        assert notifier.ask("log", "--state", "delivered")["deliveries"] == []
        notifier.ask("replay", first.id)
        assert receiver.wait_for(2)[1].id == first.id, "the one that runs sends it"
        assert "no message msg_no" in str(notifier.ask("replay", "msg_no", code=1))
        assert notifier.ask("test", "chat")["ok"]
        assert receiver.wait_for(3)[2].path == f"/chat/{CHAT}"
        receiver.script = [Answer(403)]
        told = notifier.ask("test", "desk", code=1)
        assert (told["ok"], told["status"], told["said"]) == (False, 403, "refused: 403")
        busy = subprocess.run(
            notifier.command("--config", str(notifier.path)),
            capture_output=True,
            text=True,
            env=notifier.environment,
            timeout=60,
        )
        assert busy.returncode == 1
        assert "one is enough" in busy.stderr
        assert notifier.stop() == 0
        mine = {"notify.yaml", "desk.secret"}
        wrote = [p for p in tmp_path.iterdir() if p.is_file() and p.name not in mine]
        assert {path.name for path in wrote} >= {"notify.db", "said.txt"}
        for path in wrote:
            for secret in (SECRET, SECRET.removeprefix("whsec_"), CHAT, server.token):
                assert secret.encode() not in path.read_bytes(), path.name
        assert (tmp_path / "notify.db").stat().st_mode & 0o077 == 0


def test_a_server_that_is_away_is_waited_for(tmp_path: Path, server: Served) -> None:
    port = re.findall(r":(\d+)", server.url)[0]
    with receiving() as receiver, notifying(tmp_path, server, receiver) as notifier:
        server.stop()
        time.sleep(2.0)
        assert notifier.process is not None
        assert notifier.process.poll() is None
        with served(tmp_path / "data", "--port", port) as back:
            with Client(back.url, back.token) as client:
                client.kill(W, "a fire")
            receiver.wait_for(1)
            said = notifier.said.read_text()  # Before it is away again.
        assert said.count("the server is away") == 1
        assert said.count("the server answers again") == 1


def test_a_credential_that_is_wrong_is_said_and_ends_it(tmp_path: Path, server: Served) -> None:
    with receiving() as receiver:
        notifier = Notifier(tmp_path, server, receiver)
        notifier.environment["NOTIFY_TOKEN"] = "another"
        notifier.start()
        assert notifier.process is not None
        assert notifier.process.wait(timeout=20) == 1
        assert "401" in notifier.said.read_text() or "QMTL_TOKEN" in notifier.said.read_text()
