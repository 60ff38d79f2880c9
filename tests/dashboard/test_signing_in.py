"""Signing in and out, and forms that are somebody else's."""

from datetime import timedelta

import pytest

from qmtl.core.names import Role
from qmtl.entry import identity
from qmtl.entry.dashboard import sessions
from qmtl.entry.dashboard.sessions import SESSION_SEC, Sessions
from qmtl.entry.dashboard.visits import safe_path
from tests.dashboard.browsing import Person, person, stranger
from tests.http.harness import Harness, W, with_world

KILL = f"/ui/worlds/{W}/kill"


def cookie_of(one: Person) -> str:
    (value,) = one.cookies.values()
    return value


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
    one.client.cookies.set("qmtl_8321", cookie)
    assert one.get("/ui").status == 401


def test_a_session_ends(harness: Harness) -> None:
    clock = [0.0]
    held = Sessions(lambda: clock[0])
    cookie = held.begin("token")
    clock[0] = SESSION_SEC - 1
    assert held.of(cookie) is not None
    clock[0] = SESSION_SEC
    assert held.of(cookie) is None
    assert len(held) == 0


def test_there_are_only_so_many_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 3)
    held = Sessions()
    cookies = [held.begin(str(n)) for n in range(5)]
    assert [held.of(cookie) is not None for cookie in cookies] == [False, False, True, True, True]


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
