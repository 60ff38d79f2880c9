"""JWTs of one OIDC issuer: its keys, and what a JWT has to show before anything in it is believed.

The keys (JWKS) come from a URL or a file, are looked at again when they are old or a JWT names one
that is not among them, and are never older than `KEPT_SEC`.  Algorithms are pinned, and each key
verifies only those of its own kind: `none` and the shared-secret ones (HS*) are never among them.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Final, Generic, TypeVar

import httpx
import orjson

from qmtl.app.ports import Clock
from qmtl.core.errors import Invalid, IssuerAway, Unauthenticated

LOG = logging.getLogger("qmtl.issuer")
JWT_CHARS_MAX: Final = 8_192  # A person in hundreds of groups; servers stop reading there, too.
ANSWER_BYTES_MAX: Final = 1 << 20  # Issuers have a handful of keys.
ANSWER_SEC: Final = 3.0  # Who waits for an issuer holds a thread.
FRESH_SEC: Final = 600.0  # Then they are fetched again: a key that was withdrawn is soon unknown.
KEPT_SEC: Final = 3_600.0  # With the issuer away they are believed so long, and no longer.
UNKNOWN_KID_SEC: Final = 60.0  # Fetched for a key nobody knows at most so often,
RETRY_SEC: Final = 10.0  # and at all.
SEEN_MAX: Final = 10_000  # JWTs that were verified; a signature costs more than all else here.
RSA_BITS_MIN: Final = 2_048
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# By kind of key and its curve.
KINDS: Final[Mapping[tuple[str, str | None], frozenset[str]]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
ALGORITHMS: Final = frozenset().union(*KINDS.values())
_THUMBED: Final = ("crv", "e", "kty", "n", "x", "y")  # A public key, and nothing said about it.
REQUIRED: Final = ("exp", "iat", "sub", "iss", "aud")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = 1 << 33  # The year 2242, in seconds: what is later is of another unit.

Claims = Mapping[str, Any]
Load = Callable[[], bytes]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a JWT must say.  `lifetime_max`: one that lives longer cannot be taken back in time."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    leeway: timedelta
    lifetime_max: timedelta


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithms that it may verify.  `thumbprint`: of RFC 7638."""

    thumbprint: str
    kid: str | None
    algorithms: frozenset[str]
    public: Any  # Of `cryptography`, in one of many classes.


def keys_of(body: bytes) -> tuple[Key, ...]:
    """The usable keys of a JWKS document.  Raises Invalid when it is none, or has none.

    What is not for signatures, is too short, secret or of an unknown kind is left out.
    """
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Invalid("The JWKS is not JSON.") from None
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise Invalid("The JWKS has no list `keys`.")
    found = tuple(key for each in listed if (key := _key(each)) is not None)
    if not found:
        raise Invalid(f"The JWKS has no key for any of {', '.join(sorted(ALGORITHMS))}.")
    kids = [key.kid for key in found]
    if len(set(kids)) < len(kids):
        raise Invalid("Two keys of the JWKS have the same kid, or none.")
    return found


def _key(told: object) -> Key | None:
    if not isinstance(told, dict) or "d" in told or told.get("use", "sig") != "sig":
        return None
    kty, crv, kid, alg = (told.get(name) for name in ("kty", "crv", "kid", "alg"))
    algorithms = KINDS.get((kty, crv)) if isinstance(kty, str) else None
    if algorithms is None or not (kid is None or isinstance(kid, str)):
        return None
    if alg is not None:
        algorithms &= {alg} if isinstance(alg, str) else frozenset()
    operations = told.get("key_ops", ["verify"])
    if not algorithms or not isinstance(operations, list) or "verify" not in operations:
        return None
    import jwt  # Slow to load, and most servers have no issuer.

    try:
        public = jwt.PyJWK(told, min(algorithms)).key
    except jwt.PyJWTError:
        return None
    if kty == "RSA" and public.key_size < RSA_BITS_MIN:
        return None
    return Key(_thumbprint(told), kid, algorithms, public)


