"""A server, or a loop, that kills itself (SIGKILL) at the k-th boundary of what it is asked.

A boundary is where something that others may rely on is about to happen, or has just happened:
whatever begins or ends a transaction or a savepoint, the sync, renaming or removal of a file, a
request to another process and its answer, and an answer of one's own.  They are counted as they
come, so that one that is added to the product is found by itself.

Processes are forked from one that has imported the product, which costs a tenth of a start.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import wraps
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from time import monotonic, sleep
from types import TracebackType
from typing import Any

import httpx
from sqlalchemy import Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmtl.adapters.client import Client
from qmtl.entry import loop, server, wiring

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
BORDERS = ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT")
FILES = ("fsync", "rename", "replace", "unlink")
NEVER = 1 << 30
NAMES_MAX = 1 << 16  # Far more than any act has.
DEADLINE_SEC = 20.0
POLL_SEC = 0.001


@dataclass
class Shared:
    """What a process and whoever started it both see.

    left    boundaries until it dies, itself included; 0: none is counted
    over    requests that have ended since it was armed
    names   of the boundaries that were reached, each ending in a line break; `size` bytes of them
    """

    left: Any = field(default_factory=lambda: CONTEXT.RawValue("q", 0))
    over: Any = field(default_factory=lambda: CONTEXT.RawValue("q", 0))
    names: Any = field(default_factory=lambda: CONTEXT.RawArray("c", NAMES_MAX))
    size: Any = field(default_factory=lambda: CONTEXT.RawValue("q", 0))


class Boundaries:
    """Counts in the process that is to die."""

    def __init__(self, shared: Shared) -> None:
        self.shared, self._lock = shared, threading.Lock()

    def reached(self, name: str) -> None:
        with self._lock:
            if not self.shared.left.value:
                return
            line, size = f"{name}\n".encode(), self.shared.size.value
            self.shared.names[size : size + len(line)] = line
            self.shared.size.value += len(line)
            self.shared.left.value -= 1
            if not self.shared.left.value:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(call)
        def counted(*args: Any, **options: Any) -> Any:
            self.reached(f"before {name}")
            told = call(*args, **options)
            self.reached(f"after {name}")
            return told

        return counted

    def watch(self) -> None:
        """Every boundary but a server's own answers, which `Answering` sees."""
        for moment in ("before", "after"):
            event.listen(Engine, f"{moment}_cursor_execute", self._statement(moment))
        for name in FILES:
            setattr(os, name, self.around(getattr(os, name), name))
        httpx.Client.send = self.around(httpx.Client.send, "a request")  # type: ignore[method-assign]  # For this process's life.
        send = httpx.AsyncClient.send

        async def asked(*args: Any, **options: Any) -> Any:
            self.reached("before a request to the world")
            told = await send(*args, **options)
            self.reached("after the world's answer")
            return told

        httpx.AsyncClient.send = asked  # type: ignore[method-assign]  # The same.

    def _statement(self, moment: str) -> Callable[..., None]:
        def seen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if statement.startswith(BORDERS):
                self.reached(f"{moment} {statement}")

        return seen


@dataclass(frozen=True)
class Answering:
    """An application whose answers are boundaries."""

    app: ASGIApp
    boundaries: Boundaries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            self.boundaries.reached("before a part of the answer")
            await send(message)
            self.boundaries.reached("after a part of the answer")

        try:
            await self.app(scope, receive, told)
        finally:
            self.boundaries.shared.over.value += 1


def _served(settings: wiring.Settings, shared: Shared, pipe: Any) -> None:
    boundaries = Boundaries(shared)
    boundaries.watch()
    opened = server.opened

    def watched(asked: wiring.Settings) -> wiring.Opened:
        what = opened(asked)
        return replace(what, app=Answering(what.app, boundaries))

    server.opened = watched
    server.run(settings, pipe.send)


def _looped(url: str, token: str, world: str, shared: Shared) -> None:
    Boundaries(shared).watch()
    with Client(url, token) as client:
        loop.run_once(client, world)


@dataclass(frozen=True)
class Mortal:
    """A process, and what it is armed with."""

    process: BaseProcess
    shared: Shared
    url: str = ""

    def arm(self, at: int) -> None:
        """It dies at the boundary of this number, the first being 1."""
        self.shared.over.value = self.shared.size.value = 0
        self.shared.left.value = at

    @property
    def died(self) -> bool:
        return self.process.exitcode == -signal.SIGKILL

    @property
    def reached(self) -> list[str]:
        """The boundaries since it was armed; it died at the last one, if it did."""
        told: bytes = self.shared.names[: self.shared.size.value]
        return told.decode().splitlines()

    def settled(self) -> bool:
        """Whether it died of what it was asked, once that has ended one way or the other."""
        deadline = monotonic() + DEADLINE_SEC
        while self.process.is_alive() and not self.shared.over.value:
            assert monotonic() < deadline, f"neither over nor dead, after {self.reached[-1:]}"
            sleep(POLL_SEC)
        if not self.process.is_alive():
            self.process.join()
            assert self.died, f"exit code {self.process.exitcode}"
        return self.died

    def stop(self) -> None:
        self.shared.left.value = 0
        if self.process.is_alive():
            self.process.terminate()
        self.process.join(DEADLINE_SEC)

    def __enter__(self) -> "Mortal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def serve(settings: wiring.Settings) -> Mortal:
    """A server that listens, and is not armed yet."""
    shared = Shared()
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_served, args=(settings, shared, there), daemon=True)
    process.start()
    there.close()
    with here, suppress(EOFError):
        while here.poll(DEADLINE_SEC):
            line = here.recv()
            if line.startswith(server.READY):
                return Mortal(process, shared, line.removeprefix(server.READY))
    process.kill()
    process.join()
    raise AssertionError(f"the server did not start; exit code {process.exitcode}")


def run_loop(url: str, token: str, world: str, dies_at: int = 0) -> Mortal:
    """A turn of the campaign loop, which dies at that boundary of its own; 0: never."""
    shared = Shared()
    shared.left.value = dies_at
    process = CONTEXT.Process(target=_looped, args=(url, token, world, shared), daemon=True)
    process.start()
    return Mortal(process, shared)
