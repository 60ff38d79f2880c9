"""Over HTTP: what was taken back, since when; who is missing; and code that was replaced."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.program import digest_of_core
from qmtl.app import program
from qmtl.core.leases import LEASE_TERM
from qmtl.core.names import SYSTEM, Digest, WorldId
from qmtl.entry.http import create_app
from qmtl.entry.wiring import Settings, opened
from tests.http.harness import Harness, W, stamp, with_candidate, with_live, with_world

PATH = f"/worlds/{W}"
LIVE = f"{PATH}/promotions/live"
NEWER = Digest("f" * 64)


@pytest.fixture
def ready(harness: Harness) -> Harness:
    with_world(harness)
    return harness


def test_what_was_taken_back_is_told_until_when(ready: Harness) -> None:
    with_live(ready)
    asked = f"{PATH}/activation?strategy_id=s1"
    assert ready.ok("rea", "GET", asked)["taken_back"] is None
    ready.ok("olga", "POST", f"{PATH}/demote", {"strategy_id": "s1", "to": "paper", "reason": "x"})
    ends = {"weight": 0.5, "until": stamp(ready.now + LEASE_TERM)}
    told = ready.ok("rea", "GET", asked)
    assert (told["active"], told["taken_back"]) == (False, ends)
    ready.ok("pat", "POST", f"{PATH}/activation/ack", {
        "strategy_id": "s1", "sequence": told["sequence"]})  # fmt: skip
    assert ready.ok("rea", "GET", asked)["taken_back"] == ends


def test_who_is_missing_is_listed(ready: Harness) -> None:
    run_id = with_candidate(ready)
    body = {"strategy_id": "s1", "run_id": run_id, "reason": "the numbers hold"}
    ready.ok("al", "POST", f"{LIVE}/approve", body)
    (told,) = ready.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    assert (told["approvals_needed"], told["approvals_valid"], told["approvals_missing"]) == (
        *(2, 1),
        1,
    )
    ends = stamp(ready.now + timedelta(hours=72))
    assert told["approved_by"] == [{"by": "al", "valid": True, "expires_at": ends}]
    assert told["may_not_approve"] == [
        {"by": "ann", "why": "author"},
        {"by": "olga", "why": "proposer"},
    ]
    assert told["approver_roles"] == ["approver"]


# ---- Since when --------------------------------------------------------------------------------


def slowly(harness: Harness, who: str, path: str, body: object, takes: timedelta) -> int:
    """A POST whose body arrives only after so long, on the server's clock."""
    app = create_app(harness.services)
    answered: list[int] = []

    async def receive() -> Mapping[str, Any]:
        assert harness.services.replay is not None
        harness.services.replay.set(harness.now + takes)
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    headers = [(k.lower().encode(), v.encode()) for k, v in harness.headers(who).items()]
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [*headers, (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]  # Mappings, as ASGI has them.
    return answered[0]


def test_a_body_that_took_minutes_takes_a_weight_back_when_it_is_there(ready: Harness) -> None:
    """Else what was decided while it arrived would outlive what the gate waits for."""
    with_live(ready)
    began, takes = ready.now, timedelta(minutes=10)
    body = {"strategy_id": "s1", "to": "paper", "reason": "slow"}
    assert slowly(ready, "olga", f"{PATH}/demote", body, takes) == 200
    (lease,) = ready.store.load(WorldId(W)).outstanding.values()
    assert lease.until == began + takes + LEASE_TERM


# ---- Code that was replaced --------------------------------------------------------------------


def replaced(harness: Harness) -> None:
    """Another process, with other code, starts on the same store."""
    program.started(harness.store, harness.services.as_admin(), NEWER)


def refused(answer: Any) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["reasons"] == ["code_differs"]


def test_code_that_was_replaced_takes_nobody_live(ready: Harness) -> None:
    run_id = with_candidate(ready)
    body = {"strategy_id": "s1", "run_id": run_id}
    for who in ("al", "bo"):
        ready.ok(who, "POST", f"{LIVE}/approve", {**body, "reason": "fine"})
    replaced(ready)
    before = ready.state()
    for path in (f"{LIVE}/apply", f"{PATH}/apply"):
        refused(ready.call("olga", "POST", path, body))
    refused(ready.call("olga", "POST", f"{LIVE}/auto-apply", {}))
    assert ready.state() == before
    theirs = replace(ready.services, code=NEWER)
    there = replace(ready, services=theirs, client=TestClient(create_app(theirs)))
    assert there.ok("olga", "POST", f"{LIVE}/apply", body)["active"]


def test_code_that_was_replaced_takes_down_and_gives_nothing_back(ready: Harness) -> None:
    with_live(ready)
    replaced(ready)
    path = f"{PATH}/activation"
    for down in ({"weight": 0.2}, {"weight": 0.1, "drain": True}, {"freeze": True}):
        ready.ok("olga", "PUT", path, {"strategy_id": "s1", **down})
    before = ready.state()
    for up in ({"freeze": False, "drain": False}, {"weight": 0.5, "freeze": False, "drain": False}):
        refused(ready.call("olga", "PUT", path, {"strategy_id": "s1", **up}))
    assert ready.state() == before
    ready.ok("olga", "PUT", path, {"strategy_id": "s1", "weight": 0.0})
    ready.ok("olga", "POST", f"{PATH}/demote", {"strategy_id": "s1", "to": "paper", "reason": "x"})
    ready.ok("al", "POST", f"{PATH}/kill", {"reason": "enough"})


def test_a_start_says_which_code_decides_and_the_same_again_says_nothing(tmp_path: Path) -> None:
    program.must_decide(MemoryStore(), NEWER)  # Nobody has ever said: it is older than this.
    for _ in range(2):
        started = opened(Settings(data=tmp_path / "data"))
        view = started.app.state.services.store.load(SYSTEM)
        assert view.code == digest_of_core()
        kinds = [e.fact.kind for e in started.app.state.services.store.journal(SYSTEM, 0, 100)]
        assert kinds.count("program_started") == 1
        started.close()