def _thumbprint(told: Mapping[str, object]) -> str:
    needed = {name: told[name] for name in _THUMBED if name in told}
    return sha256(orjson.dumps(needed, option=orjson.OPT_SORT_KEYS)).hexdigest()


def from_file(path: Path) -> Load:
    """Reads the keys of a file.  Raises IssuerAway."""

    def load() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise IssuerAway(f"{path}: {error.strerror}.") from error

    return load


def from_url(url: str, transport: httpx.BaseTransport | None = None) -> Load:
    """Fetches the keys.  Redirects are not followed: the URL is where the trust is.

    Raises IssuerAway.
    """

    def load() -> bytes:
        status, body = answered("GET", url, transport)
        if status != httpx.codes.OK:
            raise IssuerAway(f"{url} answers {status}.")
        return body

    return load


def answered(
    method: str, url: str, transport: httpx.BaseTransport | None = None, **more: Any
) -> tuple[int, bytes]:
    """The status and the body of what somebody of the issuer's answers; never a redirect's.

    Raises IssuerAway.
    """
    body = b""
    try:
        with (
            httpx.Client(timeout=ANSWER_SEC, transport=transport) as client,
            client.stream(method, url, headers={"Accept": "application/json"}, **more) as answer,
        ):
            for part in answer.iter_bytes():
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    raise IssuerAway(f"{url} answers with more than {ANSWER_BYTES_MAX} bytes.")
            return answer.status_code, body
    except httpx.HTTPError as error:
        raise IssuerAway(f"{url}: {type(error).__name__}.") from error


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """What was fetched, and when, on a clock that only goes forward."""

    told: T
    at: float


