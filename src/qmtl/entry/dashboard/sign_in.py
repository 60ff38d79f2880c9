"""In and out: a token becomes a session, and a session ends."""

from typing import Final

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from qmtl.core.errors import Refusal, Unauthenticated
from qmtl.entry.door import body_of
from qmtl.entry.services import Services

from .visits import (
    cookie_of,
    dashboard_of,
    fields_of,
    its_own,
    refused,
    safe_path,
    set_cookie,
    sign_in_page,
)

FORM_BYTES_MAX: Final = 64 << 10  # A JWT has a few thousand.


def root() -> Response:
    """The first page."""
    return RedirectResponse("/ui", 303)


def ask(request: Request) -> Response:
    """The form."""
    return sign_in_page(request, status=200, to="/ui")


async def sign_in(request: Request) -> Response:
    """A session for a credential that is good; its cookie is a new one."""
    services: Services = request.app.state.services
    dashboard = dashboard_of(request)
    to = "/ui"
    try:
        form = fields_of(await body_of(request, FORM_BYTES_MAX))
        its_own(request, dashboard.sessions, form)
        to, token = safe_path(form.get("to", "/ui")), form.get("token", "").strip()
        address = request.client.host if request.client is not None else ""
        header, now = f"Bearer {token}", services.clock.now()
        await run_in_threadpool(services.identity.identify, header, now, address)
    except Unauthenticated as refusal:
        why = str(refusal.args[0]) if token else "Paste a token: it is what signs you in."
        return sign_in_page(request, why, to=to)
    except Refusal as refusal:
        return refused(request, refusal)
    dashboard.sessions.end(cookie_of(request))
    answer = RedirectResponse(to, 303)
    set_cookie(request, answer, dashboard.sessions.begin(token))
    return answer


async def sign_out(request: Request) -> Response:
    """The session is over, here and in the browser."""
    dashboard = dashboard_of(request)
    try:
        its_own(request, dashboard.sessions, fields_of(await body_of(request, FORM_BYTES_MAX)))
    except Refusal as refusal:
        return refused(request, refusal)
    dashboard.sessions.end(cookie_of(request))
    return RedirectResponse("/ui/sign-in", 303)


ROUTES: Final = tuple(
    APIRoute(path, endpoint, methods=[method], include_in_schema=False, response_model=None)
    for method, path, endpoint in (
        ("GET", "/", root),
        ("GET", "/ui/sign-in", ask),
        ("POST", "/ui/sign-in", sign_in),
        ("POST", "/ui/sign-out", sign_out),
    )
)
