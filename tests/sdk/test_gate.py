"""The order gate before a world that answers as it is told to; `test_lease.py` has its logic."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

import httpx
import pytest

from qmtl.adapters.client import Client
from qmtl.core.names import Mode
from qmtl.sdk import gate as gate_module
from qmtl.sdk.gate import OrderGate

URL = "http://world.test"
WAIT_SEC = 5.0
LIVE = {"effective_mode": "live", "weight": 0.25, "ramp_fraction": 1.0, "reasons": ["live"]}


def told(generation: int = 5, **changes: Any) -> dict[str, Any]:
    """A decision as the wire has it; live."""
    return {
        "world_id": "w",
        "strategy_id": "s",
        "policy_version": 1,
        "generation": generation,
        "issued_at": "2024-01-31T21:00:00Z",
        "expires_at": "2024-01-31T21:05:00Z",
        "downgraded": False,
        "safe_mode": False,
        **LIVE,
        **changes,
    }


def event(seq: int, kind: str, generation: int, **fact: Any) -> bytes:
    data = {"generation": generation, "stream": "governance", "kind": kind, "fact": fact}
    said = {"id": str(seq), "type": kind, "source": "/worlds/w", "data": data}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(said)}\n\n".encode()


QUIET = b": quiet\n\n"
BREAK = None  # In place of bytes: the stream breaks.


class Told(httpx.SyncByteStream):
    """A stream that says what it is given to say."""

    def __init__(self, start: int | None) -> None:
        self.says: SimpleQueue[bytes | None] = SimpleQueue()
        opening = b"retry: 1000\n" + (b"" if start is None else b"id: %d\n" % start)
        self.says.put(opening + b"\n")

    def __iter__(self) -> Iterator[bytes]:
        while (said := self.says.get()) is not BREAK:
            yield said
        raise httpx.ReadError("broken")


@dataclass
class World:
    """Answers decisions with `decides` and streams with `streams`; remembers what it was asked."""

    decides: Callable[[], Any] = told
    start: int | None = 40
    refuses: httpx.Response | None = None  # The stream.
    asked: list[str] = field(default_factory=list)
    subscriptions: list[httpx.Request] = field(default_factory=list)
    streams: list[Told] = field(default_factory=list)
    acknowledged: list[Any] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        match request.url.path:
            case "/events/subscribe":
                return self.subscribed(request)
            case "/worlds/w/decide":
                answer = self.decides()
                if isinstance(answer, int):
                    return httpx.Response(answer, json={"title": "no"})
                return httpx.Response(200, json=answer)
            case "/worlds/w/activation/ack":
                self.acknowledged.append(json.loads(request.content))
                return httpx.Response(403, json={"title": "no"})
        raise AssertionError(request.url.path)

    def subscribed(self, request: httpx.Request) -> httpx.Response:
        self.subscriptions.append(request)
        if self.refuses is not None:
            return self.refuses
        after = request.headers.get("Last-Event-ID")
        self.streams.append(Told(self.start if after is None else None))
        kind = {"Content-Type": "text/event-stream"}
        return httpx.Response(200, stream=self.streams[-1], headers=kind)

    def says(self, *parts: bytes | None) -> None:
        for part in parts:
            self.streams[-1].says.put(part)

    @contextmanager
    def gate(self, **options: Any) -> Iterator[OrderGate]:
        transport = httpx.MockTransport(self)
        with (
            Client(URL, "t", transport=transport, sleep=lambda _: None) as client,
            OrderGate("w", "s", client=client, **options) as gate,
        ):
            try:
                yield gate
            finally:  # A real connection is interrupted; this one has no socket.
                for stream in self.streams:
                    stream.says.put(BREAK)


def reached(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_SEC
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)


class Clock:
    """The gate's own clock, standing until it is moved."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    standing = Clock()
    monkeypatch.setattr(gate_module, "monotonic", standing)
    return standing


