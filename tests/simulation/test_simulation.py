"""Any order of honest and dishonest commands, in any world, under one clock, keeps the invariants.

Under hypothesis every command runs on two stores that must answer alike: in memory, and on SQLite
or on a PostgreSQL that two processes serve by turns; lives from seeds run in memory only, and are
more.  What is written is held against a second reading of the journal (`oracle.py`).  Quick in the
ordinary run, and the same every time; QMTL_SIM_EXAMPLES says how many worlds to try instead, other
ones each time.
"""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from qmtl.adapters.audit.allowed import audit
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.core.campaign import ActionKind
from qmtl.core.names import Phase, RunId, Stage, StrategyId
from qmtl.core.view import WorldView
from qmtl.sim import chaos
from qmtl.sim.chaos import Maker
from qmtl.sim.scene import Scene
from tests.exports import exported, told_of
from tests.postgres import Server
from tests.simulation.watch import Watched

EXAMPLES = int(os.environ.get("QMTL_SIM_EXAMPLES", "0"))
QUICK, STEPS = 16, 40
SALTS_SHARED = 2
SALTS = 8  # Hypothesis likes to try a seed again; each of these makes other worlds of it.
LIVES, LIFE_STEPS = 16, 60
SHARED_MEMORY = Path("/dev/shm")  # Where it exists, a disk is not waited for.
ROUNDS_MAX = 6  # Of a loop that does what is recommended, until nothing is.

seeds = st.integers(0, 2**32 - 1)


def converge(watched: Watched) -> None:
    """Doing what is recommended leaves nothing to do; with no new evidence, it stays so."""
    for _ in range(ROUNDS_MAX):
        before = watched.view.seq
        page = watched.one.tick()
        for action in page.actions:
            watched.do(lambda s, action=action: s.execute(action))
        left = [a for a in page.actions if a.kind is not ActionKind.MANUAL_APPROVAL_REQUIRED]
        if not left:
            assert watched.view.seq == before
            return
    raise AssertionError(f"still to do: {left}")


def chances(watched: Watched) -> set[StrategyId]:
    """Who would go live if somebody applied it now."""
    view = watched.view
    if view.default_version is None:
        return set()
    return {sid for sid in view.strategies if watched.one.plan(sid).blocked is None}


def ask(watched: Watched, run_id: RunId | None) -> None:
    """Judge all there is: everyone, and those in paper together."""
    view = watched.view
    for sid in sorted(view.strategies):
        watched.do(lambda s, sid=sid: s.evaluate(sid, None, run_id))
    rivals = [s for s, of in view.strategies.items() if view.phase(of.row) is Phase.PAPER]
    watched.do(lambda s: s.cohort(sorted(rivals), Stage.PAPER, run_id))


def ask_again(watched: Watched, rng: Random, times: int) -> None:
    """I7: once all there is has been judged, judging it again makes nobody more likely."""
    ask(watched, None)
    before = chances(watched)
    for _ in range(times):
        maker = rng.choice([chaos.evaluate, chaos.cohort, chaos.cohort])
        watched.do(maker(rng, watched.one))
        assert chances(watched) <= before
    ask(watched, RunId("once more"))
    assert chances(watched) <= before


# ---- Under hypothesis --------------------------------------------------------------------------


def anyone(*makers: Maker) -> Callable[..., None]:
    """A rule: one of these, by a seed."""

    def does(self: "AnyWorld", seed: int) -> None:
        rng = self.rng(seed)
        self.watched.do(rng.choice(makers)(rng, self.watched.one))

    does.__name__ = does.__qualname__ = makers[0].__name__
    return rule(seed=seeds)(does)


