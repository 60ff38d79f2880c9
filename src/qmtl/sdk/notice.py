"""What an event of a world's journal means for what one of its strategies may do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qmtl.adapters.client import BadEvent, Event
from qmtl.core.names import Stream, WorldState

# What bears on no decision, by the event's type: not even looked into.
EVIDENCE: Final = frozenset(
    {"risk_snapshot_updated", "series_restated", "evaluations_recorded", "retention_applied"}
)
CHANGES_NOTHING: Final = EVIDENCE | {
    *("world_created", "token_created", "token_revoked", "policy_added", "strategy_bound"),
    *("confirmation_requested", "confirmation_given", "candidate_proposed", "candidate_rejected"),
    *("candidate_released", "candidate_voided", "approval_given", "approval_withdrawn"),
    *("promotion_blocked", "activation_acknowledged", "program_started"),
}


@dataclass(frozen=True, slots=True)
class Notice:
    """Decisions before `generation` count no more.

    `stops` is why nothing may be done until a newer one comes; None when it may be as it was.
    """

    generation: int
    stops: str | None


def notice_of(event: Event, world: str, strategy_id: str) -> Notice | None:
    """What an event says of one strategy, None when nothing.  Raises BadEvent.

    A kind that is not known here, and names no other strategy, may have changed anything: ask.
    """
    if event.type in CHANGES_NOTHING:
        return None
    told = event.cloud_event()
    if told.get("source") != f"/worlds/{world}":
        raise BadEvent(f"event {event.seq} is of {told.get('source')}, not of /worlds/{world}")
    data = told["data"]
    if data.get("stream") == Stream.EVIDENCE:
        return None
    generation, fact = data.get("generation"), data.get("fact")
    if type(generation) is not int or generation < 1 or not isinstance(fact, Mapping):
        raise BadEvent(f"event {event.seq} has no generation, or no fact")
    if fact.get("strategy_id", strategy_id) != strategy_id:
        return None
    return Notice(generation, _words(event, fact) if _stops(event.type, fact) else None)


def _stops(kind: str, fact: Mapping[str, object]) -> bool:
    """Whether it may do less from here on.  What an operator does to an activation may raise it,
    up to what was applied: the next decision says so."""
    match kind:
        case "killed" | "demoted" | "phase_entered" | "activation_lowered":
            return True
        case "live_allowed":
            return fact.get("allowed") is not True
        case "state_changed":
            return fact.get("state") != WorldState.ACTIVE
        case _:
            return False


def _words(event: Event, fact: Mapping[str, object]) -> str:
    reason = fact.get("detail") or fact.get("reason")
    return f"{event.type} (event {event.seq})" + (f": {reason}" if reason else "")