@pytest.fixture(autouse=True)
def asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After connecting: whatever else asks again is then seen to."""
    monkeypatch.setattr(gate_module, "HEAD_SEC", 0.0)


# ---- Open and closed ---------------------------------------------------------------------------


def test_it_listens_first_and_then_asks() -> None:
    world = World()
    with world.gate() as gate:
        assert (gate.may_trade(), gate.weight, gate.mode) == (True, 0.25, Mode.LIVE)
        assert (gate.why, gate.sequence) == (None, 5)
    assert world.asked[:2] == ["/events/subscribe", "/worlds/w/decide"]


def test_it_is_closed_before_and_after() -> None:
    world = World()
    gate = OrderGate("w", "s")
    assert (gate.may_trade(), gate.weight, gate.mode) == (False, 0.0, Mode.COMPUTE_ONLY)
    assert "not entered" in str(gate.why)
    with world.gate() as gate:
        pass
    assert (gate.may_trade(), gate.weight, gate.mode) == (False, 0.0, Mode.COMPUTE_ONLY)
    assert "left" in str(gate.why)
    with pytest.raises(RuntimeError, match="once"), gate:
        pass
    assert not gate.may_trade()


@pytest.mark.parametrize("seconds", [2.9, 300.1, 0, -1])
def test_a_ttl_can_only_shorten(seconds: float) -> None:
    with pytest.raises(ValueError, match="3 to 300 seconds"):
        OrderGate("w", "s", ttl=timedelta(seconds=seconds))


@pytest.mark.parametrize(("ttl", "quiet"), [(None, "15.0"), (3, "1.0"), (12, "4.0")])
def test_it_asks_for_signs_of_life_often_enough(ttl: float | None, quiet: str) -> None:
    world = World()
    with world.gate(ttl=None if ttl is None else timedelta(seconds=ttl)):
        pass
    asked = world.subscriptions[0]
    assert asked.url.params["quiet_sec"] == quiet
    assert asked.extensions["timeout"]["read"] == 3 * float(quiet)


def test_an_event_closes_it_before_anybody_is_asked() -> None:
    answer = threading.Event()
    world = World()
    with world.gate() as gate:
        world.decides = lambda: told(6, effective_mode="paper") if answer.wait(WAIT_SEC) else 500
        world.says(event(41, "killed", 6, reason="enough"))
        reached(lambda: not gate.may_trade())
        assert gate.why == "killed (event 41): enough"
        answer.set()
        reached(lambda: gate.mode is Mode.PAPER)
        assert gate.weight == 0.0


def test_a_view_that_is_behind_the_event_does_not_open_it_again() -> None:
    world = World()
    with world.gate() as gate:
        world.says(event(41, "activation_lowered", 7, strategy_id="s", weight=0.1))
        reached(lambda: world.asked.count("/worlds/w/decide") >= 3)
        assert (gate.may_trade(), gate.sequence) == (False, 7)
        world.decides = lambda: told(7, weight=0.1)
        reached(gate.may_trade)
        assert gate.weight == 0.1


def test_what_was_asked_before_the_event_came_does_not_open_it() -> None:
    """The answer is on its way while the event comes."""
    arrived, answer = threading.Event(), threading.Event()

    def slow() -> dict[str, Any]:
        arrived.set()
        answer.wait(WAIT_SEC)
        return told(5)

    world = World()
    with world.gate() as gate:
        world.decides = slow
        world.says(event(41, "default_policy_set", 5))
        assert arrived.wait(WAIT_SEC)
        world.says(event(42, "killed", 6, reason="enough"))
        reached(lambda: not gate.may_trade())
        before = len(world.asked)
        answer.set()
        reached(lambda: len(world.asked) > before)
        assert not gate.may_trade()


def test_a_kind_nobody_knows_is_asked_about() -> None:
    world = World()
    with world.gate() as gate:
        before = world.asked.count("/worlds/w/decide")
        world.says(event(41, "tilted", 6))
        reached(lambda: world.asked.count("/worlds/w/decide") > before)
        assert gate.may_trade(), "until something better is known, it goes on as decided"
        world.decides = lambda: told(6, weight=0.125)
        reached(lambda: gate.weight == 0.125)


# ---- What goes wrong with the stream -----------------------------------------------------------

KILL = event(41, "killed", 6, reason="x")
BAD: list[tuple[str, bytes, str]] = [
    ("a gap", event(42, "strategy_bound", 6), "event 42 came after event 40"),
    ("again", event(40, "strategy_bound", 6), "event 40 came after event 40"),
    ("of another world", KILL.replace(b"/worlds/w", b"/worlds/v"), "/worlds/v"),
    ("no JSON", b"id: 41\nevent: killed\ndata: {\n\n", "event 41 is no JSON"),
    ("no id", b"event: killed\ndata: {}\n\n", "without its id"),
    ("no generation", KILL.replace(b'"generation": 6', b'"generation": "6"'), "no generation"),
]


@pytest.mark.parametrize(("name", "said", "why"), BAD, ids=[case[0] for case in BAD])
def test_an_event_that_is_none_closes_it(name: str, said: bytes, why: str) -> None:
    world = World()
    with world.gate() as gate:
        world.says(said)
        reached(lambda: not gate.may_trade())
        assert why in str(gate.why)
        reached(lambda: len(world.subscriptions) == 2)
        assert world.subscriptions[1].headers["Last-Event-ID"] == "40"
        reached(gate.may_trade)  # Nothing is missing any more, and it was decided anew.


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_stream_that_is_refused_closes_it(status: int) -> None:
    world = World(refuses=httpx.Response(status, json={"title": "no such luck"}))
    began = time.monotonic()
    with world.gate() as gate:
        assert time.monotonic() - began < 1.0, "and says so at once"
        assert not gate.may_trade()
        assert f"{status} no such luck" in str(gate.why)
        assert "/worlds/w/decide" not in world.asked


def test_a_stream_that_is_refused_later_closes_it() -> None:
    world = World()
    with world.gate() as gate:
        assert gate.may_trade()
        world.refuses = httpx.Response(401, json={"title": "No valid credential."})
        world.says(BREAK)
        reached(lambda: not gate.may_trade())
        assert "401" in str(gate.why)


def test_a_stream_that_comes_back_in_time_closes_nothing() -> None:
    world = World()
    with world.gate() as gate:
        world.says(event(41, "strategy_bound", 6, strategy_id="t"), BREAK)
        reached(lambda: len(world.subscriptions) == 2)
        assert world.subscriptions[1].headers["Last-Event-ID"] == "41"
        assert gate.may_trade()


def test_a_stream_that_cannot_go_on_where_it_broke_is_not_trusted() -> None:
    """From a server that does not say where its stream starts."""
    world = World(start=None)
    held = threading.Event()
    with world.gate() as gate:
        assert gate.may_trade()
        world.decides = lambda: told(5) if held.wait(WAIT_SEC) else 500
        world.says(BREAK)
        reached(lambda: len(world.subscriptions) == 2)
        reached(lambda: not gate.may_trade())
        held.set()
        reached(gate.may_trade)


def test_it_closes_when_the_stream_is_silent(clock: Clock) -> None:
    world = World()
    with world.gate(ttl=timedelta(seconds=60)) as gate:
        clock.now += 59.9
        assert gate.may_trade()
        clock.now += 0.1
        assert not gate.may_trade()
        assert (gate.weight, gate.mode) == (0.0, Mode.COMPUTE_ONLY)
        assert gate.why == "stream silent for 60 s"
        world.says(QUIET)  # It is back: and is asked again.
        reached(gate.may_trade)


def test_it_closes_when_the_lease_ends(clock: Clock) -> None:
    world = World()
    with world.gate(ttl=timedelta(seconds=60)) as gate:
        reached(lambda: gate.may_trade())
        world.decides = lambda: 500
        clock.now += 50
        world.says(QUIET)
        reached(lambda: gate._lease.heard_at == clock.now)
        clock.now += 10
        assert not gate.may_trade()
        assert "lease expired 0 s ago" in str(gate.why)


def test_it_asks_again_in_time() -> None:
    world = World(decides=lambda: told(expires_at="2024-01-31T21:00:00.900Z"))
    with world.gate() as gate:
        reached(lambda: world.asked.count("/worlds/w/decide") == 4)
        assert gate.may_trade()


def test_it_asks_again_after_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided elsewhere just before comes with no event."""
    monkeypatch.setattr(gate_module, "HEAD_SEC", 0.05)
    world = World()
    with world.gate() as gate:
        world.decides = lambda: told(5, effective_mode="paper")
        reached(lambda: gate.mode is Mode.PAPER)
        assert world.asked.count("/worlds/w/decide") == 2


