"""Submissions that a gateway keeps while its world service is away: on disk, each once.

A file is named by when it was kept and by what it holds.  It is there, whole and synced, before
anybody is told that it was kept; it goes once the world has answered.
"""

import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Final

import orjson

from qmtl.adapters.directories import made, synced
from qmtl.core.errors import UpstreamAway
from qmtl.core.times import instant, micros

FILES_MAX: Final = 1_000  # A world that is away for longer needs a person, not a longer queue.
BYTES_MAX: Final = 256 << 20  # Whoever sends them is known only once the world is back.
REFUSED_MAX: Final = 100  # To look at; older ones go.
SECRET_MODE: Final = 0o600  # It holds the submitter's credential, to be forwarded as theirs.
SUFFIX: Final = ".json"
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class Kept:
    """One submission: whose, and what they sent."""

    authorization: str
    idempotency_key: str | None
    body: bytes

    @property
    def digest(self) -> str:
        """Names it: the same from the same sender is the same."""
        told = sha256(self.authorization.encode())
        told.update(b"\0" + (self.idempotency_key or "").encode() + b"\0")
        told.update(self.body)
        return told.hexdigest()[:32]


class Spool:
    """A folder of submissions, oldest first."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, Lock()
        for each in (folder, folder / REFUSED):
            made(each)

    def keep(self, kept: Kept, now: datetime) -> str:
        """Its digest, once it is safe on disk.  Raises UpstreamAway when there is no room."""
        with self._lock:
            waiting = self.waiting()
            if any(path.stem.endswith(kept.digest) for path in waiting):
                return kept.digest
            if len(waiting) >= FILES_MAX:
                raise UpstreamAway(f"{FILES_MAX} submissions wait already.")
            if sum(each.stat().st_size for each in waiting) + len(kept.body) * 4 // 3 > BYTES_MAX:
                raise UpstreamAway(f"{BYTES_MAX >> 20} MiB of submissions wait already.")
            path = self._folder / f"{micros(now):020d}-{kept.digest}{SUFFIX}"
            told = {
                "authorization": kept.authorization,
                "idempotency_key": kept.idempotency_key,
                "body": b64encode(kept.body).decode(),
            }
            self._write(path, orjson.dumps(told))
            return kept.digest

    def waiting(self) -> list[Path]:
        """What has not been answered yet, oldest first."""
        return sorted(self._folder.glob(f"*{SUFFIX}"))

    def kept_at(self, path: Path) -> datetime:
        """When it was kept, as its name says."""
        return instant(int(path.name.partition("-")[0]))

    def read(self, path: Path) -> Kept | None:
        """One submission; None, and it is set aside, when the file is not what was written."""
        try:
            told = orjson.loads(path.read_bytes())
            return Kept(told["authorization"], told["idempotency_key"], b64decode(told["body"]))
        except (ValueError, KeyError, TypeError):
            path.rename(self._folder / REFUSED / path.name)
            return None

    def done(self, path: Path) -> None:
        """The world has it."""
        path.unlink(missing_ok=True)
        synced(self._folder)

    def refused(self, path: Path, status: int, answer: bytes) -> None:
        """The world will never take it: set aside, with its answer and without its credential."""
        told = orjson.loads(path.read_bytes())
        said = {"status": status, "answer": answer.decode(errors="replace"), "body": told["body"]}
        self._write(self._folder / REFUSED / path.name, orjson.dumps(said))
        self.done(path)
        for old in sorted((self._folder / REFUSED).iterdir())[:-REFUSED_MAX]:
            old.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        """Whole or not at all, whenever the power goes."""
        part = path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, SECRET_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        part.rename(path)
        synced(path.parent)
