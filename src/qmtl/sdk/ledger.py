"""What a follower has done and what it still owes: on disk before anything is posted.

One file a strategy of a world of a server.  A bar that is to be posted stands in it as the very
body that goes out, stage and all, until it was answered; after a crash the same body goes out
again, and the same body is the same snapshot.  So no bar is posted twice, nor into two stages, nor
lost.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from qmtl.core.names import Stage
from qmtl.core.times import EPOCH, rfc3339
from qmtl.sdk.disk import alone, write_whole

FORMAT: Final = 1
# Forty years of days or a week of minutes: longer than a world is away. The file is written anew
# for every bar, and is a megabyte then.
KEPT_MAX: Final = 10_000
REFUSED_MAX: Final = 100  # To look at; older ones go.
NAME_HEX: Final = 32

Body = dict[str, Any]


class LedgerError(Exception):
    """The file is not what was written; the message says which, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar that was computed: the return realised, if one was, and the engine's own beside it."""

    t: datetime
    r: float | None
    replay: float
    ttl_sec: int

    def body(self, strategy_id: str, stage: Stage) -> Body:
        """As `POST /worlds/{w}/returns` takes it, but for the world."""
        return {
            "stage": str(stage),
            "t": rfc3339(self.t),
            "returns": {} if self.r is None else {strategy_id: self.r},
            "replay": {strategy_id: self.replay},
            "ttl_sec": self.ttl_sec,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """One follower's state.

    asked        the name under which it was followed; `strategy_id` is that of its version
    bound_at     when the world got to know it; in a world made anew it is another
    parts        of the fingerprint that was followed, without its data
    last         the last bar that was computed
    posted       the last bar that the world has answered for
    seen         the digest of the prices up to `seen_to`, to tell that they were changed
    kept         computed bars that nobody may post yet, oldest first
    outbox       bodies that are on their way, oldest first
    refused      bodies that the world will never take, each with its reasons
    """

    url: str
    world: str
    asked: str
    strategy_id: str
    bound_at: str
    parts: Mapping[str, str]
    last: datetime | None = None
    posted: datetime | None = None
    seen: str | None = None
    seen_to: datetime | None = None
    kept: tuple[Bar, ...] = ()
    outbox: tuple[Body, ...] = ()
    refused: tuple[Body, ...] = ()

    @property
    def owes(self) -> int:
        """How many bars are not with the world yet."""
        return len(self.kept) + len(self.outbox)

    def aside(self, why: str) -> "Ledger":
        """The first of the outbox is refused for good."""
        refused = (*self.refused, {**self.outbox[0], "why": why})[-REFUSED_MAX:]
        return replace(self, outbox=self.outbox[1:], refused=refused)


# ---- On disk ---------------------------------------------------------------------------------


def folder() -> Path:
    """`QMTL_STATE`, else `~/.local/state/qmtl/follow`."""
    named = os.environ.get("QMTL_STATE")
    return Path(named) if named else Path.home() / ".local" / "state" / "qmtl" / "follow"


def place(home: Path, url: str, world: str, strategy_id: str) -> Path:
    """The file of one strategy."""
    named = f"{url}\0{world}\0{strategy_id}".encode()
    return home / f"{hashlib.sha256(named).hexdigest()[:NAME_HEX]}.json"


def owned(path: Path) -> AbstractContextManager[None]:
    """Nobody else follows the strategy of this file meanwhile.  Raises Occupied, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return alone(path.with_suffix(".lock"))


def save(path: Path, ledger: Ledger) -> None:
    """INVARIANT: when this returns, it is there after a power cut.  Raises OSError."""
    told = {"format": FORMAT, **asdict(ledger)}
    content = json.dumps(told, default=rfc3339, allow_nan=False, sort_keys=True)
    write_whole(path, content.encode())


def load(path: Path) -> Ledger | None:
    """None where there is none.  Raises LedgerError, OSError."""
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_bytes())
        if told.pop("format") != FORMAT:
            raise ValueError("it is of another version of qmtl")
        times: dict[str, Any] = {
            name: _instant(told.pop(name)) for name in ("last", "posted", "seen_to")
        }
        kept = tuple(Bar(**{**bar, "t": _instant(bar["t"])}) for bar in told.pop("kept"))
        lists: dict[str, Any] = {name: tuple(told.pop(name)) for name in ("outbox", "refused")}
        return Ledger(**told, **times, **lists, kept=kept)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(
            f"{path} cannot be read ({error}): move it away, and the world is asked what it holds"
        ) from error


def known(home: Path, url: str, world: str, asked: str, parts: Mapping[str, str]) -> Ledger | None:
    """That of the same code followed under this name before, the one that came furthest: for when
    the world cannot be asked."""
    about, fitting = (url, world, asked, dict(parts)), []
    for path in home.glob("*.json"):
        try:
            found = load(path)
        except LedgerError:  # Of whichever strategy: who follows that one is told.
            continue
        if found and (found.url, found.world, found.asked, dict(found.parts)) == about:
            fitting.append(found)
    return max(fitting, key=lambda each: each.last or EPOCH, default=None)


def _instant(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)
