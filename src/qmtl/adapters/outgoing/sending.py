"""What became of one attempt to tell something, and when to try again.

INVARIANT: `said` is of our own words and the other side's status, never of a URL, a header or what
was answered: a webhook's address is often a secret, and `said` goes into the log.
"""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

FIRST_SEC: Final = 5.0
LONGEST_SEC: Final = 3_600.0
ATTEMPTS_MAX: Final = 32  # About a day: a weekend's outage is for `qmtl notify replay`.
ASKED_SEC_MAX: Final = 86_400.0  # A receiver that asks for more is told tomorrow.
SEND_SEC: Final = 10.0  # Of one attempt, connecting included.


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt.

    status      what the other side answered; None when it did not
    said        what happened, in a few words
    after_sec   how long it asks to be left alone; None when it does not
    final       it will never be taken: trying again is of no use
    """

    ok: bool
    said: str
    status: int | None = None
    after_sec: float | None = None
    final: bool = False


def again_sec(attempts: int, asked: float | None, chance: random.Random) -> float | None:
    """How long to wait after so many attempts in vain; None: no more.

    Doubled from FIRST_SEC up to LONGEST_SEC, and of that a random part between half and all, so
    that those who failed together do not come back together; never sooner than the receiver asked.
    """
    if attempts >= ATTEMPTS_MAX:
        return None
    ceiling = min(LONGEST_SEC, FIRST_SEC * 2.0 ** (attempts - 1))
    wait = ceiling * chance.uniform(0.5, 1.0)
    return wait if asked is None else max(wait, asked_for(asked).total_seconds())


def asked_for(sec: float) -> timedelta:
    """How long a receiver that asks for so many seconds is left alone."""
    return timedelta(seconds=min(sec, ASKED_SEC_MAX))