class AnyWorld(RuleBasedStateMachine):
    """Two stores of the same world."""

    salt = 0

    def rng(self, seed: int) -> Random:
        return Random(f"{self.salt} {seed}")

    def open_store(self) -> None:
        where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self.folder = Path(mkdtemp(prefix="qmtl-sim-", dir=where))
        self.sql: SqlStore | Turns = SqlStore(self.folder / "data")

    def close_store(self) -> None:
        self.sql.close()
        rmtree(self.folder)

    def reopen_store(self) -> None:
        self.sql.close()
        self.sql = SqlStore(self.folder / "data")

    @initialize(seed=seeds, dual=st.booleans())
    def begin(self, seed: int, dual: bool) -> None:
        self.open_store()
        self.watched = Watched(Scene(MemoryStore()), Scene(self.sql))
        rng = self.rng(seed)
        chaos.birth(rng, self.watched.one, self.watched.do)
        for scene in self.watched.scenes:
            scene.dual_control = dual
        chaos.honest_week(rng, self.watched.one, self.watched.do)

    def teardown(self) -> None:
        if not hasattr(self, "sql"):
            return
        try:
            assert self.sql.audit(self.watched.one.world_id) == []
            assert self.sql.verify(self.watched.one.world_id) is None
        finally:
            self.close_store()

    binds = anyone(chaos.bind, chaos.submit, chaos.submit)
    posts = anyone(chaos.bar_at_any_time, chaos.history_again)
    restates = anyone(chaos.restate)
    evaluates = anyone(chaos.evaluate)
    judges_together = anyone(chaos.cohort)
    approves_or_rejects = anyone(chaos.decide_on_candidate)
    releases = anyone(chaos.release)
    applies = anyone(chaos.apply)
    takes_down = anyone(chaos.demote, chaos.lower, chaos.lower)
    extends = anyone(chaos.extend)
    closes = anyone(chaos.close)
    opens = anyone(chaos.open_, chaos.confirm)
    writes_policy = anyone(chaos.add_policy, chaos.set_default, chaos.set_default)
    waits = anyone(chaos.time_passes)

    @rule(seed=seeds, count=st.integers(1, 7), looped=st.booleans())
    def days_pass(self, seed: int, count: int, looped: bool) -> None:
        chaos.days(self.rng(seed), self.watched.one, self.watched.do, count, looped)

    @rule(seed=seeds)
    def an_honest_week(self, seed: int) -> None:
        chaos.honest_week(self.rng(seed), self.watched.one, self.watched.do)

    @rule(seed=seeds)
    def all_is_opened_and_a_day_goes_well(self, seed: int) -> None:
        chaos.reopen(self.watched.one, self.watched.do)
        chaos.days(self.rng(seed), self.watched.one, self.watched.do, count=1, looped=True)

    @rule(seed=seeds)
    def capital_is_handed_over(self, seed: int) -> None:
        chaos.hand_over(self.rng(seed), self.watched.one, self.watched.do)

    @rule(limit=st.integers(1, 3))
    def part_of_a_round(self, limit: int) -> None:
        for action in self.watched.one.tick(limit=limit).actions:
            self.watched.do(lambda s, action=action: s.execute(action))

    @rule(seed=seeds, times=st.integers(0, 6))
    def the_loop_converges_and_asking_again_never_helps(self, seed: int, times: int) -> None:
        converge(self.watched)
        ask_again(self.watched, self.rng(seed), times)

    @rule(seed=seeds)
    def restarts(self, seed: int) -> None:
        """I6, I7: a restart finds what was there.  Now and then, since it takes a while."""
        if seed % 3:
            return
        self.reopen_store()
        self.watched.scenes[1].store = self.sql

    @invariant()
    @precondition(lambda self: hasattr(self, "watched"))
    def what_always_holds(self) -> None:
        self.watched.look()


class Turns:
    """Two processes on one database: whatever is asked, either of them answers, by chance."""

    def __init__(self, url: str) -> None:
        self.url, self.rng = url, Random(url)
        self.stores = [SqlStore(url), SqlStore(url)]
        self.writing: SqlStore | None = None

    def write(self, job: Callable[[], Any]) -> Any:
        if self.writing is not None:
            return self.writing.write(job)
        self.writing = self.rng.choice(self.stores)
        try:
            return self.writing.write(job)
        finally:
            self.writing = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writing or self.rng.choice(self.stores), name)

    def restart(self) -> None:
        """One of them."""
        number = self.rng.randrange(2)
        self.stores[number].close()
        self.stores[number] = SqlStore(self.url)

    def close(self) -> None:
        for store in self.stores:
            store.close()


class AnySharedWorld(AnyWorld):
    """In memory, and on a database that two processes share."""

    database: Callable[[], str]

    def open_store(self) -> None:
        self.sql = Turns(type(self).database())

    def close_store(self) -> None:
        self.sql.close()

    def reopen_store(self) -> None:
        assert isinstance(self.sql, Turns)
        self.sql.restart()


@pytest.mark.parametrize("salt", range(SALTS))
def test_any_world(salt: int) -> None:
    tried(type("AnyWorld", (AnyWorld,), {"salt": salt}), (EXAMPLES or QUICK) // SALTS + 1)


@pytest.mark.parametrize("salt", range(SALTS_SHARED))
def test_any_world_that_two_processes_serve(
    salt: int, postgres: Server, template_database: str
) -> None:
    database = staticmethod(lambda: postgres.database(template_database))
    named = {"salt": -1 - salt, "database": database}
    tried(type("AnySharedWorld", (AnySharedWorld,), named), (EXAMPLES or QUICK) // SALTS + 1)


def tried(machine: type[AnyWorld], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            derandomize=not EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


# ---- Lives from seeds --------------------------------------------------------------------------


def life(seed: int) -> WorldView:
    """A life under watch, in memory; now and then the loop runs dry, and all is asked again."""
    watched = Watched(Scene(MemoryStore(), dual_control=seed % 2 == 0))
    rng = Random(f"watch {seed}")
    for step in chaos.play(watched.one, seed, LIFE_STEPS, watched.do):
        watched.look()
        if step % 10 == 9:
            converge(watched)
            ask_again(watched, rng, times=3)
            watched.look()
    told = told_of(watched.one.store, watched.one.world_id)
    found = audit(exported(told, watched.one.world_id))
    assert not [each for each in found if each.violations]
    assert len(found) >= sum(entry["kind"] == "promotion_applied" for entry in told)
    return watched.view


@pytest.mark.parametrize("seed", range(EXAMPLES or LIVES))
def test_a_life_keeps_the_invariants(seed: int) -> None:
    seed = seed if not EXAMPLES else Random().randrange(2**32)
    print(f"seed {seed}")  # Shown when it fails: `life(seed)` replays it.
    life(seed)


def test_a_life_from_a_seed_is_the_same_every_time() -> None:
    lives = [Scene(MemoryStore()) for _ in range(2)]
    for scene in lives:
        assert len(list(chaos.play(scene, 7, 30, chaos.refusable(scene)))) == 30
    journals = [scene.store.journal(scene.world_id, 0, 10_000) for scene in lives]
    assert len(journals[0]) > 60
    assert journals[0] == journals[1]
