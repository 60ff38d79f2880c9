"""A whole story from a seed, what came of it, and the shortest one that goes wrong the same way."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from qmtl.adapters import workers
from qmtl.adapters.audit.allowed import audit
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.wire import answers, export
from qmtl.app.ports import Store

from .actors import everyone
from .network import Network
from .scene import WORLD
from .weather import Fault, Weather
from .witness import Broken

STEPS = 1_000
ON_DISK_EVERY = 50  # Of the seeds, one plays on SQLite: slower, and its tables are compared, too.
REPLAYS_MAX = 150  # Of a story that is shrunk: under a minute.
SHARED_MEMORY = Path("/dev/shm")  # Where there is one, a disk is not waited for.


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a story; `broken` is what did not hold, nothing when all did."""

    seed: int
    steps: int
    promotions: int
    faults: Counter[Fault]
    acts: Counter[str]
    broken: tuple[str, ...]
    trace: tuple[str, ...]  # Its last events.
    struck: tuple[int, ...]  # The draws of the weather that were faults.
    people: tuple[str, ...]


def play(
    seed: int,
    steps: int = STEPS,
    without: frozenset[int] = frozenset(),
    mute: frozenset[str] = frozenset(),
    *,
    calm: bool = False,
) -> Outcome:
    """So many steps of the story of a seed; fewer when something breaks, or nothing happens."""
    with _store(seed) as store:
        weather = Weather(Random(f"{seed} weather"), without, calm)
        network = Network(seed, store, weather, mute)
        everyone(network)
        broken: tuple[str, ...] = ()
        try:
            network.run(steps)
            broken = tuple(_at_the_end(store))
        except Broken as error:
            broken = error.args
        journal = store.journal(WORLD, 0, 10**6)
        return Outcome(
            seed=seed,
            steps=network.witness.steps,
            promotions=sum(entry.fact.kind == "promotion_applied" for entry in journal),
            faults=network.weather.counts(),
            acts=network.acts,
            broken=broken,
            trace=tuple(network.trace),
            struck=tuple(network.weather.happened),
            people=tuple(network.people),
        )


def played(
    seeds: Sequence[int],
    steps: int = STEPS,
    place: workers.Place = workers.HERE,
    finished: Callable[[int], None] = workers.silent,
) -> list[Outcome]:
    """The story of each seed, in their order, up to the first that breaks."""
    one = partial(play, steps=steps)
    return workers.computed(one, seeds, place, finished=finished, enough=_is_broken)


def _is_broken(outcome: Outcome) -> bool:
    return bool(outcome.broken)


@contextmanager
def _store(seed: int) -> Iterator[Store]:
    if seed % ON_DISK_EVERY:
        yield MemoryStore()
        return
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with TemporaryDirectory(dir=where) as folder:
        store = SqlStore(Path(folder))
        try:
            yield store
        finally:
            store.close()


def _at_the_end(store: Store) -> Iterator[str]:
    """Every transition was allowed, says the audit; on disk, tables and chain are sound."""
    told = (answers.chained(entry) for entry in store.chained(WORLD, 0, 10**6))
    for transition in audit(export.entry(WORLD, entry) for entry in told):
        for violation in transition.violations:
            yield f"I1: entry {transition.seq}, {transition.strategy_id}: {violation.what}"
    if isinstance(store, SqlStore):
        yield from (f"I5: {said}" for said in store.audit(WORLD))
        if store.verify(WORLD) is not None:
            yield "I5: the chain of the journal is broken"


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest story found: who never acts in it, and which faults are left out."""

    outcome: Outcome
    without: frozenset[int] = frozenset()
    mute: frozenset[str] = frozenset()
    calm: bool = False

    def again(self) -> Outcome:
        return play(self.outcome.seed, self.outcome.steps, self.without, self.mute, calm=self.calm)


def shrunk(found: Outcome) -> Shrunk:
    """The same breakage with fewer people and fewer faults, as far as REPLAYS_MAX replays go."""
    kind, left = found.broken[0].split(":")[0], REPLAYS_MAX
    best = Shrunk(found)

    def tried(smaller: Shrunk) -> bool:
        nonlocal best, left
        left -= 1
        if left < 0:
            return False
        outcome = smaller.again()
        if not outcome.broken or outcome.broken[0].split(":")[0] != kind:
            return False
        best = replace(smaller, outcome=outcome)
        return True

    tried(replace(best, calm=True))
    for who in found.people:
        tried(replace(best, mute=best.mute | {who}))
    size = 0 if best.calm else max(1, len(best.outcome.struck) // 2)
    while size:
        for start in range(0, len(best.outcome.struck), size):
            part = best.outcome.struck[start : start + size]
            tried(replace(best, without=best.without | set(part)))
        size //= 2
    return best
