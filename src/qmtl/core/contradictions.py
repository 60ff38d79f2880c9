"""What of a policy can never be met, so that nobody goes live under it, and why.

Only arithmetic on the policy itself: what it says is not compared with anybody's returns.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim

from .evidence.eprocess import BLOCKS_MIN
from .names import Stage
from .policy import Disabled, Freeze, Policy, Window
from .proof import terms
from .times import SECONDS_PER_YEAR

FREEZE_HORIZON: Final = timedelta(days=400)  # After a year the seasons repeat.
FREEZE_LOOKUPS_MAX: Final = 10_000  # Enough for an hourly freeze; half a second.


def contradictions(policy: Policy) -> tuple[tuple[str, str], ...]:
    """The part of the policy, and why it is never met; of each that is not."""
    return (*_closed(policy), *_room(policy), *_counts(policy), *_frozen(policy))


def _closed(policy: Policy) -> Iterator[tuple[str, str]]:
    if isinstance(policy.governance.live_promotion, Disabled):
        yield (
            "governance.live_promotion.mode",
            "disabled, as it is where governance is left out. Nothing goes live under this policy.",
        )


def _room(policy: Policy) -> Iterator[tuple[str, str]]:
    """What needs more observations than the longest paper campaign holds."""
    paper, most = policy.campaign.paper, _observations_most(policy)
    if paper.min_observations > most:
        yield (
            "campaign.paper.min_observations",
            f"can never be met: max_window {in_days(paper.max_window)} holds about {most:.0f} "
            f"observations at {policy.data.periods_per_year:g} a year, and "
            f"{paper.min_observations} are asked for.",
        )
    if terms(policy).method == "group_sequential" and paper.max_window is None:
        yield (
            "evidence.paper.method",
            "can never be met: group_sequential needs campaign.paper.max_window for a horizon.",
        )
    needed = BLOCKS_MIN * policy.evidence.paper.block if policy.evidence else 0
    if needed > most:
        yield (
            "evidence.paper.block",
            f"can never be met: an e-value needs {BLOCKS_MIN} blocks, {needed} observations, and "
            f"max_window {in_days(paper.max_window)} holds about {most:.0f}.",
        )


def _counts(policy: Policy) -> Iterator[tuple[str, str]]:
    """Gates on the length of the history that the stage's window contradicts."""
    a_year = policy.data.periods_per_year
    for stage, window in window_of(policy).items():
        most = _observations_most(policy) if stage is Stage.PAPER else math.inf
        per_unit = {"observations": 1.0, "effective_history_years": 1 / a_year}
        for bound in policy.gates.of(stage):
            scale = per_unit.get(bound.metric)
            if scale is None:
                continue
            path, least = f"gates.{stage}.{bound.metric}", window.min_observations
            if bound.max is not None and bound.max < least * scale:
                says = f"{bound.max:g} is less than min_observations, {least}, make."
                yield f"{path}.max", f"can never be met: {says}"
            if bound.min is not None and bound.min > most * scale:
                says = f"{bound.min:g} is more than max_window holds, about {most * scale:.3g}."
                yield f"{path}.min", f"can never be met: {says}"


def _frozen(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.governance.freeze and _always_frozen(policy.governance.freeze):
        yield (
            "governance.live_promotion.freeze",
            f"nothing can ever be promoted: no moment in {in_days(FREEZE_HORIZON)} is free of it.",
        )


def _always_frozen(freezes: tuple[Freeze, ...]) -> bool:
    """Whether one freeze follows another to the horizon.  False when that takes too long to say."""
    start = moment = datetime(2024, 1, 1, tzinfo=UTC)
    around = [_around(freeze, moment) for freeze in freezes]
    for _ in range(FREEZE_LOOKUPS_MAX // len(freezes)):
        until = max(end for end, _ in around)
        if until <= moment:
            return False
        if until - start > FREEZE_HORIZON:
            return True
        moment = until
        around = [
            (end, following) if moment < following else _around(freeze, moment)
            for freeze, (end, following) in zip(freezes, around, strict=True)
        ]
    return False


def _around(freeze: Freeze, moment: datetime) -> tuple[datetime, datetime]:
    """When the latest freeze that has started at `moment` ends, and when the next one starts."""
    just_after = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    latest = next(CronSim(freeze.cron, just_after, reverse=True))
    return latest + freeze.length, next(CronSim(freeze.cron, moment))


# ---- Numbers and words -----------------------------------------------------------------------


def window_of(policy: Policy) -> dict[Stage, Window]:
    """Of the stages before live."""
    return {Stage.BACKTEST: policy.campaign.backtest, Stage.PAPER: policy.campaign.paper}


def years_of(span: timedelta) -> float:
    """A length of time in years."""
    return span.total_seconds() / SECONDS_PER_YEAR


def _observations_most(policy: Policy) -> float:
    """How many bars the longest paper campaign holds; one more, for where it starts."""
    longest = policy.campaign.paper.max_window
    if longest is None:
        return math.inf
    return math.floor(years_of(longest) * policy.data.periods_per_year) + 1


def in_days(span: timedelta | None) -> str:
    """A length of time in words."""
    return "without end" if span is None else f"{span / timedelta(days=1):g} days"
