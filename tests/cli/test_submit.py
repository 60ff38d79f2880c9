"""`qmtl submit`: where its options come from, what it sends, and whose fault a failure is."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qmtl.entry.cli import app, source
from qmtl.entry.cli.context import Setting
from qmtl.sdk.runner import Runner
from qmtl.sdk.spool import Flushed

URL = "http://world.test"
DAYS = 10
STRATEGY = """
import numpy as np

def flat(prices):
    return np.zeros_like(prices)

def broken(prices):
    return inner(prices)

def inner(prices):
    return 1 / 0

def endless(prices):
    return endless(prices)

def nothing():
    return 0

def two(prices, window):
    return prices * window

class Sized:
    def __init__(self, size):
        self.size = size

class Late:
    def __init__(self):
        raise RuntimeError("not today")

def leaves(prices):
    raise SystemExit(0)

def talks(prices):
    print("I hold nothing")
    return np.zeros_like(prices)

def pandas_of_old(prices):
    return prices.pct_change()
"""
PROJECT = """
world = "us"
strategy = "mine.py:flat"
prices = "prices.csv"
id = "flat-1"
cost_bps = 3
until = 2024-01-05
"""


class Sent(Exception):
    """What would be submitted, instead of submitting it."""

    def __init__(self, what: Any, options: dict[str, Any]) -> None:
        self.what, self.options = what, options


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with strategies and prices, and no project; a spool, and no token."""
    for name in ("QMTL_URL", "QMTL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QMTL_DATA", str(tmp_path / "no-data"))
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mine", "torn", "early"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.py").write_text(STRATEGY)
    (home / "early.py").write_text("raise RuntimeError('too early')\n")
    (home / "my-own.py").write_text(STRATEGY)
    (home / "torn.py").write_text("def flat(prices:\n    return 0\n")
    rows = [f"2024-01-{day:02},{100 + day},{200 - day}" for day in range(1, DAYS + 1)]
    (home / "prices.csv").write_text("\n".join(["Date,A,B", *rows]) + "\n")
    monkeypatch.chdir(home)
    return home


def world(now: str = "2024-06-01T00:00:00Z") -> Callable[[httpx.Request], httpx.Response]:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.method == "GET", "nothing is sent"
        if request.url.path == "/worlds/us":
            return httpx.Response(200, json={"default_policy_version": None})
        assert request.url.path == "/clock", "nothing else is asked before it is sent"
        return httpx.Response(200, json={"now": now, "replay": True})

    return handle


def nobody(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def run(
    *arguments: str, code: int = 0, handle: Callable[[httpx.Request], httpx.Response] | None = None
) -> Any:
    setting = Setting(transport=httpx.MockTransport(handle or world()))
    result = CliRunner().invoke(app, ["--url", URL, "submit", *arguments], obj=setting)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sent]:
    """Runs the command; what it would have submitted."""

    def submit(what: Any, **options: Any) -> None:
        raise Sent(what, options)

    def asked(*arguments: str, **given: Any) -> Sent:
        monkeypatch.setattr(Runner, "submit", submit)
        with pytest.raises(Sent) as caught:
            run(*arguments, **given)
        return caught.value

    return asked


SAID = ("mine.py:flat", "--world", "us", "--prices", "prices.csv")


# ---- Where options come from -----------------------------------------------------------------


def test_what_is_said_is_what_is_sent(sent: Callable[..., Sent]) -> None:
    found = sent(*SAID, "--id", "f", "--variants", "7", "--cost-bps", "1", "--until", "2024-01-03")
    assert found.what.__name__ == "flat"
    assert found.options["world"] == "us"
    assert found.options["strategy_id"] == "f"
    assert found.options["variants_tried"] == 7
    assert found.options["engine"].cost_bps == 1
    assert found.options["prices"].bars == 3
    assert "progress" not in found.options, "nobody looks"


def test_what_is_not_said_is_left_to_the_runner(sent: Callable[..., Sent]) -> None:
    assert set(sent(*SAID).options) == {"world", "prices", "client"}


def test_in_a_project_nothing_has_to_be_said(folder: Path, sent: Callable[..., Sent]) -> None:
    (folder / "qmtl.toml").write_text(PROJECT)
    options = sent().options
    assert (options["world"], options["strategy_id"]) == ("us", "flat-1")
    assert (options["engine"].cost_bps, options["prices"].bars) == (3, 5)


def test_what_is_said_beats_the_project(folder: Path, sent: Callable[..., Sent]) -> None:
    (folder / "qmtl.toml").write_text(PROJECT)
    arguments = ("--world", "eu", "--id", "g", "--cost-bps", "0", "--until", "2024-01-09")
    options = sent(*arguments).options
    assert (options["world"], options["strategy_id"]) == ("eu", "g")
    assert (options["engine"].cost_bps, options["prices"].bars) == (0, 9)


