"""What stands around every answer of a process: the name it was called by, and what it tells
browsers.

The API is not for browsers, so they are told to do nothing with it; the dashboard's pages say what
they need (`dashboard/render.py`).  There is no CORS: no page of elsewhere may read an answer.
"""

from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import problems

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",  # For browsers that do not know frame-ancestors.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # Reads say `no-cache`, and are asked for again by their ETag.
}
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})  # Names of this machine itself.
HSTS: Final = "max-age=31536000; includeSubDomains"  # A year, as browsers' own lists ask for.


class Guard:
    """Around an application, and around what answers for its bugs, too."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, https: bool) -> None:
        """`hosts`: the names a request may call it by; None: any."""
        self.app, self.hosts = app, hosts
        headers = {**HEADERS, **({"Strict-Transport-Security": HSTS} if https else {})}
        self.headers = [(k.lower().encode(), v.encode()) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = message.get("headers", ())
                known = {name for name, _ in told}  # An answer that knows better says so.
                message["headers"] = [*told, *(h for h in self.headers if h[0] not in known)]
            await send(message)

        await self._asked(scope)(scope, receive, guarded)

    def _asked(self, scope: Scope) -> ASGIApp:
        name = host_of(Headers(scope=scope).get("host", ""))
        if self.hosts is None or name in self.hosts:
            return self.app
        # A page whose own name leads here (DNS rebinding) would otherwise be no page of elsewhere.
        return problems.problem(
            400, f"Host: {name[:80]!a} is no name of this server; its auth file lists `hosts`."
        )


def host_of(header: str) -> str:
    """The name in a Host header, without the port."""
    name, _, port = header.rpartition(":")
    whole = name if name and port.isdigit() and not name.endswith(":") else header
    return whole.lower().removesuffix(".")


def guard(app: Starlette, hosts: frozenset[str] | None, https: bool) -> None:
    """Put the guard outside all that the application has, its answer to bugs included."""
    inner = app.build_middleware_stack
    app.build_middleware_stack = lambda: Guard(inner(), hosts, https)  # type: ignore[method-assign]  # Starlette has no place outside its own.
