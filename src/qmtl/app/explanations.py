"""Where a strategy is, what it waits for, and why: one question, one answer.  It only looks."""

from datetime import datetime

from qmtl.core.explain import Explanation, explain
from qmtl.core.names import StrategyId, WorldId
from qmtl.core.promotion import Dossier
from qmtl.core.view import WorldView

from .ports import Store
from .promotions import dossier_of
from .step import world


def explained(store: Store, world_id: WorldId, sid: StrategyId, now: datetime) -> Explanation:
    """The explanation of one strategy.  Raises UnknownWorld, UnknownStrategy."""
    return explanation(store, world(store, world_id), sid, now)


def explanation(store: Store, view: WorldView, sid: StrategyId, now: datetime) -> Explanation:
    """The same of a view at hand.  A world without a policy judges nothing, and says so."""
    view.strategy(sid)
    judged = view.default_version is not None
    dossier = dossier_of(store, view, sid) if judged else Dossier(verdict=None)
    return explain(view, sid, dossier, now)
