"""How old what the hub holds is, stage by stage, and whose it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from qmtl.app.ports import Store
from qmtl.core.columns import PHASES
from qmtl.core.names import ActorId, Phase, Stage
from qmtl.core.times import NEVER, instant, micros, span_us
from qmtl.core.view import WorldView
from qmtl.core.windows import PHASE_OF

STAGES: Final = (Stage.BACKTEST, Stage.PAPER, Stage.LIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """A stage: its newest snapshot, and how many of the strategies in its phase are covered fresh.

    `age` None: there is no snapshot.
    """

    stage: Stage
    version: str
    as_of: datetime | None
    age: timedelta | None
    expires_at: datetime | None
    actor: ActorId | None
    strategies: int
    fresh: int

    @property
    def state(self) -> str:
        """Of those who need it; a backtest needs no fresh snapshot."""
        if self.stage is Stage.BACKTEST or not self.strategies:
            return "idle"
        return "fresh" if self.fresh == self.strategies else "stale"


def feeds(store: Store, view: WorldView, now: datetime) -> Iterator[Fed]:
    """Each stage of a campaign."""
    count = len(view.ids)
    for stage in STAGES:
        track, newest = view.tracks[stage], store.latest_snapshot(view.world_id, stage)
        mine = view.standings.phase[:count] == PHASES.index(PHASE_OF[stage])
        as_of = track.covered_as_of[:count]
        most = track.covered_ttl_us[:count]
        if view.default_version is not None and view.policy.risk.snapshot_max_age is not None:
            most = np.minimum(most, span_us(view.policy.risk.snapshot_max_age))
        known = as_of != NEVER
        fresh = mine & known & (micros(now) - np.where(known, as_of, 0) <= most)
        fact = None if newest is None else newest.fact
        yield Fed(
            stage=stage,
            version="" if fact is None else fact.version,
            as_of=None if fact is None else fact.as_of,
            age=None if fact is None else now - fact.as_of,
            expires_at=None
            if fact is None
            else instant(micros(fact.as_of) + fact.ttl_sec * 1_000_000),
            actor=None if newest is None else newest.actor,
            strategies=int(mine.sum()),
            fresh=int(fresh.sum()),
        )


def phase_counts(view: WorldView) -> dict[Phase, int]:
    """How many strategies stand where."""
    counts = np.bincount(view.standings.phase[: len(view.ids)], minlength=len(PHASES))
    return {phase: int(counts[n]) for n, phase in enumerate(PHASES)}
