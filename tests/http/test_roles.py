"""Who may do what is one table, and every route is in it."""

import pytest

from qmtl.core.names import Role
from qmtl.entry import auth
from qmtl.entry.auth import PUBLIC, ROLES
from tests.http.harness import Harness, W, with_world

EVERYBODY = {
    "reader": "rea",
    "author": "ann",
    "producer": "pat",
    "operator": "olga",
    "approver": "al",
    "policy-admin": "polly",
    "admin": "adam",
}
MAY = {
    # What stops is for more people than what starts; policy is for nobody else.
    f"POST /worlds/{W}/kill": {"operator", "approver", "admin"},
    f"POST /worlds/{W}/demote": {"operator", "approver", "admin"},
    f"POST /worlds/{W}/resume": {"operator", "admin"},
    f"POST /worlds/{W}/promotions/live/apply": {"operator"},
    f"POST /worlds/{W}/apply": {"operator"},
    f"POST /worlds/{W}/promotions/live/auto-apply": {"operator"},
    f"POST /worlds/{W}/promotions/live/release": {"operator"},
    f"POST /worlds/{W}/promotions/live/reject": {"operator", "approver", "admin"},
    f"POST /worlds/{W}/policies": {"policy-admin"},
    f"POST /worlds/{W}/set-default": {"policy-admin"},
    f"PUT /worlds/{W}/activation": {"operator"},
    f"POST /worlds/{W}/evaluate": {"author", "producer", "operator"},
    f"POST /worlds/{W}/evaluate-cohort": {"producer", "operator"},
    f"POST /worlds/{W}/strategies": {"author", "operator"},
    f"POST /worlds/{W}/strategies/s1/extend": {"operator"},
    f"POST /worlds/{W}/returns": {"producer"},
    f"POST /risk-hub/worlds/{W}/snapshots": {"producer"},
    f"POST /risk-hub/worlds/{W}/restatements": {"operator"},
    "POST /worlds": {"operator", "admin"},
    "POST /clock": {"admin"},
    "GET /tokens": {"admin"},
    "POST /tokens": {"admin"},
    f"DELETE /tokens/{'0' * 64}": {"admin"},
    f"GET /worlds/{W}": set(EVERYBODY),
    f"GET /worlds/{W}/journal": set(EVERYBODY),
    f"GET /worlds/{W}/journal/head": set(EVERYBODY),
    f"GET /worlds/{W}/decide": set(EVERYBODY),
    "GET /worlds": set(EVERYBODY),
    "GET /clock": set(EVERYBODY),
}


def test_every_route_is_in_the_table(harness: Harness) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, methods in harness.client.app.openapi()["paths"].items()  # type: ignore[attr-defined]  # A FastAPI.
        for method in methods
    }
    assert described == set(ROLES) | PUBLIC


def test_no_other_role_is_enough_for_policy() -> None:
    for route in ("POST /worlds/{world_id}/policies", "POST /worlds/{world_id}/set-default"):
        assert ROLES[route] == {Role.POLICY_ADMIN}


@pytest.mark.parametrize("route", sorted(MAY))
def test_each_role_is_enough_or_it_is_not(harness: Harness, route: str) -> None:
    with_world(harness)
    method, path = route.split(" ")
    body = None if method in ("GET", "DELETE") else {}
    headers = {"X-Actor": "pat", "X-Stage": "paper"}
    enough = {
        role
        for role, who in EVERYBODY.items()
        if harness.call(who, method, path, body, headers=headers).status_code != 403
    }
    # Past the door, an empty body is refused for what it is: 422, or 400.
    assert enough == MAY[route]


@pytest.mark.parametrize("route", sorted(ROLES))
def test_nobody_comes_in_without_a_credential(harness: Harness, route: str) -> None:
    method, path = route.split(" ")
    filled = path.replace("{world_id}", "nowhere").replace("{", "").replace("}", "")
    for headers in ({}, {"Authorization": "Bearer qmtl_wrong"}, {"Authorization": "Bearer "}):
        answer = harness.call(None, method, filled, None, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_token_is_kept_by_its_digest_only(each_store: Harness) -> None:
    h = each_store
    made = h.ok("adam", "POST", "/tokens", {"actor": "new", "roles": ["reader"]})
    assert auth.digest(made["token"]) == made["token_id"]
    listed = h.call("adam", "GET", "/tokens")
    assert made["token"] not in listed.text
    assert made["token_id"] in listed.text
    h.tokens["new"] = made["token"]
    assert h.call("new", "GET", "/worlds").status_code == 200
    h.ok("adam", "DELETE", f"/tokens/{made['token_id']}")
    assert h.call("new", "GET", "/worlds").status_code == 401


def test_a_token_expires(harness: Harness) -> None:
    body = {"actor": "new", "roles": ["reader"], "expires_at": "2024-01-03T00:00:00Z"}
    harness.tokens["new"] = harness.ok("adam", "POST", "/tokens", body)["token"]
    assert harness.call("new", "GET", "/worlds").status_code == 200
    harness.ok("admin", "POST", "/clock", {"now": "2024-01-03T00:00:00Z"})
    assert harness.call("new", "GET", "/worlds").status_code == 401


def test_a_credential_for_one_world_sees_that_one(harness: Harness) -> None:
    for world in (W, "beta"):
        harness.ok("admin", "POST", "/worlds", {"id": world})
    harness.token("zoe", Role.ADMIN, world="beta")
    assert [w["id"] for w in harness.ok("zoe", "GET", "/worlds")["worlds"]] == ["beta"]
    assert harness.call("zoe", "GET", "/worlds/beta").status_code == 200
    assert harness.call("zoe", "GET", f"/worlds/{W}").status_code == 403
    assert harness.call("zoe", "GET", "/worlds/nowhere").status_code == 403, "no world is told of"
    assert harness.call("zoe", "GET", "/tokens").status_code == 403
    assert harness.call("zoe", "POST", "/worlds", {"id": "c"}).status_code == 403
