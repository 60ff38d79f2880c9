"""Every route of the dashboard, and what stands in for the API's problem documents on its pages."""

from http import HTTPStatus
from typing import Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from qmtl.entry import auth

from . import (
    candidate,
    chart,
    forms,
    hub,
    journal,
    live,
    policy,
    render,
    reports,
    sign_in,
    static,
    strategy,
    system,
    words,
    world,
    worlds,
)

PAGES: Final = (
    worlds,
    world,
    strategy,
    chart,
    candidate,
    policy,
    journal,
    hub,
    reports,
    system,
    words,
    live,
    forms,
)
ROUTES: Final[tuple[APIRoute, ...]] = (
    *sign_in.ROUTES,
    static.ROUTE,
    *(page for each in PAGES for page in each.PAGES),
)


def is_page(request: Request) -> bool:
    """Whether a person is looking, and not a program."""
    path = request.url.path
    return path == auth.UI or path.startswith(auth.UI + "/")


def wrong(status: int, detail: str) -> Response:
    """What the router refuses, or a bug, as a page."""
    return render.page(
        "refused.html",
        status,
        code=status,
        title=HTTPStatus(status).phrase,
        details=[detail],
        back=auth.UI,
    )
