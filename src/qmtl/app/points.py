"""What the gate asks, point by point: which inputs say its numbers, and what speaks against it.

One table for everybody who shows the gate: a page point by point, a dossier input by input.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.core.names import Reason
from qmtl.core.promotion import Problem

from .inputs import Input

Inputs = Mapping[str, frozenset[Reason]]

# Of which there is one for each other strategy: "correlation with s2".
EACH_OTHER: Final = ("correlation with", "taken back from")
NO_INPUT: Final = ""


def _of(*reasons: Reason) -> frozenset[Reason]:
    return frozenset(reasons)


# In the order in which a person asks.  Each point: its inputs (`inputs.gate_inputs`), each with the
# reasons against it; under NO_INPUT those of which no input says a number.
POINTS: Final[Mapping[str, Inputs]] = {
    "The world allows live": {"live allowed": _of(Reason.LIVE_NOT_ALLOWED)},
    "The policy promotes": {"live promotion": _of(Reason.PROMOTION_DISABLED)},
    "The world is at work": {"world": _of(Reason.WORLD_SUSPENDED, Reason.WORLD_KILLED)},
    "Nothing waits for a second person": {NO_INPUT: _of(Reason.CONFIRMATION_PENDING)},
    "No freeze is open": {"freeze open": _of(Reason.FROZEN)},
    "Nobody holds it": {"held": _of(Reason.HELD)},
    "It is in the phase for this step": {"phase": _of(Reason.NOT_PAPER_STAGE)},
    "The candidate stands": {
        "candidate": _of(Reason.CANDIDATE_REJECTED),
        "still current": _of(Reason.CANDIDATE_SUPERSEDED),
    },
    "People approve": {
        "approvals": _of(
            *(Reason.MANUAL_APPROVAL_REQUIRED, Reason.APPROVALS_INSUFFICIENT),
            Reason.APPROVAL_EXPIRED,
        )
    },
    "The run passes": {
        "verdict recorded": _of(Reason.PAPER_RUN_MISSING),
        "verdict now": _of(Reason.VALIDATION_FAILED),
        "stress loss": _of(),  # Judged with the run: what is against it stands there.
    },
    "The window is full": {
        "window": _of(Reason.PAPER_WINDOW_INCOMPLETE),
        "observations": _of(Reason.OBSERVATIONS_INSUFFICIENT),
    },
    "The evidence is enough": {"e-value": _of(Reason.EVIDENCE_INSUFFICIENT)},
    "It is selected": {"selected": _of(Reason.SELECTION_FAILED)},
    "It adds something to what is live": {"correlation with": _of(Reason.CORRELATION_EXCEEDED)},
    "A slot is free": {"live slots": _of(Reason.MAX_LIVE_SLOTS_EXCEEDED)},
    "There is capital": {"live weight": _of(Reason.MAX_LIVE_WEIGHT_EXCEEDED)},
    "No lease is outstanding": {"taken back from": _of(Reason.LEASE_OUTSTANDING)},
    "The cooldown is over": {"cooldown left": _of(Reason.COOLDOWN_ACTIVE)},
    "The snapshot is fresh": {
        "snapshot relied upon": _of(
            *(Reason.RISK_SNAPSHOT_MISSING, Reason.RISK_SNAPSHOT_EXPIRED),
            Reason.RISK_SNAPSHOT_STALE,
        )
    },
}


_POINT_OF: Final = {name: point for point, inputs in POINTS.items() for name in inputs if name}
_POINT_AGAINST: Final = {
    reason: point
    for point, inputs in POINTS.items()
    for reasons in inputs.values()
    for reason in reasons
}


@dataclass(frozen=True, slots=True)
class Asked:
    """An input of the gate.  `point`: empty where the gate asks nothing of it; `against`: in words.

    `holds` None: nothing can speak against it.
    """

    point: str
    name: str
    value: str
    holds: bool | None
    against: tuple[str, ...] = ()


def asked(found: Iterable[Input], problems: Sequence[Problem]) -> list[Asked]:
    """Each input with what speaks against it; then, each alone, what no input has a number of.

    Nothing of `problems` is left out.
    """
    rows: list[Asked] = []
    said: set[Problem] = set()
    for each in found:
        kind, other = _split(each.name)
        point = _POINT_OF.get(kind, "")
        reasons = POINTS[point][kind] if point else frozenset()
        mine = [p for p in problems if p[0] in reasons and _is_about(p, other)]
        said |= set(mine)
        holds = not mine if reasons else None
        rows.append(Asked(point, each.name, each.value, holds, tuple(d for _, d in mine)))
    return rows + [
        Asked(_POINT_AGAINST.get(reason, ""), reason.replace("_", " "), "", False, (detail,))
        for reason, detail in problems
        if (reason, detail) not in said
    ]


def _split(name: str) -> tuple[str, str]:
    """An input's kind, and the other strategy that it is about, where there is one."""
    for kind in EACH_OTHER:
        if name.startswith(f"{kind} "):
            return kind, name.removeprefix(f"{kind} ")
    return name, ""


def _is_about(problem: Problem, other: str) -> bool:
    """Whether it names the other strategy; where there is none, it need not."""
    return not other or f" {other} " in problem[1]
