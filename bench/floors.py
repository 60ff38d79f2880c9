"""Floors: what the same work costs with nothing around it."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import orjson

from qmtl.core.columns import Float

ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Figure:
    """Median milliseconds of a floor and of ours, measured in turn, and the ratio's spread."""

    name: str
    floor_ms: float
    ours_ms: float
    ratios: tuple[float, ...]
    aim: str

    def row(self) -> str:
        low, mid, high = min(self.ratios), median(self.ratios), max(self.ratios)
        return (
            f"{self.name:<44}{self.floor_ms:>10.3f}{self.ours_ms:>10.3f}"
            f"{mid:>8.2f}x  ({low:.2f} to {high:.2f})  aim {self.aim}"
        )


def paired(
    name: str,
    floor: Callable[[int], object],
    ours: Callable[[int], object],
    aim: str,
    rounds: int = ROUNDS,
) -> Figure:
    """Floor and ours in turn, so that both see the same noise. Round 0 warms up."""
    pairs = []
    for number in range(rounds + 1):
        one, other = (floor, ours) if number % 2 else (ours, floor)
        took = {}
        for work in (one, other):
            began = perf_counter()
            work(number)
            took[work] = (perf_counter() - began) * 1e3
        if number:
            pairs.append((took[floor], took[ours]))
    return Figure(
        name=name,
        floor_ms=median(f for f, _ in pairs),
        ours_ms=median(o for _, o in pairs),
        ratios=tuple(o / f for f, o in pairs),
        aim=aim,
    )


class BareStore:
    """One table in SQLite, durable: a body parsed and written with one commit."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        self._db.execute("create table bodies (id integer primary key, body blob)")

    def write(self, body: bytes) -> None:
        orjson.loads(body)
        self._db.execute("begin immediate")
        self._db.execute("insert into bodies (body) values (?)", (body,))
        self._db.execute("commit")

    def rate(
        self, bodies: Sequence[bytes], group: int, beside: Callable[[], object] | None = None
    ) -> float:
        """Bodies a second, with so many in a commit, and what else is done for each."""
        began = perf_counter()
        for start in range(0, len(bodies), group):
            self._db.execute("begin immediate")
            for body in bodies[start : start + group]:
                orjson.loads(body)
                if beside is not None:
                    beside()
                self._db.execute("insert into bodies (body) values (?)", (body,))
            self._db.execute("commit")
        return len(bodies) / (perf_counter() - began)

    def close(self) -> None:
        self._db.close()


def reduction(returns: Float) -> tuple[float, ...]:
    """What a run is judged by, in bare numpy: moments, drawdown and the tail."""
    centred = returns - returns.mean()
    deviation = centred.std(ddof=1)
    equity = np.cumprod(1.0 + returns)
    peak = np.maximum.accumulate(equity)
    return (
        float(returns.mean() / deviation),
        float((1.0 - equity / peak).max()),
        float((centred**3).mean()),
        float((centred**4).mean()),
        float(np.sort(returns)[len(returns) // 100]),
    )
