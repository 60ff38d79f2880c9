"""Strategies: bound to a world, and submitted with a backtest; changed ones as new versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from qmtl.core import approvals
from qmtl.core.errors import Conflict, Invalid
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.facts import Fact, StrategyBound
from qmtl.core.names import Reason, Stage, StrategyId, WorldId
from qmtl.core.snapshot import PostedSeries, RiskSnapshot
from qmtl.core.times import instant
from qmtl.core.versions import family, next_id
from qmtl.core.view import Rejected, Strategy, WorldView

from . import evaluations, hub
from .ports import Store
from .step import GOVERNANCE, By, foreseen, step


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A strategy as it is named and told.  `parts` are its fingerprint's, as far as known."""

    strategy_id: StrategyId
    name: str
    fingerprint: str | None
    variants_tried: int | None
    parts: Mapping[str, str] = field(default_factory=dict)


Bound = tuple[tuple[Strategy, bool], Sequence[Fact]]


def bind(store: Store, world_id: WorldId, by: By, asked: Binding) -> tuple[Strategy, bool]:
    """The strategy, and whether it was bound now.

    The same again is the same.  Raises Conflict when the id stands for other code, or is another
    author's: only `submit` makes a new version, since none is without its backtest.
    """

    def decide(view: WorldView) -> Bound:
        known = view.strategies.get(asked.strategy_id)
        if known is not None and asked.fingerprint not in (None, known.fingerprint):
            if known.author != by.actor:
                raise Conflict(f"{asked.strategy_id} is a strategy of {known.author}.")
            if known.fingerprint is not None:
                raise Conflict(
                    f"{asked.strategy_id} stands for other code ({known.fingerprint[:19]}…): "
                    "submit what was changed with its backtest, by POST /strategies, which makes "
                    "a new version of it."
                )
        return _named(view, by, asked)

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def version(store: Store, world_id: WorldId, by: By, asked: Binding) -> Strategy:
    """What the fingerprint stands for in the family of the id: a version known, or a new one.

    The same again is the same version, whichever of the family is named.  Raises Conflict when the
    id is another author's, or the family has no room for one more.
    """

    def decide(view: WorldView) -> tuple[Strategy, Sequence[Fact]]:
        known = view.strategies.get(asked.strategy_id)
        if known is not None and known.author != by.actor:
            raise Conflict(f"{asked.strategy_id} is a strategy of {known.author}.")
        if known is None or None in (known.fingerprint, asked.fingerprint):
            (found, _), facts = _named(view, by, asked)
            return found, facts
        versions = family(view, known.family)
        for one in versions:
            if one.fingerprint == asked.fingerprint:
                return one, ()
        (made, _), facts = _recorded(view, by, asked, after=versions[-1])
        return made, facts

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def _named(view: WorldView, by: By, asked: Binding) -> Bound:
    """The strategy of just this id, bound now if need be; its fingerprint may come later."""
    known = view.strategies.get(asked.strategy_id)
    if known is not None and (known.fingerprint is not None or asked.fingerprint is None):
        return (known, False), ()
    return _recorded(view, by, asked)


def _recorded(view: WorldView, by: By, asked: Binding, after: Strategy | None = None) -> Bound:
    """A strategy or, after another, its next version: starting from nothing, whatever that has."""
    if asked.fingerprint is not None:
        _must_not_escape(view, asked.fingerprint)
    number = 1 if after is None else after.version + 1
    fact = StrategyBound(
        strategy_id=asked.strategy_id if after is None else next_id(view, after.family, number),
        name=asked.name,
        author=by.actor,
        fingerprint=asked.fingerprint,
        variants_tried=asked.variants_tried,
        family=None if after is None else after.family,
        version=number,
        previous=None if after is None else after.strategy_id,
        parts=asked.parts,
    )
    done = foreseen(view, (fact,), by)
    bound = done.strategies[fact.strategy_id]
    made = fact.strategy_id not in view.strategies
    return (bound, made), (fact, *approvals.renamed(done, fact.strategy_id))


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
    """Binds the strategy or its new version, stores its backtest in the hub, evaluates it: all of
    it, or nothing.  The run says which strategy it became."""
    if asked.returns.t is None or not len(asked.returns.t):
        raise Invalid("returns: a submission gives its returns with their times.")

    def attempt() -> EvaluationRun:
        bound = version(store, world_id, by, asked.binding)
        hub.post(store, world_id, by, _backtest(bound.strategy_id, asked))
        request = evaluations.Request(strategy_id=bound.strategy_id, stage=Stage.BACKTEST)
        return evaluations.evaluate(store, world_id, by, request).run

    return store.write(attempt)


def _backtest(sid: StrategyId, asked: Submission) -> RiskSnapshot:
    """What is submitted, as a snapshot of the strategy alone, named by its content."""
    returns = asked.returns
    assert returns.t is not None, "checked by submit"
    # By columns, not by their text: the writer waits for this.
    content = hub.content_digest(
        {
            "backtest": sid,
            "t": sha256(returns.t.tobytes()).hexdigest(),
            "r": sha256((returns.r + 0.0).tobytes()).hexdigest(),  # -0.0 is 0.0.
            "stats": dict(asked.stats),
        }
    )
    return RiskSnapshot(
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
