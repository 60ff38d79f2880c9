"""A JWT is believed when all of it holds: one thing broken, one refusal."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from qmtl.adapters import issuer as adapter
from qmtl.adapters.issuer import ALGORITHMS, Issuer, Keys, Trust, from_file, from_url, keys_of
from qmtl.core.errors import Invalid, IssuerAway, Unauthenticated
from tests.jwts import (
    AUDIENCE,
    ISSUER,
    NOW,
    Published,
    Standing,
    claims,
    jwks,
    private,
    public,
    seconds,
    secret,
    signed,
)

LEEWAY, LIFETIME = timedelta(seconds=30), timedelta(hours=1)


def trust(*algorithms: str) -> Trust:
    return Trust(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=frozenset(algorithms or ("ES256",)),
        leeway=LEEWAY,
        lifetime_max=LIFETIME,
    )


def issuer_of(
    published: Published | None = None, clock: Standing | None = None, *algorithms: str
) -> Issuer:
    clock = clock or Standing()
    keys = Keys((published or Published()).load, clock.monotonic)
    return Issuer(trust(*algorithms), keys, clock)


class Unseen(Exception):
    """It would have to be verified."""


def was_seen(issuer: Issuer, text: str) -> bool:
    """Whether a JWT is known to be good, without its signature being looked at."""

    def unseen() -> None:
        raise Unseen

    try:
        issuer.claims_of(text, unseen)
    except Unseen:
        return False
    return True


def part(told: Any) -> str:
    return urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=").decode()


def unsigned() -> str:
    return f"{part({'alg': 'none', 'kid': 'k1'})}.{part(claims())}."


def signed_with_the_public_key(algorithm: str = "HS256") -> str:
    """The classic: the server's public key, used as a secret that everybody knows."""
    pem = (
        private("ES256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    told = f"{part({'alg': algorithm, 'kid': 'k1'})}.{part(claims())}"
    mac = hmac.new(pem, told.encode(), hashlib.sha256).digest()
    return f"{told}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def with_other_claims() -> str:
    head, _, signature = signed().split(".")
    return f"{head}.{part(claims(sub='admin'))}.{signature}"


def later(**ago: float) -> int:
    return seconds(NOW + timedelta(**ago))


@pytest.mark.parametrize("kind", ["ES256", "ES384", "EdDSA", "RS256", "PS512"])
def test_what_holds_is_believed(kind: str) -> None:
    issuer = issuer_of(Published(jwks(public(kind, "k1"))), None, kind)
    text = signed(kind)
    assert not was_seen(issuer, text)
    assert issuer.claims_of(text) == claims()
    assert was_seen(issuer, text)


def test_an_audience_may_be_one_of_several() -> None:
    assert issuer_of().claims_of(signed(aud=["other", AUDIENCE]))["sub"] == "pia"


BROKEN: list[tuple[str, Callable[[], str], str]] = [
    ("not a JWT", lambda: "a.b.c", "not whole"),
    ("two parts", lambda: "a.b", "not whole"),
    ("cut off", lambda: signed()[:-4], "signature does not hold"),
    ("other claims", with_other_claims, "signature does not hold"),
    ("no algorithm", unsigned, "signed otherwise"),
    ("signed with the public key", signed_with_the_public_key, "signed otherwise"),
    ("another algorithm", lambda: signed("RS256"), "signed otherwise"),
    ("another key of its name", lambda: signed("ES256 other"), "signature does not hold"),
    ("a key nobody knows", lambda: signed("ES256 other", "k9"), "does not publish"),
    ("too long", lambda: signed(pad="x" * 9_000), "at most 8192"),
    ("a header that must be understood", lambda: signed(header={"crit": ["x"]}), "not whole"),
    (
        "a kid that is no text",
        lambda: ".".join([part({"alg": "ES256", "kid": 7}), "e30", ""]),
        "no",
    ),
    ("another issuer", lambda: signed(iss="https://evil.example"), "another issuer"),
    ("another audience", lambda: signed(aud="other"), "another audience"),
    ("no issuer", lambda: signed(iss=None), "its iss"),
    ("no audience", lambda: signed(aud=None), "its aud"),
    ("no subject", lambda: signed(sub=None), "its sub"),
    ("no end", lambda: signed(exp=None), "its exp"),
    ("no beginning", lambda: signed(iat=None), "its iat"),
    ("expired", lambda: signed(exp=later(seconds=-30)), "expired"),
    ("from the future", lambda: signed(iat=later(seconds=31)), "later than now"),
    ("not yet", lambda: signed(nbf=later(seconds=31)), "not hold yet"),
    ("too long a life", lambda: signed(exp=later(minutes=60)), "for longer"),
    ("an end that is text", lambda: signed(exp=str(later(minutes=9))), "exp is no time"),
    ("an end that is true", lambda: signed(exp=True), "exp is no time"),
    ("an end that is NaN", lambda: signed(exp=float("nan")), "exp is no time"),
    ("in milliseconds", lambda: signed(exp=later(minutes=9) * 1000), "exp is no time"),
    ("a beginning that is text", lambda: signed(iat="now"), "iat is no time"),
    ("nbf that is text", lambda: signed(nbf="now"), "nbf is no time"),
]


@pytest.mark.parametrize(("what", "made", "says"), BROKEN, ids=[b[0] for b in BROKEN])
def test_one_thing_broken_and_it_is_refused(what: str, made: Callable[[], str], says: str) -> None:
    issuer, text = issuer_of(), made()
    for _ in range(2):  # And not remembered as good.
        with pytest.raises(Unauthenticated, match=says):
            issuer.claims_of(text)
        assert len(text) > 8_192 or not was_seen(issuer, text)


def test_leeway_is_what_it_is() -> None:
    for changes in (
        {"exp": later(seconds=-29)},
        {"iat": later(seconds=30)},
        {"nbf": later(seconds=30)},
    ):
        assert issuer_of().claims_of(signed(**changes))


def test_a_key_verifies_only_what_it_is_for() -> None:
    """A key of one kind is never used with the algorithm of another, whatever the JWT says."""
    published = Published(jwks(public("RS256", "k1", alg="RS256"), public("ES256", "k2")))
    issuer = issuer_of(published, None, "RS256", "PS256", "ES256")
    assert issuer.claims_of(signed("RS256"))
    for wrong in (signed("PS256"), signed("ES256", "k1")):
        with pytest.raises(Unauthenticated, match=r"not for its algorithm"):
            issuer.claims_of(wrong)


def test_without_a_kid_there_has_to_be_one_key() -> None:
    assert issuer_of().claims_of(signed("ES256", None))
    two = Published(jwks(public("ES256", "k1"), public("ES384", "k2")))
    with pytest.raises(Unauthenticated, match="does not publish"):
        issuer_of(two).claims_of(signed("ES256", None))


UNUSABLE: list[tuple[str, bytes]] = [
    ("not JSON", b"<html>"),
    ("no list", b'{"keys": {}}'),
    ("a list alone", b"[]"),
    ("no keys", jwks()),
    ("a secret", jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "k1", "alg": "HS256"})),
    ("a private key", jwks(secret("ES256", "k1"))),
    ("for encryption", jwks(public("ES256", "k1", use="enc"))),
    ("for signing", jwks(public("ES256", "k1", key_ops=["sign"]))),
    ("another algorithm's", jwks(public("ES256", "k1", alg="HS256"))),
    ("an unknown curve", jwks(public("ES256", "k1", crv="P-1"))),
    ("half a point", jwks(public("ES256", "k1", y=None))),
    ("too short", jwks(public("RS256 short", "k1"))),
    ("two of one name", jwks(public("ES256", "k1"), public("ES384", "k1"))),
]


