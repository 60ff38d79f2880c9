"""A policy on trial: strategies whose truth is known, through the real evaluation, tick and gate.

Every backtest is superb, as one that saw the future is: what a policy does with returns that follow
is what is looked at.  But the best of many is what it says: the best backtest of TRIALS without
skill, all of them declared.  People approve at once, and a replay says what paper says, so that
neither holds anybody up.  Bars come on working days; the campaign loop takes its turns after each.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from math import ceil, sqrt
from statistics import median

import numpy as np

from qmtl.adapters import workers
from qmtl.adapters.memory import MemoryStore
from qmtl.core import facts as f
from qmtl.core.columns import Float
from qmtl.core.errors import Refusal
from qmtl.core.evidence.eprocess import BLOCKS_MIN
from qmtl.core.implications import impossible
from qmtl.core.names import Phase, Stage, StrategyId
from qmtl.core.policy import AutoApply, Disabled, Policy
from qmtl.core.proof import terms
from qmtl.sim.returns import placebo
from qmtl.sim.returns.placebo import Null

from . import spread
from .scene import DAY, Scene
from .spread import Interval

WORLDS, STRATEGIES, DAYS = 8, 24, 504
CLOSES = timedelta(hours=21)  # Of a working day.
LOOKS_AFTER = timedelta(minutes=5)
TURNS_MAX = 6  # Of the loop after a bar: propose, apply, and what follows.
BACKTEST_MORE = 30  # Days beyond what the policy asks for.
STRESS_LOSS = 0.1
DECAYS_ON = 200
TRIALS = 100
WORKING_DAYS = 5 / 7  # Of all.
NAIVE_FROM, NAIVE_SHARPE = 60, 1.0  # What a team without this does: look daily, and promote.


class Truth(StrEnum):
    """What a strategy is, in truth."""

    NORMAL = "no skill: normal"
    STUDENT = "no skill: Student t4"
    GARCH = "no skill: GARCH"
    AR = "no skill: AR(1) .1"
    REGIMES = "no skill: regimes"
    SHORT_VOLATILITY = "no skill: short volatility"
    CORRELATED = "no skill: one factor"
    BEST_OF_MANY = f"no skill: best of {TRIALS}"
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
    world: int  # By its seed: lives of one world have to do with each other.
    live: int | None  # First went live.
    top: int | None  # First had its whole allocation.
    down: int | None  # Was first taken down, once live; who decays, from then on.
    share: float  # Of its allocation, on average over all days.
    naive: int | None  # When a Sharpe threshold, looked at every day, would have promoted it.


def closed(policy: Policy, days: int = DAYS) -> tuple[str, ...]:
    """Why nobody can be live within so many days; nothing where somebody can."""
    never = tuple(f"{row.path}: {row.says}" for row in impossible(policy))
    paper, asked = policy.campaign.paper, terms(policy)
    blocks = policy.governance.ramp[0].e_value is not None and asked.method != "bounded"
    points = max(paper.min_observations, BLOCKS_MIN * asked.block if blocks else 0)
    least = max(points, ceil(paper.span / DAY * WORKING_DAYS))
    if days < least:
        never += (f"{days} days: paper takes {least} of them, and nobody is live before.",)
    return never


def returns_of(truth: Truth, days: int, paths: int, seed: int) -> Float:
    """Shape (days, paths)."""
    match truth:
        case Truth.DECAYING:
            return placebo.decaying(3.0, -1.0, DECAYS_ON, days, paths, seed)
        case Truth.CORRELATED:
            return placebo.families(0.5, max(1, paths), days, 1, seed)
        case Truth.SHARPE_1 | Truth.SHARPE_2 | Truth.SHARPE_3:
            return placebo.skilled(SKILL[truth], days, paths, seed)
        case Truth.BEST_OF_MANY:
            return placebo.null(Null.NORMAL, days, paths, seed)
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
    found = workers.computed(one, seeds(seed, worlds), place, finished=finished)
    return [life for world in found for life in world]


def truth_of(number: int) -> Truth:
    """Of a world's strategies, as many of each as there is room for."""
    return list(Truth)[number % len(Truth)]


