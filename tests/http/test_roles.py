"""Who may do what is one table, and every route is in it: each role, each world, each row."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from qmtl.core.names import Role
from qmtl.entry import auth, identity
from qmtl.entry.auth import ANYONE, BESIDES, PUBLIC, ROLES
from qmtl.entry.door import Door
from tests.http.harness import (
    POLICY,
    YAML,
    Harness,
    W,
    harness_over,
    submission,
    with_candidate,
    with_world,
)

OTHER = "beta"
PLACES = {"own": W, "other": OTHER, "every": None}
NOWHERE = {
    **{"strategy_id": "s1", "version": "1", "run_id": "none", "token_id": "0" * 64},
    **{"candidate_id": "0" * 24, "seq": "1"},
}
# A request that gets past the door and no further: nothing is changed, whoever asks.
STOPPED_BEHIND: dict[str, dict[str, Any]] = {
    "POST /strategies": {"body": {**submission("new"), "returns": {"t": [], "r": []}}},
    "GET /events/subscribe": {"params": {"world": W, "after": 2**52}},
    "GET /ui/worlds/{world_id}/events": {"params": {"after": 2**52}},
}


def described(harness: Harness) -> set[str]:
    """Every route that the OpenAPI document has."""
    paths = harness.client.app.openapi()["paths"]  # type: ignore[attr-defined]  # A FastAPI.
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def pages(harness: Harness) -> set[str]:
    """Every route that it leaves out: those for people."""
    return {
        f"{method} {route.path}"
        for route in harness.client.app.routes  # type: ignore[attr-defined]  # A FastAPI.
        if isinstance(route, APIRoute) and not route.include_in_schema
        for method in route.methods
    }


def test_every_route_is_in_the_table_and_every_row_is_a_route(harness: Harness) -> None:
    assert described(harness) | pages(harness) == set(ROLES) | PUBLIC
    assert not described(harness) & pages(harness)
    assert all(f.startswith("POST /ui/") and r in ROLES for f, r in auth.FORMS.items())
    assert {p for p in pages(harness) if p.startswith("POST")} == set(auth.FORMS) | {
        *("POST /ui/sign-in", "POST /ui/sign-out"),
    }
    assert set(BESIDES) | auth.STOPS | auth.SECRET | auth.WORLD_ELSEWHERE <= set(ROLES)


def test_a_route_that_is_not_in_the_table_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="GET /new is not in the table"):
        Door("/new", lambda: None, keyed=False, methods=["GET"])


def test_no_other_role_is_enough_for_policy() -> None:
    for route in ("POST /worlds/{world_id}/policies", "POST /worlds/{world_id}/set-default"):
        assert ROLES[route] == {Role.POLICY_ADMIN}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """Two worlds, and for each role a credential of each of them and one of every world."""
    with harness_over("memory", Path(tmp_path_factory.mktemp("roles"))) as harness:
        with_world(harness)
        harness.ok("admin", "POST", "/worlds", {"id": OTHER})
        for role in Role:
            for place, world_id in PLACES.items():
                harness.token(f"{role}-{place}", role, world=world_id)
        yield harness


def may(route: str, role: Role, place: str) -> bool:
    """What the table says, in as many words."""
    if role not in ROLES[route]:
        return False
    if "{world_id}" in route or route in auth.WORLD_ELSEWHERE:
        return place != "other"
    return place == "every" or ROLES[route] == ANYONE  # Of no world: lists, tokens, the clock.


@pytest.mark.parametrize("route", sorted(ROLES))
def test_each_role_in_each_world_may_or_may_not(world: Harness, route: str) -> None:
    method, template = route.split(" ")
    path = template.format(world_id=W, confirmation_id="0" * 24, **NOWHERE)
    asked = STOPPED_BEHIND.get(route, {})
    content = None if method in ("GET", "DELETE") or "body" in asked else b"[]"
    before = world.state()
    for role in Role:
        for place in PLACES:
            who = f"{role}-{place}"
            headers = {"X-Actor": who, "X-Stage": "paper", "Content-Type": "application/json"}
            answer = world.call(who, method, path, headers=headers, content=content, **asked)
            told = f"{who}: {answer.status_code} {answer.text[:200]}"
            assert (answer.status_code != 403) == may(route, role, place), told
            assert answer.status_code not in (401, 429, 500), told
    assert world.state() == before, "nothing of it was done"


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
    assert identity.digest(made["token"]) == made["token_id"]
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


def test_a_token_is_rotated_by_its_bearer_and_the_old_one_ends(each_store: Harness) -> None:
    h = each_store
    made = h.ok("adam", "POST", "/tokens", {"actor": "new", "roles": ["reader"]})
    assert (made["created_by"], made["rotated_at"], made["confirmed"]) == ("adam", None, True)
    h.tokens["new"] = made["token"]
    path = f"/tokens/{made['token_id']}/rotate"
    assert h.call("rea", "POST", path, {}).status_code == 403, "it is another's"
    told = h.ok("new", "POST", path, {"overlap": "2h"})
    assert told["token"] != made["token"]
    assert identity.digest(told["token"]) == told["token_id"]
    assert (told["created_by"], told["rotated_at"]) == ("adam", "2024-01-01T21:00:00Z")
    h.tokens["newer"] = told["token"]
    for hours, old in ((0, 200), (1, 200), (1, 401)):
        h.advance(timedelta(hours=hours))
        assert h.call("new", "GET", "/worlds").status_code == old
        assert h.call("newer", "GET", "/worlds").status_code == 200
    listed = {t["token_id"]: t for t in h.ok("adam", "GET", "/tokens")["tokens"]}
    assert listed[made["token_id"]]["replaced_until"] == "2024-01-01T23:00:00Z"
    assert h.ok("newer", "POST", f"/tokens/{told['token_id']}/rotate")["replaced_until"] is None
    wrong = h.call("newer", "POST", f"/tokens/{told['token_id']}/rotate", {"overlap": "8d"})
    assert wrong.status_code == 422


def test_rotating_is_told_once(harness: Harness) -> None:
    path = f"/tokens/{identity.digest(harness.tokens['rea'])}/rotate"
    key = {"Idempotency-Key": "k"}
    told = harness.call("rea", "POST", path, {}, headers=key)
    assert told.status_code == 201
    again = harness.call("rea", "POST", path, {}, headers=key)
    assert (again.status_code, "kept nowhere" in again.text) == (409, True)
    kept = harness.store.remembered("rea", "k")  # type: ignore[arg-type]  # An ActorId.
    assert kept is not None
    assert told.json()["token"].encode() not in kept[2]


def test_the_journal_of_the_system_says_who_let_whom_in(harness: Harness) -> None:
    made = harness.ok("adam", "POST", "/tokens", {"actor": "new", "roles": ["approver"]})
    told = harness.ok("adam", "GET", "/system/journal", params={"after": 9})
    (entry,) = told["entries"]
    assert (entry["actor"], entry["kind"], entry["fact"]["actor"]) == (
        *("adam", "token_created"),
        "new",
    )
    assert made["token"] not in harness.call("adam", "GET", "/system/journal").text
    assert told["next_cursor"] is None
    page = harness.ok("adam", "GET", "/system/journal", params={"limit": 3})
    assert [entry["seq"] for entry in page["entries"]] == [1, 2, 3]
    assert page["next_cursor"] == "3"


@pytest.fixture
def dual(tmp_path: Path) -> Iterator[Harness]:
    """Adam and eve were made while it took one; since then it takes two."""
    with harness_over("sql", tmp_path, dual_control=True) as harness:
        harness.token("eve", Role.ADMIN)
        yield harness


def let_in(h: Harness, by: str, actor: str, role: Role, second: str | None) -> str:
    """A token that one admin makes and another confirms."""
    answer = h.call(by, "POST", "/tokens", {"actor": actor, "roles": [role]})
    assert answer.status_code == 202, answer.text
    h.tokens[actor] = answer.json()["token"]
    token_id = str(answer.json()["token_id"])
    if second is not None:
        h.ok(second, "POST", f"/tokens/{token_id}/confirm")
    return token_id


def test_an_admin_alone_lets_nobody_in_who_has_power(dual: Harness) -> None:
    token_id = let_in(dual, "adam", "fake", Role.ADMIN, None)
    waits = dual.call("fake", "GET", "/worlds")
    assert (waits.status_code, "second admin" in waits.text) == (401, True)
    refused = dual.call("adam", "POST", f"/tokens/{token_id}/confirm")
    assert refused.status_code == 403
    assert "another admin" in refused.json()["detail"]
    (listed,) = [t for t in dual.ok("eve", "GET", "/tokens")["tokens"] if t["actor"] == "fake"]
    assert (listed["created_by"], listed["confirmed"]) == ("adam", False)
    told = dual.ok("eve", "POST", f"/tokens/{token_id}/confirm")
    assert told["confirmed"]
    assert dual.call("fake", "GET", "/worlds").status_code == 200
    # And what he made confirms nothing of his, though two names stand in the journal.
    second = let_in(dual, "adam", "fake2", Role.APPROVER, None)
    assert dual.call("fake", "POST", f"/tokens/{second}/confirm").status_code == 403
    kinds = [e["kind"] for e in dual.ok("eve", "GET", "/system/journal?limit=1000")["entries"]]
    asked = ["token_created", "confirmation_requested"]
    assert kinds[-5:] == [*asked, "confirmation_given", *asked]


def test_what_has_no_power_takes_one_admin(dual: Harness) -> None:
    for role in (Role.READER, Role.AUTHOR, Role.PRODUCER):
        answer = dual.call("adam", "POST", "/tokens", {"actor": "new", "roles": [role]})
        assert (answer.status_code, answer.json()["confirmed"]) == (201, True)


def test_one_admin_makes_no_committee(dual: Harness) -> None:
    """Two approvers that one admin made, and another confirmed, are one hand at the gate."""
    h = dual
    h.ok("admin", "POST", "/worlds", {"id": W})
    h.ok("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)
    h.ok("ann", "POST", "/strategies", submission("s1"))
    body = {"strategy_id": "s1", "run_id": with_candidate(h), "reason": "it is fine"}
    for actor, by, second in (("c1", "adam", "eve"), ("c2", "adam", "eve"), ("c3", "eve", "adam")):
        let_in(h, by, actor, Role.APPROVER, second)
    path = f"/worlds/{W}/promotions/live/approve"
    h.ok("c1", "POST", path, body)
    refused = h.call("c2", "POST", path, body)
    assert refused.status_code == 403
    assert "both lead back to adam" in refused.json()["detail"]
    told = h.ok("c3", "POST", path, body)
    assert [a["by"] for a in told["approvals"]] == ["c1", "c3"]
    assert told["standing"] == "approved"


def test_under_dual_control_a_power_is_rotated_by_its_bearer_only(dual: Harness) -> None:
    token_id = let_in(dual, "adam", "pia", Role.APPROVER, "eve")
    path = f"/tokens/{token_id}/rotate"
    assert dual.call("adam", "POST", path).status_code == 403
    dual.tokens["pia2"] = dual.ok("pia", "POST", path, {"overlap": "0s"})["token"]
    assert dual.call("pia", "GET", "/worlds").status_code == 401
    assert dual.call("pia2", "GET", "/worlds").status_code == 200


def test_the_token_itself_is_never_repeated_where_its_id_belongs(harness: Harness) -> None:
    token = harness.tokens["rea"]
    for method, path in (("DELETE", ""), ("POST", "/rotate"), ("POST", "/confirm")):
        answer = harness.call("adam", method, f"/tokens/{token}{path}")
        assert answer.status_code == 422
        assert token not in answer.text
