"""What must be true after every step, whoever acted and whatever went wrong."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite

from qmtl.core import facts as f
from qmtl.core.decision import DECISION_TTL, DecisionEnvelope, newer, permitted
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.fold import fold
from qmtl.core.invariants import check
from qmtl.core.names import Mode, StrategyId, Verdict
from qmtl.core.policy import Bound
from qmtl.core.view import WorldView, same_view

from .scene import Scene

TOLERANCE = 1e-9
WHOLE_EVERY = 100  # Steps between two folds from the first entry.


class Broken(AssertionError):
    """An invariant does not hold.  `args` are what is wrong, each in words."""


@dataclass(slots=True)
class Client:
    """Stands before an engine, and holds a decision: what it asked last, and when, by its clock."""

    name: str
    strategy_id: StrategyId
    envelope: DecisionEnvelope | None = None
    asked: datetime | None = None
    highest: int = 0  # Of the generations it has heard of.

    def hears(self, told: DecisionEnvelope, asked: datetime) -> None:
        """An answer, perhaps after a later one."""
        self.highest = max(self.highest, told.generation)
        if newer(self.envelope, told) is told:
            self.envelope, self.asked = told, asked

    def believes(self, now: datetime) -> float:
        """The weight it acts on."""
        if self.envelope is None or self.asked is None:
            return 0.0
        live = permitted(self.envelope, now - self.asked) is Mode.LIVE
        return self.envelope.weight if live else 0.0


@dataclass
class Witness:
    """Looks at a world and its clients after each step."""

    seen: int = 0  # Entries of the journal.
    down_since: dict[StrategyId, datetime] = field(default_factory=dict)  # True time.
    limit: float = 0.0  # The most live weight, of the policy of the newest promotion.
    steps: int = 0

    def look(self, scene: Scene, clients: list[Client], now: datetime) -> None:
        """Raises Broken.  `now` is the true time; the scene has the server's."""
        self.steps += 1
        view = scene.view
        wrong = list(self._news(scene, view, now))
        wrong += self._beliefs(view, clients, now)
        if self.steps % WHOLE_EVERY == 0:
            wrong += self._whole(scene, view)
        if wrong:
            raise Broken(*wrong)

    def _news(self, scene: Scene, view: WorldView, now: datetime) -> Iterator[str]:
        """Of what was written since: the view is sound, and each entry may be."""
        if view.seq == self.seen:
            return
        yield from check(view, scene.now)
        entries = scene.store.journal(scene.world_id, self.seen, 10_000)
        if [e.seq for e in entries] != list(range(self.seen + 1, view.seq + 1)):
            yield "I5: the journal has not all that the view tells"
        self.seen = view.seq
        for entry in entries:
            match entry.fact:
                case f.EvaluationsRecorded(runs=runs):
                    yield from (said for run in runs for said in _run(run))
                case f.PromotionApplied():
                    self.limit = view.policy.governance.max_live_weight
                case _:
                    pass
        for sid in view.strategies:
            if sid in view.live:
                self.down_since.pop(sid, None)
            else:
                self.down_since.setdefault(sid, now)

    def _beliefs(self, view: WorldView, clients: list[Client], now: datetime) -> Iterator[str]:
        believed: dict[StrategyId, float] = {}
        for client in clients:
            if client.envelope is not None and client.envelope.generation < client.highest:
                yield f"I4: {client.name} went back to an older decision"
            weight = client.believes(now)
            if not weight:
                continue
            sid = client.strategy_id
            believed[sid] = max(believed.get(sid, 0.0), weight)
            down = self.down_since.get(sid)
            if down is not None and now - down >= DECISION_TTL:
                yield f"I4: {client.name} believes {sid} live, which was taken down at {down}"
        if sum(believed.values()) > self.limit + TOLERANCE:
            yield f"leases: clients act on {sum(believed.values()):.6g} of {self.limit:g}"

    def _whole(self, scene: Scene, view: WorldView) -> Iterator[str]:
        entries = scene.store.journal(scene.world_id, 0, 10**6)
        if not same_view(fold(WorldView(world_id=scene.world_id), entries), view):
            yield "I5: the fold of the journal is not what the tables say"
        yield from check(view, scene.now)


def _run(run: EvaluationRun) -> Iterator[str]:
    """I9: a run passes on finite numbers within their bounds only."""
    for name, metric in run.metrics.items():
        if metric.value is not None and not isfinite(metric.value):
            yield f"I9: {run.run_id} has a {name} of {metric.value}"
    if run.verdict is Verdict.PASS:
        for gate in run.gates:
            bound = Bound(metric=gate.metric, min=gate.min, max=gate.max)
            if gate.value is None or not _within(bound, gate.value):
                yield f"I9: {run.run_id} passes with a {gate.metric} of {gate.value}"


def _within(bound: Bound, value: float) -> bool:
    above = bound.min is None or value >= bound.min
    return isfinite(value) and above and (bound.max is None or value <= bound.max)
