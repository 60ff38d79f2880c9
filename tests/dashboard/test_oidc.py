"""In by an issuer: a real provider on loopback, the whole way through; and one thing broken."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from qmtl.adapters.clock import SystemClock
from qmtl.entry import authfile
from qmtl.entry.http import create_app
from qmtl.entry.limits import Limiter, Limits
from qmtl.entry.proxy import Gateway
from qmtl.entry.proxy import create_app as create_gateway
from qmtl.entry.sessions import Sessions
from qmtl.entry.spool import Spool
from tests import oidc
from tests.adapters.test_issuer import signed_with_the_public_key, unsigned
from tests.dashboard.browsing import HERE, Person, Seen, person, stranger
from tests.http.harness import Harness, W, listening, submission, with_candidate, with_world
from tests.jwts import Standing, jwks, public, signed
from tests.oidc import CLIENT, SECRET, Provider, gone_through

CALLBACK = HERE + authfile.CALLBACK
LIVE = f"/worlds/{W}/promotions/live"
GRANTS = [
    {"group": "quant", "roles": ["author", "reader"], "world": W},
    {"group": "risk", "roles": ["approver"], "world": W},
    {"group": "ops", "roles": ["operator", "admin"]},
]


@dataclass
class Place:
    """A server and its provider."""

    harness: Harness
    provider: Provider

    def stranger(self) -> Person:
        return stranger(self.harness)

    def begun(self, one: Person, to: str = "/ui") -> str:
        """Where the browser comes back, from the provider."""
        told = one.client.get("/ui/sign-in/oidc", params={"to": to}, follow_redirects=False)
        assert told.status_code == 303, told.text
        return gone_through(told.headers["location"])

    def came(self, one: Person, to: str = "/ui") -> Seen:
        """The whole way: there, back, and on to where they wanted."""
        page = one.get(self.begun(one, to))
        return one.get(onward(page)) if page.status == 200 else page

    def signed_in(self, sub: str, *groups: str) -> Person:
        self.provider.person = {"sub": sub, "groups": list(groups)}
        one = self.stranger()
        page = self.came(one)
        assert page.status == 200, page.text
        return one


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def onward(page: Seen) -> str:
    (told,) = [t for tag, t in page.tags if tag == "meta" and t.get("http-equiv") == "refresh"]
    return str(told["content"]).removeprefix("0;url=")


def placed(harness: Harness, provider: Provider, **more: Any) -> Place:
    services: dict[str, Any] = {n: more.pop(n) for n in ("limiter", "sessions") if n in more}
    url = more.pop("url", HERE)
    sign_in = {"client_id": CLIENT, "url": url, "scopes": ["openid", "groups"]}
    told = {
        "name": "corp",
        "issuer": provider.url,
        "audience": "qmtl",
        "algorithms": ["ES256"],
        "grants": GRANTS,
        "sign_in": sign_in,
        **more,
    }
    file = authfile.AuthFile.of({"oidc": told})
    actors = authfile.actors_of(file, Path("auth.toml"), SystemClock(), provider.secret)
    harness.services = replace(harness.services, issuer=actors, **services)
    harness.client = TestClient(create_app(harness.services), raise_server_exceptions=True)
    return Place(harness, provider)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with oidc.provider(CALLBACK) as made:
        yield made


@pytest.fixture
def place(harness: Harness, provider: Provider) -> Place:
    with_world(harness)
    return placed(harness, provider)


# ---- The whole way -----------------------------------------------------------------------------


def test_somebody_signs_in_at_the_issuer_and_comes_to_where_they_wanted(place: Place) -> None:
    one = place.stranger()
    page = one.get(f"/ui/worlds/{W}?phase=live")
    links = [str(t["href"]) for tag, t in page.tags if tag == "a"]
    (link,) = [link for link in links if link.startswith("/ui/sign-in/oidc")]
    assert "Sign in with corp" in page.text
    there = one.client.get(link, follow_redirects=False).headers["location"]
    back = one.get(gone_through(there))
    assert back.status == 200, back.text
    assert onward(back) == f"/ui/worlds/{W}?phase=live"
    shown = one.get(onward(back))
    assert (shown.status, "oidc:corp:pia" in shown.text) == (200, True)
    assert not shown.offers("/kill"), "a quant stops nothing"
    assert place.provider.asked == [
        *("/.well-known/openid-configuration", "/authorize", "/token", "/jwks"),
    ]


def test_what_goes_out_says_nothing_of_where_they_wanted(place: Place) -> None:
    one = place.stranger()
    to = f"/ui/worlds/{W}"
    told = one.client.get("/ui/sign-in/oidc", params={"to": to}, follow_redirects=False)
    asked = parse_qs(urlsplit(told.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert W not in told.headers["location"], "it is sealed"
    (cookie,) = one.cookies.values()
    assert cookie not in told.headers["location"]
    assert SECRET not in told.headers["location"]


def test_the_cookie_is_another_one_and_the_servers_alone(place: Place) -> None:
    one = place.stranger()
    where = place.begun(one)
    (before,) = one.cookies.values()
    said = one.get(where).answer.headers["set-cookie"].lower()
    for part in ("httponly", "samesite=strict", "path=/"):
        assert part in said
    (after,) = one.cookies.values()
    assert after != before
    assert "pia" not in after


def test_their_name_is_in_the_journal_as_a_tokens_is(place: Place) -> None:
    one = place.signed_in("olga", "ops")
    told = one.send(one.get(f"/ui/worlds/{W}"), "/kill", reason="a bad print")
    assert "every live weight is 0" in told.text
    entries = place.harness.ok("rea", "GET", f"/worlds/{W}/journal")["entries"]
    assert [e["actor"] for e in entries if e["kind"] == "killed"] == ["oidc:corp:olga"]
    assert "oidc:corp:olga" in one.get(f"/ui/worlds/{W}/journal").text


def approved(place: Place, one: Person) -> Seen:
    h = place.harness
    (found,) = h.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    page = one.get(f"/ui/worlds/{W}/candidates/{found['candidate_id']}")
    return one.send(page, "/approve", reason="it holds") if page.offers("/approve") else page


def by(place: Place) -> list[str]:
    (found,) = place.harness.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    return [each["by"] for each in found["approvals"]]


def test_two_approvals_are_of_two_people_not_of_two_sessions(place: Place) -> None:
    with_candidate(place.harness)
    first = place.signed_in("pia", "risk")
    assert "Your approval was recorded." in approved(place, first).text
    again = place.signed_in("pia", "risk", "quant")
    approved(place, again)
    (found,) = place.harness.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    run = {"strategy_id": "s1", "run_id": found["run_id"], "reason": "a JWT of hers, too"}
    (cookie,) = [v for n, v in again.cookies.items() if not n.endswith("notice")]
    headers = {"Authorization": f"Bearer {cookie}"}
    place.harness.call(None, "POST", f"{LIVE}/approve", run, headers=headers)
    assert by(place) == ["oidc:corp:pia"]
    approved(place, place.signed_in("pete", "risk"))
    assert by(place) == ["oidc:corp:pia", "oidc:corp:pete"]


def test_an_author_approves_nothing_of_theirs_whatever_they_are_signed_in_with(
    harness: Harness, provider: Provider
) -> None:
    with_world(harness)
    place = placed(harness, provider)
    one = place.signed_in("ann", "quant", "risk")
    (cookie,) = one.cookies.values()
    headers = {"Authorization": f"Bearer {cookie}"}
    told = harness.call(None, "POST", "/strategies", submission("mine"), headers=headers)
    assert told.status_code == 200, told.text
    with_candidate(harness, "mine")
    listed = harness.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    (found,) = [c for c in listed if c["strategy_id"] == "mine"]
    again = place.signed_in("ann", "risk")
    page = again.get(f"/ui/worlds/{W}/candidates/{found['candidate_id']}")
    assert not page.offers("/approve")


@pytest.mark.parametrize(("secret", "by_post"), [(None, False), (SECRET, True), (SECRET, False)])
def test_a_client_says_who_it_is_as_the_provider_wants_it(
    harness: Harness, provider: Provider, secret: str | None, by_post: bool
) -> None:
    with_world(harness)
    provider.secret, provider.by_post = secret, by_post
    place = placed(harness, provider)
    assert place.came(place.stranger()).status == 200


def test_a_client_whose_secret_is_wrong_is_told_so_and_tokens_go_on(place: Place) -> None:
    place.provider.secret = "another"
    one = place.stranger()
    page = place.came(one)
    assert page.status == 503
    assert "client_id and secret" in page.text
    assert "sign in by token" in page.text
    assert one.send(page, "/ui/sign-in", token=place.harness.tokens["rea"]).status == 200


# ---- Roles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [[], ["other"], None, {"quant": True}, [["quant"]]])
def test_who_has_no_role_gets_nothing_and_is_told_so(place: Place, groups: Any) -> None:
    place.provider.person = {"sub": "nora", "groups": groups}
    one = place.stranger()
    page = place.came(one)
    assert page.status == 403
    assert "You are oidc:corp:nora here, and none of your groups has a role" in page.text
    assert one.get("/ui").status == 401, "and is not signed in"


def test_roles_hold_where_they_were_given(place: Place) -> None:
    place.harness.ok("admin", "POST", "/worlds", {"id": "beta"})
    one = place.signed_in("pia", "quant")
    assert one.get(f"/ui/worlds/{W}").status == 200
    assert one.get("/ui/worlds/beta").status == 403
    assert "beta" not in one.get("/ui").text


def test_a_role_that_is_taken_from_a_group_is_gone_at_once(place: Place) -> None:
    one = place.signed_in("olga", "ops")
    issuer = place.harness.services.issuer
    assert issuer is not None
    later = replace(issuer, groups={n: g for n, g in issuer.groups.items() if n != "ops"})
    services = replace(place.harness.services, issuer=later)
    restarted = Person(TestClient(create_app(services), base_url=HERE))
    restarted.client.cookies.update(one.client.cookies)
    assert restarted.get(f"/ui/worlds/{W}").status == 403


# ---- How a session ends ------------------------------------------------------------------------


def test_a_session_lasts_as_long_as_the_issuers_word(harness: Harness, provider: Provider) -> None:
    with_world(harness)
    clock = Standing()
    sessions = Sessions(clock=clock)
    place = placed(harness, provider, sessions=sessions, max_lifetime="30m")
    one = place.signed_in("pia", "quant")
    clock.wait(1_799)
    assert one.get("/ui").status == 200
    clock.wait(1)
    page = one.get("/ui")
    assert (page.status, "The session is over" in page.text) == (401, True)


def test_a_key_that_is_withdrawn_ends_the_sessions_it_vouched_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = place.signed_in("pia", "quant")
    monkeypatch.setattr("qmtl.adapters.issuer.FRESH_SEC", 0.0)
    monkeypatch.setattr("qmtl.adapters.issuer.RETRY_SEC", 0.0)
    assert one.get("/ui").status == 200
    place.provider.keys = jwks(public("ES256 other", "k1"))
    page = one.get("/ui")
    assert (page.status, "The session is over" in page.text) == (401, True)


def test_without_the_issuer_in_the_file_its_sessions_are_over(place: Place) -> None:
    one = place.signed_in("pia", "quant")
    issuer = place.harness.services.issuer
    assert issuer is not None
    for other in (None, replace(issuer, name="other")):
        services = replace(place.harness.services, issuer=other)
        restarted = Person(TestClient(create_app(services), base_url=HERE))
        restarted.client.cookies.update(one.client.cookies)
        assert restarted.get("/ui").status == 401


def test_a_jwt_that_is_pasted_begins_a_session_that_ends_with_it(
    harness: Harness, provider: Provider
) -> None:
    with_world(harness)
    clock = Standing(SystemClock().now())
    place = placed(harness, provider, sessions=Sessions(clock=clock))
    now = int(clock.at.timestamp())
    text = signed(iss=provider.url, iat=now, exp=now + 600, groups=["quant"])
    one = place.stranger()
    assert one.send(one.get("/ui/sign-in"), "/ui/sign-in", token=text).status == 200
    clock.wait(601)
    assert one.get("/ui").status == 401
    other = place.stranger()
    nobody = signed(iss=provider.url, iat=now, exp=now + 600, groups=[])
    told = other.send(other.get("/ui/sign-in"), "/ui/sign-in", token=nobody)
    assert (told.status, "none of your groups has a role" in told.text) == (403, True)


# ---- One thing broken --------------------------------------------------------------------------


def _breaks(**changes: Any) -> Callable[[Provider], None]:
    return lambda provider: provider.claims.update(changes)


def _made(made: Callable[..., str]) -> Callable[[Provider], None]:
    return lambda provider: setattr(provider, "made", made)


def _answers(**changes: str) -> Callable[[Provider], None]:
    return lambda provider: provider.answer.update(changes)


BROKEN: list[tuple[str, Callable[[Provider], None], str]] = [
    ("wrong nonce", _breaks(nonce="another"), "of another sign-in"),
    ("no nonce", _breaks(nonce=None), "of another sign-in"),
    ("a nonce that is no text", _breaks(nonce=7), "of another sign-in"),
    ("wrong audience", _breaks(aud="qmtl"), "another audience"),
    ("for another client, too", _breaks(aud=[CLIENT, "other"]), "another client"),
    ("made for another", _breaks(azp="other"), "another client"),
    ("another issuer", _breaks(iss="https://evil.example"), "another issuer"),
    ("expired", _breaks(exp=1_000_000_000), "expired"),
    ("no end", _breaks(exp=None), "its exp"),
    ("from the future", _breaks(iat=4_000_000_000, exp=4_000_000_060), "later than now"),
    ("no subject", _breaks(sub=None), "its sub"),
    ("algorithm none", _made(lambda **_: unsigned()), "signed otherwise"),
    ("signed with the public key", _made(lambda **_: signed_with_the_public_key()), "otherwise"),
    ("another algorithm", _made(lambda **c: signed("RS256", **c)), "signed otherwise"),
    ("another key of its name", _made(lambda **c: signed("ES256 other", **c)), "does not hold"),
    ("an unknown key", _made(lambda **c: signed("ES256 other", "k9", **c)), "does not publish"),
    ("no JWT", _made(lambda **_: "a.b"), "not whole"),
    ("a code of nobody", _answers(code="guessed"), "for nothing (invalid_grant)"),
    ("no code", _answers(code=""), "has no code"),
    ("denied", _answers(error="access_denied"), "did not sign you in (access_denied)"),
    ("an error that is a sentence", _answers(error="call +1 555 <b>"), "did not sign you in."),
    ("another issuer answers", _answers(iss="https://evil.example"), "Another issuer"),
    ("no issuer answers", _answers(iss=""), "Another issuer"),
    ("wrong state", _answers(state="A" * 120), "not begun in this browser"),
    ("no state", _answers(state=""), "not begun in this browser"),
]


@pytest.mark.parametrize(("what", "breaks", "says"), BROKEN, ids=[b[0] for b in BROKEN])
def test_one_thing_broken_and_nobody_is_signed_in(
    place: Place, what: str, breaks: Callable[[Provider], None], says: str
) -> None:
    breaks(place.provider)
    one = place.stranger()
    page = place.came(one)
    assert page.status == 401, page.text
    assert says in page.text
    assert page.offers("/ui/sign-in"), "by token, still"
    assert one.get("/ui").status == 401


def test_several_audiences_are_fine_when_it_was_made_for_us(place: Place) -> None:
    place.provider.claims = {"aud": ["other", CLIENT], "azp": CLIENT}
    assert place.came(place.stranger()).status == 200


def test_what_began_in_one_browser_ends_in_no_other(place: Place) -> None:
    """Else somebody could sign others in as themselves, or use a code that they overheard."""
    mine, theirs = place.stranger(), place.stranger()
    where = place.begun(mine)
    theirs.get("/ui/sign-in")
    page = theirs.get(where)
    assert (page.status, "not begun in this browser" in page.text) == (401, True)
    nobody = place.stranger()
    sent_on = nobody.get(where)
    assert (sent_on.status, "set-cookie" in sent_on.answer.headers) == (200, False)
    assert nobody.get(onward(sent_on)).status == 401, "once, and not for ever"
    assert "/token" not in place.provider.asked
    assert mine.get(where).status == 200
    assert mine.get(where).status == 401, "and there only once"


def test_from_the_issuers_page_the_browser_is_sent_on_before_it_brings_its_cookie(
    place: Place,
) -> None:
    one = place.stranger()
    where = place.begun(one)
    without = Person(TestClient(place.harness.client.app, base_url=HERE))
    sent_on = without.get(where, headers={"Sec-Fetch-Site": "cross-site"})
    assert one.get(onward(sent_on)).status == 200


def test_it_takes_at_most_ten_minutes(harness: Harness, provider: Provider) -> None:
    clock = Standing()
    place = placed(harness, provider, sessions=Sessions(clock=clock))
    one = place.stranger()
    where = place.begun(one)
    clock.wait(601)
    page = one.get(where)
    assert (page.status, "too long" in page.text) == (401, True)


def test_what_comes_twice_is_refused(place: Place) -> None:
    one = place.stranger()
    where = place.begun(one).replace("?", "?code=other&")
    page = one.get(where)
    assert (page.status, "something twice" in page.text) == (401, True)


@pytest.mark.parametrize(
    "to", ["https://evil.example", "//evil.example", "/ui/\\evil", "/ui@evil", "/ui/" + "x" * 2000]
)
def test_nobody_is_sent_elsewhere_afterwards(place: Place, to: str) -> None:
    one = place.stranger()
    assert onward(one.get(place.begun(one, to))) == "/ui"


def test_a_link_of_another_site_begins_nothing(place: Place) -> None:
    """It would replace whatever the browser has here."""
    one = place.stranger()
    told = one.client.get(
        "/ui/sign-in/oidc", headers={"Sec-Fetch-Site": "cross-site"}, follow_redirects=False
    )
    assert told.status_code == 200
    assert "set-cookie" not in told.headers


def test_guessing_codes_is_slowed_down(harness: Harness, provider: Provider) -> None:
    place = placed(harness, provider, limiter=Limiter(Limits(failures_per_min=3)))
    provider.answer["code"] = "guessed"
    assert [place.came(place.stranger()).status for _ in range(5)] == [401, 401, 401, 429, 429]


# ---- The provider ------------------------------------------------------------------------------


def test_keys_that_were_changed_are_fetched_once_more(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.signed_in("pia", "quant")
    monkeypatch.setattr("qmtl.adapters.issuer.UNKNOWN_KID_SEC", 0.0)
    monkeypatch.setattr("qmtl.adapters.issuer.RETRY_SEC", 0.0)
    place.provider.keys = jwks(public("ES256", "k1"), public("ES256 other", "k2"))
    place.provider.made = lambda **claims: signed("ES256 other", "k2", **claims)
    place.signed_in("pete", "quant")
    assert place.provider.asked.count("/jwks") == 2
    place.provider.made = lambda **claims: signed("ES256 third", "k3", **claims)
    assert place.came(place.stranger()).status == 401
    assert place.provider.asked.count("/jwks") == 3, "once"


def test_with_the_provider_away_one_signs_in_by_token(harness: Harness) -> None:
    with oidc.provider(CALLBACK) as gone:
        place = placed(harness, gone)
    one = place.stranger()
    told = one.get("/ui/sign-in/oidc?to=/ui/system")
    assert told.status == 503
    assert "The issuer cannot be asked" in told.text
    assert "or sign in by token" in told.text
    form = told.form("/ui/sign-in")
    assert form.fields["to"] == "/ui/system", "and still comes to where they wanted"
    assert one.post(form.action, {**form.fields, "token": harness.tokens["rea"]}).status == 200


def test_with_the_provider_away_on_the_way_back_too(place: Place) -> None:
    one = place.stranger()
    where = place.begun(one)
    place.provider.metadata = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place.provider, "exchanged", lambda *_: (502, "<html>"))
        page = one.get(where)
    assert (page.status, "The issuer answers 502" in page.text) == (503, True)


METADATA: list[tuple[str, dict[str, Any]]] = [
    ("another issuer", {"issuer": "https://evil.example"}),
    ("no endpoint", {"token_endpoint": None}),
    ("an endpoint in the clear", {"authorization_endpoint": "http://login.example.com/a"}),
    ("keys in the clear", {"jwks_uri": "http://login.example.com/k"}),
    ("an endpoint that is a script", {"authorization_endpoint": "javascript:alert(1)"}),
    ("no PKCE with S256", {"code_challenge_methods_supported": ["plain"]}),
]


@pytest.mark.parametrize(("what", "told"), METADATA, ids=[m[0] for m in METADATA])
def test_a_discovery_document_that_cannot_be_trusted_is_none(
    place: Place, what: str, told: dict[str, Any]
) -> None:
    place.provider.metadata = told
    one = place.stranger()
    assert one.get("/ui/sign-in/oidc").status == 503


def test_a_provider_that_does_not_speak_of_pkce_or_of_itself_is_asked_for_it_all_the_same(
    harness: Harness, provider: Provider
) -> None:
    with_world(harness)
    provider.metadata = {
        "code_challenge_methods_supported": None,
        "authorization_response_iss_parameter_supported": None,
        "token_endpoint_auth_methods_supported": None,
    }
    provider.answer = {"iss": ""}
    place = placed(harness, provider)
    assert place.came(place.stranger()).status == 200


def test_without_an_issuer_there_is_no_such_door(harness: Harness) -> None:
    one = stranger(harness)
    assert "Sign in with" not in one.get("/ui/sign-in").text
    told = one.get("/ui/sign-in/oidc")
    assert (told.status, "sign in by token" in told.text) == (404, True)
    assert person(harness, "rea").get("/ui").status == 200


def test_through_a_gateway_too(harness: Harness, tmp_path: Path) -> None:
    """Which hands on no Host, and makes a cookie that goes over TLS only where it is called so."""
    with_world(harness)
    with ExitStack() as stack:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        provider = stack.enter_context(oidc.provider(url + authfile.CALLBACK))
        place = placed(harness, provider, url=url)
        world = stack.enter_context(listening(harness.client.app, harness.services.bell.close))
        gateway = Gateway(world, Spool(tmp_path / "spool"), SystemClock())
        stack.enter_context(listening(create_gateway(gateway), gateway.close, port))
        client = stack.enter_context(httpx.Client(base_url=url))
        there = client.get("/ui/sign-in/oidc").headers["location"]
        back = Seen(client.get(gone_through(there)))
        assert back.status == 200, back.text
        assert "oidc:corp:pia" in Seen(client.get(onward(back))).text
        assert place.provider.asked.count("/token") == 1


def test_signing_in_writes_nothing(place: Place) -> None:
    before = place.harness.state()
    place.signed_in("pia", "quant")
    assert place.harness.state() == before
