"""Everybody who works on one world: an author, a producer, approvers, an operator.

Each of their writes carries an Idempotency-Key, and is sent until it is answered, to one server and
then to the other.  What was acknowledged is written down, by the words that the journal has for it.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import numpy as np

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.core.campaign import ACTIONS_MAX
from qmtl.core.times import rfc3339
from qmtl.entry.loop import EXECUTABLE, FOR_PEOPLE
from tests.campaigns import BEGAN

Name = tuple[str, str]  # Of a fact: its kind, and what tells it from others of its kind.

BACKTEST_DAYS = 150
TTL_SEC = 86_400
PATIENCE_SEC = 120.0  # Longer than anything is gone, by far: beyond it a human would be called.
AGAIN_SEC = 0.1
LOOK_SEC = 0.2
BREAKS_EVERY = 7  # One strategy of so many falls apart on some day of its own.
KILLS, RESUME_AFTER = 4, 2  # In all the days; and days.
DEMOTIONS, RELEASE_AFTER = 10, 3
PEOPLES = {"manual_approval_required", "approvals_insufficient", "approval_expired", "cleared"}
POLICY = """
version: 1
campaign:
  backtest: {window: 100d, min_observations: 100}
  paper: {window: WINDOWd, min_observations: WINDOW}
  evaluate_every: EVERYd
gates:
  paper: {sharpe_annual: {min: 0.5}}
  live: {max_drawdown: {max: 0.10}}
evidence: none
governance:
  live_promotion:
    MODE
    cooldown: 0s
    max_live_slots: 30
    ramp: [{fraction: 0.5}, {fraction: 1.0, observe: WINDOWd}]
