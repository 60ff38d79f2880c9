"""`qmtl sweep`: where its grid comes from, what it shows, and what it sends."""

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qmtl.entry.cli import app
from qmtl.entry.cli.context import Setting

URL = "http://world.test"
STRATEGY = """
from dataclasses import dataclass
import numpy as np

@dataclass
class Sized:
    size: float = 0.5
    loud: bool = False
    kind: str = "a"

    def weights(self, prices):
        if self.kind == "bad":
            raise RuntimeError("not today")
        held = np.full_like(prices, self.size / 2)
        held[::2] /= 2
        return held

class Peeking(Sized):
    def weights(self, prices):
        held = np.zeros_like(prices)
        held[:-1] = prices[1:] > prices[:-1]
        return held * self.size

flat = Sized()
"""
PROJECT = """
world = "us"
strategy = "mine.py:Sized"
prices = "prices.csv"
id = "sized"
[sweep]
size = [0.25, 0.5]
kind = ["a", "bad"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with strategies and prices, and no project; variants run in this process."""
    for name in ("QMTL_URL", "QMTL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QMTL_DATA", str(tmp_path / "no-data"))
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.py").write_text(STRATEGY)
    closes = [100 + (day * 7) % 11 + day / 5 for day in range(1, 29)]
    rows = [f"2024-01-{day:02},{close},{200 - close}" for day, close in enumerate(closes, 1)]
    (home / "prices.csv").write_text("\n".join(["Date,A,B", *rows]) + "\n")
    monkeypatch.chdir(home)
    return home


class World:
    """Takes submissions; `seen` are those."""

    def __init__(self, now: str = "2024-06-01T00:00:00Z", away: bool = False) -> None:
        self.now, self.away = now, away
        self.seen: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("connection refused")
        if request.url.path == "/clock":
            return httpx.Response(200, json={"now": self.now})
        if request.method == "GET":
            return httpx.Response(200, json={"default_policy_version": None})
        self.seen.append(json.loads(request.content))
        told = {"strategy_id": self.seen[-1]["strategy_id"], "verdict": "pass"}
        return httpx.Response(200, json={**told, "phase": "paper_campaign"})


def run(*arguments: str, code: int = 0, world: World | None = None) -> Any:
    setting = Setting(transport=httpx.MockTransport(world or World()))
    result = CliRunner().invoke(
        app, ["--url", URL, "sweep", "--executor", "inline", *arguments], obj=setting
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def parameters(*arguments: str) -> list[dict[str, Any]]:
    told = json.loads(run("--no-submit", "--json", *arguments).stdout)
    return [row["parameters"] for row in told["rows"]]


BARE = ("mine.py:Sized", "--prices", "prices.csv")


def test_the_grid_is_that_of_the_command_line() -> None:
    assert parameters(*BARE, "--param", "size=0.25, 1", "--param", "kind=b,true") == [
        {"size": 0.25, "kind": "b"},
        {"size": 0.25, "kind": True},
        {"size": 1, "kind": "b"},
        {"size": 1, "kind": True},
    ]


def test_the_project_says_what_the_command_line_does_not(folder: Path) -> None:
    (folder / "qmtl.toml").write_text(PROJECT)
    assert [tuple(each.values()) for each in parameters()] == [
        (0.25, "a"),
        (0.25, "bad"),
        (0.5, "a"),
        (0.5, "bad"),
    ]
    assert parameters("--param", "kind=b") == [
        {"size": 0.25, "kind": "b"},
        {"size": 0.5, "kind": "b"},
    ]


def test_the_best_is_submitted_with_all_that_were_tried(folder: Path) -> None:
    (folder / "qmtl.toml").write_text(PROJECT)
    world = World()
    told = run("--before", "3", "--cost-bps", "2", world=world).stdout
    (sent,) = world.seen
    assert (sent["strategy_id"], sent["world"], sent["variants_tried"]) == ("sized", "us", 7)
    assert sent["engine"]["cost_bps"] == 2.0
    assert told.index("best of 4 variants") < told.index("sized in world us")
    assert "2 failed; the first, size=0.25, kind='bad': RuntimeError: not today" in told


def test_json_is_one_document(folder: Path) -> None:
    (folder / "qmtl.toml").write_text(PROJECT)
    told = json.loads(run("--json").stdout)
    assert told["submission"]["world"]["verdict"] == "pass"
    assert told["tried"] == 4


def test_without_submitting_nobody_is_asked_and_no_world_is_needed() -> None:
    world = World(away=True)
    assert (
        "chosen: size=0.5" in run(*BARE, "--no-submit", "--param", "size=0.5", world=world).stdout
    )


def test_away_is_three_and_the_submission_is_kept(tmp_path: Path) -> None:
    world = World(away=True)
    told = run(*BARE, "--world", "us", "--param", "size=0.5,1", code=3, world=world)
    assert "the submission is kept" in told.stdout
    assert len(list((tmp_path / "spool").glob("*.json"))) == 1


def test_what_stops_the_best_hides_no_table() -> None:
    world = World()
    arguments = ("mine.py:Peeking", "--prices", "prices.csv", "--world", "us")
    told = run(*arguments, "--param", "size=0.5,1", code=1, world=world)
    assert "best of 2 variants" in told.stdout
    assert "nothing was sent: Peeking looks ahead" in told.stderr
    assert "qmtl sweep again" in told.stderr
    assert not world.seen


def test_the_future_is_not_submitted() -> None:
    world = World(now="2024-01-20T21:00:00Z")
    told = run(*BARE, "--world", "us", "--param", "size=0.5", code=1, world=world)
    assert "next: qmtl sweep --until 2024-01-20" in told.stderr
    assert not world.seen


REFUSED: list[tuple[str, tuple[str, ...], int, str]] = [
    ("no values", (*BARE, "--no-submit"), 2, "say --param NAME=VALUE"),
    ("no world", (*BARE, "--param", "size=1"), 2, "--world"),
    ("no prices", ("mine.py:Sized", "--no-submit", "--param", "size=1"), 2, "--prices"),
    ("no source", ("--no-submit", "--param", "size=1"), 2, "FILE:CLASS"),
    ("no pair", (*BARE, "--no-submit", "--param", "size"), 2, "is not name=value"),
    (
        "a name twice",
        (*BARE, "--no-submit", "--param", "size=1", "--param", "size=2"),
        2,
        "--param size comes twice",
    ),
    (
        "an instance",
        ("mine.py:flat", "--prices", "prices.csv", "--no-submit", "--param", "size=1"),
        2,
        "makes no variants",
    ),
    (
        "nobody of that name",
        ("mine.py:Sised", "--prices", "prices.csv", "--no-submit", "--param", "size=1"),
        2,
        "it has Sized",
    ),
    ("a parameter it has not", (*BARE, "--no-submit", "--param", "x=1"), 1, "cannot be made of x"),
    ("all fail", (*BARE, "--no-submit", "--param", "kind=bad"), 1, "of 1 variant none has"),
    ("no metric", (*BARE, "--no-submit", "--metric", "x", "--param", "size=1"), 1, "no metric"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "code", "says"), REFUSED, ids=[case[0] for case in REFUSED]
)
def test_what_cannot_be_swept_says_so(
    name: str, arguments: tuple[str, ...], code: int, says: str
) -> None:
    told = " ".join(run(*arguments, code=code).stderr.replace("│", " ").split())
    assert says in told
