"""What a server does for many clients at once, over HTTP, beside a limit of the same minute.

Everything is as it is in use: a real process, authentication, validation, the journal, a full flush
before an answer.  Only the limits of one credential are lifted.  Clients are one other process.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count, repeat
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import orjson

from bench import wire
from bench.floors import BareStore, reduction
from qmtl.adapters import policies
from qmtl.adapters.client import Client
from qmtl.entry.loop import run_once
from tests import campaigns
from tests.servers import READY, Served, served

REPEATS = 5
SECONDS = 5.0
LIMITS = "[limits]\nrequests_per_sec = 1000000\nburst = 1000000\nstreams = 100000\n"
WORLD = "bench"
BEGAN = campaigns.BEGAN


@dataclass(frozen=True, slots=True)
class Rate:
    """Of ours and of a limit, in turn: so many a second, and what share of the limit that is."""

    name: str
    pairs: tuple[tuple[float, float], ...]
    aim: str

    def row(self) -> str:
        shares = [ours / limit for limit, ours in self.pairs]
        limit, ours = (median(each) for each in zip(*self.pairs, strict=True))
        return (
            f"{self.name:<44}{limit:>9,.0f}/s{ours:>9,.0f}/s{median(shares):>7.2f}"
            f"  ({min(shares):.2f} to {max(shares):.2f})  aim {self.aim}"
        )


def rates(name: str, limit: Callable[[], float], ours: Callable[[], float], aim: str) -> Rate:
    """In turn, so that both see the same noise; the first pair warms up."""
    pairs = []
    for number in range(REPEATS + 1):
        found = {}
        for work in (limit, ours) if number % 2 else (ours, limit):
            found[work] = work()
        pairs.append((found[limit], found[ours]))
    return Rate(name, tuple(pairs[1:]), aim)


@contextmanager
def bare(size: int) -> Iterator[str]:
    """`bench.bare` in a process of its own: its URL."""
    command = [sys.executable, "-m", "bench.bare", str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield next(line.split()[-1] for line in process.stdout if READY in line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[Served, Client]]:
    """A server that lets a client ask as often as it likes."""
    folder.mkdir(exist_ok=True)
    auth = folder / "auth.toml"
    auth.write_text(LIMITS)
    settings = ("--auth", str(auth), "--clock", "replay", "--at", campaigns.stamp(BEGAN))
    with (
        served(folder / "data", *settings, *options) as server,
        Client(server.url, server.token) as client,
    ):
        yield server, client


@contextmanager
def world(folder: Path, strategies: int, *options: str) -> Iterator[tuple[Served, Client]]:
    """A server whose world, under the sandbox policy, has so many strategies."""
    with serving(folder, *options) as (server, client):
        make(server, client, WORLD, strategies)
        yield server, client


def make(server: Served, client: Client, named: str, strategies: int) -> None:
    client.create_world(named, allow_live=True)
    client.add_policy(named, policies.shipped("sandbox"))
    bind(server, strategies, named)


def bind(server: Served, strategies: int, named: str = WORLD) -> None:
    asked = [
        wire.request(
            "POST",
            f"/worlds/{named}/bindings",
            server.token,
            orjson.dumps({"strategy_id": f"s{number}"}),
        )
        for number in range(strategies)
    ]
    wire.closed(server.url, asked, 32, wanted=201)


def names(first: int, strategies: int) -> list[str]:
    return [f"s{first + number}" for number in range(strategies)]


def body(strategies: Sequence[str], first: datetime, bars: int, seed: int) -> bytes:
    """A snapshot of `bars` daily returns of each, as a producer posts it."""
    chance = np.random.default_rng(seed)
    times = [campaigns.stamp(first + timedelta(days=bar)) for bar in range(bars)]
    series = {
        name: {"t": times, "r": chance.normal(0.001, 0.01, bars).round(6).tolist()}
        for name in strategies
    }
    return orjson.dumps(
        {
            "version": f"v{first:%Y%m%d}-{seed}-{len(strategies)}",
            "as_of": times[-1],
            "weights": {name: 1 / len(strategies) for name in strategies},
            "realized_returns": series,
        }
    )


def posts(
    server: Served, bodies: Sequence[bytes], named: str = WORLD, stage: str = "paper"
) -> list[bytes]:
    path = f"/risk-hub/worlds/{named}/snapshots"
    headers = {"X-Stage": stage, "X-Actor": "admin"}
    return [wire.request("POST", path, server.token, each, headers) for each in bodies]


def durable(path: Path, bodies: Sequence[bytes], group: int) -> Callable[[], float]:
    """Bodies parsed and written by bare sqlite3, so many with a commit: so many a second."""
    store = BareStore(path)

    def once() -> float:
        return store.rate(bodies, group)

    return once


def snapshots(folder: Path, bars: int, clients: int = 8, each: int = 160) -> Rate:
    """20 strategies each; every body is of strategies that had nothing yet."""
    rounds = REPEATS + 1
    with world(folder / "ours", 20 * each * rounds) as (server, _):
        first = BEGAN - timedelta(days=bars + 10)
        fed = count()

        def ours() -> float:
            start = next(fed) * each
            bodies = [
                body(names(20 * (start + n), 20), first, bars, start + n) for n in range(each)
            ]
            return wire.closed(server.url, posts(server, bodies), clients, wanted=201).per_sec

        bodies = [body(names(20 * n, 20), first, bars, n) for n in range(each)]
        limit = durable(folder / "bare.db", bodies, 1)
        return rates(f"snapshot 20 x {bars:,}, {clients} clients", limit, ours, ">= .7")


def bars(folder: Path, clients: int = 32, each: int = 1_000) -> Rate:
    """One new bar of 20 strategies; the limit writes 32 with a commit."""
    producers = 4 * clients  # The next bar of one comes long after its last was answered.
    with world(folder / "ours", 20 * producers) as (server, _):
        fed = count()

        def minute(bar: int) -> datetime:
            return BEGAN - timedelta(days=30) + timedelta(minutes=bar)

        def ours() -> float:
            start = next(fed)
            bodies = [
                body(names(20 * (n % producers), 20), minute(n // producers), 1, n)
                for n in range(start * each, (start + 1) * each)
            ]
            return wire.closed(server.url, posts(server, bodies), clients, wanted=201).per_sec

        bodies = [body(names(0, 20), BEGAN, 1, n) for n in range(each)]
        limit = durable(folder / "bare.db", bodies, clients)
        return rates(f"one bar x 20 strategies, {clients} clients", limit, ours, ">= .2")


def decides(folder: Path) -> Iterator[str]:
    """One strategy's decision of a world with 100, kept alive; the limit is the bare server."""
    with ExitStack() as opened:
        server, _ = opened.enter_context(world(folder / "ours", 100))
        asked = wire.request("GET", f"/worlds/{WORLD}/decide?strategy_id=s7", server.token)
        size = 600
        limit_url = opened.enter_context(bare(size))

        def load(url: str) -> float:
            return wire.closed(url, [asked] * 4_000, 8).per_sec

        found = rates(
            "decide, 8 clients", lambda: load(limit_url), lambda: load(server.url), ">= .7"
        )
        yield found.row()
        third = median(ours for _, ours in found.pairs) / 3
        name = f"decide, open loop at {third:,.0f}/s"
        yield waited(name, wire.opened(server.url, repeat(asked), third, SECONDS, 32), "1 ms")
        bare_one = wire.opened(limit_url, repeat(asked), third, SECONDS, 32)
        yield waited(f"  the limit, at {third:,.0f}/s", bare_one)
    with world(folder / "beside", 500) as (server, _):
        feed(server, 500)
        asked = wire.request("GET", f"/worlds/{WORLD}/decide?strategy_id=s7", server.token)
        busy = [each for run in range(int(SECONDS)) for each in evaluations(server, 500, run)]
        both = wire.beside(server.url, repeat(asked), 1_000, busy, 500, SECONDS, 32)
        yield waited("decide, 1,000/s beside 500 evaluates/s", both[0], "3 ms")
        yield waited("  the evaluates", both[1])


