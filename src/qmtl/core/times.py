"""Instants: aware UTC datetimes at the edges, whole microseconds in the columns."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR_SEC = 3_600
DAY_SEC = 86_400
SECONDS_PER_YEAR = 365.25 * DAY_SEC
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}  # Of `30d`.
NEVER = -(2**63)  # The instant of what has not happened: before every other.


def micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC.  `moment` must be aware."""
    return (moment - EPOCH) // MICROSECOND


def instant(us: int) -> datetime:
    """The UTC datetime of a count of microseconds."""
    return EPOCH + timedelta(microseconds=int(us))


def instant_or_none(us: int) -> datetime | None:
    """The UTC datetime of a column's value; None for NEVER."""
    return None if us == NEVER else instant(us)


def rfc3339(moment: datetime) -> str:
    """An aware datetime as it goes over the wire: UTC, `Z`, microseconds if there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def in_words(seconds: float) -> str:
    """A length of time as a person says it: `1100 days`, `12.5 days`, `3.0 hours`, `40 s`."""
    if seconds >= 100 * DAY_SEC:
        return f"{seconds / DAY_SEC:.0f} days"
    if seconds >= DAY_SEC:
        return f"{seconds / DAY_SEC:.1f} days"
    if seconds >= HOUR_SEC:
        return f"{seconds / HOUR_SEC:.1f} hours"
    return f"{seconds:.3g} s"


def span_us(span: timedelta) -> int:
    """A length of time in whole microseconds."""
    return span // MICROSECOND
