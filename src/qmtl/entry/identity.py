"""Who asks: an API token, a JWT of the issuer or a session becomes a credential with its roles.

A token is random and goes out once; what is kept is its SHA-256.  A JWT is kept nowhere.  Their
actors cannot meet: those of JWTs begin with `oidc:`, those of tokens never do.  A session is one of
the two, signed in at the dashboard (`sessions.py`).
"""

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from qmtl.adapters.issuer import Claims, Issuer
from qmtl.adapters.oidc import Provider
from qmtl.app.ports import Store
from qmtl.app.tokens import RESERVED, is_pending
from qmtl.core.errors import Forbidden, Unauthenticated
from qmtl.core.names import SYSTEM, ActorId, Role, WorldId

from .limits import Limiter
from .sessions import SESSION_PREFIX, Person, Sessions, is_over

TOKEN_PREFIX: Final = "qmtl_"  # So that a scanner of leaked secrets can tell what it found.
TOKEN_BYTES: Final = 32
TOKEN_CHARS_MAX: Final = 200
ACTOR_CHARS_MAX: Final = 128  # As of any actor: `ACTOR_PATTERN`.
SCHEME: Final = "bearer"
WRONG: Final = "The token is unknown, revoked or expired."
OVER: Final = "The session is over: sign in again."
_OTHER: Final = re.compile(rb"[^A-Za-z0-9._@-]")  # What an actor's name does not hold as it is.

Roles = frozenset[Role]


@dataclass(frozen=True, slots=True)
class Grant:
    """Roles in one world; in every one, and in what is no world's, with None."""

    world_id: WorldId | None
    roles: Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a request came with, once it was found good.

    `key` names it and is not it.  `sponsor` is who made it, under dual control.
    """

    actor: ActorId
    key: str
    grants: tuple[Grant, ...]
    sponsor: ActorId | None = None

    @property
    def roles(self) -> Roles:
        """In whatever world."""
        return frozenset().union(*(grant.roles for grant in self.grants))

    def roles_in(self, world_id: WorldId | None) -> Roles:
        """The roles it has in a world; with None, in what is no world's: tokens, the clock."""
        held = (grant.roles for grant in self.grants if grant.world_id in (None, world_id))
        return frozenset().union(*held)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerActors:
    """What the JWTs of an issuer mean here."""

    name: str
    issuer: Issuer
    actor_claim: str
    groups_claim: tuple[str, ...]  # One inside the other.
    groups: Mapping[str, tuple[Grant, ...]]
    provider: Provider | None = None  # Where people sign in, if they can.
    session: timedelta = timedelta(hours=1)  # How long that lasts.

    def credential(self, claims: Claims) -> Credential:
        """However many JWTs somebody has, they are one credential.

        Raises Unauthenticated when the claims name nobody.
        """
        return self.credential_of(self.person(claims, ""))

    def person(self, claims: Claims, key: str) -> Person:
        """Whom the claims name, with those groups that have roles here; `key` signed it.

        Raises Unauthenticated when the claims name nobody.
        """
        told = _text_of(claims, self.actor_claim)
        if self.actor_claim == "email" and claims.get("email_verified") is not True:
            raise Unauthenticated("The JWT's email is not verified: anybody may have told it.")
        groups = tuple(group for group in self._groups_of(claims) if group in self.groups)
        return Person(actor=actor_of(self.name, told), groups=groups, key=key)

    def credential_of(self, person: Person) -> Credential:
        """What somebody may do by their groups, as those are mapped now."""
        grants = [grant for group in person.groups for grant in self.groups.get(group, ())]
        return Credential(actor=person.actor, key=person.actor, grants=tuple(grants))

    def vouches(self, person: Person) -> bool:
        """Whether it is this issuer that said who they are, with a key that is still its own.

        Raises IssuerAway.
        """
        ours = person.actor.startswith(f"{RESERVED}{self.name}:")
        return ours and self.issuer.publishes(person.key)

    def _groups_of(self, claims: Claims) -> list[str]:
        """The groups, each once; a claim that is one text names them apart by spaces."""
        told: Any = claims
        for name in self.groups_claim:
            told = told.get(name) if isinstance(told, Mapping) else None
        listed = told.split() if isinstance(told, str) else told
        if not isinstance(listed, list):
            return []
        return list(dict.fromkeys(each for each in listed if isinstance(each, str)))


def _text_of(claims: Claims, name: str) -> str:
    told = claims.get(name)
    if not isinstance(told, str) or not told:
        raise Unauthenticated(f"The JWT's {name}, which says whose it is, is no text.")
    return told