def waited(name: str, found: wire.Load, aim: str = "") -> str:
    """From the intended start."""
    told = ", ".join(f"p{at:g} {found.at(at):.2f} ms" for at in (50, 99, 99.9))
    aimed = f"  aim p99 <= {aim}" if aim else ""
    return f"{name:<44}{found.per_sec:>20,.0f}/s  {told}{aimed}"


def feed(server: Served, strategies: int) -> None:
    """252 returns of each, as paper."""
    first = BEGAN - timedelta(days=300)
    bodies = [body(names(n, 100), first, 252, n) for n in range(0, strategies, 100)]
    wire.closed(server.url, posts(server, bodies), 1, wanted=201)


def evaluations(server: Served, strategies: int, run: int) -> list[bytes]:
    """A new run of each: of what the hub holds already."""
    path, token = f"/worlds/{WORLD}/evaluate", server.token
    bodies = (
        {"strategy_id": name, "stage": "paper", "run_id": f"r{run}"}
        for name in names(0, strategies)
    )
    return [wire.request("POST", path, token, orjson.dumps(each)) for each in bodies]


def evaluates(folder: Path, clients: int = 8, each: int = 400) -> Rate:
    """Evaluations of what the hub holds, each a new run; the limit reduces and writes as much."""
    with world(folder / "ours", each) as (server, _):
        feed(server, each)
        returns = np.random.default_rng(1).normal(0.001, 0.01, 252)
        written = orjson.dumps({"metrics": dict.fromkeys(map(str, range(200)), 0.123456)})
        store = BareStore(folder / "bare.db")
        fed = count()

        def limit() -> float:
            return store.rate([written] * each, clients, lambda: reduction(returns))

        def ours() -> float:
            asked = evaluations(server, each, next(fed))
            return wire.closed(server.url, asked, clients).per_sec

        return rates(f"evaluate from the hub, {clients} clients", limit, ours, ">= .5")


