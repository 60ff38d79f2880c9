"""Commands against a transport that answers as it is told to: shapes, errors, exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qmtl.core.names import Reason, Role, Stage, WorldState
from qmtl.entry.cli import app, output
from qmtl.entry.cli.campaign import STAGE_OF
from qmtl.entry.cli.context import Setting
from qmtl.entry.cli.hub import StageWord
from qmtl.entry.cli.tokens import RoleWord
from qmtl.entry.cli.worlds import State

URL = "http://world.test"
WORLD_JSON = {
    "id": "us",
    "name": "US",
    "description": "",
    "labels": {"desk": "a"},
    "allow_live": False,
    "state": "active",
    "killed": False,
    "default_policy_version": 1,
    "strategies": 2,
    "live": 0,
    "generation": 4,
    "confirmations": [],
    "created_at": "2024-01-01T00:00:00.123456Z",
    "created_by": "admin",
}
CANDIDATE = {
    "strategy_id": "s",
    "run_id": "paper-1",
    "step": 0,
    "standing": "proposed",
    "standing_detail": None,
    "evidence_digest": "e1",
    "approvals": [],
    "approvals_needed": 2,
    "approvals_valid": 0,
    "eligible": False,
    "blocked_reasons": ["approvals_insufficient"],
}
STANDING = {"strategy_id": "s", "phase": "paper_campaign", "held": True, "extension_sec": 0.0}
ACTIVATION = {"strategy_id": "s", "active": True, "weight": 0.1, "step": 0, "run_id": "paper-1"}
WINDOW = {
    "window": "60d",
    "required_sec": 5_184_000.0,
    "observed_sec": 2_592_000.0,
    "observations": 21,
    "required_observations": 40,
    "progress": 0.5,
    "satisfied": False,
}
STATUS = {
    "strategy_id": "s",
    "phase": "paper_campaign",
    "entered_at": None,
    "held": False,
    "latest_backtest_run_id": "backtest-1",
    "latest_paper_run_id": None,
    "latest_live_run_id": None,
    "backtest": WINDOW,
    "paper": WINDOW,
    "live": WINDOW,
    "metrics": {"sharpe": 1.25, "max_drawdown": 0.1},
    "reasons": ["paper_window_incomplete"],
    "details": ["paper window: 30.0 of 60.0 days observed"],
}
ENVELOPE = {
    "strategy_id": "s",
    "effective_mode": "paper",
    "weight": 0.0,
    "ramp_fraction": 0.0,
    "reasons": ["paper_campaign"],
    "expires_at": "2024-01-01T00:05:00Z",
}
SNAPSHOT = {
    "version": "v1",
    "stage": "paper",
    "as_of": "2024-01-01T00:00:00Z",
    "expires_at": "2024-01-01T00:15:00Z",
    "seq": 3,
    "actor": "desk",
    "strategies": ["s"],
}
TOKEN = {
    "token_id": "ab" * 32,
    "actor": "ana",
    "roles": ["author"],
    "world_id": None,
    "expires_at": None,
    "created_at": "2024-01-01T00:00:00Z",
    "created_by": "adam",
    "rotated_at": None,
    "replaced_until": None,
    "confirmed": False,
}
ENTRY = {"seq": 1, "at": "2024-01-01T00:00:00Z", "actor": "a", "kind": "killed", "fact": {"x": 1}}
POLICY = {"version": 1, "default": True, "created_at": "2024-01-01T00:00:00Z", "checksum": "c"}
ADDED = {"version": 2, "checksum": "c", "warnings": ["w"], "default": False}
EXPLANATION = {
    "world_id": "us",
    "strategy_id": "s",
    "as_of": "2024-01-01T00:00:00Z",
    "phase": "paper_campaign",
    "since": "2024-01-01T00:00:00Z",
    "sentences": ["s is on paper.", "It may trade.", "It needs time.", "Then it goes.", "A loss."],
    "waits_for": [{"reason": "x", "sentence": "It needs time.", "share": 0.5, "reached_at": None}],
    "would_stop": ["A loss."],
}
TICK = {"schema_version": 1, "world_id": "us", "actions": [], "next_cursor": None}
OLD = {
    "seq": 7,
    "version": "v1",
    "stage": "paper",
    "stored_at": "2024-01-01T00:00:00Z",
    "parts": ["covariance", "stats"],
    "held": [],
}
SURVEY = {
    "world_id": "us",
    "stored_before": "2024-01-02T00:00:00Z",
    "removable": [OLD],
    "held": [{**OLD, "seq": 8, "version": "v2", "held": ["run r1 of s was judged by it"]}],
}
PENDING = {"confirmation_id": "1f", "what": "resume", "detail": "two people"}

ANSWERS: dict[str, Any] = {
    "GET /worlds": {"worlds": [WORLD_JSON], "next_cursor": None},
    "POST /worlds": WORLD_JSON,
    "GET /worlds/us": WORLD_JSON,
    "PATCH /worlds/us": WORLD_JSON,
    "POST /worlds/us/kill": WORLD_JSON,
    "POST /worlds/us/resume": PENDING,
    "POST /worlds/us/confirmations/1f": {"what": "resume", "by": "rita"},
    "GET /worlds/us/policies": {"policies": [POLICY], "next_cursor": None},
    "POST /worlds/us/policies": ADDED,
    "POST /worlds/us/set-default": {"world_id": "us", "version": 2},
    "POST /worlds/us/strategies/s/extend": STANDING,
    "GET /worlds/us/campaign/status": {"strategies": [STATUS]},
    "GET /worlds/us/strategies/s/explain": EXPLANATION,
    "POST /worlds/us/campaign/tick": TICK,
    "GET /worlds/us/decide": {"decisions": [ENVELOPE], **ENVELOPE},
    "GET /worlds/us/promotions/live/candidates": {"candidates": [CANDIDATE], "next_cursor": None},
    "GET /worlds/us/promotions/live/plan": {"strategy_id": "s", "details": ["why"]},
    "POST /worlds/us/promotions/live/approve": {**CANDIDATE, "approvals": [{"by": "rita"}]},
    "DELETE /worlds/us/promotions/live/approve": CANDIDATE,
    "POST /worlds/us/promotions/live/reject": {**CANDIDATE, "standing_detail": "by rita: no"},
    "POST /worlds/us/promotions/live/release": STANDING,
    "POST /worlds/us/promotions/live/apply": ACTIVATION,
    "POST /worlds/us/demote": STANDING,
    "GET /worlds/us/journal": {"entries": [ENTRY], "next_cursor": None},
    "POST /risk-hub/worlds/us/snapshots": SNAPSHOT,
    "GET /risk-hub/worlds/us/snapshots": {"snapshots": [SNAPSHOT], "next_cursor": None},
    "GET /risk-hub/worlds/us/snapshots/latest": SNAPSHOT,
    "GET /risk-hub/worlds/us/retention": SURVEY,
    "POST /risk-hub/worlds/us/retention": {**SURVEY, "orphans": 2},
    "GET /tokens": {"tokens": [TOKEN], "next_cursor": None},
    "POST /tokens": {**TOKEN, "token": "qmtl_secret"},
    f"DELETE /tokens/{'ab' * 32}": TOKEN,
    f"POST /tokens/{'ab' * 32}/confirm": {**TOKEN, "confirmed": True},
    f"POST /tokens/{'ab' * 32}/rotate": {**TOKEN, "confirmed": True, "token": "qmtl_next"},
    "GET /system/journal": {"entries": [ENTRY], "next_cursor": None},
    "GET /clock": {"now": "2024-01-01T00:00:00Z", "replay": True},
}


@dataclass
class Server:
    """Answers from a table, and remembers what it was asked."""

    answers: dict[str, Any] = field(default_factory=lambda: dict(ANSWERS))
    refusal: Callable[[], httpx.Response] | None = None
    seen: list[httpx.Request] = field(default_factory=list)

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if self.refusal is not None:
            return self.refusal()
        return httpx.Response(200, json=self.answers[f"{request.method} {request.url.path}"])

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Any:
        setting = Setting(transport=httpx.MockTransport(self.handle))
        result = CliRunner().invoke(app, ["--url", URL, *arguments], obj=setting, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    @property
    def body(self) -> Any:
        return json.loads(self.seen[-1].content)


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("QMTL_URL", "QMTL_TOKEN", "QMTL_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QMTL_DATA", str(tmp_path / "no-data"))
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))


# ---- Every command ---------------------------------------------------------------------------

COMMANDS: list[tuple[str, str, dict[str, Any] | None, str]] = [
    ("world create us --name US", "POST /worlds", {"id": "us", "name": "US"}, "US"),
    (
        "world create us --label a=b --allow-live",
        "POST /worlds",
        {"id": "us", "labels": {"a": "b"}, "allow_live": True},
        "us",
    ),
    ("world list", "GET /worlds", None, "active"),
    ("world show us", "GET /worlds/us", None, "2024-01-01T00:00:00Z"),
    ("world set us --allow-live", "PATCH /worlds/us", {"allow_live": True}, "us"),
    ("world set us --no-allow-live", "PATCH /worlds/us", {"allow_live": False}, "us"),
    ("world set us --state suspended", "PATCH /worlds/us", {"state": "suspended"}, "us"),
    ("world confirm us 1f", "POST /worlds/us/confirmations/1f", None, "confirmed: resume"),
    ("world kill us --reason r", "POST /worlds/us/kill", {"reason": "r"}, "us"),
    ("world resume us --reason r", "POST /worlds/us/resume", None, "qmtl world confirm us 1f"),
    ("world status us", "GET /worlds/us/campaign/status", None, "paper_window_incomplete"),
    ("world status us s", "GET /worlds/us/campaign/status", None, "30.0 of 60.0 days"),
    ("explain us s", "GET /worlds/us/strategies/s/explain", None, "  - It needs time."),
    ("world decide us", "GET /worlds/us/decide", None, "paper"),
    ("world decide us s", "GET /worlds/us/decide", None, "effective_mode"),
    ("world tick us", "POST /worlds/us/campaign/tick", None, "nothing to do"),
    ("world campaign-loop us --once", "POST /worlds/us/campaign/tick", None, "nothing to do"),
    ("world campaign-loop us --dry-run", "POST /worlds/us/campaign/tick", None, "nothing to do"),
    (
        "world extend us s --by 90d --reason r",
        "POST /worlds/us/strategies/s/extend",
        {"by": "90d", "reason": "r"},
        "paper_campaign",
    ),
    ("world candidates us", "GET /worlds/us/promotions/live/candidates", None, "0 of 2"),
    ("world plan us s", "GET /worlds/us/promotions/live/plan", None, "why"),
    (
        "world approve us s --reason r",
        "POST /worlds/us/promotions/live/approve",
        {"strategy_id": "s", "run_id": "paper-1", "reason": "r", "evidence_digest": "e1"},
        "approved by rita",
    ),
    (
        "world approve us s paper-9 --reason r",
        "POST /worlds/us/promotions/live/approve",
        {"strategy_id": "s", "run_id": "paper-9", "reason": "r"},
        "rita",
    ),
    ("world withdraw us s", "DELETE /worlds/us/promotions/live/approve", None, "proposed"),
    (
        "world reject us s --reason r",
        "POST /worlds/us/promotions/live/reject",
        {"strategy_id": "s", "run_id": "paper-1", "reason": "r"},
        "by rita: no",
    ),
    (
        "world release us s --reason r",
        "POST /worlds/us/promotions/live/release",
        {"strategy_id": "s", "reason": "r"},
        "held",
    ),
    (
        "world apply us s",
        "POST /worlds/us/promotions/live/apply",
        {"strategy_id": "s", "run_id": "paper-1"},
        "0.1",
    ),
    (
        "world demote us s --reason r",
        "POST /worlds/us/demote",
        {"strategy_id": "s", "to": "paper", "reason": "r"},
        "paper_campaign",
    ),
    ("policy list us", "GET /worlds/us/policies", None, "yes"),
    ("policy set us sandbox", "POST /worlds/us/set-default", {"version": 2}, "warning: w"),
    ("journal list us", "GET /worlds/us/journal", None, "killed"),
    ("hub latest us --stage paper", "GET /risk-hub/worlds/us/snapshots/latest", None, "v1"),
    (
        "hub retain us --older-than 400d --dry-run",
        "GET /risk-hub/worlds/us/retention",
        None,
        "would be removed",
    ),
    (
        "hub retain us --older-than 400d",
        "POST /risk-hub/worlds/us/retention",
        {"older_than": "400d"},
        "2 objects that nothing names, removed",
    ),
    (
        "hub retain us --older-than 400d --orphans-older-than 90d",
        "POST /risk-hub/worlds/us/retention",
        {"older_than": "400d", "orphans_older_than": "90d"},
        "kept: entry 8, v2: run r1 of s was judged by it",
    ),
    ("hub list us", "GET /risk-hub/worlds/us/snapshots", None, "v1"),
    (
        "token create --role author --actor ana --world us --expires 30d",
        "POST /tokens",
        {
            "actor": "ana",
            "roles": ["author"],
            "world_id": "us",
            "expires_at": "2024-01-31T00:00:00Z",
        },
        "qmtl_secret",
    ),
    ("token list", "GET /tokens", None, "ab" * 32),
    ("token list", "GET /tokens", None, "to be confirmed"),
    (f"token revoke {'ab' * 32}", f"DELETE /tokens/{'ab' * 32}", None, "revoked"),
    (f"token confirm {'ab' * 32}", f"POST /tokens/{'ab' * 32}/confirm", None, "ana is author"),
    (f"token rotate {'ab' * 32}", f"POST /tokens/{'ab' * 32}/rotate", {}, "qmtl_next"),
    (
        f"token rotate {'ab' * 32} --overlap 0s",
        f"POST /tokens/{'ab' * 32}/rotate",
        {"overlap": "0s"},
        "qmtl_next",
    ),
    ("journal list _system", "GET /system/journal", None, "killed"),
]


@pytest.mark.parametrize(("command", "route", "body", "says"), COMMANDS, ids=lambda c: str(c)[:40])
def test_each_command_asks_and_tells(
    command: str, route: str, body: dict[str, Any] | None, says: str
) -> None:
    server = Server()
    result = server.run(*command.split())
    last = server.seen[-1]
    assert f"{last.method} {last.url.path}" == route
    assert body is None or server.body == body
    assert says in result.stdout
    assert "\x1b[" not in result.output, "colours are for terminals"


@pytest.mark.parametrize("command", [case[0] for case in COMMANDS], ids=lambda c: str(c)[:40])
def test_each_command_speaks_json(command: str) -> None:
    result = Server().run(*command.split(), "--json")
    assert json.loads(result.stdout)


def test_a_token_that_waits_for_a_second_admin_says_so() -> None:
    result = Server().run("token", "create", "--role", "author", "--actor", "ana")
    assert result.stdout == "qmtl_secret\n", "for a script, it is the token alone"
    assert f"qmtl token confirm {'ab' * 32}" in result.stderr


def test_an_explanation_is_read_under_headings() -> None:
    told = Server().run("explain", "us", "s").stdout
    assert (
        told
        == """s is on paper.

