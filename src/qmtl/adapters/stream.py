"""A world's journal as it happens, read from server-sent events (`entry/events.py` writes them)."""

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from qmtl.adapters.answered import Away

if TYPE_CHECKING:
    import httpx

LINE_BYTES_MAX: Final = 64 << 20  # The runs of a cohort of ten thousand are one event.
SEQ_DIGITS_MAX: Final = 16  # As the server takes them back in Last-Event-ID.


class BadEvent(ValueError):
    """What came is no event of a journal; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the journal.  `type` is the CloudEvent's; most events are never looked into."""

    seq: int
    type: str
    content: bytes

    def cloud_event(self) -> dict[str, Any]:
        """What the event says.  Raises BadEvent when that is not what its frame says."""
        try:
            told = json.loads(self.content)
        except ValueError as error:
            raise BadEvent(f"event {self.seq} is no JSON: {error}") from error
        if not isinstance(told, dict) or not isinstance(told.get("data"), dict):
            raise BadEvent(f"event {self.seq} is no CloudEvent with data")
        if (told.get("id"), told.get("type")) != (str(self.seq), self.type):
            raise BadEvent(f"event {self.seq} is told as {told.get('type')} {told.get('id')}")
        return told


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing happened, and the stream is alive.

    `start` is the seq that the stream starts after, in the first frame of one that was told none.
    """

    start: int | None = None


class Subscription:
    """An open stream: iterate over it, inside a `with`.

    Raises Away when it breaks or says nothing for too long, BadEvent for what is no event; a server
    that stops ends it.  `interrupt`, from another thread, breaks it.
    """

    def __init__(self, told: "httpx.Response", url: str) -> None:
        self._told = told
        self._url = url

    def __iter__(self) -> Iterator[Event | Quiet]:
        import httpx

        try:
            yield from frames(lines_of(self._told.iter_bytes()))
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
            raise Away(f"{self._url}: the stream of events broke: {why}") from error

    def interrupt(self) -> None:
        """Wakes who waits for the next event.  Closing would not: the wait is in the kernel."""
        stream = self._told.extensions.get("network_stream")
        connection = None if stream is None else stream.get_extra_info("socket")
        if isinstance(connection, socket.socket):
            with suppress(OSError):  # It broke before.
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._told.close()


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends.  Only line feeds end one: JSON may hold what else str splits at."""
    line = bytearray()
    for chunk in chunks:
        for piece in chunk.splitlines(keepends=True):
            line += piece
            if len(line) > LINE_BYTES_MAX:
                raise BadEvent(f"a line of the stream has more than {LINE_BYTES_MAX} bytes")
            if piece.endswith(b"\n"):
                yield bytes(line).rstrip(b"\r\n")
                line.clear()


def frames(lines: Iterable[bytes]) -> Iterator[Event | Quiet]:
    """What the lines say; a frame that the stream breaks off in is none."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        if line.startswith(b":"):
            yield Quiet()
        elif line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            more = name == b"data" and name in fields
            fields[name] = fields[name] + b"\n" + value if more else value
        elif fields:
            yield _frame(fields)
            fields = {}


def _frame(fields: dict[bytes, bytes]) -> Event | Quiet:
    seq = None if b"id" not in fields else _seq(fields[b"id"])
    if b"data" not in fields:
        return Quiet(seq)
    if seq is None:
        raise BadEvent("an event came without its id")
    kind = fields.get(b"event", b"message").decode(errors="replace")
    return Event(seq, kind, fields[b"data"])


def _seq(told: bytes) -> int:
    if not (told.isdigit() and len(told) <= SEQ_DIGITS_MAX):
        raise BadEvent(f"{told[:80]!r} is no id of an event")
    return int(told)
