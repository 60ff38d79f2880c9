"""Signing in and out, and forms that are somebody else's."""

from dataclasses import replace
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from qmtl.adapters.sealing import Seal
from qmtl.core.errors import Invalid
from qmtl.core.names import ActorId, Role
from qmtl.entry import identity
from qmtl.entry.dashboard.visits import safe_path
from qmtl.entry.http import create_app
from qmtl.entry.sessions import SESSION, SESSION_PREFIX, Sessions
from qmtl.entry.sessions import Person as IssuersPerson
from tests.dashboard.browsing import HERE, Person, person, stranger
from tests.http.harness import Harness, W, with_world
from tests.jwts import Standing

KILL = f"/ui/worlds/{W}/kill"


COOKIE = "qmtl_8321"


def cookie_of(one: Person) -> str:
    return one.cookies[COOKIE]


def test_who_is_not_signed_in_is_asked_to_be_and_comes_to_where_they_wanted(
    harness: Harness,
) -> None:
    with_world(harness)
    one = stranger(harness)
    page = one.get(f"/ui/worlds/{W}?phase=live")
    assert (page.status, "Sign in" in page.text, W in page.text) == (401, True, False)
    form = page.form("/ui/sign-in")
    told = one.client.post(
        form.action, data={**form.fields, "token": harness.tokens["rea"]}, follow_redirects=False
    )
    assert (told.status_code, told.headers["location"]) == (303, f"/ui/worlds/{W}?phase=live")
    assert one.get(f"/ui/worlds/{W}").status == 200


@pytest.mark.parametrize(
    "token", ["qmtl_wrong", "", "a.b.c", "x" * 5000, "<script>alert(1)</script>"]
)
def test_a_wrong_token_signs_nobody_in(harness: Harness, token: str) -> None:
    one = stranger(harness)
    told = one.send(one.get("/ui/sign-in"), "/ui/sign-in", token=token)
    assert told.status == 401
    assert "<script" not in told.answer.text
    assert one.get("/ui").status == 401


def test_guessing_is_slowed_down(harness: Harness) -> None:
    one = stranger(harness)
    page = one.get("/ui/sign-in")
    statuses = {one.send(page, "/ui/sign-in", token="qmtl_wrong").status for _ in range(400)}
    assert statuses == {401, 429}


def test_the_cookie_is_the_servers_alone(harness: Harness) -> None:
    one = stranger(harness)
    page = one.get("/ui/sign-in")
    before = cookie_of(one)
    form = page.form("/ui/sign-in")
    told = one.client.post(
        form.action, data={**form.fields, "token": harness.tokens["rea"]}, follow_redirects=False
    )
    said = told.headers["set-cookie"].lower()
    assert said.startswith("qmtl_8321=")
    for part in ("httponly", "samesite=strict", "path=/"):
        assert part in said
    assert "secure" not in said, "on loopback there is no TLS"
    assert "max-age" not in said, "it goes with the browser"
    assert cookie_of(one) != before, "nobody signs another in to a session of their own"
    assert harness.tokens["rea"] not in told.text + said


def test_elsewhere_the_cookie_goes_over_tls_only(harness: Harness) -> None:
    one = stranger(harness, "https://qmtl.example.com")
    said = one.get("/ui/sign-in").answer.headers["set-cookie"]
    assert said.startswith("__Host-qmtl=")
    assert "; secure" in said.lower()


def test_signing_out_ends_the_session_and_not_only_the_cookie(harness: Harness) -> None:
    one = person(harness, "rea")
    page, cookie = one.get("/ui"), cookie_of(one)
    assert one.send(page, "/ui/sign-out").status == 200
    one.client.cookies.set(COOKIE, cookie)
    assert one.get("/ui").status == 401


def test_a_session_ends() -> None:
    clock = Standing()
    held = Sessions(clock=clock)
    whole, short = held.begin("d" * 64), held.begin("d" * 64, clock.at + timedelta(hours=1))
    clock.wait(3_599)
    assert held.of(short) is not None
    clock.wait(1)
    assert held.of(short) is None
    clock.wait(SESSION.total_seconds() - 3_601)
    assert held.of(whole) is not None
    clock.wait(1)
    assert held.of(whole) is None