@pytest.mark.parametrize(("what", "body"), UNUSABLE, ids=[u[0] for u in UNUSABLE])
def test_keys_that_cannot_be_used_are_none(what: str, body: bytes) -> None:
    with pytest.raises(Invalid, match="JWKS"):
        keys_of(body)


def test_what_cannot_be_used_is_left_out() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}
    (key,) = keys_of(jwks(secret, public("ES256", "k2"), 7))  # type: ignore[arg-type]  # The test.
    assert (key.kid, key.algorithms) == ("k2", {"ES256"})
    assert not any(name.startswith("HS") or name == "none" for name in ALGORITHMS)


# ---- Where the keys are ------------------------------------------------------------------------


def test_keys_are_fetched_when_they_are_needed_and_again_when_they_are_old() -> None:
    published, clock = Published(), Standing()
    issuer = issuer_of(published, clock)
    assert published.asked == 0, "not before anybody has a JWT"
    for _ in range(3):
        issuer.claims_of(signed())
    assert published.asked == 1
    clock.wait(adapter.FRESH_SEC)
    issuer.claims_of(signed(iat=seconds(clock.at), exp=seconds(clock.at) + 60))
    assert published.asked == 2


def test_a_key_nobody_knows_is_looked_for_at_most_once_a_minute() -> None:
    published, clock = Published(), Standing()
    issuer = issuer_of(published, clock)
    new = signed("ES256 other", "k2")
    issuer.claims_of(signed())
    published.body = jwks(public("ES256 other", "k2"))
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            issuer.claims_of(new)
    assert published.asked == 1
    clock.wait(adapter.UNKNOWN_KID_SEC)
    assert issuer.claims_of(new)
    assert published.asked == 2


