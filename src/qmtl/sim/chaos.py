"""Whatever anyone might do next, honest or not: commands from a seed.

A maker looks at a scene and answers with a command, which can then be run on any scene that stands
where that one does.  `play` runs a whole life of a world; the simulation test runs the same makers
under hypothesis, which finds the shortest life that goes wrong.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from random import Random

import numpy as np

from qmtl.core.activation import Change
from qmtl.core.errors import Refusal
from qmtl.core.names import ActorId, Phase, RunId, Stage, StrategyId, WorldState
from qmtl.core.snapshot import PostedSeries
from qmtl.core.times import instant

from . import cast, policies, returns
from .returns import Kind
from .scene import DAY, Scene, daily

Command = Callable[[Scene], object]
Maker = Callable[[Random, Scene], Command]

SIDS = tuple(StrategyId(name) for name in ("alpha", "beta", "gamma", "delta"))
CODES = ("f1", "f2", "f3")  # Fingerprints: what was submitted before, or changed.
ACTORS = (*cast.ROLES, ActorId("mallory"))
STATS = {"trades_total": 20.0}
CRASH = {"crash": 0.1}
RUNS = (None, None, RunId("mine"), RunId("again"))
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def someone(rng: Random, scene: Scene) -> StrategyId:
    """Mostly those whom something can happen to: who is live, and who is a candidate."""
    view = scene.view
    likely = [*sorted(view.live), *(c.strategy_id for c in view.open_candidates())]
    return rng.choice(likely if likely and rng.random() < 0.7 else anyone(scene))


def anyone(scene: Scene) -> Sequence[StrategyId]:
    """Who is there, later versions too, and who might be."""
    return sorted({*SIDS, *scene.view.strategies})


def mostly_good(rng: Random) -> Kind:
    return Kind.GOOD if rng.random() < 0.6 else rng.choice(list(Kind))


# ---- Strategies and their returns --------------------------------------------------------------


def bind(rng: Random, scene: Scene) -> Command:
    sid, actor = rng.choice(anyone(scene)), rng.choice(ACTORS)
    fingerprint = rng.choice([None, "f1", "f2"])
    return lambda s: s.bind(sid, actor, fingerprint)


def submit(rng: Random, scene: Scene) -> Command:
    """As it was or changed, under any name there is; mostly by its author."""
    sid, actor, stats = rng.choice(anyone(scene)), rng.choice(ACTORS), rng.choice([None, STATS])
    known = scene.view.strategies.get(sid)
    if known is not None and rng.random() < 0.7:
        actor = known.author
    r = returns.series(mostly_good(rng), rng.randint(1, 12), rng)
    fingerprint, parts = rng.choice(CODES), rng.choice([None, {"code": str(rng.randint(1, 2))}])
    return lambda s: s.submit(sid, r, actor, stats, fingerprint=fingerprint, parts=parts)


def bar_of_all(rng: Random, scene: Scene, stage: Stage, kind: Kind) -> Command:
    """One honest bar of every strategy, of which one is of some other kind."""
    odd = rng.choice(anyone(scene))
    bar = {
        sid: returns.bar(kind if sid == odd else Kind.GOOD, rng)
        for sid in sorted(scene.view.strategies)  # In one order in every process: a seed is a life.
    }
    if not bar:
        return lambda s: None
    stress, stats = dict.fromkeys(bar, CRASH), dict.fromkeys(bar, STATS)
    replay = {sid: r + rng.gauss(0.0, 1e-5) for sid, r in bar.items() if r > -1.0}
    return lambda s: s.bar(stage, bar, stress=stress, stats=stats, replay=replay)


def bar_at_any_time(rng: Random, scene: Scene) -> Command:
    """Late, on time, or of the future; and perhaps without its stress."""
    sid, stage = someone(rng, scene), rng.choice([Stage.PAPER, Stage.LIVE, *Stage])
    bar = {sid: returns.bar(rng.choice(list(Kind)), rng)}
    at = scene.now - rng.choice([0, 0, rng.randint(-3, 24 * 14)]) * HOUR
    held = scene.store.series(scene.world_id, sid, stage)
    if len(held.t) and rng.random() < 0.5:  # Somewhere since the last one, however long that is.
        last = instant(int(held.t[-1]))
        at = last + (scene.now - last) * rng.random()
    ttl_sec = rng.choice([0, 1, 900, 86_400])
    loss = rng.choice([None, 0.0, 0.2, 0.6, 1.5])
    stress = None if loss is None else {sid: {"crash": loss}}
    stats = rng.choice([None, {sid: STATS}])
    return lambda s: s.bar(stage, bar, at, ttl_sec=ttl_sec, stress=stress, stats=stats)


def history_again(rng: Random, scene: Scene) -> Command:
    """What is held, as it is, or not quite; or as a list that goes on."""
    sid, stage = someone(rng, scene), rng.choice(list(Stage))
    held = scene.store.series(scene.world_id, sid, stage)
    t, r = held.t.copy(), held.r.copy()
    change = rng.choice(["none", "last", "cut", "more", "list"])
    if change == "list":
        longer = np.append(r, [returns.bar(Kind.GOOD, rng) for _ in range(rng.randint(0, 3))])
        return lambda s: s.post(stage, {sid: PostedSeries(None, longer)})
    if change == "last" and len(t):
        r[-1] += 0.001
    elif change == "cut" and len(t) > 2:
        t, r = np.delete(t, 1), np.delete(r, 1)
    elif change == "more" and len(t):
        t, r = np.append(t, t[-1] + 1_000_000), np.append(r, 0.001)
    return lambda s: s.post(stage, {sid: PostedSeries(t, r)})


def restate(rng: Random, scene: Scene) -> Command:
    sid, stage = someone(rng, scene), rng.choice(list(Stage))
    series = daily(returns.series(mostly_good(rng), rng.randint(1, 12), rng), scene.now)
    return lambda s: s.restate(stage, sid, series)


# ---- Evaluations -------------------------------------------------------------------------------


def evaluate(rng: Random, scene: Scene) -> Command:
    sid, run_id, actor = someone(rng, scene), rng.choice(RUNS), rng.choice(ACTORS)
    stage = rng.choice([None, None, *Stage])
    told: Mapping[str, float] = rng.choice(
        [{}, {}, {}, {"sharpe_annual": 3.0, "trades_total": 99.0}, {"sharpe_annual": float("nan")}]
    )
    return lambda s: s.evaluate(sid, stage, run_id, told, actor)


def cohort(rng: Random, scene: Scene) -> Command:
    among = anyone(scene)
    some = rng.sample(among, rng.randint(0, len(among)))
    stage, run_id = rng.choice([None, Stage.PAPER, *Stage]), rng.choice(RUNS)
    return lambda s: s.cohort(some, stage, run_id)


def loop(rng: Random, scene: Scene) -> Command:
    return lambda s: s.loop()


# ---- People ------------------------------------------------------------------------------------


def decide_on_candidate(rng: Random, scene: Scene) -> Command:
    sid, actor = someone(rng, scene), rng.choice(ACTORS)
    if scene.view.open_candidate(sid) is None:
        return lambda s: None
    does: list[Command] = [
        lambda s: s.approve(sid, actor),
        lambda s: s.approve(sid, actor),
        lambda s: s.withdraw(sid, actor),
        lambda s: s.reject(sid),
    ]
    return rng.choice(does)


def release(rng: Random, scene: Scene) -> Command:
    sid = someone(rng, scene)
    return lambda s: s.release(sid)


def apply(rng: Random, scene: Scene) -> Command:
    """By any run there is, the candidate's or not; or by itself."""
    sid, stage = someone(rng, scene), rng.choice([Stage.PAPER, Stage.LIVE, *Stage])
    latest = scene.view.runs.get((sid, stage))
    run_id = latest.run_id if latest else RunId("none")
    does: list[Command] = [
        lambda s: s.apply(sid, run_id),
        lambda s: s.auto_apply(sid),
        lambda s: s.auto_apply(),
    ]
    return rng.choice(does)


