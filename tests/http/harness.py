"""An application over a store, under a replay clock, with a credential for every role."""

import random
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from qmtl.adapters.clock import ReplayClock
from qmtl.adapters.codec import sparse_to_bytes
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.wire.instants import rfc3339
from qmtl.app import tokens, worlds
from qmtl.app.ports import Store
from qmtl.app.step import By
from qmtl.core.names import SYSTEM, ActorId, Role, WorldId
from qmtl.core.view import WorldView
from qmtl.entry import identity
from qmtl.entry.http import create_app
from qmtl.entry.server import Server, config_of, url_of
from qmtl.entry.services import ADMIN, Services
from qmtl.entry.wiring import Opened

START = datetime(2024, 1, 1, 21, tzinfo=UTC)
DAY = timedelta(days=1)
W = "alpha"
POLICY = """
version: 1
campaign:
  backtest: {window: 100d, min_observations: 60}
  paper: {window: 10d, min_observations: 8}
gates:
  backtest: {max_drawdown: {max: 0.5}}
  paper: {max_drawdown: {max: 0.4}}
  live: {max_drawdown: {max: 0.3}}
evidence: none
governance:
  live_promotion:
    mode: manual_approval
    approvers: {roles: [approver], min: 2, expires: 72h}
    cooldown: 0s
    max_live_slots: 2
    max_live_weight: 1.0
"""
AUTO_POLICY = POLICY.replace(
    "    mode: manual_approval\n    approvers: {roles: [approver], min: 2, expires: 72h}\n",
    "    mode: auto_apply\n",
)
YAML = {"Content-Type": "application/yaml"}


def stamp(moment: datetime) -> str:
    return rfc3339(moment)


def returns_of(name: str, count: int) -> list[float]:
    chance = random.Random(name)
    return [round(chance.gauss(0.001, 0.004), 6) for _ in range(count)]


def submission(sid: str, world: str = W, days: int = 120, **parts: Any) -> dict[str, Any]:
    """A strategy with its backtest, which ends at START."""
    times = [stamp(START - (days - 1 - i) * DAY) for i in range(days)]
    return {
        "strategy_id": sid,
        "world": world,
        "fingerprint": f"code-{sid}",
        "returns": {"t": times, "r": returns_of(sid, days)},
        "variants_tried": 3,
        **parts,
    }


def view_bytes(view: WorldView) -> bytes:
    """All of a view, byte for byte."""
    parts = [sparse_to_bytes(view)]
    for columns in (view.standings, *view.tracks.values()):
        parts += [array[: len(view.ids)].tobytes() for array in columns.arrays().values()]
    return b"\0".join(parts)


@dataclass
class Harness:
    services: Services
    client: TestClient
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return self.services.store

    @property
    def now(self) -> datetime:
        return self.services.clock.now()

    def token(self, actor: str, *roles: Role, world: str | None = None) -> str:
        """A credential, made past the door."""
        token = identity.new_token()
        world_id = None if world is None else WorldId(world)
        by = self.services.as_admin()
        tokens.create(self.store, by, identity.digest(token), ActorId(actor), roles, world_id, None)
        self.tokens[actor] = token
        return token

    def headers(self, who: str | None) -> dict[str, str]:
        return {} if who is None else {"Authorization": f"Bearer {self.tokens[who]}"}

    def call(
        self,
        who: str | None,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        told = {**self.headers(who), **(headers or {})}
        found: httpx.Response = self.client.request(
            method, path, json=body, content=content, headers=told, params=params
        )
        return found

    def ok(self, who: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.call(who, method, path, body, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def killed(self, who: str, reason: str) -> None:
        """A kill past the door, which takes no such reason any more; journals hold what it took."""
        by = By(ActorId(who), frozenset({Role.OPERATOR}), self.now)
        worlds.kill(self.store, WorldId(W), by, reason)

    def state(self) -> dict[str, tuple[int, bytes]]:
        """Of every world: how long its journal is, and its view."""
        names = [SYSTEM, *sorted(self.store.load(SYSTEM).worlds)]
        views = [self.store.load(name) for name in names]
        return {view.world_id: (view.seq, view_bytes(view)) for view in views}

    def advance(self, by: timedelta) -> datetime:
        self.ok("admin", "POST", "/clock", {"now": stamp(self.now + by)})
        return self.now

    def feed(self, stage: str, bars: Mapping[str, float], **parts: Any) -> Any:
        body = {"stage": stage, "t": stamp(self.now), "returns": dict(bars), **parts}
        return self.ok("pat", "POST", f"/worlds/{W}/returns", body)


def begin(store: MemoryStore | SqlStore, *, dual_control: bool = False) -> Harness:
    """Everybody there is, and nothing else."""
    clock = ReplayClock(store, START)
    services = Services(store=store, clock=clock, replay=clock, dual_control=dual_control)
    harness = Harness(services, TestClient(create_app(services), raise_server_exceptions=True))
    harness.token(ADMIN, *Role)
    harness.token("rea", Role.READER)
    harness.token("ann", Role.AUTHOR)
    harness.token("pat", Role.PRODUCER)
    harness.token("olga", Role.OPERATOR)
    harness.token("al", Role.APPROVER)
    harness.token("bo", Role.APPROVER)
    harness.token("polly", Role.POLICY_ADMIN)
    harness.token("adam", Role.ADMIN)
    return harness


@contextmanager
def harness_over(kind: str, folder: Path, *, dual_control: bool = False) -> Iterator[Harness]:
    """`kind`: memory, sql (in the folder), or the URL of a database."""
    where = kind if "://" in kind else folder / "data"
    store = MemoryStore() if kind == "memory" else SqlStore(where)
    try:
        harness = begin(store, dual_control=dual_control)
        with harness.client:
            yield harness
    finally:
        store.close()


def with_world(harness: Harness, policy: str = POLICY, *, allow_live: bool = True) -> None:
    """The world, its policy, and one strategy that has been submitted."""
    harness.ok("admin", "POST", "/worlds", {"id": W, "allow_live": allow_live})
    harness.ok("polly", "POST", f"/worlds/{W}/policies", content=policy, headers=YAML)
    harness.ok("ann", "POST", "/strategies", submission("s1"))


def with_candidate(harness: Harness, sid: str = "s1", days: int = 14) -> str:
    """Paper returns until there is a candidate; its run."""
    for r in returns_of(f"paper {sid}", days):
        harness.advance(DAY)
        harness.feed("paper", {sid: r})
    harness.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": sid})
    listed = harness.ok("rea", "GET", f"/worlds/{W}/promotions/live/candidates")["candidates"]
    return str(next(c["run_id"] for c in listed if c["strategy_id"] == sid))


def with_live(harness: Harness, sid: str = "s1") -> str:
    """Approved twice, and applied."""
    run_id = with_candidate(harness, sid)
    body = {"strategy_id": sid, "run_id": run_id}
    for who in ("al", "bo"):
        approval = {**body, "reason": "the numbers hold"}
        harness.ok(who, "POST", f"/worlds/{W}/promotions/live/approve", approval)
    harness.ok("olga", "POST", f"/worlds/{W}/promotions/live/apply", body)
    return run_id


@contextmanager
def listening(app: Any, ending: Any, port: int = 0) -> Iterator[str]:
    """The application on a port of its own, in a thread; stopped as a server stops."""
    listener = socket.create_server(("127.0.0.1", port))
    ready = threading.Event()
    opened = Opened(app, (), ending, lambda: None)
    server = Server(config_of(app, grace_sec=3), opened, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(10)
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive(), "it did not stop"
