"""kill -9 at random points of `qmtl follow`, with a file that grows and a server that dies, too.

However often it dies on the way, the hub ends up with each bar once, in the right stage, and equal
to the engine's backtest of the whole file.
"""

import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from qmtl.adapters.client import Client
from tests.following import HISTORY, at, csv_of, earned, stamp, walk
from tests.servers import Served, start

ROUNDS = int(os.environ.get("QMTL_CRASH_ROUNDS", "6"))
BARS_A_ROUND = 4
WORLD = "crash"
DEADLINE_SEC = 30.0
MINUTE = timedelta(minutes=1)
POLICY = """
version: 1
campaign:
  backtest: {window: 30d, min_observations: 30}
  paper: {window: 300d, min_observations: 300}
evidence: none
"""
STRATEGY = '''
import numpy as np


class Trend:
    """Holds what rose over the last bars."""

    def weights(self, prices):
        prices = np.asarray(prices)
        held = np.zeros_like(prices)
        held[5:] = prices[5:] > prices[:-5]
        return held / 2
'''


@dataclass
class Follower:
    """A `qmtl follow` of its own, and the lines it has printed and nobody has looked at yet."""

    process: subprocess.Popen[str]
    lines: "queue.Queue[str | None]"

    def line(self) -> str | None:
        """The next; None when it is gone."""
        return self.lines.get(timeout=DEADLINE_SEC)

    def until(self, word: str) -> None:
        """Looks at lines up to one that holds `word`."""
        while word not in (line := self.line() or ""):
            assert line, "it ended before it said so"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=DEADLINE_SEC)


@dataclass(frozen=True)
class Desk:
    """A folder with a project, and where its server listens."""

    home: Path
    port: int

    def server(self) -> Served:
        options = ("--clock", "replay", "--at", stamp(at(HISTORY - 1) + MINUTE))
        # The port of before: a follower finds it again by itself.
        return start(self.home / "data", *options, "--port", str(self.port))

    @contextmanager
    def follow(self, server: Served, *options: str) -> Iterator[Follower]:
        command = [sys.executable, "-m", "qmtl", "follow", "--world", WORLD, *options]
        command += ["crashing.py:Trend", "--prices", "prices.csv"]
        process = subprocess.Popen(
            command, cwd=self.home, env=self.environment(server), stdout=subprocess.PIPE, text=True
        )
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            assert process.stdout is not None
            with process.stdout as stream:
                for line in stream:
                    lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield Follower(process, lines)
        finally:
            process.kill()
            process.wait(timeout=DEADLINE_SEC)
            reader.join(timeout=DEADLINE_SEC)

    def environment(self, server: Served) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("QMTL_")}
        return {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "QMTL_URL": server.url,
            "QMTL_TOKEN": server.token,
            "QMTL_STATE": str(self.home / "state"),
            "QMTL_SPOOL": str(self.home / "spool"),
        }

    def run(self, server: Served, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "qmtl", *command],
            cwd=self.home,
            env=self.environment(server),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SEC,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def append(self, bar: int, half: bool = False) -> None:
        """A line of the file; its first half only, as somebody who writes slowly leaves it."""
        line = csv_of(walk(bar + 1)).splitlines()[-1] + "\n"
        path = self.home / "prices.csv"
        there = path.read_text()
        with path.open("a") as stream:
            begun = there[there.rfind("\n") + 1 :]
            rest = line.removeprefix(begun)
            stream.write(rest[: len(rest) // 2] if half else rest)


def begin(desk: Desk, server: Served) -> Desk:
    """A world, and a strategy in its paper campaign; the desk knows the server's port now."""
    (desk.home / "crashing.py").write_text(STRATEGY)
    (desk.home / "prices.csv").write_text(csv_of(walk(HISTORY)))
    with Client(server.url, server.token) as client:
        client.create_world(WORLD)
        client.add_policy(WORLD, POLICY)
    told = desk.run(
        server, "submit", "crashing.py:Trend", "--world", WORLD, "--prices", "prices.csv"
    )
    assert "Trend in world crash: paper" in told
    return Desk(desk.home, int(server.url.rpartition(":")[2]))


def days(desk: Desk, server: Served, bars: range) -> None:
    """The clock goes on, and the file grows, bar by bar; some lines are half there for a moment."""
    with Client(server.url, server.token) as client:
        for bar in bars:
            desk.append(bar, half=True)
            client.set_clock(at(bar) + MINUTE)
            desk.append(bar)


def held(server: Served) -> dict[str, Any]:
    """What the hub has: the series of each stage, and how many snapshots it is from."""
    with Client(server.url, server.token) as client:
        found = {}
        for stage in ("paper", "live", "shadow"):
            snapshots = list(client.snapshots(WORLD, stage=stage))
            if snapshots:
                latest = client.latest_snapshot(WORLD, stage=stage, expand=True)
                series = latest["realized_returns"]["Trend"]
                found[stage] = (len(snapshots), series["t"], series["r"])
        return found


def test_killed_again_and_again_each_bar_is_there_once(tmp_path: Path) -> None:
    chance, bar = random.Random(20260101), HISTORY
    desk = Desk(tmp_path, 0)
    server = desk.server()
    try:
        desk = begin(desk, server)
        for number in range(ROUNDS):
            with desk.follow(server) as follower:
                days(desk, server, range(bar, bar + BARS_A_ROUND))
                bar += BARS_A_ROUND
                for _ in range(chance.randrange(1, BARS_A_ROUND)):
                    assert follower.line() is not None
                if number % 3 == 1:  # The server dies as well, and comes back.
                    server.kill()
                    server = desk.server()
                time.sleep(chance.uniform(0, 0.03))
                follower.kill()
        total = bar + 2
        days(desk, server, range(bar, total))
        desk.run(
            server,
            "follow",
            "--once",
            "--world",
            WORLD,
            "crashing.py:Trend",
            "--prices",
            "prices.csv",
        )
        expected = earned(total)
        assert held(server) == {"paper": (len(expected), list(expected), list(expected.values()))}
    finally:
        server.stop()


def test_the_server_is_down_for_some_bars_and_sigterm_ends_it(tmp_path: Path) -> None:
    first, total = HISTORY, HISTORY + 4
    desk = Desk(tmp_path, 0)
    server = desk.server()
    try:
        desk = begin(desk, server)
        with desk.follow(server, "--json") as follower:
            days(desk, server, range(first, first + 1))
            follower.until('"posted"')
            server.kill()
            for bar in range(first + 1, total - 1):
                desk.append(bar)
                follower.until('"kept"')
            server = desk.server()
            with Client(server.url, server.token) as client:
                client.set_clock(at(total - 2) + MINUTE)
            days(desk, server, range(total - 1, total))
            for _ in range(first + 1, total):
                follower.until('"posted"')
            follower.process.terminate()
            assert follower.process.wait(timeout=DEADLINE_SEC) == 0
        expected = earned(total)
        assert held(server) == {"paper": (len(expected), list(expected), list(expected.values()))}
    finally:
        server.stop()
