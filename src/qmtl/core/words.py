"""How numbers, instants and names are said to people: short, in UTC, never more than is known."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from .names import Phase

PHASES = {
    Phase.BACKTEST: "in backtest",
    Phase.PAPER: "on paper",
    Phase.LIVE: "live",
    Phase.RETIRED: "retired",
}
ASKED = {  # What takes two people.
    "allow_live": "to allow live",
    "default_policy": "to put policy version {} in force",
    "resume": "to resume the world",
    "token": "to let a credential in",
}
IES = ("ry", "gy")  # What is more than one entry, or strategy.
NAMES_MAX = 5  # More in one sentence, and nobody reads it.


def day(at: datetime) -> str:
    """`2026-01-17`, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def minute(at: datetime) -> str:
    """`2026-01-17 08:30 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def second(at: datetime) -> str:
    """`2026-01-17 08:30:07 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def percent(share: float) -> str:
    """A share of one as `4.2 %`: three digits."""
    return f"{100 * share:.3g} %"


def ordinal(step: int) -> str:
    """A step of the ramp, from 0, as people count: `step 1`."""
    return f"step {step + 1}"


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`; of many, the first few and how many more."""
    known: Sequence[str] = tuple(names)
    if len(known) > NAMES_MAX:
        known = (*known[: NAMES_MAX - 1], f"{len(known) - NAMES_MAX + 1} more")
    head = ", ".join(known[:-1])
    return f"{head} {last} {known[-1]}" if head else "".join(known)


def counted(count: int, noun: str) -> str:
    """`1 return`, `3,000 returns`, `2 entries`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith(IES) else f"{count:,} {noun}s"


def sentence(text: str) -> str:
    """Begun with a capital, ended with a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def one_line(text: str) -> str:
    """What somebody wrote, as a line of a text that others read: it breaks no line, so that it can
    pass for no other, and no character of it steers a terminal or turns the direction of reading.
    """
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
