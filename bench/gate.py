"""The order gate: what asking it costs, and how long a stop takes from the operator to the gate."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.floors import Figure
from qmtl.adapters.client import Client
from qmtl.core.names import Mode
from qmtl.sdk.gate import OrderGate
from qmtl.sdk.lease import Leave
from tests import campaigns
from tests.servers import served

READS = 200_000
KILLS = 100  # One each of as many worlds: a world that was killed has nothing live.
STRATEGY = campaigns.strategies(1)[0]


def rows(folder: Path) -> str:
    return "\n".join([*reads(), kills(folder).row()])


def reads() -> list[str]:
    """One look at the gate, beside one bare look at the clock it needs."""
    gate, clock = OrderGate("w", "s"), time.CLOCK_BOOTTIME
    end = time.clock_gettime(clock) + 1e6
    gate._leave = Leave(Mode.LIVE, 0.1, end)  # As it stands while it is open.
    floor = nanoseconds(lambda: time.clock_gettime(clock) < end)
    found = []
    for name, read in (("may_trade", gate.may_trade), ("weight", lambda: gate.weight)):
        ours = nanoseconds(read)
        median = np.median(ours) / np.median(floor)
        found.append(
            f"{f'gate.{name}, ns':<44}{np.median(floor):>10.0f}{np.median(ours):>10.0f}"
            f"{median:>8.2f}x  p99 {np.percentile(ours, 99):.0f} ns  aim p99 <= 1000 ns"
        )
    return found


def nanoseconds(read: Callable[[], object]) -> np.ndarray:
    """Of each of many calls, what it takes to take the time included."""
    took = np.empty(READS)
    for number in range(READS):
        began = time.perf_counter_ns()
        read()
        took[number] = time.perf_counter_ns() - began
    return took


def kills(folder: Path) -> Figure:
    """From sending a kill to the gate being closed; the floor is the kill's own answer."""
    worlds = [f"w{number}" for number in range(KILLS)]
    options = ("--clock", "replay", "--at", campaigns.stamp(campaigns.BEGAN))
    with served(folder / "gate", *options) as server, Client(server.url, server.token) as client:
        for world in worlds:
            campaigns.begin(client, world, 1)
        campaigns.month_of_paper(client, dict.fromkeys(worlds, 1))
        for world in worlds:
            client.evaluate(world, {"strategy_id": STRATEGY})
            client.auto_apply(world)
        pairs = [killed(client, world) for world in worlds]
    closed = [ours for _, ours in pairs]
    return Figure(
        name=f"gate, kill sent to closed (p99 {np.percentile(closed, 99):.1f} ms)",
        floor_ms=float(np.median([floor for floor, _ in pairs])),
        ours_ms=float(np.median(closed)),
        ratios=tuple(ours / floor for floor, ours in pairs),
        aim="p99 < 1000 ms",
    )


def killed(client: Client, world: str) -> tuple[float, float]:
    """Milliseconds from sending a kill to its answer, and to the gate being closed."""
    closed: list[float] = []
    with OrderGate(world, STRATEGY, client=client) as gate:
        assert gate.may_trade(), gate.why
        ready = threading.Event()

        def wait() -> None:
            ready.set()
            gate.wait_for(lambda: not gate.may_trade(), 10.0)
            closed.append(time.perf_counter())

        waiting = threading.Thread(target=wait)
        waiting.start()
        ready.wait()
        time.sleep(0.01)  # It waits by now.
        began = time.perf_counter()
        client.kill(world, "bench")
        answered = time.perf_counter()
        waiting.join()
        assert not gate.may_trade()
    return (answered - began) * 1e3, (closed[0] - began) * 1e3
