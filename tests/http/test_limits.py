"""A client that has gone wild waits; nobody else does, and who stops something never."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from qmtl.adapters.memory import MemoryStore
from qmtl.core.errors import SlowDown, TooSlow
from qmtl.entry import auth, door, limits, server
from qmtl.entry.http import create_app
from qmtl.entry.limits import Buckets, Limiter, Limits
from tests.http.harness import Harness, W, begin, listening, with_live, with_world
from tests.jwts import Standing

WAIT_SEC = 10.0


def limited(**told: Any) -> Harness:
    harness = begin(MemoryStore())
    harness.services = replace(harness.services, limiter=Limiter(Limits(**told)))
    harness.client = TestClient(create_app(harness.services))
    return harness


def test_a_bucket_fills_as_time_passes() -> None:
    clock = Standing()
    buckets = Buckets(2.0, 3, clock.monotonic)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.wait_sec("b") == 0, "another's"
    clock.wait(0.5)
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]
    clock.wait(3_600)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5], "and is never fuller than full"


def test_who_waits_is_not_made_to_wait_longer() -> None:
    clock = Standing()
    buckets = Buckets(1.0, 1, clock.monotonic)
    buckets.take("a")
    assert {buckets.take("a") for _ in range(9)} == {1.0}


def test_buckets_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUCKETS_MAX", 2)
    buckets = Buckets(1.0, 1, Standing().monotonic)
    for key in ("a", "b", "c"):
        buckets.take(key)
    assert buckets.take("c") > 0
    assert buckets.take("a") == 0, "who was not seen for longest begins anew"


def test_a_credential_that_asks_too_often_waits_and_no_other() -> None:
    h = limited(requests_per_sec=0.001, burst=3)
    with h.client:
        assert [h.call("rea", "GET", "/worlds").status_code for _ in range(4)] == [200] * 3 + [429]
        slow = h.call("rea", "POST", "/worlds", {})
        assert slow.status_code == 403, "who may not is told so first"
        slow = h.call("rea", "GET", "/worlds")
        assert int(slow.headers["retry-after"]) >= 1
        assert slow.headers["content-type"] == "application/problem+json"
        assert "times a second" in slow.json()["detail"]
        assert h.call("al", "GET", "/worlds").status_code == 200
        for path in ("/healthz", "/readyz"):
            assert h.call("rea", "GET", path).status_code == 200
        assert h.call("rea", "GET", "/metrics").status_code == 429, "it looks at every world"
        assert h.call(None, "GET", "/metrics").status_code == 200


def stopping(run_id: str) -> Iterator[tuple[str, str, Any, Any]]:
    """Each route that stops something, asked by an operator who is also an approver."""
    body = {"strategy_id": "s1", "run_id": run_id}
    live = f"/worlds/{W}/promotions/live"
    yield "PUT /worlds/{world_id}/activation", f"/worlds/{W}/activation", None, {
        "strategy_id": "s1", "freeze": True
    }  # fmt: skip
    yield f"DELETE {auth._LIVE}/approve", f"{live}/approve", body, None
    yield f"POST {auth._LIVE}/reject", f"{live}/reject", None, {**body, "reason": "no"}
    demote = {"strategy_id": "s1", "to": "paper", "reason": "no"}
    yield "POST /worlds/{world_id}/demote", f"/worlds/{W}/demote", None, demote
    yield "POST /worlds/{world_id}/kill", f"/worlds/{W}/kill", None, {"reason": "no"}
    yield "PATCH /worlds/{world_id}", f"/worlds/{W}", None, {"allow_live": False}


def test_who_stops_something_never_waits() -> None:
    h = limited()
    with h.client:
        with_world(h)
        run_id = with_live(h)
        empty = Limiter(Limits(requests_per_sec=0.001, burst=1))
        h.services = replace(h.services, limiter=empty)
        h.client = TestClient(create_app(h.services))
        assert [h.call("admin", "GET", "/worlds").status_code for _ in range(2)] == [200, 429]
        asked = list(stopping(run_id))
        assert {route for route, *_ in asked} == auth.STOPS - set(auth.FORMS)
        for route, path, params, body in asked:
            answer = h.call("admin", route.split()[0], path, body, params=params)
            assert answer.status_code != 429, route
        assert h.store.load(W).killed  # type: ignore[arg-type]  # A WorldId.
        for form in sorted(auth.STOPS & set(auth.FORMS)):
            path = form.removeprefix("POST ").format(world_id=W)
            answer = h.client.post(
                path, content="reason=no", headers=h.headers("admin"), follow_redirects=False
            )
            assert answer.status_code != 429, form


def test_wrong_credentials_wait_by_address() -> None:
    limiter = Limiter(Limits(failures_per_min=2), Standing().monotonic)
    limiter.guessed("a")
    limiter.may_guess("a")
    limiter.guessed("a")
    for ask in (limiter.may_guess, limiter.guessed):
        with pytest.raises(SlowDown, match="2 wrong credentials a minute"):
            ask("a")
        ask("b")


def test_to_send_none_is_no_guess() -> None:
    h = limited(failures_per_min=1)
    with h.client:
        assert {h.call(None, "GET", "/worlds").status_code for _ in range(5)} == {401}


def test_streams_are_counted_while_they_are_open() -> None:
    h = limited(streams=2)
    with_world(h)
    app, bell = h.client.app, h.services.bell
    with listening(app, bell.close) as url, ExitStack() as streams:

        def opened() -> httpx.Response:
            asked = httpx.stream(
                "GET",
                f"{url}/events/subscribe?world={W}",
                headers=h.headers("rea"),
                timeout=WAIT_SEC,
            )
            return streams.enter_context(asked)

        first, second = opened(), opened()
        lines = [first.iter_lines(), second.iter_lines()]
        assert [next(each) for each in lines] == ["retry: 1000"] * 2
        third = opened()
        assert third.status_code == 429
        assert int(third.headers["retry-after"]) >= 1
        assert h.services.limiter._streams == {auth_key(h, "rea"): 2}
        streams.close()
        end = time.monotonic() + WAIT_SEC
        while h.services.limiter._streams:
            assert time.monotonic() < end, "a stream that ended counts no more"
            time.sleep(0.02)


def auth_key(h: Harness, who: str) -> str:
    found = h.services.identity.identify(h.headers(who)["Authorization"], h.now, "")
    return found.key


# ---- Slow ones ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("quiet", "whole"), [(0.05, 60.0), (60.0, 0.05)])
def test_a_body_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, quiet: float, whole: float
) -> None:
    monkeypatch.setattr(door, "BODY_QUIET_SEC", quiet)
    monkeypatch.setattr(door, "BODY_SEC_MAX", whole)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0 if whole < 1 else 3_600)
        return {"type": "http.request", "body": b"x", "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(TooSlow):
        asyncio.run(door.body_of(request, 1 << 40))


def test_a_slow_body_is_refused_and_its_connection_ends(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "BODY_QUIET_SEC", 0.1)
    with listening(harness.client.app, harness.services.bell.close) as url:
        token = harness.tokens["admin"]
        head = f"POST /worlds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        told = talk(url, head + "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{")
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in told
    assert b"\r\nconnection: close\r\n" in told.lower()


ASKED = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
BEGUN = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "


@pytest.mark.parametrize(("before", "said"), [("", ""), ("", BEGUN), (ASKED, BEGUN)])
def test_who_does_not_say_what_they_ask_is_hung_up_on(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, before: str, said: str
) -> None:
    monkeypatch.setattr(server, "HEADERS_SEC", 0.2)
    with listening(harness.client.app, harness.services.bell.close) as url:
        began = time.monotonic()
        told = talk(url, before, said)
        assert told.startswith(b"HTTP/1.1 200") == bool(before)
        assert time.monotonic() - began < WAIT_SEC


def test_a_head_without_end_is_hung_up_on(harness: Harness) -> None:
    with listening(harness.client.app, harness.services.bell.close) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), WAIT_SEC) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
            sent = 0
            with suppress(ConnectionError):
                while sent < 100 * server.HEAD_BYTES_MAX:
                    sent += connection.send(b"X-More: " + b"x" * 1_000 + b"\r\n")
                    time.sleep(1e-4)
            assert sent < 100 * server.HEAD_BYTES_MAX
        assert httpx.get(f"{url}/healthz", headers={"X": "x" * 30_000}).status_code == 200


def test_a_stream_that_is_open_is_not_hung_up_on(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADERS_SEC", 0.2)
    with_world(harness)
    with listening(harness.client.app, harness.services.bell.close) as url:
        path, headers = f"{url}/events/subscribe?world={W}&quiet_sec=1", harness.headers("rea")
        with httpx.stream("GET", path, headers=headers, timeout=WAIT_SEC) as answer:
            assert ": quiet" in answer.iter_lines(), "a second later it is still there"


def talk(url: str, *said: str) -> bytes:
    """All that comes back until the server hangs up."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), WAIT_SEC) as connection:
        told = b""
        for text in said:
            connection.sendall(text.encode())
            if said[-1] is not text and text:
                told += connection.recv(65_536)
        while part := connection.recv(65_536):
            told += part
    return told
