"""When something that returns fill is full, at the rate at which they have come so far.

A rate is what came between the first and the last return that counted, over the time between them.
A date is promised only where time alone brings it: never of what has stopped, and never of what one
return cannot tell.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from .names import Stage
from .policy import GAP_BARS_MAX, Policy
from .times import NEVER, in_words, instant, micros, span_us
from .view import WorldView
from .windows import Part
from .words import day

HORIZON = timedelta(days=100 * 365)  # Later than this is never.


@dataclass(frozen=True, slots=True)
class Outlook:
    """`at` None: there is no date to give, and `words` say why.  They complete a sentence."""

    at: datetime | None
    words: str


def outlook(
    view: WorldView,
    row: int,
    stage: Stage,
    policy: Policy,
    part: Part,
    missing: float,
    now: datetime,
) -> Outlook:
    """When `missing` seconds of data time, or observations, will have been added to a window."""
    track = view.tracks[stage]
    first, last = int(track.window_first_t[row]), int(track.window_last_t[row])
    latest = int(track.last_t[row])
    if latest > max(last, int(track.window_from[row])):  # They came, and did not count.
        since = "" if last == NEVER else f" after {day(instant(last))}"
        lag = in_words(policy.data.max_lag.total_seconds())
        return _never(f"returns{since} came more than {lag} late and count for nothing")
    heard = max(last, int(track.window_from[row]))
    if micros(now) - heard > quiet_us(policy):
        return _never(f"no returns since {day(instant(heard))}")
    if last == NEVER:
        return Outlook(None, f"no {stage} return has come yet")
    came = {Part.TIME: int(track.window_us[row]) / 1e6, Part.COUNT: track.window_points[row] - 1}
    rate = 0.0 if last == first else float(came[part]) / (last - first)
    if rate <= 0.0:
        return Outlook(None, "one return does not tell yet when")
    ahead = missing / rate
    if ahead > span_us(HORIZON):
        return _never("they come too slowly")
    reached = last + int(ahead)
    if reached <= micros(now):
        return Outlook(None, "the next returns may complete it")
    at = instant(reached)
    return Outlook(at, f"complete on {day(at)} at the present rate")


def _never(why: str) -> Outlook:
    return Outlook(None, f"at the present rate never: {why}")


def quiet_us(policy: Policy) -> int:
    """The time without a return after which nothing comes: longer than it may be late, and longer
    than any gap between two returns that fills a window."""
    return max(span_us(policy.data.max_lag), GAP_BARS_MAX * span_us(policy.data.bar))
