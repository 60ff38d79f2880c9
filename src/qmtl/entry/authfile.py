"""`qmtl serve --auth FILE`: whose JWTs are believed, what they may do, and the limits of everybody.

The file is TOML.  Every key is known or refused, and whatever cannot work is an error before the
server listens: a misspelt group is a role that nobody has.
"""

import re
import tomllib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from qmtl.adapters.issuer import (
    ALGORITHMS,
    Fetched,
    Issuer,
    Keys,
    Load,
    Trust,
    from_file,
    from_url,
    keys_of,
)
from qmtl.adapters.oidc import DISCOVERY, Client, Endpoints, Provider, endpoints_of, is_private
from qmtl.adapters.policies.words import Length, Span
from qmtl.adapters.wire.bodies import RoleWord
from qmtl.adapters.wire.fields import Body, Id
from qmtl.app.ports import Clock
from qmtl.core.errors import Invalid, IssuerAway
from qmtl.core.names import Role, WorldId

from .identity import Grant, IssuerActors, Roles
from .limits import Limits

LEEWAY_DEFAULT: Final = timedelta(seconds=30)  # Two clocks that somebody looks after.
LEEWAY_MAX: Final = timedelta(minutes=5)  # More would be a longer life for what has ended.
LIFETIME_DEFAULT: Final = timedelta(hours=1)
LIFETIME_MAX: Final = timedelta(hours=24)  # A JWT is taken back by its end, and by nothing else.
CALLBACK: Final = "/ui/sign-in/oidc/callback"  # What the issuer is told to send browsers back to.
GRANTS_MAX: Final = 1_000
HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")

Claim = Annotated[str, Field(min_length=1, max_length=200)]
Some = Annotated[list[RoleWord], Field(min_length=1, max_length=len(Role))]


class GrantRow(Body):
    """What the members of a group may do, in one world or, without one, in every one."""

    group: Claim
    roles: Some
    world: Id | None = None

    @property
    def grant(self) -> Grant:
        return Grant(None if self.world is None else WorldId(self.world), frozenset(self.roles))


class SignIn(Body):
    """The dashboard, as a client of the issuer.  `url`: where browsers reach it.

    Its secret, if it has one, is QMTL_OIDC_SECRET: this file is no place for it.
    """

    client_id: Claim
    url: Claim
    scopes: Annotated[list[Claim], Field(max_length=20, default_factory=lambda: ["openid"])]

    @field_validator("url")
    @classmethod
    def _reached(cls, told: str) -> str:
        if not is_private(told) or urlsplit(told).path.strip("/") or set(told) & set("?#"):
            raise ValueError(
                "must be https and a host, such as https://qmtl.example.com; http on loopback only."
            )
        return told.rstrip("/")

    @field_validator("scopes")
    @classmethod
    def _openid(cls, told: list[str]) -> list[str]:
        if "openid" not in told or any(" " in scope for scope in told):
            raise ValueError("must be single words, and hold openid.")
        return told

    def client(self, secret: str | None) -> Client:
        return Client(
            client_id=self.client_id,
            secret=secret,
            redirect_uri=f"{self.url}{CALLBACK}",
            scopes=tuple(self.scopes),
        )


