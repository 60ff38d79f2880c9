"""An OIDC provider on loopback, as small as one can be that checks what providers check.

It signs in whoever `person` says, without asking, or on a page of its own (`asks`).  What it says
may be broken, one thing at a time.
"""

import json
import threading
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_urlsafe
from time import time
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from tests.jwts import jwks, public, signed

CLIENT, SECRET = "qmtl-dashboard", "a secret: with +/%41"  # As providers make them, and worse.


@dataclass
class Provider:
    """`claims` changes what an ID token says; `made` makes it from those claims; `metadata` changes
    the discovery document, `answer` what the browser brings back."""

    url: str
    callback: str
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "pia", "groups": ["quant"]})
    asks: bool = False
    secret: str | None = SECRET
    by_post: bool = False
    claims: dict[str, Any] = field(default_factory=dict)
    made: Callable[..., str] = signed
    metadata: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, str] = field(default_factory=dict)
    keys: bytes = field(default_factory=lambda: jwks(public("ES256", "k1")))
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def discovery(self) -> dict[str, Any]:
        told = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?flavour=plain",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "code_challenge_methods_supported": ["plain", "S256"],
            "authorization_response_iss_parameter_supported": True,
            "token_endpoint_auth_methods_supported": [
                "client_secret_post" if self.by_post else "client_secret_basic"
            ],
        }
        found = {**told, **self.metadata}
        return {name: value for name, value in found.items() if value is not None}

    def authorized(self, asked: Mapping[str, str]) -> str | None:
        """Where the browser goes, with a code; None when it was asked wrongly."""
        wanted = {
            "flavour": "plain",
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": self.callback,
            "code_challenge_method": "S256",
        }
        open_ = {"scope", "state", "nonce", "code_challenge"}
        if {n: v for n, v in asked.items() if n not in open_} != wanted or not open_ <= set(asked):
            return None
        if "openid" not in asked["scope"].split() or min(map(len, map(asked.get, open_))) < 6:  # type: ignore[arg-type]  # All are there.
            return None
        code = token_urlsafe()
        self.codes[code] = dict(asked)
        told = {"code": code, "state": asked["state"], "iss": self.url, **self.answer}
        return f"{self.callback}?{urlencode({n: v for n, v in told.items() if v})}"

    def exchanged(self, form: Mapping[str, str], authorization: str) -> tuple[int, Any]:
        """What a code is worth, once."""
        if not self._is_client(form, authorization):
            return 401, {"error": "invalid_client"}
        begun = self.codes.pop(form.get("code", ""), None)
        digest = sha256(form.get("code_verifier", "").encode()).digest()
        challenge = urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            begun is None
            or begun["code_challenge"] != challenge
            or form.get("redirect_uri") != begun["redirect_uri"]
            or form.get("grant_type") != "authorization_code"
        ):
            return 400, {"error": "invalid_grant", "error_description": "<b>no</b>"}
        now = int(time())
        claims = {
            **{"iss": self.url, "aud": CLIENT, "nonce": begun["nonce"]},
            **{"iat": now, "exp": now + 300},
            **self.person,
            **self.claims,
        }
        return 200, {"token_type": "Bearer", "access_token": "x", "id_token": self.made(**claims)}

    def _is_client(self, form: Mapping[str, str], authorization: str) -> bool:
        if self.secret is None:
            return form.get("client_id") == CLIENT and not authorization
        if self.by_post:
            told = form.get("client_id"), form.get("client_secret")
            return told == (CLIENT, self.secret) and not authorization
        name, _, secret = b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return (unquote(name), unquote(secret)) == (CLIENT, self.secret)


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            provider.asked.append(parts.path)
            match parts.path:
                case "/.well-known/openid-configuration":
                    self._send(200, json.dumps(provider.discovery()).encode())
                case "/jwks":
                    self._send(200, provider.keys)
                case "/authorize":
                    where = provider.authorized(dict(parse_qsl(parts.query)))
                    if where is None:
                        self._send(400, b"asked wrongly")
                    elif provider.asks:
                        page = (
                            f'<link rel="icon" href="data:,"><a href="{escape(where)}">It is me</a>'
                        )
                        self._send(200, page.encode(), **{"Content-Type": "text/html"})
                    else:
                        self._send(303, b"", Location=where)
                case _:
                    self._send(404, b"")

        def do_POST(self) -> None:
            provider.asked.append(self.path)
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            authorization = self.headers.get("authorization", "")
            status, told = provider.exchanged(dict(parse_qsl(body)), authorization)
            self._send(status, json.dumps(told).encode())

        def _send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_told: object) -> None: ...

    return Answers


@contextmanager
def provider(callback: str, name: str = "127.0.0.1", port: int = 0) -> Iterator[Provider]:
    """One that runs for the length of a block, called by a name of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler)
    found = Provider(f"http://{name}:{server.server_port}", callback)
    server.RequestHandlerClass = _handler(found)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def gone_through(where: str) -> str:
    """What a browser does at the provider: it is sent there, and sent back here."""
    parts = urlsplit(where)
    connection = HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    told, location = answer.read(), answer.headers["location"]
    connection.close()
    assert answer.status == 303, f"{where}: {told!r}"
    return str(location)
