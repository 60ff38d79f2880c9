"""Sixteen clients race to approve, reject, apply and kill: one outcome, recorded once.

A real server, a world a round.  The outcome of a round is that its candidate was applied, or that
it was rejected: both are asked until one is so.  `make races` has two hundred rounds.
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from qmtl.adapters.audit.allowed import audit
from qmtl.adapters.client import Client
from qmtl.adapters.wire.export import lines
from tests.servers import served

ROUNDS = int(os.environ.get("QMTL_RACE_ROUNDS", "5"))
BEGAN = datetime(2024, 1, 1, 21, tzinfo=UTC)
DAY = timedelta(days=1)
ROUND_DAYS = 4  # From one world's candidate to the next one's.
TRIES_MAX = 200  # Of one client, until there is an outcome.
LOOKS_MAX = 3  # Somebody comes later than others: they look at the world first, so many times.
BY = {"approve": ("pia", "pete"), "reject": ("pia",), "apply": ("admin",), "kill": ("admin",)}
CLIENTS = ("approve",) * 5 + ("reject",) * 2 + ("apply",) * 7 + ("kill",) * 2
KINDS = ("promotion_applied", "candidate_rejected", "killed")
POLICY = """
version: 1
campaign:
  backtest: {window: 10d, min_observations: 10}
  paper: {window: 2d, min_observations: 2}
gates: {}
evidence: none
governance:
  live_promotion: {mode: manual_approval, approvers: {roles: [approver], min: 2, expires: 72h}}
"""


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class People:
    """A server, and whose credential is whose."""

    url: str
    tokens: dict[str, str]
    http: httpx.Client

    def ask(self, who: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[who]}", **more.pop("headers", {})}
        return self.http.request(method, self.url + path, json=body, headers=headers, **more)

    def ok(self, who: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.ask(who, method, path, body, **more)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json()


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    data = tmp_path_factory.mktemp("races") / "data"
    with (
        served(data, "--clock", "replay", "--at", stamp(BEGAN)) as server,
        httpx.Client(timeout=20, limits=httpx.Limits(max_connections=None)) as http,
    ):
        found = People(server.url, {"admin": server.token}, http)
        for actor in ("pia", "pete"):
            body = {"actor": actor, "roles": ["approver"]}
            found.tokens[actor] = found.ok("admin", "POST", "/tokens", body)["token"]
        yield found


def candidate(people: People, number: int) -> tuple[str, dict[str, Any]]:
    """A world with a candidate that one more approval lets live."""
    world, now = f"race{number}", BEGAN + number * ROUND_DAYS * DAY
    noise = random.Random(number)

    def ok(method: str, path: str, body: Any = None, **more: Any) -> Any:
        return people.ok("admin", method, path, body, **more)

    ok("POST", "/clock", {"now": stamp(now)})
    ok("POST", "/worlds", {"id": world, "allow_live": True})
    yaml = {"Content-Type": "application/yaml"}
    ok("POST", f"/worlds/{world}/policies", content=POLICY, headers=yaml)
    times = [stamp(now - i * DAY) for i in range(20, 0, -1)]
    series = {"t": times, "r": [noise.gauss(0.002, 0.004) for _ in times]}
    posted = {"strategy_id": "s", "world": world, "fingerprint": "f", "returns": series}
    ok("POST", "/strategies", posted)
    for day in range(1, ROUND_DAYS):
        at = stamp(now + day * DAY)
        ok("POST", "/clock", {"now": at})
        ok("POST", f"/worlds/{world}/returns", {"stage": "paper", "t": at, "returns": {"s": 0.001}})
    run = ok("POST", f"/worlds/{world}/evaluate", {"strategy_id": "s"})["run_id"]
    return world, {"strategy_id": "s", "run_id": run, "reason": "a race"}


def race(people: People, world: str, body: dict[str, Any], seed: int) -> list[tuple[str, int]]:
    """What each client asked for last, and how it was answered."""
    chance, gate, over = random.Random(seed), threading.Barrier(len(CLIENTS)), threading.Event()
    clients = [(does, chance.choice(BY[does]), chance.randint(0, LOOKS_MAX)) for does in CLIENTS]
    live, ids = f"/worlds/{world}/promotions/live", ("strategy_id", "run_id")
    asked = {
        "approve": (f"{live}/approve", body),
        "reject": (f"{live}/reject", body),
        "apply": (f"{live}/apply", {name: body[name] for name in ids}),
        "kill": (f"/worlds/{world}/kill", {"reason": "a race"}),
    }

    def client(does: str, who: str, looks: int) -> tuple[str, int]:
        gate.wait()
        for _ in range(looks):
            people.ok(who, "GET", f"/worlds/{world}")
        for _ in range(TRIES_MAX):
            status = int(people.ask(who, "POST", *asked[does]).status_code)
            assert status < 500 or status == 503, (does, status)
            if does in ("reject", "apply") and status == 200:
                over.set()
            if status == 200 or over.is_set():
                return does, status
        raise AssertionError(f"{does} by {who} came to nothing")

    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(lambda each: client(*each), clients))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_race_has_one_outcome_recorded_once(people: People, number: int) -> None:
    world, body = candidate(people, number)
    if number % 2:
        people.ok("pete", "POST", f"/worlds/{world}/promotions/live/approve", body)
    answers = Counter(race(people, world, body, number))
    with Client(people.url, people.tokens["admin"]) as client:
        head, key = client.journal_head(world), client.journal_key()
        entries = list(client.journal(world))
        transitions = audit(lines(head, key, entries))
    seqs = {kind: [e["seq"] for e in entries if e["kind"] == kind] for kind in KINDS}
    applied, rejected, killed = (seqs[kind] for kind in KINDS)
    assert len(applied) + len(rejected) == 1, "one outcome, recorded once"
    assert len(killed) == 1
    assert all(seq < killed[0] for seq in applied), "nothing goes live after a kill"
    assert bool(applied) == (answers["apply", 200] > 0)
    assert bool(rejected) == (answers["reject", 200] > 0)
    assert answers["kill", 200] == CLIENTS.count("kill")
    givers = [e["actor"] for e in entries if e["kind"] == "approval_given"]
    assert len(givers) == len(set(givers))
    assert [each.violations for each in transitions] == [()] * len(applied)
    assert not people.ok("admin", "GET", f"/worlds/{world}/activation?strategy_id=s")["active"]