def test_what_is_no_session_of_ours_is_none() -> None:
    held = Sessions(Seal(b"k" * 32))
    cookie = held.begin("d" * 64)
    changed = cookie[:-2] + ("A" if cookie[-2] != "A" else "B") + cookie[-1]
    form = SESSION_PREFIX + held.seal.closed(b'["a",9e9,"d"]', "notice")
    elses = Sessions(Seal(b"j" * 32)).begin("d" * 64)
    nothing = (None, "", SESSION_PREFIX, SESSION_PREFIX + "ß", cookie[6:])
    for wrong in (*nothing, changed, form, elses):
        assert held.of(wrong) is None, wrong
    assert held.of(cookie) is not None
    assert Sessions(Seal(b"k" * 32)).of(cookie) == held.of(cookie)


def test_what_no_browser_would_keep_is_refused() -> None:
    groups = tuple(f"group-{number:04}" for number in range(400))
    with pytest.raises(Invalid, match="too many"):
        Sessions().begin(IssuersPerson(actor=ActorId("oidc:corp:pia"), groups=groups, key="k"))


def another_server(harness: Harness, one: Person, **changes: object) -> Person:
    """The same browser at another process of the same store and the same journal key."""
    services = replace(harness.services, **changes)  # type: ignore[arg-type]  # As told.
    made = Person(TestClient(create_app(services), base_url=HERE))
    made.client.cookies.update(one.client.cookies)
    return made


def test_a_session_is_one_at_every_server_and_after_a_restart(harness: Harness) -> None:
    with_world(harness)
    one = person(harness, "olga")
    seal = harness.services.sessions.seal
    other = another_server(harness, one, sessions=Sessions(seal))
    page = one.get(f"/ui/worlds/{W}")
    told = other.send(page, "/kill", reason="a form of one, sent to the other")
    assert "every live weight is 0" in told.text, "and what is said is said there"
    assert "every live weight is 0" not in other.get(f"/ui/worlds/{W}").text, "once"
    assert another_server(harness, one, sessions=Sessions()).get("/ui").status == 401


def test_who_signs_out_is_signed_out_everywhere(harness: Harness) -> None:
    one = person(harness, "rea")
    copy = another_server(harness, one, sessions=Sessions(harness.services.sessions.seal))
    assert copy.get("/ui").status == 200
    one.send(one.get("/ui"), "/ui/sign-out")
    told = copy.get("/ui")
    assert (told.status, "The session is over" in told.text) == (401, True)
    headers = {"Authorization": f"Bearer {cookie_of(copy)}"}
    assert harness.call(None, "GET", "/worlds", headers=headers).status_code == 401


def test_a_token_that_is_revoked_ends_its_sessions_at_every_server_at_once(
    harness: Harness,
) -> None:
    one = person(harness, "rea")
    other = another_server(harness, one, sessions=Sessions(harness.services.sessions.seal))
    harness.ok("adam", "DELETE", f"/tokens/{identity.digest(harness.tokens['rea'])}")
    assert other.get("/ui").status == 401


def test_who_signs_in_again_leaves_no_session_behind(harness: Harness) -> None:
    one = person(harness, "rea")
    copy = another_server(harness, one)
    told = one.send(one.get("/ui/sign-in"), "/ui/sign-in", token=harness.tokens["olga"])
    assert (told.status, "olga" in told.text) == (200, True)
    assert copy.get("/ui").status == 401


def test_what_is_said_to_one_session_is_said_to_no_other() -> None:
    held = Sessions()
    told = held.notice("mine", "It was applied.")
    assert held.noticed("mine", told) == "It was applied."
    assert [held.noticed("yours", told), held.noticed("mine", None)] == ["", ""]
    assert held.noticed("mine", "It was applied.") == "", "and by nobody but us"


def test_a_session_begins_no_other(harness: Harness) -> None:
    """Else it would never end."""
    one = person(harness, "rea")
    other = stranger(harness)
    told = other.send(other.get("/ui/sign-in"), "/ui/sign-in", token=cookie_of(one))
    assert told.status == 401


def test_nobody_reads_a_token_out_of_a_cookie(harness: Harness) -> None:
    token = harness.tokens["rea"]
    cookie = cookie_of(person(harness, "rea"))
    assert token not in cookie
    assert identity.digest(token) not in cookie


def test_what_a_session_stands_for_is_looked_at_with_every_request(harness: Harness) -> None:
    one = person(harness, "rea")
    harness.ok("adam", "DELETE", f"/tokens/{identity.digest(harness.tokens['rea'])}")
    assert one.get("/ui").status == 401


