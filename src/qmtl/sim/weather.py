"""What goes wrong between those who act and the world: faults from a seed, each to be left out.

Every chance is drawn whether or not its fault is allowed, so that leaving one out changes nothing
before it, and little after it: that is how a long story is shrunk to what matters in it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from random import Random


class Fault(StrEnum):
    LOST = "message lost"
    ANSWER_LOST = "answer lost"
    ANSWER_LATE = "answer late"
    LATE = "message late"
    DUPLICATED = "message duplicated"
    PARTITION = "partition"
    CRASH_BEFORE = "crash before a commit"
    CRASH_AFTER = "crash after a commit"
    DISK_FULL = "disk full"
    CLOCK_JUMP = "server's clock jumps"
    SKEW = "producer's clock is wrong"


CHANCES: Mapping[Fault, float] = {  # Of each time that it could be.
    Fault.LOST: 0.03,
    Fault.ANSWER_LOST: 0.03,
    Fault.ANSWER_LATE: 0.06,
    Fault.LATE: 0.06,
    Fault.DUPLICATED: 0.05,
    Fault.PARTITION: 0.004,
    Fault.CRASH_BEFORE: 0.02,
    Fault.CRASH_AFTER: 0.02,
    Fault.DISK_FULL: 0.01,
    Fault.CLOCK_JUMP: 0.2,
    Fault.SKEW: 0.1,
}
LATE_MAX = timedelta(minutes=8)  # Longer than a decision lives.


@dataclass
class Weather:
    """Draws faults; none when it is `calm`.  `without` are the numbers of draws that are none."""

    rng: Random
    without: frozenset[int] = frozenset()
    calm: bool = False
    drawn: int = 0
    happened: dict[int, Fault] = field(default_factory=dict)

    def strikes(self, fault: Fault) -> bool:
        self.drawn += 1
        struck = self.rng.random() < CHANCES[fault] and self.drawn not in self.without
        struck = struck and not self.calm
        if struck:
            self.happened[self.drawn] = fault
        return struck

    def up_to(self, longest: timedelta) -> timedelta:
        """A length of time, mostly short."""
        return longest * self.rng.random() ** 2

    def counts(self) -> Counter[Fault]:
        return Counter(self.happened.values())
