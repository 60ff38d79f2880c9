"""In by the issuer: there with a question that only this browser brings the answer to, and back.

Nothing is kept meanwhile.  The state that goes out is sealed for the browser's cookie; the nonce
and the verifier of PKCE are marks of both, the same when it comes back, and nobody else's.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson
from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from qmtl.adapters.oidc import Provider
from qmtl.core.errors import IssuerAway, Refusal, Unauthenticated, Unknown
from qmtl.entry import logs
from qmtl.entry.authfile import CALLBACK
from qmtl.entry.identity import IssuerActors
from qmtl.entry.sessions import new_cookie

from . import render
from .visits import (
    address_of,
    cookie_of,
    refused,
    safe_path,
    services_of,
    sessions_of,
    set_cookie,
    sign_in_page,
)

LOG = logging.getLogger("qmtl.sign_in")
BEGIN: Final = "/ui/sign-in/oidc"
STATE_MAX: Final = timedelta(minutes=10)  # A person finds a password, and a second factor.
TO_CHARS_MAX: Final = 1_000  # It goes there and back in an address.
ONCE_MORE: Final = "here"  # The same answer, sent on by a page of ours.
BY_TOKEN: Final = "Try again in a while, or sign in by token."
_STATE: Final = "oidc state/1"
_NONCE: Final = "oidc nonce"
_VERIFIER: Final = "oidc verifier"


async def begin(request: Request) -> Response:
    """To the issuer."""
    wanted = request.query_params.get("to", "/ui")
    to = safe_path(wanted if len(wanted) <= TO_CHARS_MAX else "/ui")
    if request.headers.get("sec-fetch-site") == "cross-site":  # Who wants to, says so here.
        return sign_in_page(request, status=200, to=to)
    cookie, seal = cookie_of(request) or new_cookie(), sessions_of(request).seal
    at = sessions_of(request).clock.now().timestamp()
    state = seal.closed(orjson.dumps([to, at]), _STATE, cookie)
    nonce, verifier = seal.mark(_NONCE, cookie, state), seal.mark(_VERIFIER, cookie, state)
    try:
        _, provider = _issuer_of(request)
        where = await run_in_threadpool(provider.where, state, nonce, verifier)
    except Refusal as refusal:
        return _not_in(request, refusal, to)
    answer = RedirectResponse(where, 303)
    set_cookie(request, answer, cookie)
    return answer


async def back(request: Request) -> Response:
    """From the issuer: a new session, for whom the ID token names.

    The issuer's page leads here, so the browser brings no cookie (SameSite=Strict) until a page of
    ours leads here once more.
    """
    cookie, query = cookie_of(request), request.url.query
    if cookie is None and ONCE_MORE not in request.query_params:
        return render.page("onward.html", to=safe_path(f"{CALLBACK}?{query}&{ONCE_MORE}=1"))
    to = "/ui"
    try:
        brought = _each_once(request)
        state = brought.get("state", "")
        to = _begun(request, cookie or "", state)
        session = await run_in_threadpool(_signed_in, request, cookie or "", state, brought)
    except Refusal as refusal:
        return _not_in(request, refusal, to)
    # No redirect: the browser would bring no cookie, still coming from the issuer's page.
    answer = render.page("onward.html", to=to)
    set_cookie(request, answer, session)
    return answer


def _issuer_of(request: Request) -> tuple[IssuerActors, Provider]:
    issuer = services_of(request).issuer
    if issuer is None or issuer.provider is None:
        raise Unknown("This server has no issuer to sign in at: sign in by token.")
    return issuer, issuer.provider


def _each_once(request: Request) -> dict[str, str]:
    pairs = request.query_params.multi_items()
    if len({name for name, _ in pairs}) < len(pairs):
        raise Unauthenticated("The issuer's answer says something twice: begin again.")
    return dict(pairs)


def _begun(request: Request, cookie: str, state: str) -> str:
    """Where somebody wanted to go who began in this browser.  Raises Unauthenticated."""
    sessions = sessions_of(request)
    content = sessions.seal.opened(state, _STATE, cookie)
    if content is None:
        raise Unauthenticated("This sign-in was not begun in this browser: begin it here.")
    to, at = orjson.loads(content)
    if sessions.clock.now() - datetime.fromtimestamp(at, UTC) > STATE_MAX:
        raise Unauthenticated("It took too long to sign in: begin again.")
    return str(to)


def _signed_in(request: Request, cookie: str, state: str, brought: dict[str, str]) -> str:
    """The cookie of the session.  Raises Unauthenticated, Forbidden, IssuerAway, SlowDown."""
    services, address = services_of(request), address_of(request)
    (issuer, provider), seal = _issuer_of(request), services.sessions.seal
    services.limiter.may_guess(address)
    nonce, verifier = seal.mark(_NONCE, cookie, state), seal.mark(_VERIFIER, cookie, state)
    try:
        claims, key = provider.claims(provider.code_of(brought), nonce, verifier)
        person = issuer.person(claims, key)
    except Unauthenticated:
        services.limiter.guessed(address)
        raise
    logs.known(actor=person.actor)
    ends_at = services.sessions.clock.now() + issuer.session
    return services.identity.session_of(person, ends_at)


def _not_in(request: Request, refusal: Refusal, to: str) -> Response:
    """Why not, with the other way in; who was recognised and may nothing has no other."""
    said = str(refusal.args[0])
    if isinstance(refusal, IssuerAway):
        LOG.warning("nobody signs in at the issuer: %s", said)
        why = f"The issuer cannot be asked. {said} {BY_TOKEN}"
        return sign_in_page(request, why, refusal.status, to)
    if isinstance(refusal, Unauthenticated | Unknown):
        return sign_in_page(request, said, refusal.status, to)
    return refused(request, refusal)