def promotions(folder: Path, clients: int = 32, each: int = 128) -> Rate:
    """Approved, then applied through the whole gate; the limit writes two bodies, 32 a commit."""
    policy = campaigns.MANUAL.replace("max_live_slots: 100", f"max_live_slots: {each}")
    worlds = {f"{WORLD}{number}": each for number in range(REPEATS + 1)}
    with serving(folder / "ours") as (server, client):
        for named in worlds:
            campaigns.begin(client, named, each, policy)
        campaigns.month_of_paper(client, worlds)
        boss = client.create_token(actor="boss", roles=["approver", "operator"])["token"]
        waiting = iter(worlds)

        def ours() -> float:
            named = next(waiting)
            assert run_once(client, named).ok
            found = [
                {"strategy_id": each["strategy_id"], "run_id": each["run_id"]}
                for each in client.candidates(named)
            ]
            path = f"/worlds/{named}/promotions/live"
            approvals = [{**each, "reason": "bench"} for each in found]
            began = perf_counter()
            for verb, bodies in (("approve", approvals), ("apply", found)):
                asked = [
                    wire.request("POST", f"{path}/{verb}", boss, orjson.dumps(each))
                    for each in bodies
                ]
                wire.closed(server.url, asked, clients)
            return len(found) / (perf_counter() - began)

        written = orjson.dumps({"strategy_id": "s00", "reason": "x" * 500})
        limit = durable(folder / "bare.db", [written] * 2 * each, clients)
        return rates(
            f"approve and apply, {clients} clients", lambda: limit() / 2, ours, ">= 6,000/s"
        )


def kills(folder: Path, listeners: int = 1_000, times: int = 15) -> str:
    """From sending a kill to the last of so many event streams hearing of it."""
    with world(folder / "ours", 1) as (server, _):
        kill, resume = (
            wire.request("POST", f"/worlds/{WORLD}/{verb}", server.token, b'{"reason": "bench"}')
            for verb in ("kill", "resume")
        )
        streams = stream_of(server)
        told = wire.told_all(server.url, streams, listeners, kill, b"killed", resume, times)
    answered, last = ([each[i] for each in told] for i in (0, 1))
    return (
        f"{f'kill to the last of {listeners:,} streams':<44}{median(answered):>9.1f} ms"
        f"{median(last):>9.1f} ms  ({min(last):.1f} to {max(last):.1f})  aim p99 <= 25 ms; "
        "first the kill's own answer"
    )


def stream_of(server: Served) -> bytes:
    return wire.request("GET", f"/events/subscribe?world={WORLD}", server.token)


def rows() -> Iterator[str]:
    yield f"{'':<44}{'limit':>11}{'ours':>11}{'share':>7}"
    with TemporaryDirectory() as folder:
        yield from decides(Path(folder))
    for of in (
        lambda at: snapshots(at, 252),
        lambda at: snapshots(at, 2_520, each=24),
        bars,
        evaluates,
        promotions,
    ):
        with TemporaryDirectory() as folder:
            yield of(Path(folder)).row()
    with TemporaryDirectory() as folder:
        yield kills(Path(folder))


if __name__ == "__main__":
    for row in rows():
        print(row, flush=True)
