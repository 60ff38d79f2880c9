"""Decisions on the client's side: read strictly, aged on a clock of one's own, never raised.

Whatever is wrong with a decision (missing, expired, malformed, of another strategy, older than one
already seen), the answer is compute-only.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.core.decision import DecisionEnvelope, newer, permitted
from qmtl.core.names import Mode, Reason, StrategyId, WorldId


class BadDecision(ValueError):
    """An answer that is no decision; the message says what is wrong with it."""


def monotonic() -> float:
    """Seconds that only ever pass, those in which the machine slept included where it can tell.

    A laptop that wakes up after an hour must not think its decision fresh.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


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
    if envelope.generation < 0 or not 0 <= envelope.ramp_fraction <= 1:
        raise BadDecision("generation or ramp_fraction is out of range")
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
    except ValueError as error:
        raise BadDecision(f"{name}: {error}") from error
    if moment.tzinfo is None:
        raise BadDecision(f"{name} has no offset")
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Held:
    """A decision and the instant, on `monotonic`, from which on it was asked for.

    `lowered` is the reason why it no longer counts although it has not expired.
    """

    envelope: DecisionEnvelope | None
    asked_at: float
    lowered: str | None = None

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
        try:
            told = self._client.decide_one(self._world, strategy_id)
            envelope = envelope_of(told, self._world, strategy_id)
        except Away:
            return self.permitted(strategy_id)
        except ApiError as error:
            if not (error.status >= 500 or error.status == 429):  # Else it is as good as away.
                self._lower(strategy_id, str(error))
            return self.permitted(strategy_id)
        except BadDecision as error:
            self._lower(strategy_id, str(error))
            return self.permitted(strategy_id)
        self._take(strategy_id, envelope, asked_at)
        return self.permitted(strategy_id)

    def _take(self, strategy_id: str, told: DecisionEnvelope, asked_at: float) -> None:
        """INVARIANT: an older generation never replaces a newer one; it may only lower it (I4)."""
        with self._lock:
            held = self._held.get(strategy_id, NOTHING)
            if newer(held.envelope, told) is told:
                self._held[strategy_id] = Held(told, asked_at)
            elif told.safe_mode:
                self._held[strategy_id] = Held(held.envelope, held.asked_at, told.reasons[0])

    def _lower(self, strategy_id: str, why: str) -> None:
        with self._lock:
            held = self._held.get(strategy_id, NOTHING)
            self._held[strategy_id] = Held(held.envelope, held.asked_at, why)

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