def test_returns_from_elsewhere(folder: Path, sent: Callable[..., Sent]) -> None:
    (folder / "r.csv").write_text("Date,return\n2024-01-01,0.1\n2024-01-02,0.2\n2024-01-03,0.3\n")
    arguments = ("--returns", "r.csv", "--id", "ext", "--world", "us", "--version", "2.1")
    found = sent(*arguments, "--until", "2024-01-02")
    assert found.what.values.tolist() == [0.1, 0.2]
    assert set(found.options) == {"world", "strategy_id", "version", "client"}
    assert found.options["version"] == "2.1"
    assert sent(*arguments).what.bars == 3


def test_a_terminal_sees_progress(
    sent: Callable[..., Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = sent(*SAID).options["progress"]
    progress("look-ahead check", 1, 20)
    progress("look-ahead check", 20, 20)
    progress("backtest", 0, 1)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "say --world, or world in qmtl.toml (qmtl init makes a project)"),
        (("--world", "us"), "say FILE:NAME, or strategy in qmtl.toml"),
        (("mine.py:flat", "--world", "us"), "say --prices, or prices in qmtl.toml"),
        ((*SAID, "--until", "soon"), "'soon' is no day"),
        (
            (*SAID, "--until", "2023-12-31"),
            "until 2023-12-31 there is no bar: the first is of 2024-01-01",
        ),
        ((*SAID, "--cost-bps", "inf"), "cost_bps is finite and not negative, not inf"),
        ((*SAID, "--version", "2"), "--version goes with --returns"),
        (("--returns", "r.csv", "--world", "us"), "say --id"),
        ((*SAID, "--returns", "r.csv", "--id", "x"), "ran elsewhere"),
        (("--flush", "--world", "us"), "say nothing else"),
        (("mine.py:flt", *SAID[1:]), "mine.py has no flt; it has "),
        (("mine.py", *SAID[1:]), "such as strategy.py:Trend"),
        (("my-own.py:flat", *SAID[1:]), "rename the file: letters, digits and _"),
        (("notes.ipynb:flat", *SAID[1:]), "is a notebook: call Runner.submit in it"),
        (("mine.py:Sized", *SAID[1:]), "give size a default, or name an instance"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_wrong_usage_asks_nobody_and_says_what_to_say(arguments: tuple[str, ...], why: str) -> None:
    told = run(*arguments, code=2, handle=nobody)
    assert why in " ".join(told.stderr.split())
    told = json.loads(run(*arguments, "--json", code=2, handle=nobody).stderr)
    assert why in told["title"]
    assert told["exit_code"] == 2
    assert told["next"].endswith(" submit --help")


# ---- Bars the world has not seen -------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "said", "next_"),
    [
        ("2024-01-10T20:58:00Z", "1 bar lies after", "qmtl submit --until 2024-01-09"),
        ("2024-01-04T00:00:00Z", "7 bars lie after", "qmtl submit --until 2024-01-03"),
        ("2023-01-01T00:00:00Z", "10 bars lie after", "qmtl doctor"),
    ],
)
def test_bars_in_the_servers_future_are_not_sent(now: str, said: str, next_: str) -> None:
    told = run(*SAID, code=1, handle=world(now))
    assert f"nothing was sent: {said} the server's clock ({now})" in told.stderr
    assert f"next: {next_}\n" in told.stderr


def test_a_minute_of_skew_is_forgiven(sent: Callable[..., Sent]) -> None:
    assert sent(*SAID, handle=world("2024-01-10T20:59:30Z")).options["prices"].bars == DAYS


def test_what_nobody_can_be_asked_is_computed_and_kept(tmp_path: Path) -> None:
    told = run(*SAID, code=3, handle=nobody)
    assert "compute-only" in told.stdout
    assert "next: qmtl submit --flush, when the world is back" in told.stderr
    assert len(list((tmp_path / "spool").glob("*.json"))) == 1


def test_a_spool_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "file"))
    told = run(*SAID, code=1, handle=nobody).stderr
    assert f"nothing was sent: nobody answers at {URL}" in told
    assert f"could not be kept in {tmp_path / 'file'}: File exists" in told


