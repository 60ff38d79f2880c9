"""The application: every router behind doors, every refusal a problem, every request counted."""

import logging
import time
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmtl import __version__
from qmtl.adapters.wire.shapes import HealthJson, JournalKeyJson
from qmtl.core.errors import Refusal
from qmtl.core.names import SYSTEM

from . import contract, events, gateway, journal, liveservice, problems, riskhub, worldservice
from .dashboard import routes as dashboard
from .dashboard.visits import Dashboard
from .door import JSON, dumped
from .guard import guard
from .lane import Lane
from .services import Services

LOG = logging.getLogger("qmtl.http")
ROUTERS: Final = (
    worldservice.ROUTES,
    liveservice.ROUTES,
    riskhub.ROUTES,
    gateway.ROUTES,
    journal.ROUTES,
    events.ROUTES,
)
UNMATCHED: Final = "(no route)"


class Counts:
    """What Prometheus is told: how many requests, and how long, by the template of their route."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "qmtl_http_requests_total",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "qmtl_http_request_seconds",
            "Until the first byte of the answer.",
            ["method", "route"],
            registry=self.registry,
        )


class Counted:
    """Counts a request when its answer begins: a stream that lasts a day is not slow."""

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self.app = app
        # The labels of a count are checked once: there are as many as routes have answers.
        self._requests = cache(counts.requests.labels)
        self._seconds = cache(counts.seconds.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        try:
            await self.app(scope, receive, told)
        finally:
            if not status:  # A bug; who answers it stands outside.
                status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
                self._count(scope, status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        template = route.path if isinstance(route, APIRoute) else UNMATCHED
        method = scope["method"] if template != UNMATCHED else "(any)"
        self._requests(method, template, status).inc()
        self._seconds(method, template).observe(seconds)


def create_app(services: Services) -> FastAPI:
    """The whole contract over one store."""
    app = FastAPI(
        title="qmtl", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.services = services
    app.state.dashboard = Dashboard()
    counts = Counts()
    for router in ROUTERS:
        app.router.routes.extend(router)
    app.router.routes.extend(dashboard.ROUTES)
    _public(app, services, counts)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(Lane, services=services)
    app.add_middleware(Counted, counts=counts)
    guard(app, services.hosts, services.https)
    takes = {body for router in ROUTERS for body in router.takes}

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = contract.openapi(app, takes)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it.
    return app


def _public(app: FastAPI, services: Services, counts: Counts) -> None:
    """What needs no credential: it says nothing of any world."""

    def healthz() -> Response:
        """The process runs."""
        return Response(dumped({"status": "ok", "version": __version__}), media_type=JSON)

    def readyz() -> Response:
        """The store answers."""
        services.store.load(SYSTEM)
        return Response(dumped({"status": "ready", "version": __version__}), media_type=JSON)

    def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(counts.registry), media_type=CONTENT_TYPE_LATEST)

    def openapi_json() -> Response:
        """This document."""
        return Response(dumped(app.openapi()), media_type=JSON)

    def journal_key() -> Response:
        """The public key that heads of journals are signed with."""
        return Response(dumped(services.journal_key.told), media_type=JSON)

    said: dict[int | str, dict[str, Any]] = {200: {"model": HealthJson}}
    key_said: dict[int | str, dict[str, Any]] = {200: {"model": JournalKeyJson}}
    for path, endpoint, responses in (
        ("/healthz", healthz, said),
        ("/readyz", readyz, said),
        ("/metrics", metrics, _content("text/plain", "string")),
        ("/openapi.json", openapi_json, _content(JSON, "object")),
        ("/journal/key", journal_key, key_said),
    ):
        options: dict[str, Any] = {"response_model": None, "tags": ["operations"]}
        if path == "/metrics":
            options["response_class"] = Response
        app.add_api_route(path, endpoint, methods=["GET"], responses=responses, **options)


def _content(media_type: str, kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": {"type": kind}}}}}


def allowed(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """Every method that the path of a request has."""
    found: set[str] = set()
    for route in routes:
        if isinstance(route, APIRoute) and route.matches(scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found)


async def _http_problem(request: Request, error: Exception) -> Response:
    """What the router itself refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = allowed(request.app.routes, request.scope)
        headers["Allow"] = ", ".join(methods)
        detail = f"{request.method} is no method of this path; it has {', '.join(methods)}."
    elif error.status_code == HTTPStatus.NOT_FOUND:
        detail = "There is no such path."
    if dashboard.is_page(request):
        return dashboard.wrong(error.status_code, detail)
    return problems.problem(error.status_code, detail, headers=headers)


async def _refused(_request: Request, error: Exception) -> Response:
    """Outside the doors: a store that does not answer."""
    assert isinstance(error, Refusal)
    return problems.of(error)


async def _bug(request: Request, error: Exception) -> Response:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    detail = "This is a bug of the server; its log says more."
    if dashboard.is_page(request):
        return dashboard.wrong(500, detail)
    return problems.problem(500, detail)
