"""One thing that `qmtl doctor` looks at: how it is, what was found, what to do."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # It works; something will not.
    FAIL = "fail"
    AWAY = "away"  # Nobody answers: that may be as it should be.


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check and its outcome.  `remedy`: a command, or what to do in words; none when ok."""

    name: str
    level: Level
    found: str
    remedy: str | None = None

    def plain(self) -> dict[str, str | None]:
        """As JSON has it."""
        return {
            "check": self.name,
            "level": self.level,
            "found": self.found,
            "remedy": self.remedy,
        }


def ok(name: str, found: str) -> Check:
    """As it should be."""
    return Check(name=name, level=Level.OK, found=found)


def warn(name: str, found: str, remedy: str) -> Check:
    """It works, and something is to be seen to."""
    return Check(name=name, level=Level.WARN, found=found, remedy=remedy)


def fail(name: str, found: str, remedy: str) -> Check:
    """It does not work."""
    return Check(name=name, level=Level.FAIL, found=found, remedy=remedy)


def away(name: str, found: str, remedy: str) -> Check:
    """Nobody answers."""
    return Check(name=name, level=Level.AWAY, found=found, remedy=remedy)
