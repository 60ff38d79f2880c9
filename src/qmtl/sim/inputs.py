"""What a policy asks for beside returns, and whether a world's history has it.

No return makes up for what was never recorded: where that is so of everybody, "nobody went live"
says nothing of anybody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.core import facts as f
from qmtl.core.names import Stage, StrategyId
from qmtl.core.policy import Policy
from qmtl.core.sourcing import SNAPSHOT_UNITS

RETURNS: Final = "returns"
REPLAY: Final = "a replay of the engine beside the returns"
STRESS: Final = "stress"
COVARIANCE: Final = "covariance"
OF_SNAPSHOTS: Final = {"stress_loss_max": STRESS, "ex_ante_volatility": COVARIANCE}


@dataclass(frozen=True, slots=True)
class Missing:
    """What a part of a policy asks for, and how many strategies of a history it was recorded of."""

    path: str
    what: str
    recorded: int
    of: int


def missing(policy: Policy, journal: Sequence[f.Entry]) -> list[Missing]:
    """What the policy asks of a strategy before it goes live, and was not recorded of each.

    No return makes up for it.  Of who has returns in the stage; nothing where nobody has any.
    """
    told: dict[tuple[Stage, str], set[StrategyId]] = {}
    for entry in journal:
        if isinstance(entry.fact, f.SnapshotStored):
            for what, sids in _recorded(entry.fact):
                told.setdefault((entry.fact.stage, what), set()).update(sids)
    found = []
    if (Stage.PAPER, RETURNS) not in told:
        found.append(Missing("campaign.paper", "returns in paper", 0, 0))
    for path, stage, what in _inputs(policy):
        of = told.get((stage, RETURNS), set())
        having = told.get((stage, what), set()) & of
        if having < of:
            found.append(Missing(path, f"{what} in {stage}", len(having), len(of)))
    return found


def _recorded(fact: f.SnapshotStored) -> Iterable[tuple[str, Iterable[StrategyId]]]:
    yield RETURNS, fact.points.strategies
    yield REPLAY, fact.replay or ()
    yield STRESS, fact.stress or ()
    yield COVARIANCE, fact.covered if fact.covariance else ()
    for sid, stats in (fact.stats or {}).items():
        yield from ((name, (sid,)) for name in stats)


def _inputs(policy: Policy) -> Iterable[tuple[str, Stage, str]]:
    """The part of the policy, the stage, and what it asks to be recorded there."""
    if policy.evidence is not None and policy.evidence.consistency is not None:
        yield "evidence.consistency", Stage.PAPER, REPLAY
    if policy.risk.max_stress_loss is not None:
        yield "risk.max_stress_loss", Stage.PAPER, STRESS
    for stage in (Stage.BACKTEST, Stage.PAPER):
        for bound in policy.gates.of(stage):
            if bound.metric in SNAPSHOT_UNITS:
                what = OF_SNAPSHOTS.get(bound.metric, bound.metric)
                yield f"gates.{stage}.{bound.metric}", stage, what
