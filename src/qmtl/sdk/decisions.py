"""Decisions on the client's side: read strictly, aged on a clock of one's own, never raised.

Whatever is wrong with a decision (missing, expired, malformed, of another strategy, older than one
already seen), the answer is compute-only.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from threading import Lock
from typing import Any

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.core.decision import DecisionEnvelope, newer, permitted
from qmtl.core.names import Mode, Reason, StrategyId, WorldId


class BadDecision(ValueError):
    """An answer that is no decision; the message says what is wrong with it."""


_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # Linux has it.


def monotonic() -> float:
    """Seconds that only ever pass, those in which the machine slept included where it can tell.

    A laptop that wakes up after an hour must not think its decision fresh.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def envelope_of(told: object, world: str, strategy_id: str) -> DecisionEnvelope:
    """The decision that an answer holds, of just this strategy.  Raises BadDecision."""
    if not isinstance(told, Mapping):
        raise BadDecision(f"a decision is an object, not {type(told).__name__}")
    about = (told.get("world_id"), told.get("strategy_id"))
    if about != (world, strategy_id):
        raise BadDecision(f"the decision is of {about}, not of {(world, strategy_id)}")
    try:
        mode = Mode(_read(told, "effective_mode", str))
    except ValueError as error:
        raise BadDecision(f"effective_mode: {error}") from error
    version = told.get("policy_version")
    if version is not None:
        version = _read(told, "policy_version", int)
    envelope = DecisionEnvelope(
        world_id=WorldId(world),
        strategy_id=StrategyId(strategy_id),
        policy_version=version,
        effective_mode=mode,
        weight=_number(told, "weight"),
        ramp_fraction=_number(told, "ramp_fraction"),
        reasons=tuple(str(reason) for reason in _read(told, "reasons", list)),
        generation=_read(told, "generation", int),
        issued_at=_instant(told, "issued_at"),
        expires_at=_instant(told, "expires_at"),
        downgraded=_read(told, "downgraded", bool),
        safe_mode=_read(told, "safe_mode", bool),
    )
    shares = (envelope.weight, envelope.ramp_fraction)
    if envelope.generation < 0 or not all(0 <= share <= 1 for share in shares):
        raise BadDecision("generation, weight or ramp_fraction is out of range")
    return envelope


def _read(told: Mapping[str, Any], name: str, kind: type) -> Any:
    value = told.get(name)
    if type(value) is not kind:  # Not isinstance: True is no generation.
        raise BadDecision(f"{name} is {value!r}")
    return value


def _number(told: Mapping[str, Any], name: str) -> float:
    value: object = told.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadDecision(f"{name} is {value!r}")
    return float(value)


def _instant(told: Mapping[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_read(told, name, str))
        if moment.tzinfo is None:
            raise ValueError("it has no offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadDecision(f"{name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Silent:
    """Nobody answered, or a server that fails: nothing is known that was not known before."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that is no decision: it lowers, until a better one comes."""

    why: str


Answered = DecisionEnvelope | Refused | Silent


def ask(client: Client, world: str, strategy_id: str) -> Answered:
    """What came of asking the world once."""
    try:
        return envelope_of(client.decide_one(world, strategy_id), world, strategy_id)
    except Away as error:
        return Silent(str(error))
    except ApiError as error:
        return Silent(str(error)) if as_good_as_away(error) else Refused(str(error))
    except BadDecision as error:
        return Refused(str(error))


def as_good_as_away(error: ApiError) -> bool:
    """Whether the server could not, rather than would not."""
    return error.status >= 500 or error.status == 429


def is_strangers(error: ApiError) -> bool:
    """Whether no server of ours said it: a proxy's login page, say, or a redirection to one."""
    return error.status < HTTPStatus.BAD_REQUEST


@dataclass(frozen=True, slots=True)
class Held:
    """A decision and the instant, on `monotonic`, from which on it was asked for.

    `lowered` is the reason why it no longer counts although it has not expired.
    """

    envelope: DecisionEnvelope | None
    asked_at: float
    lowered: str | None = None

    def after(self, answered: Answered, asked_at: float) -> "Held":
        """What is held after an answer.

        INVARIANT: an older generation never replaces a newer one; it may only lower it (I4).
        """
        match answered:
            case Silent():
                return self
            case Refused(why):
                return replace(self, lowered=why)
            case DecisionEnvelope() if newer(self.envelope, answered) is answered:
                return Held(answered, asked_at)
            case DecisionEnvelope(safe_mode=True):
                return replace(self, lowered=(*answered.reasons, Reason.WORLDSERVICE_AWAY)[0])
            case DecisionEnvelope():
                return self

    def mode(self, now: float) -> Mode:
        """What may be done at `now`, an instant of `monotonic`."""
        if self.lowered is not None:
            return Mode.COMPUTE_ONLY
        return permitted(self.envelope, timedelta(seconds=now - self.asked_at))

    def why_lower(self, now: float) -> str | None:
        """Why the mode at `now` is lower than the world decided; None when it is not."""
        if self.lowered is not None:
            return self.lowered
        if self.envelope is None:
            return Reason.DECISION_MISSING
        if self.envelope.downgraded or self.envelope.safe_mode:
            return (*self.envelope.reasons, Reason.DECISION_MISSING)[0]
        if self.mode(now) is not self.envelope.effective_mode:
            return Reason.DECISION_EXPIRED
        return None


NOTHING = Held(None, 0.0)


class Decisions:
    """The newest decision of each of a world's strategies.  May be used by several threads.

    `refresh` asks the world; `permitted` looks at what is held, and at the clock.
    """

    def __init__(self, client: Client, world: str) -> None:
        self._client = client
        self._world = world
        self._held: dict[str, Held] = {}
        self._lock = Lock()

    def refresh(self, strategy_id: str) -> Mode:
        """Ask once; what is permitted now.

        When nobody answers, or the server fails, what is held goes on until it expires.  An answer
        that refuses or cannot be read lowers to compute-only at once, until a better one comes.
        """
        asked_at = monotonic()
        answered = ask(self._client, self._world, strategy_id)
        with self._lock:
            held = self._held.get(strategy_id, NOTHING)
            self._held[strategy_id] = held.after(answered, asked_at)
        return self.permitted(strategy_id)

    def permitted(self, strategy_id: str) -> Mode:
        """What the strategy may do at this instant.  In doubt, compute only."""
        return self._held.get(strategy_id, NOTHING).mode(monotonic())

    def held(self, strategy_id: str) -> Held:
        """The decision itself, and when it was asked for."""
        return self._held.get(strategy_id, NOTHING)

    def weight(self, strategy_id: str) -> float:
        """The share of capital it may use at this instant; 0 unless it is live."""
        held = self._held.get(strategy_id, NOTHING)
        if held.envelope is None or held.mode(monotonic()) is not Mode.LIVE:
            return 0.0
        return held.envelope.weight

    def why_lower(self, strategy_id: str) -> str | None:
        """Why it may do less than the world decided; None when it may do just that."""
        return self._held.get(strategy_id, NOTHING).why_lower(monotonic())