"""
WINDOW_DAYS = (3, 20)
WINDOWS = 12  # In all the days; a short soak has shorter ones.
LOOKS = 4  # In a window.
MODES = (
    "mode: auto_apply",
    "mode: manual_approval\n    approvers: {roles: [approver], min: 2, expires: 30d}",
)


class NobodyAnswers(AssertionError):
    """What a human would be called for."""


@dataclass
class Staff:
    """Clients by actor, one for each server; and the credentials."""

    clients: dict[str, tuple[Client, ...]]
    tokens: dict[str, str]

    @classmethod
    def hired(cls, admins: tuple[Client, ...]) -> "Staff":
        """Everybody, with a credential of their own."""
        tokens = {
            actor: admins[0].create_token(actor=actor, roles=[role])["token"]
            for actor, role in ROLES.items()
        }
        clients = {
            actor: tuple(Client(each.url, token) for each in admins)
            for actor, token in tokens.items()
        }
        return cls({"admin": admins, **clients}, tokens)

    def close(self) -> None:
        for clients in self.clients.values():
            for client in clients:
                client.close()


ROLES = {
    "ana": "author",
    "desk": "producer",
    "olga": "operator",
    "rita": "approver",
    "omar": "approver",
    "loop": "operator",
    "nina": "reader",
}
OPERATOR, APPROVERS = "olga", ("rita", "omar")


@dataclass
class Desk:
    """One world, and what was acknowledged to those who work on it.

    written    facts that were acknowledged, by name
    again      requests that were sent again
    longest    seconds that a request took until it was answered, the longest
    """

    world: str
    strategies: list[str]
    days: int
    seed: int
    staff: Staff
    written: Counter[Name] = field(default_factory=Counter)
    requests: int = 0
    again: int = 0
    longest: float = 0.0

    def __post_init__(self) -> None:
        self._chance = Random(f"{self.seed} {self.world}")
        self._returns = {
            sid: series(self.seed, sid, BACKTEST_DAYS + self.days) for sid in self.strategies
        }
        self._held: dict[int, list[str]] = {}  # Who is to be released, by day.
        self._killed = False
        self._kill_every = max(self.days // KILLS, RESUME_AFTER + 2)
        self._demote_every = max(self.days // DEMOTIONS, 2)
        self._first = self._chance.randrange(self._kill_every)

    # ---- Asking ------------------------------------------------------------------------------

    def asked(self, actor: str, method: str, path: str, *, keyed: bool = True, **sent: Any) -> Any:
        """The answer of whichever server has one.  Raises ApiError, NobodyAnswers."""
        self.requests += 1
        key = {"idempotency_key": f"{self.world}-{self.requests}"} if keyed else {}
        began, first = time.monotonic(), self._chance.randrange(2)
        number = 0
        while True:
            client = self.staff.clients[actor][(first + number) % 2]
            try:
                told = client.send(method, path, **key, **sent)
                break
            except Away as error:
                if time.monotonic() - began > PATIENCE_SEC:
                    raise NobodyAnswers(f"{method} {path}: {error}") from error
                number, self.again = number + 1, self.again + 1
                time.sleep(AGAIN_SEC)
        self.longest = max(self.longest, time.monotonic() - began)
        return told

    def _path(self, *parts: str) -> str:
        return "/" + "/".join(("worlds", self.world, *parts))

    def _posted(self, actor: str, path: str, body: object, *names: Name) -> Any:
        """What was acknowledged is written down."""
        told = self.asked(actor, "POST", path, body=body)
        self.written.update(names)
        return told

    # ---- Beginning ---------------------------------------------------------------------------

    def begin(self, mode: str) -> None:
        self.asked("admin", "POST", "/worlds", body={"id": self.world, "allow_live": True})
        policy, headers = policy_of(mode, self.days), {"Content-Type": "application/yaml"}
        self.asked("admin", "POST", self._path("policies"), content=policy, headers=headers)

    def submit(self) -> Iterator[str]:
        """Every strategy with its backtest; yields each that is there."""
        times = [
            rfc3339(BEGAN - timedelta(days=BACKTEST_DAYS - day)) for day in range(BACKTEST_DAYS)
        ]
        for sid in self.strategies:
            body = {
                "strategy_id": sid,
                "world": self.world,
                "fingerprint": f"f-{sid}",
                "returns": {"t": times, "r": self._returns[sid][:BACKTEST_DAYS]},
                "variants_tried": 1,
            }
            self._posted(
                "ana", "/strategies", body, ("strategy_bound", sid), ("backtest_stored", sid)
            )
            yield sid

    # ---- A day -------------------------------------------------------------------------------

    def trade(self, day: int, at: datetime) -> None:
        """What each strategy earned, posted to the stage that its decision permits."""
        decided = self._decided()
        by_stage: dict[str, dict[str, float]] = {}
        for envelope in decided:
            stage, sid = envelope["effective_mode"], envelope["strategy_id"]
            if stage != "compute-only":
                by_stage.setdefault(stage, {})[sid] = self._returns[sid][BACKTEST_DAYS + day]
        for stage, returns in sorted(by_stage.items()):
            body = {"stage": stage, "t": rfc3339(at), "returns": returns, "ttl_sec": TTL_SEC}
            told = self.asked("desk", "POST", self._path("returns"), body=body)
            self.written["snapshot_stored", told["version"]] += 1

    def _decided(self) -> list[dict[str, Any]]:
        told = self.asked("desk", "GET", self._path("decide"), keyed=False)
        return list(told["decisions"])

    def rule(self, day: int) -> None:
        """An operator's hand: a world is killed and resumed, a strategy demoted and released."""
        since = (day + self._first) % self._kill_every
        reason = {"reason": f"on day {day}"}
        if since == self._kill_every - 1 - RESUME_AFTER:
            self._posted(OPERATOR, self._path("kill"), reason, ("killed", reason["reason"]))
            self._killed = True
        elif self._killed and since == self._kill_every - 1:
            self._killed = False
            self._posted(OPERATOR, self._path("resume"), reason, ("resumed", reason["reason"]))
        elif day % self._demote_every == self._demote_every - 1:
            self._demote(day)
        for sid in self._held.pop(day, ()):
            body = {"strategy_id": sid, **reason}
            path = self._path("promotions", "live", "release")
            self._posted(OPERATOR, path, body, ("hold_released", f"{sid} {reason['reason']}"))

    def _demote(self, day: int) -> None:
        decided = self._decided()
        live = sorted(each["strategy_id"] for each in decided if each["effective_mode"] == "live")
        if live:
            sid = self._chance.choice(live)
            body = {"strategy_id": sid, "to": "paper", "reason": f"on day {day}"}
            self._posted(OPERATOR, self._path("demote"), body, ("demoted", f"{sid} on day {day}"))
            self._held.setdefault(day + RELEASE_AFTER, []).append(sid)

    def settle(self) -> None:
        """Waits until the loops have done what there is to do; people do what waits for people.

        Raises NobodyAnswers when that does not come to its end.
        """
        began, tried = time.monotonic(), set[str]()
        while True:
            actions = self._ticked()
            waits = [
                each
                for each in actions
                if each["action"] in FOR_PEOPLE
                and set(each["reason"].split(", ")) <= PEOPLES
                and f"{each['idempotency_key']} {each['reason']}" not in tried
            ]
            for action in waits:
                tried.add(f"{action['idempotency_key']} {action['reason']}")
                self._govern(action)
            if not waits and not any(each["action"] in EXECUTABLE for each in actions):
                return
            if time.monotonic() - began > PATIENCE_SEC:
                left = [f"{each['action']} {each['strategy_id']}" for each in actions]
                raise NobodyAnswers(f"{self.world}: nobody does {', '.join(left[:5])}")
            if not waits:
                time.sleep(LOOK_SEC)

    def _ticked(self) -> list[dict[str, Any]]:
        """The first page: while it has nothing that a loop can do, no other has."""
        params = {"limit": ACTIONS_MAX}
        path = self._path("campaign", "tick")
        return list(self.asked(OPERATOR, "POST", path, keyed=False, params=params)["actions"])

    def _govern(self, action: dict[str, Any]) -> None:
        sid, run_id = action["strategy_id"], action["suggested_run_id"]
        body = {"strategy_id": sid, "run_id": run_id}
        live = ("promotions", "live")
        try:
            if action["reason"] == "cleared":
                told = self.asked(OPERATOR, "POST", self._path(*live, "apply"), body=body)
                self.written["promotion_applied", f"{told['candidate_id']} {told['run_id']}"] += 1
                return
            for approver in APPROVERS:
                reason = f"looked at, {self.requests}"
                path = self._path(*live, "approve")
                name = ("approval_given", f"{approver} {reason}")
                self._posted(approver, path, {**body, "reason": reason}, name)
        except ApiError as refused:
            if refused.status not in (409, 412):  # The last slot went to another, just before.
                raise


def policy_of(mode: str, days: int) -> str:
    window = min(max(days // WINDOWS, WINDOW_DAYS[0]), WINDOW_DAYS[1])
    told = {"MODE": mode, "WINDOW": str(window), "EVERY": str(max(window // LOOKS, 1))}
    text = POLICY
    for name, value in told.items():
        text = text.replace(name, value)
    return text


def series(seed: int, sid: str, count: int) -> list[float]:
    """Daily returns: good and noisy, better ones and worse; some fall apart on a day."""
    number = int(sid.lstrip("s"))
    chance = np.random.default_rng([seed, number])
    drawn = chance.normal(chance.uniform(0.0, 0.0015), 0.004, count)
    if number % BREAKS_EVERY == BREAKS_EVERY - 1 and count > BACKTEST_DAYS:
        drawn[chance.integers(BACKTEST_DAYS, count)] = -0.2
    return [float(each) for each in drawn.round(6)]
