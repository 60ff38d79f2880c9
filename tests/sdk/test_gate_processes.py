"""The order gate before a real server: how fast it closes, what reopens it, and what does not."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from qmtl.adapters.client import Client
from qmtl.core.names import Mode
from qmtl.sdk.gate import OrderGate
from tests import campaigns
from tests.servers import Served, start

S = campaigns.strategies(1)[0]
SHORT = timedelta(seconds=3)
AT_ONCE_SEC = 1.0
WAIT_SEC = 10.0


def reached(holds: Callable[[], bool], within: float = WAIT_SEC) -> float:
    """Seconds until it holds; fails when that takes longer than `within`."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + within, f"not within {within} s"
        time.sleep(0.002)
    return time.monotonic() - began


@dataclass
class Desk:
    """A server on a data folder, which may be started again, and who operates it."""

    data: Path
    server: Served
    worlds: list[str] = field(default_factory=list)

    @property
    def client(self) -> Client:
        return Client(self.server.url, self.server.token)

    def begin(self, *worlds: str) -> None:
        """In each of these worlds one strategy that is live."""
        with self.client as client:
            for world in worlds:
                campaigns.begin(client, world, 1)
            campaigns.month_of_paper(client, dict.fromkeys(worlds, 1))
            for world in worlds:
                client.evaluate(world, {"strategy_id": S})
                client.auto_apply(world)

    @contextmanager
    def gate(self, world: str, **options: Any) -> Iterator[OrderGate]:
        """Open, with a client that is closed after it."""
        with self.client as client, OrderGate(world, S, client=client, **options) as gate:
            assert gate.may_trade(), gate.why
            yield gate

    def again(self) -> None:
        """The same server, started anew at its address."""
        port = self.server.url.rpartition(":")[2]
        self.server = start(self.data, *OPTIONS, "--port", port)


OPTIONS = ("--clock", "replay", "--at", campaigns.stamp(campaigns.BEGAN))
STOPS: list[tuple[str, Callable[[Client, str], Any], str]] = [
    ("kill", lambda c, w: c.kill(w, "enough"), "world_killed"),
    ("freeze", lambda c, w: lower(c, w, freeze=True), "frozen"),
    ("deactivate", lambda c, w: lower(c, w, active=False), "paper_campaign"),
    ("demote", lambda c, w: c.demote(w, S, to="paper", reason="drift"), "held"),
    ("live-off", lambda c, w: c.change_world(w, allow_live=False), "paper_campaign"),
    ("suspend", lambda c, w: c.change_world(w, state="suspended"), "world_suspended"),
    ("archive", lambda c, w: c.change_world(w, state="archived"), "world_suspended"),
]
WORLDS = [*(name for name, _, _ in STOPS), "drain", "calm", "left"]


def lower(client: Client, world: str, **change: Any) -> Any:
    return client.send("PUT", f"/worlds/{world}/activation", body={"strategy_id": S, **change})


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    data = tmp_path_factory.mktemp("gate")
    found = Desk(data, start(data, *OPTIONS))
    found.begin(*WORLDS)
    yield found
    found.server.process.send_signal(signal.SIGCONT)
    found.server.stop()


@pytest.mark.parametrize(("world", "stop", "why"), STOPS, ids=[case[0] for case in STOPS])
def test_it_closes_at_once(
    desk: Desk, world: str, stop: Callable[[Client, str], Any], why: str
) -> None:
    with desk.client as client, desk.gate(world) as gate:
        assert (gate.mode, gate.weight, gate.why) == (Mode.LIVE, 0.01, None)
        before = gate.sequence
        stop(client, world)
        assert reached(lambda: not gate.may_trade()) < AT_ONCE_SEC
        assert (gate.weight, gate.mode is Mode.LIVE) == (0.0, False)
        reached(lambda: why in str(gate.why))
        assert gate.sequence > before


def test_a_weight_is_followed_down_and_up_again(desk: Desk) -> None:
    with desk.client as client, desk.gate("drain") as gate:
        lower(client, "drain", weight=0.004)
        assert reached(lambda: gate.weight == 0.004) < AT_ONCE_SEC
        lower(client, "drain", drain=True)
        assert reached(lambda: gate.weight == 0.0 and gate.may_trade()) < AT_ONCE_SEC
        assert "draining" in str(gate.why), "it may trade, to get out"
        lower(client, "drain", drain=False, weight=0.01)
        assert reached(lambda: gate.weight == 0.01) < AT_ONCE_SEC


