"""The risk signal hub: snapshots in, snapshots out.  It stores; it computes nothing."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256

from qmtl.core.campaign import breakers
from qmtl.core.errors import Conflict, UnknownSnapshot
from qmtl.core.facts import Fact, SeriesRestated
from qmtl.core.fold import entries
from qmtl.core.names import Digest, Phase, Reason, Stage, StrategyId, WorldId
from qmtl.core.promotion import demote
from qmtl.core.snapshot import TTL_SEC_MAX, PostedSeries, RiskSnapshot, restate
from qmtl.core.snapshot import store as stored
from qmtl.core.view import WorldView

from .ports import Store, StoredSnapshot
from .step import BOTH, EVIDENCE, By, foreseen, step, world

__all__ = ["TTL_SEC_MAX", "content_digest", "get", "post", "restatement"]


def content_digest(content: Mapping[str, object]) -> Digest:
    """Names parsed content: equal content, equal digest, however it was written."""
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Digest(sha256(plain.encode()).hexdigest())


def post(
    store: Store, world_id: WorldId, by: By, posted: RiskSnapshot
) -> tuple[StoredSnapshot, bool]:
    """The stored snapshot, and whether it was stored now.  The same again is no second event.

    A live strategy that the new returns take beyond a hard limit is demoted in the same commit.
     Raises Conflict for a version that holds other content, or for changed history.
    """

    def decide(view: WorldView) -> tuple[tuple[StoredSnapshot, bool], Sequence[Fact]]:
        known = store.snapshot(world_id, posted.version)
        if known is not None:
            if known.fact.content != posted.content:
                raise Conflict(f"Snapshot version {posted.version} holds other content.")
            return (known, False), ()
        fact = stored(view, posted, lambda sid: store.series(world_id, sid, posted.stage), by.now)
        facts: tuple[Fact, ...] = (fact,)
        if posted.stage is Stage.LIVE:
            facts += breakers(foreseen(view, facts, by), fact.points)
        first = entries(view, facts, by.actor, by.now)[0]
        made = StoredSnapshot(seq=first.seq, created_at=first.at, actor=first.actor, fact=fact)
        return (made, True), facts

    reads = BOTH if posted.stage is Stage.LIVE else EVIDENCE
    return step(store, world_id, by, decide, reads=reads)


def restatement(
    store: Store,
    world_id: WorldId,
    by: By,
    stage: Stage,
    strategy_id: StrategyId,
    series: PostedSeries,
    reason: str,
) -> SeriesRestated:
    """Replaces recorded history.  What relied on it is void and the window starts anew."""

    def decide(view: WorldView) -> tuple[SeriesRestated, Sequence[Fact]]:
        fact = restate(view, stage, strategy_id, series, reason, by.now)
        held = store.series(world_id, strategy_id, stage)
        points = fact.points
        if (held.t.tobytes(), held.r.tobytes()) == (points.t, points.r):
            return fact, ()
        return fact, (fact, *relied_upon(foreseen(view, (fact,), by), fact))

    return step(store, world_id, by, decide)


def relied_upon(view: WorldView, fact: SeriesRestated) -> tuple[Fact, ...]:
    """What follows from a restatement that `view` holds already: down goes who relied on it."""
    why, detail = Reason.EVIDENCE_CHANGED, f"{fact.stage} returns were restated: {fact.reason}"
    to = Phase.BACKTEST if fact.stage is Stage.BACKTEST else Phase.PAPER
    relied = {
        Phase.PAPER: (Stage.BACKTEST,),
        Phase.LIVE: (Stage.BACKTEST, Stage.PAPER, Stage.LIVE),
    }
    phase = view.phase(view.strategies[fact.strategy_id].row)
    if fact.stage not in relied.get(phase, ()):
        return ()
    return demote(view, fact.strategy_id, to, why, detail, held=False)


def get(store: Store, world_id: WorldId, version: str) -> StoredSnapshot:
    """One snapshot.  Raises UnknownWorld, UnknownSnapshot."""
    world(store, world_id)
    found = store.snapshot(world_id, version)
    if found is None:
        raise UnknownSnapshot(version)
    return found
