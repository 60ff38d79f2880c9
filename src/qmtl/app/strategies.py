"""Strategies: bound to a world, and submitted with a backtest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qmtl.core.errors import Conflict, Invalid
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.facts import Fact, StrategyBound
from qmtl.core.names import Reason, Stage, StrategyId, WorldId
from qmtl.core.snapshot import PostedSeries, RiskSnapshot
from qmtl.core.times import instant
from qmtl.core.view import Rejected, Strategy, WorldView

from . import evaluations, hub
from .ports import Store
from .step import GOVERNANCE, By, foreseen, step


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    strategy_id: StrategyId
    name: str
    fingerprint: str | None
    variants_tried: int | None


def bind(store: Store, world_id: WorldId, by: By, asked: Binding) -> tuple[Strategy, bool]:
    """The strategy, and whether it was bound now.

    The same again is the same.  Raises Conflict when the id stands for other code, or is another
    author's: changed code goes in under an id of its own.
    """

    def decide(view: WorldView) -> tuple[tuple[Strategy, bool], Sequence[Fact]]:
        known = view.strategies.get(asked.strategy_id)
        if known is None and asked.fingerprint is not None:
            _must_not_escape(view, asked.fingerprint)
        if known is not None:
            if asked.fingerprint is None or asked.fingerprint == known.fingerprint:
                return (known, False), ()
            if known.author != by.actor:
                raise Conflict(f"{asked.strategy_id} is a strategy of {known.author}.")
            if known.fingerprint is not None:
                raise Conflict(
                    f"{asked.strategy_id} stands for other code ({known.fingerprint[:19]}…): "
                    "submit changed code, parameters or data under another strategy_id."
                )
        facts = (
            StrategyBound(
                strategy_id=asked.strategy_id,
                name=asked.name,
                author=by.actor if known is None else known.author,
                fingerprint=asked.fingerprint,
                variants_tried=asked.variants_tried,
            ),
        )
        bound = foreseen(view, facts, by).strategies[asked.strategy_id]
        return (bound, known is None), facts

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def _must_not_escape(view: WorldView, fingerprint: str) -> None:
    """The same fingerprint is the same strategy: a new id frees it of no hold and no rejection."""
    for strategy in view.strategies.values():
        if strategy.fingerprint != fingerprint:
            continue
        candidate = view.open_candidate(strategy.strategy_id)
        rejected = candidate is not None and isinstance(candidate.standing, Rejected)
        if view.standings.held[strategy.row] or rejected:
            raise Conflict(
                f"This fingerprint is {strategy.strategy_id}, which is held or rejected here: "
                "an operator releases it.",
                reasons=(Reason.CANDIDATE_REJECTED if rejected else Reason.HELD,),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    binding: Binding
    returns: PostedSeries
    stats: Mapping[str, float]
    engine: Mapping[str, object]


def submit(store: Store, world_id: WorldId, by: By, asked: Submission) -> EvaluationRun:
    """Binds the strategy, stores its backtest in the hub, evaluates it: all of it, or nothing."""
    sid, returns = asked.binding.strategy_id, asked.returns
    if returns.t is None or not len(returns.t):
        raise Invalid("returns: a submission gives its returns with their times.")
    content = hub.content_digest(
        {
            "backtest": sid,
            "t": returns.t.tolist(),
            "r": returns.r.tolist(),
            "stats": dict(asked.stats),
        }
    )
    snapshot = RiskSnapshot(
        version=f"submit-{sid}-{content[:16]}",
        stage=Stage.BACKTEST,
        as_of=instant(int(returns.t[-1])),
        ttl_sec=hub.TTL_SEC_MAX,
        content=content,
        weights={sid: 1.0},
        returns={sid: returns},
        covariance=None,
        stress=None,
        stats={sid: asked.stats} if asked.stats else None,
        extra={"engine": asked.engine} if asked.engine else {},
    )

    def attempt() -> EvaluationRun:
        bound, _ = bind(store, world_id, by, asked.binding)
        if bound.author != by.actor:
            raise Conflict(f"{sid} is a strategy of {bound.author}.")
        hub.post(store, world_id, by, snapshot)
        request = evaluations.Request(strategy_id=sid, stage=Stage.BACKTEST)
        return evaluations.evaluate(store, world_id, by, request).run

    return store.write(attempt)