def test_nobody_there_is_closed_and_says_so() -> None:
    with Client("http://127.0.0.1:1", "t") as client, OrderGate("w", "s", client=client) as gate:
        assert not gate.may_trade()
        assert "world away: http://127.0.0.1:1 does not answer" in str(gate.why)


# ---- Threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["decides", "refuses"])
def test_whatever_ends_a_thread_closes_it_for_good(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", ended.append)

    def bug() -> Any:
        raise ZeroDivisionError("a bug")

    world = World()
    with world.gate() as gate:
        assert gate.may_trade()
        world.decides = bug
        if where == "decides":
            world.says(event(41, "default_policy_set", 5))
        else:
            monkeypatch.setattr(world, "subscribed", lambda request: bug())
            world.says(BREAK)
        reached(lambda: not gate.may_trade())
        assert gate.why == "its thread ended: ZeroDivisionError('a bug')"
    assert "a bug" in str(gate.why)
    assert [args.exc_type for args in ended] == [ZeroDivisionError]


def test_leaving_lets_go_of_what_was_leased_whatever_comes_of_it() -> None:
    world = World()
    with world.gate():
        pass
    assert world.acknowledged == [{"strategy_id": "s", "sequence": 5}]
    paper = World(decides=lambda: told(effective_mode="paper", weight=0.0))
    with paper.gate() as gate:
        assert (gate.mode, gate.why) == (Mode.PAPER, "live")
    assert paper.acknowledged == []


def test_leaving_does_not_wait_for_who_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "JOIN_SEC", 0.2)
    answer, asking = threading.Event(), threading.Event()
    world = World()

    def hang() -> Any:
        asking.set()
        answer.wait(WAIT_SEC)
        return told(9)

    with world.gate() as gate:
        world.decides = hang
        world.says(event(41, "default_policy_set", 5))
        assert asking.wait(WAIT_SEC)
        began = time.monotonic()
        gate.__exit__(None, None, None)
        assert 0.15 < time.monotonic() - began < 1.0
        answer.set()
        let_end(gate, world)
    assert (gate.may_trade(), gate.why) == (False, gate_module.LEFT)


