"""kill -9 at random points of a replayed campaign: nothing answered is lost, nothing is left half.

The campaign is a list of requests, each of which names its effect. Whoever sends them sends one
again when it got no answer, as any client would. However often the server dies on the way, the
journal ends up fact for fact as if it had never died. Five deaths here; `make crash` has fifty.
"""

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.adapters.sql.store import SqlStore
from qmtl.core.names import SYSTEM, WorldId
from tests.servers import Served, start

ROUNDS = int(os.environ.get("QMTL_CRASH_ROUNDS", "5"))
WORLD = "crash"
DAYS = 70
BEGAN = datetime(2024, 1, 1, 21, tzinfo=UTC)
POLICY = """
version: 1
campaign:
  backtest: {window: 100d, min_observations: 100}
  paper: {window: 20d, min_observations: 15}
gates:
  live: {max_drawdown: {max: 0.10}}
evidence: none
governance:
  live_promotion:
    mode: auto_apply
    cooldown: 0s
    max_live_slots: 3
    ramp: [{fraction: 0.5}, {fraction: 1.0, observe: 10d}]
"""
STRATEGIES = ("steady", "late", "fragile")


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    body: Any = None
    content: str | None = None


def returns_of(sid: str, day: int) -> float:
    """Deterministic: good and noisy; `fragile` falls apart on the fiftieth day."""
    noise = random.Random(f"{sid}{day}").gauss(0.001, 0.004)
    return -0.2 if sid == "fragile" and day == 50 else noise


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def campaign() -> Iterator[Call]:
    """Every request, in order."""
    yield Call("POST", "/worlds", {"id": WORLD, "allow_live": True})
    yield Call("POST", f"/worlds/{WORLD}/policies", content=POLICY)
    for sid in STRATEGIES:
        times = [BEGAN - timedelta(days=150 - i) for i in range(150)]
        series = {
            "t": [stamp(t) for t in times],
            "r": [returns_of(sid, -150 + i) for i in range(150)],
        }
        body = {"strategy_id": sid, "world": WORLD, "fingerprint": f"f-{sid}", "returns": series}
        yield Call("POST", "/strategies", body)
    for day in range(1, DAYS):
        at = BEGAN + timedelta(days=day)
        yield Call("POST", "/clock", {"now": stamp(at + timedelta(minutes=1))})
        for stage in ("paper", "live"):
            bar = {sid: returns_of(sid, day) for sid in STRATEGIES}
            body = {"stage": stage, "t": stamp(at), "returns": bar}
            yield Call("POST", f"/worlds/{WORLD}/returns", body)
        for sid in STRATEGIES:
            yield Call("POST", f"/worlds/{WORLD}/evaluate", {"strategy_id": sid})
        yield Call("POST", f"/worlds/{WORLD}/promotions/live/auto-apply", {})
    yield Call("POST", f"/worlds/{WORLD}/kill", {"reason": "the end"})


def send(server: Served, client: httpx.Client, call: Call) -> httpx.Response:
    yaml = {"Content-Type": "application/yaml"} if call.content else {}
    return client.request(
        call.method,
        server.url + call.path,
        json=call.body,
        content=call.content,
        headers={**server.headers, **yaml},
        timeout=20,
    )


def begin(data: Path, *options: str) -> Served:
    return start(data, "--clock", "replay", "--at", stamp(BEGAN), *options)


def run(data: Path, deaths: int, seed: int) -> int:
    """The whole campaign, killed `deaths` times on the way; how often it really was."""
    chance, died = random.Random(seed), 0
    calls = list(campaign())
    fatal = set(chance.sample(range(3, len(calls)), k=min(deaths, len(calls) - 3)))
    server = begin(data)
    try:
        with httpx.Client() as client:
            for number, call in enumerate(calls):
                delay = chance.uniform(0.0, 0.012) if number in fatal else None
                while (answer := attempt(server, client, call, delay)) is None:
                    unharmed(data)
                    server, died, delay = begin(data), died + 1, None
                assert answer.status_code < 300, (call, answer.text)
                if delay is not None:  # Answered first; it dies all the same.
                    unharmed(data)
                    server, died = begin(data), died + 1
    finally:
        server.stop()
    return died


def attempt(
    server: Served, client: httpx.Client, call: Call, delay: float | None
) -> httpx.Response | None:
    """The answer, or None when the server died before it gave one. It dies after `delay`."""
    killer = None if delay is None else threading.Timer(delay, server.kill)
    if killer is not None:
        killer.start()
    try:
        answer = send(server, client, call)
    except httpx.TransportError:
        assert killer is not None, "the server died by itself"
        answer = None
    if killer is not None:
        killer.join()
    return answer


def unharmed(where: Path | str) -> None:
    """What a dead server left: a whole chain, and tables that say what the journal says."""
    store = SqlStore(where)
    try:
        for world in (SYSTEM, WorldId(WORLD)):
            assert store.verify(world) is None
            assert store.audit(world) == []
    finally:
        store.close()


def facts(where: Path | str) -> list[Any]:
    store = SqlStore(where)
    try:
        entries = store.journal(WorldId(WORLD), 0, 10_000)
        return [(e.seq, e.generation, e.at, e.actor, e.fact) for e in entries]
    finally:
        store.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    data = tmp_path_factory.mktemp("undisturbed") / "data"
    assert run(data, 0, 0) == 0
    return facts(data)


def test_the_campaign_is_worth_killing(undisturbed: list[Any]) -> None:
    kinds = {type(fact).__name__ for *_, fact in undisturbed}
    expected = {"PromotionApplied", "Demoted", "CandidateProposed", "Killed", "PhaseEntered"}
    assert expected <= kinds


def test_whatever_was_answered_is_there_and_nothing_is_half(
    tmp_path: Path, undisturbed: list[Any]
) -> None:
    data = tmp_path / "data"
    assert run(data, ROUNDS, seed=20260101) == ROUNDS
    assert facts(data) == undisturbed
