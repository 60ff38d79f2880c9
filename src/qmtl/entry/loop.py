"""The campaign loop: tick, do what the tick recommends, tick again until nothing is left to do.

It keeps nothing and decides nothing.  Every action names its effect, so any number of loops may run
at once, and any of them may be killed at any instant: whatever was not done is recommended again.
Those that run for long share out the worlds between them, so that no work is done twice.

What an action fails with is counted and told, and never stops the others.
"""

import math
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.core.campaign import ACTIONS_MAX
from qmtl.core.words import counted

ROUNDS_MAX: Final = 20  # Evidence moves a strategy a few times; a tick that never rests is a bug.
AWAY_MAX: Final = 3  # Unanswered one after the other: then the rest would wait for nothing, too.
LEAD_SEC: Final = 15.0  # A loop that says nothing for so long is gone, and another takes over.
BEAT_SEC: Final = 5.0
SCHEMA_VERSION: Final = 1
SHOWN_CHARS_MAX: Final = 200
ERRORS_TOLD_MAX: Final = 1_000  # Of a report; the counts count them all.
EXECUTABLE: Final = frozenset({"evaluate", "evaluate_cohort", "observe_live", "auto_apply_live"})
FOR_PEOPLE: Final = frozenset({"manual_approval_required"})
BLOCKED_STATUS: Final = 409

