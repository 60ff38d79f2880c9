"""Every mutating use case, from the scene it takes to the requests that its caller sends.

A step is one request; the caller waits for its answer before the next. Steps name their effect, so
that a step which got no answer is sent again as it is, which is what a client does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Event, Thread
from typing import Any

from fastapi import Response

from qmtl.adapters.policies import checksum
from qmtl.adapters.sql.store import SqlStore
from qmtl.app import tokens
from qmtl.app.ports import Store
from qmtl.core.activation import Change
from qmtl.core.names import ActorId, Role, RunId, Stage, WorldId
from qmtl.entry import identity, wiring
from qmtl.entry.door import Call, once
from qmtl.entry.services import Services
from qmtl.sim import cast
from qmtl.sim.scene import START, Scene, daily
from tests import worlds
from tests.adapters.test_store_migrations import MADE
from tests.worlds import ALPHA, AUTO, BETA, GAMMA, LONELY, POLICY, STRESS, good, good_bar, governed

from .dbapi import LOG_PAGES

Step = Callable[[Scene], object]
Build = Callable[[Store], Scene]


@dataclass(frozen=True, slots=True)
class Case:
    """`build` None: there is no such scene, but a database of before, or nothing at all."""

    name: str
    build: Build | None
    steps: tuple[Step, ...]
    view_checkpoints: bool = False  # Each commit writes the view, too.
    log_pages: int = LOG_PAGES  # So many in the log, and it is copied into the database.
    migrated: bool = False  # The tables come from the migrations.
    script: str | None = None  # Makes the database of before.
    shared: bool = False  # Its one step is several callers'; when some are refused, some are not.


@dataclass(frozen=True, slots=True)
class StoppedClock:
    instant: datetime

    def now(self) -> datetime:
        return self.instant


# ---- Steps that are more than a method of the scene ----------------------------------------------


def services_of(scene: Scene) -> Services:
    return Services(store=scene.store, clock=StoppedClock(scene.now))


def first_start(scene: Scene) -> object:
    return wiring.first_start(services_of(scene), wiring.Settings(memory=True))


def keyed(key: str, act: Step, route: str = "POST /worlds/{world_id}/kill") -> Step:
    """A write with an Idempotency-Key, as the door does it: its status and its body."""

    def handler(*, call: Call, scene: Scene) -> Response:
        return call.answer({"answer": str(act(scene))})

    def step(scene: Scene) -> object:
        services = services_of(scene)
        grants = (identity.Grant(None, frozenset(Role)),)
        call = Call(
            services=services,
            credential=identity.Credential(actor=cast.OTTO, key="otto's", grants=grants),
            by_token=services.as_admin(),
            route=route,
            reads=False,
            headers={},
            authorization=None,
            raw=b"",
            idempotency_key=key,
            request_digest=identity.digest(key),
        )
        response = once(handler)(call=call, scene=scene)
        return response.status_code, bytes(response.body)

    return step


def create_token(secret: str) -> Step:
    def step(scene: Scene) -> object:
        by = services_of(scene).as_admin()
        digest, roles = identity.digest(secret), (Role.OPERATOR,)
        return tokens.create(scene.store, by, digest, ActorId("otto"), roles, None, None)

    return step


def revoke_token(secret: str) -> Step:
    return lambda s: tokens.revoke(s.store, services_of(s).as_admin(), identity.digest(secret))


def bar(stage: Stage, r: float | None = None, **more: Any) -> Step:
    """The bar of the scene's day: a good one, unless told otherwise."""

    def step(scene: Scene) -> object:
        returns = {ALPHA: good_bar(scene) if r is None else r}
        return scene.bar(stage, returns, stress=STRESS, **more)

    return step


def at_once(*acts: Step) -> Step:
    """Several callers whose jobs wait together, and share one write of the disk."""

    def step(scene: Scene) -> object:
        answers: list[object] = [None] * len(acts)
        store = scene.store
        assert isinstance(store, SqlStore)
        held, release = Event(), Event()

        def hold() -> None:
            held.set()
            release.wait()

        def ask(number: int) -> None:
            answers[number] = outcome(acts[number], scene)

        holder = Thread(target=lambda: outcome(lambda _: store.write(hold), scene))
        holder.start()
        held.wait()
        callers = [Thread(target=ask, args=(number,)) for number in range(len(acts))]
        for number, caller in enumerate(callers):
            caller.start()
            while store._writer._queue.qsize() <= number:
                pass
        release.set()
        for thread in (holder, *callers):
            thread.join()
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return tuple(answers)

    return step


def outcome(act: Step, scene: Scene) -> object:
    try:
        return act(scene)
    except Exception as error:
        return error


def killed(store: Store) -> Scene:
    scene = worlds.live(store)
    scene.kill()
    return scene


def rejected(store: Store) -> Scene:
    scene = worlds.proposed(store)
    scene.reject(ALPHA)
    return scene


