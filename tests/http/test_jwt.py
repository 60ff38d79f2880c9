"""JWTs at the door: their actors, their roles, and what becomes of API tokens beside them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from qmtl.adapters.issuer import Issuer, Keys, Trust
from qmtl.adapters.memory import MemoryStore
from qmtl.core.errors import Unauthenticated
from qmtl.core.names import Role, WorldId
from qmtl.entry.http import create_app
from qmtl.entry.identity import Grant, IssuerActors, actor_of
from qmtl.entry.limits import Limiter, Limits
from tests.http.harness import (
    POLICY,
    YAML,
    Harness,
    W,
    begin,
    submission,
    with_candidate,
    with_world,
)
from tests.jwts import AUDIENCE, ISSUER, Published, Standing, jwks, public, seconds, signed

GROUPS = {
    "quant": (Grant(WorldId(W), frozenset({Role.AUTHOR})),),
    "risk": (Grant(WorldId(W), frozenset({Role.APPROVER})),),
    "risk-beta": (Grant(WorldId("beta"), frozenset({Role.APPROVER})),),
    "ops": (Grant(None, frozenset({Role.OPERATOR, Role.ADMIN})),),
}
LIVE = f"/worlds/{W}/promotions/live"


@dataclass
class Place:
    """A server with an issuer beside its tokens; its clocks stand."""

    harness: Harness
    published: Published
    clock: Standing

    def ask(self, text: str, method: str = "GET", path: str = "/worlds", body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {text}"}
        return self.harness.call(None, method, path, body, headers=headers)


def placed(**settings: Any) -> Place:
    published, clock = Published(), Standing()
    harness = begin(MemoryStore(), dual_control=True)
    trust = Trust(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=frozenset({"ES256"}),
        leeway=timedelta(seconds=30),
        lifetime_max=timedelta(hours=1),
    )
    actors = IssuerActors(
        name="corp",
        issuer=Issuer(trust, Keys(published.load, clock.monotonic), clock),
        actor_claim=settings.pop("actor_claim", "sub"),
        groups_claim=settings.pop("groups_claim", ("groups",)),
        groups=GROUPS,
    )
    harness.services = replace(harness.services, issuer=actors, **settings)
    harness.client = TestClient(create_app(harness.services), raise_server_exceptions=True)
    return Place(harness, published, clock)


@pytest.fixture
def place() -> Iterator[Place]:
    found = placed()
    with found.harness.client:
        yield found


def test_a_jwt_is_its_subject_with_its_groups_roles(place: Place) -> None:
    with_world(place.harness, allow_live=False)
    place.harness.ok("admin", "POST", "/worlds", {"id": "beta"})
    pia = signed(groups=["quant", "nobody-knows"])
    assert [w["id"] for w in place.ask(pia).json()["worlds"]] == [W], "and sees no other"
    told = place.ask(pia, "POST", "/strategies", submission("mine"))
    assert told.status_code == 200, told.text
    listed = place.ask(pia, "GET", f"/worlds/{W}/strategies").json()["strategies"]
    assert {s["strategy_id"]: s["author"] for s in listed}["mine"] == "oidc:corp:pia"
    for method, path in (
        ("GET", "/worlds/beta"),
        ("POST", f"/worlds/{W}/kill"),
        ("GET", "/tokens"),
        ("POST", "/worlds"),
    ):
        assert place.ask(pia, method, path).status_code == 403


def test_roles_are_those_of_all_groups_each_in_its_world(place: Place) -> None:
    h = place.harness
    with_world(h, allow_live=False)
    h.ok("admin", "POST", "/worlds", {"id": "beta"})
    both = signed(groups=["quant", "risk-beta"])
    assert place.ask(both, "POST", f"/worlds/{W}/kill").status_code == 403
    assert place.ask(both, "POST", "/worlds/beta/kill").status_code == 200
    assert place.ask(both, "POST", "/strategies", submission("x", "beta")).status_code == 403
    assert place.ask(signed(groups=["ops"]), "GET", "/tokens").status_code == 200


@pytest.mark.parametrize("groups", [[], ["other"], None, 7, {"quant": True}, [["quant"]]])
def test_who_is_in_no_group_may_nothing(place: Place, groups: Any) -> None:
    answer = place.ask(signed(groups=groups))
    assert answer.status_code == 403


def test_groups_may_be_one_text_and_inside_another_claim() -> None:
    place = placed(groups_claim=("realm_access", "roles"))
    good = signed(groups=None, realm_access={"roles": "quant ops"})
    assert place.ask(good, "GET", "/tokens").status_code == 200
    assert place.ask(signed(groups=["ops"], realm_access=[])).status_code == 403


def test_an_email_has_to_be_verified() -> None:
    place = placed(actor_claim="email")
    for told, status in ((True, 200), (False, 401), (None, 401), ("true", 401)):
        text = signed(email="pia@example.com", email_verified=told, groups=["ops"])
        assert place.ask(text, "GET", "/tokens").status_code == status
    assert place.ask(signed(groups=["ops"])).status_code == 401, "no email at all"


# ---- Names -------------------------------------------------------------------------------------

NAMES = [
    ("pia", "oidc:corp:pia"),
    ("pia@example.com", "oidc:corp:pia@example.com"),
    ("auth0|7", "oidc:corp:auth0+7C7"),
    ("a+7C7", "oidc:corp:a+2B7C7"),  # What is escaped is escaped, too: none is another's.
    ("admin", "oidc:corp:admin"),
    ("../x", "oidc:corp:..+2Fx"),
    ("a:b", "oidc:corp:a+3Ab"),
    ("å\n", "oidc:corp:+C3+A5+0A"),
]


@pytest.mark.parametrize(("told", "actor"), NAMES, ids=[n[1] for n in NAMES])
def test_no_two_subjects_are_one_actor(told: str, actor: str) -> None:
    assert actor_of("corp", told) == actor


@pytest.mark.parametrize("told", ["x" * 119, "\n" * 50, "\ud800"])
def test_what_is_no_name_is_refused(told: str) -> None:
    with pytest.raises(Unauthenticated):
        actor_of("corp", told)


@pytest.mark.parametrize("sub", ["", 7, ["pia"], {"a": 1}])
def test_a_subject_is_text(place: Place, sub: Any) -> None:
    assert place.ask(signed(sub=sub)).status_code == 401


def test_a_token_cannot_have_the_name_of_an_issuers(place: Place) -> None:
    body = {"actor": "oidc:corp:pia", "roles": ["reader"]}
    answer = place.harness.call("adam", "POST", "/tokens", body)
    assert answer.status_code == 422
    assert "oidc:" in answer.json()["detail"]


def test_a_token_of_before_with_such_a_name_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmtl.app.tokens.RESERVED", "other:")  # As before there were any.
    place.harness.token("oidc:corp:pia", Role.ADMIN)
    assert place.harness.call("oidc:corp:pia", "GET", "/worlds").status_code == 401


# ---- Beside tokens -----------------------------------------------------------------------------


def test_with_the_issuer_away_tokens_go_on(place: Place) -> None:
    place.published.body = None
    answer = place.ask(signed())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert place.harness.call("rea", "GET", "/worlds").status_code == 200


def test_a_jwt_ends_when_it_ends_whatever_time_the_server_lives_in(place: Place) -> None:
    text = signed(groups=["ops"])
    assert place.ask(text).status_code == 200
    place.clock.wait(9 * 60 + 30)
    assert place.ask(text).status_code == 401
    assert place.harness.now.year == 2024, "the replay clock has nothing to do with it"


def test_without_an_issuer_a_jwt_is_an_unknown_token(harness: Harness) -> None:
    headers = {"Authorization": f"Bearer {signed()}"}
    assert harness.call(None, "GET", "/worlds", headers=headers).status_code == 401


def test_what_tokens_may_at_most_is_for_all_tokens() -> None:
    place = placed(token_roles=frozenset({Role.READER, Role.ADMIN}))
    h = place.harness
    h.ok("adam", "POST", "/worlds", {"id": W})
    assert h.call("olga", "POST", f"/worlds/{W}/kill").status_code == 403
    assert h.call("polly", "POST", f"/worlds/{W}/policies", content=POLICY).status_code == 403
    assert h.call("olga", "GET", f"/worlds/{W}").status_code == 403, "no role is left"
    assert h.call("rea", "GET", f"/worlds/{W}").status_code == 200
    assert place.ask(signed(groups=["ops"]), "POST", f"/worlds/{W}/kill").status_code == 200


def test_approvals_of_people_whom_the_issuer_knows_are_of_as_many(place: Place) -> None:
    h = place.harness
    h.ok("admin", "POST", "/worlds", {"id": W})
    h.ok("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)
    mine = signed(sub="ann", groups=["quant", "risk"])
    assert place.ask(mine, "POST", "/strategies", submission("s1")).status_code == 200
    body = {"strategy_id": "s1", "run_id": with_candidate(h), "reason": "it is fine"}

    def approve(sub: str) -> httpx.Response:
        text = signed(
            sub=sub,
            groups=["risk"],
            iat=seconds(place.clock.at),
            exp=seconds(place.clock.at) + 60,
        )
        found: httpx.Response = place.ask(text, "POST", f"{LIVE}/approve", body)
        return found

    assert approve("ann").status_code == 403, "the author, whatever JWT she comes with"
    assert [a["by"] for a in approve("pia").json()["approvals"]] == ["oidc:corp:pia"]
    place.clock.wait(1)
    assert len(approve("pia").json()["approvals"]) == 1, "another JWT is no other person"
    assert approve("pete").json()["standing"] == "approved"


def test_who_guesses_waits_and_who_knows_does_not() -> None:
    place = placed(limiter=Limiter(Limits(failures_per_min=3)))
    h = place.harness
    good = signed(groups=["ops"])
    assert place.ask(good).status_code == 200
    wrong = [place.ask(f"qmtl_{n}").status_code for n in range(5)]
    assert wrong == [401, 401, 401, 429, 429]
    held_up = place.ask(signed("ES256 other"))
    assert held_up.status_code == 429
    assert int(held_up.headers["retry-after"]) >= 1
    assert place.ask(good).status_code == 200, "a JWT that was seen"
    assert h.call("rea", "GET", "/worlds").status_code == 200, "a token that is known"
    assert place.ask(signed(sub="new", groups=["ops"])).status_code == 429, "one that was not seen"
    h.ok("admin", "POST", "/worlds", {"id": W})
    stops = place.ask(signed(sub="new", groups=["ops"]), "POST", f"/worlds/{W}/kill")
    assert stops.status_code == 200, "who stops something never waits"


def test_a_key_that_is_withdrawn_ends_its_jwts(place: Place) -> None:
    text = signed(groups=["ops"], exp=seconds(place.clock.at) + 3_000)
    assert place.ask(text).status_code == 200
    place.published.body = jwks(public("ES256 other", "k2"))
    place.clock.wait(601)
    assert place.ask(text).status_code == 401
