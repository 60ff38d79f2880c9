"""The demo's months: day by day through a real server, as a desk would live them.

Every day the desk asks what each strategy may do, posts the returns of those that may trade (one
call a stage), and lets the campaign loop act once a week. Two risk officers look at what waits for
approval; an operator applies it. Nobody here decides anything the world does not ask for.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from qmtl.adapters.client import ApiError, Client
from qmtl.entry.loop import run_once
from qmtl.sdk.engine import Backtest

WORLD = "us-large-caps"
AFTER_THE_CLOSE = timedelta(minutes=5)
LOOP_EVERY_BARS = 5
PEOPLES = {"manual_approval_required", "approvals_insufficient", "approval_expired", "cleared"}
STAGE_OF_MODE = {"paper": "paper", "live": "live"}  # Compute-only posts nothing.


@dataclass(frozen=True, slots=True)
class Desk:
    """Everyone who works in the demo, each with a credential of their own."""

    admin: Client
    author: Client
    producer: Client
    loop: Client
    approvers: tuple[Client, ...]


@dataclass(slots=True)
class Traded:
    """What was posted of one strategy, stage by stage: (time, return)."""

    by_stage: dict[str, list[tuple[datetime, float]]] = field(default_factory=dict)

    def add(self, stage: str, at: datetime, value: float) -> None:
        self.by_stage.setdefault(stage, []).append((at, value))


def moment(time: np.datetime64) -> datetime:
    """A bar's time, aware."""
    return datetime.fromisoformat(str(time.astype("datetime64[s]"))).replace(tzinfo=UTC)


def replay(
    desk: Desk,
    backtests: Mapping[str, Backtest],
    first: datetime,
    last: datetime,
    advance: Callable[[datetime], None],
) -> dict[str, Traded]:
    """Live through every bar after `first` up to `last`; what was posted, by strategy.

    A backtest's return of a day is the day's return: the engine is causal, and the look-ahead check
    at submit has shown that the strategies are.
    """
    traded = {sid: Traded() for sid in backtests}
    for number, (at, returns) in enumerate(_days(backtests, first, last)):
        desk.admin.set_clock(at + AFTER_THE_CLOSE)
        by_stage: dict[str, dict[str, float]] = {}
        for envelope in desk.producer.decide(WORLD):
            stage = STAGE_OF_MODE.get(envelope["effective_mode"])
            sid = envelope["strategy_id"]
            if stage is not None:
                by_stage.setdefault(stage, {})[sid] = returns[sid]
                traded[sid].add(stage, at, returns[sid])
        for stage, values in sorted(by_stage.items()):
            desk.producer.post_returns(WORLD, stage=stage, t=at, returns=values)
        if number % LOOP_EVERY_BARS == LOOP_EVERY_BARS - 1:
            govern(desk)
        advance(at)
    return traded


def govern(desk: Desk) -> None:
    """One turn of the loop; then people do what waits for people."""
    report = run_once(desk.loop, WORLD)
    for action in report.waiting:
        if not set(action["reason"].split(", ")) <= PEOPLES:
            continue  # Something else stands in the way: a slot, the cooldown. Not now.
        body = {"strategy_id": action["strategy_id"], "run_id": action["suggested_run_id"]}
        for approver in desk.approvers:
            approver.approve(WORLD, **body, reason="gates, window and drawdown looked at")
        try:
            desk.admin.apply(WORLD, **body)
        except ApiError as refused:
            if refused.status != 409:
                raise
            # The world said why, and keeps it in its journal; it is asked again next week.


def _days(
    backtests: Mapping[str, Backtest], first: datetime, last: datetime
) -> Iterator[tuple[datetime, dict[str, float]]]:
    times = next(iter(backtests.values())).times
    for index, time in enumerate(times):
        at = moment(time)
        if first < at <= last:
            yield at, {sid: float(b.returns[index]) for sid, b in backtests.items()}
