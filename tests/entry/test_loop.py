"""The campaign loop: against a world that is a table, and (below) against the real one."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.entry import loop
from qmtl.entry.loop import AWAY_MAX, ROUNDS_MAX, Outcome, Report, run_forever, run_once
from tests import campaigns
from tests.servers import served

WORLD = "w"


def action(kind: str, strategy: str | None, run: str, **changes: Any) -> dict[str, Any]:
    verb = {
        "auto_apply_live": "promotions/live/auto-apply",
        "evaluate_cohort": "evaluate-cohort",
        "manual_approval_required": "promotions/live/approve",
    }.get(kind, "evaluate")
    return {
        "action": kind,
        "reason": "new evidence",
        "strategy_id": strategy,
        "stage": "paper",
        "idempotency_key": f"{kind}:{WORLD}:{strategy or '*'}:paper:{run}",
        "requires": [],
        "suggested_run_id": run,
        "suggested_method": "POST",
        "suggested_endpoint": f"/worlds/{WORLD}/{verb}",
        "suggested_params": {},
        "suggested_body": {"strategy_id": strategy, "run_id": run},
        **changes,
    }


Answer = Callable[[], httpx.Response]


@dataclass
class Table:
    """A world that recommends, of each strategy, the next of its steps until it was executed.

    `refusing` says how a strategy's step is refused; a refused step is still recommended.
    """

    steps: dict[str, list[str]]  # Of each strategy: the kinds of action still to come.
    refusing: dict[str, Answer] = field(default_factory=dict)
    page: int = 1_000
    waiting: list[dict[str, Any]] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    ticks: int = 0
    led_by: Callable[[Any], Any] = lambda beat: {"leader": beat["loop"]}
    on_execute: Callable[["Table"], None] = lambda table: None

    def actions(self) -> list[dict[str, Any]]:
        due = [
            action(kinds[0], strategy, f"run-{len(kinds)}")
            for strategy, kinds in sorted(self.steps.items())
            if kinds
        ]
        return [*self.waiting, *due]

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/campaign/loops"):
            return httpx.Response(200, json=self.led_by(json.loads(request.content)))
        if request.url.path.endswith("/campaign/tick"):
            self.ticks += 1
            start = int(request.url.params.get("cursor", 0))
            found = self.actions()
            end = min(start + self.page, len(found))
            following = str(end) if end < len(found) else None
            page = {"schema_version": 1, "actions": found[start:end], "next_cursor": following}
            return httpx.Response(200, json=page)
        body = json.loads(request.content)
        strategy, run = body["strategy_id"], body["run_id"]
        self.on_execute(self)
        refusal = self.refusing.get(strategy)
        if refusal is not None:
            return refusal()
        self.executed.append(f"{strategy}:{run}")
        if self.steps[strategy] and run == f"run-{len(self.steps[strategy])}":
            self.steps[strategy].pop(0)
        return httpx.Response(200, json={})

    def client(self) -> Client:
        transport = httpx.MockTransport(self.handle)
        return Client("http://world.test", "t", transport=transport, sleep=lambda sec: None)


def refused(status: int, *reasons: str) -> Answer:
    return lambda: httpx.Response(status, json={"title": "no", "reasons": list(reasons)})


def unanswered() -> httpx.Response:
    raise httpx.ConnectError("refused")


def many(count: int, *kinds: str) -> dict[str, list[str]]:
    return {f"s{number:03}": list(kinds or ("evaluate",)) for number in range(count)}


# ---- One turn --------------------------------------------------------------------------------


def test_a_turn_goes_on_until_nothing_is_left() -> None:
    table = Table(many(3, "evaluate", "evaluate", "auto_apply_live", "observe_live"))
    report = run_once(table.client(), WORLD)
    assert (report.executed, report.failed, report.left, report.rounds) == (12, 0, 0, 4)
    assert report.ok
    assert not any(table.steps.values())


def test_a_second_turn_has_nothing_to_do() -> None:
    table = Table(many(3))
    run_once(table.client(), WORLD)
    assert run_once(table.client(), WORLD) == Report()


def test_every_page_is_executed_in_one_round() -> None:
    table = Table(many(25), page=4)
    report = run_once(table.client(), WORLD)
    assert (report.executed, report.rounds) == (25, 1)
    assert sorted(table.executed) == sorted(f"{sid}:run-1" for sid in table.steps)


def test_a_dry_run_executes_nothing() -> None:
    table = Table(many(5))
    report = run_once(table.client(), WORLD, dry_run=True)
    assert (report.planned, report.executed, table.executed) == (5, 0, [])
    assert report.ok


def test_what_waits_for_people_is_reported_and_left_to_them() -> None:
    asked = action("manual_approval_required", "s", "r")
    table = Table(many(1), waiting=[asked])
    report = run_once(table.client(), WORLD)
    assert (report.waiting, report.executed, report.ok) == ([asked], 1, True)
    assert table.executed == ["s000:run-1"]


def test_an_action_that_nobody_knows_is_said_once_and_not_done() -> None:
    table = Table(many(2, "evaluate", "evaluate"), waiting=[action("sell_everything", "s", "r")])
    report = run_once(table.client(), WORLD)
    assert report.errors == ["sell_everything s: this loop does not know how"]
    assert (report.executed, report.ok) == (4, False)


# ---- Errors ----------------------------------------------------------------------------------

FAILURES: list[tuple[str, Answer, str]] = [
    ("invalid", refused(422), "no"),
    ("a bug of the server", refused(500), "no"),
    ("forbidden", refused(403), "no"),
    ("an html page", lambda: httpx.Response(200, text="<html>"), "Not an answer of qmtl"),
    ("no answer", unanswered, "does not answer"),
    ("busy", lambda: httpx.Response(503, headers={"Retry-After": "0"}), "cannot work now"),
]


@pytest.mark.parametrize(("name", "answer", "says"), FAILURES, ids=[case[0] for case in FAILURES])
def test_an_error_is_counted_and_stops_nobody_else(name: str, answer: Answer, says: str) -> None:
    table = Table(many(5, "evaluate", "evaluate"), refusing={"s002": answer})
    report = run_once(table.client(), WORLD)
    assert (report.executed, report.failed, report.left) == (8, 1, 0)
    assert len(report.errors) == 1
    assert report.errors[0].startswith("evaluate s002: ")
    assert says in report.errors[0]
    assert not report.ok


def test_a_closed_gate_is_blocked_and_no_failure() -> None:
    gate = refused(409, "cooldown_active", "held")
    table = Table(many(3, "auto_apply_live"), refusing={"s001": gate})
    report = run_once(table.client(), WORLD)
    assert (report.executed, report.blocked, report.failed) == (2, 1, 0)
    assert report.blocks == ["auto_apply_live s001: cooldown_active; held"]
    assert report.ok


def test_a_gate_may_be_found_closed_in_an_answer() -> None:
    told = {"applied": [], "blocked": [{"strategy_id": "s000", "reasons": ["held"]}]}
    table = Table(
        many(1, "auto_apply_live"), refusing={"s000": lambda: httpx.Response(200, json=told)}
    )
    report = run_once(table.client(), WORLD)
    assert (report.executed, report.blocked) == (0, 1)
    assert report.blocks == ["auto_apply_live s000: held"]


def test_a_conflict_of_an_evaluation_is_a_failure() -> None:
    table = Table(many(1), refusing={"s000": refused(409)})
    assert run_once(table.client(), WORLD).failed == 1


def test_a_world_that_goes_away_ends_the_turn() -> None:
    table = Table(many(10), refusing=dict.fromkeys(many(10), unanswered))
    report = run_once(table.client(), WORLD)
    assert (report.failed, report.left, report.away) == (AWAY_MAX, 10 - AWAY_MAX, True)
    assert not report.ok


def test_a_world_that_answers_every_other_time_is_not_away() -> None:
    silent = [f"s{number:03}" for number in range(1, 10, 2)]
    table = Table(many(10), refusing=dict.fromkeys(silent, unanswered))
    report = run_once(table.client(), WORLD)
    assert (report.executed, report.failed, report.left, report.away) == (5, 5, 0, False)


def test_a_world_that_goes_away_before_the_second_tick_ends_the_turn() -> None:
    table = Table(many(1, "evaluate", "evaluate"))
    ticked = table.handle

    def handle(request: httpx.Request) -> httpx.Response:
        return unanswered() if table.ticks and "tick" in request.url.path else ticked(request)

    report = run_once(Client("http://w.test", "t", transport=httpx.MockTransport(handle)), WORLD)
    assert (report.executed, report.away, report.ok) == (1, True, False)


@pytest.mark.parametrize(("answer", "error"), [(refused(404), ApiError), (unanswered, Away)])
def test_a_first_tick_that_fails_is_raised(answer: Answer, error: type[Exception]) -> None:
    transport = httpx.MockTransport(lambda request: answer())
    with pytest.raises(error):
        run_once(Client("http://w.test", "t", transport=transport), WORLD)


def test_a_tick_of_another_schema_is_not_guessed_at() -> None:
    page = {"schema_version": 2, "actions": [{"do": "something"}], "next_cursor": None}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=page))
    with pytest.raises(ApiError, match="Not a tick"):
        run_once(Client("http://w.test", "t", transport=transport), WORLD)


def test_a_world_that_never_rests_is_left_and_said_to_be() -> None:
    def again(table: Table) -> None:
        table.steps["s000"].append("evaluate")

    table = Table(many(1), on_execute=again)
    report = run_once(table.client(), WORLD)
    assert (report.executed, report.rounds, report.left) == (ROUNDS_MAX, ROUNDS_MAX, 1)
    assert report.errors == [f"left after {ROUNDS_MAX} rounds: 1 action"]


def test_a_report_counts_more_than_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ERRORS_TOLD_MAX", 2)
    table = Table(many(5), refusing=dict.fromkeys(many(5), refused(422)))
    report = run_once(table.client(), WORLD)
    assert (report.failed, len(report.errors)) == (5, 2)


def test_progress_is_told_action_by_action() -> None:
    told: list[tuple[str, int]] = []

    def shown(outcome: Outcome, left: int) -> None:
        told.append((outcome.what, left))

    table = Table(many(3), refusing={"s001": refused(422)})
    run_once(table.client(), WORLD, on_outcome=shown)
    assert told == [("executed", 2), ("failed", 1), ("executed", 0)]


# ---- For ever --------------------------------------------------------------------------------


def turns(client: Client, count: int) -> list[Report]:
    """The reports of so many turns, without a wait between them."""
    reports: list[Report] = []
    stop = threading.Event()

    def on_report(world: str, report: Report) -> None:
        reports.append(report)
        if len(reports) == count:
            stop.set()

    run_forever(client, lambda: [WORLD], 0.0, on_report, stop)
    return reports


def test_it_outlives_a_world_that_is_away_or_broken() -> None:
    table = Table(many(1))
    trouble = [unanswered, refused(500), refused(429), None]

    def handle(request: httpx.Request) -> httpx.Response:
        answer = trouble.pop(0) if trouble else None
        return table.handle(request) if answer is None else answer()

    client = Client("http://w.test", "t", transport=httpx.MockTransport(handle))
    reports = turns(client, 5)
    assert [report.ok for report in reports] == [False, False, False, True, True]
    assert [report.away for report in reports] == [True, False, False, False, False]
    assert table.executed == ["s000:run-1"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_it_ends_when_the_world_refuses_to_be_asked(status: int) -> None:
    transport = httpx.MockTransport(lambda request: refused(status)())
    with pytest.raises(ApiError):
        turns(Client("http://w.test", "t", transport=transport), 2)


def test_a_loop_that_is_stopped_does_not_begin() -> None:
    stop, table = threading.Event(), Table(many(1))
    stop.set()
    run_forever(table.client(), lambda: [WORLD], 60.0, lambda world, report: None, stop)
    assert table.ticks == 0


def test_a_loop_that_does_not_lead_leaves_the_work_to_who_does() -> None:
    beats: list[Any] = []
    stop = threading.Event()

    def led_by(beat: Any) -> Any:
        beats.append(beat)
        if len(beats) == 3:
            stop.set()
        return {"leader": "another"}

    table = Table(many(1), led_by=led_by)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "BEAT_SEC", 0.0)
        run_forever(table.client(), lambda: [WORLD], 0.0, lambda world, report: None, stop)
    assert table.ticks == 0
    assert [beat["ttl_sec"] for beat in beats] == [15.0, 15.0, 15.0, 0.0], "at last it goes"
    assert len({beat["loop"] for beat in beats}) == 1


def test_a_long_turn_keeps_its_place_and_a_stop_ends_it() -> None:
    stop, beats = threading.Event(), []

    def led_by(beat: Any) -> Any:
        beats.append(len(table.executed))
        return {"leader": beat["loop"]}

    table = Table(many(9), led_by=led_by)
    table.on_execute = lambda table: stop.set() if len(table.executed) == 4 else None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "BEAT_SEC", 0.0)
        run_forever(table.client(), lambda: [WORLD], 60.0, lambda world, report: None, stop)
    assert beats == [0, 1, 2, 3, 4, 5]
    assert len(table.executed) == 5, "what was begun is ended; the rest is recommended again"


# ---- The real world --------------------------------------------------------------------------

COUNT = 24
WORLDS = ("alone", "together", "killed", "stubborn")
KILLS = 6


@dataclass(frozen=True, slots=True)
class Real:
    """A real server whose worlds all have the same to do."""

    url: str
    token: str

    def client(self) -> Client:
        return Client(self.url, self.token)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    data = tmp_path_factory.mktemp("data")
    at = campaigns.stamp(campaigns.BEGAN)
    with served(data, "--clock", "replay", "--at", at) as server:
        with Client(server.url, server.token) as client:
            for world in WORLDS:
                campaigns.begin(client, world, COUNT)
            campaigns.month_of_paper(client, dict.fromkeys(WORLDS, COUNT))
        yield Real(server.url, server.token)
        assert server.process.stdout is not None
    server.process.stdout.close()


@pytest.fixture(scope="module")
def alone(real: Real) -> Counter[str]:
    """What happens when one loop runs undisturbed."""
    with real.client() as client:
        report = run_once(client, "alone")
        assert (report.executed, report.failed, report.blocked) == (2 * COUNT, 0, 0)
        assert run_once(client, "alone").executed == 0, "nothing new, nothing to do"
        assert {e["effective_mode"] for e in client.decide("alone")} == {"live"}
        return campaigns.happened(client, "alone")


def test_two_loops_at_once_have_the_effect_of_one(real: Real, alone: Counter[str]) -> None:
    def turn(_number: int) -> Report:
        with real.client() as client:
            return run_once(client, "together")

    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(turn, range(3)))
    assert [report.errors for report in reports] == [[], [], []]
    assert sum(report.executed for report in reports) >= 2 * COUNT
    with real.client() as client:
        assert campaigns.happened(client, "together") == alone


DYING = """
import os, signal, sys, threading
from qmtl.adapters.client import Client
from qmtl.entry.loop import run_once

