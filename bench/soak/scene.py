"""Who is there: PostgreSQL, NATS, two servers that share both, two campaign loops, a notifier.

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
from typing import IO, Any

import psycopg

from bench.load import LIMITS
from bench.soak.growth import Usage
from bench.soak.plan import EVERYBODY
from qmtl.adapters.client import Client
from tests import nats, postgres
from tests.campaigns import stamp
from tests.servers import Served, start

COUNT = 2  # Servers, and loops.
START_SEC = 60.0
AGAIN_SEC = 0.1
STOP_SEC = 15.0
TRACEBACK = "Traceback (most recent call last)"
SECRET = "whsec_c29hayBzb2FrIHNvYWsgc29hayBzb2Fr"
NOTIFY = """
every: 1s
targets:
  desk: {kind: webhook, url: RECEIVER, secret: {file: secret}}
rules:
  - {to: [desk], about: [kill, demoted, blocked]}
"""
DURABLE = {"fsync": "on", "shared_buffers": "128MB"}


@dataclass(frozen=True, slots=True)
class Command:
    """A command of qmtl, the server that it goes to, and its credential."""

    arguments: tuple[str, ...]
    url: str
    token: str


@dataclass
class Scene:
    """Everybody, by name: `server 0`, `server 1`, `loop 0`, `loop 1`, `notifier`, `bus`,
    `database`."""

    folder: Path
    database: postgres.Server
    bus: nats.Server
    began: datetime
    url: str = field(init=False)
    servers: list[Served] = field(default_factory=list)
    others: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # Loops, a notifier.
    ended: list[str] = field(default_factory=list)  # By themselves; a sentence each.

    def __post_init__(self) -> None:
        self.url = self.database.database()
        self.ports = [postgres.free_port() for _ in range(COUNT)]
        self.auth = self.folder / "auth.toml"
        self.auth.write_text(LIMITS)
        self._meant: set[str] = set()  # To be gone, just now.
        self._commands: dict[str, Command] = {}
        self._dying = {name: threading.Lock() for name in EVERYBODY}

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def client(self, number: int, token: str | None = None) -> Client:
        return Client(self.urls[number], token or self.servers[0].token)

    # ---- Starting ----------------------------------------------------------------------------

    def start_servers(self) -> None:
        """One after the other: the first makes the keys that both have."""
        for number in range(COUNT):
            self.servers.append(self._server(number))

    def start_loops(self, token: str) -> None:
        for number, url in enumerate(self.urls):
            command = ("world", "campaign-loop", "--all", "--interval", "1s", "--json")
            self._start(f"loop {number}", Command(command, url, token))

    def start_notifier(self, token: str, receiver: str) -> None:
        """Tells a webhook what happens in any world."""
        config = self.folder / "notify.yaml"
        config.write_text(NOTIFY.replace("RECEIVER", receiver))
        (self.folder / "secret").write_text(SECRET)
        self._start("notifier", Command(("notify", "--config", str(config)), self.urls[0], token))

    def _start(self, name: str, command: "Command") -> None:
        self._commands[name] = command
        self.others[name] = self._other(name)

    def _other(self, name: str) -> subprocess.Popen[bytes]:
        asked = self._commands[name]
        rest = {k: v for k, v in os.environ.items() if not k.startswith("QMTL_")}
        with self._log(name) as log:
            return subprocess.Popen(
                [sys.executable, "-m", "qmtl", *asked.arguments],
                env={**rest, "QMTL_URL": asked.url, "QMTL_TOKEN": asked.token},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def _server(self, number: int) -> Served:
        options = ["--database", self.url, "--bus", self.bus.url, "--auth", str(self.auth)]
        options += ["--clock", "replay", "--at", stamp(self.began)]
        with self._log(f"server {number}") as log:
            port = str(self.ports[number])
            return start(self.folder / "data", *options, "--port", port, log=log)

    @contextmanager
    def _log(self, name: str) -> Iterator[IO[str]]:
        with (self.folder / f"{name.replace(' ', '-')}.log").open("a") as log:
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
        match name:
            case "bus":
                self.bus.kill()
            case "database":
                self.database.stop("immediate")
            case "server 0" | "server 1":
                self.servers[int(name[-1])].kill()
            case _:
                self.others[name].kill()
                self.others[name].wait(STOP_SEC)

    def _again(self, name: str) -> None:
        match name:
            case "bus":
                self.bus.start()
            case "database":
                self.database.start(**DURABLE)
            case "server 0" | "server 1":
                self.servers[int(name[-1])] = self._patiently(int(name[-1]))
            case _:
                self.others[name] = self._other(name)

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

    def _running(self) -> dict[str, subprocess.Popen[Any]]:
        servers = {f"server {n}": each.process for n, each in enumerate(self.servers)}
        return {**servers, **self.others}

    def watch(self, over: threading.Event) -> None:
        """Starts again who ended by itself, and keeps that it did, until it is over."""
        while not over.wait(AGAIN_SEC):
            for name, process in self._running().items():
                if process.poll() is not None and name not in self._meant:
                    self.ended.append(f"{name} ended by itself, with code {process.poll()}")
                    self._again(name)

    def rest(self) -> None:
        """The loops are told to end: after the last tick one may still be refused what others had.

        Only once nobody supervises."""
        for name, process in self.others.items():
            if name.startswith("loop"):
                process.terminate()
                if code := process.wait(STOP_SEC):
                    self.ended.append(f"{name} was told to end, and did with code {code}")

    # ---- Looking -----------------------------------------------------------------------------

    def usage(self) -> dict[str, Usage]:
        assert self.bus.process is not None
        assert self.database.process is not None
        alone = {**self._running(), "bus": self.bus.process}
        found = {name: usage_of([process.pid]) for name, process in alone.items()}
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
        for process in self._running().values():
            process.terminate()
        for process in self._running().values():
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
            found.start_servers()
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