Action = dict[str, Any]
What = Literal["executed", "blocked", "failed", "planned"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action.  blocked: the gate is closed, for reasons that it recorded."""

    action: Mapping[str, Any]
    what: What
    detail: str = ""


OnOutcome = Callable[[Outcome, int], None]  # And how many of its round are still to do.


@dataclass(slots=True)
class Report:
    """One turn of the loop.

    executed, failed, blocked, planned   actions; planned in a dry run only
    waiting     the actions that wait for people, as the last tick has them
    errors      a sentence for each of `failed`, for unknown actions, and for a loop cut short
    blocks      a sentence for each of `blocked`
    left        executable actions that were still recommended, and not tried, when it ended
    rounds      how often it ticked and found something to do
    away        it ended early because the world does not answer
    """

    executed: int = 0
    failed: int = 0
    blocked: int = 0
    planned: int = 0
    left: int = 0
    rounds: int = 0
    away: bool = False
    waiting: list[Action] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all that could be done was done."""
        return not (self.failed or self.left or self.away or self.errors)

    def count(self, outcome: Outcome) -> None:
        match outcome.what:
            case "executed":
                self.executed += 1
            case "planned":
                self.planned += 1
            case "blocked":
                self.blocked += 1
                self._tell(self.blocks, f"{_name(outcome.action)}: {outcome.detail}")
            case "failed":
                self.failed += 1
                self._tell(self.errors, f"{_name(outcome.action)}: {outcome.detail}")

    def _tell(self, told: list[str], sentence: str) -> None:
        if len(told) < ERRORS_TOLD_MAX:
            told.append(sentence)


def run_once(
    client: Client,
    world: str,
    dry_run: bool = False,
    on_outcome: OnOutcome = lambda outcome, left: None,
) -> Report:
    """Tick and execute until nothing executable is left; what was done, and what was not.

    An action that fails or is blocked is not tried again in the same turn.  `dry_run` executes
    nothing.  Raises ApiError or Away when the first tick itself is refused or unanswered.
    """
    report = Report()
    tried: set[str] = set()  # In vain, in this turn.
    while True:
        try:
            actions = _ticked(client, world)
        except (ApiError, Away) as error:
            if not report.rounds:
                raise
            report.away = isinstance(error, Away)
            report.errors.append(f"tick: {error}")
            return report
        report.waiting = [action for action in actions if action["action"] in FOR_PEOPLE]
        report.errors += _unknown(actions, tried)
        todo = [a for a in actions if a["action"] in EXECUTABLE and _key(a) not in tried]
        report.left = len(todo)
        if not todo:
            return report
        if report.rounds == ROUNDS_MAX:
            report.errors.append(f"left after {ROUNDS_MAX} rounds: {counted(len(todo), 'action')}")
            return report
        report.rounds += 1
        _round(client, todo, report, tried, dry_run, on_outcome)
        if dry_run or report.away:
            return report


def run_forever(
    client: Client,
    worlds: Callable[[], Sequence[str]],
    interval_sec: float,
    on_report: Callable[[str, Report], None],
    stop: threading.Event | None = None,
    on_outcome: OnOutcome = lambda outcome, left: None,
) -> None:
    """A turn for each world every `interval_sec`, until `stop` is set.

    Of the loops that are there, each world has one that works on it; another takes over within
    LEAD_SEC of its end, at once when it was stopped.  A world that is away, busy or broken is asked
    again next time.  Raises ApiError when it refuses to be asked at all: a credential or a name is
    wrong, and time does not mend that.
    """
    ended, place = stop or threading.Event(), Place(client)
    due: dict[str, float] = {}

    def told(outcome: Outcome, left: int) -> None:
        if ended.is_set():
            raise _Ended
        place.keep()  # A turn may take longer than a place is kept.
        on_outcome(outcome, left)

    try:
        while not ended.is_set():
            with _patient(lambda report: on_report("", report)):
                place.take(worlds())
                for world in place.led():
                    if due.get(world, -math.inf) <= time.monotonic() and not ended.is_set():
                        with _patient(partial(on_report, world)):
                            on_report(world, run_once(client, world, on_outcome=told))
                        due[world] = time.monotonic() + interval_sec
            ended.wait(min(interval_sec, BEAT_SEC))
    except _Ended:
        return
    finally:
        place.leave()


class _Ended(Exception):
    """In the middle of a turn: what it leaves is recommended again."""


@contextmanager
def _patient(on_report: Callable[[Report], None]) -> Iterator[None]:
    """What time may mend is reported.  Raises what it does not."""
    try:
        yield
    except Away as error:
        on_report(Report(away=True, errors=[f"tick: {error}"]))
    except ApiError as error:
        if error.status < 500 and error.status != 429:
            raise
        on_report(Report(errors=[f"tick: {error}"]))


class Place:
    """One loop's place among the loops of its worlds.

    It saves work, and nothing rests on it: two loops that work on one world at once do no harm.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:80]
        self.name = f"loop-{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._leads: dict[str, bool] = {}
        self._beat_at = -math.inf

    def take(self, worlds: Sequence[str]) -> None:
        """Be there for these worlds, and no others.  Raises ApiError, Away."""
        gone = [world for world in self._leads if world not in worlds]
        for world in gone:
            del self._leads[world]
        if gone or set(worlds) != set(self._leads):
            self._beat_at = -math.inf
        self._leads |= {world: True for world in worlds if world not in self._leads}
        self.keep()

    def led(self) -> list[str]:
        return [world for world, leads in self._leads.items() if leads]

    def keep(self) -> None:
        """Say that it is still there, if that is due.  Raises ApiError, Away."""
        if time.monotonic() < self._beat_at + BEAT_SEC:
            return
        self._beat_at = time.monotonic()
        for world in self._leads:
            told = self._client.beat(world, self.name, LEAD_SEC)
            self._leads[world] = told["leader"] == self.name

    def leave(self) -> None:
        for world in self._leads:
            with suppress(ApiError, Away):
                self._client.beat(world, self.name, 0.0)


def _ticked(client: Client, world: str) -> list[Action]:
    """Every action of every page, each once: pages may shift while another loop works."""
    found: dict[str, Action] = {}
    for page in client.tick_pages(world, limit=ACTIONS_MAX):
        if page.get("schema_version") != SCHEMA_VERSION:
            raise ApiError(200, "Not a tick that this loop can read", str(page)[:SHOWN_CHARS_MAX])
        found |= {_key(action): action for action in page["actions"]}
    return list(found.values())


def _round(
    client: Client,
    todo: list[Action],
    report: Report,
    tried: set[str],
    dry_run: bool,
    on_outcome: OnOutcome,
) -> None:
    unanswered = 0
    for action in todo:
        if dry_run:
            outcome = Outcome(action, "planned", str(action["reason"]))
        else:
            try:
                outcome = _executed(client, action)
                unanswered = 0
            except Away as error:
                outcome = Outcome(action, "failed", str(error))
                unanswered += 1
        if outcome.what in ("failed", "blocked"):
            tried.add(_key(action))
        report.count(outcome)
        report.left -= 1
        on_outcome(outcome, report.left)
        if unanswered == AWAY_MAX:
            report.away = True
            return


def _executed(client: Client, action: Action) -> Outcome:
    try:
        told = client.execute(action)
    except ApiError as error:
        applies = action["action"] == "auto_apply_live"
        blocked = applies and error.status == BLOCKED_STATUS
        return Outcome(action, "blocked" if blocked else "failed", _why(error))
    if action["action"] == "auto_apply_live" and told.get("blocked"):
        refused = told["blocked"]
        why = "; ".join(", ".join(map(str, each["reasons"])) for each in refused)
        return Outcome(action, "blocked", why)
    return Outcome(action, "executed")


def _unknown(actions: list[Action], tried: set[str]) -> list[str]:
    """A sentence for each action that this loop cannot do, the first time it is seen."""
    known = EXECUTABLE | FOR_PEOPLE
    strange = [a for a in actions if a["action"] not in known and _key(a) not in tried]
    tried.update(map(_key, strange))
    return [f"{_name(action)}: this loop does not know how" for action in strange]


def _why(error: ApiError) -> str:
    return "; ".join(error.details or error.reasons) or str(error)


def _key(action: Mapping[str, Any]) -> str:
    return str(action["idempotency_key"])


def _name(action: Mapping[str, Any]) -> str:
    return f"{action['action']} {action['strategy_id'] or 'cohort'}"
