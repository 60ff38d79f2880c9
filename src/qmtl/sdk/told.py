"""What a follower tells while it works: a `Turn` of what became of a bar, a `Note` of the rest."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from qmtl.core.names import Mode, Stage

Outcome = Literal["posted", "kept", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What became of one bar; of one that was kept there is another when it goes out.

    realised  the return of the bar, as it is posted; None when nothing was realised, and the
              engine's goes out alone
    replay    the engine's own
    mode      what the strategy might do when this was told
    stage     where it was posted; None when it was not
    capital   the share of capital the strategy had; 0 unless it is live
    outcome   posted; kept, to be posted later; dropped: from before the strategy entered its phase
    why       why it was not posted, or what there is to say of it
    """

    time: datetime
    realised: float | None
    replay: float
    mode: Mode
    stage: Stage | None
    capital: float
    outcome: Outcome
    why: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        named = {"return": self.realised, **asdict(self), "time": _minute(self.time)}
        del named["realised"]
        return {name: named[name] for name in ("time", "return", *list(named)[2:])}

    def __str__(self) -> str:
        earned = "-" if self.realised is None else f"{self.realised:+.4%}"
        what = f"posted as {self.stage}" if self.stage else f"not posted, {self.outcome}"
        if self.stage is Stage.LIVE:
            what += f" with {self.capital:.4g} of capital"
        why = f": {self.why}" if self.why else ""
        return f"{_minute(self.time)}  {earned:>10}  {self.mode:<12}  {what}{why}"


@dataclass(frozen=True, slots=True)
class Note:
    """Anything else that somebody who watches wants to know."""

    text: str

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"note": self.text}

    def __str__(self) -> str:
        return self.text


Told = Turn | Note


def _minute(at: datetime) -> str:
    whole = not (at.second or at.microsecond)
    return at.isoformat(timespec="minutes" if whole else "auto").replace("+00:00", "Z")
