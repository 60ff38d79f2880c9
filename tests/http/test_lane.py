"""The lane answers as the route does, or leaves it to the route: nobody can tell."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from qmtl.adapters.memory import MemoryStore
from qmtl.app import tokens
from qmtl.core.names import ActorId, Role, WorldId
from qmtl.entry import identity
from qmtl.entry.http import create_app
from qmtl.entry.lane import Lane
from qmtl.entry.limits import Limiter, Limits
from tests.http.harness import Harness, W, begin, stamp, with_live, with_world

DECIDE = f"/worlds/{W}/decide"


@pytest.fixture
def lives() -> Harness:
    """A world with one live strategy."""
    harness = begin(MemoryStore())
    harness.services = replace(harness.services, hosts=frozenset({"testserver"}))
    harness.client = TestClient(create_app(harness.services))
    with_world(harness)
    with_live(harness)
    harness.ok("adam", "POST", "/worlds", {"id": "other"})
    return harness


def asked(harness: Harness) -> list[tuple[str, str, dict[str, str] | list[tuple[str, str]]]]:
    """Requests in and around the plain case."""
    sid = sorted(harness.store.load(WorldId(W)).strategies)[0]
    plain = f"{DECIDE}?strategy_id={sid}"
    good = harness.headers("rea")
    tag = harness.call("rea", "GET", plain).headers["etag"]
    elsewhere = {"Authorization": f"Bearer {harness.token('els', Role.READER, world='other')}"}
    ended = identity.new_token()
    tokens.create(
        harness.store,
        harness.services.as_admin(),
        identity.digest(ended),
        ActorId("gone"),
        [Role.READER],
        None,
        harness.now + timedelta(microseconds=1),
    )
    harness.ok("adam", "POST", "/clock", {"now": stamp(harness.now + timedelta(seconds=1))})
    return [
        *(("GET", path, good) for path in _paths(sid)),
        *((method, plain, good) for method in ("HEAD", "POST", "PUT", "OPTIONS")),
        ("GET", plain, {}),
        ("GET", plain, {"Authorization": "Bearer "}),
        ("GET", plain, {"Authorization": "Bearer nobody"}),
        ("GET", plain, {"Authorization": "Basic " + good["Authorization"].split()[1]}),
        ("GET", plain, {"Authorization": good["Authorization"].replace("Bearer", "bearer ")}),
        ("GET", plain, {"Authorization": f"Bearer {ended}"}),
        ("GET", plain, {"Authorization": "Bearer a.b.c"}),
        ("GET", plain, elsewhere),
        ("GET", plain, good | {"If-None-Match": tag}),
        ("GET", plain, good | {"If-None-Match": f'"x", {tag}'}),
        ("GET", plain, good | {"If-None-Match": "*"}),
        ("GET", plain, good | {"If-None-Match": 'W/"other"'}),
        ("GET", plain, [*good.items(), ("If-None-Match", '"x"'), ("If-None-Match", tag)]),
        ("GET", plain, [*good.items(), ("Authorization", "Bearer nobody")]),
        ("GET", plain, [("Authorization", "Bearer nobody"), *good.items()]),
        ("GET", plain, good | {"Host": "elsewhere"}),
    ]


def _paths(sid: str) -> list[str]:
    return [
        f"{DECIDE}?strategy_id={sid}",
        f"{DECIDE}?strategy_id={sid}&as_of=2024-01-01T00:00:00Z",
        f"{DECIDE}?as_of=x&strategy_id={sid}",
        f"{DECIDE}?strategy_id={sid}&strategy_id={sid}",
        f"{DECIDE}?strategy_id={sid}&",
        f"{DECIDE}?strategy_id={sid}&other=1",
        f"{DECIDE}?strategy_id=%73{sid[1:]}",
        f"{DECIDE}?strategy_id={sid}%0A",
        f"{DECIDE}?strategy_id=nobody",
        f"{DECIDE}?strategy_id=",
        f"{DECIDE}?strategy_id=a/b",
        f"{DECIDE}?Strategy_id={sid}",
        DECIDE,
        f"{DECIDE}/?strategy_id={sid}",
        f"/worlds/%61lpha/decide?strategy_id={sid}",
        f"/worlds/none/decide?strategy_id={sid}",
        f"/worlds/none%0A/decide?strategy_id={sid}",
        f"/worlds/a%2Fb/decide?strategy_id={sid}",
        f"/worlds/system/decide?strategy_id={sid}",
        f"/worlds//decide?strategy_id={sid}",
    ]


def told(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    headers = dict(answer.headers)
    assert headers.pop("x-request-id"), "each request has a name of its own"
    return answer.status_code, headers, answer.text


def test_it_answers_as_the_route_does(lives: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[bool, list[Any]] = {}
    requests = asked(lives)
    for laned in (True, False):
        if not laned:
            monkeypatch.setattr(Lane, "_answer", lambda _lane, _scope: None)
        found[laned] = [
            told(lives.client.request(method, path, headers=headers))
            for method, path, headers in requests
        ]
    for request, ours, routes in zip(requests, found[True], found[False], strict=True):
        assert ours == routes, request
    assert {status for status, _, _ in found[True]} >= {200, 304, 400, 401, 403, 404, 405, 422}


def test_the_plain_case_takes_it(lives: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would compare the route with itself."""
    kept, answered = Lane._answer, []

    def answer(lane: Lane, scope: Any) -> Any:
        found = kept(lane, scope)
        answered.append(found is not None)
        return found

    monkeypatch.setattr(Lane, "_answer", answer)
    requests = asked(lives)
    answered.clear()
    for method, path, headers in requests:
        lives.client.request(method, path, headers=headers)
    assert sum(answered) >= 7, "the plain one, however its credential and If-None-Match are told"


def test_it_sees_a_kill_at_once(lives: Harness) -> None:
    sid = sorted(lives.store.load(WorldId(W)).live)[0]
    path = f"{DECIDE}?strategy_id={sid}"
    assert lives.ok("rea", "GET", path)["effective_mode"] == "live"
    lives.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "now"})
    after = lives.ok("rea", "GET", path)
    assert (after["effective_mode"], after["weight"]) == ("paper", 0.0)
    assert "world_killed" in after["reasons"]


def test_it_is_counted_and_limited_as_the_route_is(lives: Harness) -> None:
    lives.services = replace(
        lives.services, limiter=Limiter(Limits(requests_per_sec=1e-3, burst=3))
    )
    lives.client = TestClient(create_app(lives.services))
    sid = sorted(lives.store.load(WorldId(W)).strategies)[0]
    asked_ = [lives.call("rea", "GET", f"{DECIDE}?strategy_id={sid}") for _ in range(5)]
    assert [answer.status_code for answer in asked_] == [200, 200, 200, 429, 429]
    counts = lives.client.get("/metrics").text
    route = r'method="GET",route="/worlds/\{world_id\}/decide"'
    assert re.search(rf'requests_total{{{route},status="200"}} 3\.0', counts)
    assert re.search(rf'requests_total{{{route},status="429"}} 2\.0', counts)
