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

from qmtl.app.ports import Store
from qmtl.core.errors import Forbidden, Malformed, Refusal, Unauthenticated
from qmtl.core.names import WorldId
from qmtl.entry import auth, problems
from qmtl.entry.door import Call, Door
from qmtl.entry.guard import LOOPBACK, host_of
from qmtl.entry.identity import OVER
from qmtl.entry.services import Services
from qmtl.entry.sessions import SESSION_PREFIX, Sessions, new_cookie

from . import render
from .story import Stories

NOTICE_SEC: Final = 60  # The page that says it is asked for at once.
FIELDS_MAX: Final = 20
SAME_SITE: Final = frozenset({"same-origin", "none"})  # What a browser says of its own page.


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What the pages of a process share."""

    stories: Stories = field(default_factory=Stories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request for a page, past the door."""

    call: Call
    dashboard: Dashboard
    cookie: str | None  # None: it came with an Authorization header.
    notice: str  # What it says once.
    path: str  # Its own, with the query.
    request: Request

    @property
    def address(self) -> str:
        return address_of(self.request)

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
        answer = render.page(template, status, **self.frame(), **given)
        if self.notice:
            _set(self.request, answer, notice_name(self.request), "", 0)
        return answer

    def frame(self) -> dict[str, Any]:
        """What every page of somebody who is signed in has around it."""
        sessions = self.call.services.sessions
        return {
            "actor": self.call.credential.actor,
            "roles": sorted(self.call.credential.roles),
            "here": self.path,
            "now": self.call.by_token.now,
            "replay": self.call.services.replay is not None,
            "notice": self.notice,
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
        cookie = cookie_of(request)
        return f"Bearer {cookie}" if is_session(request) else None

    async def _call(self, request: Request, services: Services) -> Call:
        call = await super()._call(request, services)
        by_header = "authorization" in request.headers
        cookie = None if by_header else cookie_of(request)
        if not self.reads and not by_header:
            its_own(request, fields_of(call.raw))
        query = f"?{request.url.query}" if request.url.query else ""
        request.state.visit = Visit(
            call=call,
            dashboard=request.app.state.dashboard,
            cookie=cookie,
            notice="" if cookie is None else _brought(request, cookie),
            path=request.url.path + query,
            request=request,
        )
        return call

    def refused(self, request: Request, refusal: Refusal) -> Response:
        return refused(request, refusal)


def refused(request: Request, refusal: Refusal) -> Response:
    """A page that says why, and what to do; for who is not signed in, how to."""
    if isinstance(refusal, Unauthenticated):
        return sign_in_page(request, why_not(request, refusal))
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


def why_not(request: Request, refusal: Unauthenticated) -> str:
    """What to tell who was signed in; who never was is only asked to be."""
    if is_session(request):
        return str(refusal.args[0])
    return OVER if (cookie_of(request) or "").startswith(SESSION_PREFIX) else ""


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
    cookie, services = cookie_of(request) or new_cookie(), services_of(request)
    answer = render.page(
        "sign_in.html",
        status,
        why=why,
        to=safe_path(to),
        csrf=services.sessions.form_token(cookie),
        issuer=services.issuer,
    )
    if status == 401:
        answer.headers["WWW-Authenticate"] = problems.REALM
    set_cookie(request, answer, cookie)
    return answer


def safe_path(to: str) -> str:
    """A page of ours, wherever somebody wants to be sent after signing in."""
    ours = to == "/ui" or to.startswith(("/ui/", "/ui?"))
    return to if ours and "\\" not in to and to.isascii() and to.isprintable() else "/ui"


def its_own(request: Request, form: dict[str, str]) -> None:
    """Whether a form was one of ours, in this browser.  Raises Forbidden."""
    site = request.headers.get("sec-fetch-site")
    ours = sessions_of(request).is_form_token(cookie_of(request), form.get("csrf", ""))
    if not ours or (site is not None and site not in SAME_SITE):
        raise Forbidden(
            "The form is not of this session: go back, load the page again, and send it anew."
        )


# ---- The cookie ------------------------------------------------------------------------------


def services_of(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def sessions_of(request: Request) -> Sessions:
    return services_of(request).sessions


def address_of(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def is_session(request: Request) -> bool:
    """Whether its browser is signed in, as far as its cookie says."""
    return sessions_of(request).of(cookie_of(request)) is not None


def _is_safe_without_tls(request: Request) -> bool:
    https = services_of(request).https
    return not https and host_of(request.headers.get("host", "")) in LOOPBACK


def cookie_name(request: Request) -> str:
    """Another on each port: cookies know none, and two servers on one machine are two."""
    port = request.headers.get("host", "").rpartition(":")[2]
    if _is_safe_without_tls(request):
        return f"qmtl_{port if port.isdigit() else 80}"
    return "__Host-qmtl"  # Browsers take it over TLS only, and from nobody but this host.


def cookie_of(request: Request) -> str | None:
    return request.cookies.get(cookie_name(request))


def set_cookie(request: Request, answer: Response, cookie: str) -> None:
    _set(request, answer, cookie_name(request), cookie)


def notice_name(request: Request) -> str:
    return f"{cookie_name(request)}_notice"


def tell(request: Request, answer: Response, notice: str) -> None:
    """The next page of this session says it, once."""
    cookie = cookie_of(request)
    if cookie is not None:
        told = sessions_of(request).notice(cookie, notice)
        _set(request, answer, notice_name(request), told, NOTICE_SEC)


def _brought(request: Request, cookie: str) -> str:
    return sessions_of(request).noticed(cookie, request.cookies.get(notice_name(request)))


def _set(request: Request, answer: Response, name: str, value: str, sec: int | None = None) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=sec,
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
