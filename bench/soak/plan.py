"""What dies when: drawn from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from random import Random

DIES = ("server 0", "loop 0", "bus", "database")
# The second half: what grows is seen in what goes on living.
SURVIVES = ("server 1", "loop 1", "notifier")
EVERYBODY = (*DIES, *SURVIVES)
DOWN_SEC = (0.1, 3.0)


@dataclass(frozen=True, slots=True)
class Death:
    """On a day (from 0), so far into it, of one process; and how long it is gone."""

    day: int
    part: float  # Of the day, as long as the day before it took.
    target: str
    down_sec: float


def deaths(days: int, count: int, seed: int) -> tuple[Death, ...]:
    """So many, spread over the days: everything dies in turn, and in the second half the rest."""
    chance = Random(seed)
    first = ceil(count / 2)
    targets = [*_turns(chance, EVERYBODY, first), *_turns(chance, DIES, count - first)]
    halves = (range(first), 0, days // 2), (range(first, count), days // 2, days)
    drawn = []
    for numbers, begins, ends in halves:
        for place, number in enumerate(numbers):
            day = begins + int((place + chance.random()) / len(numbers) * (ends - begins))
            drawn.append(Death(day, chance.random(), targets[number], chance.uniform(*DOWN_SEC)))
    return tuple(drawn)


def _turns(chance: Random, among: Sequence[str], count: int) -> list[str]:
    """Each as often as the others, give or take one."""
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += chance.sample(among, k=len(among))
    return drawn[:count]