left, when, send = int(sys.argv[1]), sys.argv[2], Client.send

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying(client, *args, **options):
    global left
    left -= 1
    if left == 0 and when == "before":
        die()
    if left == 0 and when == "during":
        threading.Timer(0.001, die).start()
    told = send(client, *args, **options)
    if left == 0:
        die()
    return told

Client.send = dying
run_once(Client(), "killed")
"""


def test_a_loop_that_is_killed_anywhere_is_gone_on_with(real: Real, alone: Counter[str]) -> None:
    """SIGKILL before, during or after a request drawn anew each time; then one whole turn."""
    drawn = random.Random(20240101)
    environment = {**os.environ, "QMTL_URL": real.url, "QMTL_TOKEN": real.token}
    for kill in range(KILLS):
        when = ("before", "during", "after")[kill % 3]
        point = drawn.randrange(2, 2 * COUNT // KILLS)  # The first request is the tick.
        command = [sys.executable, "-c", DYING, str(point), when]
        killed = subprocess.run(command, env=environment, check=False, timeout=60)
        assert killed.returncode == -signal.SIGKILL
    with real.client() as client:
        report = run_once(client, "killed")
        assert report.ok
        assert 0 < report.executed < 2 * COUNT
        assert campaigns.happened(client, "killed") == alone


def test_a_loop_goes_on_past_what_fails(
    real: Real, alone: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One strategy's requests never arrive; all others are brought as far as ever."""
    execute = Client.execute

    def fails_for_one(client: Client, action: dict[str, Any]) -> Any:
        if action["strategy_id"] == "s07":
            raise Away("the line is dead")
        return execute(client, action)

    with real.client() as client:
        with monkeypatch.context() as patched:
            patched.setattr(Client, "execute", fails_for_one)
            report = run_once(client, "stubborn")
        assert (report.executed, report.failed) == (2 * (COUNT - 1), 1)
        assert report.errors == ["evaluate s07: the line is dead"]
        assert run_once(client, "stubborn").executed == 2
        assert campaigns.happened(client, "stubborn") == alone


