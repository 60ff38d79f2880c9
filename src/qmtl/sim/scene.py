"""A world on a stage: its store, a clock that someone turns, and everything anyone can do there.

Each method is a use case with the cast's defaults, at the scene's own instant, so that a test or a
seed says who does what and nothing else.  What is refused raises, as it does for callers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from qmtl.app import campaigns, decisions, evaluations, hub, promotions, strategies, worlds
from qmtl.app.ports import Store, StoredSnapshot
from qmtl.app.promotions import AutoApplied, Plan
from qmtl.app.step import By, world
from qmtl.app.worlds import AddedPolicy, Pending
from qmtl.core.activation import Change
from qmtl.core.campaign import Action, ActionKind, Page
from qmtl.core.columns import Float
from qmtl.core.decision import DecisionEnvelope
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.facts import SeriesRestated
from qmtl.core.names import ActorId, Digest, Phase, RunId, Stage, StrategyId, WorldId, WorldState
from qmtl.core.policy import Policy
from qmtl.core.promotion import Blocked
from qmtl.core.snapshot import TTL_SEC_DEFAULT, PostedSeries, RiskSnapshot
from qmtl.core.times import micros, span_us
from qmtl.core.view import Activation, Candidate, Confirmation, Strategy, WorldView

from . import cast

DAY = timedelta(days=1)
WORLD = WorldId("w")
START = datetime(2026, 1, 5, tzinfo=UTC)  # A Monday.


@dataclass
class Scene:
    """One world of one store.  `now` is the server's clock: turn it with `wait`."""

    store: Store
    now: datetime = START
    world_id: WorldId = WORLD
    dual_control: bool = False

    @property
    def view(self) -> WorldView:
        return world(self.store, self.world_id)

    def by(self, actor: ActorId) -> By:
        return cast.by(actor, self.now)

    def wait(self, span: timedelta) -> None:
        self.now += span

    # ---- The world -----------------------------------------------------------------------------

    def create(self, *, allow_live: bool = False) -> None:
        new = worlds.NewWorld(
            world_id=self.world_id, name="", description="", labels={}, allow_live=allow_live
        )
        worlds.create(self.store, self.by(cast.POLLY), new, dual_control=self.dual_control)

    def add_policy(self, policy: Policy, checksum: str, actor: ActorId = cast.POLLY) -> AddedPolicy:
        return worlds.add_policy(
            self.store,
            self.world_id,
            self.by(actor),
            policy,
            checksum,
            dual_control=self.dual_control,
        )

    def set_default(self, version: int, actor: ActorId = cast.POLLY) -> Pending | None:
        return worlds.set_default(
            self.store, self.world_id, self.by(actor), version, dual_control=self.dual_control
        )

    def allow_live(self, allowed: bool, actor: ActorId = cast.POLLY) -> Pending | None:
        return worlds.allow_live(
            self.store, self.world_id, self.by(actor), allowed, dual_control=self.dual_control
        )

    def confirm(self, confirmation_id: str, actor: ActorId = cast.PAUL) -> Confirmation:
        return worlds.confirm(self.store, self.world_id, self.by(actor), confirmation_id)

    def change_state(self, state: WorldState, actor: ActorId = cast.OTTO) -> None:
        worlds.change_state(self.store, self.world_id, self.by(actor), state)

    def kill(self, actor: ActorId = cast.OTTO) -> None:
        worlds.kill(self.store, self.world_id, self.by(actor), "killed")

    def resume(self, actor: ActorId = cast.OTTO) -> Pending | None:
        return worlds.resume(
            self.store, self.world_id, self.by(actor), "resumed", dual_control=self.dual_control
        )

    # ---- Strategies and their returns ----------------------------------------------------------

    def bind(
        self, sid: StrategyId, actor: ActorId = cast.ANN, fingerprint: str | None = "f1"
    ) -> tuple[Strategy, bool]:
        binding = strategies.Binding(
            strategy_id=sid, name=sid, fingerprint=fingerprint, variants_tried=None
        )
        return strategies.bind(self.store, self.world_id, self.by(actor), binding)

    def submit(
        self,
        sid: StrategyId,
        r: Float,
        actor: ActorId = cast.ANN,
        stats: Mapping[str, float] | None = None,
        end: datetime | None = None,
        fingerprint: str | None = "f1",
        parts: Mapping[str, str] | None = None,
        variants_tried: int | None = None,
    ) -> EvaluationRun:
        """A backtest of daily returns that ends yesterday, or at `end`."""
        series = daily(r, end or self.now - DAY)
        binding = strategies.Binding(
            strategy_id=sid,
            name=sid,
            fingerprint=fingerprint,
            variants_tried=variants_tried,
            parts=parts or {},
        )
        asked = strategies.Submission(binding=binding, returns=series, stats=stats or {}, engine={})
        return strategies.submit(self.store, self.world_id, self.by(actor), asked)

    def bar(
        self,
        stage: Stage,
        returns: Mapping[StrategyId, float],
        at: datetime | None = None,
        **more: object,
    ) -> tuple[StoredSnapshot, bool]:
        """One bar of returns of some strategies, at an instant: one snapshot."""
        at = at or self.now
        t = np.array([micros(at)], dtype=np.int64)
        series = {sid: PostedSeries(t, np.array([r])) for sid, r in returns.items()}
        return self.post(stage, series, as_of=at, **more)  # type: ignore[arg-type]  # `more` is its.

    def post(
        self,
        stage: Stage,
        returns: Mapping[StrategyId, PostedSeries],
        as_of: datetime | None = None,
        *,
        actor: ActorId = cast.FEED,
        version: str | None = None,
        ttl_sec: int = TTL_SEC_DEFAULT,
        weights: Mapping[StrategyId, float] | None = None,
        covariance: Mapping[str, float] | None = None,
        stress: Mapping[StrategyId, Mapping[str, float]] | None = None,
        stats: Mapping[StrategyId, Mapping[str, float]] | None = None,
        replay: Mapping[StrategyId, float] | None = None,
    ) -> tuple[StoredSnapshot, bool]:
        """A snapshot; of equal weights and named by its content unless told otherwise."""
        as_of = as_of or self.now
        equal = {sid: 1.0 / len(returns) for sid in returns}
        weights = weights if weights is not None else equal
        content = hub.content_digest(
            {
                "stage": stage,
                "as_of": micros(as_of),
                "ttl_sec": ttl_sec,
                "weights": dict(weights),
                "returns": {
                    sid: [None if s.t is None else s.t.tolist(), s.r.tolist()]
                    for sid, s in returns.items()
                },
                "carried": [covariance, stress, stats, replay],
            }
        )
        posted = RiskSnapshot(
            version=version or f"{stage}-{content[:16]}",
            stage=stage,
            as_of=as_of,
            ttl_sec=ttl_sec,
            content=content,
            weights=weights,
            returns=returns,
            covariance=covariance,
            stress=stress,
            stats=stats,
            extra={},
            replay=replay,
        )
        return hub.post(self.store, self.world_id, self.by(actor), posted)

    def restate(
        self, stage: Stage, sid: StrategyId, series: PostedSeries, actor: ActorId = cast.OTTO
    ) -> SeriesRestated:
        return hub.restatement(
            self.store, self.world_id, self.by(actor), stage, sid, series, "wrong prices"
        )

    # ---- Evaluation ----------------------------------------------------------------------------

    def evaluate(
        self,
        sid: StrategyId,
        stage: Stage | None = None,
        run_id: RunId | None = None,
        metrics: Mapping[str, float] | None = None,
        actor: ActorId = cast.LOOP,
    ) -> evaluations.Evaluated:
        request = evaluations.Request(
            strategy_id=sid, stage=stage, run_id=run_id, metrics=metrics or {}
        )
        return evaluations.evaluate(self.store, self.world_id, self.by(actor), request)

    def cohort(
        self,
        strategy_ids: Sequence[StrategyId],
        stage: Stage | None = Stage.PAPER,
        run_id: RunId | None = None,
        actor: ActorId = cast.LOOP,
    ) -> tuple[evaluations.Evaluated, ...]:
        request = evaluations.CohortRequest(
            campaign_id="c", strategies=tuple(strategy_ids), stage=stage, run_id=run_id
        )
        return evaluations.evaluate_cohort(self.store, self.world_id, self.by(actor), request)

    # ---- The campaign loop ---------------------------------------------------------------------

    def tick(
        self, only: StrategyId | None = None, limit: int | None = None, offset: int = 0
    ) -> Page:
        if limit is None:
            return campaigns.tick(self.store, self.world_id, self.now, only=only)[1]
        return campaigns.tick(
            self.store, self.world_id, self.now, only=only, limit=limit, offset=offset
        )[1]

    def execute(self, action: Action) -> object:
        """What a loop does about an action; nothing about what waits for people."""
        match action.kind:
            case ActionKind.EVALUATE | ActionKind.OBSERVE_LIVE:
                assert action.strategy_id is not None
                return self.evaluate(action.strategy_id, action.stage, action.run_id)
            case ActionKind.EVALUATE_COHORT:
                return self.cohort(action.cohort, action.stage, action.run_id)
            case ActionKind.AUTO_APPLY_LIVE:
                return self.auto_apply(action.strategy_id, action.run_id)
            case ActionKind.MANUAL_APPROVAL_REQUIRED:
                return None

    def loop(self) -> Page:
        """One round: everything that the tick recommends.  Answers with what it recommended."""
        page = self.tick()
        for action in page.actions:
            self.execute(action)
        return page

    # ---- Promotion -----------------------------------------------------------------------------

    def candidate(self, sid: StrategyId) -> Candidate:
        """The strategy's open candidate; it must have one."""
        found = self.view.open_candidate(sid)
        assert found is not None, f"{sid} has no open candidate"
        return found

    def plan(self, sid: StrategyId, run_id: RunId | None = None) -> Plan:
        return promotions.plan(self.store, self.view, self.now, sid, run_id)

    def approve(
        self,
        sid: StrategyId,
        actor: ActorId,
        run_id: RunId | None = None,
        evidence: Digest | None = None,
    ) -> Candidate:
        run_id = run_id or self.candidate(sid).run_id
        return promotions.approve(
            self.store, self.world_id, self.by(actor), sid, run_id, "looks good", evidence
        )

    def withdraw(self, sid: StrategyId, actor: ActorId, run_id: RunId | None = None) -> Candidate:
        run_id = run_id or self.candidate(sid).run_id
        return promotions.withdraw(self.store, self.world_id, self.by(actor), sid, run_id)

    def reject(
        self, sid: StrategyId, run_id: RunId | None = None, actor: ActorId = cast.PIA
    ) -> Candidate:
        run_id = run_id or self.candidate(sid).run_id
        return promotions.reject(self.store, self.world_id, self.by(actor), sid, run_id, "no")

    def release(self, sid: StrategyId, actor: ActorId = cast.OTTO) -> None:
        promotions.release(self.store, self.world_id, self.by(actor), sid, "looked into it")

    def apply(
        self, sid: StrategyId, run_id: RunId | None = None, actor: ActorId = cast.OTTO
    ) -> Activation | Blocked:
        run_id = run_id or self.candidate(sid).run_id
        return promotions.apply(self.store, self.world_id, self.by(actor), sid, run_id)

    def auto_apply(
        self,
        sid: StrategyId | None = None,
        run_id: RunId | None = None,
        actor: ActorId = cast.LOOP,
    ) -> AutoApplied:
        return promotions.auto_apply(self.store, self.world_id, self.by(actor), sid, run_id)

    def demote(self, sid: StrategyId, to: Phase = Phase.PAPER, actor: ActorId = cast.OTTO) -> Phase:
        return promotions.demote(self.store, self.world_id, self.by(actor), sid, to, "enough")

    def extend(self, sid: StrategyId, span: timedelta, actor: ActorId = cast.OTTO) -> None:
        by_sec = int(span.total_seconds())
        promotions.extend(self.store, self.world_id, self.by(actor), sid, by_sec, "nearly there")

    # ---- Decisions -----------------------------------------------------------------------------

    def decide(self, sid: StrategyId) -> DecisionEnvelope:
        return decisions.decide(self.store, self.world_id, sid, self.now)[0]

    def lower(self, sid: StrategyId, change: Change, actor: ActorId = cast.OTTO) -> None:
        decisions.lower(self.store, self.world_id, self.by(actor), sid, change)


def daily(r: Float, end: datetime) -> PostedSeries:
    """Returns with their times: one a day, the last at `end`."""
    back = np.arange(len(r) - 1, -1, -1, dtype=np.int64)
    return PostedSeries(micros(end) - back * span_us(DAY), np.asarray(r, dtype=np.float64))
