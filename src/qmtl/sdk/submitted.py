"""The submitted strategy that a piece of code is, and where it stands in its world.

What is followed must be what was submitted.  Of a strategy's versions it is the newest whose code,
parameters and engine are those at hand; its data is longer by now, and is looked at apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from qmtl.adapters.client import NOT_QMTL, Answer, ApiError, Client
from qmtl.core.names import Phase, Stage
from qmtl.core.times import instant
from qmtl.sdk.prices import Prices

SAME: Final = ("code", "parameters", "engine")  # Parts of a fingerprint that do not grow.
STAGES: Final = (Stage.BACKTEST, Stage.PAPER, Stage.LIVE)


class NotSubmitted(Exception):
    """The world does not know the strategy, or not this code of it; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """One version of a strategy in its world.

    bound_at  when it was submitted; tells it from one of that name in a world made anew
    data      the digest of its backtest's prices; None when the world was not told
    """

    strategy_id: str
    bound_at: str
    data: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a strategy stands.

    at          the world's time
    entered_at  when it entered its phase
    tested_to   the last bar of its backtest; None when it has none
    held_to     the last bar that the hub holds of it, in whichever stage; None when there is none
    waits_for   a sentence for each reason why it is not further
    """

    at: datetime
    phase: Phase
    entered_at: datetime | None
    tested_to: datetime | None
    held_to: datetime | None
    waits_for: tuple[str, ...]


def find(client: Client, world: str, asked: str, parts: Mapping[str, str]) -> Submitted:
    """The newest version of `asked` that is the code with these parts.

    Raises NotSubmitted; ApiError, or Away.
    """
    family = sorted(
        (each for each in client.strategies(world) if asked in _names(each)),
        key=lambda each: each.get("version") or 1,
        reverse=True,
    )
    if not family:
        raise NotSubmitted(f"{asked} was never submitted to {world}: qmtl submit")
    if not family[0].get("parts"):  # From before there were parts: known by its name only.
        return _submitted(family[0])
    for each in family:
        if all((each.get("parts") or {}).get(name) == parts[name] for name in SAME):
            return _submitted(each)
    newest = family[0]
    changed = ", ".join(name for name in SAME if newest["parts"].get(name) != parts[name])
    version = (newest.get("version") or 1) + 1
    raise NotSubmitted(
        f"{asked} was changed since it was submitted ({changed}): "
        f"qmtl submit makes it version {version}"
    )


def _names(told: Answer) -> tuple[object, object]:
    return told["strategy_id"], told.get("family")


def _submitted(told: Answer) -> Submitted:
    return Submitted(
        strategy_id=told["strategy_id"],
        bound_at=told["bound_at"],
        data=(told.get("parts") or {}).get("data"),
    )


def standing(client: Client, world: str, strategy_id: str) -> Standing:
    """Raises ApiError, or Away."""
    try:
        answer = client.status(world, strategy_id)
        (told,) = answer["strategies"]
        ends = {stage: _instant(told[stage]["ended_at"]) for stage in STAGES}
        return Standing(
            at=datetime.fromisoformat(answer["generated_at"]).astimezone(UTC),
            phase=Phase(told["phase"]),
            entered_at=_instant(told["entered_at"]),
            tested_to=ends[Stage.BACKTEST],
            held_to=max((end for end in ends.values() if end is not None), default=None),
            waits_for=tuple(map(str, told["details"] or told["reasons"])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ApiError(200, NOT_QMTL, f"status of {strategy_id}: {error}") from error


def _instant(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told).astimezone(UTC)


# ---- Bars and instants -----------------------------------------------------------------------


def moment(time: np.datetime64) -> datetime:
    """A bar's time, aware."""
    return instant(int(time.astype("datetime64[us]").astype(np.int64)))


def numpy_time(at: datetime) -> np.datetime64:
    """An aware time as `Prices` holds it."""
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")


def prefix(prices: Prices, last: datetime) -> Prices | None:
    """The bars up to an instant, that included; None when there are none."""
    bars = int(np.searchsorted(prices.times, numpy_time(last), side="right"))
    return prices.head(bars) if bars else None
