"""What the journals say is told to the bus: in order, once, whoever dies and comes back."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from qmtl.adapters import jetstream
from qmtl.adapters.jetstream import BusBehind
from qmtl.adapters.sql.errors import StoreAway
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.names import SYSTEM, WorldId
from qmtl.entry.events import cloud_event
from qmtl.entry.relay import Relay
from qmtl.entry.services import Services
from tests.http.harness import DAY, Harness, W, begin, returns_of, with_world
from tests.nats import Server, serving
from tests.servers import served

WORLD = WorldId(W)
SOON_SEC = 20.0
FORGETS_SEC = 0.1  # The least that JetStream takes.


@pytest.fixture(scope="module")
def nats_server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def bus(nats_server: Server) -> Server:
    """With nothing in it."""

    async def empty() -> None:
        client = await nats.connect(nats_server.url)
        with suppress(NotFoundError):
            await client.jetstream().delete_stream(jetstream.STREAM)
        await client.close()

    if nats_server.process is None:
        nats_server.start()
    asyncio.run(empty())
    return nats_server


@contextmanager
def relaying(services: Services, url: str) -> Iterator[Relay]:
    relay = Relay(services, url)
    try:
        yield relay
    finally:
        relay.close()


def heard(url: str, count: int, world: str = W) -> list[Any]:
    """The first messages on a world's subject; fewer when there are no more."""

    async def hear() -> list[Any]:
        client = await nats.connect(url)
        try:
            subject = jetstream.subject(WorldId(world))
            pull = await client.jetstream().subscribe(subject, ordered_consumer=True)
            found: list[Any] = []
            while len(found) < count:
                try:
                    found.append(await pull.next_msg(timeout=1.0))
                except nats.errors.TimeoutError:
                    break
            return found
        finally:
            await client.close()

    return asyncio.run(hear())


def soon(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON_SEC
    while not holds():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.01)


def is_told(relay: Relay, harness: Harness, world: WorldId = WORLD) -> None:
    """Wait until the bus knows all that the journal does."""

    async def newest() -> int:
        async with jetstream.connected(relay.url) as bus:
            return (await bus.newest(world)).seq

    soon(lambda: relay.away is None and asyncio.run(newest()) == harness.store.head(world).seq)


def told(messages: list[Any]) -> list[int]:
    return [int(json.loads(message.data)["id"]) for message in messages]


def some_days(harness: Harness, days: int = 5) -> None:
    for r in returns_of("paper s1", days):
        harness.advance(DAY)
        harness.feed("paper", {"s1": r})


def test_every_event_is_told_in_order_and_once(harness: Harness, bus: Server) -> None:
    with_world(harness)  # Before it came: the journal is the outbox.
    with relaying(harness.services, bus.url) as relay:
        some_days(harness)
        is_told(relay, harness)
        messages = heard(bus.url, 10_000)
        entries = harness.store.journal(WORLD, 0, 10_000)
        assert told(messages) == [entry.seq for entry in entries]
        for message, entry in zip(messages, entries, strict=True):
            assert json.loads(message.data) == json.loads(json.dumps(cloud_event(WORLD, entry)))
            assert message.headers["Nats-Msg-Id"] == f"{W}/{entry.seq}"
            assert message.headers["Content-Type"] == "application/cloudevents+json"
        kinds = {json.loads(message.data)["type"] for message in messages}
        assert {"risk_snapshot_updated", "evaluations_recorded", "phase_entered"} <= kinds
        assert relay.reached == {WORLD: entries[-1].seq}


def test_what_happens_in_system_is_told_to_nobody(harness: Harness, bus: Server) -> None:
    with_world(harness)
    with relaying(harness.services, bus.url) as relay:
        is_told(relay, harness)
    assert heard(bus.url, 1, SYSTEM) == []
    everything = heard(bus.url, 10_000, "*")
    assert all(message.subject == f"qmtl.events.{W}" for message in everything)


def test_a_bus_that_is_away_is_caught_up_with(harness: Harness, bus: Server) -> None:
    with_world(harness)
    with relaying(harness.services, bus.url) as relay:
        is_told(relay, harness)
        bus.kill()
        some_days(harness)  # Nobody waits for it.
        soon(lambda: relay.away is not None)
        bus.start()
        is_told(relay, harness)
        seqs = told(heard(bus.url, 10_000))
        assert seqs == list(range(1, harness.store.head(WORLD).seq + 1))


