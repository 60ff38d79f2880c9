"""Submissions that found the world away, kept on disk until they can be sent.

One file a submission, named by its place in the queue and the digest of what it holds: keeping it
twice keeps it once, where it was.  The server takes what it already has for what it is, so that a
crash between sending a file and removing it changes nothing.  A lock lets one process at a time
keep or send.

The author of a strategy is who submits it, and must not approve it.  So what was kept under one
credential is not sent under another; the credential itself is kept nowhere.  What was kept under
none (there was no server yet to give one) has no author: who sends it is the author.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qmtl.adapters.client import NO_CREDENTIAL, NOT_QMTL, Answer, ApiError, Away, Client
from qmtl.sdk.decisions import as_good_as_away, is_strangers
from qmtl.sdk.disk import alone, write_whole

FORMAT = 1
REFUSED = "refused"  # A folder: what cannot be sent is not tried again, and not lost.
KEPT_MAX = 10_000  # Of files: a spool that nobody empties must not fill a disk.
DIGEST_HEX = 32
OTHER_CREDENTIAL = "it was submitted under another credential: use that one, or submit it anew"
OTHER_SERVER = "it is for the server {url}: set QMTL_URL, or --url, to send it"
OTHER_FORMAT = "another version of qmtl kept it: send it with that one"
DAMAGED = "the file is damaged, and was put aside as {path}: submit it anew"


class NotKept(OSError):
    """Nobody answered, and the submission could not be kept on disk either."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of one kept submission.

    outcome  sent; refused, or its file damaged: put aside, and not tried again; waiting: the world
             is away still, or it was submitted under another credential; elsewhere: it is for
             another server, or of another version of qmtl
    """

    strategy_id: str
    world_id: str
    outcome: Literal["sent", "refused", "waiting", "elsewhere"]
    detail: str


def folder() -> Path:
    """`QMTL_SPOOL`, else `~/.local/state/qmtl/spool`."""
    named = os.environ.get("QMTL_SPOOL")
    return Path(named) if named else Path.home() / ".local" / "state" / "qmtl" / "spool"


def keep(client: Client, submission: Mapping[str, Any]) -> Path:
    """The file that now holds what the client could not send, on disk for good.  Raises NotKept."""
    home = folder()
    kept = {
        "format": FORMAT,
        "url": client.url,
        "credential": client.credential,
        "submission": dict(submission),
    }
    content = json.dumps(kept, sort_keys=True, allow_nan=False).encode()
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(home):
            return _kept(home, content)
    except OSError as error:
        why = str(error) if isinstance(error, NotKept) else error.strerror or str(error)
        raise NotKept(
            f"nobody answers at {client.url}, and the submission could not be kept in {home}:"
            f" {why}; make room there, or name another folder in QMTL_SPOOL, and submit it again"
        ) from error


def _kept(home: Path, content: bytes) -> Path:
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_HEX]
    for half in home.glob("*.partial"):  # Of a process that was killed while it wrote.
        half.unlink()
    waiting = _waiting(home)
    for path in waiting:
        if path.stem.endswith(digest) and path.read_bytes() == content:
            return path
    if len(waiting) >= KEPT_MAX:
        raise NotKept(f"it holds {KEPT_MAX:,} submissions that wait to be sent (qmtl flush)")
    path = home / f"{_place(waiting):08d}-{digest}.json"
    try:
        write_whole(path, content)
    except OSError:  # A full disk gets back what half a file took of it.
        path.with_suffix(".partial").unlink(missing_ok=True)
        raise
    return path


def _waiting(home: Path) -> list[Path]:
    """What waits, oldest first."""
    return sorted(home.glob("*.json"))


def _place(waiting: list[Path]) -> int:
    """After the last.  Not the time: clocks stand still, and are set back."""
    last = waiting[-1].stem.partition("-")[0] if waiting else "0"
    return int(last) + 1 if last.isdigit() else len(waiting) + 1


def flush(client: Client, besides: Mapping[str, Any] | None = None) -> list[Flushed]:
    """Sends what is kept for the client's server and credential, oldest first; what became of each.

    Stops at the first that finds the world away.  What was kept for another server, or under
    another credential, stays, and is mentioned.  `besides` is a submission that the caller is about
    to send: where that was kept before, it is no news.
    """
    home = folder()
    if not home.is_dir():
        return []
    own = None if besides is None else json.loads(json.dumps(besides))
    with _locked(home):
        return [
            each
            for each, submission in _flushed(home, client)
            if own is None or submission != own or each.detail == OTHER_CREDENTIAL
        ]


def _flushed(home: Path, client: Client) -> Iterator[tuple[Flushed, Answer | None]]:
    """What became of each, and what it was, where that can be read."""
    away: str | None = None
    for path in _waiting(home):
        try:
            kept = _read(path)
        except OSError as error:  # Removed by hand, or not ours to read.
            yield Flushed("?", "?", "waiting", f"{path}: {error.strerror}"), None
            continue
        if kept is None:
            aside = _aside(home, path)
            yield Flushed("?", "?", "refused", DAMAGED.format(path=aside)), None
            continue
        submission = kept["submission"]
        about = str(submission["strategy_id"]), str(submission["world"])
        elsewhere = _elsewhere(kept, client)
        if elsewhere is not None:
            yield Flushed(*about, "elsewhere", elsewhere), submission
            continue
        if kept["credential"] not in (client.credential, NO_CREDENTIAL):
            yield Flushed(*about, "waiting", OTHER_CREDENTIAL), submission
            continue
        if away is not None:
            yield Flushed(*about, "waiting", away), submission
            continue
        try:
            taken_as(client.submit(submission))
        except Away as error:
            away = str(error)
            yield Flushed(*about, "waiting", away), submission
        except ApiError as error:
            # Of the credential, the hour or the server: not of the submission.
            if error.status == 401 or as_good_as_away(error) or is_strangers(error):
                away = str(error)
                yield Flushed(*about, "waiting", away), submission
                continue
            _aside(home, path)
            yield Flushed(*about, "refused", str(error)), submission
        else:
            path.unlink(missing_ok=True)
            yield Flushed(*about, "sent", ""), submission


def taken_as(told: Answer) -> str:
    """The id under which a world, or its gateway, took a submission.

    Raises ApiError for an answer without one: whoever gave it may not have taken it.
    """
    strategy_id = told.get("strategy_id")
    if not (isinstance(strategy_id, str) and strategy_id):
        raise ApiError(200, NOT_QMTL, f"strategy_id is {strategy_id!r}")
    return strategy_id


def _read(path: Path) -> dict[str, Any] | None:
    """What the file holds; None when it is not what was written: one bad file stops no other."""
    content = path.read_bytes()
    if not path.stem.endswith(hashlib.sha256(content).hexdigest()[:DIGEST_HEX]):
        return None
    kept: dict[str, Any] = json.loads(content)
    return kept


def _elsewhere(kept: Mapping[str, Any], client: Client) -> str | None:
    """Where it is to be sent from, if not from here."""
    if kept["format"] != FORMAT:
        return OTHER_FORMAT
    return None if kept["url"] == client.url else OTHER_SERVER.format(url=kept["url"])


def _aside(home: Path, path: Path) -> Path:
    aside = home / REFUSED
    aside.mkdir(exist_ok=True, mode=0o700)
    return path.replace(aside / path.name)


def _locked(home: Path) -> AbstractContextManager[None]:
    """Alone in the spool until the end of the block, or of the process."""
    return alone(home / ".lock", wait=True)
