"""The gateway as a process of its own: a door in front of a world service that may be away.

It has no database.  Every request goes on as it came.  When the world is away or silent, a decision
is what was decided before, until that expires, and then compute-only; a submission is kept on disk
and forwarded later; everything else is 503.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from qmtl import __version__
from qmtl.adapters.traced import carried
from qmtl.adapters.wire import answers_live, bodies_hub
from qmtl.adapters.wire import shapes_live as jl
from qmtl.adapters.wire.instants import parse, rfc3339
from qmtl.app.ports import Clock
from qmtl.core import decision
from qmtl.core.errors import Refusal, Unauthenticated, UpstreamAway
from qmtl.core.names import Reason, StrategyId, WorldId
from qmtl.sdk.decisions import monotonic

from . import auth, problems
from .dashboard import routes as dashboard
from .door import BULK_BYTES_MAX, JSON, body_of, dumped
from .guard import LOOPBACK, guard, host_of
from .logs import ASKED
from .observed import Counts, exposed, observe, of_gateway
from .spool import Kept, Spool

LOG = logging.getLogger("qmtl.gateway")
CONNECT_SEC: Final = 2.0
SILENT_SEC: Final = 60.0  # A cohort of thousands is judged in one request.
DECIDE_SEC: Final = 2.0  # Longer than this, and a strategy that waits for its decision is stuck.
KEEPALIVE_SEC: Final = 2.0  # Less than the server's, so that it never hangs up on a new request.
FORWARD_SEC: Final = 1.0  # Between looks at what is kept,
FORWARD_SEC_MAX: Final = 30.0  # and at most, while the world stays away.
HELD_MAX: Final = 10_000  # Decisions; beyond it the oldest go.
METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
HOPS: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "host", "content-length"),
        "x-request-id",  # Of each of the two its own; that of here is passed on.
    }
)
TRACE: Final = ("traceparent", "tracestate")
KEPT: Final = "The world service is away: the submission is kept, and forwarded when it is back."


# What may lower a decision, by its method or the end of its path.
LOWERING = frozenset({"PATCH", "PUT", "DELETE"})
LOWERS = ("/kill", "/demote", "/set-default", "/restatements", "/reject")


def may_lower(method: str, path: str) -> bool:
    """Whether a request may lower a decision; of the dashboard's forms, each may."""
    form = method == "POST" and path.startswith(f"{auth.UI}/")
    return form or method in LOWERING or path.endswith(LOWERS)


@dataclass(frozen=True, slots=True)
class Told:
    """What the world decided, and when, on a clock that only goes forward, it was asked."""

    body: dict[str, Any]
    asked_at: float


