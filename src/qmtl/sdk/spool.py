"""Submissions that found the world away, kept on disk until they can be sent.

One file a submission, named by the digest of what it holds: keeping it twice keeps it once, and the
server takes what it already has for what it is, so that a crash between sending a file and removing
it changes nothing.  A lock lets one process at a time send.

The author of a strategy is who submits it, and must not approve it.  So what was kept under one
credential is not sent under another; the credential itself is kept nowhere.  What was kept under
none (there was no server yet to give one) has no author: who sends it is the author.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qmtl.adapters.client import NO_CREDENTIAL, ApiError, Away, Client

FORMAT = 1
OTHER_CREDENTIAL = "it was submitted under another credential: use that one, or submit it anew"
REFUSED = "refused"  # A folder: what the world refused is not sent again, and not lost.
KEPT_MAX = 10_000  # Of files: a spool that nobody empties must not fill a disk.


class SpoolFull(OSError):
    """Too many submissions wait; send them with `Runner.flush()`, or remove them."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of one kept submission.

    outcome  sent; refused: kept apart, and not tried again; waiting: the world is away still, or
             it was submitted under another credential
    """

    strategy_id: str
    world_id: str
    outcome: Literal["sent", "refused", "waiting"]
    detail: str


def folder() -> Path:
    """`QMTL_SPOOL`, else `~/.local/state/qmtl/spool`."""
    named = os.environ.get("QMTL_SPOOL")
    return Path(named) if named else Path.home() / ".local" / "state" / "qmtl" / "spool"


def keep(client: Client, submission: Mapping[str, Any]) -> Path:
    """The file that now holds what the client could not send, on disk for good.  Raises OSError."""
    home = folder()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if sum(1 for _ in home.glob("*.json")) >= KEPT_MAX:
        raise SpoolFull(f"{home} holds {KEPT_MAX} submissions")
    kept = {
        "format": FORMAT,
        "url": client.url,
        "credential": client.credential,
        "submission": dict(submission),
    }
    content = json.dumps(kept, sort_keys=True, allow_nan=False).encode()
    path = home / f"{hashlib.sha256(content).hexdigest()[:32]}.json"
    with _locked(home):
        write_whole(path, content)
    return path


def flush(client: Client) -> list[Flushed]:
    """Sends what is kept for the client's server, oldest first; what became of each.

    Stops at the first that finds the world away.  What was kept for another server stays.
    """
    home = folder()
    if not home.is_dir():
        return []
    with _locked(home):
        return _flushed(home, client)


def _flushed(home: Path, client: Client) -> list[Flushed]:
    done: list[Flushed] = []
    away: str | None = None
    for path in sorted(home.glob("*.json"), key=lambda path: (path.stat().st_mtime, path.name)):
        kept = json.loads(path.read_bytes())
        if kept["format"] != FORMAT or kept["url"] != client.url:
            continue
        submission = kept["submission"]
        about = submission["strategy_id"], submission["world"]
        if kept["credential"] not in (client.credential, NO_CREDENTIAL):
            done.append(Flushed(*about, "waiting", OTHER_CREDENTIAL))
            continue
        if away is not None:
            done.append(Flushed(*about, "waiting", away))
            continue
        try:
            client.submit(submission)
        except Away as error:
            away = str(error)
            done.append(Flushed(*about, "waiting", away))
        except ApiError as error:
            if error.status in (401, 429) or error.status >= 500:
                # Of the credential, the hour or the server: not of the submission.
                away = str(error)
                done.append(Flushed(*about, "waiting", away))
                continue
            (home / REFUSED).mkdir(exist_ok=True, mode=0o700)
            path.replace(home / REFUSED / path.name)
            done.append(Flushed(*about, "refused", str(error)))
        else:
            path.unlink()
            done.append(Flushed(*about, "sent", ""))
    return done


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Alone in the spool until the end of the block, or of the process."""
    with open(home / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, so that it is there whole, or not at all (I6).

    INVARIANT: when this returns it survives a power cut.  Raises OSError.
    """
    partial = path.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
