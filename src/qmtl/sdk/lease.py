"""What an order gate knows, and what follows from it.  No clock and no threads: see `gate.py`.

Three things close it, each by itself: the decision (none, lowered, expired, compute-only), the
stream of events (silent or broken), and its end.  To open again after either of the first two takes
a decision that was asked for since, of a generation at least that of every event heard.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from qmtl.core.decision import DecisionEnvelope
from qmtl.core.names import Mode, Reason

from .decisions import NOTHING, Answered, Held, Refused, Silent
from .notice import Notice

RENEWALS: Final = 3  # In a term: two may fail before it ends.
NOT_HEARD: Final = "not connected to the stream of events yet"
ASKING: Final = "connected; not yet told what was decided"


@dataclass(frozen=True, slots=True)
class Leave:
    """What may be done before `until`, an instant of `monotonic`; from then on, compute only."""

    mode: Mode
    weight: float  # 0 unless live.
    until: float


CLOSED: Final = Leave(Mode.COMPUTE_ONLY, 0.0, -math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A decision and the stream that would take it back.  Instants are of `monotonic`."""

    ttl_sec: float  # At most; a decision may have a shorter term.
    held: Held = NOTHING
    generation_min: int = 0  # Of the newest event heard: older decisions do not know of it.
    asked_min: float = -math.inf  # What was asked for before may miss what was not heard.
    heard_at: float = -math.inf
    deaf: str | None = NOT_HEARD  # Why the stream does not count.
    over: str | None = None  # Why nothing counts any more.
    trouble: str = ""  # What kept from asking or from hearing, last.
    leased: int = 0  # The generation of the last live decision: what is let go at the end.

    @property
    def sequence(self) -> int:
        """The newest generation seen; nothing older counts (I4)."""
        envelope = self.held.envelope
        return max(self.generation_min, 0 if envelope is None else envelope.generation)

    # ---- What happens --------------------------------------------------------------------

    def heard(self, now: float) -> "Lease":
        """The stream is alive.  After a silence, what was decided before does not open the gate."""
        if self.deaf is None and now < self.heard_at + self.ttl_sec:
            return replace(self, heard_at=now)
        held = replace(self.held, lowered=ASKING)
        return replace(self, heard_at=now, asked_min=now, held=held, deaf=None)

    def missed(self, why: str) -> "Lease":
        """The stream broke off; it may come back before it counts as silent."""
        return replace(self, trouble=why)

    def deafened(self, why: str) -> "Lease":
        """The stream was refused, or cannot be trusted: events may be missing."""
        return replace(self, deaf=why)

    def noticed(self, notice: Notice) -> "Lease":
        """An event that bears on the decision.

        INVARIANT: what lowers closes at once, unless a decision that knows of it is held already.
        """
        envelope, held = self.held.envelope, self.held
        known = envelope is not None and envelope.generation >= notice.generation
        if notice.stops is not None and not known:
            held = replace(held, lowered=notice.stops)
        newest = max(self.generation_min, notice.generation)
        return replace(self, held=held, generation_min=newest)

    def told(self, answered: Answered, asked_at: float) -> "Lease":
        """The world was asked, and this came of it."""
        if isinstance(answered, DecisionEnvelope):
            answered = self._worth(answered, asked_at)
        if isinstance(answered, Silent):
            return replace(self, trouble=answered.why)
        held = self.held.after(answered, asked_at)
        leased = self.leased
        if held.envelope is not None and held.mode(held.asked_at) is Mode.LIVE:
            leased = held.envelope.generation
        return replace(self, held=held, trouble="", leased=leased)

    def _worth(self, told: DecisionEnvelope, asked_at: float) -> Answered:
        """The decision, or what there is instead when it does not count."""
        if told.safe_mode:
            return Refused("; ".join(told.reasons) or Reason.WORLDSERVICE_AWAY)
        if told.generation < self.sequence:
            return Silent(f"decision {told.generation} is older than {self.sequence}, already seen")
        if asked_at < self.asked_min:
            return Silent("the decision was asked for before the stream was back")
        return told

    def ended(self, why: str) -> "Lease":
        return replace(self, over=self.over or why)

    # ---- What follows --------------------------------------------------------------------

    def leave(self) -> Leave:
        """What may be done, and until when, if nothing else happens."""
        envelope = self.held.envelope
        if self.over is not None or self.deaf is not None or envelope is None:
            return CLOSED
        mode = self.held.mode(self.held.asked_at)
        until = min(self._expires_at(), self.heard_at + self.ttl_sec)
        return Leave(mode, envelope.weight if mode is Mode.LIVE else 0.0, until)

    @property
    def term_sec(self) -> float:
        """Of the decision that is held: the envelope's, and at most the gate's."""
        envelope = self.held.envelope
        return 0.0 if envelope is None else min(envelope.ttl.total_seconds(), self.ttl_sec)

    @property
    def renew_sec(self) -> float:
        """How long after asking to ask again."""
        return self.term_sec / RENEWALS

    def _expires_at(self) -> float:
        return self.held.asked_at + self.term_sec

    def why(self, now: float) -> str | None:
        """Why it may have nothing at `now`; None when it may trade with a weight above 0."""
        held = self.held
        trouble = f": {self.trouble}" if self.trouble else ""
        closed = self.over or self.deaf
        if closed is not None:
            return closed + (trouble if closed == NOT_HEARD else "")
        if held.lowered is not None:
            return held.lowered + (trouble if held.lowered == ASKING else "")
        if held.envelope is None:
            return f"no decision yet{trouble}"
        if held.mode(held.asked_at) is not held.envelope.effective_mode:
            return f"the decision's term, {held.envelope.ttl.total_seconds():g} s, is none"
        if now >= self.heard_at + self.ttl_sec:
            return f"stream silent for {now - self.heard_at:.0f} s{trouble}"
        if now >= self._expires_at():
            return f"lease expired {now - self._expires_at():.0f} s ago{trouble}"
        if self.leave().weight == 0:
            return "; ".join(held.envelope.reasons) or held.envelope.effective_mode
        return None