def lives(policy: Policy, seed: int, strategies: int = STRATEGIES, days: int = DAYS) -> list[Life]:
    """One world of strategies, as many of each truth as there is room for."""
    scene, ids, returns = _world(policy, seed, strategies, days)
    allocation = scene.view.policy.governance.allocation
    shares = np.zeros((days, len(ids)))
    firsts: dict[str, dict[StrategyId, int]] = {"live": {}, "top": {}, "down": {}}
    truths = [truth_of(i) for i in range(len(ids))]
    decaying = {sid for sid, truth in zip(ids, truths, strict=True) if truth is Truth.DECAYING}
    for day in range(days):
        _close(scene)
        seen = scene.view.seq
        _post(scene, ids, returns[day])
        turns(scene)
        for i, sid in enumerate(ids):
            held = scene.view.live.get(sid)
            shares[day, i] = 0.0 if held is None else held.weight / allocation
        for what, sid in _moves(scene, seen):
            if what != "down" or day >= DECAYS_ON or sid not in decaying:
                firsts[what].setdefault(sid, day)
    return [
        Life(
            truth=truths[i],
            world=seed,
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
    *each, of_leaks, of_many = seeds(seed, len(Truth) + 2)
    leaks = placebo.leaky(observations, strategies, of_leaks)
    chosen = placebo.best_of(TRIALS, observations, -(-strategies // len(Truth)), of_many)
    # Where slots are few, names decide who is asked first: so no truth has the first ones.
    order = np.random.default_rng(seed).permutation(strategies)
    ids = [StrategyId(f"s{n:03}") for n in order]
    returns = np.empty((days, strategies))
    for n, truth in enumerate(Truth):
        mine = range(n, strategies, len(Truth))
        # INVARIANT: no two truths share their noise, or the one would keep the other out.
        returns[:, mine] = returns_of(truth, days, len(mine), each[n])
    for i, sid in enumerate(ids):
        stats, many = {"trades_total": 1_000.0}, truth_of(i) is Truth.BEST_OF_MANY
        scene.submit(
            sid,
            chosen[:, i // len(Truth)] if many else leaks[:, i],
            stats=stats,
            fingerprint=f"f{i}",
            parts={"data": sid},
            variants_tried=TRIALS if many else None,
        )
        stress = {sid: {"worst": STRESS_LOSS}}
        scene.bar(Stage.BACKTEST, {sid: 0.0}, at=scene.now, stress=stress, stats={sid: stats})
        scene.evaluate(sid)
    return scene, ids, returns


def seeds(seed: int, count: int) -> list[int]:
    """Seeds that are nobody else's: of no other seed, that is, however close it is."""
    return [int(each) for each in np.random.SeedSequence(seed).generate_state(count, np.uint64)]


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


# ---- What became of them all -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of all strategies of one truth; `_95`: see `spread`, None where it cannot say."""

    truth: Truth
    count: int
    live: int  # Were ever live,
    live_95: Interval  # as a share,
    top: int  # and ever with their whole allocation.
    share: float  # Of an allocation, on average over days and strategies.
    share_95: Interval | None
    days_to_live: float | None  # Median, of those that were.
    days_to_live_95: Interval | None
    down: int  # Were taken down once they were live; who decays, after that.
    days_down: float | None  # Median; of who decays from then on, of the others from live on.
    days_down_95: Interval | None
    naive: int  # Would have been promoted by a Sharpe threshold that is looked at daily.


def table(found: Iterable[Life]) -> list[Row]:
    """A row a truth, in the order of `Truth`; truths that nobody had are left out."""
    by_truth: dict[Truth, list[Life]] = {truth: [] for truth in Truth}
    for life in found:
        by_truth[life.truth].append(life)
    return [_row(truth, mine) for truth, mine in by_truth.items() if mine]


def _row(truth: Truth, mine: list[Life]) -> Row:
    worlds = [life.world for life in mine]
    live, shares = [life.live for life in mine], [life.share for life in mine]
    delays = [_delay(life) for life in mine]
    return Row(
        truth=truth,
        count=len(mine),
        live=sum(day is not None for day in live),
        live_95=spread.of_share([day is not None for day in live], worlds),
        top=sum(life.top is not None for life in mine),
        share=sum(shares) / len(mine),
        share_95=spread.of_mean(shares, worlds),
        days_to_live=_median(live),
        days_to_live_95=spread.of_median(live, worlds),
        down=sum(days is not None for days in delays),
        days_down=_median(delays),
        days_down_95=spread.of_median(delays, worlds),
        naive=sum(life.naive is not None for life in mine),
    )


def _delay(life: Life) -> int | None:
    """Days until it was taken down, from when it should have been: None when it was not."""
    if life.live is None or life.down is None:
        return None
    since = max(life.live, DECAYS_ON) if life.truth is Truth.DECAYING else life.live
    return life.down - since


def _median(days: Iterable[int | None]) -> float | None:
    known = [day for day in days if day is not None]
    return median(known) if known else None