def test_what_a_withdrawn_key_signed_is_refused_though_it_was_seen() -> None:
    published, clock = Published(), Standing()
    issuer = issuer_of(published, clock)
    text = signed(exp=later(minutes=50))
    issuer.claims_of(text)
    assert was_seen(issuer, text)
    published.body = jwks(public("ES256 other", "k2"))
    clock.wait(adapter.FRESH_SEC)
    assert not was_seen(issuer, text)
    with pytest.raises(Unauthenticated):
        issuer.claims_of(text)


def test_what_was_seen_ends_when_it_ends() -> None:
    clock = Standing()
    issuer, text = issuer_of(None, clock), signed()
    issuer.claims_of(text)
    clock.wait(9 * 60 + 30)
    with pytest.raises(Unauthenticated, match="expired"):
        issuer.claims_of(text)


def test_with_the_issuer_away_its_keys_are_believed_for_a_while() -> None:
    published, clock = Published(), Standing()
    issuer = issuer_of(published, clock)
    issuer.claims_of(signed())
    published.body = None

    def fresh() -> str:
        return signed(iat=seconds(clock.at), exp=seconds(clock.at) + 60)

    clock.wait(adapter.KEPT_SEC - 1)
    assert issuer.claims_of(fresh())
    clock.wait(1)
    with pytest.raises(IssuerAway):
        issuer.claims_of(fresh())
    published.body = jwks(public("ES256", "k1"))
    with pytest.raises(IssuerAway):
        issuer.claims_of(fresh())
    clock.wait(adapter.RETRY_SEC)
    assert issuer.claims_of(fresh())


def test_an_issuer_that_was_never_there_is_not_asked_all_the_time() -> None:
    published, clock = Published(None), Standing()
    issuer = issuer_of(published, clock)
    for _ in range(5):
        with pytest.raises(IssuerAway):
            issuer.claims_of(signed())
    assert published.asked == 1


def test_nonsense_in_the_place_of_keys_leaves_them_as_they_were() -> None:
    published, clock = Published(), Standing()
    issuer = issuer_of(published, clock)
    issuer.claims_of(signed())
    published.body = b"<html>maintenance</html>"
    clock.wait(adapter.FRESH_SEC)
    assert issuer.claims_of(signed(iat=seconds(clock.at), exp=seconds(clock.at) + 60))


def test_while_one_fetches_nobody_waits() -> None:
    clock = Standing()
    waits: list[type[Exception]] = []

    def load() -> bytes:
        with pytest.raises(IssuerAway):
            keys.held()
        waits.append(IssuerAway)
        return jwks(public("ES256", "k1"))

    keys = Keys(load, clock.monotonic)
    assert keys.held().keys
    assert len(waits) == 1


def test_what_was_seen_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "SEEN_MAX", 2)
    issuer = issuer_of()
    texts = [signed(jti=str(number)) for number in range(4)]
    for text in texts:
        issuer.claims_of(text)
    assert [was_seen(issuer, text) for text in texts] == [False, False, True, True]


def test_keys_of_a_url(tmp_path: Path) -> None:
    url = "https://login.example.com/jwks"

    def answering(status: int, content: bytes, **headers: str) -> Callable[[], bytes]:
        def handle(request: httpx.Request) -> httpx.Response:
            assert str(request.url) == url, "redirects are not followed"
            assert "authorization" not in request.headers
            return httpx.Response(status, content=content, headers=headers)

        return from_url(url, httpx.MockTransport(handle))

    assert answering(200, b"{}")() == b"{}"
    for load in (
        answering(404, b""),
        answering(302, b"", location="https://evil.example/jwks"),
        answering(200, b" " * (adapter.ANSWER_BYTES_MAX + 1)),
        from_url("http://127.0.0.1:1/jwks"),
        from_file(tmp_path / "none"),
    ):
        with pytest.raises(IssuerAway):
            load()
    (tmp_path / "keys").write_bytes(b"{}")
    assert from_file(tmp_path / "keys")() == b"{}"