def test_a_client_of_its_own_is_closed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world, made = World(), list[Client]()

    def client(**options: Any) -> Client:
        made.append(Client(URL, "t", transport=httpx.MockTransport(world), **options))
        return made[-1]

    monkeypatch.setattr(gate_module, "Client", client)
    with OrderGate("w", "s", ttl=timedelta(seconds=6)) as gate:
        assert gate.may_trade()
        world.says(BREAK)
    assert made[0]._http.is_closed
    assert made[0]._http.timeout.read == 2.0


def test_who_is_interrupted_on_entering_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    world = World()
    with Client(URL, "t", transport=httpx.MockTransport(world)) as client:
        gate = OrderGate("w", "s", client=client)
        monkeypatch.setattr(gate._answered, "wait", interrupted)
        monkeypatch.setattr(gate_module, "JOIN_SEC", 0.1)
        with pytest.raises(KeyboardInterrupt):
            gate.__enter__()
        assert (gate.may_trade(), gate.why) == (False, gate_module.LEFT)
        let_end(gate, world)


def test_who_is_cancelled_on_entering_has_left() -> None:
    answer = threading.Event()
    world = World(decides=lambda: told() if answer.wait(WAIT_SEC) else 500)

    async def enter(gate: OrderGate) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.__aenter__(), 0.1)

    with Client(URL, "t", transport=httpx.MockTransport(world)) as client:
        gate = OrderGate("w", "s", client=client)
        asyncio.run(enter(gate))
        answer.set()
        assert (gate.may_trade(), gate.why) == (False, gate_module.LEFT)
        let_end(gate, world)


def let_end(gate: OrderGate, world: World) -> None:
    for stream in world.streams:
        stream.says.put(BREAK)
    for thread in gate._threads:
        thread.join(WAIT_SEC)
        assert not thread.is_alive()


def closed(gate: OrderGate) -> Callable[[], bool]:
    return lambda: not gate.may_trade()


def test_waiting_for_a_change() -> None:
    world = World()
    with world.gate() as gate:
        assert gate.wait_for(gate.may_trade, 0.0)
        assert not gate.wait_for(closed(gate), 0.05)
        timer = threading.Timer(0.05, world.says, [KILL])
        timer.start()
        assert gate.wait_for(closed(gate), WAIT_SEC)
        assert not gate.may_trade()
        timer.join()


def test_waiting_for_a_change_ends_when_the_lease_does(clock: Clock) -> None:
    world = World(decides=lambda: told(expires_at="2024-01-31T21:00:00.050Z"))
    with world.gate() as gate:
        assert gate.may_trade()
        timer = threading.Timer(0.02, setattr, [clock, "now", clock.now + 0.06])
        timer.start()
        assert gate.wait_for(closed(gate), WAIT_SEC)
        timer.join()