def test_a_credential_for_one_world_sees_that_one(harness: Harness) -> None:
    with_world(harness)
    harness.ok("admin", "POST", "/worlds", {"id": "beta"})
    harness.token("zoe", Role.READER, world="beta")
    one = person(harness, "zoe")
    assert "beta" in one.get("/ui").text
    assert W not in one.get("/ui").text
    assert one.get("/ui/worlds/beta").status == 200
    assert one.get(f"/ui/worlds/{W}").status == 403
    assert one.get("/ui/worlds/nowhere").status == 403, "no world is told of"
    assert person(harness, "rea").get("/ui/worlds/nowhere").status == 404


@pytest.mark.parametrize(
    ("to", "goes"),
    [
        ("/ui/worlds/a?x=1", "/ui/worlds/a?x=1"),
        ("/ui", "/ui"),
        ("//evil.example", "/ui"),
        ("https://evil.example", "/ui"),
        ("/uievil", "/ui"),
        ("/ui/\\evil", "/ui"),
        ("/ui/\r\nSet-Cookie: a=b", "/ui"),
        ("/worlds", "/ui"),
        ("", "/ui"),
    ],
)
def test_nobody_is_sent_elsewhere(to: str, goes: str) -> None:
    assert safe_path(to) == goes


def test_a_link_from_elsewhere_arrives(harness: Harness) -> None:
    """SameSite=Strict: the browser brings no cookie then, signed in or not.  So it is sent on."""
    one = stranger(harness)
    page = one.get(f"/ui/worlds/{W}", headers={"Sec-Fetch-Site": "cross-site"})
    assert page.status == 200
    assert f'content="0;url=/ui/worlds/{W}"' in page.answer.text
    assert "set-cookie" not in page.answer.headers, "the one it has is not lost"


# ---- Forms of somebody else's ----------------------------------------------------------------


def killed(harness: Harness) -> bool:
    return bool(harness.ok("admin", "GET", f"/worlds/{W}")["killed"])


def test_a_form_of_elsewhere_does_nothing(harness: Harness) -> None:
    with_world(harness)
    one, other = person(harness, "olga"), person(harness, "al")
    mine = one.get(f"/ui/worlds/{W}").form("/kill").fields
    theirs = other.get(f"/ui/worlds/{W}").form("/kill").fields
    for fields, headers in (
        ({**mine, "csrf": ""}, {}),
        ({k: v for k, v in mine.items() if k != "csrf"}, {}),
        ({**mine, "csrf": theirs["csrf"]}, {}),
        ({**mine, "csrf": "ß"}, {}),
        (mine, {"Sec-Fetch-Site": "cross-site"}),
        (mine, {"Sec-Fetch-Site": "same-site"}),
    ):
        assert one.post(KILL, fields, headers=headers).status == 403
    assert not killed(harness)
    assert one.post(KILL, mine, headers={"Sec-Fetch-Site": "same-origin"}).status == 200
    assert killed(harness)


def test_a_form_without_a_session_does_nothing(harness: Harness) -> None:
    with_world(harness)
    mine = person(harness, "olga").get(f"/ui/worlds/{W}").form("/kill").fields
    assert stranger(harness).post(KILL, mine).status == 401
    assert not killed(harness)


def test_nobody_is_signed_in_or_out_by_another_site(harness: Harness) -> None:
    one = stranger(harness)
    one.get("/ui/sign-in")
    assert one.post("/ui/sign-in", {"token": harness.tokens["rea"]}).status == 403
    signed_in = person(harness, "rea")
    assert signed_in.post("/ui/sign-out", {}).status == 403
    assert signed_in.get("/ui").status == 200


def test_the_same_form_twice_is_once(ready: Harness) -> None:
    """A form carries a key: sent twice, as by an impatient hand, it is answered as the first."""
    one = person(ready, "olga")
    page = one.get(f"/ui/worlds/{W}/strategies/s1")
    form = page.form("/extend")
    fields = {**form.fields, "by": "30d", "reason": "more data is on its way"}
    for _ in range(2):
        assert one.post(form.action, fields).status == 200
    kinds = [e["kind"] for e in ready.ok("rea", "GET", f"/worlds/{W}/journal")["entries"]]
    assert kinds.count("campaign_extended") == 1


def test_a_session_outlives_a_day_of_the_worlds_clock(ready: Harness) -> None:
    """Its end is on the machine's clock: a replay that goes through years signs nobody out."""
    one = person(ready, "rea")
    ready.advance(timedelta(days=900))
    assert one.get(f"/ui/worlds/{W}").status == 200