def demote(rng: Random, scene: Scene) -> Command:
    sid, to = someone(rng, scene), rng.choice([Phase.PAPER, Phase.PAPER, *Phase])
    return lambda s: s.demote(sid, to)


def extend(rng: Random, scene: Scene) -> Command:
    sid, days = someone(rng, scene), rng.randint(0, 30)
    return lambda s: s.extend(sid, days * DAY)


def lower(rng: Random, scene: Scene) -> Command:
    sid = someone(rng, scene)
    change = Change(
        active=rng.choice([None, None, None, True, False]),
        weight=rng.choice([None, None, 0.0, 0.01, 0.1, 2.0, float("nan")]),
        freeze=rng.choice([None, True, False]),
        drain=rng.choice([None, True, False]),
    )
    return lambda s: s.lower(sid, change)


# ---- The world ---------------------------------------------------------------------------------


def close(rng: Random, scene: Scene) -> Command:
    actor = rng.choice(ACTORS)
    does: list[Command] = [
        lambda s: s.kill(actor),
        lambda s: s.allow_live(False, actor),
        lambda s: s.change_state(WorldState.SUSPENDED, actor),
        lambda s: s.change_state(WorldState.ARCHIVED, actor),
    ]
    return rng.choice(does)


def open_(rng: Random, scene: Scene) -> Command:
    actor = rng.choice(ACTORS)
    does: list[Command] = [
        lambda s: s.resume(actor),
        lambda s: s.allow_live(True, actor),
        lambda s: s.change_state(WorldState.ACTIVE, actor),
    ]
    return rng.choice(does)


def confirm(rng: Random, scene: Scene) -> Command:
    waiting = sorted(scene.view.confirmations)
    if not waiting:
        return lambda s: None
    key, actor = rng.choice(waiting), rng.choice(ACTORS)
    return lambda s: s.confirm(key, actor)


def add_policy(rng: Random, scene: Scene) -> Command:
    made, name = policies.policy(rng), f"policy {rng.random()}"
    return lambda s: s.add_policy(made, name)