class Fetched(Generic[T]):
    """What an issuer publishes, fetched when it is needed.  May be used by several threads: one
    fetches, and the others take what is held, or are told to come back."""

    def __init__(
        self, load: Callable[[], T], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._load, self._monotonic = load, monotonic
        self._held: Held[T] | None = None
        self._tried_at = -math.inf
        self._fetching = Lock()

    def held(self) -> T:
        """As it was FRESH_SEC ago at most; with the issuer away, KEPT_SEC.  Raises IssuerAway."""
        if self.age() >= FRESH_SEC:
            self.again()
        held = self._held
        if held is None or self.age() >= KEPT_SEC:
            raise IssuerAway("It does not answer as it should; API tokens go on meanwhile.")
        return held.told

    def age(self) -> float:
        return math.inf if self._held is None else self._monotonic() - self._held.at

    def again(self) -> None:
        """What cannot be fetched or read leaves what is held as it is."""
        now = self._monotonic()
        if now - self._tried_at < RETRY_SEC or not self._fetching.acquire(blocking=False):
            return
        try:
            self._tried_at = now
            self._held = Held(self._load(), now)
        except (IssuerAway, Invalid) as error:
            LOG.warning("what the issuer publishes is as it was: %s", error)
        finally:
            self._fetching.release()


@dataclass(frozen=True, slots=True)
class Published:
    """An issuer's keys, and the digest of the document that they are from."""

    keys: tuple[Key, ...]
    digest: bytes

    def named(self, kid: str | None) -> Key | None:
        """The key of a name; without one, the only key."""
        if kid is None:
            return self.keys[0] if len(self.keys) == 1 else None
        return next((key for key in self.keys if key.kid == kid), None)


class Keys:
    """The issuer's keys."""

    def __init__(self, load: Load, monotonic: Callable[[], float] = time.monotonic) -> None:
        def published() -> Published:
            body = load()
            return Published(keys_of(body), sha256(body).digest())

        self._fetched = Fetched(published, monotonic)

    def held(self) -> Published:
        """All of them.  Raises IssuerAway."""
        return self._fetched.held()

    def find(self, kid: str | None) -> Key:
        """The key of a name; without one, the only key.  Raises Unauthenticated, IssuerAway."""
        found = self.held().named(kid)
        if found is None and kid is not None and self._fetched.age() >= UNKNOWN_KID_SEC:
            self._fetched.again()
            found = self.held().named(kid)
        if found is None:
            raise Unauthenticated("The JWT is signed with a key that its issuer does not publish.")
        return found


class Issuer:
    """Says what a JWT of the issuer says, once it has shown that it is one."""

    def __init__(self, trust: Trust, keys: Keys, clock: Clock) -> None:
        """`clock` is real time, whatever time the server lives in: the issuer does."""
        self._trust, self._keys, self._clock = trust, keys, clock
        self._seen: dict[bytes, Claims] = {}
        self._of = b""  # The digest of the keys that `_seen` was verified with.

    def claims_of(self, text: str, unseen: Callable[[], None] = lambda: None) -> Claims:
        """The claims of a JWT.  `unseen` is called before one is verified that was not before with
        the keys that the issuer has now, and may refuse.

        Raises Unauthenticated, IssuerAway, and whatever `unseen` raises.
        """
        if len(text) > JWT_CHARS_MAX or not text.isascii():
            raise Unauthenticated(f"A JWT has at most {JWT_CHARS_MAX} characters.")
        name, keys = sha256(text.encode()).digest(), self._keys.held().digest
        if self._of != keys:
            self._seen, self._of = {}, keys
        claims = self._seen.get(name)
        if claims is None:
            unseen()
            claims = self._signed(text)
        self._in_time(claims)
        if self._of == keys:  # Else other keys came meanwhile, and would have to be asked.
            while name not in self._seen and len(self._seen) >= SEEN_MAX:
                self._seen.pop(next(iter(self._seen)), None)
            self._seen[name] = claims
        return claims

    def key_of(self, text: str) -> str:
        """The thumbprint of the key that signed a JWT of which `claims_of` told the claims.

        Raises Unauthenticated, IssuerAway.
        """
        import jwt

        return self._keys.find(jwt.get_unverified_header(text).get("kid")).thumbprint

    def publishes(self, thumbprint: str) -> bool:
        """Whether a key is still the issuer's.  Raises IssuerAway."""
        return any(key.thumbprint == thumbprint for key in self._keys.held().keys)

    def _signed(self, text: str) -> Claims:
        import jwt

        trust = self._trust
        try:
            header = jwt.get_unverified_header(text)
            algorithm, kid = header.get("alg"), header.get("kid")
            if not isinstance(algorithm, str) or algorithm not in trust.algorithms:
                raise Unauthenticated(
                    f"The JWT is signed otherwise than with {', '.join(sorted(trust.algorithms))}."
                )
            key = self._keys.find(kid)
            if algorithm not in key.algorithms:
                raise Unauthenticated("The key that the JWT names is not for its algorithm.")
            return jwt.decode(
                text,
                key.public,
                algorithms=[algorithm],
                audience=trust.audience,
                issuer=trust.issuer,
                # Times are looked at below, on the clock that is ours.
                options={
                    "require": list(REQUIRED),
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidAudienceError:
            raise Unauthenticated("The JWT is for another audience.") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("The JWT is of another issuer.") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"The JWT does not say its {error.claim}.") from None
        except jwt.PyJWTError:
            raise Unauthenticated("The JWT is not whole, or its signature does not hold.") from None

    def _in_time(self, claims: Claims) -> None:
        trust, now = self._trust, self._clock.now()
        issued, ends = _instant(claims, "iat"), _instant(claims, "exp")
        if now - trust.leeway >= ends:
            raise Unauthenticated("The JWT has expired.")
        if issued > now + trust.leeway:
            raise Unauthenticated("The JWT was issued later than now: see both clocks.")
        if "nbf" in claims and _instant(claims, "nbf") > now + trust.leeway:
            raise Unauthenticated("The JWT does not hold yet.")
        if ends - issued > trust.lifetime_max:
            raise Unauthenticated(f"The JWT lives for longer than {trust.lifetime_max}.")


def _instant(claims: Claims, name: str) -> datetime:
    told = claims[name]
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told < _LATEST:
        raise Unauthenticated(f"The JWT's {name} is no time.")
    return _EPOCH + timedelta(seconds=told)
