"""What happened in a world, in sentences: its journal, told as far as it has been read.

A sentence needs the world as it was just before, so the journal is folded once, from its first
entry, and from then on only its new entries are.  Of what the hub took in, which is most of a
journal and needs no world to be told, no sentence is kept: it is made when somebody looks.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock
from typing import Final

from qmtl.app.ports import Store
from qmtl.core.facts import Entry, EvaluationsRecorded, SnapshotStored
from qmtl.core.fold import advance
from qmtl.core.happened import happened, subject_of
from qmtl.core.names import ActorId, Stage, StrategyId, Verdict, WorldId
from qmtl.core.view import WorldView

BATCH: Final = 100  # Entries read from the store at once.
BUDGET_SEC: Final = 0.3  # Of one page's time; a longer journal is read over several.
TURNS_MAX: Final = 100
LINES_MAX: Final = 300_000  # Kept in memory of one world; beyond it the oldest go.


@dataclass(frozen=True, slots=True)
class Line:
    """An entry; `sentence` None: it is told when it is looked at."""

    seq: int
    at: datetime
    actor: ActorId
    kind: str
    subjects: tuple[StrategyId, ...]
    sentence: str | None


@dataclass(slots=True)
class Story:
    """As far as it has been read.  `moves`: by strategy, what changed something for it; `turns`:
    the newest of those of everybody, and of the world itself."""

    view: WorldView
    lines: dict[int, Line] = field(default_factory=dict)
    moves: dict[StrategyId, list[Line]] = field(default_factory=dict)
    turns: deque[Line] = field(default_factory=lambda: deque(maxlen=TURNS_MAX))
    verdicts: dict[tuple[StrategyId, Stage], Verdict] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def read(self, store: Store, budget_sec: float) -> int:
        """Go on to the journal's end, or for as long as there is.  How many are left."""
        until = time.monotonic() + budget_sec
        with self.lock:
            for entry in self._unread(store):
                self._tell(entry)
                self.view = advance(self.view, entry)
                if time.monotonic() > until:  # After each: a bar of thousands takes a while.
                    break
            while len(self.lines) > LINES_MAX:
                del self.lines[next(iter(self.lines))]
        return max(0, store.load(self.view.world_id).seq - self.view.seq)

    def _unread(self, store: Store) -> Iterator[Entry]:
        while entries := store.journal(self.view.world_id, self.view.seq, BATCH):
            yield from entries

    def _tell(self, entry: Entry) -> None:
        fact = entry.fact
        if isinstance(fact, EvaluationsRecorded):
            self._judged(entry, fact)
            return
        snapshot = isinstance(fact, SnapshotStored)
        subject = None if snapshot else subject_of(self.view, fact)
        subjects = () if subject is None else (subject,)
        said = None if snapshot else happened(self.view, entry)
        line = Line(entry.seq, entry.at, entry.actor, fact.kind, subjects, said)
        self.lines[entry.seq] = line
        if not snapshot:
            self.turns.append(line)
        if subject is not None:
            self.moves.setdefault(subject, []).append(line)

    def _judged(self, entry: Entry, fact: EvaluationsRecorded) -> None:
        """A verdict moves a strategy when it is another than before."""
        subjects = tuple(run.strategy_id for run in fact.runs)
        self.lines[entry.seq] = Line(entry.seq, entry.at, entry.actor, fact.kind, subjects, None)
        for run in fact.runs:
            key = (run.strategy_id, fact.stage)
            if self.verdicts.get(key) is not run.verdict:
                self.verdicts[key] = run.verdict
                one = replace(entry, fact=replace(fact, runs=(run,), cohort=(), selected=()))
                said = happened(self.view, one)
                if run.details:
                    said = f"{said.rstrip('.')}: {'; '.join(run.details)}."
                line = Line(entry.seq, entry.at, entry.actor, fact.kind, (run.strategy_id,), said)
                self.moves.setdefault(run.strategy_id, []).append(line)
                self.turns.append(line)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter: what is None or empty asks for nothing."""

    strategy_id: StrategyId | None = None
    kind: str = ""
    actor: str = ""
    before: int | None = None

    def wants(self, line: Line) -> bool:
        return (
            (self.strategy_id is None or self.strategy_id in line.subjects)
            and self.kind in ("", line.kind)
            and self.actor in ("", line.actor)
            and (self.before is None or line.seq < self.before)
        )


class Stories:
    """Of every world that somebody has looked at."""

    def __init__(self) -> None:
        self._held: dict[WorldId, Story] = {}
        self._lock = Lock()

    def of(self, store: Store, world_id: WorldId) -> tuple[Story, int]:
        """A world's story, and how many entries are still to be read."""
        with self._lock:
            story = self._held.setdefault(world_id, Story(WorldView(world_id=world_id)))
        return story, story.read(store, BUDGET_SEC)


def newest(story: Story, wanted: Wanted, limit: int) -> list[Line]:
    """The last so many that are wanted, the newest first."""
    found: list[Line] = []
    for seq in reversed(tuple(story.lines)):
        line = story.lines.get(seq)
        if line is not None and wanted.wants(line):
            found.append(line)
            if len(found) == limit:
                break
    return found


def told(store: Store, world_id: WorldId, lines: Sequence[Line]) -> Iterator[Line]:
    """The same lines, each with its sentence."""
    for line in lines:
        if line.sentence is not None:
            yield line
            continue
        (entry,) = store.journal(world_id, line.seq - 1, 1)
        yield replace(line, sentence=happened(WorldView(world_id=world_id), entry))
