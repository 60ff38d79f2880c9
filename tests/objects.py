"""An S3-compatible store (moto) on loopback, and stores that keep all they can outside."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import TypeVar

import httpx
import pytest

from qmtl.adapters.objects import MemoryObjects
from qmtl.adapters.sql import outside
from qmtl.adapters.sql.store import SqlStore

from .postgres import free_port

START_SEC = 30.0
BUCKET = "qmtl-test"

T = TypeVar("T")


@dataclass
class Server:
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """As whoever starts a server on it exports."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def start(self) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "-p", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + START_SEC
        while True:
            try:
                if httpx.put(f"{self.url}/{BUCKET}").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, "moto does not start"
            assert time.monotonic() < until, "moto takes too long to start"
            time.sleep(0.05)

    def kill(self) -> None:
        """What it held is gone with it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.kill()


def everything_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every body, and every full chunk by itself, however small."""
    monkeypatch.setattr(outside, "DUE_BODIES", "SELECT digest FROM bodies LIMIT 32")
    due = "SELECT world_id, strategy_id, stage, chunk FROM series WHERE points = 128 LIMIT 32"
    monkeypatch.setattr(outside, "DUE_PARTS", due)
    monkeypatch.setattr(outside, "PART_CHUNKS", 1)


class Restless(SqlStore):
    """Off-loads after every write."""

    def __init__(self, where: Path | str) -> None:
        self._moving = local()
        self.objects = MemoryObjects()
        super().__init__(where, objects=self.objects)

    def write(self, job: Callable[[], T]) -> T:
        answer = super().write(job)
        inner = self._writer.here or getattr(self._moving, "now", False)
        if not inner:
            self._moving.now = True
            try:
                self.offload()
            finally:
                self._moving.now = False
        return answer
