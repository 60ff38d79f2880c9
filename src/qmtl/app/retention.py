"""Reduce what is old to what has to stay."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from qmtl.core import retention
from qmtl.core.errors import Invalid
from qmtl.core.facts import Entry, Fact, RetentionApplied
from qmtl.core.names import WorldId
from qmtl.core.retention import Old
from qmtl.core.view import WorldView
from qmtl.core.words import counted

from .ports import Store
from .step import EVIDENCE, By, step, world

AGE_MIN: Final = timedelta(days=7)  # Whoever looks for what went wrong last week finds it whole.
ORPHANS_AGE_MIN: Final = timedelta(days=1)  # Between an object and its commit there are seconds.
PAGE: Final = 100
REDUCED_MAX: Final = 10  # By one commit: each is read, and written anew.


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is old enough; oldest first."""

    stored_before: datetime
    old: tuple[Old, ...]

    @property
    def removable(self) -> tuple[Old, ...]:
        return tuple(each for each in self.old if not each.held)

    @property
    def held(self) -> tuple[Old, ...]:
        return tuple(each for each in self.old if each.held)


def survey(store: Store, world_id: WorldId, now: datetime, age: timedelta) -> Survey:
    """What retention would do to snapshots stored longer ago than `age`, and what it would not.

    Reads the whole journal.  Raises UnknownWorld, Invalid.
    """
    if age < AGE_MIN:
        raise Invalid(f"older_than: at least {counted(AGE_MIN.days, 'day')}.")
    upto, before = world(store, world_id).seq, now - age
    return Survey(
        stored_before=before, old=retention.survey(_entries(store, world_id, upto), before)
    )


def _entries(store: Store, world_id: WorldId, upto: int) -> Iterator[Entry]:
    after = 0
    while after < upto:
        page = store.journal(world_id, after, min(PAGE, upto - after))
        yield from page
        after = page[-1].seq


def apply(
    store: Store,
    world_id: WorldId,
    by: By,
    age: timedelta,
    orphans_age: timedelta | None = None,
) -> tuple[Survey, int]:
    """Do it, a few snapshots a commit: what is done stays done.  Twice is once.

    With `orphans_age`, then be without the objects that no world here names, older than that: how
    many there were.

    A hold that comes meanwhile is on a newer snapshot: a decision looks at the newest one of a
    strategy, and what may go is no strategy's newest.
    """
    if orphans_age is not None and orphans_age < ORPHANS_AGE_MIN:
        raise Invalid(f"orphans_older_than: at least {counted(ORPHANS_AGE_MIN.days, 'day')}.")
    found = survey(store, world_id, by.now, age)
    seqs = [each.seq for each in found.removable]
    for start in range(0, len(seqs), REDUCED_MAX):
        some = seqs[start : start + REDUCED_MAX]

        def decide(view: WorldView, some: list[int] = some) -> tuple[None, tuple[Fact, ...]]:
            left = (store.reduction(world_id, seq, by.now) for seq in some)
            facts = tuple(each for each in left if each is not None)
            if not facts:
                return None, ()
            return None, (RetentionApplied(stored_before=found.stored_before, reduced=facts),)

        step(store, world_id, by, decide, reads=EVIDENCE)
    return found, 0 if orphans_age is None else store.collect(orphans_age)
