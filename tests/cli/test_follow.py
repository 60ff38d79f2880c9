"""`qmtl follow`: what it prints, where it gets its options from, and its exit codes."""

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from qmtl.adapters.client import URL_DEFAULT
from qmtl.entry.cli import app
from qmtl.entry.cli.context import Setting
from qmtl.sdk import ledger as ledgers
from tests.following import HISTORY, W, World, at, binding, earned, stamp, walk, write

STRATEGY = '''
import numpy as np


class Trend:
    """Holds what rose over the last bars."""

    def weights(self, prices):
        prices = np.asarray(prices)
        held = np.zeros_like(prices)
        held[5:] = prices[5:] > prices[:-5]
        return held / 2
'''
PROJECT = """
world = "us"
strategy = "followed_strategy.py:Trend"
prices = "prices.csv"
"""


@pytest.fixture
def world() -> World:
    return World(strategies=[binding(parts=None)])


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QMTL_TOKEN", "t")
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("QMTL_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "followed_strategy", raising=False)
    (tmp_path / "followed_strategy.py").write_text(STRATEGY)
    (tmp_path / "qmtl.toml").write_text(PROJECT)
    write(tmp_path / "prices.csv", walk(43))
    return tmp_path


def run(world: World, command: str, code: int = 0) -> Result:
    setting = Setting(transport=httpx.MockTransport(world.answer))
    result = CliRunner().invoke(app, command.split(), obj=setting)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def lines(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_in_a_project_nothing_needs_to_be_said(world: World) -> None:
    told = run(world, "follow --once").stdout.splitlines()
    assert world.held == {"paper": earned(43)}
    assert told[0] == "Trend in us: paper (paper_campaign)"
    assert [line.split()[0] for line in told[1:-1]] == [
        stamp(at(bar))[:-4] + "Z" for bar in (40, 41, 42)
    ]
    assert all("posted as paper" in line for line in told[1:-1])
    assert told[-1] == "3 bars computed, 3 posted"
    assert run(world, "follow --once").stdout.splitlines()[-1] == "0 bars computed, 0 posted"


def test_outside_of_one_everything_is_said(world: World, project: Path) -> None:
    (project / "qmtl.toml").unlink()
    assert "say --world" in run(world, "follow --once", code=2).output
    assert "say FILE_OR_MODULE:NAME" in run(world, "follow --once --world us", code=2).output
    (project / "days").mkdir()
    (project / "prices.csv").rename(project / "days" / "1.csv")
    options = "followed_strategy.py:Trend --world us --prices days --id Trend"
    run(world, f"follow --once {options}")
    assert world.held == {"paper": earned(43)}


def test_json_is_an_object_a_line(world: World) -> None:
    told = lines(run(world, "follow --once --json"))
    assert told[0] == {"note": "Trend in us: paper (paper_campaign)"}
    assert [(each["time"], each["return"], each["outcome"]) for each in told[1:]] == [
        (t.replace(":00Z", "Z"), r, "posted") for t, r in earned(43).items()
    ]


def test_a_world_that_is_away_is_exit_code_3_and_nothing_is_lost(world: World) -> None:
    world.away = True
    assert "the world is away" in run(world, "follow --once", code=3).stdout
    world.away, world.refusing = False, httpx.Response(503, json={"title": "busy"})
    assert run(world, "follow --once", code=3).stdout.splitlines()[-1] == (
        "3 bars computed, 0 posted, 3 owed"
    )
    world.refusing = None
    assert run(world, "follow --once").stdout.splitlines()[-1] == "0 bars computed, 3 posted"
    assert world.held == {"paper": earned(43)}


def test_a_bar_that_is_refused_is_exit_code_1_with_every_reason(world: World) -> None:
    problem = {
        "title": "It contradicts what is recorded.",
        "reasons": ["evidence_changed"],
        "details": ["the posted returns differ from the recorded history"],
    }
    world.refusing = httpx.Response(409, json=problem)
    told = run(world, "follow --once", code=1).stderr
    assert "error: the bar of 2024-02-10T21:00:00Z was refused as paper: 409 It contra" in told
    assert "the posted returns differ" in told
    assert "reasons: evidence_changed" in told
    assert "next: qmtl journal list us" in told


def test_what_cannot_be_followed_says_why(world: World, project: Path) -> None:
    world.strategies = []
    told = run(world, "follow --once", code=1).stderr
    assert "error: Trend was never submitted to us: qmtl submit" in told
    world.strategies = [binding(parts=None)]
    (project / "prices.csv").write_text("Date,A,B\n2024-01-01,1,x\n")
    assert f"error: {project / 'prices.csv'}: line 2" in run(world, "follow --once", code=1).stderr
    (project / "prices.csv").unlink()
    assert "prices.csv" in run(world, "follow --once", code=1).stderr


BROKEN: list[tuple[str, str, str]] = [
    ("while it is loaded", "import numpy as np", "1 / 0\nimport numpy as np"),
    ("on a bar", "        prices = np.asarray(prices)", "        1 / 0"),
]


@pytest.mark.parametrize(("when", "line", "bad"), BROKEN, ids=[each[0] for each in BROKEN])
def test_what_the_authors_code_raises_is_said_with_its_line(
    world: World, project: Path, when: str, line: str, bad: str
) -> None:
    (project / "followed_strategy.py").write_text(STRATEGY.replace(line, bad))
    told = run(world, "follow --once", 1).stderr
    assert "error: the strategy failed with ZeroDivisionError: division by zero" in told
    assert "followed_strategy.py:" in told
    assert "1 / 0" in told
    assert "next: mend it" in told
    assert world.posted == []


def test_with_json_an_error_is_json(world: World) -> None:
    problem = {
        "title": "It contradicts.",
        "reasons": ["evidence_changed"],
        "details": ["it differs"],
    }
    world.refusing = httpx.Response(409, json=problem)
    told = json.loads(run(world, "follow --once --json", 1).stderr)
    assert (told["reasons"], told["details"]) == (["evidence_changed"], ["it differs"])
    assert "qmtl journal list us" in told["next"]
    told = json.loads(run(world, "follow --replay --json", 1).stderr)
    assert "qmtl serve --clock replay" in told["next"]


def test_a_second_follower_is_refused(world: World, project: Path) -> None:
    path = ledgers.place(project / "state", URL_DEFAULT, W, "Trend")
    with ledgers.owned(path):
        told = run(world, "follow --once", code=1).stderr
    assert "error: Trend in us is followed by process" in told


def test_a_rehearsal_moves_the_clock_and_may_run_the_loop(world: World) -> None:
    world.replay, world.now = True, at(HISTORY - 1)
    world.ticks = {"schema_version": 1, "next_cursor": None, "actions": [waiting()]}
    told = run(world, "follow --replay --loop --until 2024-02-11").stdout
    assert world.held == {"paper": earned(42)}
    assert told.count("waits for people: manual_approval_required Trend") == 1
    assert world.ticked == 2, "once a bar"
    assert run(world, "follow --replay").stdout.splitlines()[-1] == "1 bar computed, 1 posted"


def waiting() -> dict[str, str]:
    return {
        "action": "manual_approval_required",
        "strategy_id": "Trend",
        "idempotency_key": "k",
        "reason": "manual_approval_required",
    }


def test_the_systems_clock_is_not_moved(world: World) -> None:
    told = run(world, "follow --replay", code=1).stderr
    assert "error: the server lives in the system's time" in told
    assert "next: qmtl serve --clock replay" in told


def test_an_error_in_the_strategy_shows_the_authors_lines_and_none_of_ours(
    world: World, project: Path
) -> None:
    own = project / "followed_strategy.py"
    own.write_text(STRATEGY.replace("held = np", "held = 1 / 0 or np"))
    told = run(world, "follow --once", code=1).stderr
    assert "error: the strategy failed with ZeroDivisionError: division by zero" in told
    assert "  followed_strategy.py:10 in weights: held = 1 / 0" in told
    assert "next: mend it, then qmtl submit" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("broken", ["def torn(", "1 / 0"])
def test_a_strategy_that_cannot_be_imported_is_said_as_json(
    world: World, project: Path, broken: str
) -> None:
    (project / "followed_strategy.py").write_text(broken + "\n")
    told = json.loads(run(world, "follow --once --json", code=1).stderr)
    assert told["title"].startswith("the strategy failed with ")
    assert told["exit_code"] == 1


def test_what_is_refused_is_said_as_json(world: World) -> None:
    told = json.loads(run(world, "follow --replay --json", code=1).stderr)
    assert told["title"].startswith("the server lives in the system's time")


def test_what_the_author_prints_is_no_part_of_the_answer(world: World, project: Path) -> None:
    own = project / "followed_strategy.py"
    own.write_text(STRATEGY.replace("held = np", "print('I hold'); held = np"))
    result = run(world, "follow --once --json")
    assert lines(result)[0] == {"note": "Trend in us: paper (paper_campaign)"}
    assert len(lines(result)) == 4
    assert "I hold" in result.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--loop", "--loop goes with --replay"),
        ("--until soon", "'soon' is no day, such as 2021-12-31"),
        ("--prices none.csv", "none.csv"),
        ("Trend", "is not FILE:NAME"),
    ],
)
def test_wrong_usage_is_exit_code_2(world: World, options: str, says: str) -> None:
    assert says in run(world, f"follow {options}", code=2).output
