"""`qmtl status`: what is shown of what a server told; it goes on while the world is away."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from qmtl.adapters.client import Client
from qmtl.core.names import Mode, Phase, Reason, Stage
from qmtl.entry.cli import app, picture, status
from qmtl.entry.cli.context import Setting
from qmtl.entry.cli.picture import Away, Row

URL = "http://world.test"
NOW = "2024-01-10T12:00:00Z"


def window(share: float) -> dict[str, Any]:
    return {
        "window": "20d",
        "required_sec": 20 * 86_400.0,
        "observed_sec": share * 20 * 86_400.0,
        "observations": int(share * 10),
        "required_observations": 10,
        "progress": share,
        "satisfied": share >= 1,
    }


def strategy(sid: str, phase: Phase, share: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "strategy_id": sid,
        "phase": phase.value,
        "held": False,
        "backtest": window(1.0),
        "paper": window(share),
        "live": window(share),
        "reasons": [],
        "details": [],
        **more,
    }


def decision(sid: str, mode: Mode = Mode.PAPER, weight: float = 0.0) -> dict[str, Any]:
    return {"strategy_id": sid, "effective_mode": mode.value, "weight": weight, "downgraded": False}


def candidate(sid: str, **more: Any) -> dict[str, Any]:
    return {
        "strategy_id": sid,
        "standing": "proposed",
        "approvals": [],
        "approvals_needed": 2,
        "eligible": False,
        "blocked_reasons": ["approvals_insufficient"],
        **more,
    }


def told(*strategies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "world": {
            "id": "us",
            "state": "active",
            "killed": False,
            "allow_live": True,
            "default_policy_version": 3,
        },
        "clock": {"now": NOW, "replay": False},
        "campaign": {"strategies": list(strategies)},
        "decisions": [decision(each["strategy_id"]) for each in strategies],
        "candidates": [],
        "snapshots": {"backtest": None, "paper": None, "live": None},
        **more,
    }


def printed(given: dict[str, Any], *, width: int = 200, **how: Any) -> str:
    console = Console(width=width, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as capture:
        console.print(picture.picture(given, **how))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def row_of(*given: Any, **more: Any) -> Row:
    (row,) = picture.rows(told(*given, **more))
    return row


# ---- A strategy ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "more", "urgency", "waits"),
    [
        (
            strategy("s", Phase.PAPER, 0.25, details=["live is not allowed"]),
            {},
            picture.PAPER,
            "its window: 5.0 days of 20.0 days, 2 of 10 observations",
        ),
        (
            strategy("s", Phase.PAPER, details=["no fresh snapshot", "and so"]),
            {},
            picture.PAPER,
            "no fresh snapshot",
        ),
        (strategy("s", Phase.BACKTEST, reasons=["held"]), {}, picture.BACKTEST, "held"),
        (strategy("s", Phase.RETIRED, details=["it left"]), {}, picture.RETIRED, "it left"),
        (strategy("s", Phase.LIVE, 0.1), {}, picture.LIVE, "nothing"),
        (strategy("s", Phase.LIVE, details=["it fails"]), {}, picture.TROUBLE, "it fails"),
        (strategy("s", Phase.PAPER, held=True), {}, picture.TROUBLE, "nothing"),
        (
            strategy("s", Phase.PAPER),
            {"decisions": [{**decision("s"), "downgraded": True}]},
            picture.TROUBLE,
            "nothing",
        ),
        (
            strategy("s", Phase.PAPER),
            {"candidates": [candidate("s", approvals=[{"by": "al"}])]},
            picture.PEOPLE,
            "an approver: 1 of 2 approvals",
        ),
        (
            strategy("s", Phase.PAPER),
            {"candidates": [candidate("s", eligible=True, blocked_reasons=[])]},
            picture.PEOPLE,
            "an operator: it may be applied",
        ),
        (
            strategy("s", Phase.PAPER),
            {"candidates": [candidate("s", standing="rejected", blocked_reasons=["x"])]},
            picture.PEOPLE,
            "an operator: it was rejected, and is held until released",
        ),
        (
            strategy("s", Phase.PAPER, details=["slots are full"]),
            {"candidates": [candidate("s", blocked_reasons=["max_live_slots_exceeded"])]},
            picture.PAPER,
            "slots are full",
        ),
        (
            strategy("s", Phase.LIVE),
            {"candidates": [candidate("s", standing="applied")]},
            picture.LIVE,
            "nothing",
        ),
    ],
)
def test_what_a_strategy_waits_for_and_how_urgent_it_is(
    given: dict[str, Any], more: dict[str, Any], urgency: int, waits: str
) -> None:
    row = row_of(given, **more)
    assert (row.urgency, row.waits) == (urgency, waits)


def test_what_needs_attention_comes_first() -> None:
    names = ["retired", "backtest", "1-young", "2-old", "live", "trouble", "people"]
    given = told(
        strategy("retired", Phase.RETIRED),
        strategy("backtest", Phase.BACKTEST),
        strategy("1-young", Phase.PAPER, 0.1),
        strategy("2-old", Phase.PAPER, 0.9),
        strategy("live", Phase.LIVE),
        strategy("trouble", Phase.LIVE, details=["it fails"]),
        strategy("people", Phase.PAPER),
        candidates=[candidate("people")],
    )
    assert [row.strategy_id for row in picture.rows(given)] == names[::-1]


def test_the_words_are_those_of_the_core() -> None:
    assert {Phase(phase) for phase in picture.STAGE_OF} == set(Phase) - {Phase.RETIRED}
    assert {Stage(stage) for stage in picture.STAGES} == set(picture.STAGE_OF.values())
    assert set(Reason) >= picture.APPROVALS


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "░░░░░░░░░░   0%"),
        (0.52, "█████░░░░░  52%"),
        (0.999, "█████████░  99%"),
        (1.0, "██████████ 100%"),
        (3.0, "██████████ 100%"),
    ],
)
def test_a_bar_is_full_only_when_it_is(share: float, shown: str) -> None:
    assert picture.bar(share) == shown


# ---- The picture -----------------------------------------------------------------------------


def test_all_of_it() -> None:
    snapshots = {
        "backtest": {"as_of": "2024-01-09T12:00:00Z", "expires_at": "2024-01-09T12:15:00Z"},
        "paper": {"as_of": "2024-01-10T11:59:30Z", "expires_at": "2024-01-10T12:14:30Z"},
        "live": {"as_of": "2024-01-10T06:00:00Z", "expires_at": "2024-01-10T06:15:00Z"},
    }
    given = told(
        strategy("alpha", Phase.LIVE, 0.5),
        strategy("beta", Phase.PAPER),
        decisions=[decision("alpha", Mode.LIVE, 0.25), decision("beta")],
        candidates=[candidate("beta")],
        snapshots=snapshots,
    )
    assert printed(given) == (
        "us: active, live allowed, policy 3; 2 strategies; it is 2024-01-10T12:00Z\n"
        "live: 1 at 0.25 of the capital\n"
        "snapshots: backtest 1.0 days old; paper 30 s old, fresh for 870 s; "
        "live 6.0 hours old, expired\n"
        "\n"
        "strategy  phase  window           mode   weight  waits for\n"
        "beta      paper  ██████████ 100%  paper  -       an approver: 0 of 2 approvals\n"
        "alpha     live   █████░░░░░  50%  live   0.25    nothing\n"
        "\n"
        "next: qmtl world approve us beta --reason ..."
    )


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("world", "killed"), True, "us: KILLED"),
        (("world", "state"), "suspended", "us: suspended"),
        (("world", "allow_live"), False, "live not allowed"),
        (("clock", "replay"), True, "(a replay clock)"),
    ],
)
def test_the_head_says_how_the_world_is(path: tuple[str, str], value: Any, says: str) -> None:
    given = copy.deepcopy(told())
    given[path[0]][path[1]] = value
    assert says in printed(given)


@pytest.mark.parametrize(
    ("more", "command"),
    [
        ({}, "approve us s --reason ..."),
        ({"eligible": True, "blocked_reasons": []}, "apply us s"),
        ({"standing": "rejected", "blocked_reasons": []}, "release us s --reason ..."),
    ],
)
def test_who_is_waited_for_is_told_what_to_run(more: dict[str, Any], command: str) -> None:
    given = told(strategy("s", Phase.PAPER), candidates=[candidate("s", **more)])
    assert printed(given).endswith(f"next: qmtl world {command}")


def test_no_strategies_is_said() -> None:
    assert "no strategies yet: qmtl submit" in printed(told())


def test_of_a_thousand_those_that_fit_are_shown_and_the_rest_counted() -> None:
    many = [strategy(f"s{number:04}", Phase.PAPER, number / 1_000) for number in range(1_000)]
    waiting = [candidate(each["strategy_id"]) for each in many[:20]]
    given = told(*many, candidates=waiting)
    height = 30
    shown = printed(given, width=60, rows_max=height - picture.lines_around(given))
    assert len(shown.splitlines()) <= height
    assert "qmtl world status us" in shown
    assert "… and 15 more: qmtl world candidates us" in shown
    assert shown.index("s0000") < shown.index("s0001"), "the one with a candidate is first"
    assert len(printed(given).splitlines()) > 1_000, "all of it, where nothing has to fit"


def test_a_world_that_is_away_says_how_old_the_picture_is() -> None:
    shown = printed(told(), away=Away("no answer", 125.0), width=80)
    assert "away: this is 125 s old, and still asking; no answer" in shown


# ---- The command -----------------------------------------------------------------------------

HERE = told(strategy("s", Phase.PAPER, 0.5))
ANSWERS: dict[str, Any] = {
    "/worlds/us": HERE["world"],
    "/clock": HERE["clock"],
    "/worlds/us/campaign/status": HERE["campaign"],
    "/worlds/us/decide": {"decisions": HERE["decisions"]},
    "/worlds/us/promotions/live/candidates": {"candidates": [], "next_cursor": None},
}


def answer(request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("/latest"):
        return httpx.Response(404, json={"title": "No such snapshot."})
    return httpx.Response(200, json=ANSWERS[request.url.path])


def run(*arguments: str, handle: Callable[[httpx.Request], httpx.Response] = answer) -> Any:
    setting = Setting(transport=httpx.MockTransport(handle))
    return CliRunner().invoke(app, ["--url", URL, "status", *arguments], obj=setting)


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QMTL_DATA", str(tmp_path))
    monkeypatch.delenv("QMTL_URL", raising=False)


def test_where_nobody_watches_it_is_printed_once() -> None:
    result = run("us")
    assert result.exit_code == 0
    assert "its window: 10.0 days of 20.0 days" in result.stdout
    assert "\x1b[" not in result.stdout


def test_in_a_project_the_world_is_the_projects(tmp_path: Path) -> None:
    (tmp_path / "qmtl.toml").write_text('world = "us"')
    assert run().stdout == run("us").stdout
    (tmp_path / "qmtl.toml").unlink()
    result = run()
    assert result.exit_code == 2
    assert "say WORLD" in result.stderr


def test_scripts_get_what_was_told() -> None:
    with Client(URL, transport=httpx.MockTransport(answer)) as client:
        assert json.loads(run("us", "--json").stdout) == status.gathered(client, "us") == HERE


def refusing(request: httpx.Request) -> httpx.Response:
    return httpx.Response(401, json={"title": "No."})


def failing(request: httpx.Request) -> httpx.Response:
    return httpx.Response(500, json={"title": "A bug."})


def busy(request: httpx.Request) -> httpx.Response:
    return httpx.Response(429, json={"title": "Later."})


def unanswered(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def test_a_world_that_is_away_at_first_is_exit_code_3() -> None:
    assert run("us", handle=unanswered).exit_code == 3


@pytest.mark.parametrize(
    ("then", "code", "said"),
    [
        (unanswered, 0, "still asking; http://world.test does not answer"),
        (failing, 0, "still asking; 500 A bug."),
        (busy, 0, "still asking; 429 Later."),
        (refusing, 1, "error: No."),
    ],
)
def test_on_a_terminal_it_looks_again_until_it_is_told_to_end(
    then: Callable[[httpx.Request], httpx.Response],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look, another, the world in trouble; then somebody presses Ctrl-C."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status, "time", type("", (), {"sleep": sleep, "monotonic": lambda: 1.0}))
    result = run(
        "us", "--interval", "2s", handle=lambda r: then(r) if len(slept) == 2 else answer(r)
    )
    assert result.exit_code == code
    assert set(slept) == {2.0}
    assert said in result.output
    if code == 0:
        last = result.stdout.rstrip().splitlines()[-1]
        assert "its window" in last, "what was last seen is left on the screen"
