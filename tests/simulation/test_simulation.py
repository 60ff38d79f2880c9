"""Any order of honest and dishonest commands, in any world, under one clock, keeps the invariants.

Every command runs on two stores, in memory and on SQLite, that must answer alike.  Quick in the
ordinary run; QMTL_SIM_EXAMPLES says how many worlds to try instead.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.activation import Change
from qmtl.core.campaign import ActionKind
from qmtl.core.errors import Refusal
from qmtl.core.fold import fold
from qmtl.core.invariants import check
from qmtl.core.names import ActorId, Mode, Phase, RunId, Stage, StrategyId, WorldState
from qmtl.core.snapshot import PostedSeries
from qmtl.core.view import WorldView, same_view
from qmtl.sim import cast, policies, returns
from qmtl.sim.returns import Kind
from qmtl.sim.scene import DAY, Scene, daily
from tests.simulation.oracle import Past, read, unjustified

EXAMPLES = int(os.environ.get("QMTL_SIM_EXAMPLES", "0"))
QUICK, STEPS = 20, 40
SHARED_MEMORY = Path("/dev/shm")  # Where it exists, a disk is not waited for.

SIDS = [StrategyId(name) for name in ("alpha", "beta", "gamma", "delta")]
ACTORS = [*cast.ROLES, ActorId("mallory")]
MINUTE = timedelta(minutes=1)
ROUNDS_MAX = 6  # Of a loop that does what is recommended, until nothing is.

sids = st.sampled_from(SIDS)
actors = st.sampled_from(ACTORS)
stages = st.sampled_from(list(Stage))
kinds = st.sampled_from(list(Kind))
mostly_good = st.sampled_from([Kind.GOOD] * 5 + list(Kind))
run_ids = st.sampled_from([None, RunId("mine"), RunId("again")])
changes = st.builds(
    Change,
    active=st.sampled_from([None, None, True, False]),
    weight=st.sampled_from([None, 0.0, 0.01, 0.1, 2.0, float("nan")]),
    freeze=st.sampled_from([None, True, False]),
    drain=st.sampled_from([None, True, False]),
)

STATS = {"trades_total": 20.0}
Command = Callable[[Scene], object]


def carried(bar: Mapping[StrategyId, float]) -> dict[str, Any]:
    """What an honest snapshot carries beside returns."""
    return {"stress": {sid: {"crash": 0.1} for sid in bar}, "stats": dict.fromkeys(bar, STATS)}


@dataclass(frozen=True)
class Refused:
    """What a command came to when it was refused."""

    kind: type[Refusal]
    told: str
    reasons: tuple[str, ...]


def outcome(scene: Scene, command: Command) -> object:
    try:
        return command(scene)
    except Refusal as refusal:
        return Refused(type(refusal), str(refusal), refusal.reasons)


class AnyWorld(RuleBasedStateMachine):
    """Two stores of the same world, and what the journal tells of it."""

    @initialize(
        seed=st.integers(0, 2**20),
        dual=st.booleans(),
        live=st.sampled_from([True, True, True, False]),
    )
    def begin(self, seed: int, dual: bool, live: bool) -> None:
        where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self.folder = Path(mkdtemp(prefix="qmtl-sim-", dir=where))
        self.rng = Random(seed)
        self.scenes = [Scene(MemoryStore()), Scene(SqlStore(self.folder / "data"))]
        self.versions = 0
        self.past = Past()
        self.told = WorldView(world_id=self.one.world_id)
        self.do(lambda s: s.create())
        for _ in range(3):
            self.policy()
        if live:
            self.do(lambda s: s.allow_live(True))
        for scene in self.scenes:
            scene.dual_control = dual
        for sid in SIDS[:3]:
            r = returns.series(Kind.GOOD, 12, self.rng)
            self.do(lambda s, i=sid, r=r: s.submit(i, r, stats=STATS))
        self.an_honest_week(Kind.GOOD)

    def teardown(self) -> None:
        if not hasattr(self, "scenes"):
            return
        store = self.scenes[1].store
        assert isinstance(store, SqlStore)
        try:
            assert store.audit(self.one.world_id) == []
            assert store.verify(self.one.world_id) is None
        finally:
            store.close()
            rmtree(self.folder)

    # ---- One command, twice --------------------------------------------------------------------

    @property
    def one(self) -> Scene:
        return self.scenes[0]

    @property
    def view(self) -> WorldView:
        return self.one.view

    def do(self, command: Command) -> object:
        """Run it on both stores; they answer alike, and what it wrote was right to be written."""
        before = self.told.seq
        first, second = (outcome(scene, command) for scene in self.scenes)
        assert first == second
        told = [scene.store.journal(scene.world_id, before, 10_000) for scene in self.scenes]
        assert told[0] == told[1]
        if isinstance(first, Refused):
            assert told[0] == [], "a refusal changes nothing"
        live = dict(self.told.live)
        for entry in told[0]:
            if entry.fact.kind == "promotion_applied":
                assert unjustified(self.past, entry) == []
                live.pop(entry.fact.strategy_id, None)
            read(self.past, entry)
        self.told = fold(self.told, told[0])
        applied = {e.fact.strategy_id for e in told[0] if e.fact.kind == "promotion_applied"}
        assert set(self.told.live) <= set(live) | applied, "live by no promotion"
        for sid in set(self.told.live) - applied:
            assert self.told.live[sid].applied_weight == live[sid].applied_weight
            assert self.told.live[sid].step == live[sid].step
        return first

    def wait(self, span: timedelta) -> None:
        for scene in self.scenes:
            scene.wait(span)

    # ---- Strategies and their returns ----------------------------------------------------------

    @rule(sid=sids, actor=actors, fingerprint=st.sampled_from([None, "f1", "f2"]))
    def binds(self, sid: StrategyId, actor: ActorId, fingerprint: str | None) -> None:
        self.do(lambda s: s.bind(sid, actor, fingerprint))

    @rule(sid=sids, kind=mostly_good, count=st.integers(1, 12), actor=actors)
    def submitted(self, sid: StrategyId, kind: Kind, count: int, actor: ActorId) -> None:
        r = returns.series(kind, count, self.rng)
        stats = self.rng.choice([None, STATS])
        self.do(lambda s: s.submit(sid, r, actor, stats))

    @rule(kind=mostly_good, days=st.integers(1, 5), looped=st.booleans())
    def days_pass(self, kind: Kind, days: int, looped: bool) -> None:
        """Bars of everyone, of every stage that is watched; one strategy is of some other kind."""
        odd = self.rng.choice(SIDS)
        for _ in range(days):
            self.wait(DAY)
            for stage in (Stage.PAPER, Stage.LIVE):
                bar = {
                    sid: returns.bar(kind if sid == odd else Kind.GOOD, self.rng)
                    for sid in self.view.strategies
                }
                if bar:
                    self.do(lambda s, g=stage, b=bar: s.bar(g, b, **carried(b)))
            if looped:
                self.do(lambda s: s.loop())

    @rule(
        sid=sids,
        stage=stages,
        kind=kinds,
        back=st.integers(-120, 20_000),
        ttl_sec=st.sampled_from([0, 1, 900, 86_400]),
    )
    def a_bar_at_any_time(
        self, sid: StrategyId, stage: Stage, kind: Kind, back: int, ttl_sec: int
    ) -> None:
        """Late, on time, or of the future; and perhaps without its stress."""
        bar = {sid: returns.bar(kind, self.rng)}
        at = self.one.now - back * MINUTE
        stress = self.rng.choice([None, {sid: {"crash": self.rng.choice([0.0, 0.2, 0.6, 1.5])}}])
        stats = self.rng.choice([None, {sid: STATS}])
        self.do(lambda s: s.bar(stage, bar, at, ttl_sec=ttl_sec, stress=stress, stats=stats))

    @rule(sid=sids, stage=stages, change=st.sampled_from(["none", "last", "cut", "more"]))
    def posted_again(self, sid: StrategyId, stage: Stage, change: str) -> None:
        """What is held, as it is, or not quite."""
        held = self.one.store.series(self.one.world_id, sid, stage)
        t, r = held.t.copy(), held.r.copy()
        if not len(t):
            return
        if change == "last":
            r[-1] += 0.001
        elif change == "cut" and len(t) > 2:
            t, r = np.delete(t, 1), np.delete(r, 1)
        elif change == "more":
            t, r = np.append(t, t[-1] + 1_000_000), np.append(r, 0.001)
        self.do(lambda s: s.post(stage, {sid: PostedSeries(t, r)}))

    @rule(sid=sids, stage=stages, more=st.integers(0, 3), kind=mostly_good)
    def a_list(self, sid: StrategyId, stage: Stage, more: int, kind: Kind) -> None:
        held = self.one.store.series(self.one.world_id, sid, stage)
        r = np.append(held.r, [returns.bar(kind, self.rng) for _ in range(more)])
        self.do(lambda s: s.post(stage, {sid: PostedSeries(None, r)}))

    @rule(sid=sids, stage=stages, kind=mostly_good, count=st.integers(1, 12))
    def restated(self, sid: StrategyId, stage: Stage, kind: Kind, count: int) -> None:
        series = daily(returns.series(kind, count, self.rng), self.one.now)
        self.do(lambda s: s.restate(stage, sid, series))

    # ---- Evaluations and the loop --------------------------------------------------------------

    @rule(sid=sids, stage=st.none() | stages, run_id=run_ids, actor=actors)
    def evaluated(
        self, sid: StrategyId, stage: Stage | None, run_id: RunId | None, actor: ActorId
    ) -> None:
        self.do(lambda s: s.evaluate(sid, stage, run_id, actor=actor))

    @rule(sid=sids, sharpe=st.sampled_from([-1.0, 3.0, float("nan")]))
    def evaluated_on_hearsay(self, sid: StrategyId, sharpe: float) -> None:
        metrics = {"sharpe_annual": sharpe, "trades_total": 99.0, "max_drawdown": 0.0}
        self.do(lambda s: s.evaluate(sid, Stage.BACKTEST, metrics=metrics))

    @rule(some=st.lists(sids, max_size=4), stage=st.none() | stages, run_id=run_ids)
    def cohort(self, some: list[StrategyId], stage: Stage | None, run_id: RunId | None) -> None:
        self.do(lambda s: s.cohort(some, stage, run_id))

    @rule(limit=st.integers(1, 3))
    def part_of_a_round(self, limit: int) -> None:
        for action in self.one.tick(limit=limit).actions:
            self.do(lambda s, a=action: s.execute(a))  # type: ignore[misc]  # `a` is bound.

    @rule()
    def the_loop_converges(self) -> None:
        for _ in range(ROUNDS_MAX):
            before = self.view.seq
            page = self.one.tick()
            for action in page.actions:
                self.do(lambda s, a=action: s.execute(a))  # type: ignore[misc]  # `a` is bound.
            left = [a for a in page.actions if a.kind is not ActionKind.MANUAL_APPROVAL_REQUIRED]
            if not left:
                assert self.view.seq == before
                return
        raise AssertionError(f"still to do: {left}")

    # ---- People --------------------------------------------------------------------------------

    @rule(kind=mostly_good)
    def an_honest_week(self, kind: Kind) -> None:
        """Everyone does what they should, so that there is something to go wrong afterwards."""
        for _ in range(3):
            self.days_pass(kind=kind, days=2, looped=True)
            for sid in SIDS:
                for actor in (cast.PIA, cast.PETE):
                    if self.view.open_candidate(sid) is not None:
                        self.do(lambda s, i=sid, by=actor: s.approve(i, by))
                if self.view.open_candidate(sid) is not None:
                    self.do(lambda s, i=sid: s.apply(i))  # type: ignore[misc]  # `i` is bound.

    @rule(sid=sids, actor=actors)
    def approved(self, sid: StrategyId, actor: ActorId) -> None:
        if self.view.open_candidate(sid) is not None:
            self.do(lambda s: s.approve(sid, actor))

    @rule(sid=sids, actor=actors)
    def withdrawn(self, sid: StrategyId, actor: ActorId) -> None:
        if self.view.open_candidate(sid) is not None:
            self.do(lambda s: s.withdraw(sid, actor))

    @rule(sid=sids)
    def rejected(self, sid: StrategyId) -> None:
        if self.view.open_candidate(sid) is not None:
            self.do(lambda s: s.reject(sid))

    @rule(sid=sids)
    def released(self, sid: StrategyId) -> None:
        self.do(lambda s: s.release(sid))

    @rule(sid=sids, stage=stages)
    def applied(self, sid: StrategyId, stage: Stage) -> None:
        """By any run there is: the candidate's or not."""
        latest = self.view.runs.get((sid, stage))
        self.do(lambda s: s.apply(sid, latest.run_id if latest else RunId("none")))

    @rule(sid=st.none() | sids)
    def applied_by_itself(self, sid: StrategyId | None) -> None:
        self.do(lambda s: s.auto_apply(sid))

    @rule(sid=sids, to=st.sampled_from(list(Phase)))
    def demoted(self, sid: StrategyId, to: Phase) -> None:
        self.do(lambda s: s.demote(sid, to))

    @rule(sid=sids, days=st.integers(0, 30))
    def extended(self, sid: StrategyId, days: int) -> None:
        self.do(lambda s: s.extend(sid, days * DAY))

    @rule(sid=sids, change=changes)
    def lowered(self, sid: StrategyId, change: Change) -> None:
        self.do(lambda s: s.lower(sid, change))

    # ---- The world -----------------------------------------------------------------------------

    @rule()
    def killed(self) -> None:
        self.do(lambda s: s.kill())

    @rule(actor=actors)
    def resumed(self, actor: ActorId) -> None:
        self.do(lambda s: s.resume(actor))

    @rule(allowed=st.booleans(), actor=actors)
    def live_allowed(self, allowed: bool, actor: ActorId) -> None:
        self.do(lambda s: s.allow_live(allowed, actor))

    @rule(state=st.sampled_from([WorldState.ACTIVE] * 3 + list(WorldState)))
    def state_changed(self, state: WorldState) -> None:
        self.do(lambda s: s.change_state(state))

    @rule(actor=actors)
    def confirmed(self, actor: ActorId) -> None:
        for key in sorted(self.view.confirmations):
            self.do(lambda s, k=key: s.confirm(k, actor))  # type: ignore[misc]  # `k` is bound.

    @rule()
    def opened(self) -> None:
        """All that has to be so for anything to go live, as far as people can see to it."""
        self.do(lambda s: s.change_state(WorldState.ACTIVE))
        self.do(lambda s: s.resume())
        self.do(lambda s: s.allow_live(True))
        self.confirmed(actor=cast.PAUL)

    @rule()
    def policy(self) -> None:
        self.versions += 1
        made, name = policies.policy(self.rng), f"policy {self.versions}"
        self.do(lambda s: s.add_policy(made, name))

    @rule(version=st.integers(1, 4), actor=st.sampled_from([cast.POLLY, cast.POLLY, cast.OTTO]))
    def another_policy(self, version: int, actor: ActorId) -> None:
        self.do(lambda s: s.set_default(version, actor))

    @rule(minutes=st.integers(1, 6_000))
    def time_passes(self, minutes: int) -> None:
        self.wait(minutes * MINUTE)

    @rule()
    def restarted(self) -> None:
        """I6, I7: a restart finds what was there."""
        store = self.scenes[1].store
        store.close()
        self.scenes[1].store = SqlStore(self.folder / "data")

    # ---- More of the same never helps ----------------------------------------------------------

    def chances(self) -> set[StrategyId]:
        """Who would go live if somebody applied it now."""
        if self.view.default_version is None:
            return set()
        return {sid for sid in self.view.strategies if self.one.plan(sid).blocked is None}

    def ask(self, run_id: RunId | None) -> None:
        rivals = [
            sid
            for sid in self.view.strategies
            if self.view.phase(self.row(sid)) == "paper_campaign"
        ]
        for sid in sorted(self.view.strategies):
            self.do(lambda s, i=sid: s.evaluate(i, None, run_id))
        self.do(lambda s: s.cohort(rivals, Stage.PAPER, run_id))

    def row(self, sid: StrategyId) -> int:
        return self.view.strategies[sid].row

    @rule(again=st.lists(st.tuples(st.lists(sids, min_size=1, max_size=4), stages), max_size=3))
    def asking_again_never_helps(self, again: list[tuple[list[StrategyId], Stage]]) -> None:
        """I7: once all there is has been judged, judging it again makes nobody more likely."""
        self.ask(None)
        before = self.chances()
        for some, stage in again:
            self.do(lambda s, x=some, g=stage: s.cohort(x, g))
            for sid in some:
                self.do(lambda s, i=sid, g=stage: s.evaluate(i, g, RunId(f"{g}-anew")))
        self.ask(RunId("once more"))
        assert self.chances() <= before

    # ---- What always holds ---------------------------------------------------------------------

    @invariant()
    @precondition(lambda self: hasattr(self, "told"))
    def the_world_is_sound(self) -> None:
        assert check(self.view, self.one.now) == ()

    @invariant()
    @precondition(lambda self: hasattr(self, "told"))
    def the_journal_tells_the_whole_story(self) -> None:
        for scene in self.scenes:
            assert same_view(self.told, scene.view)

    @invariant()
    @precondition(lambda self: hasattr(self, "told"))
    def windows_are_what_the_series_say(self) -> None:
        view, (memory, sql) = self.view, (scene.store for scene in self.scenes)
        for sid, strategy in view.strategies.items():
            for stage in (Stage.PAPER, Stage.LIVE):
                held = memory.series(view.world_id, sid, stage)
                same = sql.series(view.world_id, sid, stage)
                assert held.t.tolist() == same.t.tolist()
                assert held.r.tolist() == same.r.tolist()
                assert held.accepted.tolist() == same.accepted.tolist()
                track = view.tracks[stage]
                assert track.points[strategy.row] == len(held.t)
                since = int(track.window_from[strategy.row])
                if since > 0:
                    assert track.window_points[strategy.row] == len(held.since(since))

    @invariant()
    @precondition(lambda self: hasattr(self, "told"))
    def a_tick_only_looks(self) -> None:
        view = self.view
        first, again, there = (scene.tick() for scene in (self.one, self.one, self.scenes[1]))
        assert first == again == there
        assert self.view is view

    @invariant()
    @precondition(lambda self: hasattr(self, "told"))
    def live_is_decided_for_who_is_live(self) -> None:
        view = self.view
        for sid in view.strategies:
            told = [scene.decide(sid) for scene in self.scenes]
            assert told[0] == told[1]
            if told[0].effective_mode is Mode.LIVE:
                assert sid in view.live
                assert view.allow_live
                assert not view.killed
                assert view.state is WorldState.ACTIVE
                assert 0.0 <= told[0].weight <= view.live[sid].applied_weight
            else:
                assert told[0].weight == 0.0


TestAnyWorld: Any = AnyWorld.TestCase
TestAnyWorld.settings = settings(
    max_examples=EXAMPLES or QUICK,
    stateful_step_count=STEPS,
    derandomize=not EXAMPLES,  # The ordinary run is the same every time; a long one explores.
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
