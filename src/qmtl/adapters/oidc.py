"""Signing in at an OIDC provider: what a browser is sent there with, and what its code is worth.

The authorization code flow (OpenID Connect Core 1.0) with PKCE (RFC 7636, S256 and nothing else).
Where the provider's endpoints are, it says itself (Discovery 1.0); that it is the provider that was
meant, in that document and in the answer that the browser brings (RFC 9207).  The ID token is
believed as any JWT of the issuer is, and then only for the one sign-in that its nonce names.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import orjson

from qmtl.core.errors import Invalid, IssuerAway, Unauthenticated

from .credentials import is_loopback
from .issuer import Claims, Fetched, Issuer, answered

DISCOVERY: Final = "/.well-known/openid-configuration"
NO_SECRET: Final = "The issuer does not know this server: see its client_id and secret."
_ERROR: Final = re.compile(r"[a-z_]{1,64}")  # What an error is called; nothing that is only text.


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What this server is to the provider.  Without a secret it is a public client."""

    client_id: str
    secret: str | None
    redirect_uri: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What a provider says of itself.

    `by_post`: a secret is told in the body; else in the header.  `says_issuer`: in its answers.
    """

    authorization: str
    token: str
    jwks: str
    by_post: bool
    says_issuer: bool


def is_private(url: str) -> bool:
    """Whether nobody on the way reads it or changes it: by TLS, or because it stays here."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)))


def endpoints_of(body: bytes, issuer: str) -> Endpoints:
    """A discovery document's.  Raises Invalid when it is none, another's, or without PKCE."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Invalid("The discovery document is not JSON.") from None
    if not isinstance(told, dict) or told.get("issuer") != issuer:
        raise Invalid(f"The discovery document is not one of {issuer}.")
    found = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        url = told.get(name)
        if not isinstance(url, str) or not is_private(url):
            raise Invalid(f"The discovery document's {name} is no https address.")
        found[name] = url
    if "S256" not in _listed(told, "code_challenge_methods_supported", "S256"):
        raise Invalid("The issuer has no PKCE with S256.")
    methods = _listed(told, "token_endpoint_auth_methods_supported", "client_secret_basic")
    return Endpoints(
        authorization=found["authorization_endpoint"],
        token=found["token_endpoint"],
        jwks=found["jwks_uri"],
        by_post="client_secret_basic" not in methods,
        says_issuer=told.get("authorization_response_iss_parameter_supported") is True,
    )


def _listed(told: dict[str, Any], name: str, default: str) -> list[object]:
    found = told.get(name)
    return found if isinstance(found, list) else [default]


class Provider:
    """Signs people in for one client."""

    def __init__(
        self,
        issuer: str,
        client: Client,
        endpoints: Fetched[Endpoints],
        id_tokens: Issuer,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`id_tokens` believes JWTs whose audience is the client."""
        self._issuer, self._client, self._endpoints = issuer, client, endpoints
        self._id_tokens, self._transport = id_tokens, transport

    def where(self, state: str, nonce: str, verifier: str) -> str:
        """Where a browser goes to sign in.  Raises IssuerAway."""
        challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=")
        asked = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": self._client.redirect_uri,
            "scope": " ".join(self._client.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        return str(httpx.URL(self._endpoints.held().authorization).copy_merge_params(asked))

    def code_of(self, answer: dict[str, str]) -> str:
        """The code that a browser brought.  Raises Unauthenticated, IssuerAway."""
        said = answer.get("iss")
        if said != self._issuer and (said is not None or self._endpoints.held().says_issuer):
            raise Unauthenticated("Another issuer than this server's answered.")
        if "error" in answer:
            raise Unauthenticated(f"The issuer did not sign you in{_word(answer['error'])}.")
        if not answer.get("code"):
            raise Unauthenticated("The issuer's answer has no code.")
        return answer["code"]

    def claims(self, code: str, nonce: str, verifier: str) -> tuple[Claims, str]:
        """What the ID token says that a code is worth, and the thumbprint of the key that signed
        it.  Raises Unauthenticated, IssuerAway."""
        text = self._exchanged(code, verifier)
        claims = self._id_tokens.claims_of(text)
        told, client_id = claims.get("nonce"), self._client.client_id
        if not isinstance(told, str) or not hmac.compare_digest(told.encode(), nonce.encode()):
            raise Unauthenticated("The JWT is of another sign-in.")
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else client_id) != client_id:
            raise Unauthenticated("The JWT was made for another client.")
        return claims, self._id_tokens.key_of(text)

    def _exchanged(self, code: str, verifier: str) -> str:
        endpoints, client = self._endpoints.held(), self._client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_uri,
            "client_id": client.client_id,
            "code_verifier": verifier,
        }
        more: dict[str, Any] = {"data": form}
        if client.secret is not None and endpoints.by_post:
            form["client_secret"] = client.secret
        elif client.secret is not None:  # RFC 6749, 2.3.1: each is quoted first.
            more["auth"] = (quote(client.client_id, safe=""), quote(client.secret, safe=""))
        status, body = answered("POST", endpoints.token, self._transport, **more)
        try:
            told = orjson.loads(body)
        except orjson.JSONDecodeError:
            told = None
        told = told if isinstance(told, dict) else {}
        error, text = told.get("error"), told.get("id_token")
        if error in ("invalid_client", "unauthorized_client"):
            raise IssuerAway(NO_SECRET)
        if status in (400, 401, 403):
            raise Unauthenticated(f"The issuer takes the code for nothing{_word(error)}.")
        if status != httpx.codes.OK or not isinstance(text, str):
            raise IssuerAway(f"The issuer answers {status}, without an ID token.")
        return text


def _word(error: object) -> str:
    """An error's name, where it has one; never a sentence of somebody's."""
    known = isinstance(error, str) and _ERROR.fullmatch(error)
    return f" ({error})" if known else ""