class Gateway:
    """A world service's address, and what is kept for when nobody answers there."""

    def __init__(self, world_url: str, spool: Spool, clock: Clock) -> None:
        self.world_url = world_url.rstrip("/")
        self.spool, self.clock = spool, clock
        self.held: dict[tuple[str, str, str], Told] = {}
        self.lowered_at = 0.0  # Monotonic: when something that may lower a decision passed.
        self.more = asyncio.Event()
        self.closing = asyncio.Event()

    def close(self) -> None:
        """Streams and the forwarding end.  To be called on the event loop."""
        self.closing.set()
        self.more.set()

    @asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        """The connection to the world, and the forwarding of what is kept."""
        timeout = httpx.Timeout(SILENT_SEC, connect=CONNECT_SEC)
        limits = httpx.Limits(keepalive_expiry=KEEPALIVE_SEC)
        async with AsyncExitStack() as stack:
            client = httpx.AsyncClient(
                base_url=self.world_url, timeout=timeout, limits=limits, trust_env=False
            )
            self.client = await stack.enter_async_context(client)
            forwarding = asyncio.create_task(self.forward_kept())
            try:
                yield
            finally:
                self.close()
                await forwarding

    # ---- Passing on ------------------------------------------------------------------------

    async def send(self, request: Request, body: bytes, sec: float | None = None) -> httpx.Response:
        """The world's answer, its body not read yet.  Raises UpstreamAway."""
        # Of a decision, what is new is its term: it is always asked for whole.
        trace = carried()  # Of here, if here are traces; else the sender's goes on as it came.
        without = {*HOPS, *(TRACE if trace else ()), *(() if sec is None else ("if-none-match",))}
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in without]
        headers += trace.items()
        here = ASKED.get()
        assert here is not None, "every request has a name"
        headers.append(("x-request-id", here.request_id))
        url = httpx.URL(self.world_url)
        path = url.raw_path.rstrip(b"/") + request.scope["raw_path"]  # As it came, quoting and all.
        query = request.scope["query_string"]
        target = url.copy_with(raw_path=path + b"?" + query if query else path)
        asked = self.client.build_request(request.method, target, content=body, headers=headers)
        if sec is not None:
            asked.extensions["timeout"] = httpx.Timeout(sec, connect=CONNECT_SEC).as_dict()
        try:
            return await self.client.send(asked, stream=True)
        except httpx.TransportError as error:
            raise _away(error) from error

    async def forward(self, request: Request) -> Response:
        """Any request, as it came; the answer, as it comes."""
        body = await body_of(request, BULK_BYTES_MAX)
        try:
            return self.passed(await self.send(request, body))
        finally:
            if may_lower(request.method, request.url.path):
                self.forget()

    def forget(self) -> None:
        """INVARIANT: what was decided before a kill that passed here is not told after it."""
        self.held.clear()
        self.lowered_at = monotonic()

    def passed(self, answer: httpx.Response) -> Response:
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in HOPS}
        if "content-length" in answer.headers:
            headers["content-length"] = answer.headers["content-length"]
        return StreamingResponse(self._chunks(answer), answer.status_code, headers)

    async def _chunks(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        """Ends when the world's answer does, or this process."""
        chunks = answer.aiter_raw()
        closing = asyncio.create_task(self.closing.wait())
        try:
            while True:
                following = asyncio.ensure_future(anext(chunks, None))
                await asyncio.wait({following, closing}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    return
                chunk = following.result()
                if chunk is None:
                    return
                yield chunk
        finally:
            closing.cancel()
            await answer.aclose()

    # ---- Decisions -------------------------------------------------------------------------

    async def decide(self, request: Request) -> Response:
        """The world's decision; while it is away, what it decided last; then compute-only."""
        asked_at = monotonic()
        try:
            answer = await self.send(request, b"", DECIDE_SEC)
            try:
                content = await answer.aread()
            finally:
                await answer.aclose()
        except (UpstreamAway, httpx.TransportError) as error:
            return self.lowered(request, asked_at, error)
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self.lowered(request, asked_at, UpstreamAway("The world service fails."))
        key = _key(request)
        self.held.pop(key, None)
        if answer.status_code == HTTPStatus.OK and asked_at > self.lowered_at:
            self.held[key] = Told(orjson.loads(content), asked_at)
            while len(self.held) > HELD_MAX:
                del self.held[next(iter(self.held))]
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in HOPS}
        headers.pop("content-encoding", None)  # `aread` has undone it.
        return Response(content, answer.status_code, headers)

    def lowered(self, request: Request, now: float, why: Exception) -> Response:
        """What may be said while nobody can be asked.  To who shows no credential: nothing."""
        if not request.headers.get("authorization"):
            raise Unauthenticated("Send it as `Authorization: Bearer <token>`.")
        told = self.held.get(_key(request))
        world_id = WorldId(request.path_params["world_id"])
        strategy_id = request.query_params.get("strategy_id")
        if strategy_id is not None:
            body: object = self._aged(told, world_id, strategy_id, now)
            return Response(dumped(body), media_type=JSON)
        if told is None:
            raise UpstreamAway("The world service is away, and its strategies are not known here.")
        listed: list[dict[str, Any]] = told.body["decisions"]
        each = [
            self._aged(Told(one, told.asked_at), world_id, one["strategy_id"], now)
            for one in listed
        ]
        return Response(dumped({**told.body, "decisions": each}), media_type=JSON)

    def _aged(self, told: Told | None, world_id: WorldId, strategy_id: str, now: float) -> object:
        """A decision with the rest of its term; the floor, once that is over.

        INVARIANT: passed on, it ends when it would have ended: a client counts from when it asks.
        """
        if told is not None:
            age = timedelta(seconds=max(0.0, now - told.asked_at))
            issued_at, expires_at = parse(told.body["issued_at"]), parse(told.body["expires_at"])
            left = expires_at - issued_at - age
            if left > timedelta(0):
                aged = {"issued_at": rfc3339(issued_at + age), "ttl": left.total_seconds()}
                return {**told.body, **aged}
        return self._floor(world_id, strategy_id)

    def _floor(self, world_id: WorldId, strategy_id: str) -> jl.EnvelopeJson:
        now = self.clock.now()
        sid = StrategyId(strategy_id)
        return answers_live.envelope(decision.floor(world_id, sid, Reason.WORLDSERVICE_AWAY, now))

    # ---- Submissions -----------------------------------------------------------------------

    async def submit(self, request: Request) -> Response:
        """The world's answer; while it is away, 202: kept on disk, and forwarded later."""
        body = await body_of(request, BULK_BYTES_MAX)
        try:
            answer = await self.send(request, body)
            if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                return self.passed(answer)
            await answer.aclose()
        except UpstreamAway:
            LOG.warning("the world service is away; a submission is kept")
        return await run_in_threadpool(self._keep, request, body, self.clock.now())

    def _keep(self, request: Request, body: bytes, now: datetime) -> Response:
        authorization = request.headers.get("authorization")
        if not authorization:
            raise Unauthenticated("Send it as `Authorization: Bearer <token>`.")
        asked = bodies_hub.Submit.read(body)  # What the world would never take is refused now.
        self.spool.keep(Kept(authorization, request.headers.get("idempotency-key"), body), now)
        self.more.set()
        told: jl.SubmittedJson = {
            "world_id": asked.world,
            "strategy_id": asked.strategy_id,
            "version": None,
            "previous": None,
            "changed": [],
            "run_id": None,
            "verdict": None,
            "reasons": [Reason.WORLDSERVICE_AWAY],
            "details": [KEPT],
            "phase": None,
            "decision": self._floor(WorldId(asked.world), asked.strategy_id),
            "evaluation_run_url": None,
            "warnings": [KEPT],
            "explanation": None,
        }
        return Response(dumped(told), 202, media_type=JSON)

    async def forward_kept(self) -> None:
        """Until the end: whatever is kept, oldest first, again and again until it is answered."""
        wait = FORWARD_SEC
        while not self.closing.is_set():
            self.more.clear()
            waiting = await run_in_threadpool(self.spool.waiting)
            answered = [await self._forward_one(path) for path in waiting]
            wait = FORWARD_SEC if all(answered) else min(2 * wait, FORWARD_SEC_MAX)
            try:
                await asyncio.wait_for(
                    self.more.wait() if all(answered) else self.closing.wait(), wait
                )
            except TimeoutError:
                continue

    async def _forward_one(self, path: Path) -> bool:
        """Whether the world has answered for good."""
        if self.closing.is_set():
            return False
        kept = await run_in_threadpool(self.spool.read, path)
        if kept is None:
            LOG.error("%s cannot be read; it is set aside", path.name)
            return True
        headers = {"Authorization": kept.authorization, "Content-Type": JSON}
        if kept.idempotency_key is not None:
            headers["Idempotency-Key"] = kept.idempotency_key
        try:
            answer = await self.client.post("/strategies", content=kept.body, headers=headers)
        except httpx.HTTPError:
            return False
        status = answer.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            return False
        if answer.is_success:
            await run_in_threadpool(self.spool.done, path)
        else:
            LOG.warning("a kept submission was refused: %s", status)
            await run_in_threadpool(self.spool.refused, path, status, answer.content)
        return True


def _key(request: Request) -> tuple[str, str, str]:
    """Whose question it was: nobody is told what another credential was told."""
    credential = sha256(request.headers.get("authorization", "").encode()).hexdigest()
    strategy_id = request.query_params.get("strategy_id", "")
    return credential, str(request.path_params["world_id"]), strategy_id


def sealed(answer: Response, request: Request, https: bool) -> Response:
    """A cookie of the dashboard goes over TLS only, unless to this machine itself: the world
    service, which is reached from the gateway, does not know how the gateway is."""
    cookie = answer.headers.get("set-cookie")
    away = https or host_of(request.headers.get("host", "")) not in LOOPBACK
    if cookie is not None and away and "; secure" not in cookie.lower():
        answer.headers["set-cookie"] = f"{cookie}; Secure"
    return answer


def _away(error: httpx.TransportError) -> UpstreamAway:
    return UpstreamAway(f"The world service does not answer: {type(error).__name__}.")


def create_app(
    gateway: Gateway, hosts: frozenset[str] | None = None, https: bool = False
) -> Starlette:
    """The gateway's application.  `hosts` are its names, None: any; see `guard.py`."""

    async def healthz(_request: Request) -> Response:
        return Response(dumped({"status": "ok", "version": __version__}), media_type=JSON)

    async def forward(request: Request) -> Response:
        return sealed(await gateway.forward(request), request, https)

    counts = Counts()

    async def metrics(_request: Request) -> Response:
        return await run_in_threadpool(
            lambda: exposed(
                counts, of_gateway(gateway.spool, len(gateway.held), gateway.clock.now())
            )
        )

    app = Starlette(
        routes=[
            Route("/metrics", metrics, methods=["GET"]),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/worlds/{world_id}/decide", gateway.decide, methods=["GET"]),
            Route("/strategies", gateway.submit, methods=["POST"]),
            Route("/{path:path}", forward, methods=METHODS),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _http_problem, Exception: _bug},
        lifespan=gateway.running,
    )
    guard(app, hosts, https)
    observe(app, counts)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if dashboard.is_page(request):
        return dashboard.wrong(error.status, str(error))
    return problems.of(error)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}."
    return problems.problem(error.status_code, detail, headers=error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problems.problem(500, "This is a bug of the gateway; its log says more.")
