"""Who is there: PostgreSQL, NATS, two servers that share both, and two campaign loops.

Whoever ends is started again, as a supervisor would, and by nobody else.  That it ended by itself
is kept: nobody here asks anything to end but with SIGKILL.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO

import psycopg

from bench.load import LIMITS
from bench.soak.growth import Usage
from qmtl.adapters.client import Client
from tests import nats, postgres
from tests.campaigns import stamp
from tests.servers import Served, start

COUNT = 2  # Servers, and loops.
START_SEC = 60.0
AGAIN_SEC = 0.1
STOP_SEC = 15.0
TRACEBACK = "Traceback (most recent call last)"
DURABLE = {"fsync": "on", "shared_buffers": "128MB"}


@dataclass
class Scene:
    """Everybody, by name: `server 0`, `server 1`, `loop 0`, `loop 1`, `bus`, `database`."""

    folder: Path
    database: postgres.Server
    bus: nats.Server
    began: datetime
    url: str = field(init=False)
    servers: list[Served] = field(init=False)
    loops: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # By themselves; a sentence each.

    def __post_init__(self) -> None:
        self.url = self.database.database()
        self.ports = [postgres.free_port() for _ in range(COUNT)]
        self.auth = self.folder / "auth.toml"
        self.auth.write_text(LIMITS)
        self._meant: set[str] = set()  # To be gone, just now.
        self._dying = {name: threading.Lock() for name in self.names}
        self.servers = [self._server(number) for number in range(COUNT)]
        self.token = self.servers[0].token

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    @property
    def names(self) -> tuple[str, ...]:
        numbered = (f"{kind} {n}" for kind in ("server", "loop") for n in range(COUNT))
        return (*numbered, "bus", "database")

    def client(self, number: int, token: str | None = None) -> Client:
        return Client(self.urls[number], token or self.token)

    # ---- Starting ----------------------------------------------------------------------------

    def start_loops(self, token: str) -> None:
        self.loop_token = token
        self.loops = [self._loop(number) for number in range(COUNT)]

    def _server(self, number: int) -> Served:
        options = ["--database", self.url, "--bus", self.bus.url, "--auth", str(self.auth)]
        options += ["--clock", "replay", "--at", stamp(self.began)]
        with self._log(f"server-{number}") as log:
            port = str(self.ports[number])
            return start(self.folder / "data", *options, "--port", port, log=log)

    def _loop(self, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "qmtl", "world", "campaign-loop", "--all"]
        ours = {"QMTL_URL": self.urls[number], "QMTL_TOKEN": self.loop_token}
        rest = {k: v for k, v in os.environ.items() if not k.startswith("QMTL_")}
        with self._log(f"loop-{number}") as log:
            return subprocess.Popen(
                [*command, "--interval", "1s", "--json"],
                env={**rest, **ours},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    @contextmanager
    def _log(self, name: str) -> Iterator[IO[str]]:
        with (self.folder / f"{name}.log").open("a") as log:
            yield log

    # ---- Dying -------------------------------------------------------------------------------

    def dies(self, name: str, down_sec: float) -> None:
        """SIGKILL, a while of nothing, and a new start.  Returns when it is there again."""
        with self._dying[name]:
            self._meant.add(name)
            self._killed(name)
            time.sleep(down_sec)
            self._again(name)
            self._meant.discard(name)

    def _killed(self, name: str) -> None:
        kind, _, number = name.partition(" ")
        match kind:
            case "server":
                self.servers[int(number)].kill()
            case "loop":
                self.loops[int(number)].kill()
                self.loops[int(number)].wait(STOP_SEC)
            case "bus":
                self.bus.kill()
            case "database":
                self.database.stop("immediate")
            case _:
                raise AssertionError(f"there is no {name}")

    def _again(self, name: str) -> None:
        kind, _, number = name.partition(" ")
        match kind:
            case "server":
                self.servers[int(number)] = self._patiently(int(number))
            case "loop":
                self.loops[int(number)] = self._loop(int(number))
            case "bus":
                self.bus.start()
            case "database":
                self.database.start(**DURABLE)

    def _patiently(self, number: int) -> Served:
        """A server that finds no database does not start, and is started again."""
        until = time.monotonic() + START_SEC
        while True:
            try:
                return self._server(number)
            except AssertionError:
                if time.monotonic() > until:
                    raise
                time.sleep(AGAIN_SEC)

    def watch(self, over: threading.Event) -> None:
        """Starts again who ended by itself, and keeps that it did, until it is over."""
        while not over.wait(AGAIN_SEC):
            running = [*(each.process for each in self.servers), *self.loops]
            for name, process in zip(self.names, running, strict=False):
                if process.poll() is not None and name not in self._meant:
                    self.ended.append(f"{name} ended by itself, with code {process.poll()}")
                    self._again(name)

    # ---- Looking -----------------------------------------------------------------------------

    def usage(self) -> dict[str, Usage]:
        pids = [*(each.process.pid for each in self.servers), *(each.pid for each in self.loops)]
        assert self.bus.process is not None
        assert self.database.process is not None
        found = {
            name: usage_of([pid])
            for name, pid in zip(self.names, [*pids, self.bus.process.pid], strict=False)
        }
        postmaster = self.database.process.pid
        return {**found, "database": usage_of([postmaster, *children(postmaster)])}

    def database_size(self) -> tuple[float, int, int]:
        """In MB; how many connections the servers have; how many events the journals."""
        asked = (
            "SELECT pg_database_size(current_database()), (SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()), "
            "(SELECT coalesce(sum(seq), 0)::bigint FROM worlds)"
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            size, connections, events = connection.execute(asked).fetchone() or (0, 0, 0)
            return size / 2**20, connections, events

    def tracebacks(self) -> list[str]:
        """The logs that hold one, and the line that ends its first."""
        found = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text().splitlines()
            starts = [n for n, line in enumerate(lines) if TRACEBACK in line]
            if starts:
                rest = lines[starts[0] + 1 :]
                last = next((line for line in rest if line[:1].strip()), "")
                found.append(f"{path.name}: {len(starts)} tracebacks, the first of {last[:200]}")
        return found

    def stop(self) -> None:
        ours = [*self.loops, *(server.process for server in self.servers)]
        for process in ours:
            process.terminate()
        for process in ours:
            process.wait(STOP_SEC)
        for server in self.servers:
            server.gone()


@contextmanager
def scene(folder: Path, began: datetime) -> Iterator[Scene]:
    """PostgreSQL that keeps what it answered, NATS that syncs each message, servers over both."""
    with postgres.serving() as database, nats.serving() as bus:
        database.stop()
        database.start(**DURABLE)
        found = Scene(folder, database, bus, began)
        try:
            yield found
        finally:
            found.stop()


# ---- What the kernel says of processes -------------------------------------------------------


def usage_of(pids: list[int]) -> Usage:
    """Of several together, each page that they share counted as a part for each."""
    kb = files = threads = 0
    for pid in pids:
        try:
            memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
            status = Path(f"/proc/{pid}/status").read_text()
            open_files = len(os.listdir(f"/proc/{pid}/fd"))
        except (FileNotFoundError, ProcessLookupError):  # One of a database's own, gone just now.
            continue
        kb += _kb(memory, "Pss:") if len(pids) > 1 else _kb(status, "VmRSS:")
        threads += _kb(status, "Threads:")
        files += open_files
    return Usage(born=pids[0], resident_mb=kb / 1024, files=files, threads=threads)


def _kb(text: str, name: str) -> int:
    return int(text.split(name)[1].split()[0])


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
