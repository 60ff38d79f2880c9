"""One process that listens: what `qmtl serve` runs."""

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from qmtl.core.errors import Refusal

from . import tracing
from .logs import Log, written
from .wiring import Opened, Settings, opened

LOG = logging.getLogger("qmtl.server")
READY = "listening on "  # What scripts wait for; the URL follows.
GRACE_SEC = 10  # A request that takes longer than this to end is cut off.
BACKLOG = 2_048
HEADERS_SEC = 10.0  # A client has its request ready when it connects; a network is back by then.
HEAD_BYTES_MAX = 65_536  # Of a request before its body, ten times what any client sends.


class Prompt(HttpToolsProtocol):
    """Hangs up on who connects and does not come to the end of what they ask.

    Such a connection costs them nothing, and a process has only so many, and so much memory.
    Bodies have times and sizes of their own (`door.py`); a connection that waits for its next
    request has uvicorn's.
    """

    _hangs_up: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As in uvicorn.
        super().connection_made(transport)
        self._be_asked()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes += len(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self.transport.close()
        self._be_asked()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._asked()

    def _be_asked(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._asked()
        elif self._hangs_up is None:
            self._hangs_up = self.loop.call_later(HEADERS_SEC, self.transport.close)

    def _asked(self) -> None:
        if self._hangs_up is not None:
            self._hangs_up.cancel()
            self._hangs_up = None


class Server(uvicorn.Server):
    """uvicorn, saying when it listens; streams end before it waits for connections to."""

    def __init__(self, config: uvicorn.Config, what: Opened, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.what, self.ready = what, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.what.ending()
        await super().shutdown(sockets)


def run(settings: Settings, say: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; then finish what runs, and close the store.

    Says where the credential is and what it listens on, never the credential; warns on stderr.
    Raises CannotListen when the address is taken, and whatever `wiring.opened` raises.
    """
    say = say or _print
    with written(settings.log), tracing.told(settings.part):
        _run(settings, say)


def _run(settings: Settings, say: Callable[[str], None]) -> None:
    listener = _bound(settings.host, settings.port)
    try:
        what = opened(settings)
        try:
            for line in what.warns:
                if settings.log is Log.JSON:  # Whatever is on stderr is an object then.
                    LOG.warning(line)
                else:
                    sys.stderr.write(f"warning: {line}\n")
            for line in what.says:
                say(line)
            _serve(what, listener, lambda: say(READY + url_of(listener)))
        finally:
            what.close()
    finally:
        listener.close()


def config_of(app: ASGIApp, grace_sec: int = GRACE_SEC) -> uvicorn.Config:
    """How an application is served."""
    return uvicorn.Config(
        app,
        http=Prompt,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # Whoever connects is who asks: X-Forwarded-For is anybody's to write.
        timeout_graceful_shutdown=grace_sec,
    )


def _serve(what: Opened, listener: socket.socket, ready: Callable[[], None]) -> None:
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises a signal again once it is done; the store still has to be closed then.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _noted)
    Server(config_of(what.app), what, ready).run(sockets=[listener])


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The signal has been heard; the server stops by itself."""


class CannotListen(Refusal):
    """The server cannot listen there."""


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotListen(f"{host}, port {port}: {error.strerror}.") from error
    # Inherited by what it accepts. An answer in two writes would wait 40 ms for the client's
    # delayed acknowledgement of the first; asyncio sees no TCP in a socket it has not made.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