def test_what_others_do_is_nothing_to_it(desk: Desk) -> None:
    with desk.client as client, desk.gate("calm") as gate:
        before = gate.sequence
        for number in range(3):
            client.submit(campaigns.submission("calm", f"other{number}"))
            client.demote("calm", f"other{number}", to="retired", reason="not mine")
        assert not gate.wait_for(lambda: not gate.may_trade(), 0.5)
        assert gate.sequence == before


def test_leaving_lets_go_of_the_lease(desk: Desk) -> None:
    with desk.client as client:
        with desk.gate("left") as gate:
            sequence = gate.sequence
        told = client.send("GET", "/worlds/left/activation", params={"strategy_id": S})
    assert told["acknowledged"] == sequence
    assert (gate.may_trade(), gate.weight, gate.why) == (False, 0.0, "left: its `with` has ended")


def test_it_works_in_asyncio_with_a_client_of_its_own(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_URL", desk.server.url)
    monkeypatch.setenv("QMTL_TOKEN", desk.server.token)

    async def trade() -> tuple[bool, bool]:
        async with OrderGate("calm", S) as gate:

            def closed() -> bool:
                return not gate.may_trade()

            opened = gate.may_trade()
            with desk.client as client:
                client.send(
                    "PUT",
                    "/worlds/calm/activation",
                    body={"strategy_id": S, "freeze": True},
                )
                assert await asyncio.to_thread(gate.wait_for, closed, AT_ONCE_SEC)
                lower(client, "calm", freeze=False)
                assert await asyncio.to_thread(gate.wait_for, gate.may_trade, AT_ONCE_SEC)
        return opened, gate.may_trade()

    assert asyncio.run(trade()) == (True, False)


def test_a_forked_child_may_do_nothing(desk: Desk) -> None:
    with desk.gate("calm") as gate:
        child = os.fork()
        if child == 0:
            waited = gate.wait_for(gate.may_trade, 0.01)
            closed = (gate.may_trade(), gate.weight, waited) == (False, 0.0, False)
            gate.__exit__(None, None, None)  # Leaving it here must not take it from the parent.
            os._exit(0 if closed and "forked" in str(gate.why) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert gate.may_trade()
        assert not gate.wait_for(lambda: not gate.may_trade(), 0.2)


def test_a_revoked_credential_closes_it(desk: Desk) -> None:
    with desk.client as client:
        told = client.create_token(actor="bot", roles=["author"])
        with (
            Client(desk.server.url, told["token"]) as own,
            OrderGate("calm", S, client=own, ttl=SHORT) as gate,
        ):
            assert gate.may_trade()
            client.revoke_token(told["token_id"])
            reached(lambda: not gate.may_trade(), SHORT.total_seconds())
            reached(lambda: "401" in str(gate.why))


def test_it_closes_within_its_ttl_when_the_server_stands_still(desk: Desk) -> None:
    with desk.gate("calm", ttl=SHORT) as gate:
        desk.server.process.send_signal(signal.SIGSTOP)
        took = reached(lambda: not gate.may_trade())
        assert 0.5 < took <= SHORT.total_seconds() + 0.5
        assert "stream silent" in str(gate.why) or "lease expired" in str(gate.why)
        desk.server.process.send_signal(signal.SIGCONT)
        reached(gate.may_trade)


def test_it_opens_again_when_the_server_is_back(desk: Desk) -> None:
    with desk.gate("calm", ttl=SHORT) as gate:
        desk.server.stop()
        try:
            reached(lambda: not gate.may_trade(), SHORT.total_seconds() + 0.5)
        finally:
            desk.again()
        reached(gate.may_trade)


def test_a_kill_while_it_was_not_connected_is_not_missed(desk: Desk) -> None:
    """The TTL is far away: what closes it is the event that comes after the last one it heard."""
    with desk.gate("calm") as gate:
        desk.server.stop()
        desk.again()
        with desk.client as client:
            client.kill("calm", "while it was away")
        assert reached(lambda: not gate.may_trade()) < 3.0
        reached(lambda: "world_killed" in str(gate.why))
