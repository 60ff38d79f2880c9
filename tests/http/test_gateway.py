"""The gateway as a process of its own, in front of a world service that comes and goes."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.adapters.client import Client
from qmtl.adapters.clock import SystemClock
from qmtl.entry import proxy
from qmtl.entry.proxy import Gateway, create_app
from qmtl.entry.spool import Spool
from qmtl.sdk.gate import OrderGate
from tests.http.harness import (
    DAY,
    POLICY,
    YAML,
    Harness,
    W,
    listening,
    submission,
    with_live,
    with_world,
)

WAIT_SEC = 15.0
DECIDE = f"/worlds/{W}/decide?strategy_id=s1"
RUN_GATEWAY = """
import sys
from pathlib import Path
from qmtl.entry.server import run
from qmtl.entry.wiring import Part, Settings
run(Settings(part=Part.GATEWAY, data=Path(sys.argv[1]), world_url=sys.argv[2], port=0))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Pair:
    """A world, which can be stopped and started again at its address, and a gateway before it."""

    harness: Harness
    port: int
    url: str
    gateway: Gateway
    world: ExitStack

    def ask(self, who: str | None, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {**self.harness.headers(who), **more.pop("headers", {})}
        return httpx.request(method, self.url + path, headers=headers, timeout=WAIT_SEC, **more)

    def stop_world(self) -> None:
        self.world.close()

    def start_world(self) -> None:
        app, services = self.harness.client.app, self.harness.services
        services.bell.closing = False
        self.world.enter_context(listening(app, services.bell.close, self.port))


@contextmanager
def before(harness: Harness, folder: Path, port: int) -> Iterator[tuple[str, Gateway]]:
    gateway = Gateway(f"http://127.0.0.1:{port}", Spool(folder), SystemClock())
    with listening(create_app(gateway), gateway.close) as url:
        yield url, gateway


@pytest.fixture
def pair(harness: Harness, tmp_path: Path) -> Iterator[Pair]:
    port = free_port()
    with ExitStack() as world, before(harness, tmp_path / "spool", port) as (url, gateway):
        made = Pair(harness, port, url, gateway, world)
        made.start_world()
        yield made


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SEC
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_everything_goes_through_as_it_is(pair: Pair) -> None:
    made = pair.ask("admin", "POST", "/worlds", json={"id": W, "allow_live": True})
    assert made.status_code == 201
    told = pair.ask("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)
    assert told.status_code == 201
    submitted = pair.ask("ann", "POST", "/strategies", json=submission("s1"))
    assert submitted.status_code == 200
    assert submitted.json()["verdict"] == "pass"
    journal = (f"/worlds/{W}/journal", f"/worlds/{W}/journal/head", "/journal/key")
    for path in ("/worlds", f"/worlds/{W}/campaign/status", "/openapi.json", "/readyz", *journal):
        direct = pair.harness.call("admin", "GET", path)
        through = pair.ask("admin", "GET", path)
        assert (through.status_code, through.content) == (200, direct.content)
    tag = pair.ask("admin", "GET", "/worlds").headers["etag"]
    assert pair.ask("admin", "GET", "/worlds", headers={"If-None-Match": tag}).status_code == 304
    for path, status in (("/nothing", 404), ("/worlds/x", 404), ("/worlds?y=1", 422)):
        answer = pair.ask("admin", "GET", path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    unknown = pair.ask(None, "GET", "/worlds")
    assert unknown.status_code == 401
    assert "www-authenticate" in unknown.headers
    wrong = pair.ask("admin", "DELETE", "/worlds")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, POST")


def test_a_path_goes_through_as_it_was_quoted(pair: Pair) -> None:
    for path in ("/worlds/a%2Fb", "/worlds/a%20b", "/worlds/%C3%A4", "//worlds", "/worlds/"):
        # Whole, or the client takes `//worlds` for the name of a host.
        direct = pair.harness.call("admin", "GET", f"http://testserver{path}")
        through = pair.ask("admin", "GET", path)
        assert through.status_code == direct.status_code
        assert through.json() == direct.json()


def test_events_stream_through(pair: Pair) -> None:
    with_world(pair.harness)
    headers = {**pair.harness.headers("rea"), "Last-Event-ID": "0"}
    path = f"{pair.url}/events/subscribe?world={W}"
    with httpx.stream("GET", path, headers=headers, timeout=WAIT_SEC) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("id: "))
        assert [next(lines) for _ in range(3)] == ["id: 1", "id: 2", "id: 3"]


def test_signs_of_life_stream_through_as_they_come(pair: Pair) -> None:
    with_world(pair.harness)
    path = f"{pair.url}/events/subscribe?world={W}&quiet_sec=1"
    headers = pair.harness.headers("rea")
    with httpx.stream("GET", path, headers=headers, timeout=WAIT_SEC) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        began = time.monotonic()
        assert ": quiet" in lines
    assert 0.9 < time.monotonic() - began < 2.0


def test_an_order_gate_before_the_gateway_closes_with_the_world(pair: Pair) -> None:
    with_world(pair.harness)
    with_live(pair.harness)
    with (
        Client(pair.url, pair.harness.tokens["ann"]) as client,
        OrderGate(W, "s1", client=client, ttl=timedelta(seconds=3)) as gate,
    ):
        assert gate.may_trade()
        pair.stop_world()
        until(lambda: not gate.may_trade())
        pair.start_world()
        until(gate.may_trade)
        began = time.monotonic()
        pair.harness.ok("al", "POST", f"/worlds/{W}/kill", {"reason": "enough"})
        until(lambda: not gate.may_trade())
        assert time.monotonic() - began < 1.0


def test_a_decision_is_kept_for_its_term_and_then_lowered(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_world(pair.harness)
    with_live(pair.harness)
    fresh = pair.ask("ann", "GET", DECIDE)
    assert fresh.json()["effective_mode"] == "live"
    pair.stop_world()

    real = proxy.monotonic
    monkeypatch.setattr(proxy, "monotonic", lambda: real() + 100)
    kept = pair.ask("ann", "GET", DECIDE).json()
    assert (kept["effective_mode"], kept["weight"]) == ("live", fresh.json()["weight"])
    assert kept["expires_at"] == fresh.json()["expires_at"]
    assert 195 < kept["ttl"] <= 200, "a client counts from when it asks, and gets what is left"
    assert kept["issued_at"] > fresh.json()["issued_at"]

    monkeypatch.setattr(proxy, "monotonic", lambda: real() + 301)
    floor = pair.ask("ann", "GET", DECIDE).json()
    assert floor["effective_mode"] == "compute-only"
    assert floor["execution_domain"] == "backtest"
    assert floor["weight"] == 0.0
    assert (floor["downgraded"], floor["safe_mode"]) == (True, True)
    assert floor["reasons"] == ["worldservice_away"]
    assert set(floor) == set(fresh.json())

    pair.start_world()
    assert pair.ask("ann", "GET", DECIDE).json()["effective_mode"] == "live"


def test_nobody_is_told_what_another_credential_was_told(pair: Pair) -> None:
    with_world(pair.harness)
    with_live(pair.harness)
    assert pair.ask("ann", "GET", DECIDE).json()["effective_mode"] == "live"
    pair.stop_world()
    other = pair.ask("rea", "GET", DECIDE).json()
    assert (other["effective_mode"], other["safe_mode"]) == ("compute-only", True)
    assert pair.ask(None, "GET", DECIDE).status_code == 401


def test_all_decisions_of_a_world_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with_world(pair.harness)
    with_live(pair.harness)
    whole = pair.ask("ann", "GET", f"/worlds/{W}/decide").json()
    pair.stop_world()
    kept = pair.ask("ann", "GET", f"/worlds/{W}/decide").json()
    assert [d["effective_mode"] for d in kept["decisions"]] == ["live"]
    assert set(kept) == set(whole)
    real = proxy.monotonic
    monkeypatch.setattr(proxy, "monotonic", lambda: real() + 301)
    lowered = pair.ask("ann", "GET", f"/worlds/{W}/decide").json()
    assert [d["reasons"] for d in lowered["decisions"]] == [["worldservice_away"]]
    assert pair.ask("rea", "GET", f"/worlds/{W}/decide").status_code == 503


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/worlds"),
        ("GET", f"/worlds/{W}/campaign/status"),
        ("GET", f"/worlds/{W}/strategies/s1/explain"),
        ("GET", "/readyz"),
        ("POST", f"/worlds/{W}/kill"),
        ("POST", f"/worlds/{W}/returns"),
        ("PUT", f"/worlds/{W}/activation"),
        ("DELETE", f"/worlds/{W}/promotions/live/approve?strategy_id=s1&run_id=r"),
    ],
)
def test_everything_else_is_503_while_the_world_is_away(pair: Pair, method: str, path: str) -> None:
    pair.stop_world()
    answer = pair.ask("admin", method, path, json={} if method in ("POST", "PUT") else None)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert pair.ask(None, "GET", "/healthz").status_code == 200


def test_a_submission_is_kept_and_forwarded_once(pair: Pair) -> None:
    h = pair.harness
    with_world(h)
    pair.stop_world()
    told = pair.ask("ann", "POST", "/strategies", json=submission("late"))
    assert told.status_code == 202
    answer = told.json()
    assert (answer["run_id"], answer["verdict"], answer["explanation"]) == (None, None, None)
    assert answer["reasons"] == ["worldservice_away"]
    assert answer["decision"]["effective_mode"] == "compute-only"
    assert answer["decision"]["downgraded"] is True
    assert pair.ask("ann", "POST", "/strategies", json=submission("late")).status_code == 202
    assert len(pair.gateway.spool.waiting()) == 1

    before_ = h.state()[W][0]
    pair.start_world()
    until(lambda: not pair.gateway.spool.waiting())
    known = h.ok("rea", "GET", f"/worlds/{W}/strategies")["strategies"]
    assert [s["author"] for s in known if s["strategy_id"] == "late"] == ["ann"]
    entries = h.store.journal(W, before_, 100)  # type: ignore[arg-type]  # A WorldId.
    kinds = [entry.fact.kind for entry in entries]
    assert kinds == ["strategy_bound", "snapshot_stored", "evaluations_recorded", "phase_entered"]
    again = pair.ask("ann", "POST", "/strategies", json=submission("late"))
    assert again.status_code == 200
    assert h.state()[W][0] == before_ + len(kinds)


def test_a_version_that_is_kept_is_made_once_in_the_order_it_came(pair: Pair) -> None:
    h = pair.harness
    with_world(h)
    direct = pair.ask("ann", "POST", "/strategies", json=submission("s1")).json()
    pair.stop_world()
    for fingerprint in ("second", "third", "second"):
        told = pair.ask(
            "ann", "POST", "/strategies", json=submission("s1", fingerprint=fingerprint)
        )
        assert told.status_code == 202
        answer = told.json()
        assert set(answer) == set(direct)
        assert (answer["strategy_id"], answer["decision"]["strategy_id"]) == ("s1", "s1")
        assert (answer["version"], answer["previous"], answer["changed"]) == (None, None, [])
    pair.start_world()
    until(lambda: not pair.gateway.spool.waiting())
    known = h.ok("rea", "GET", f"/worlds/{W}/strategies")["strategies"]
    assert [(s["strategy_id"], s["fingerprint"]) for s in known] == [
        *(("s1", "code-s1"), ("s1.2", "second"), ("s1.3", "third"))
    ]
    again = pair.ask("ann", "POST", "/strategies", json=submission("s1", fingerprint="third"))
    assert again.json()["strategy_id"] == "s1.3"


def test_what_can_never_be_taken_is_not_kept(pair: Pair) -> None:
    pair.stop_world()
    wrong = pair.ask("ann", "POST", "/strategies", json=submission("late", returns=[1]))
    assert wrong.status_code == 422
    assert pair.ask(None, "POST", "/strategies", json=submission("late")).status_code == 401
    assert pair.gateway.spool.waiting() == []


def test_what_the_world_refuses_later_is_set_aside_without_its_credential(
    pair: Pair, tmp_path: Path
) -> None:
    with_world(pair.harness)
    pair.stop_world()
    assert pair.ask("rea", "POST", "/strategies", json=submission("late")).status_code == 202
    (kept,) = pair.gateway.spool.waiting()
    assert kept.stat().st_mode & 0o777 == 0o600
    pair.start_world()
    until(lambda: not pair.gateway.spool.waiting())
    (aside,) = (tmp_path / "spool" / "refused").iterdir()
    assert json.loads(aside.read_bytes())["status"] == 403
    assert pair.harness.tokens["rea"] not in aside.read_text()


def test_one_that_fails_does_not_hold_up_the_others(pair: Pair) -> None:
    h = pair.harness
    with_world(h)
    pair.stop_world()
    for sid in ("a", "b", "c"):
        assert pair.ask("ann", "POST", "/strategies", json=submission(sid)).status_code == 202
    first = pair.gateway.spool.waiting()[0]
    told = json.loads(first.read_bytes())
    first.write_bytes(json.dumps({**told, "authorization": "Bearer nobody"}).encode())
    pair.start_world()
    until(lambda: not pair.gateway.spool.waiting())
    known = {s["strategy_id"] for s in h.ok("rea", "GET", f"/worlds/{W}/strategies")["strategies"]}
    assert known == {"s1", "b", "c"}


def test_a_file_that_is_no_submission_is_set_aside(pair: Pair, tmp_path: Path) -> None:
    with_world(pair.harness)
    (tmp_path / "spool" / "00000000000000000000-torn.json").write_text('{"authorization": ')
    pair.stop_world()
    assert pair.ask("ann", "POST", "/strategies", json=submission("late")).status_code == 202
    pair.start_world()
    until(lambda: not pair.gateway.spool.waiting())
    assert [path.name for path in (tmp_path / "spool" / "refused").iterdir()] == [
        "00000000000000000000-torn.json"
    ]
    assert "late" in pair.harness.store.load(W).strategies  # type: ignore[arg-type]  # A WorldId.


def started(data: Path, world_url: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-c", RUN_GATEWAY, str(data), world_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split("listening on ")[1].strip()


def test_what_is_kept_outlives_a_sigkill(harness: Harness, tmp_path: Path) -> None:
    with_world(harness)
    port = free_port()
    world_url = f"http://127.0.0.1:{port}"
    process, url = started(tmp_path / "gateway", world_url)
    told = httpx.post(
        f"{url}/strategies",
        json=submission("late"),
        headers=harness.headers("ann"),
        timeout=WAIT_SEC,
    )
    process.send_signal(signal.SIGKILL)  # At once: it was told that it is kept.
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert told.status_code == 202
    harness.advance(DAY)
    with listening(harness.client.app, harness.services.bell.close, port):
        process, url = started(tmp_path / "gateway", world_url)
        view = lambda: harness.store.load(W).strategies  # type: ignore[arg-type]  # noqa: E731 -- short.
        until(lambda: "late" in view())
        process.terminate()
        assert process.wait(WAIT_SEC) == 0
        process.stdout.close()  # type: ignore[union-attr]  # It is a pipe.


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/kill", {"reason": "x"}),
        ("POST", "/demote", {"strategy_id": "s1", "to": "paper", "reason": "x"}),
        ("PUT", "/activation", {"strategy_id": "s1", "freeze": True}),
        ("PATCH", "", {"allow_live": False}),
    ],
)
def test_what_was_decided_before_a_stop_is_not_told_after_it(
    pair: Pair, method: str, path: str, body: dict[str, Any]
) -> None:
    with_world(pair.harness)
    with_live(pair.harness)
    assert pair.ask("ann", "GET", DECIDE).json()["effective_mode"] == "live"
    stopped = pair.ask("admin", method, f"/worlds/{W}{path}", json=body)
    assert stopped.status_code == 200, stopped.text
    pair.stop_world()
    told = pair.ask("ann", "GET", DECIDE).json()
    assert (told["effective_mode"], told["weight"]) == ("compute-only", 0.0)
