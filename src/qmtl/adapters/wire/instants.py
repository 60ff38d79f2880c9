"""RFC 3339 times <-> instants: one at a time, and whole columns at the speed of numpy."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import numpy as np

from qmtl.core.columns import Int64
from qmtl.core.times import instant, micros
from qmtl.core.times import rfc3339 as rfc3339  # Whoever reads times here writes them, too.

_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_PLAIN_UTC: Final = re.compile(
    r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|\+00:00)\n)*", re.ASCII
)
WORDS: Final = "a time with its offset, such as 2024-01-31T21:00:00Z"


def parse(text: str) -> datetime:
    """The instant, in UTC.  Raises ValueError for what is no RFC 3339 time with an offset."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"must be {WORDS}")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no time that there is") from None


def parse_column(texts: Sequence[str]) -> Int64:
    """Microseconds since 1970 UTC, shape (n,), not to be written to.

    Raises ValueError as `parse` does.  Times that end in `Z` or `+00:00` take a fast path, a fifth
    of a microsecond each; a column that came just before is not parsed again, since the series of
    one snapshot mostly have the same times.
    """
    joined = "\n".join(texts) + "\n" if len(texts) else ""
    # A text with a line break in it would be two times.
    if joined.count("\n") == len(texts) and _PLAIN_UTC.fullmatch(joined):
        return _plain_utc(joined)
    return np.array([micros(parse(text)) for text in texts], dtype=np.int64)


@lru_cache(maxsize=2)
def _plain_utc(joined: str) -> Int64:
    try:
        plain = np.array(
            joined.replace("+00:00", "").replace("Z", "").split("\n")[:-1], dtype="datetime64[us]"
        )
    except ValueError:
        raise ValueError("one of the times is no time that there is") from None
    column = plain.astype(np.int64)
    # Year 0, which numpy has and a calendar of datetimes has not.
    if len(column) and column.min() < micros(datetime.min.replace(tzinfo=UTC)):
        raise ValueError("one of the times is before the year 1")
    column.flags.writeable = False
    return column


def column_text(column: Int64) -> list[str]:
    """A column of microseconds as `rfc3339` writes each."""
    return [rfc3339(instant(int(us))) for us in column]
