"""A world for a follower to post to: it answers like a server, holds what it is told, and fails on
command.  And the prices and the strategy that it follows."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import parse_qs

import httpx
import numpy as np

from qmtl.adapters.client import Client
from qmtl.sdk.engine import Engine
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.strategy import Strategy, fingerprint, weights_of

URL = "http://world.test"
W = "us"
DAY = timedelta(days=1)
HISTORY = 40  # Bars of the backtest; those after it are followed.
START = np.datetime64("2024-01-01T21:00", "us")
ENTERED = datetime(2024, 2, 9, 22, tzinfo=UTC)  # An hour after the last bar of the history.


def walk(bars: int, seed: int = 7) -> Prices:
    """A random walk of two assets, a bar a day; a shorter one begins as a longer one does."""
    steps = np.random.default_rng(seed).normal(0.0005, 0.01, (400, 2))[:bars]
    times = START + np.arange(bars) * np.timedelta64(1, "D")
    return Prices(times, ("A", "B"), np.round(100 * np.exp(steps.cumsum(axis=0)), 4))


def at(bar: int) -> datetime:
    """The time of a bar, 0 being the first of the history."""
    return datetime(2024, 1, 1, 21, tzinfo=UTC) + bar * DAY


def stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


NOW = at(60)


@dataclass(frozen=True, slots=True)
class Trend:
    """Holds what rose over the last bars."""

    lookback: int = 5

    def weights(self, prices: FloatArray) -> FloatArray:
        held = np.zeros_like(prices)
        held[self.lookback :] = prices[self.lookback :] > prices[: -self.lookback]
        return held / 2


def earned(bars: int, strategy: Strategy | None = None) -> dict[str, float]:
    """What the engine says of each bar after the history, by its time."""
    prices = walk(bars)
    found = Engine().backtest(weights_of(strategy or Trend(), prices), prices)
    return {stamp(at(bar)): float(found.returns[bar - 1]) for bar in range(HISTORY, bars)}


def parts(strategy: Strategy | None = None, bars: int = HISTORY) -> dict[str, str]:
    return fingerprint(strategy or Trend(), walk(bars).digest(), Engine()).parts


def binding(**changes: Any) -> dict[str, Any]:
    """A strategy as the world lists it."""
    return {
        "strategy_id": "Trend",
        "family": "Trend",
        "version": 1,
        "bound_at": "2024-02-09T22:00:00Z",
        "parts": parts(),
        **changes,
    }


@dataclass
class World:
    """A server with one world.  `posted` are the bodies that came, in order, repeated ones too."""

    now: datetime = NOW
    mode: str = "paper"
    reasons: tuple[str, ...] = ("paper_campaign",)
    weight: float = 0.0
    phase: str = "paper_campaign"
    entered_at: datetime | None = ENTERED
    tested: bool = True
    strategies: list[dict[str, Any]] = field(default_factory=lambda: [binding()])
    replay: bool = False
    away: bool = False
    refusing: httpx.Response | None = None  # What returns are answered with.
    ticks: dict[str, Any] = field(default_factory=dict)
    ticked: int = 0
    posted: list[dict[str, Any]] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    held: dict[str, dict[str, float]] = field(default_factory=dict)  # By stage and time.
    before: Callable[[httpx.Request], None] = lambda request: None
    after: Callable[[httpx.Request], None] = lambda request: None

    def client(self) -> Client:
        transport = httpx.MockTransport(self.answer)
        return Client(URL, "t", transport=transport, sleep=lambda sec: None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.before(request)
        if self.away:
            raise httpx.ConnectError("connection refused")
        body = json.loads(request.content or b"{}")
        asked = parse_qs(request.url.query.decode())
        match (request.method, request.url.path):
            case ("GET", "/clock"):
                told: Any = {"now": stamp(self.now), "replay": self.replay}
            case ("POST", "/clock"):
                self.now = datetime.fromisoformat(body["now"])
                told = {"now": stamp(self.now), "replay": True}
            case ("POST", "/worlds/us/campaign/tick"):
                self.ticked += 1
                told = self.ticks
            case ("POST", "/strategies"):
                self.submitted.append(body)
                self.strategies = [binding()]
                told = {"strategy_id": body["strategy_id"]}
            case ("GET", "/worlds/us/strategies"):
                told = {"strategies": self.strategies, "next_cursor": None}
            case ("GET", "/worlds/us/campaign/status"):
                told = {"generated_at": stamp(self.now), "strategies": [self.status()]}
            case ("GET", "/worlds/us/decide"):
                told = self.decision(asked["strategy_id"][0])
            case ("POST", "/worlds/us/returns"):
                found = self.take(body)
                self.after(request)
                return found
            case other:
                raise AssertionError(f"nobody asks for {other}")
        return httpx.Response(200, json=told)

    def status(self) -> dict[str, Any]:
        ends = {s: max(self.held.get(s, {"": 0.0})) or None for s in ("paper", "live")}
        windows = {stage: {"ended_at": end} for stage, end in ends.items()}
        return {
            "phase": self.phase,
            "entered_at": None if self.entered_at is None else stamp(self.entered_at),
            "backtest": {"ended_at": stamp(at(HISTORY - 1)) if self.tested else None},
            **windows,
            "reasons": ["backtest_window_incomplete"],
            "details": ["backtest window: 40.0 of 365.0 days observed"],
        }

    def decision(self, strategy_id: str) -> dict[str, Any]:
        return {
            "world_id": W,
            "strategy_id": strategy_id,
            "policy_version": 1,
            "effective_mode": self.mode,
            "weight": self.weight,
            "ramp_fraction": 0.5 if self.mode == "live" else 0.0,
            "reasons": list(self.reasons),
            "generation": 5 + len(self.phase),
            "issued_at": stamp(self.now),
            "expires_at": stamp(self.now + timedelta(minutes=5)),
            "downgraded": False,
            "safe_mode": False,
        }

    def take(self, body: dict[str, Any]) -> httpx.Response:
        if self.refusing is not None:
            return self.refusing
        if datetime.fromisoformat(body["t"]) > self.now + timedelta(seconds=60):
            return httpx.Response(422, json={"title": "in the future"})
        self.posted.append(body)
        if not body["returns"]:
            return httpx.Response(201, json={"created_at": stamp(self.now)})
        (value,) = body["returns"].values()
        if self.held.setdefault(body["stage"], {}).setdefault(body["t"], value) != value:
            return httpx.Response(409, json={"title": "changed", "reasons": ["evidence_changed"]})
        return httpx.Response(201, json={"created_at": stamp(self.now)})

    def goes(self, mode: str, phase: str, *reasons: str, weight: float = 0.0) -> None:
        """The world decides."""
        self.mode, self.phase, self.weight = mode, phase, weight
        self.reasons = reasons or (phase,)


@dataclass(frozen=True, slots=True)
class Script:
    """A source that yields the prices in it, and runs what else is in it on the way."""

    items: tuple[Prices | Callable[[], object], ...]

    def updates(self, stop: Event, /) -> Iterator[Prices]:
        for item in self.items:
            if isinstance(item, Prices):
                yield item
            else:
                item()


def script(*items: Prices | int | Callable[[], object]) -> Script:
    """A number is that many bars."""
    return Script(tuple(walk(each) if isinstance(each, int) else each for each in items))


def csv_of(prices: Prices) -> str:
    rows = [
        f"{str(time)[:10]},{','.join(f'{value:.4f}' for value in row)}"
        for time, row in zip(prices.times, prices.values, strict=True)
    ]
    return "\n".join([f"Date,{','.join(prices.assets)}", *rows, ""])


def write(path: Path, prices: Prices) -> None:
    path.write_text(csv_of(prices))
