"""A real `qmtl serve` for tests: its own process, loopback, a free port, stopped by its test."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

READY = "listening on "


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    token: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """SIGKILL, now; returns when the process is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.gone()

    def stop(self) -> None:
        """SIGTERM; returns when the process is gone."""
        self.process.terminate()
        self.gone()

    def gone(self) -> None:
        self.process.wait(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def start(data: Path, *options: str, log: IO[str] | None = None, **environ: str) -> Served:
    """Start a server on a data folder and wait until it listens.

    `log`: where its stderr goes.  `environ`: more of its own.
    """
    command = [sys.executable, "-m", "qmtl", "serve", "--data", str(data), "--port", "0", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QMTL_")} | environ
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    )
    assert process.stdout is not None
    for line in process.stdout:
        if READY in line:
            token = (data / "admin.token").read_text().strip()
            return Served(line.split(READY, 1)[1].split()[0], token, process)
    process.stdout.close()
    raise AssertionError(f"the server did not start; exit code {process.wait()}")


@contextmanager
def served(data: Path, *options: str) -> Iterator[Served]:
    """A server for the length of a block."""
    server = start(data, *options)
    try:
        yield server
    finally:
        server.stop()
