"""The event stream: in order, without a gap and without a duplicate, for whoever comes back."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx
import pytest

from qmtl.adapters.sql.errors import StoreAway
from qmtl.app import tokens, worlds
from qmtl.core.facts import Entry
from qmtl.core.names import Role, WorldId
from qmtl.entry import events as stream
from qmtl.entry import identity
from tests.http.harness import DAY, Harness, W, listening, with_world

WAIT_SEC = 10.0


@pytest.fixture
def url(harness: Harness) -> Iterator[str]:
    with_world(harness)
    app, bell = harness.client.app, harness.services.bell
    with listening(app, bell.close) as address:
        yield address


def events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """Parsed as the specification of server-sent events says."""
    told: dict[str, str] = {}
    for line in answer.iter_lines():
        if not line and "data" in told:
            event = json.loads(told["data"])
            assert (event["id"], event["type"]) == (told["id"], told["event"])
            yield event
            told = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            told[name] = value


def subscribed(
    url: str, harness: Harness, count: int, who: str = "rea", **headers: str
) -> list[dict[str, Any]]:
    asked = {**harness.headers(who), **headers}
    with httpx.stream(
        "GET", f"{url}/events/subscribe?world={W}", headers=asked, timeout=WAIT_SEC
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(islice(events(answer), count))


def test_who_comes_back_misses_nothing_and_sees_nothing_twice(url: str, harness: Harness) -> None:
    seen: list[dict[str, Any]] = subscribed(url, harness, 3, **{"Last-Event-ID": "0"})
    while len(seen) < 12:
        harness.advance(DAY)
        harness.feed("paper", {"s1": 0.001})
        harness.feed("shadow", {"s1": 0.001})
        seen += subscribed(url, harness, 2, **{"Last-Event-ID": seen[-1]["id"]})
    journal = harness.ok("rea", "GET", f"/worlds/{W}/journal", params={"limit": 1000})["entries"]
    assert [int(event["id"]) for event in seen] == [e["seq"] for e in journal[: len(seen)]]


def test_an_event_is_a_cloud_event_and_a_snapshot_one_of_its_name(
    url: str, harness: Harness
) -> None:
    harness.advance(DAY)
    stored = harness.feed("paper", {"s1": 0.001})
    after = {"Last-Event-ID": str(stored["seq"] - 1)}
    (event,) = subscribed(url, harness, 1, **after)
    assert event["specversion"] == "1.0"
    assert event["type"] == "risk_snapshot_updated"
    assert event["source"] == f"/worlds/{W}"
    assert event["time"] == stored["created_at"]
    assert event["data"]["version"] == stored["version"]
    assert event["data"]["stage"] == "paper"


def test_who_comes_for_the_first_time_is_told_where_it_starts(url: str, harness: Harness) -> None:
    """In a frame without data: whoever breaks off before the first event comes back with an id."""
    head = harness.state()[W][0]
    for headers, told in (({}, [f"id: {head}"]), ({"Last-Event-ID": "3"}, [])):
        asked = {**harness.headers("rea"), **headers}
        path = f"{url}/events/subscribe?world={W}"
        with httpx.stream("GET", path, headers=asked, timeout=WAIT_SEC) as answer:
            opening = list(iter(answer.iter_lines().__next__, ""))
        assert opening == ["retry: 1000", *told]


def test_a_stream_says_as_often_as_asked_that_it_is_alive(url: str, harness: Harness) -> None:
    path, headers = f"{url}/events/subscribe?world={W}&quiet_sec=1", harness.headers("rea")
    with httpx.stream("GET", path, headers=headers, timeout=WAIT_SEC) as answer:
        quiet = (line for line in answer.iter_lines() if line == ": quiet")
        began = time.monotonic()
        assert list(islice(quiet, 2)) == [": quiet"] * 2
    assert 1.9 < time.monotonic() - began < 3.0


def test_what_happens_comes_at_once(url: str, harness: Harness) -> None:
    """Without Last-Event-ID: from now on, to everyone who listens."""
    found: list[dict[str, Any]] = []

    def follow() -> None:
        found.extend(subscribed(url, harness, 1))

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)  # All of them are on.
    began = time.monotonic()
    killed = httpx.post(f"{url}/worlds/{W}/kill", headers=harness.headers("al"), timeout=WAIT_SEC)
    assert killed.status_code == 200
    for thread in threads:
        thread.join(WAIT_SEC)
    assert time.monotonic() - began < 0.9, "it was rung for, and not polled for"
    assert [event["type"] for event in found] == ["killed"] * 3


def test_another_process_is_heard_as_well(url: str, harness: Harness) -> None:
    """A write that rings no bell here is found by looking."""
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.extend(subscribed(url, harness, 1)))
    thread.start()
    time.sleep(0.3)
    worlds.kill(harness.store, WorldId(W), harness.services.as_admin(), "elsewhere")
    thread.join(WAIT_SEC)
    assert [event["type"] for event in found] == ["killed"]


@pytest.mark.parametrize(
    ("who", "query", "headers", "status"),
    [
        (None, f"world={W}", {}, 401),
        ("rea", "world=nowhere", {}, 404),
        ("rea", "", {}, 422),
        ("rea", "world=_system", {}, 422),
        ("rea", f"world={W}", {"Last-Event-ID": "abc"}, 422),
        ("rea", f"world={W}&quiet_sec=0.9", {}, 422),
        ("rea", f"world={W}&quiet_sec=15.1", {}, 422),
        ("rea", f"world={W}&quiet_sec=nan", {}, 422),
        ("zoe", f"world={W}", {}, 403),
    ],
)
def test_a_stream_is_refused_before_it_begins(
    harness: Harness, who: str | None, query: str, headers: dict[str, str], status: int
) -> None:
    with_world(harness)
    harness.ok("admin", "POST", "/worlds", {"id": "beta"})
    harness.token("zoe", *Role, world="beta")
    answer = harness.call(who, "GET", f"/events/subscribe?{query}", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_stream_does_not_hold_up_the_end(harness: Harness) -> None:
    with_world(harness)
    app, bell = harness.client.app, harness.services.bell
    ended: list[int] = []

    def follow(url: str) -> None:
        ended.append(len(subscribed(url, harness, 1)))

    with listening(app, bell.close) as url:
        thread = threading.Thread(target=follow, args=(url,))
        thread.start()
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 2.0
    thread.join(WAIT_SEC)
    assert ended == [0], "it ended as a stream ends, and was not cut off"


def test_a_stream_ends_as_streams_end_when_the_database_goes_away(
    url: str, harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who follows comes back, and is told then; in the log is no bug, since it is none."""
    path, headers = f"{url}/events/subscribe?world={W}", harness.headers("rea")

    def away(*_: Any) -> Any:
        raise StoreAway("Just now.")

    with httpx.stream("GET", path, headers=headers, timeout=WAIT_SEC) as answer:
        lines = answer.iter_lines()
        next(lines)
        with monkeypatch.context() as patch:
            patch.setattr(harness.store, "journal", away)
            patch.setattr(harness.store, "at_hand", lambda _: None)
            assert not [line for line in lines if line.startswith("data:")]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_revoked_credential_loses_its_stream_however_much_happens(
    url: str, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "QUIET_SEC", 0.2)
    harness.token("eve", Role.READER)
    token = harness.tokens["eve"]
    path, headers = f"{url}/events/subscribe?world={W}", harness.headers("eve")
    with httpx.stream("GET", path, headers=headers, timeout=WAIT_SEC) as answer:
        told = events(answer)
        harness.ok("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "n0"})
        next(told)
        tokens.revoke(harness.store, harness.services.as_admin(), identity.digest(token))
        for number in range(1, 200):
            body = {"strategy_id": f"n{number}"}
            harness.ok("olga", "POST", f"/worlds/{W}/strategies", body)
            time.sleep(0.01)
        assert len(list(told)) < 150, "it ended while there was still more to tell"


def test_many_who_follow_a_world_read_its_journal_once(harness: Harness) -> None:
    """And who saw a later head than a read that has begun does not wait for what that one tells."""
    with_world(harness)
    store, tails, reads = harness.store, harness.services.tails, list[int]()
    journal = store.journal

    def counted(world_id: WorldId, after: int, limit: int) -> list[Entry]:
        reads.append(after)
        time.sleep(0.05)
        return journal(world_id, after, limit)

    async def follow() -> None:
        world_id, head = WorldId(W), store.load(WorldId(W)).seq
        assert await tails.read(store, world_id, head) == []
        assert reads == [], "nothing is read where nothing is new"
        first = [asyncio.ensure_future(tails.read(store, world_id, 0)) for _ in range(50)]
        await asyncio.sleep(0.01)
        first[0].cancel()
        harness.ok("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "late"})
        later = await tails.read(store, world_id, 0)
        assert later[-1].seq == store.load(world_id).seq > head
        told = await asyncio.gather(*first, return_exceptions=True)
        assert {len(each) for each in told[1:] if isinstance(each, list)} <= {head, len(later)}
        assert isinstance(told[0], asyncio.CancelledError)
        assert all(isinstance(each, list) for each in told[1:]), "the others are told all the same"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "journal", counted)
        asyncio.run(follow())
    assert reads == [0, 0]