def rivals(store: Store) -> Scene:
    """Three strategies with full paper windows, and places for two."""
    scene = worlds.in_paper(store, POLICY, ALPHA, BETA, GAMMA)
    worlds.observe(scene, Stage.PAPER, worlds.PAPER_DAYS, ALPHA, BETA, GAMMA)
    return scene


def lonely(store: Store) -> Scene:
    return worlds.observed(store, LONELY)


def automatic(store: Store) -> Scene:
    return worlds.approved(store, AUTO)


def backtested(store: Store) -> Scene:
    """Alpha's backtest is stored, and nobody has judged it yet."""
    scene = worlds.opened(store)
    scene.bind(ALPHA)
    scene.post(Stage.BACKTEST, {ALPHA: daily(good(30), scene.now)}, stats={ALPHA: TRADES})
    return scene


def with_token(store: Store) -> Scene:
    """An empty world, and somebody's credential."""
    scene = Scene(store)
    scene.create()
    create_token("the first")(scene)
    return scene


TRADES = {"trades_total": 50.0}
STRICTER = governed(max_live_slots=1)
FALLS = -0.5  # Breaks every breaker.
OTHER = WorldId("other")


def judged(scene: Scene, stage: Stage) -> RunId:
    """Alpha's latest run of a stage: its candidate's, whatever became of that."""
    return scene.view.runs[(ALPHA, stage)].run_id


def submit(scene: Scene) -> object:
    return scene.submit(BETA, good(40), actor=cast.BOB, stats=TRADES, fingerprint="f2")


def restate(scene: Scene) -> object:
    return scene.restate(Stage.PAPER, ALPHA, daily(good(11), scene.now))


CASES = (
    Case("first start", None, (first_start,)),
    Case("first start, through the migrations", None, (first_start,), migrated=True),
    Case("start on a database of before", None, (lambda s: s.kill(),), script=MADE),
    Case("create a world", worlds.opened, (lambda s: Scene(s.store, s.now, OTHER).create(),)),
    Case(
        "add and set a policy",
        worlds.proposed,
        (lambda s: s.add_policy(STRICTER, checksum(STRICTER)), lambda s: s.set_default(2)),
    ),
    Case(
        "allow and forbid live",
        worlds.live,
        (lambda s: s.allow_live(False), lambda s: s.allow_live(True)),
    ),
    Case("bind", worlds.in_paper, (lambda s: s.bind(BETA, fingerprint="f2"),)),
    Case("submit", worlds.in_paper, (submit,)),
    Case("post a bar", worlds.in_paper, (bar(Stage.PAPER, at=START),)),
    Case("post a bar that demotes", worlds.live, (bar(Stage.LIVE, FALLS),)),
    Case("restate", worlds.approved, (restate,)),
    Case("evaluate into paper", backtested, (lambda s: s.evaluate(ALPHA, Stage.BACKTEST),)),
    Case("evaluate and propose", lonely, (lambda s: s.evaluate(ALPHA),)),
    Case("evaluate a cohort", rivals, (lambda s: s.cohort([ALPHA, BETA, GAMMA]),)),
    Case(
        "approve, twice",
        worlds.proposed,
        (lambda s: s.approve(ALPHA, cast.PIA), lambda s: s.approve(ALPHA, cast.PETE)),
    ),
    Case("withdraw", worlds.approved, (lambda s: s.withdraw(ALPHA, cast.PIA),)),
    Case("reject", worlds.approved, (lambda s: s.reject(ALPHA),)),
    Case("release", rejected, (lambda s: s.release(ALPHA),)),
    Case("apply", worlds.approved, (lambda s: s.apply(ALPHA, judged(s, Stage.PAPER)),)),
    Case("apply a step up", worlds.climbed, (lambda s: s.apply(ALPHA, judged(s, Stage.LIVE)),)),
    Case("auto-apply", automatic, (lambda s: s.auto_apply(),)),
    Case("demote", worlds.live, (lambda s: s.demote(ALPHA),)),
    Case("kill", worlds.live, (lambda s: s.kill(),)),
    Case("resume", killed, (lambda s: s.resume(),)),
    Case("freeze", worlds.live, (lambda s: s.lower(ALPHA, Change(freeze=True)),)),
    Case("lower a weight", worlds.live, (lambda s: s.lower(ALPHA, Change(weight=0.05)),)),
    Case(
        "make and revoke a token",
        with_token,
        (keyed("k", create_token("another")), revoke_token("another")),
    ),
    Case("write with a key", worlds.live, (keyed("k", lambda s: s.kill()),)),
    Case("write a view", worlds.live, (bar(Stage.LIVE),), view_checkpoints=True),
    Case(
        "three share a write",
        worlds.live,
        (at_once(lambda s: s.bind(BETA, fingerprint="f2"), bar(Stage.LIVE), lambda s: s.kill()),),
        shared=True,
    ),
    Case(
        "the log is copied, and begun anew",
        worlds.live,
        (bar(Stage.LIVE), lambda s: s.lower(ALPHA, Change(weight=0.05)), lambda s: s.kill()),
        log_pages=4,
    ),
)
