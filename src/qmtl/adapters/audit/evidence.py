"""What a strategy's returns had shown, worked out again from EVIDENCE.md and decision 0026.

Slowly and plainly: every return that counted is kept, and the e-value computed from all of them.
It shares no code with `core/evidence`: the standard library, and nothing else.
"""

import math
import statistics
import struct
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Told = Mapping[str, Any]
Point = tuple[datetime, float]
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BLOCKS_MIN: Final = 10
E_MAX: Final = 1e12
STANDARD: Final[Told] = {
    "method": "t_mixture",
    "hurdle_annual": 0.0,
    "block": 5,
    "design_sharpe_annual": 1.5,
    "backtest_credit_cap": 1.0,
}


@dataclass(slots=True)
class Proof:
    """The returns that counted under the terms in force, and what was carried from before."""

    since: datetime | None = None
    last: datetime | None = None
    begun: int = 0
    entry: int = 0
    carried: float = 1.0
    returns: list[float] = field(default_factory=list)
    selection_p: float | None = None

    def begin(self, at: datetime, entry: int) -> None:
        self.since, self.last, self.returns = at, None, []
        self.carried, self.entry, self.begun = 1.0, entry, self.begun + 1


def points(told: Told) -> Iterator[tuple[str, list[Point]]]:
    """The new returns of each strategy of a snapshot."""
    total = sum(told["counts"])
    t = struct.unpack(f"<{total}q", b64decode(told["t"]))
    r = struct.unpack(f"<{total}d", b64decode(told["r"]))
    start = 0
    for sid, count in zip(told["strategies"], told["counts"], strict=True):
        mine = range(start, start + count)
        yield sid, [(EPOCH + timedelta(microseconds=t[i]), r[i]) for i in mine]
        start += count


def hear(proof: Proof, new: list[Point], after: datetime, oldest: datetime) -> None:
    """New returns: those after what was told, in time; and losses, however late."""
    for t, r in new:
        if t > after and (proof.last is None or t > proof.last) and (t >= oldest or r < 0.0):
            proof.returns.append(r)
            proof.last = t


def terms(policy: Told) -> tuple[object, ...]:
    """What a test is fixed by; another is another test."""
    asked = (policy["evidence"] or {"paper": STANDARD})["paper"]
    a_year = policy["data"]["periods_per_year"]
    ends = policy["campaign"]["paper"]["max_window"]
    horizon = ends if asked["method"] == "group_sequential" else None
    names = ("method", "hurdle_annual", "block", "design_sharpe_annual")
    return (*(asked[name] for name in names), floor(policy), a_year, horizon)


def floor(policy: Told) -> float:
    """The loss of one bar that a breaker allows."""
    bounds = policy["gates"]["by_stage"].get("live", ())
    found = [b["max"] for b in bounds if b["metric"] == "max_bar_loss" and b["max"]]
    return max(1e-4, min(found, default=1.0))


def e_value(proof: Proof, policy: Told) -> float | None:
    """What had been shown; None for too little, and for `group_sequential`, which is not computed
    here."""
    asked = (policy["evidence"] or {"paper": STANDARD})["paper"]
    a_year = policy["data"]["periods_per_year"]
    excess = [r - asked["hurdle_annual"] / a_year for r in proof.returns]
    match asked["method"]:
        case "t_mixture":
            size = asked["block"]
            whole = len(excess) // size
            sums = [math.fsum(excess[i * size : (i + 1) * size]) for i in range(whole)]
            design = asked["design_sharpe_annual"] * math.sqrt(size / a_year)
            found = _t_mixture(sums, design)
        case "bounded":
            found = _bounded(excess, floor(policy)) if excess else None
        case _:
            return None
    return None if found is None else proof.carried * found


def against(proof: Proof, policy: Told) -> float | None:
    """What other terms inherit, if it speaks against the strategy: the same, but that the blocks of
    `group_sequential` speak as those of `t_mixture`, since its boundaries have nothing below 1."""
    asked = policy["evidence"]
    if asked is not None and asked["paper"]["method"] == "group_sequential":
        paper = {**asked["paper"], "method": "t_mixture"}
        policy = {**policy, "evidence": {**asked, "paper": paper}}
    return e_value(proof, policy)


def _t_mixture(sums: list[float], design: float) -> float | None:
    n = len(sums)
    if n < BLOCKS_MIN:
        return None
    mean, deviation = math.fsum(sums) / n, statistics.stdev(sums)
    if not deviation > 1e-12 * (abs(mean) + deviation):
        return None
    t, v, k = math.sqrt(n) * mean / deviation, n - 1, n * design**2
    inner = (1 + t**2 / v) / (1 + t**2 / (v * (1 + k)))
    log = (v + 1) / 2 * math.log(inner) - math.log(1 + k) / 2
    skill = math.erfc(-t * math.sqrt(k / (1 + k)) / math.sqrt(2))  # 2 Phi.
    return min(E_MAX, skill * math.exp(min(log, math.log(E_MAX))))


def _bounded(excess: list[float], most: float) -> float:
    if min(excess) < -most:
        return 0.0
    bets = [j / 10 / most for j in range(1, 10)]
    logs = [math.fsum(math.log1p(bet * r) for r in excess) for bet in bets]
    return min(E_MAX, sum(math.exp(min(log, math.log(E_MAX))) for log in logs) / len(logs))


def credit(proof: Proof, policy: Told) -> float:
    """What the backtest adds."""
    cap = policy["evidence"]["paper"]["backtest_credit_cap"]
    if cap <= 1.0 or proof.selection_p is None:
        return 1.0
    least = (min(cap, 3.0) * 2) ** -2
    return min(cap, 3.0) if proof.selection_p <= least else 0.5 / math.sqrt(proof.selection_p)


def threshold(
    proof: Proof, policy: Told, step: int, campaigns: int, others: list[float]
) -> float | None:
    """What a ramp step asks for; None for nothing.  `others`: the credited e-values of who is at
    the top already."""
    ramp, asked = policy["governance"]["ramp"], policy["evidence"]
    own: float | None = ramp[step]["e_value"]
    if step < len(ramp) - 1:
        return own
    alpha: float = asked["alpha"]
    match asked["multiplicity"]:
        case "per_strategy":
            least = 1.0 / alpha
        case "spending":
            least = (proof.entry + 49) * (proof.entry + 50) / (50 * alpha)
        case _:
            better = sorted(others, reverse=True)
            sizes = [campaigns / (k * alpha) for k in range(1, len(better) + 2)]
            least = min([sizes[0], *(s for s, e in zip(sizes[1:], better, strict=True) if e >= s)])
    return max(own or 0.0, least / credit(proof, policy))