class Oidc(Body):
    """One issuer.

    `name` is how its actors begin (`oidc:<name>:`), `actor_claim` what follows; `groups_claim` is a
    claim, or the way to one that is inside others.  Without `jwks`, its keys are where its
    discovery document says.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    issuer: Claim
    audience: Claim
    jwks: Claim | None = None
    algorithms: Annotated[list[str], Field(min_length=1)]
    grants: Annotated[list[GrantRow], Field(min_length=1, max_length=GRANTS_MAX)]
    leeway: Length = LEEWAY_DEFAULT
    max_lifetime: Span = LIFETIME_DEFAULT
    actor_claim: Claim = "sub"
    groups_claim: Annotated[
        list[Claim], Field(min_length=1, max_length=10, default_factory=lambda: ["groups"])
    ]
    sign_in: SignIn | None = None

    @field_validator("algorithms")
    @classmethod
    def _pinned(cls, told: list[str]) -> list[str]:
        other = sorted(set(told) - ALGORITHMS)
        if other:
            raise ValueError(
                f"must be of {', '.join(sorted(ALGORITHMS))}, not {other[0]!a}: nothing else is "
                "verified with a public key."
            )
        return told

    @field_validator("leeway")
    @classmethod
    def _small(cls, told: timedelta) -> timedelta:
        if told > LEEWAY_MAX:
            raise ValueError(f"must be at most {LEEWAY_MAX}.")
        return told

    @field_validator("max_lifetime")
    @classmethod
    def _short(cls, told: timedelta) -> timedelta:
        if told > LIFETIME_MAX:
            raise ValueError(f"must be at most {LIFETIME_MAX}: nothing else ends a JWT.")
        return told

    @field_validator("jwks")
    @classmethod
    def _secure(cls, told: str) -> str:
        parts = urlsplit(told)
        if parts.scheme == "http" and not is_private(told):
            raise ValueError("must be https: whoever changes the keys on their way is everybody.")
        if parts.scheme in ("http", "https") and not parts.hostname:
            raise ValueError("names no host.")
        return told

    @model_validator(mode="after")
    def _found(self) -> "Oidc":
        if (self.jwks is None or self.sign_in is not None) and not is_private(self.issuer):
            raise ValueError("issuer: must be https, for its discovery document to be looked at.")
        return self

    def trust(self) -> Trust:
        return Trust(
            issuer=self.issuer,
            audience=self.audience,
            algorithms=frozenset(self.algorithms),
            leeway=self.leeway,
            lifetime_max=self.max_lifetime,
        )

    def actors(self, clock: Clock, folder: Path, secret: str | None = None) -> IssuerActors:
        """Who its JWTs stand for.  A file of keys is read now.  `secret`: of the sign-in's client.

        Raises Invalid, IssuerAway.
        """
        discover = from_url(self.issuer.rstrip("/") + DISCOVERY)
        endpoints = Fetched(lambda: endpoints_of(discover(), self.issuer))
        keys = Keys(self._load(folder, endpoints))
        groups: dict[str, list[Grant]] = {}
        for row in self.grants:
            groups.setdefault(row.group, []).append(row.grant)
        provider = None
        if self.sign_in is not None:
            client = self.sign_in.client(secret)
            # Looked at once: what lasts is the session, and that ends after `max_lifetime`.
            its_own = replace(self.trust(), audience=client.client_id, lifetime_max=LIFETIME_MAX)
            provider = Provider(self.issuer, client, endpoints, Issuer(its_own, keys, clock))
        return IssuerActors(
            name=self.name,
            issuer=Issuer(self.trust(), keys, clock),
            provider=provider,
            session=self.max_lifetime,
            actor_claim=self.actor_claim,
            groups_claim=tuple(self.groups_claim),
            groups={group: tuple(grants) for group, grants in groups.items()},
        )

    def _load(self, folder: Path, endpoints: Fetched[Endpoints]) -> Load:
        """Where its keys are.  Raises Invalid, IssuerAway."""
        if self.jwks is None:
            return lambda: from_url(endpoints.held().jwks)()
        if urlsplit(self.jwks).scheme in ("http", "https"):
            return from_url(self.jwks)
        load = from_file(folder / self.jwks)
        keys_of(load())
        return load


class LimitRows(Body):
    """See `limits.py`; what is left out is as it is there."""

    requests_per_sec: Annotated[float, Field(gt=0, le=1e6)] | None = None
    burst: Annotated[int, Field(ge=1, le=10**6)] | None = None
    streams: Annotated[int, Field(ge=1, le=10**5)] | None = None
    failures_per_min: Annotated[float, Field(gt=0, le=1e6)] | None = None

    def limits(self) -> Limits:
        told = {name: value for name, value in self.model_dump().items() if value is not None}
        return Limits(**told)


class AuthFile(Body):
    """`hosts`: the names by which the server is reached.  `https`: it is reached through TLS only.

    `token_roles`: what API tokens may do at most.  With an issuer for people, leave out `approver`
    and `policy-admin`: then nobody makes themselves a second person with a token.
    """

    oidc: Oidc | None = None
    token_roles: Annotated[Some, Field(default_factory=lambda: list(Role))]
    limits: LimitRows = LimitRows()
    hosts: Annotated[list[str], Field(max_length=100, default_factory=list)]
    https: bool = False

    @field_validator("hosts")
    @classmethod
    def _names(cls, told: list[str]) -> list[str]:
        wrong = [name for name in told if not HOST.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!a} is no name of a host; a port does not belong to it.")
        return [name.lower() for name in told]

    @model_validator(mode="after")
    def _someone_may(self) -> "AuthFile":
        """A role that neither tokens nor groups can have is one that nobody will ever have."""
        given = set(self.token_roles)
        if self.oidc is not None:
            given |= {role for row in self.oidc.grants for role in row.roles}
        missing = sorted({Role.ADMIN, Role.OPERATOR} - given)
        if missing:
            raise ValueError(f"nobody could ever have the role {missing[0]}: give it to a group.")
        return self

    @property
    def roles_of_tokens(self) -> Roles:
        return frozenset(self.token_roles)


def read(path: Path) -> AuthFile:
    """The file, checked.  Raises Invalid with every problem."""
    try:
        with path.open("rb") as file:
            told = tomllib.load(file)
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not TOML: {error}.") from None
    try:
        return AuthFile.of(told)
    except Invalid as error:
        raise Invalid(*(f"{path}: {said}" for said in error.args)) from None


def actors_of(
    file: AuthFile, path: Path, clock: Clock, secret: str | None = None
) -> IssuerActors | None:
    """The issuer of an auth file, if it names one.  `secret`: of its client, if that has one.

    Raises Invalid when it cannot work.
    """
    if file.oidc is None:
        return None
    try:
        return file.oidc.actors(clock, path.parent, secret)
    except (Invalid, IssuerAway) as error:
        raise Invalid(f"{path}: oidc.jwks: {' '.join(map(str, error.args))}") from None
