"""A policy on trial: strategies whose truth is known, through the real evaluation, tick and gate.

Every backtest is superb, as one that saw the future is: what a policy does with returns that follow
is what is looked at.  People approve at once, and a replay says what paper says, so that neither
holds anybody up.  Bars come on working days; the campaign loop takes its turns after each.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from math import sqrt
from statistics import NormalDist, median

import numpy as np

from qmtl.adapters import workers
from qmtl.adapters.memory import MemoryStore
from qmtl.core import facts as f
from qmtl.core.columns import Float
from qmtl.core.errors import Refusal
from qmtl.core.names import Phase, Stage, StrategyId
from qmtl.core.policy import AutoApply, Disabled, Policy
from qmtl.sim.returns import placebo
from qmtl.sim.returns.placebo import Null

from .scene import DAY, Scene

WORLDS, STRATEGIES, DAYS = 8, 22, 504
CLOSES = timedelta(hours=21)  # Of a working day.
LOOKS_AFTER = timedelta(minutes=5)
TURNS_MAX = 6  # Of the loop after a bar: propose, apply, and what follows.
BACKTEST_MORE = 30  # Days beyond what the policy asks for.
STRESS_LOSS = 0.1
DECAYS_ON = 200
NAIVE_FROM, NAIVE_SHARPE = 60, 1.0  # What a team without this does: look daily, and promote.
SEEDS_APART = 1_000_003  # So that worlds of two trials are not the same.
Z_95 = NormalDist().inv_cdf(0.975)


class Truth(StrEnum):
    """What a strategy is, in truth."""

    NORMAL = "no skill: normal"
    STUDENT = "no skill: Student t4"
    GARCH = "no skill: GARCH"
    AR = "no skill: AR(1) .1"
    REGIMES = "no skill: regimes"
    SHORT_VOLATILITY = "no skill: short volatility"
    CORRELATED = "no skill: one factor"
    SHARPE_1 = "Sharpe 1"
    SHARPE_2 = "Sharpe 2"
    SHARPE_3 = "Sharpe 3"
    DECAYING = "Sharpe 3, then -1"


NULLS = {
    Truth.NORMAL: Null.NORMAL,
    Truth.STUDENT: Null.STUDENT,
    Truth.GARCH: Null.GARCH,
    Truth.AR: Null.AR,
    Truth.REGIMES: Null.REGIMES,
    Truth.SHORT_VOLATILITY: Null.SHORT_VOLATILITY,
}
SKILL = {Truth.SHARPE_1: 1.0, Truth.SHARPE_2: 2.0, Truth.SHARPE_3: 3.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What became of one strategy: on which day of its returns, counted from 0."""

    truth: Truth
    live: int | None  # First went live.
    top: int | None  # First had its whole allocation.
    down: int | None  # Was first taken down, once live.
    share: float  # Of its allocation, on average over all days.
    naive: int | None  # When a Sharpe threshold, looked at every day, would have promoted it.


def returns_of(truth: Truth, days: int, paths: int, seed: int) -> Float:
    """Shape (days, paths)."""
    match truth:
        case Truth.DECAYING:
            return placebo.decaying(3.0, -1.0, DECAYS_ON, days, paths, seed)
        case Truth.CORRELATED:
            return placebo.families(0.5, max(1, paths), days, 1, seed)
        case Truth.SHARPE_1 | Truth.SHARPE_2 | Truth.SHARPE_3:
            return placebo.skilled(SKILL[truth], days, paths, seed)
        case _:
            return placebo.null(NULLS[truth], days, paths, seed)


def tried(
    policy: Policy,
    worlds: int = WORLDS,
    strategies: int = STRATEGIES,
    days: int = DAYS,
    seed: int = 0,
    place: workers.Place = workers.HERE,
    finished: Callable[[int], None] = workers.silent,
) -> list[Life]:
    """So many worlds of strategies; the same for the same seed, wherever each is computed.

    place     any executor, too; a piece of work is a world
    finished  is told the number of each world that is done

    Raises WorkersError as `workers.computed` does.
    """
    one = partial(lives, policy, strategies=strategies, days=days)
    seeds = [seed * SEEDS_APART + number for number in range(worlds)]
    found = workers.computed(one, seeds, place, finished=finished)
    return [life for world in found for life in world]


def lives(policy: Policy, seed: int, strategies: int = STRATEGIES, days: int = DAYS) -> list[Life]:
    """One world of strategies, as many of each truth as there is room for."""
    scene, ids, returns = _world(policy, seed, strategies, days)
    allocation = scene.view.policy.governance.allocation
    shares = np.zeros((days, len(ids)))
    firsts: dict[str, dict[StrategyId, int]] = {"live": {}, "top": {}, "down": {}}
    for day in range(days):
        _close(scene)
        seen = scene.view.seq
        _post(scene, ids, returns[day])
        turns(scene)
        for i, sid in enumerate(ids):
            held = scene.view.live.get(sid)
            shares[day, i] = 0.0 if held is None else held.weight / allocation
        for what, sid in _moves(scene, seen):
            firsts[what].setdefault(sid, day)
    truths = list(Truth)
    return [
        Life(
            truth=truths[i % len(truths)],
            live=firsts["live"].get(sid),
            top=firsts["top"].get(sid),
            down=firsts["down"].get(sid),
            share=float(shares[:, i].mean()),
            naive=_naive(returns[:, i]),
        )
        for i, sid in enumerate(ids)
    ]


