"""Server-sent events, byte by byte."""

import json
from typing import Any

import httpx
import pytest

from qmtl.adapters import stream
from qmtl.adapters.client import ApiError, Away, Client
from qmtl.adapters.stream import BadEvent, Event, Quiet, frames, lines_of

URL = "http://world.test"


def content(seq: int = 7, kind: str = "killed", **changes: Any) -> bytes:
    return json.dumps({"id": str(seq), "type": kind, "data": {}, **changes}).encode()


def read(text: bytes, size: int = 1 << 20) -> list[Event | Quiet]:
    """What comes of it, when it arrives in pieces of a size."""
    return list(frames(lines_of(text[i : i + size] for i in range(0, len(text), size))))


STREAM = b": quiet\n\nretry: 1000\nid: 6\n\nid: 7\nevent: killed\ndata: {}\n\n: quiet\n\n"
SEEN = [Quiet(), Quiet(6), Event(7, "killed", b"{}"), Quiet()]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_it_reads_the_same_however_it_is_cut(size: int) -> None:
    assert read(STREAM, size) == SEEN
    assert read(STREAM.replace(b"\n", b"\r\n"), size) == SEEN


READS: list[tuple[str, bytes, list[Event | Quiet]]] = [
    ("nothing", b"", []),
    ("no space after the colon", b"id:7\nevent:x\ndata:{}\n\n", [Event(7, "x", b"{}")]),
    ("data in two lines", b"id: 7\ndata: {\ndata: }\n\n", [Event(7, "message", b"{\n}")]),
    ("a field nobody knows", b"id: 7\nlate: 1\ndata: {}\n\n", [Event(7, "message", b"{}")]),
    ("cut off", b"id: 7\nevent: killed\ndata: {}\n", []),
    ("what str splits at", b"id: 7\ndata: \x0c\n\n", [Event(7, "message", b"\x0c")]),
]


@pytest.mark.parametrize(("name", "text", "seen"), READS, ids=[case[0] for case in READS])
def test_a_frame_is_read(name: str, text: bytes, seen: list[Event | Quiet]) -> None:
    assert read(text) == seen


@pytest.mark.parametrize(
    "text",
    [b"data: {}\n\n", b"id: x\ndata: {}\n\n", b"id: \n\n", b"id: 12345678901234567\n\n"],
)
def test_a_frame_without_a_seq_is_no_event(text: bytes) -> None:
    with pytest.raises(BadEvent, match="id"):
        read(text)


def test_a_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LINE_BYTES_MAX", 100)
    with pytest.raises(BadEvent, match="more than 100 bytes"):
        read(b"data: " + b"x" * 200, 10)


@pytest.mark.parametrize(
    "told",
    [
        b"{",
        b"\xff",
        b"[]",
        content(data=[]),
        content(seq=8),
        content(id=7),
        content(kind="resumed"),
    ],
)
def test_an_event_says_what_its_frame_says(told: bytes) -> None:
    assert Event(7, "killed", content()).cloud_event()["data"] == {}
    with pytest.raises(BadEvent, match="event 7"):
        Event(7, "killed", told).cloud_event()


# ---- The client --------------------------------------------------------------------------------

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}


class Broken(httpx.SyncByteStream):
    def __iter__(self) -> Any:
        yield b": quiet\n"
        raise httpx.ReadTimeout("timed out")


def client(answer: httpx.Response, seen: list[httpx.Request]) -> Client:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer

    return Client(URL, "t", transport=httpx.MockTransport(handle))


def test_what_is_asked_for() -> None:
    seen: list[httpx.Request] = []
    with client(httpx.Response(200, content=STREAM, headers=EVENTS), seen) as asked:
        with asked.subscribe("w", after=6, quiet_sec=2.5, silence_sec=7.0) as events:
            assert list(events) == SEEN
        with asked.subscribe("w"):
            pass
    first, second = seen
    assert first.url == f"{URL}/events/subscribe?world=w&quiet_sec=2.5"
    assert first.headers["Last-Event-ID"] == "6"
    assert first.extensions["timeout"] == {"connect": 5.0, "read": 7.0, "write": 7.0, "pool": 7.0}
    assert second.url == f"{URL}/events/subscribe?world=w"
    assert "Last-Event-ID" not in second.headers


def test_a_stream_that_breaks_is_away() -> None:
    answer = httpx.Response(200, stream=Broken(), headers=EVENTS)
    with client(answer, []) as asked, asked.subscribe("w") as events:
        told = iter(events)
        assert next(told) == Quiet()
        with pytest.raises(Away, match="timed out"):
            next(told)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (httpx.Response(401, json={"title": "No valid credential."}), ApiError, "401 No valid"),
        (httpx.Response(404, json={"title": "Unknown", "detail": "w"}), ApiError, "404 Unknown: w"),
        (httpx.Response(503, json={"title": "Away"}), Away, "cannot work now"),
        (httpx.Response(500, text="oops", headers=EVENTS), ApiError, "500"),
        (
            httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"}),
            ApiError,
            "200",
        ),
        (httpx.Response(200, json={}), ApiError, "JSON instead of events"),
    ],
)
def test_a_stream_that_is_none_is_refused(
    answer: httpx.Response, error: type[Exception], words: str
) -> None:
    with client(answer, []) as asked, pytest.raises(error, match=words):
        asked.subscribe("w")
