"""Who may do what: one table, which is asked of credentials (`identity.py`), tested row by row,
and printed as it is (`docs/reference/roles.md`).

Roles hold in one world, or in every one.  Nobody is told whether a world exists before they have
shown a credential for it.
"""

from collections.abc import Mapping
from typing import Final

from qmtl.core.errors import Forbidden
from qmtl.core.names import Role, WorldId

from .identity import Credential, Roles

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
# Their answers are not remembered: they hold a token.
SECRET: Final = frozenset({"POST /tokens", "POST /tokens/{token_id}/rotate"})
# What lowers, or may: it names its effect, is done again when it was undone since, and is never
# limited.
_STOPS: Final = frozenset(
    {
        f"POST {_W}/kill",
        f"POST {_W}/demote",
        f"PATCH {_W}",
        f"PUT {_W}/activation",
        f"POST {_LIVE}/reject",
        f"DELETE {_LIVE}/approve",
    }
)
PUBLIC: Final = frozenset(
    {
        *("GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.json", "GET /journal/key"),
        *("GET /", "GET /ui/sign-in", "POST /ui/sign-in", "POST /ui/sign-out"),
        *("GET /ui/sign-in/oidc", "GET /ui/sign-in/oidc/callback"),
        "GET /ui/static/{name}",
    }
)

_API: Final[Mapping[str, Roles]] = {
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
    f"POST {_W}/campaign/loops": OPERATING | ADMIN,
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
    f"GET {_H}/retention": ANYONE,
    f"POST {_H}/retention": ADMIN,
    "POST /strategies": SUBMITTING,
    f"POST {_W}/returns": FEEDING,
    "GET /events/subscribe": ANYONE,
    f"GET {_W}/journal": ANYONE,
    f"GET {_W}/journal/head": ANYONE,
    "GET /clock": ANYONE,
    "POST /clock": ADMIN,
    "GET /system/journal": ADMIN,
    "GET /tokens": ADMIN,
    "POST /tokens": ADMIN,
    "POST /tokens/{token_id}/confirm": ADMIN,
    "POST /tokens/{token_id}/rotate": ANYONE,  # One's own; another's takes an admin.
    "DELETE /tokens/{token_id}": ADMIN,
}

# ---- The dashboard: pages show, and their forms are what the API does ------------------------

UI: Final = "/ui"
_S: Final = f"{UI}{_W}/strategies/{{strategy_id}}"
_PAGES: Final[Mapping[str, Roles]] = {
    f"GET {UI}": ANYONE,
    f"GET {UI}/system": ANYONE,
    f"GET {UI}/words": ANYONE,
    f"GET {UI}{_W}": ANYONE,
    f"GET {UI}{_W}/events": ANYONE,
    f"GET {_S}": ANYONE,
    f"GET {_S}/chart": ANYONE,
    f"GET {_S}/runs/{{run_id}}": ANYONE,
    f"GET {UI}{_W}/candidates/{{candidate_id}}": ANYONE,
    f"GET {UI}{_W}/candidates/{{candidate_id}}/dossier": ANYONE,
    f"GET {UI}{_W}/day": ANYONE,
    f"GET {UI}{_W}/policy": ANYONE,
    f"GET {UI}{_W}/journal": ANYONE,
    f"GET {UI}{_W}/journal/verified": ANYONE,
    f"GET {UI}{_W}/journal/{{seq}}": ANYONE,
    f"GET {UI}{_W}/hub": ANYONE,
}
# What a form asks for, by the route that takes the form: it goes through the API's own door, so
# that there is one way to write.  A form knows no method but POST; what changes is the path's end.
FORMS: Final[Mapping[str, str]] = {
    **{
        f"POST {UI}{path}": f"POST {path}"
        for path in (
            *(f"{_W}/kill", f"{_W}/resume", f"{_W}/demote", f"{_W}/set-default"),
            *(f"{_LIVE}/approve", f"{_LIVE}/reject", f"{_LIVE}/release", f"{_LIVE}/apply"),
            f"{_W}/confirmations/{{confirmation_id}}",
            f"{_W}/strategies/{{strategy_id}}/extend",
        )
    },
    f"POST {UI}{_LIVE}/withdraw": f"DELETE {_LIVE}/approve",
    f"POST {UI}{_W}/activation": f"PUT {_W}/activation",
    f"POST {UI}{_W}/change": f"PATCH {_W}",
}
ROLES: Final[Mapping[str, Roles]] = {
    **_API,
    **_PAGES,
    **{form: _API[route] for form, route in FORMS.items()},
}
STOPS: Final = _STOPS | {form for form, route in FORMS.items() if route in _STOPS}

# What more a route asks, past the table: the handler or the use case does, where it is named.
BESIDES: Final[Mapping[str, str]] = {
    "POST /worlds": "with `allow_live`: policy-admin",
    f"PATCH {_W}": "`state`: operator or admin; `allow_live: true`: policy-admin",
    f"POST {_LIVE}/approve": "one of the policy's `approvers.roles`; neither author nor proposer",
    f"DELETE {_LIVE}/approve": "one's own only",
    f"POST {_W}/confirmations/{{confirmation_id}}": (
        "another person than who asked; to resume: operator or admin; else: policy-admin"
    ),
    "POST /tokens": "to give policy-admin: policy-admin",
    "POST /tokens/{token_id}/confirm": "another person than who asked",
    "POST /tokens/{token_id}/rotate": (
        "one's own; another's: admin, and under dual control none with a power"
    ),
    f"POST {_H}/snapshots": "`X-Actor` is the credential's own actor",
}


def allow(route: str, credential: Credential, world_id: WorldId | None) -> Roles:
    """The roles with which a credential may use a route in a world.  Raises Forbidden."""
    roles = credential.roles_in(world_id)
    if world_id is None and ROLES[route] == ANYONE:
        roles = credential.roles  # The list of worlds shows each its own; the time is free.
    if not roles:
        where = "every world" if world_id is None else f"world {world_id}"
        raise Forbidden(f"The credential of {credential.actor} is not for {where}.")
    return _enough(route, roles)


def allow_somewhere(route: str, credential: Credential) -> Roles:
    """The same before the world is known: whether there is one where the credential may.

    Raises Forbidden.
    """
    return _enough(route, credential.roles)


def _enough(route: str, roles: Roles) -> Roles:
    if not roles & ROLES[route]:
        names = ", ".join(sorted(ROLES[route]))
        raise Forbidden(f"{route} takes one of the roles: {names}.")
    return roles
