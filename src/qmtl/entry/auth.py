"""Who may do what: one table, and the credentials it is asked about.

A token is random and goes out once; what is kept is its SHA-256.  Its roles hold in one world, or
in every one.  Nobody is told whether a world exists before they have shown a credential for it.
"""

import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final

from qmtl.app.ports import Store
from qmtl.core.errors import Forbidden, Unauthenticated
from qmtl.core.names import SYSTEM, Role, WorldId
from qmtl.core.view import Token

TOKEN_PREFIX: Final = "qmtl_"  # So that a scanner of leaked secrets can tell what it found.
TOKEN_BYTES: Final = 32
TOKEN_CHARS_MAX: Final = 200
SCHEME: Final = "bearer"

Roles = frozenset[Role]
ANYONE: Final[Roles] = frozenset(Role)  # Any valid credential for the world may look.
OPERATING: Final[Roles] = frozenset({Role.OPERATOR})
STOPPING: Final[Roles] = frozenset({Role.OPERATOR, Role.APPROVER, Role.ADMIN})
POLICY: Final[Roles] = frozenset({Role.POLICY_ADMIN})  # INVARIANT: no other role implies it.
ADMIN: Final[Roles] = frozenset({Role.ADMIN})
FEEDING: Final[Roles] = frozenset({Role.PRODUCER})
SUBMITTING: Final[Roles] = frozenset({Role.AUTHOR})

_W: Final = "/worlds/{world_id}"
_H: Final = "/risk-hub/worlds/{world_id}"
_RUN: Final = f"{_W}/strategies/{{strategy_id}}/runs"
_LIVE: Final = f"{_W}/promotions/live"

# Their world is in the body or in the query; the handler asks `allow` once it has read that.
WORLD_ELSEWHERE: Final = frozenset({"POST /strategies", "GET /events/subscribe"})
SECRET: Final = frozenset({"POST /tokens"})  # Its answer is not remembered: it holds a token.
PUBLIC: Final = frozenset(
    {"GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.json", "GET /journal/key"}
)

ROLES: Final[Mapping[str, Roles]] = {
    "GET /worlds": ANYONE,
    "POST /worlds": OPERATING | ADMIN,  # With allow_live: policy-admin, too.
    f"GET {_W}": ANYONE,
    f"PATCH {_W}": STOPPING | POLICY,  # Raising needs more: `worldservice.change`.
    f"GET {_W}/policies": ANYONE,
    f"POST {_W}/policies": POLICY,
    f"GET {_W}/policies/{{version}}": ANYONE,
    f"POST {_W}/set-default": POLICY,
    f"GET {_W}/strategies": ANYONE,
    f"POST {_W}/strategies": SUBMITTING | OPERATING,
    f"GET {_W}/bindings": ANYONE,
    f"POST {_W}/bindings": SUBMITTING | OPERATING,
    f"POST {_W}/evaluate": SUBMITTING | FEEDING | OPERATING,
    f"POST {_W}/evaluate-cohort": FEEDING | OPERATING,
    f"GET {_RUN}": ANYONE,
    f"GET {_RUN}/{{run_id}}": ANYONE,
    f"GET {_RUN}/{{run_id}}/metrics": ANYONE,
    f"GET {_RUN}/{{run_id}}/history": ANYONE,
    f"GET {_W}/campaign/status": ANYONE,
    f"POST {_W}/campaign/tick": OPERATING | ADMIN,
    f"GET {_LIVE}/candidates": ANYONE,
    f"GET {_LIVE}/plan": ANYONE,
    f"POST {_LIVE}/approve": ANYONE,  # The policy says which roles; `approvals.approve` asks it.
    f"DELETE {_LIVE}/approve": ANYONE,  # One's own only.
    f"POST {_LIVE}/reject": STOPPING,
    f"POST {_LIVE}/release": OPERATING,
    f"POST {_LIVE}/apply": OPERATING,
    f"POST {_LIVE}/auto-apply": OPERATING,
    f"POST {_W}/apply": OPERATING,
    f"POST {_W}/demote": STOPPING,
    f"POST {_W}/strategies/{{strategy_id}}/extend": OPERATING,
    f"GET {_W}/strategies/{{strategy_id}}/explain": ANYONE,
    f"POST {_W}/kill": STOPPING,
    f"POST {_W}/resume": OPERATING | ADMIN,
    # What is confirmed says which of them: `worlds.confirm` asks.
    f"POST {_W}/confirmations/{{confirmation_id}}": OPERATING | ADMIN | POLICY,
    f"GET {_W}/decide": ANYONE,
    f"GET {_W}/activation": ANYONE,
    f"PUT {_W}/activation": OPERATING,
    f"POST {_W}/activation/ack": SUBMITTING | FEEDING | OPERATING,
    f"POST {_H}/snapshots": FEEDING,
    f"GET {_H}/snapshots": ANYONE,
    f"GET {_H}/snapshots/latest": ANYONE,
    f"GET {_H}/snapshots/lookup": ANYONE,
    f"GET {_H}/latest": ANYONE,
    f"GET {_H}/lookup": ANYONE,
    f"POST {_H}/restatements": OPERATING,
    f"POST {_H}/snapshots/restatements": OPERATING,
    "POST /strategies": SUBMITTING,
    f"POST {_W}/returns": FEEDING,
    "GET /events/subscribe": ANYONE,
    f"GET {_W}/journal": ANYONE,
    f"GET {_W}/journal/head": ANYONE,
    "GET /clock": ANYONE,
    "POST /clock": ADMIN,
    "GET /tokens": ADMIN,
    "POST /tokens": ADMIN,
    "DELETE /tokens/{token_id}": ADMIN,
}


