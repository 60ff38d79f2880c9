"""`qmtl why` against a server that is real, and against journals that were edited on the way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qmtl.adapters.client import Client
from qmtl.adapters.memory import MemoryStore
from qmtl.entry.cli import app, output
from qmtl.entry.cli import why as command
from qmtl.entry.cli.context import Setting
from tests import campaigns
from tests.exports import Told, chained, told_of
from tests.servers import served
from tests.worlds import live


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("QMTL_URL", "QMTL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QMTL_DATA", str(tmp_path / "no-data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def journal() -> Told:
    """Of a world named `w`, in which alpha has just gone live."""
    scene = live(MemoryStore())
    return told_of(scene.store, scene.world_id)


def serving(told: Told) -> Callable[[httpx.Request], httpx.Response]:
    """A server that knows one journal."""

    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/worlds/w/journal"
        after = int(request.url.params["after"])
        limit = int(request.url.params["limit"])
        page = told[after : after + limit]
        more = str(page[-1]["seq"]) if page and page[-1]["seq"] < len(told) else None
        return httpx.Response(200, json={"entries": page, "next_cursor": more})

    return handle


def run(told: Told, *arguments: str, code: int = 0) -> Any:
    setting = Setting(transport=httpx.MockTransport(serving(told)))
    asked = ["--url", "http://world.test", "why", *arguments]
    result = CliRunner().invoke(app, asked, obj=setting)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def edited(told: Told, seq: int, **fact: object) -> Told:
    """The journal with parts of one fact changed, by a server that hashes what it likes."""
    entry = told[seq - 1]
    changed = [*told[: seq - 1], {**entry, "fact": {**entry["fact"], **fact}}, *told[seq:]]
    return chained(changed, "w")


def test_a_promotion_is_derived_again(journal: Told) -> None:
    shown = run(journal, str(len(journal)), "--world", "w").stdout
    first, second, *_ = shown.splitlines()
    assert first == (
        f"entry {len(journal)}: promotion_applied of alpha by otto at 2026-01-17T00:01:00Z — "
        "re-derived: the same"
    )
    assert second == "  otto promoted alpha to step 1 of its ramp, a weight of 10 %."
    for said in ("at most 0.2: 0.004, pass", "12 of 8", "2 of 2 valid", "60 s old", "0 of 2 taken"):
        assert said in shown
    assert "checked: every entry up to it follows the one before by its hash" in shown
    assert "not checked: that nobody rewrote all of it" in shown
    assert "\x1b[" not in shown


def test_one_that_was_edited_is_not_the_same(journal: Told) -> None:
    wrong = edited(journal, len(journal), weight=0.4)
    shown = run(wrong, str(len(journal)), "--world", "w", code=1).stdout
    assert "re-derived: NOT the same" in shown
    assert ["weight", "0.4", "0.1"] in [line.split() for line in shown.splitlines()]


def test_scripts_get_json(journal: Told) -> None:
    told = json.loads(run(journal, str(len(journal)), "--world", "w", "--json").stdout)
    assert (told["seq"], told["kind"], told["outcome"]) == (
        len(journal),
        "promotion_applied",
        "same",
    )
    assert {"name": "observations", "value": "12 of 8"} in told["inputs"]
    assert told["differences"] == []
    wrong = edited(journal, len(journal), weight=0.4)
    told = json.loads(run(wrong, str(len(journal)), "--world", "w", "--json", code=1).stdout)
    assert told["differences"] == [{"where": "weight", "recorded": "0.4", "derived": "0.1"}]


def test_an_act_is_said(journal: Told) -> None:
    shown = run(journal, "1", "--world", "w").stdout
    assert "entry 1: live_allowed by polly" in shown
    assert "nothing was derived: it is what somebody did" in shown
    assert "polly allowed live." in shown


def test_only_what_is_needed_is_read_and_in_pages(
    journal: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PAGE", 7)
    unreadable = [*journal[:20], {"seq": 21, "fact": "no fact"}]
    assert "the same" in run(unreadable, "20", "--world", "w").stdout


def test_an_entry_that_there_is_not_names_the_last(journal: Told) -> None:
    told = run(journal, "99", "--world", "w", code=1)
    assert f"there is no entry 99: the journal of w ends at {len(journal)}\n" in told.stderr
    assert "next: qmtl journal list w" in told.stderr
    assert "the journal of w is empty" in run([], "1", "--world", "w", code=1).stderr


def test_a_journal_with_a_hole_is_refused(journal: Told) -> None:
    told = run([*journal[:5], *journal[6:]], str(len(journal) - 1), "--world", "w", code=1)
    assert "entry 6 was removed: entry 7 comes instead" in told.stderr


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"fact": {"kind": "killed", "reason": "x"}}, "entry 4 was edited: its fact is another"),
        ({"actor": "eve"}, "entry 4 was edited"),
        ({"hash": "0" * 64}, "entry 4 was edited"),
    ],
)
def test_a_journal_that_was_edited_is_refused(
    journal: Told, parts: dict[str, Any], says: str
) -> None:
    wrong = [*journal[:3], {**journal[3], **parts}, *journal[4:]]
    assert says in run(wrong, "9", "--world", "w", code=1).stderr
    assert "live_allowed" in run(wrong, "1", "--world", "w").stdout, "what is before it stands"


def test_a_server_that_tells_no_chain_is_refused(journal: Told) -> None:
    bare = [{k: v for k, v in journal[0].items() if k not in ("hash", "previous")}]
    said = run(bare, "1", "--world", "w", code=1).stderr
    assert "entry 1: the server tells no previous, hash of it" in said


def test_the_world_is_the_projects(journal: Told, tmp_path: Path) -> None:
    assert "say --world, or world in qmtl.toml" in run(journal, "1", code=2).stderr
    (tmp_path / "qmtl.toml").write_text('world = "w"\n')
    assert "live_allowed" in run(journal, "1").stdout
    for wrong in ("0", "x"):
        run(journal, wrong, code=2)


def test_by_hand_against_a_real_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = campaigns.stamp(campaigns.BEGAN)
    with served(tmp_path / "data", "--clock", "replay", "--at", at) as server:
        monkeypatch.setenv("QMTL_URL", server.url)
        monkeypatch.setenv("QMTL_TOKEN", server.token)
        with Client(server.url, server.token) as client:
            campaigns.begin(client, "us", 1)
            campaigns.month_of_paper(client, {"us": 1})
            explained = client.explain("us", "s00")
        said = CliRunner().invoke(app, ["explain", "us", "s00"])
        assert said.exit_code == 0
        assert "s00 is on paper since 2024-01-01." in said.stdout
        assert all(sentence in said.stdout for sentence in explained["sentences"])
        loop = CliRunner().invoke(app, ["world", "campaign-loop", "us", "--once"])
        assert loop.exit_code == 0, loop.output
        with Client(server.url, server.token) as client:
            kinds = {entry["kind"]: entry["seq"] for entry in client.journal("us")}
        for kind in ("evaluations_recorded", "phase_entered", "candidate_proposed"):
            found = CliRunner().invoke(app, ["why", str(kinds[kind]), "--world", "us"])
            assert found.exit_code == 0, found.output
            assert "re-derived: the same" in found.stdout, found.output


def test_a_terminal_sees_a_long_journal_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"seq": 1}, {"seq": 2}]
    assert list(output.watched(iter(entries), 2, 1)) == entries
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(output.watched(iter(entries), 2, 1)) == entries
    assert "100%" in capsys.readouterr().err