# ---- Whose fault it is -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "cause", "where"),
    [
        (
            "mine.py:broken",
            "the strategy failed with ZeroDivisionError: division by zero",
            ["mine.py:8 in broken: return inner(prices)", "mine.py:11 in inner: return 1 / 0"],
        ),
        ("mine.py:endless", "RecursionError", ["mine.py:14 in endless: return endless(prices)"]),
        ("mine.py:Late", "RuntimeError: not today", ["mine.py:28 in __init__: raise Runtime"]),
        ("mine.py:leaves", "SystemExit: 0", ["mine.py:31 in leaves: raise SystemExit(0)"]),
        ("early.py:flat", "RuntimeError: too early", ["early.py:1: raise RuntimeError"]),
        ("torn.py:flat", "SyntaxError", ["torn.py:1: def flat(prices:"]),
    ],
)
def test_an_error_in_the_strategy_shows_the_authors_lines_and_none_of_ours(
    strategy: str, cause: str, where: list[str]
) -> None:
    told = run(strategy, *SAID[1:], code=1).stderr
    assert "error: nothing was sent; " in told
    assert cause in told
    assert all(f"  {line}" in told for line in where)
    assert "runner.py" not in told
    assert "lookahead.py" not in told
    assert "<frozen" not in told
    assert told.count("in endless") <= 5
    said = json.loads(run(strategy, *SAID[1:], "--json", code=1).stderr)
    assert (said["exit_code"], said["next"]) == (1, "mend it, then qmtl submit again")


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        ("nothing", "too many positional arguments"),
        ("two", "missing a required argument: 'window'"),
    ],
)
def test_a_strategy_that_cannot_be_called_with_prices_is_told_so(strategy: str, why: str) -> None:
    told = run(f"mine.py:{strategy}", *SAID[1:], code=1).stderr
    assert f"nothing was sent: {strategy} cannot be called with the prices alone: {why}" in told
    assert "fields of a dataclass" in told


def test_code_for_a_frame_that_got_an_array_is_told_how_to_get_one() -> None:
    told = run("mine.py:pandas_of_old", *SAID[1:], code=1).stderr
    assert "no attribute 'pct_change'" in told
    assert "Its prices are a numpy array. For a frame, " in told


def test_what_fails_on_import_shows_no_line_of_the_import_system(folder: Path) -> None:
    (folder / "torn.py").write_text("1 / 0\n")
    told = run("torn.py:flat", *SAID[1:], code=1).stderr
    assert "  torn.py:1: 1 / 0\n" in told
    assert "frozen" not in told


def test_a_part_of_a_package_is_to_be_named_as_one(folder: Path) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "part.py").write_text("from . import other\n")
    told = run("own/part.py:flat", *SAID[1:], code=1).stderr
    assert "It is part of a package: name it as PACKAGE.MODULE:NAME" in told


def test_what_the_author_prints_is_no_part_of_the_answer() -> None:
    told = run("mine.py:talks", *SAID[1:], "--json", code=3, handle=nobody)
    assert json.loads(told.stdout)["strategy_id"] == "talks"
    assert "I hold nothing" in told.stderr


def test_an_error_of_ours_stays_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(*given: Any, **options: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Runner, "submit", submit)
    with pytest.raises(ZeroDivisionError, match="ours"):
        run(*SAID)


def test_what_is_ours_is_ours_also_below_the_authors_folder() -> None:
    """As where qmtl is installed from its source, in the folder that commands are typed in."""
    with pytest.raises(AttributeError), source.authors_errors(source.OURS.parent):
        source.home_of(None)  # type: ignore[arg-type]  # A bug of ours.


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ("nowhere.csv", "nowhere.csv: No such file"),
        ("mine.py", "mine.py: is none of .csv, .csv.gz"),
    ],
)
def test_prices_that_are_none_are_said(prices: str, said: str) -> None:
    told = run("mine.py:flat", "--world", "us", "--prices", prices, code=1)
    assert f"nothing was sent: {prices}" in told.stderr
    assert said in told.stderr


# ---- Sending what was kept -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "code"), [("sent", 0), ("refused", 1), ("waiting", 3), ("elsewhere", 3)]
)
def test_flush_says_what_became_of_each(
    outcome: Any, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = [Flushed("s", "us", outcome, "why")]
    monkeypatch.setattr(Runner, "flush", lambda client: done)
    assert outcome in run("--flush", code=code).stdout
    (told,) = json.loads(run("--flush", "--json", code=code).stdout)
    assert told["outcome"] == outcome


def test_flush_is_done_when_what_stays_is_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    done = [Flushed("s", "us", "sent", ""), Flushed("t", "us", "elsewhere", "why")]
    monkeypatch.setattr(Runner, "flush", lambda client: done)
    assert "elsewhere" in run("--flush").stdout


def test_what_was_kept_without_a_credential_is_sent_under_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*SAID, code=3, handle=nobody)
    monkeypatch.setenv("QMTL_TOKEN", "the first there ever was")
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json={"strategy_id": "trend"})

    assert "sent" in run("--flush", handle=handle).stdout
    assert f"nothing was kept for {URL}" in run("--flush", handle=handle).stdout
    assert seen == ["Bearer the first there ever was"]


def test_what_was_kept_under_one_credential_is_not_sent_under_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QMTL_TOKEN", "ana's")
    run(*SAID, code=3, handle=nobody)
    monkeypatch.setenv("QMTL_TOKEN", "rita's")
    assert "under another credential" in run("--flush", code=3, handle=nobody).stdout