def actor_of(issuer: str, told: str) -> ActorId:
    """The actor of a subject.  Two subjects never are one actor: what a name does not hold is
    written as `+` and the hexadecimal digits of its bytes.  Raises Unauthenticated."""
    try:
        written = _OTHER.sub(lambda found: b"+%02X" % found[0][0], told.encode())
    except UnicodeEncodeError:
        raise Unauthenticated("The JWT's subject is no text.") from None
    actor = f"{RESERVED}{issuer}:{written.decode()}"
    if len(actor) > ACTOR_CHARS_MAX:
        raise Unauthenticated(f"The JWT's subject is too long: {ACTOR_CHARS_MAX} characters.")
    return ActorId(actor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How a process tells who asks.  `token_roles` is what API tokens may do at most."""

    store: Store
    limiter: Limiter
    sessions: Sessions
    issuer: IssuerActors | None = None
    token_roles: Roles = frozenset(Role)

    def identify(
        self, header: str | None, now: datetime, address: str, *, held_up: bool = True
    ) -> Credential:
        """Whose credential an Authorization header holds.

        `held_up`: an address from which too many wrong ones came has to wait; who stops something
        never has.  Raises Unauthenticated, SlowDown, IssuerAway.
        """
        given = bearer(header)
        if given is None:
            raise Unauthenticated("Send it as `Authorization: Bearer <token>`.")
        try:
            if given.startswith(SESSION_PREFIX):
                return self._of_session(given, now)
            if self.issuer is not None and is_jwt(given):
                return self._of_jwt(self.issuer, given, address if held_up else None)
            return self.of_token(given, now)
        except Unauthenticated:
            if held_up:
                self.limiter.guessed(address)
            raise

    def of_token(self, given: str, now: datetime) -> Credential:
        """Whose API token it is.  Raises Unauthenticated."""
        if len(given) > TOKEN_CHARS_MAX:
            raise Unauthenticated(WRONG)
        return self._of_digest(digest(given), now)

    def session(self, given: str, now: datetime, address: str) -> str:
        """The cookie of a new session of an API token or of a JWT, with which it ends.

        Raises Unauthenticated, SlowDown, IssuerAway, and Forbidden for who may nothing.
        """
        if given.startswith(SESSION_PREFIX):  # Else it would never end.
            raise Unauthenticated(WRONG)
        credential = self.identify(f"Bearer {given}", now, address)
        if self.issuer is None or not is_jwt(given):
            return self.sessions.begin(credential.key)
        claims, key = self.issuer.issuer.claims_of(given), self.issuer.issuer.key_of(given)
        ends_at = datetime.fromtimestamp(claims["exp"], UTC)
        return self.session_of(self.issuer.person(claims, key), ends_at)

    def session_of(self, person: Person, ends_at: datetime) -> str:
        """The cookie of a new session of a person.  Raises Forbidden when they may nothing."""
        if not person.groups:
            raise Forbidden(
                f"You are {person.actor} here, and none of your groups has a role: ask whoever "
                "keeps this server to give one of them a role, or your issuer to put you in one "
                "that has."
            )
        return self.sessions.begin(person, ends_at)

    def _of_session(self, given: str, now: datetime) -> Credential:
        session = self.sessions.of(given)
        if session is None or is_over(self.store, session):
            raise Unauthenticated(OVER)
        if isinstance(session.who, str):
            return self._of_digest(session.who, now)
        if self.issuer is None or not self.issuer.vouches(session.who):
            raise Unauthenticated(OVER)
        return self.issuer.credential_of(session.who)

    def _of_digest(self, wanted: str, now: datetime) -> Credential:
        system = self.store.load(SYSTEM)
        known = system.tokens.get(wanted)
        # A lookup by digest takes a time that says nothing of the token; the comparison, neither.
        if known is None or not hmac.compare_digest(known.token_sha256, wanted):
            raise Unauthenticated(WRONG)
        if known.ends_at is not None and known.ends_at <= now:
            raise Unauthenticated(WRONG)
        if known.actor.startswith(RESERVED):  # Made before the name was an issuer's.
            raise Unauthenticated("The token's actor is one of an issuer's JWTs: make another.")
        if is_pending(system, known):
            raise Unauthenticated("The token waits for a second admin to confirm it.")
        roles = frozenset(known.roles) & self.token_roles
        return Credential(
            actor=known.actor,
            key=wanted,
            grants=(Grant(known.world_id, roles),),
            sponsor=known.sponsor,
        )

    def _of_jwt(self, issuer: IssuerActors, given: str, address: str | None) -> Credential:
        def unseen() -> None:
            if address is not None:
                self.limiter.may_guess(address)

        claims = issuer.issuer.claims_of(given, unseen)
        return issuer.credential(claims)


def bearer(header: str | None) -> str | None:
    """What an Authorization header holds, if it is as it has to be."""
    scheme, _, given = (header or "").partition(" ")
    return given.strip() or None if scheme.lower() == SCHEME else None


def is_jwt(given: str) -> bool:
    """Whether it is one for an issuer to vouch for, where there is one."""
    return given.count(".") == 2


def new_token() -> str:
    """A credential that nobody guesses: 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def digest(token: str) -> str:
    """What is kept of a token.  It is random, so a plain hash of it tells nobody anything."""
    return sha256(token.encode()).hexdigest()
