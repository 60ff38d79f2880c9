"""What a process logs: one line for each thing, as text or as a JSON object, each with the request
it belongs to.

A line is written by a thread of its own.  INVARIANT: nobody waits for whoever reads the log; when
they do not keep up, lines are dropped, and how many is the next line.
"""

import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final

import orjson

HEADER: Final = b"x-request-id"
# What others call a request by: UUIDs, trace ids, what load balancers make.  Nothing that a line of
# a log, a header or a shell would read as something else.
REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:=+/@-]{1,128}")
LINES_MAX: Final = 10_000  # That wait to be written: a few MB.
BATCH_MAX: Final = 1_000  # Lines in one write.
REST_SEC: Final = 0.02  # Between two: to be woken for each line costs more than to write it.
CLOSE_SEC: Final = 2.0  # For what still waits when the process ends.
REQUESTS: Final = "qmtl.requests"

_BEGIN: Final = secrets.token_hex(6)  # Of the ids that this process makes: no other begins so.
_NUMBER: Final = count(1)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Log(StrEnum):
    """How lines are written."""

    TEXT = "text"
    JSON = "json"


@dataclass(slots=True)
class Asked:
    """The request that is being answered, as far as it is known: `world` and `actor` only once a
    credential was found good for them."""

    request_id: str
    method: str
    world: str | None = None
    actor: str | None = None


ASKED: Final[ContextVar[Asked | None]] = ContextVar("asked", default=None)


def request_id_of(headers: list[tuple[bytes, bytes]]) -> str:
    """What a request is called by: as whoever sent it says, if that is sane and said once; else a
    name that no other request has."""
    told = [value for name, value in headers if name == HEADER]
    if len(told) == 1 and REQUEST_ID.fullmatch(told[0]):
        return told[0].decode()
    return f"{_BEGIN}-{next(_NUMBER):x}"


def known(world: str | None = None, actor: str | None = None) -> None:
    """Of the request that is being answered: who asks, and in which world."""
    asked = ASKED.get()
    if asked is not None:
        asked.world = asked.world if world is None else world
        asked.actor = asked.actor if actor is None else actor


# ---- Lines -------------------------------------------------------------------------------------


def _parts(record: logging.LogRecord) -> dict[str, Any]:
    """All that a line says, in order; what is not known is not there."""
    asked: Asked | None = ASKED.get()
    route: Mapping[str, Any] = record.__dict__.get("answered", {})
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    found = {
        "time": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    if asked is not None:
        about = {"method": asked.method, "world": asked.world, "actor": asked.actor}
        found["request_id"] = asked.request_id
        found |= {name: value for name, value in about.items() if value is not None}
    return {**found, **route}


def _traceback(record: logging.LogRecord) -> str | None:
    return logging.Formatter().formatException(record.exc_info) if record.exc_info else None


def as_json(record: logging.LogRecord) -> str:
    """One JSON object; `exception` is a traceback."""
    parts, traceback = _parts(record), _traceback(record)
    if traceback is not None:
        parts["exception"] = traceback
    return orjson.dumps(parts, default=str).decode()


def as_text(record: logging.LogRecord) -> str:
    """Time, level, logger and message; then `name=value`; a traceback on lines of its own."""
    parts, traceback = _parts(record), _traceback(record)
    line = " ".join(parts.pop(name) for name in ("time", "level", "logger", "message"))
    line = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line)
    line = " ".join([line, *(f"{name}={value}" for name, value in parts.items())])
    return line if traceback is None else f"{line}\n{traceback}"


LINES: Final[Mapping[Log, Callable[[logging.LogRecord], str]]] = {
    Log.TEXT: as_text,
    Log.JSON: as_json,
}


class Lines(logging.Handler):
    """Takes records from any thread, and writes them from its own."""

    def __init__(self, log: Log, write: Callable[[bytes], object]) -> None:
        super().__init__()
        self._line, self._write = LINES[log], write
        self._waiting: SimpleQueue[str | None] = SimpleQueue()
        self._dropped = 0
        self._thread = Thread(target=self._serve, name="qmtl-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._waiting.qsize() >= LINES_MAX:
            self._dropped += 1
        else:
            self._waiting.put(self._line(record))

    def close(self) -> None:
        """What waits is written, unless nobody reads it."""
        self._waiting.put(None)
        self._thread.join(CLOSE_SEC)
        super().close()

    def _serve(self) -> None:
        ends = False
        while not ends:
            batch = [self._waiting.get()]
            while len(batch) < BATCH_MAX and not self._waiting.empty():
                batch.append(self._waiting.get())
            ends = None in batch
            lines = [line for line in batch if line is not None]
            dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(self._line(_dropped(dropped)))
            if lines:
                self._write("".join(f"{line}\n" for line in lines).encode())
            if not ends:
                time.sleep(REST_SEC)


def _dropped(number: int) -> logging.LogRecord:
    said = "%d lines were dropped: whoever reads this log does not keep up"
    return logging.LogRecord("qmtl.log", logging.WARNING, "", 0, said, (number,), None)


def _to_stderr(content: bytes) -> None:
    """Past Python's own buffer, whose lock a thread that waits would hold at the end."""
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(sys.__stderr__.fileno(), left) :]  # type: ignore[union-attr]  # A server has one.
    except OSError:
        return  # Nobody reads it any more; that is no reason to stop.


@contextmanager
def written(log: Log | None, write: Callable[[bytes], object] = _to_stderr) -> Iterator[None]:
    """Log while the block runs.  None: what went wrong, as text; else each request, too."""
    root, ours = logging.getLogger(), logging.getLogger("qmtl")
    lines, level = Lines(log or Log.TEXT, write), ours.level
    root.addHandler(lines)
    if log is not None:
        ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        root.removeHandler(lines)
        lines.close()
