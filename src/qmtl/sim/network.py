"""A world, and everyone who acts on it, on a simulated clock and a network that fails; from a seed.

One thread, one heap of events.  Everybody (`actors.py`) sends messages to the world service.  One
may be lost, late or there twice, and its answer lost; the way to the world is cut now and then; the
service dies before or after a commit, and starts again.  Whoever has no answer asks again, in the
same words.  After every event a `Witness` looks.  The same seed is the same story, to the byte.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, cast

from qmtl.app.ports import Commit, Store
from qmtl.core.errors import Refusal
from qmtl.core.facts import Entry
from qmtl.core.names import Reason, StrategyId, WorldId, WorldState
from qmtl.core.promotion import Blocked
from qmtl.core.view import WorldView

from . import chaos
from .chaos import SIDS, Command
from .scene import START, Scene
from .weather import LATE_MAX, Fault, Weather
from .witness import Broken, Client, Witness

LATENCY = timedelta(milliseconds=20)
TIMEOUT = timedelta(seconds=10)
TRIES_MAX = 6  # Of one request, before its sender gives up for now.
DOWN_MAX = timedelta(minutes=4)
PARTITION_MAX = timedelta(hours=9)
TRACE = 40  # Of the last events, for who reads what went wrong.
CLIENTS_EACH = 2  # Of a strategy.
TWICE_EVERY = 5  # Of what may be asked twice, one is.
IDEMPOTENT = frozenset({"bar", "kill", "evaluate", "approve", "apply", "demote"})
READS = frozenset({"tick", "ask", "candidates"})
TOGETHER = {"submit": ("strategy_bound", "snapshot_stored")}  # Both of an act, or neither.


class Died(Exception):
    """The service is gone, in the middle of what it did."""


class DiskFull(Refusal):
    """What the store says when a disk is full: nothing was written.  Ask again."""

    status = 503


@dataclass
class Mortal:
    """A store in which a commit may be the last thing that its process does."""

    store: Store
    weather: Weather
    doomed: bool = False

    def commit(self, world_id: WorldId, commit: Commit) -> tuple[Entry, ...] | None:
        if self.weather.strikes(Fault.DISK_FULL):
            raise DiskFull
        if self.weather.strikes(Fault.CRASH_BEFORE):
            raise Died
        written = self.store.commit(world_id, commit)
        self.doomed |= self.weather.strikes(Fault.CRASH_AFTER)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


Turn = Callable[["Network"], None]
Answered = Callable[[Any], None]


def _told_all(view: WorldView, answer: Blocked, recorded: set[Reason]) -> Iterator[str]:
    """Every reason that is plain to see is told, and recorded (I8)."""
    plain = {
        Reason.LIVE_NOT_ALLOWED: not view.allow_live,
        Reason.WORLD_KILLED: view.killed,
        Reason.WORLD_SUSPENDED: view.state is not WorldState.ACTIVE,
    }
    for reason, holds in plain.items():
        if holds and reason not in answer.reasons:
            yield f"I8: refused for {answer.reasons}, and not for {reason}"
    if recorded != set(answer.reasons):
        yield f"I8: refused for {answer.reasons}, recorded {sorted(recorded)}"


@dataclass(order=True)
class Event:
    at: datetime
    number: int
    what: str = field(compare=False)
    does: Callable[[], bool] = field(compare=False)  # False: nothing had to be done.


@dataclass
class Request:
    """What somebody asks, in the same words until it is answered."""

    who: str
    what: str
    command: Command
    answered: Answered | None
    left: int = TRIES_MAX
    done: bool = False

    @property
    def kind(self) -> str:
        return self.what.split()[0]

    @property
    def about(self) -> StrategyId:
        return StrategyId(self.what.split()[-1])

    def __str__(self) -> str:
        return f"{self.who}: {self.what}"


class Network:
    """One story.  `run` plays it; `weather` is what goes wrong in it, `mute` who never acts."""

    def __init__(
        self,
        seed: int,
        store: Store,
        weather: Weather,
        mute: frozenset[str] = frozenset(),
    ) -> None:
        self.seed, self.weather, self.now, self.mute = seed, weather, START, mute
        self.rng = Random(f"{seed} birth")  # Of whoever acts: each has their own.
        self.mortal = Mortal(store, self.weather)
        # It delegates what it does not break.
        self.scene = Scene(cast(Store, self.mortal), dual_control=self.rng.random() < 0.5)
        self.witness = Witness()
        self.clients = [Client(f"{sid}/{n}", sid) for sid in SIDS for n in range(CLIENTS_EACH)]
        self.up, self.cut_until, self.skew = True, START, timedelta(0)
        self.trace: deque[str] = deque(maxlen=TRACE)
        self.people: dict[str, Random] = {}
        self.acts: Counter[str] = Counter()
        self._events: list[Event] = []
        self._numbers = count()
        plain = Scene(store, dual_control=self.scene.dual_control)
        chaos.birth(self.rng, plain, chaos.refusable(plain))
        chaos.honest_week(self.rng, plain, chaos.refusable(plain))
        self.now = self.scene.now = plain.now

    # ---- The clock, the way, and the world ---------------------------------------------------

    def after(self, span: timedelta, what: str, does: Callable[[], bool]) -> None:
        heappush(self._events, Event(self.now + span, next(self._numbers), what, does))

    def every(self, who: str, span: timedelta, turn: Turn) -> None:
        """Somebody's turns, about so often."""
        own = self.people[who] = Random(f"{self.seed} {who}")

        def take() -> bool:
            self.rng = own
            if who not in self.mute:
                turn(self)
            self.after(span * own.uniform(0.5, 1.5), f"{who}'s turn", take)
            return who not in self.mute

        self.after(span * own.random(), f"{who}'s turn", take)

    def send(self, who: str, what: str, command: Command, answered: Answered | None = None) -> None:
        """A message to the world, sent again until it is answered."""
        self._try(Request(who, what, command, answered))

    def _try(self, request: Request) -> None:
        weather, request.left = self.weather, request.left - 1
        travels = LATENCY + (weather.up_to(LATE_MAX) if weather.strikes(Fault.LATE) else LATENCY)
        twice = weather.strikes(Fault.DUPLICATED)
        if not weather.strikes(Fault.LOST) and self.now >= self.cut_until:
            self.after(travels, str(request), lambda: self._arrive(request))
        if twice:
            self.after(2 * travels, f"{request}, again", lambda: self._arrive(request))

        def look() -> bool:
            again = not request.done and request.left > 0
            if again:
                self._try(request)
            return again

        wait = TIMEOUT * 2 ** (TRIES_MAX - request.left)
        self.after(wait, f"{request} has no answer", look)

    def _arrive(self, request: Request) -> bool:
        if not self.up:
            return False
        self.scene.now = max(self.scene.now, self.now + self.skew)
        before = self.scene.view.seq
        try:
            answer: Any = request.command(self.scene)
        except Refusal as refusal:
            answer = refusal
        except Died:
            self._die(request, before)
            return True
        if isinstance(answer, DiskFull):
            return True  # It asks again.
        self.acts[request.kind] += 1
        self._check(self._promised(request, answer, before))
        if self.mortal.doomed:
            self._die(request, before)
        elif not self.weather.strikes(Fault.ANSWER_LOST) and self.now >= self.cut_until:
            slow = self.weather.strikes(Fault.ANSWER_LATE)
            back = LATENCY + (self.weather.up_to(LATE_MAX) if slow else LATENCY)
            self.after(back, f"{request} is answered", lambda: self._answer(request, answer))
        return True

    def _answer(self, request: Request, answer: Any) -> bool:
        if request.done:
            return False
        request.done = True
        self.rng = self.people[request.who]
        if request.answered is not None:
            request.answered(answer)
        return True

    def _die(self, request: Request, before: int) -> None:
        self.mortal.doomed, self.up = False, False
        self.trace.append(f"{self.now:%d %H:%M:%S} the service dies: {request}")
        self._check(self._whole(request, before))
        span = self.weather.up_to(DOWN_MAX) + LATENCY
        self.after(span, "the service starts", self._rise)

    def _rise(self) -> bool:
        self.up = True
        if self.weather.strikes(Fault.CLOCK_JUMP):
            self.skew += self.weather.up_to(timedelta(minutes=2))
        return True

    # ---- What an answer promises -------------------------------------------------------------

    def _check(self, wrong: Iterator[str]) -> None:
        if found := list(wrong):
            raise Broken(*found)

    def _promised(self, request: Request, answer: Any, before: int) -> Iterator[str]:
        """What an answer says is so, at once."""
        view, kind = self.scene.view, request.kind
        if kind in READS and view.seq != before:
            yield f"I2: {request} changed something"
        if isinstance(answer, Refusal):
            if view.seq != before:
                yield f"I8: {request} was refused, and changed something"
            if kind == "kill":
                yield f"I10: {request} was refused: {answer}"
            return
        yield from self._whole(request, before)
        if kind == "kill" and (view.live or not view.killed):
            yield "I10: killed, and somebody is live"
        if kind == "demote" and request.about in view.live:
            yield f"I10: {request}, and it is live"
        if kind == "apply" and isinstance(answer, Blocked):
            yield from _told_all(view, answer, set(view.blocked.get(request.about, ())))
        if kind in IDEMPOTENT and self.acts[kind] % TWICE_EVERY == 0:
            yield from self._twice(request)

    def _whole(self, request: Request, before: int) -> Iterator[str]:
        """All of an act is there, or nothing of it (I6)."""
        together = TOGETHER.get(request.kind)
        if together is None:
            return
        entries = self.scene.store.journal(self.scene.world_id, before, 100)
        kinds = {entry.fact.kind for entry in entries}
        if together[0] in kinds and together[1] not in kinds:
            yield f"I6: {request} is there by half: {sorted(kinds)}"

    def _twice(self, request: Request) -> Iterator[str]:
        """The same again, at once, has the effect of once (I3)."""
        seq, doomed = self.scene.view.seq, self.mortal.doomed
        plain = Scene(self.mortal.store, self.scene.now, dual_control=self.scene.dual_control)
        with suppress(Refusal):  # What was refused the second time has had no effect.
            request.command(plain)
        self.mortal.doomed = doomed
        if self.scene.view.seq != seq:
            yield f"I3: {request}, twice, wrote twice"

    # ---- A story -----------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """So many events.  Raises Broken at the one that breaks something."""
        while self.witness.steps < steps:
            event = heappop(self._events)
            self.now = max(self.now, event.at)
            if not event.does():
                continue
            self.trace.append(f"{event.at:%d %H:%M:%S} {event.what}")
            if self.weather.strikes(Fault.PARTITION):
                self.cut_until = self.now + self.weather.up_to(PARTITION_MAX)
            self.witness.look(self.scene, self.clients, self.now)