def _world(
    policy: Policy, seed: int, strategies: int, days: int
) -> tuple[Scene, list[StrategyId], Float]:
    """Everybody has entered paper, or has not: as the policy's backtest gates have it."""
    live = policy.governance.live_promotion
    at_once = live if isinstance(live, Disabled) else AutoApply()
    policy = replace(policy, governance=replace(policy.governance, live_promotion=at_once))
    scene = Scene(MemoryStore())
    scene.create(allow_live=True)
    scene.add_policy(policy, "on trial")
    window = policy.campaign.backtest
    observations = max(window.span // DAY, window.min_observations) + BACKTEST_MORE
    backtests = placebo.leaky(observations, strategies, seed)
    # Where slots are few, names decide who is asked first: so no truth has the first ones.
    order = np.random.default_rng(seed).permutation(strategies)
    ids = [StrategyId(f"s{n:03}") for n in order]
    truths = list(Truth)
    returns = np.empty((days, strategies))
    for n, truth in enumerate(truths):
        mine = range(n, strategies, len(truths))
        # INVARIANT: no two truths share their noise, or the one would keep the other out.
        returns[:, mine] = returns_of(truth, days, len(mine), seed * len(truths) + n)
    for i, sid in enumerate(ids):
        stats = {"trades_total": 1_000.0}
        scene.submit(sid, backtests[:, i], stats=stats, fingerprint=f"f{i}", parts={"data": sid})
        stress = {sid: {"worst": STRESS_LOSS}}
        scene.bar(Stage.BACKTEST, {sid: 0.0}, at=scene.now, stress=stress, stats={sid: stats})
        scene.evaluate(sid)
    return scene, ids, returns


def _close(scene: Scene) -> None:
    """The close of the next working day."""
    day = scene.now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    while day.weekday() >= 5:
        day += DAY
    scene.now = day + CLOSES


def _post(scene: Scene, ids: list[StrategyId], r: Float) -> None:
    """The bar of a day: paper of everyone, and live of who is."""
    bar = {sid: float(r[i]) for i, sid in enumerate(ids)}
    live = {sid: bar[sid] for sid in sorted(scene.view.live)}
    for stage, returns in ((Stage.PAPER, bar), (Stage.LIVE, live)):
        if returns:
            stress = {sid: {"worst": STRESS_LOSS} for sid in returns}
            stats = {sid: {"trades_total": 1_000.0} for sid in returns}
            more = {"stress": stress, "stats": stats, "replay": returns, "ttl_sec": 86_400}
            scene.bar(stage, returns, at=scene.now, **more)
    scene.wait(LOOKS_AFTER)


def turns(scene: Scene) -> None:
    """The campaign loop, until nothing is left to do but by people."""
    for _ in range(TURNS_MAX):
        page = scene.tick()
        if not page.actions:
            return
        for action in page.actions:
            try:
                scene.execute(action)
            except Refusal:
                continue  # What it was about has changed meanwhile.


def _moves(scene: Scene, seen: int) -> Iterator[tuple[str, StrategyId]]:
    """What was promoted or taken down since an entry of the journal."""
    top = len(scene.view.policy.governance.ramp) - 1
    for entry in scene.store.journal(scene.world_id, seen, 100_000):
        match entry.fact:
            case f.PromotionApplied(strategy_id=sid, step=step):
                yield "live", sid
                if step == top:
                    yield "top", sid
            case f.Demoted(strategy_id=sid, to=Phase.PAPER):
                yield "down", sid
            case _:
                pass


def _naive(r: Float) -> int | None:
    """The day on which the Sharpe ratio so far, looked at daily, is first above the threshold."""
    n = np.arange(1, len(r) + 1)
    mean = np.cumsum(r) / n
    variance = np.maximum(np.cumsum(r * r) / n - mean**2, 1e-18)
    above = (mean / np.sqrt(variance) * sqrt(placebo.DAYS_PER_YEAR) >= NAIVE_SHARPE) & (
        n > NAIVE_FROM
    )
    return int(np.argmax(above)) if above.any() else None


def interval(count: int, of: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927)."""
    if not of:
        return (0.0, 1.0)
    share, z2 = count / of, Z_95**2
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z_95 / (1 + z2 / of) * sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    return (max(0.0, centre - half), min(1.0, centre + half))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of all strategies of one truth."""

    truth: Truth
    count: int
    live: int  # Were ever live,
    top: int  # and ever with their whole allocation.
    share: float  # Of an allocation, on average over days and strategies.
    days_to_live: float | None  # Median, of those that were.
    down: int  # Were taken down once they were live.
    days_down: float | None  # Median; of who decays from then on, of the others from live on.
    naive: int  # Would have been promoted by a Sharpe threshold that is looked at daily.


def table(found: Iterable[Life]) -> list[Row]:
    """A row a truth, in the order of `Truth`; truths that nobody had are left out."""
    by_truth: dict[Truth, list[Life]] = {truth: [] for truth in Truth}
    for life in found:
        by_truth[life.truth].append(life)
    return [_row(truth, mine) for truth, mine in by_truth.items() if mine]


def _row(truth: Truth, mine: list[Life]) -> Row:
    live = [life.live for life in mine if life.live is not None]
    down = [
        life.down - (DECAYS_ON if truth is Truth.DECAYING else life.live)
        for life in mine
        if life.live is not None and life.down is not None
    ]
    return Row(
        truth=truth,
        count=len(mine),
        live=len(live),
        top=sum(life.top is not None for life in mine),
        share=sum(life.share for life in mine) / len(mine),
        days_to_live=median(live) if live else None,
        down=len(down),
        days_down=median(down) if down else None,
        naive=sum(life.naive is not None for life in mine),
    )