now
  - It may trade.

it waits for
  - It needs time.

then
  - Then it goes.

what would stop it
  - A loss.
"""
    )


def test_in_a_project_the_strategy_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = Server()
    assert "say WORLD STRATEGY, or world in qmtl.toml" in server.run("explain", "s", code=2).stderr
    (tmp_path / "qmtl.toml").write_text('world = "us"\nid = "s"\n')
    assert not server.seen
    for arguments in (("s",), ()):
        assert "It needs time" in server.run("explain", *arguments).stdout
        assert server.seen[-1].url.path == "/worlds/us/strategies/s/explain"


def test_a_snapshot_is_posted_from_a_file_or_from_stdin(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    file.write_text('{"version": "v1"}')
    server = Server()
    server.run("hub", "post", "us", str(file), "--stage", "paper", "--actor", "desk")
    assert server.body == {"version": "v1"}
    assert (server.seen[-1].headers["X-Actor"], server.seen[-1].headers["X-Stage"]) == (
        "desk",
        "paper",
    )
    server.run("hub", "post", "us", "-", "--stage", "live", stdin='{"version": "v2"}')
    assert server.body == {"version": "v2"}


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_what_is_no_snapshot_is_wrong_usage(text: str, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    file.write_text(text)
    server = Server()
    server.run("hub", "post", "us", str(file), "--stage", "paper", code=2)
    assert not server.seen


def test_a_policy_that_takes_two_people_says_so() -> None:
    server = Server()
    server.answers["POST /worlds/us/set-default"] = PENDING
    result = server.run("policy", "set", "us", "sandbox")
    assert "qmtl world confirm us 1f" in result.stdout
    told = json.loads(server.run("policy", "set", "us", "sandbox", "--json").stdout)
    assert (told["default"], told["confirmation_id"]) == (False, "1f")


def test_the_first_policy_is_the_default_already() -> None:
    server = Server()
    server.answers["POST /worlds/us/policies"] = {**ADDED, "default": True}
    server.run("policy", "set", "us", "sandbox")
    assert [request.url.path for request in server.seen] == ["/worlds/us/policies"]


def test_a_json_policy_goes_out_as_json(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"version": 1}')
    server = Server()
    server.run("policy", "set", "us", str(file))
    assert server.seen[0].headers["Content-Type"] == "application/json"
    assert server.seen[0].content == b'{"version": 1}'


# ---- The loop --------------------------------------------------------------------------------


def action(kind: str, endpoint: str) -> dict[str, Any]:
    return {
        "action": kind,
        "reason": "new evidence",
        "strategy_id": "s",
        "stage": "paper",
        "idempotency_key": f"{kind}:us:s:paper:paper-1",
        "suggested_run_id": "paper-1",
        "suggested_method": "POST",
        "suggested_endpoint": endpoint,
        "suggested_params": {},
        "suggested_body": {},
    }


def ticking(*actions: dict[str, Any]) -> Server:
    server = Server()
    server.answers["POST /worlds/us/campaign/tick"] = {**TICK, "actions": list(actions)}
    return server


def test_a_turn_that_fails_is_exit_code_1() -> None:
    server = ticking(action("evaluate", "/worlds/us/evaluate"))
    handle = server.handle

    def refusing(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/evaluate"):
            return httpx.Response(422, json={"title": "The request does not validate."})
        return handle(request)

    server.handle = refusing  # type: ignore[method-assign]  # One request of it is refused.
    result = server.run("world", "campaign-loop", "us", "--once", code=1)
    assert "1 failed" in result.stdout
    assert "does not validate" in result.stderr
    told = json.loads(server.run("world", "campaign-loop", "us", "--once", "--json", code=1).stdout)
    assert (told["failed"], told["ok"]) == (1, False)


def test_what_waits_for_people_is_said_as_a_command() -> None:
    live = "/worlds/us/promotions/live"
    server = ticking(
        action("manual_approval_required", f"{live}/approve"),
        {**action("manual_approval_required", f"{live}/apply"), "idempotency_key": "k2"},
    )
    result = server.run("world", "campaign-loop", "us", "--once")
    assert "qmtl world approve us s paper-1 --reason ..." in result.stdout
    assert "qmtl world apply us s paper-1\n" in result.stdout


def test_a_terminal_sees_progress_and_scripts_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    server = ticking(action("evaluate", "/worlds/us/evaluate"))
    handle = server.handle

    def once(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/evaluate"):
            done.append("s")
            server.answers["POST /worlds/us/campaign/tick"] = TICK
            return httpx.Response(200, json={})
        return handle(request)

    server.handle = once  # type: ignore[method-assign]  # It rests after one action.
    assert server.run("world", "campaign-loop", "us", "--once").stderr == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    server.answers.update(ticking(action("evaluate", "/worlds/us/evaluate")).answers)
    assert "\x1b[" in server.run("world", "campaign-loop", "us", "--once").stderr
    assert done == ["s", "s"]


def test_a_loop_without_end_says_a_turn_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends here because the world refuses to be asked a third time."""
    server = ticking(action("manual_approval_required", "/worlds/us/promotions/live/approve"))
    handle, turns = server.handle, [1, 2]

    def twice(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/campaign/loops"):
            return httpx.Response(200, json={"leader": json.loads(request.content)["loop"]})
        return handle(request) if turns and turns.pop() else problem(401)()

    server.handle = twice  # type: ignore[method-assign]  # Two turns, and no more.
    loop = ("world", "campaign-loop", "us", "--json", "--interval", "1s")
    now = iter(range(0, 1_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout: False)
    told = server.run(*loop, code=1).stdout.splitlines()
    assert [len(json.loads(line)["waiting"]) for line in told] == [1, 1]


@pytest.mark.parametrize("words", [(), ("us", "--all"), ("--all", "--once")])
def test_a_loop_is_of_one_world_or_of_all(words: tuple[str, ...]) -> None:
    server = Server()
    assert "--all" in server.run("world", "campaign-loop", *words, code=2).stderr
    assert not server.seen


def test_a_loop_of_all_worlds_says_which_each_turn_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ticking(action("manual_approval_required", "/worlds/us/promotions/live/approve"))
    handle, asked = server.handle, list[str]()

    def of_two(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path == "/worlds":
            known = [{"id": "us"}, {"id": "eu"}]
            return httpx.Response(200, json={"worlds": known, "next_cursor": None})
        if request.url.path.endswith("/campaign/loops"):
            us = "/us/" in request.url.path
            told = json.loads(request.content)["loop"] if us else "another"
            return httpx.Response(200, json={"leader": told})
        return handle(request) if asked.count("/worlds/us/campaign/tick") < 2 else problem(401)()

    server.handle = of_two  # type: ignore[method-assign]  # Of two worlds it leads one.
    now = iter(range(0, 1_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout: False)
    told = server.run("world", "campaign-loop", "--all", "--interval", "1s", code=1).stdout
    assert told == "us: 1 waiting for people\n"
    assert not any("/eu/campaign/tick" in path for path in asked)


def test_a_dry_run_says_what_it_would_do() -> None:
    server = ticking(action("evaluate", "/worlds/us/evaluate"))
    result = server.run("world", "campaign-loop", "us", "--dry-run")
    assert "1 planned" in result.stdout
    assert {request.url.path for request in server.seen} == {"/worlds/us/campaign/tick"}


def test_a_turn_without_a_world_is_exit_code_3() -> None:
    Server(refusal=unanswered).run("world", "campaign-loop", "us", "--once", code=3)


@pytest.mark.parametrize("interval", ["0s", "soon", "60", "-1s", "1.5h"])
def test_an_interval_that_is_none_is_wrong_usage(interval: str) -> None:
    server = Server()
    server.run("world", "campaign-loop", "us", f"--interval={interval}", code=2)
    assert not server.seen


# ---- Errors ----------------------------------------------------------------------------------


def unanswered() -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def problem(status: int, *reasons: str, kind: str = "") -> Callable[[], httpx.Response]:
    told = {
        "type": f"urn:qmtl:problem:{kind}" if kind else "about:blank",
        "title": "The promotion is blocked.",
        "status": status,
        "detail": "it is so",
        "reasons": list(reasons),
        "details": ["it is so", "and so"],
    }
    return lambda: httpx.Response(status, json=told)


REFUSALS: list[tuple[Callable[[], httpx.Response], int, str]] = [
    (problem(409, "live_not_allowed", "held"), 1, "qmtl world set us --allow-live"),
    (problem(409, "cooldown_active", "held"), 1, "qmtl world release us s --reason ..."),
    (problem(409, "approvals_insufficient"), 1, "qmtl world approve us s --reason ..."),
    (problem(409, "risk_snapshot_expired"), 1, "qmtl hub latest us"),
    (problem(404, kind="unknown-world"), 1, "qmtl world list"),
    (problem(404, kind="unknown-strategy"), 1, "qmtl world status us"),
    (problem(401), 1, "QMTL_TOKEN"),
    (problem(404), 1, "qmtl doctor"),
    (problem(500), 1, "qmtl doctor"),
    (lambda: httpx.Response(200, text="<html>"), 1, "qmtl doctor"),
    (problem(403), 1, "qmtl token create"),
    (unanswered, 3, "qmtl serve"),
    (lambda: httpx.Response(503, json={"title": "Busy"}), 3, "qmtl serve"),
]


@pytest.mark.parametrize(("refusal", "code", "next_"), REFUSALS)
def test_an_error_says_the_cause_and_what_to_try_next(
    refusal: Callable[[], httpx.Response], code: int, next_: str
) -> None:
    server = Server(refusal=refusal)
    result = server.run("world", "apply", "us", "s", "paper-1", code=code)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert f"next: {next_}" in result.stderr or next_ in result.stderr.split("next: ")[1]


def test_an_error_says_every_reason_and_every_detail() -> None:
    server = Server(refusal=problem(409, "held", "cooldown_active"))
    result = server.run("world", "apply", "us", "s", "paper-1", code=1)
    assert "reasons: held, cooldown_active" in result.stderr
    assert "and so" in result.stderr


def test_an_error_speaks_json_to_scripts() -> None:
    server = Server(refusal=problem(409, "held"))
    result = server.run("world", "apply", "us", "s", "paper-1", "--json", code=1)
    told = json.loads(result.stderr)
    assert (told["status"], told["reasons"]) == (409, ["held"])
    assert told["next"] == "qmtl world release us s --reason ..."
    assert result.stdout == ""


def test_a_world_that_is_away_speaks_json_to_scripts() -> None:
    result = Server(refusal=unanswered).run("world", "list", "--json", code=3)
    told = json.loads(result.stderr)
    assert (told["title"], told["exit_code"]) == ("The world is away", 3)
    assert URL in told["detail"]
    assert "qmtl serve" in told["next"]


def test_wrong_usage_speaks_json_to_scripts() -> None:
    for arguments in (("world", "show", "--json"), ("world", "nothing", "--json")):
        told = json.loads(Server().run(*arguments, code=2).stderr)
        assert (told["exit_code"], told["next"].endswith("--help")) == (2, True)


def test_what_is_said_once_is_not_said_twice() -> None:
    """The title of a problem, its detail, and its details are often the same sentence."""
    sentence = "No such world. us"
    told = {"title": "No such world.", "detail": sentence, "details": [sentence]}
    server = Server(refusal=lambda: httpx.Response(404, json=told))
    assert server.run("world", "show", "us", code=1).stderr.count("No such world") == 1


@dataclass
class Knowing(Server):
    """Knows no world or no strategy of the name asked for, and says which there are."""

    kind: str = "unknown-world"
    known: tuple[str, ...] = ()

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/worlds":
            return httpx.Response(200, json={"worlds": [{"id": each} for each in self.known]})
        if request.url.path.endswith("/strategies"):
            told = [{"strategy_id": each} for each in self.known]
            return httpx.Response(200, json={"strategies": told})
        return problem(404, kind=self.kind)()


@pytest.mark.parametrize(
    ("command", "kind", "known", "next_"),
    [
        ("world show sandbx", "unknown-world", ("sandbox", "us"), "(did you mean sandbox?)"),
        ("status sandbx", "unknown-world", ("sandbox",), "qmtl world list (did you mean sandbox?)"),
        ("world show eu-1", "unknown-world", ("eu-2", "eu-3"), "(did you mean eu-3 or eu-2?)"),
        ("world show eu", "unknown-world", ("sandbox",), "qmtl world list\n"),
        ("world show eu", "unknown-world", (), "qmtl world list\n"),
        (
            "world status us tren",
            "unknown-strategy",
            ("trend",),
            "qmtl world status us (did you mean trend?)",
        ),
        ("world plan us tren", "unknown-strategy", ("trend",), "(did you mean trend?)"),
    ],
)
def test_a_name_that_is_nearly_right_is_recognised(
    command: str, kind: str, known: tuple[str, ...], next_: str
) -> None:
    server = Knowing(kind=kind, known=known)
    assert next_ in server.run(*command.split(), code=1).stderr


def test_hints_name_reasons_that_there_are() -> None:
    assert set(output.NEXT) <= set(Reason)


def test_the_words_of_options_are_the_words_of_the_core() -> None:
    assert set(RoleWord) == set(Role)
    assert set(StageWord) == set(Stage)
    assert set(State) == set(WorldState)
    assert set(STAGE_OF.values()) < set(Stage)


@pytest.mark.parametrize(
    "arguments",
    [
        ("world", "show"),
        ("world", "set", "us"),
        ("world", "nothing"),
        ("world", "create", "us", "--label", "novalue"),
        ("world", "demote", "us", "s", "--reason", "r", "--to", "live"),
        ("policy", "check", "no-such-policy"),
        ("token", "create", "--role", "king", "--actor", "a"),
        ("token", "create", "--role", "reader", "--actor", "a", "--expires", "soon"),
        ("serve", "--role", "gateway"),
        ("serve", "--world-url", "http://x"),
        ("serve", "--at", "2024-01-01T00:00:00Z"),
        ("serve", "--clock", "replay", "--at", "yesterday"),
        ("hub", "post", "us", "/no/such/file", "--stage", "paper"),
        ("submit", "nowhere", "--world", "us", "--prices", __file__),
        ("submit", "no.py:x", "--world", "us", "--prices", __file__),
        ("submit", "no_such_module:x", "--world", "us", "--prices", __file__),
        ("submit", "json:nothing", "--world", "us", "--prices", __file__),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_asks_nobody(arguments: tuple[str, ...]) -> None:
    server = Server()
    server.run(*arguments, code=2)
    assert not server.seen


@pytest.mark.parametrize("url", ["world", "http://[::1"])
def test_an_address_that_is_none_is_wrong_usage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QMTL_TOKEN", raising=False)  # Whose token serves, the address decides.
    result = CliRunner().invoke(app, ["--url", url, "world", "list"])
    assert result.exit_code == 2
    assert "no address" in result.stderr


@pytest.mark.parametrize("token", ["t\u00f6ken", "two\nlines", " "])
def test_a_token_that_no_request_can_carry_is_wrong_usage_and_not_a_world_that_is_away(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_TOKEN", token)
    result = CliRunner().invoke(app, ["world", "list"])
    assert result.exit_code == 2, result.output
    assert "no token has" in result.stderr
    assert "export QMTL_TOKEN=" in result.stderr
    assert not token.strip() or token not in result.stderr


# ---- The admin token of a server here --------------------------------------------------------


@pytest.fixture
def admin_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    (data / "admin.token").write_text("of-the-admin\n")
    monkeypatch.setenv("QMTL_DATA", str(data))
    return data / "admin.token"


def asked(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str | None, str]:
    """The credential that `world list` sends to a server, and what it says of it."""
    server = Server()
    setting = Setting(transport=httpx.MockTransport(server.handle))
    result = CliRunner().invoke(app, ["--url", url, "world", "list"], obj=setting)
    return server.seen[-1].headers.get("Authorization"), result.stderr


def test_the_admin_token_serves_on_loopback_and_is_said_to(
    admin_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, said = asked("http://127.0.0.1:1", monkeypatch)
    assert sent == "Bearer of-the-admin"
    assert str(admin_token) in said
    assert "of-the-admin" not in said


def test_the_admin_token_goes_to_no_other_machine(
    admin_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(URL, monkeypatch) == (None, "")


def test_a_token_that_is_given_goes_first(
    admin_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_TOKEN", "mine")
    assert asked("http://127.0.0.1:1", monkeypatch) == ("Bearer mine", "")


# ---- Policies, here --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sandbox", "standard", "conservative"])
def test_the_packaged_policies_check(name: str) -> None:
    result = CliRunner().invoke(app, ["policy", "check", name])
    assert result.exit_code == 0
    assert result.stdout.startswith("valid; sha256:")


def test_a_policy_that_is_none_is_refused_with_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("version: 1\ngate: {}\ncampagne: {}\n")
    result = CliRunner().invoke(app, ["policy", "check", str(file)])
    assert result.exit_code == 1
    assert "gate:" in result.stderr
    assert "campagne:" in result.stderr


def test_a_policy_is_shown_as_written_or_with_every_default() -> None:
    written = CliRunner().invoke(app, ["policy", "show", "standard"])
    assert "# POLICY" in written.stdout or "version: 1" in written.stdout
    whole = json.loads(CliRunner().invoke(app, ["policy", "show", "standard", "--json"]).stdout)
    assert whole["version"] == 1
    assert {"data", "campaign", "gates", "governance"} <= set(whole)


def test_the_schema_of_a_policy_is_a_json_schema() -> None:
    told = json.loads(CliRunner().invoke(app, ["policy", "schema"]).stdout)
    assert told["$schema"].startswith("https://json-schema.org/")


# ---- Help ------------------------------------------------------------------------------------


def test_help_documents_the_exit_codes() -> None:
    told = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    for code in ("0 done", "1 refused", "2 wrong usage", "3 the world is away"):
        assert code in told


def test_the_reference_documents_the_exit_codes() -> None:
    from qmtl.entry.reference import pages

    told = pages()["cli.md"]
    assert all(code in told for code in ("0 done", "1 refused", "2 wrong usage", "3 the world"))


# Not pydantic: typer itself loads it for the help of a command, and 0.2 s are left of 0.25.
SLOW = {"httpx", "numpy", "rich", "fastapi", "uvicorn", "sqlalchemy", "yaml"}


@pytest.mark.parametrize("arguments", ["--help", "world --help", "world status --help"])
def test_help_loads_nothing_slow(arguments: str) -> None:
    code = (
        "import sys\n"
        "from qmtl.entry.cli import app\n"
        "try:\n"
        f"    app({arguments.split()!r})\n"
        "finally:\n"
        f"    print(sorted({SLOW!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert told.stderr == "[]\n"


def test_the_version_is_the_packages() -> None:
    import qmtl

    told = CliRunner().invoke(app, ["--version"]).stdout
    assert told == f"qmtl {qmtl.__version__}\n"
