"""The application: every router behind doors, every refusal a problem, every request counted."""

import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from qmtl import __version__
from qmtl.adapters.wire.shapes import HealthJson, JournalKeyJson
from qmtl.core.errors import Refusal
from qmtl.core.names import SYSTEM

from . import (
    contract,
    events,
    gateway,
    journal,
    liveservice,
    observed,
    problems,
    riskhub,
    worldservice,
)
from .dashboard import routes as dashboard
from .dashboard.visits import Dashboard
from .door import JSON, dumped
from .guard import guard
from .identity import Credential
from .lane import Lane
from .observed import Counts, Telling, observe
from .services import Services
from .tracing import FASTAPI_OFF

LOG = logging.getLogger("qmtl.http")
ROUTERS: Final = (
    worldservice.ROUTES,
    liveservice.ROUTES,
    riskhub.ROUTES,
    gateway.ROUTES,
    journal.ROUTES,
    events.ROUTES,
)


def create_app(services: Services, bus: Telling | None = None) -> FastAPI:
    """The whole contract over one store.  `bus`: who tells it what happens, if there is one."""
    app = FastAPI(
        title="qmtl",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=FASTAPI_OFF,
    )
    app.state.services = services
    app.state.dashboard = Dashboard()
    counts = Counts()
    for router in ROUTERS:
        app.router.routes.extend(router)
    app.router.routes.extend(dashboard.ROUTES)
    _public(app, services, counts, bus)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(Lane, services=services)
    guard(app, services.hosts, services.https)
    observe(app, counts)
    takes = {body for router in ROUTERS for body in router.takes}

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = contract.openapi(app, takes)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it.
    return app


def _public(app: FastAPI, services: Services, counts: Counts, bus: Telling | None) -> None:
    """What needs no credential: it says nothing of any world to who shows none."""

    def healthz() -> Response:
        """The process runs."""
        return Response(dumped({"status": "ok", "version": __version__}), media_type=JSON)

    def readyz() -> Response:
        """The store answers."""
        services.store.load(SYSTEM)
        return Response(dumped({"status": "ready", "version": __version__}), media_type=JSON)

    def metrics(request: Request) -> Response:
        """For Prometheus: requests; and of each world that the credential may read, how it stands.

        Without a credential: requests only.
        """

        def credential() -> Credential | None:
            return _shown(request, services)

        return observed.exposed(counts, observed.of_services(services, bus, credential))

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


def _shown(request: Request, services: Services) -> Credential | None:
    """The credential of a request that needs none.  Raises Unauthenticated when it is none."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    address = request.client.host if request.client is not None else ""
    credential = services.identity.identify(header, services.clock.now(), address)
    services.limiter.request(credential.key)
    return credential


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