def new_token() -> str:
    """A credential that nobody guesses: 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def digest(token: str) -> str:
    """What is kept of a token.  It is random, so a plain hash of it tells nobody anything."""
    return sha256(token.encode()).hexdigest()


def identify(store: Store, header: str | None, now: datetime) -> Token:
    """Whose credential an Authorization header holds.  Raises Unauthenticated."""
    scheme, _, given = (header or "").partition(" ")
    given = given.strip()
    if scheme.lower() != SCHEME or not given:
        raise Unauthenticated("Send it as `Authorization: Bearer <token>`.")
    if len(given) > TOKEN_CHARS_MAX:
        raise Unauthenticated("The token is unknown, revoked or expired.")
    wanted = digest(given)
    known = store.load(SYSTEM).tokens.get(wanted)
    # A lookup by digest takes a time that says nothing of the token; the comparison, neither.
    if known is None or not hmac.compare_digest(known.token_sha256, wanted):
        raise Unauthenticated("The token is unknown, revoked or expired.")
    if known.expires_at is not None and known.expires_at <= now:
        raise Unauthenticated("The token is unknown, revoked or expired.")
    return known


def roles_in(token: Token, world_id: WorldId | None) -> Roles:
    """The roles a token has in a world; with None, in what is no world's: tokens, the clock."""
    if token.world_id is None or token.world_id == world_id:
        return frozenset(token.roles)
    return frozenset()


def allow(route: str, token: Token, world_id: WorldId | None) -> Roles:
    """The roles with which a token may use a route in a world.  Raises Forbidden."""
    roles = roles_in(token, world_id)
    if world_id is None and ROLES[route] == ANYONE:
        return frozenset(token.roles)  # The list of worlds shows each its own; the time is free.
    if not roles:
        where = "every world" if world_id is None else f"world {world_id}"
        raise Forbidden(f"The credential of {token.actor} is not for {where}.")
    return _enough(route, roles)


def allow_somewhere(route: str, token: Token) -> Roles:
    """The same before the world is known: whether there is one where the token may.

    Raises Forbidden.
    """
    return _enough(route, frozenset(token.roles))


def _enough(route: str, roles: Roles) -> Roles:
    if not roles & ROLES[route]:
        names = ", ".join(sorted(ROLES[route]))
        raise Forbidden(f"{route} takes one of the roles: {names}.")
    return roles
