"""Who is told, for tests: an HTTP server on loopback that answers as it is scripted, and a world
whose notices are read through the API."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from qmtl.adapters.client import Client
from tests.http.harness import Harness

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # The specification's own example.
SOON_SEC = 20.0


@dataclass
class Got:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Answer:
    """What to answer: a status, headers, after so long.  `first` is called before."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after_sec: float = 0.0
    first: Callable[[], None] = lambda: None


@dataclass
class Receiver:
    url: str = ""
    got: list[Got] = field(default_factory=list)
    script: list[Answer] = field(default_factory=list)  # What comes after is 200.

    def wait_for(self, count: int) -> list[Got]:
        until = time.monotonic() + SOON_SEC
        while len(self.got) < count:
            assert time.monotonic() < until, f"{len(self.got)} of {count} came"
            time.sleep(0.02)
        return self.got


@contextmanager
def receiving(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.script.pop(0) if receiver.script else Answer()
            receiver.got.append(Got(self.path, headers, body))
            answer.first()
            time.sleep(answer.after_sec)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            with suppress(BrokenPipeError, ConnectionResetError):  # Whoever asked has gone.
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    receiver.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Clock:
    """One that is set by the test."""

    at: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def pass_(self, by: timedelta) -> None:
        self.at += by


def client_of(harness: Harness, who: str = "rea") -> Client:
    """The client that the notifier would have, with nothing but a reader's credential."""

    def handle(request: httpx.Request) -> httpx.Response:
        told = harness.client.request(
            request.method,
            request.url.raw_path.decode(),
            content=request.content,
            headers=dict(request.headers),
        )
        return httpx.Response(told.status_code, headers=told.headers, content=told.content)

    return Client("http://testserver", harness.tokens[who], transport=httpx.MockTransport(handle))
