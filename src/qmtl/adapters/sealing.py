"""Texts that go out and come back: nobody else reads them, changes them, or makes one.

AES-256-GCM, with what the text is for as associated data: one that is for something else, or for
somebody else, does not open.
"""

import hmac
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # Random: as many texts as a server ever seals do not repeat one.


class Seal:
    """One secret of 256 random bits; two processes that have the same are one."""

    def __init__(self, secret: bytes) -> None:
        assert len(secret) == SECRET_BYTES, "a secret of 256 bits"
        self._reads = AESGCM(hmac.digest(secret, b"read", "sha256"))
        self._marks = hmac.digest(secret, b"mark", "sha256")

    @classmethod
    def new(cls) -> "Seal":
        """One that nobody has."""
        return cls(os.urandom(SECRET_BYTES))

    def closed(self, content: bytes, *purpose: str) -> str:
        """The content as a text of a URL's characters."""
        nonce = os.urandom(_NONCE_BYTES)
        return _text(nonce + self._reads.encrypt(nonce, content, _one(purpose)))

    def opened(self, text: str, *purpose: str) -> bytes | None:
        """The content; None when it was not sealed here, for this."""
        try:
            sealed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            return self._reads.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _one(purpose))
        except (ValueError, InvalidTag):
            return None

    def mark(self, *parts: str) -> str:
        """What only this seal says of these: 43 characters, the same each time."""
        return _text(hmac.digest(self._marks, _one(parts), "sha256"))

    def is_mark(self, told: str, *parts: str) -> bool:
        return hmac.compare_digest(self.mark(*parts).encode(), told.encode())


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _one(parts: tuple[str, ...]) -> bytes:
    """Other parts, other bytes."""
    return b"".join(b"%d:%b" % (len(part.encode()), part.encode()) for part in parts)
