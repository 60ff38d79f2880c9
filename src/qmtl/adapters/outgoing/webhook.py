"""Signed webhooks, after the Standard Webhooks specification 1.0 (standardwebhooks.com).

`webhook-id` names the message and is the same each time it is sent; `webhook-timestamp` is of the
attempt, in seconds; `webhook-signature` is `v1,` and the HMAC-SHA256 of id, timestamp and body,
joined by dots, in base64.
"""

import base64
import binascii
import hmac
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from qmtl.adapters.credentials import is_loopback

from .sending import SEND_SEC, Sent

if TYPE_CHECKING:
    import httpx

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = range(24, 65)  # As the specification asks.
GONE: Final = 410  # The specification's word for: never send here again.
ANSWERED: Final = range(200, 300)
MOVED: Final = range(300, 400)


def secret_of(text: str) -> bytes:
    """The key that `whsec_...` spells.  Raises ValueError, which does not repeat it."""
    spelt = text.strip().removeprefix(PREFIX)
    try:
        key = base64.b64decode(spelt + "=" * (-len(spelt) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in SECRET_BYTES:
        raise ValueError(
            "a secret is whsec_ and 24 to 64 random bytes in base64: "
            'echo "whsec_$(openssl rand -base64 32)" makes one'
        )
    return key


def signed(key: bytes, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers of a message."""
    stamp = str(int(at.timestamp()))
    told = b".".join((message_id.encode(), stamp.encode(), body))
    signature = base64.b64encode(hmac.digest(key, told, sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }


def address(url: str) -> str:
    """The URL, when something may be posted there.  Raises ValueError, which does not repeat it."""
    try:
        parts = urlsplit(url.strip())
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https"):
        raise ValueError("it is no address, such as https://hooks.example.com/qmtl")
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError("it must be https: what is told is nobody else's business")
    if parts.username or parts.password or parts.fragment:
        raise ValueError("it must have no user, password or fragment")
    return url.strip()


def connected() -> "httpx.Client":
    """What posts.  It follows no redirect, uses no proxy, and asks no file for a password: where a
    message goes is what the operator wrote, and nothing else.  Whom it believes is what the machine
    believes: receivers within a firm have certificates of its own."""
    import httpx

    trusted = ssl.create_default_context()
    return httpx.Client(timeout=SEND_SEC, follow_redirects=False, trust_env=False, verify=trusted)


def post(
    http: "httpx.Client", url: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> Sent:
    """One attempt.  What is answered is not read."""
    import httpx

    told = {"Content-Type": "application/json", "User-Agent": "qmtl", **headers}
    try:
        with http.stream("POST", url, content=body, headers=told) as answer:
            status = answer.status_code
            wait = _wait_sec(answer.headers.get("Retry-After", ""), now)
    except httpx.TimeoutException:
        return Sent(False, f"no answer within {SEND_SEC:g} s")
    except httpx.HTTPError as error:
        return Sent(False, f"not reached: {type(error).__name__}")
    if status in ANSWERED:
        return Sent(True, "taken", status)
    if status == GONE:
        return Sent(False, "410: it wants no more", status, final=True)
    if status in MOVED:
        return Sent(False, f"{status}: it sends elsewhere, which is not followed", status)
    return Sent(False, f"refused: {status}", status, wait)


def _wait_sec(told: str, now: datetime) -> float | None:
    """Of Retry-After: seconds, or a date."""
    text = told.strip()
    if text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())
