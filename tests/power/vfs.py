"""An apsw VFS that writes down what SQLite asks of the disk, and can make any of it fail.

Files are real ones, in a folder that costs nothing to write; what a power loss would leave of them
is worked out from what was written down (`disk.py`).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from threading import Lock
from types import TracebackType
from typing import Any

import apsw

from .disk import Answered, Created, Deleted, Event, Synced, SyncFailed, Truncated, Written

NAME = "qmtl-power"
LOGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class Kind(StrEnum):
    """What a disk is asked to do."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    SYNC = "sync"
    TRUNCATE = "truncate"
    DELETE = "delete"


class Way(StrEnum):
    """A way to fail."""

    EIO = "EIO"
    FULL = "ENOSPC"
    SHORT = "short read"
    FLIP = "flipped bit"


@dataclass(frozen=True, slots=True)
class Fault:
    """Operation number `at` fails, and, if it lasts, every one of its kind from there on.

    With kind None every operation counts, and fails.
    """

    way: Way
    kind: Kind | None
    at: int
    lasts: bool = False
    seed: int = 0


CODES = {
    Kind.READ: apsw.SQLITE_IOERR_READ,
    Kind.WRITE: apsw.SQLITE_IOERR_WRITE,
    Kind.SYNC: apsw.SQLITE_IOERR_FSYNC,
    Kind.TRUNCATE: apsw.SQLITE_IOERR_TRUNCATE,
    Kind.DELETE: apsw.SQLITE_IOERR_DELETE,
}


def error(kind: Kind, way: Way) -> apsw.Error:
    failed: apsw.Error
    if way is Way.FULL:
        failed, code = apsw.FullError("ENOSPC"), apsw.SQLITE_FULL
    elif kind is Kind.OPEN:
        failed, code = apsw.CantOpenError("EIO"), apsw.SQLITE_CANTOPEN
    else:
        failed, code = apsw.IOError(f"EIO on {kind}"), CODES[kind]
    failed.extendedresult = code
    return failed


class Recorder:
    """Everything that one folder's disk was asked, in order."""

    def __init__(self, names: Iterator[str], fault: Fault | None = None) -> None:
        self.events: list[Event] = []
        self.counts: Counter[Kind] = Counter()
        self.reads: list[tuple[str, int]] = []  # Of which file, and from where.
        self.fault, self.failed = fault, 0
        self._names = set(names)
        self._lock = Lock()

    def heal(self) -> None:
        self.fault = None

    def answered(self, step: int) -> None:
        with self._lock:
            self.events.append(Answered(step))

    def note(self, event: Event) -> None:
        with self._lock:
            match event:
                case Created(name=name) if name in self._names:
                    return
                case Created(name=name):
                    self._names.add(name)
                case Deleted(name=name):
                    self._names.discard(name)
            self.events.append(event)

    def asked(self, kind: Kind) -> Fault | None:
        """Counts an operation; how it fails, if it does."""
        with self._lock:
            self.counts[kind] += 1
            fault = self.fault
            if fault is None or fault.kind not in (None, kind):
                return None
            number = self.counts[kind] if fault.kind else self.counts.total()
            if number == fault.at or (fault.lasts and number > fault.at):
                self.failed += 1
                return fault
            return None

    def knows(self, name: str) -> bool:
        return name in self._names


class File(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: str, given: Any, flags: list[int]) -> None:
        super().__init__("", given, flags)
        self._recorder, self._name = recorder, name
        # unixOpen and unixSync: a new log's first sync makes its name safe, too.
        self._new_log = bool(flags[0] & LOGS) and not recorder.knows(name)
        recorder.note(Created(name))

    def xRead(self, amount: int, offset: int) -> bytes:
        self._recorder.reads.append((self._name, offset))
        fault = self._recorder.asked(Kind.READ)
        if fault is not None and fault.way not in (Way.SHORT, Way.FLIP):
            raise error(Kind.READ, fault.way)
        data = super().xRead(amount, offset)
        if fault is None or not data:
            return data
        return data[: len(data) // 2] if fault.way is Way.SHORT else flipped(data, fault.seed)

    def xWrite(self, data: Any, offset: int) -> None:
        fault, content = self._recorder.asked(Kind.WRITE), bytes(data)
        if fault is not None:
            content = content[: len(content) // 2]  # As far as it came.
        super().xWrite(content, offset)
        self._recorder.note(Written(self._name, offset, content))
        if fault is not None:
            raise error(Kind.WRITE, fault.way)

    def xTruncate(self, newsize: int) -> None:
        if fault := self._recorder.asked(Kind.TRUNCATE):
            raise error(Kind.TRUNCATE, fault.way)
        super().xTruncate(newsize)
        self._recorder.note(Truncated(self._name, newsize))

    def xSync(self, flags: int) -> None:
        if fault := self._recorder.asked(Kind.SYNC):
            self._recorder.note(SyncFailed(self._name))
            raise error(Kind.SYNC, fault.way)
        self._recorder.note(Synced(self._name, with_directory=self._new_log))
        self._new_log = False

    def excepthook(
        self,
        etype: type[BaseException] | None,
        evalue: BaseException | None,
        etraceback: TracebackType | None,
    ) -> bool:
        """An error that SQLite has no way to tell anybody of, as when the last one closes."""
        return True


class Disk(apsw.VFS):
    """Every folder that somebody watches."""

    def __init__(self) -> None:
        super().__init__(NAME, "")
        self.watched: dict[Path, Recorder] = {}

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        recorder = self.watched.get(path.parent)
        if recorder is None:
            return apsw.VFSFile("", name, flags)
        if fault := recorder.asked(Kind.OPEN):
            raise error(Kind.OPEN, fault.way)
        return File(recorder, path.name, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        path = Path(filename)
        recorder = self.watched[path.parent]
        if fault := recorder.asked(Kind.DELETE):
            raise error(Kind.DELETE, fault.way)
        super().xDelete(filename, False)
        recorder.note(Deleted(path.name, with_directory=syncdir))

    def excepthook(
        self,
        etype: type[BaseException] | None,
        evalue: BaseException | None,
        etraceback: TracebackType | None,
    ) -> bool:
        return True


DISK = Disk()


@contextmanager
def watching(folder: Path, fault: Fault | None = None) -> Iterator[Recorder]:
    """What happens in a folder, for the length of a block."""
    recorder = Recorder((path.name for path in folder.iterdir()), fault)
    DISK.watched[folder] = recorder
    try:
        yield recorder
    finally:
        del DISK.watched[folder]


def flipped(data: bytes, seed: int) -> bytes:
    """The same but for one bit, where something is: what is zero is mostly unused."""
    chance, changed = Random(seed), bytearray(data)
    used = [at for at, byte in enumerate(data) if byte] or range(len(data))
    changed[chance.choice(used)] ^= 1 << chance.randrange(8)
    return bytes(changed)
