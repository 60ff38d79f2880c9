"""The key that heads of journals are signed with: Ed25519, in the data folder, made once.

Whoever holds a signed head elsewhere can show later that the journal up to there is the same, or
that it is not.  The key says which server said so; it cannot keep whoever holds it from writing
another past: keep heads where those who run the server cannot reach.
"""

import os
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from qmtl.adapters.wire.instants import rfc3339
from qmtl.adapters.wire.shapes import HeadJson, JournalKeyJson
from qmtl.app.ports import Head
from qmtl.core.errors import Refusal
from qmtl.core.names import WorldId

KEY_FILE: Final = "journal.key"  # In the data folder; PKCS #8 in PEM, as openssl reads it.
ALGORITHM: Final = "ed25519"
DOMAIN: Final = "qmtl-journal-head/1"  # What is signed is a head, and can be taken for no other.
SECRETS: Final = "qmtl-secret/1 "
SECRET_MODE: Final = 0o600
OTHERS: Final = 0o077


class UnusableKey(Refusal):
    """The journal's signing key cannot be used."""


class JournalKey:
    """A signing key.  `told` is what anybody may know of it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        public = private.public_key().public_bytes_raw()
        self.key_id = sha256(public).hexdigest()
        self.told: JournalKeyJson = {
            "algorithm": ALGORITHM,
            "key_id": self.key_id,
            "public_key": public.hex(),
        }

    @classmethod
    def new(cls) -> "JournalKey":
        """One that nobody has."""
        return cls(Ed25519PrivateKey.generate())

    def secret(self, purpose: str, salt: str) -> bytes:
        """32 bytes for something else than signing, which say nothing of the key (HKDF, RFC 5869).

        Whoever signs with the key and knows the salt has the same.
        """
        kdf = HKDF(SHA256(), 32, salt.encode(), f"{SECRETS}{purpose}".encode())
        return kdf.derive(self._private.private_bytes_raw())

    def signed(self, world_id: WorldId, head: Head, at: datetime) -> HeadJson:
        """A head as it was at an instant, signed."""
        moment = rfc3339(at)
        statement = f"{DOMAIN}\n{world_id}\n{head.seq}\n{head.hash}\n{moment}\n"
        return {
            "world_id": world_id,
            "seq": head.seq,
            "hash": head.hash,
            "at": moment,
            "key_id": self.key_id,
            "signature": self._private.sign(statement.encode()).hex(),
        }


def kept(folder: Path) -> tuple[JournalKey, bool]:
    """The folder's key, and whether it was made just now.  Raises UnusableKey.

    INVARIANT: a key that signs anything is on disk, whole, and stays: only the owner of the
    folder's lock may call this.
    """
    path = folder / KEY_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        _keep(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return JournalKey(key), True
    except OSError as error:
        raise UnusableKey(f"{path}: {error.strerror}.") from error
    try:
        private = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise UnusableKey(
            f"{path} holds no Ed25519 key: put it back from a copy, or move it away and start "
            "again, which makes a new one."
        )
    return JournalKey(private), False


def exposed(folder: Path) -> tuple[str, ...]:
    """A warning when others than its owner may read the key."""
    mode = (folder / KEY_FILE).stat().st_mode
    if not mode & OTHERS:
        return ()
    where = folder / KEY_FILE
    return (f"others may read {where}, and sign as this server: chmod 600 {where}",)


def _keep(path: Path, text: bytes) -> None:
    """All of it under its name, or nothing; durable."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)  # Of a start that did not come to its end.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
