"""Two world services on one PostgreSQL: either is killed, or the database is, and nobody notices.

The campaign of `test_kill.py`, each request to one of the two by chance; who gets no answer, or
503, asks the other.  The journal ends up fact for fact as that of one server that never died.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.adapters.sql.store import SqlStore
from qmtl.core.names import WorldId
from tests.postgres import Server, serving
from tests.servers import Served

from .test_kill import ROUNDS, WORLD, begin, campaign, facts, run, send, unharmed

AGAIN_MAX = 400  # Times that a request is sent again, while servers start.
SLOW_SEC = 0.05


@pytest.fixture
def durable() -> Iterator[Server]:
    """A database server that keeps what it answered, as one of a firm's does."""
    with serving() as server:
        server.stop()
        server.start(fsync="on")
        yield server


class Pair:
    """Two servers on one database and one folder of keys."""

    def __init__(self, url: str, data: Path) -> None:
        self.url, self.data = url, data
        self.servers = [self._begun(), self._begun()]
        self.starting: list[threading.Thread] = []

    def _begun(self) -> Served:
        return begin(self.data, "--database", self.url)

    def kill(self, number: int) -> None:
        """One dies, and is started again while the other serves."""
        self.servers[number].kill()

        def again() -> None:
            self.servers[number] = self._begun()

        self.starting.append(threading.Thread(target=again))
        self.starting[-1].start()

    def stop(self) -> None:
        for thread in self.starting:
            thread.join()
        for server in self.servers:
            server.stop()


def asked(pair: Pair, client: httpx.Client, call: Any, first: int) -> httpx.Response:
    """The answer of whichever has one."""
    for number in range(AGAIN_MAX):
        try:
            answer = send(pair.servers[(first + number) % 2], client, call)
        except httpx.TransportError:
            time.sleep(SLOW_SEC)
            continue
        if answer.status_code != 503:
            return answer
        time.sleep(SLOW_SEC)
    raise AssertionError(f"nobody answers {call}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    data = tmp_path_factory.mktemp("undisturbed") / "data"
    assert run(data, 0, 0) == 0
    return facts(data)


def test_two_servers_of_one_database_are_as_one_that_never_died(
    tmp_path: Path, durable: Server, undisturbed: list[Any]
) -> None:
    url, chance = durable.database(), random.Random(20261125)
    pair = Pair(url, tmp_path / "data")
    calls = list(campaign())
    fatal = set(chance.sample(range(3, len(calls)), k=ROUNDS))
    power_cut = chance.randrange(len(calls) // 2, len(calls))
    died, cuts = 0, list[threading.Timer]()
    try:
        with httpx.Client() as client:
            for number, call in enumerate(calls):
                target = chance.randrange(2)
                if number in fatal:
                    cuts.append(threading.Timer(chance.uniform(0, 0.012), pair.kill, (target,)))
                    died += 1
                if number == power_cut:
                    cuts.append(threading.Timer(chance.uniform(0, 0.012), durable.stop))
                    cuts.append(threading.Timer(0.4, durable.start, kwargs={"fsync": "on"}))
                for cut in cuts:
                    if not cut.is_alive() and not cut.finished.is_set():
                        cut.start()
                answer = asked(pair, client, call, target)
                assert answer.status_code < 300, (call, answer.text)
                if number in fatal:
                    cuts[-1].join()
                    for thread in pair.starting:
                        thread.join()
        for cut in cuts:
            cut.join()
    finally:
        pair.stop()
    assert died == ROUNDS
    unharmed(url)
    assert facts(url) == undisturbed


def test_what_one_is_told_the_others_streams_tell(tmp_path: Path, durable: Server) -> None:
    """Server-sent events go on at another server where they broke off at one, without a gap."""
    url = durable.database()
    pair = Pair(url, tmp_path / "data")
    calls = list(campaign())[:12]
    try:
        with httpx.Client() as client, closing(SqlStore(url)) as store:
            for call in calls[:2]:
                assert send(pair.servers[0], client, call).status_code < 300
            seen: list[int] = []
            path = f"/events/subscribe?world={WORLD}&after=0"
            for number, call in enumerate(calls[2:]):
                told, asker = pair.servers[number % 2], pair.servers[1 - number % 2]
                last = {"Last-Event-ID": str(seen[-1] if seen else 0)}
                with client.stream(
                    "GET", told.url + path, headers={**told.headers, **last}, timeout=10
                ) as stream:
                    ids = (int(line[4:]) for line in stream.iter_lines() if line[:4] == "id: ")
                    assert send(asker, client, call).status_code < 300
                    head = store.head(WorldId(WORLD)).seq
                    while (seen[-1] if seen else 0) < head:
                        seen.append(next(ids))
            assert seen == list(range(1, len(seen) + 1))
    finally:
        pair.stop()
