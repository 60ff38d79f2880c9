"""What callers can do wrong.  The tree carries the HTTP status; the docstring is the message.

Errors are for callers.  A bug is an assertion, and nobody catches those.
"""

from collections.abc import Iterable

from .names import Reason


class Refusal(Exception):
    """The request was understood and refused."""

    status = 409

    def __init__(self, *subject: str, reasons: Iterable[Reason] = ()) -> None:
        super().__init__(*subject)
        self.reasons = tuple(reasons)

    def __str__(self) -> str:
        message = (self.__doc__ or "Refused.").strip()
        return f"{message} {' '.join(map(str, self.args))}" if self.args else message


class Malformed(Refusal):
    """The request cannot be read."""

    status = 400


class Unauthenticated(Refusal):
    """No valid credential came with the request."""

    status = 401


class Forbidden(Refusal):
    """The credential does not allow this."""

    status = 403


class Unknown(Refusal):
    """There is no such thing here."""

    status = 404


class UnknownWorld(Unknown):
    """No such world."""


class SnapshotReduced(Unknown):
    """Retention has removed a part of this snapshot; that it was stored is still on record."""

    status = 410


class UnknownToken(Unknown):
    """No such token."""


class UnknownConfirmation(Unknown):
    """Nothing waits for this confirmation."""


class UnknownStrategy(Unknown):
    """No such strategy in this world."""


class UnknownRun(Unknown):
    """No such evaluation run."""


class UnknownCandidate(Unknown):
    """No such promotion candidate."""


class UnknownPolicy(Unknown):
    """No such policy version."""


class UnknownSnapshot(Unknown):
    """No such snapshot."""


class TooSlow(Refusal):
    """The request did not come to its end in time."""

    status = 408


class Changed(Refusal):
    """What the request was based on is no longer current."""

    status = 412


class TooLarge(Refusal):
    """The request is over a limit."""

    status = 413


class Invalid(Refusal):
    """The request does not validate."""

    status = 422


class Conflict(Refusal):
    """The request contradicts what is recorded."""


class SlowDown(Refusal):
    """Too much at once; try again."""

    status = 429

    def __init__(self, *subject: str, wait_sec: float) -> None:
        super().__init__(*subject)
        self.wait_sec = wait_sec


class WorldBusy(Refusal):
    """Other writers kept winning; try again."""

    status = 503


class IssuerAway(Refusal):
    """The keys of the issuer of this credential cannot be fetched; try again."""

    status = 503


class CodeDiffers(Refusal):
    """This process runs other code than the one that started last: it takes nobody live."""

    status = 503


class UpstreamAway(Refusal):
    """The world service does not answer; try again."""

    status = 503
