"""An OIDC issuer for tests: keys that are made once, and JWTs with one thing broken."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
ISSUER, AUDIENCE = "https://login.example.com", "qmtl"


@cache
def private(kind: str) -> Any:
    """A private key, by the name that tests give it: `ES256`, `ES256 other`, `RS256 short`."""
    algorithm, _, which = kind.partition(" ")
    if algorithm.startswith("ES"):
        curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}
        return ec.generate_private_key(curves[algorithm]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 1024 if which == "short" else 2048)


def public(kind: str, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The JWK of a key."""
    algorithm = kind.partition(" ")[0]
    told = get_default_algorithms()[algorithm].to_jwk(private(kind).public_key(), as_dict=True)
    found = {**told, "use": "sig", **({} if kid is None else {"kid": kid}), **more}
    return {name: value for name, value in found.items() if value is not None}


def secret(kind: str, kid: str) -> dict[str, Any]:
    """The JWK of a key with its secret half, as nobody should publish it."""
    algorithm = get_default_algorithms()[kind.partition(" ")[0]]
    return {**algorithm.to_jwk(private(kind), as_dict=True), "use": "sig", "kid": kid}


def jwks(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def claims(**changes: Any) -> dict[str, Any]:
    """Good ones, with some of them changed; None leaves one out."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "pia",
        "iat": seconds(NOW - timedelta(minutes=1)),
        "exp": seconds(NOW + timedelta(minutes=9)),
        "groups": ["quant"],
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(kind: str = "ES256", kid: str | None = "k1", /, **changes: Any) -> str:
    """A JWT; `header` adds to its header."""
    header = {**({} if kid is None else {"kid": kid}), **changes.pop("header", {})}
    algorithm = changes.pop("algorithm", kind.partition(" ")[0])
    return jwt.encode(claims(**changes), private(kind), algorithm, header)


@dataclass
class Standing:
    """A clock that stands until it is moved; both of them."""

    at: datetime = NOW
    monotonic_at: float = 1_000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.monotonic_at

    def wait(self, sec: float) -> None:
        self.at += timedelta(seconds=sec)
        self.monotonic_at += sec


@dataclass
class Published:
    """What is at the issuer's URL, and how often somebody asked.  None: it is away."""

    body: bytes | None = field(default_factory=lambda: jwks(public("ES256", "k1")))
    asked: int = 0

    def load(self) -> bytes:
        from qmtl.core.errors import IssuerAway

        self.asked += 1
        if self.body is None:
            raise IssuerAway("nobody answers")
        return self.body