def test_loops_share_out_the_worlds_and_take_over(
    real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three loops of four worlds; one falls silent, as one that was killed does."""
    monkeypatch.setattr(loop, "LEAD_SEC", 1.0)
    monkeypatch.setattr(loop, "BEAT_SEC", 0.1)
    monkeypatch.setattr(loop.Place, "leave", lambda place: None)
    stops = [threading.Event() for _ in range(3)]
    turned: list[tuple[int, str, float]] = []

    def one(number: int) -> None:
        def on_report(world: str, report: Report) -> None:
            assert report.ok, report.errors
            turned.append((number, world, time.monotonic()))

        with real.client() as client:
            run_forever(client, lambda: list(WORLDS), 0.05, on_report, stops[number])

    def leaders(since: float, until: float) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {world: set() for world in WORLDS}
        for number, world, at in turned:
            if since < at < until:
                found[world].add(number)
        return found

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(one, number) for number in range(3)]
        time.sleep(1.5)
        settled = time.monotonic()
        time.sleep(1.0)
        before = leaders(settled, time.monotonic())
        gone = next(iter(before[WORLDS[0]]))
        stops[gone].set()
        running[gone].result()
        time.sleep(1.5)  # Its term is over by then.
        taken = time.monotonic()
        time.sleep(1.0)
        for stop in stops:
            stop.set()
        for each in running:
            each.result()
    after = leaders(taken, math.inf)
    assert all(len(who) == 1 for who in [*before.values(), *after.values()]), (before, after)
    assert gone not in set().union(*after.values())
    kept = [world for world in WORLDS if before[world] != {gone}]
    assert all(after[world] == before[world] for world in kept), "only what it led moves"
