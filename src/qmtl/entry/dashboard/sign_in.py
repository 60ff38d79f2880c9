"""In and out: a token becomes a session, and a session ends.  By the issuer: `oidc.py`."""

from typing import Final

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from qmtl.core.errors import Refusal, Unauthenticated
from qmtl.entry.authfile import CALLBACK
from qmtl.entry.door import body_of

from . import oidc
from .visits import (
    address_of,
    cookie_of,
    fields_of,
    its_own,
    refused,
    safe_path,
    services_of,
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
    services = services_of(request)
    to, token = "/ui", ""
    try:
        form = fields_of(await body_of(request, FORM_BYTES_MAX))
        its_own(request, form)
        to, token = safe_path(form.get("to", "/ui")), form.get("token", "").strip()
        now, address = services.clock.now(), address_of(request)
        cookie = await run_in_threadpool(services.identity.session, token, now, address)
        await _ended(request)
    except Unauthenticated as refusal:
        why = str(refusal.args[0]) if token else "Paste a token: it is what signs you in."
        return sign_in_page(request, why, to=to)
    except Refusal as refusal:
        return refused(request, refusal)
    answer = RedirectResponse(to, 303)
    set_cookie(request, answer, cookie)
    return answer


async def sign_out(request: Request) -> Response:
    """The session is over, whoever has its cookie."""
    try:
        its_own(request, fields_of(await body_of(request, FORM_BYTES_MAX)))
        await _ended(request)
    except Refusal as refusal:
        return refused(request, refusal)
    return RedirectResponse("/ui/sign-in", 303)


async def _ended(request: Request) -> None:
    """Whatever session its browser had before is over."""
    services, cookie = services_of(request), cookie_of(request)
    now = services.clock.now()
    await run_in_threadpool(services.sessions.end, services.store, cookie, now)


ROUTES: Final = tuple(
    APIRoute(path, endpoint, methods=[method], include_in_schema=False, response_model=None)
    for method, path, endpoint in (
        ("GET", "/", root),
        ("GET", "/ui/sign-in", ask),
        ("POST", "/ui/sign-in", sign_in),
        ("GET", oidc.BEGIN, oidc.begin),
        ("GET", CALLBACK, oidc.back),
        ("POST", "/ui/sign-out", sign_out),
    )
)
