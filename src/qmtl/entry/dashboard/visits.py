"""A page's door: the API's, opened by a session; what it refuses is a page, too.

A request that carries an Authorization header is asked for no session and no form token: no browser
adds that header to what another site makes it send.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response
from starlette.types import ASGIApp

from qmtl.app.ports import Store
from qmtl.core.errors import Forbidden, Malformed, Refusal, Unauthenticated
from qmtl.core.names import WorldId
from qmtl.entry import auth, problems
from qmtl.entry.door import Call, Door
from qmtl.entry.guard import LOOPBACK, host_of
from qmtl.entry.services import Services

from . import render
from .sessions import Session, Sessions, new_cookie
from .story import Stories

FIELDS_MAX: Final = 20
SAME_SITE: Final = frozenset({"same-origin", "none"})  # What a browser says of its own page.


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What the pages of a process share."""

    sessions: Sessions = field(default_factory=Sessions)
    stories: Stories = field(default_factory=Stories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request for a page, past the door."""

    call: Call
    dashboard: Dashboard
    cookie: str | None
    session: Session | None  # None: it came with an Authorization header.
    path: str  # Its own, with the query.
    app: ASGIApp
    address: str

    @property
    def store(self) -> Store:
        return self.call.store

    def may(self, route: str, world_id: WorldId | None) -> bool:
        """Whether whoever is signed in may use a route; what they may not is not offered."""
        try:
            auth.allow(route, self.call.credential, world_id)
        except Forbidden:
            return False
        return True

    def page(self, template: str, status: int = 200, **given: Any) -> Response:
        return render.page(template, status, **self.frame(), **given)

    def frame(self) -> dict[str, Any]:
        """What every page of somebody who is signed in has around it."""
        sessions = self.dashboard.sessions
        return {
            "actor": self.call.credential.actor,
            "roles": sorted(self.call.credential.roles),
            "here": self.path,
            "now": self.call.by_token.now,
            "replay": self.call.services.replay is not None,
            "notice": sessions.heard(self.cookie),
            "csrf": "" if self.cookie is None else sessions.form_token(self.cookie),
            "key": secrets.token_hex,
            "may": self.may,
        }

    def form(self) -> dict[str, str]:
        """What the form holds.  Raises Malformed."""
        return fields_of(self.call.raw)


def fields_of(raw: bytes) -> dict[str, str]:
    """A form's fields, each once.  Raises Malformed."""
    try:
        pairs = parse_qsl(
            raw.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"
        )
    except (ValueError, UnicodeDecodeError):
        raise Malformed("It is no form.") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("A field came more than once.")
    return found


class Page(Door):
    """A route that a session opens."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, keyed=False, include_in_schema=False, **options)

    def authorization(self, request: Request) -> str | None:
        header = request.headers.get("authorization")
        if header is not None:
            return header
        session = dashboard_of(request).sessions.of(cookie_of(request))
        return None if session is None else f"Bearer {session.token}"

    async def _call(self, request: Request, services: Services) -> Call:
        call = await super()._call(request, services)
        cookie, dashboard = cookie_of(request), dashboard_of(request)
        by_header = "authorization" in request.headers
        if not self.reads and not by_header:
            its_own(request, dashboard.sessions, fields_of(call.raw))
        query = f"?{request.url.query}" if request.url.query else ""
        request.state.visit = Visit(
            call=call,
            dashboard=dashboard,
            cookie=None if by_header else cookie,
            session=None if by_header else dashboard.sessions.of(cookie),
            path=request.url.path + query,
            app=request.app,
            address=request.client.host if request.client is not None else "",
        )
        return call

    def refused(self, request: Request, refusal: Refusal) -> Response:
        return refused(request, refusal)


def refused(request: Request, refusal: Refusal) -> Response:
    """A page that says why, and what to do; for who is not signed in, how to."""
    if isinstance(refusal, Unauthenticated):
        return sign_in_page(request, str(refusal.args[0]) if cookie_known(request) else "")
    told = problems.of(refusal)
    answer = render.page(
        "refused.html",
        told.status_code,
        code=told.status_code,
        title=(type(refusal).__doc__ or "Refused.").strip(),
        details=[str(part) for part in refusal.args],
        back="/ui",
    )
    if "retry-after" in told.headers:
        answer.headers["Retry-After"] = told.headers["retry-after"]
    return answer


def cookie_known(request: Request) -> bool:
    return dashboard_of(request).sessions.of(cookie_of(request)) is not None


def sign_in_page(request: Request, why: str = "", status: int = 401, to: str = "") -> Response:
    """The form; with a cookie for its token, where the browser has none yet.

    A page of elsewhere that links here comes without the cookie (SameSite=Strict), signed in or
    not.  So who is sent here from elsewhere is sent on once more, from here.
    """
    elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
    query = f"?{request.url.query}" if request.url.query else ""
    to = to or (request.url.path + query if request.method == "GET" else "/ui")
    if elsewhere and request.method == "GET" and cookie_of(request) is None:
        return render.page("onward.html", 200, to=to)
    cookie, sessions = cookie_of(request) or new_cookie(), dashboard_of(request).sessions
    answer = render.page(
        "sign_in.html", status, why=why, to=safe_path(to), csrf=sessions.form_token(cookie)
    )
    if status == 401:
        answer.headers["WWW-Authenticate"] = problems.REALM
    set_cookie(request, answer, cookie)
    return answer


def safe_path(to: str) -> str:
    """A page of ours, wherever somebody wants to be sent after signing in."""
    ours = to == "/ui" or to.startswith(("/ui/", "/ui?"))
    return to if ours and "\\" not in to and to.isascii() and to.isprintable() else "/ui"


def its_own(request: Request, sessions: Sessions, form: dict[str, str]) -> None:
    """Whether a form was one of ours, in this browser.  Raises Forbidden."""
    site = request.headers.get("sec-fetch-site")
    ours = sessions.is_form_token(cookie_of(request), form.get("csrf", ""))
    if not ours or (site is not None and site not in SAME_SITE):
        raise Forbidden(
            "The form is not of this session: go back, load the page again, and send it anew."
        )


# ---- The cookie ------------------------------------------------------------------------------


def dashboard_of(request: Request) -> Dashboard:
    found: Dashboard = request.app.state.dashboard
    return found


def _is_safe_without_tls(request: Request) -> bool:
    services: Services = request.app.state.services
    return not services.https and host_of(request.headers.get("host", "")) in LOOPBACK


def cookie_name(request: Request) -> str:
    """Another on each port: cookies know none, and two servers on one machine are two."""
    port = request.headers.get("host", "").rpartition(":")[2]
    if _is_safe_without_tls(request):
        return f"qmtl_{port if port.isdigit() else 80}"
    return "__Host-qmtl"  # Browsers take it over TLS only, and from nobody but this host.


def cookie_of(request: Request) -> str | None:
    return request.cookies.get(cookie_name(request))


def set_cookie(request: Request, answer: Response, cookie: str) -> None:
    answer.set_cookie(
        cookie_name(request),
        cookie,
        path="/",
        httponly=True,
        samesite="strict",
        secure=not _is_safe_without_tls(request),
    )


async def _visit_of(request: Request) -> Visit:
    visit: Visit = request.state.visit
    return visit


VisitIn = Annotated[Visit, Depends(_visit_of)]


class Pages(list[Page]):
    """The pages of one file, in the order they are declared."""

    def shows(self, path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A GET: it changes nothing."""
        return self._declared("GET", path)

    def takes(self, path: str, endpoint: Callable[..., Any]) -> None:
        """The POST of a form."""
        self._declared("POST", path)(endpoint)

    def _declared(
        self, method: str, path: str
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def declare(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            self.append(Page(path, endpoint, methods=[method], response_model=None))
            return endpoint

        return declare
