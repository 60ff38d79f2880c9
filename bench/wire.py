"""A client that costs little: requests as bytes, over connections that stay open.

It asks in a closed loop (each connection waits for its answer, then asks again: what a server can
do at most), or in an open one (requests begin when they are meant to, whatever became of those
before: what somebody who does not wait would see).  Every status is checked.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from urllib.parse import urlsplit

import numpy as np

END = b"\r\n\r\n"
LENGTH = b"content-length:"


@dataclass(frozen=True, slots=True)
class Load:
    """Answers a second, and from a request's intended start to its answer, in ms."""

    per_sec: float
    latencies_ms: np.ndarray

    def at(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent))


def request(
    method: str, path: str, token: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """A whole HTTP/1.1 request."""
    told = {"Host": "localhost", "Authorization": f"Bearer {token}", **(headers or {})}
    if body:
        told |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join(lines).encode() + END + body


class Connection(asyncio.Protocol):
    """One request at a time; the answer is its status."""

    def __init__(self) -> None:
        self._read = bytearray()
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, wanted: bytes) -> asyncio.Future[int]:
        assert self._answer is None or self._answer.done(), "one request at a time"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(wanted)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._read += data
        head = self._read.find(END)
        if head < 0:
            return
        length = 0
        for line in self._read[:head].lower().split(b"\r\n"):
            if line.startswith(LENGTH):
                length = int(line[len(LENGTH) :])
        if len(self._read) >= head + len(END) + length:
            status = int(self._read[9:12])
            self._read.clear()
            assert self._answer is not None
            if not self._answer.done():  # Else who asked has given up.
                self._answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("it hung up"))

    def close(self) -> None:
        self._transport.close()


async def connected(url: str, count: int) -> list[Connection]:
    address, loop = urlsplit(url), asyncio.get_running_loop()
    return [
        (await loop.create_connection(Connection, address.hostname, address.port))[1]
        for _ in range(count)
    ]


def closed(url: str, requests: Sequence[bytes], clients: int, wanted: int = 200) -> Load:
    """All requests once, by so many clients, each after its last is answered."""
    return asyncio.run(_closed(url, requests, clients, wanted))


async def _closed(url: str, requests: Sequence[bytes], clients: int, wanted: int) -> Load:
    connections = await connected(url, clients)
    waiting: Iterator[bytes] = iter(requests)
    took: list[float] = []

    async def client(connection: Connection) -> None:
        for each in waiting:
            began = perf_counter()
            status = await connection.ask(each)
            took.append(perf_counter() - began)
            assert status == wanted, f"{status}: {each[:200]!r}"

    began = perf_counter()
    await asyncio.gather(*(client(connection) for connection in connections))
    lasted = perf_counter() - began
    for connection in connections:
        connection.close()
    return Load(len(took) / lasted, np.array(took) * 1e3)


def opened(url: str, wanted: Iterable[bytes], per_sec: float, seconds: float, clients: int) -> Load:
    """A request every `1 / per_sec`, whatever became of those before."""
    return asyncio.run(_opened(url, wanted, per_sec, seconds, clients))


def beside(
    url: str,
    wanted: Iterable[bytes],
    per_sec: float,
    others: Iterable[bytes],
    others_per_sec: float,
    seconds: float,
    clients: int,
) -> tuple[Load, Load]:
    """The same of two kinds of requests at once."""

    async def both() -> tuple[Load, Load]:
        return await asyncio.gather(
            _opened(url, wanted, per_sec, seconds, clients),
            _opened(url, others, others_per_sec, seconds, clients),
        )

    return asyncio.run(both())


async def _opened(
    url: str, wanted: Iterable[bytes], per_sec: float, seconds: float, clients: int
) -> Load:
    connections = await connected(url, clients)
    due = zip(np.arange(0.0, seconds, 1 / per_sec), wanted, strict=False)
    took: list[float] = []
    began = perf_counter() + 0.05

    async def client(connection: Connection) -> None:
        for start, asked in due:
            early = began + start - perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            told = await connection.ask(asked)
            took.append(perf_counter() - began - start)
            assert told == 200, f"{told}: {asked[:200]!r}"

    await asyncio.gather(*(client(connection) for connection in connections))
    lasted = perf_counter() - began
    for connection in connections:
        connection.close()
    return Load(len(took) / lasted, np.array(took) * 1e3)


class Listener(asyncio.Protocol):
    """Reads a stream that has no end, until it holds a word."""

    def __init__(self, asked: bytes, word: bytes) -> None:
        self._asked, self._word, self._tail = asked, word, b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        told = self._tail + data
        if b" 200 " in told and not self.opened.done():
            self.opened.set_result(None)
        if self._word in told and not self.heard.done():
            self.heard.set_result(perf_counter())
            told = b""
        self._tail = told[-len(self._word) :]


def told_all(
    url: str, asked: bytes, listeners: int, said: bytes, word: bytes, undo: bytes, times: int
) -> list[tuple[float, float]]:
    """Of each time that something is said, and undone: ms to its answer, and until the last
    listener has heard."""
    return asyncio.run(_told_all(url, asked, listeners, said, word, undo, times))


async def _told_all(
    url: str, asked: bytes, listeners: int, said: bytes, word: bytes, undo: bytes, times: int
) -> list[tuple[float, float]]:
    address, loop = urlsplit(url), asyncio.get_running_loop()
    (speaker,) = await connected(url, 1)
    there = [
        (
            await loop.create_connection(
                lambda: Listener(asked, word), address.hostname, address.port
            )
        )[1]
        for _ in range(listeners)
    ]
    await asyncio.gather(*(each.opened for each in there))
    found = []
    for _ in range(times):
        for each in there:
            each.heard = loop.create_future()
        began = perf_counter()
        assert await speaker.ask(said) == 200
        answered = perf_counter()
        heard = await asyncio.gather(*(each.heard for each in there))
        found.append(((answered - began) * 1e3, (max(heard) - began) * 1e3))
        assert await speaker.ask(undo) == 200
    for each in there:
        each.transport.close()
    speaker.close()
    return found