def test_two_who_tell_are_heard_once(database_url: str, bus: Server) -> None:
    with closing(SqlStore(database_url)) as one, closing(SqlStore(database_url)) as other:
        harness = begin(one)
        with_world(harness)
        second = Services(store=other, clock=harness.services.clock)
        with relaying(harness.services, bus.url) as a, relaying(second, bus.url) as b:
            other.listen(second.bell.ring)
            some_days(harness, 20)
            is_told(a, harness)
            is_told(b, harness)
        assert told(heard(bus.url, 10_000)) == list(range(1, one.head(WORLD).seq + 1))


def test_who_comes_late_is_not_heard_however_late(bus: Server) -> None:
    """JetStream forgets the ids of messages; each message names the one it must follow."""

    async def tell() -> None:
        forgets = StreamConfig(
            name=jetstream.STREAM, subjects=["qmtl.events.>"], duplicate_window=FORGETS_SEC
        )
        client = await nats.connect(bus.url)
        await client.jetstream().add_stream(forgets)
        await client.close()
        async with jetstream.connected(bus.url) as stream:
            first = await stream.tell(WORLD, 1, b"1", jetstream.NOTHING)
            await stream.tell(WORLD, 2, b"2", first)
            await asyncio.sleep(4 * FORGETS_SEC)
            with pytest.raises(BusBehind):
                await stream.tell(WORLD, 2, b"2", first)

    asyncio.run(tell())
    assert told_raw(heard(bus.url, 10)) == [b"1", b"2"]


def test_an_older_copy_of_the_database_is_noticed(harness: Harness, bus: Server) -> None:
    """What was told cannot be taken back; what would follow contradicts it."""
    with_world(harness)
    head = harness.store.head(WORLD).seq

    async def ahead() -> None:
        async with jetstream.connected(bus.url) as stream:
            await stream.tell(WORLD, head + 5, b"{}", jetstream.NOTHING)

    asyncio.run(ahead())
    with relaying(harness.services, bus.url) as relay:
        soon(lambda: WORLD in relay.unusable)
        assert "older copy" in relay.unusable[WORLD]
        assert told_raw(heard(bus.url, 10)) == [b"{}"]
        harness.ok("admin", "POST", "/worlds", {"id": "beta", "allow_live": False})
        harness.ok("admin", "POST", "/worlds/beta/kill", {"reason": "x"})
        is_told(relay, harness, WorldId("beta"))  # Of the others everything is told.


def told_raw(messages: list[Any]) -> list[bytes]:
    return [message.data for message in messages]


def test_each_world_has_a_subject_of_its_own() -> None:
    subjects = [jetstream.subject(WorldId(each)) for each in ("a.b", "a:b", "a", "a_b", "A")]
    assert len(set(subjects)) == len(subjects)
    assert all(subject.count(".") == 2 for subject in subjects)


def test_a_server_relays_and_goes_on_after_it_was_killed(tmp_path: Path, bus: Server) -> None:
    data = tmp_path / "data"
    with served(data, "--bus", bus.url) as server:
        for number in range(5):
            body = {"reason": str(number)}
            url = f"{server.url}/worlds/sandbox/kill"
            assert httpx.post(url, json=body, headers=server.headers).status_code == 200
        server.kill()
    with served(data, "--bus", bus.url):
        head = head_of(data, "sandbox")
        soon(lambda: told(heard(bus.url, 10_000, "sandbox"))[-1:] == [head])
    assert told(heard(bus.url, 10_000, "sandbox")) == list(range(1, head + 1))


def head_of(data: Path, world: str) -> int:
    """As it is durable, read beside the server that holds the folder."""
    with closing(sqlite3.connect(f"file:{data}/qmtl.db?mode=ro", uri=True)) as by_hand:
        found = by_hand.execute("SELECT seq FROM worlds WHERE world_id = ?", (world,)).fetchone()
        return int(found[0])


def test_a_store_that_fails_is_waited_for(harness: Harness, bus: Server) -> None:
    with_world(harness)
    journal, failed = harness.store.journal, []

    def failing(*asked: Any) -> Any:
        if not failed:
            failed.append(None)
            raise StoreAway("Just now.")
        return journal(*asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.store, "journal", failing)
        with relaying(harness.services, bus.url) as relay:
            is_told(relay, harness)
    assert failed
