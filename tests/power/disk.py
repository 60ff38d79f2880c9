"""What a disk is asked to do, and what it still holds when the power goes.

A write lies in volatile memory until its file is synced; until then each of its sectors may have
reached the platters or not, whatever became of the others. Files come and go in their directory,
in order, and that too is volatile until the directory is synced. A sync that fails drops what it
was to save: the next one does not save it either, as on Linux.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

SECTOR_BYTES = 512  # The least that any disk writes whole.

Image = Mapping[str, bytes]  # A directory: what its files hold, by name.


@dataclass(frozen=True, slots=True)
class Created:
    name: str


@dataclass(frozen=True, slots=True)
class Written:
    name: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    name: str
    with_directory: bool  # The file's name is safe, too.


@dataclass(frozen=True, slots=True)
class SyncFailed:
    name: str


@dataclass(frozen=True, slots=True)
class Deleted:
    name: str
    with_directory: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """No operation of the disk: whoever asked for step `step` was told that it is done."""

    step: int


Operation = Created | Written | Truncated | Synced | SyncFailed | Deleted
Event = Operation | Answered
Data = Written | Truncated
Entry = Created | Deleted


@dataclass(frozen=True, slots=True)
class Loss:
    """How much of what is volatile a power loss leaves: nothing, everything, or by chance."""

    name: str
    seed: int | None = None
    keeps: bool = False

    def draw(self, salt: int) -> "Chance":
        return Chance(self, Random(f"{self.seed} {salt}"))


@dataclass(frozen=True, slots=True)
class Chance:
    loss: Loss
    random: Random

    def kept(self) -> bool:
        return self.loss.keeps if self.loss.seed is None else self.random.random() < 0.5

    def first(self, count: int) -> int:
        """How many of `count` things that happen in order."""
        if self.loss.seed is None:
            return count if self.loss.keeps else 0
        return self.random.randint(0, count)


NOTHING, ALL = Loss("nothing"), Loss("all", keeps=True)
TORN = 5  # Ways, by chance, of which sectors were written and which were not.
LOSSES = (NOTHING, ALL, *(Loss(f"torn {seed}", seed=seed) for seed in range(TORN)))


class Volatile:
    """A disk as it goes: what is safe, and what is at stake.  Files are known by numbers, since a
    name that was deleted may have come to stand for another file."""

    def __init__(self, image: Image) -> None:
        self.names = {name: number for number, name in enumerate(image)}  # In the directory.
        self.safe_names = dict(self.names)
        self.safe = {self.names[name]: held for name, held in image.items()}
        self.data: dict[int, list[Data]] = defaultdict(list)
        self.entries: list[tuple[Entry, int]] = []
        self._files = len(image)

    def see(self, events: Iterable[Event]) -> None:
        for event in events:
            self._see(event)

    def _see(self, event: Event) -> None:
        match event:
            case Created(name=name):
                self.names[name], self._files = self._files, self._files + 1
                self.safe[self.names[name]] = b""
                self.entries.append((event, self.names[name]))
            case Written(name=name) | Truncated(name=name):
                self.data[self.names[name]].append(event)
            case Synced(name=name, with_directory=with_directory):
                file = self.names[name]
                self.safe[file] = whole(self.safe[file], self.data.pop(file, ()))
                if with_directory:
                    self.sync_directory()
            case SyncFailed(name=name):
                self.data.pop(self.names[name], None)
            case Deleted(name=name, with_directory=with_directory):
                self.entries.append((event, self.names.pop(name)))
                if with_directory:
                    self.sync_directory()
            case Answered():
                pass

    def sync_directory(self) -> None:
        self.safe_names, self.entries = dict(self.names), []

    @property
    def at_stake(self) -> bool:
        return bool(self.entries) or any(self.data.values())

    def after(self, chance: Chance) -> Image:
        """What is there when the power is back."""
        names = dict(self.safe_names)
        for entry, file in self.entries[: chance.first(len(self.entries))]:
            if isinstance(entry, Created):
                names[entry.name] = file
            else:
                names.pop(entry.name, None)
        return {
            name: whole(self.safe[file], list(torn(self.data.get(file, ()), chance)))
            for name, file in names.items()
        }


def torn(pending: Sequence[Data], chance: Chance) -> Iterator[Data]:
    """What became of volatile operations: of each write some sectors, of the rest all or none."""
    for event in pending:
        if isinstance(event, Truncated):
            if chance.kept():
                yield event
            continue
        start, end = event.offset, event.offset + len(event.data)
        while start < end:
            stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if chance.kept():
                part = event.data[start - event.offset : stop - event.offset]
                yield Written(event.name, start, part)
            start = stop


def whole(held: bytes, operations: Iterable[Data]) -> bytes:
    """A file after operations on it. What nobody wrote within it is zeros."""
    content = bytearray(held)
    for event in operations:
        if isinstance(event, Truncated):
            del content[event.size :]
            content.extend(bytes(max(0, event.size - len(content))))
            continue
        end = event.offset + len(event.data)
        content.extend(bytes(max(0, end - len(content))))
        content[event.offset : end] = event.data
    return bytes(content)


def cuts(image: Image, events: Sequence[Event]) -> Iterator[tuple[int, Volatile, int]]:
    """The disk at each of its operations, as if the power went in the middle of it, and at the end.

    Yields the number of the operation; the disk, to be looked at before the next; and how many
    steps had been answered. In the middle of a write it is volatile, and a sync has saved nothing.
    """
    disk, answered, number = Volatile(image), 0, 0
    for event in events:
        match event:
            case Answered(step=step):
                answered = step
                continue
            case Synced() | SyncFailed():
                yield number, disk, answered
                disk.see([event])
            case Deleted(name=name, with_directory=with_directory):
                disk.see([Deleted(name, with_directory=False)])
                yield number, disk, answered
                if with_directory:
                    disk.sync_directory()
            case _:
                disk.see([event])
                yield number, disk, answered
        number += 1
    yield number, disk, answered