def set_default(rng: Random, scene: Scene) -> Command:
    version = rng.randint(1, len(scene.view.policies) + 1)
    actor = rng.choice([cast.POLLY, cast.POLLY, cast.OTTO])
    return lambda s: s.set_default(version, actor)


def time_passes(rng: Random, scene: Scene) -> Command:
    span = rng.choice([rng.randint(1, 60), rng.randint(1, 6_000), rng.randint(1, 20_000)]) * MINUTE
    return lambda s: s.wait(span)


MAKERS: tuple[Maker, ...] = (
    *(bind, submit, submit, bar_at_any_time, history_again, restate, evaluate, cohort, loop),
    *(decide_on_candidate, decide_on_candidate, release, apply, demote, extend, lower, lower),
    *(close, open_, confirm, add_policy, set_default, time_passes),
)


# ---- Lives -------------------------------------------------------------------------------------

Run = Callable[[Command], object]


def birth(rng: Random, scene: Scene, run: Run) -> None:
    """A world with some policies, strategies with a good backtest, and most often live allowed."""
    run(lambda s: s.create())
    for _ in range(3):
        run(add_policy(rng, scene))
    if rng.random() < 0.8:
        run(lambda s: s.allow_live(True))
    for sid in SIDS[:3]:
        r = returns.series(Kind.GOOD, 12, rng)
        run(lambda s, sid=sid, r=r: s.submit(sid, r, stats=STATS))  # type: ignore[misc]  # A lambda of a loop binds its variable by a default.
    if rng.random() < 0.5:
        r = returns.series(Kind.GOOD, 12, rng)
        run(lambda s: s.submit(SIDS[0], r, stats=STATS, fingerprint="f2"))


def days(rng: Random, scene: Scene, run: Run, count: int, looped: bool) -> None:
    """Bars of everyone, in every stage that is watched, one a day."""
    kind = mostly_good(rng)
    for _ in range(count):
        run(lambda s: s.wait(DAY))
        for stage in (Stage.PAPER, Stage.LIVE):
            run(bar_of_all(rng, scene, stage, kind))
        if looped:
            run(lambda s: s.loop())


def honest_week(rng: Random, scene: Scene, run: Run) -> None:
    """Everyone does what they should, so that there is something to go wrong afterwards."""
    for _ in range(3):
        days(rng, scene, run, count=2, looped=True)
        approve_and_apply(scene, run)


def hand_over(rng: Random, scene: Scene, run: Run) -> None:
    """Somebody is taken out, and others want the capital before all clients have let go of it."""
    if not scene.view.live:
        return
    for stage in (Stage.PAPER, Stage.LIVE):
        run(bar_of_all(rng, scene, stage, Kind.GOOD))
    run(lambda s: s.loop())
    gone = rng.choice(sorted(scene.view.live))
    how: list[Command] = [
        lambda s: s.demote(gone),
        lambda s: s.lower(gone, Change(active=False)),
        lambda s: s.allow_live(False),
    ]
    run(rng.choice(how))
    reopen(scene, run)
    span = timedelta(seconds=rng.choice([0, 1, 100, 299, 300, 329, 330]))
    run(lambda s: s.wait(span))
    run(lambda s: s.loop())
    approve_and_apply(scene, run)


def approve_and_apply(scene: Scene, run: Run) -> None:
    """Whoever is a candidate, as far as people can see to it."""
    for candidate in scene.view.open_candidates():
        sid = candidate.strategy_id
        for actor in (cast.PIA, cast.PETE):
            run(lambda s, sid=sid, actor=actor: s.approve(sid, actor))  # type: ignore[misc]  # A lambda of a loop binds its variable by a default.
        run(lambda s, sid=sid: s.apply(sid))  # type: ignore[misc]  # A lambda of a loop binds its variable by a default.


def reopen(scene: Scene, run: Run) -> None:
    """All that has to be so for anything to go live, as far as people can see to it."""
    run(lambda s: s.change_state(WorldState.ACTIVE))
    run(lambda s: s.resume(cast.POLLY))
    run(lambda s: s.allow_live(True))
    for key in sorted(scene.view.confirmations):
        run(lambda s, key=key: s.confirm(key))  # type: ignore[misc]  # A lambda of a loop binds its variable by a default.


def refusable(scene: Scene) -> Run:
    """Runs commands on a scene; a refusal is an answer."""

    def run(command: Command) -> object:
        try:
            return command(scene)
        except Refusal as refusal:
            return refusal

    return run


def play(scene: Scene, seed: int, steps: int, run: Run) -> Iterator[int]:
    """A whole life from a seed, a step at a time: weeks that go well, and whatever else may happen
    between them.  `run` runs each command, on the scene and wherever else it likes."""
    rng = Random(seed)
    birth(rng, scene, run)
    honest_week(rng, scene, run)
    for step in range(steps):
        match rng.randint(0, 13):
            case 0:
                honest_week(rng, scene, run)
            case 1 | 2:
                days(rng, scene, run, rng.randint(1, 7), looped=rng.random() < 0.5)
            case 3:
                reopen(scene, run)
            case 4 | 5:
                hand_over(rng, scene, run)
            case _:
                run(rng.choice(MAKERS)(rng, scene))
        yield step
