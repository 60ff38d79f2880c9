"""A Dask cluster on loopback: its scheduler and its workers are processes, as on other machines."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .postgres import free_port

LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).parent.parent
PATH = os.pathsep.join([str(ROOT / "src"), str(ROOT)])  # What workers can import.
ALLOWED_DEATHS = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"  # Of a piece; by default 3.


@dataclass
class Cluster:
    """Its scheduler is at `address`; workers have one thread each, and come and go."""

    home: Path
    port: int = field(default_factory=free_port)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        asked = ("--host", LOOPBACK, "--port", str(self.port), "--no-dashboard")
        self.scheduler = self._process("scheduler", *asked)

    def add_worker(self) -> None:
        """One that nobody starts again when it dies."""
        asked = ("--host", LOOPBACK, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        self.workers.append(self._process("worker", f"tcp://{self.address}", *asked))

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            if process is not None:
                process.kill()
                process.wait(10)

    def _process(self, what: str, *asked: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": PATH, "TMPDIR": str(self.home), ALLOWED_DEATHS: "1"}
        with (self.home / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *asked],
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=env,
            )


@contextmanager
def serving(workers: int) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="qmtl-dask-") as home:
        cluster = Cluster(Path(home))
        cluster.start()
        try:
            for _ in range(workers):
                cluster.add_worker()
            yield cluster
        finally:
            cluster.stop()
