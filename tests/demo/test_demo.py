"""The demo tells the story that it promises, and the same one every time."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.demo.replay import WORLD
from qmtl.demo.run import main
from tests.dashboard.browsing import Seen
from tests.servers import served


def played(out: Path, **options: Any) -> dict[str, Any]:
    assert main(out, **options) == 0
    told: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole demo, once."""
    out = tmp_path_factory.mktemp("demo")
    played(out)
    return out


@pytest.fixture(scope="module")
def story(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Each strategy's row by name, and the timeline."""
    told = json.loads((folder / "summary.json").read_text())
    rows = {row["name"]: row for row in told["strategies"]}
    return rows, (folder / "timeline.txt").read_text().splitlines()


Story = tuple[dict[str, Any], list[str]]


def test_what_looks_ahead_is_stopped_at_submit_with_the_date(story: Story) -> None:
    rows, timeline = story
    row = rows["centred-average"]
    assert (row["phase"], row["reasons"]) == ("stopped_at_submit", ["look_ahead"])
    assert "1990-01-03" in row["details"][0]
    assert row["stages"] == {}
    assert sum("centred-average" in line for line in timeline) == 1


def test_luck_is_not_live(story: Story) -> None:
    rows, timeline = story
    for name in ("coin-flipper", "best-of-200"):
        assert rows[name]["effective_mode"] == "compute-only"
        assert rows[name]["reasons"]
        assert not any(name in line and "LIVE" in line for line in timeline)


def test_what_decays_goes_live_and_is_taken_out(story: Story) -> None:
    rows, timeline = story
    mine = [line for line in timeline if "yesterdays-losers" in line]
    live = next(n for n, line in enumerate(mine) if "LIVE" in line)
    assert any("DEMOTED to paper_campaign: live max_drawdown" in line for line in mine[live:])
    assert rows["yesterdays-losers"]["effective_mode"] == "paper"


def test_a_live_strategys_journal_tells_its_whole_way(story: Story) -> None:
    rows, timeline = story
    live = [name for name, row in rows.items() if row["effective_mode"] == "live"]
    assert len(live) >= 3
    steps = ("submitted by", "enters paper_campaign", "proposed for live", "approved by", "LIVE at")
    for name in live:
        mine = [line for line in timeline if f"  {name} " in line]
        at = [next(n for n, line in enumerate(mine) if step in line) for step in steps]
        assert at == sorted(at), mine[:8]
        assert set(rows[name]["stages"]) == {"backtest", "paper", "live"}


def test_its_pages_say_why_who_is_not_live_is_not(folder: Path, story: Story) -> None:
    """From the pages alone: the list in a line, a strategy's own page with every reason."""
    rows, _ = story
    world = f"/ui/worlds/{WORLD}"
    with (
        served(folder / "data", "--clock", "replay") as server,
        httpx.Client(base_url=server.url, headers=server.headers, timeout=30) as client,
    ):
        listed = Seen(client.get(world)).text.partition("Waits for")[2]
        for name, row in rows.items():
            page = Seen(client.get(f"{world}/strategies/{name}"))
            if row["phase"] == "stopped_at_submit":
                assert page.status == 404
                asked = Seen(client.get(f"{world}?q={name}")).text
                assert "What a check stopped before it was submitted is not known here" in asked
                continue
            assert (page.status, name in listed) == (200, True)
            assert ("Why it is live" in page.text) is (row["effective_mode"] == "live")
            why = page.text.partition("Why it is not live")[2].partition("Growth and drawdown")[0]
            reasons = [each for told in row["details"] for each in told.split("; ")]
            measured = [each for each in reasons if "must be" in each]
            assert measured or row["effective_mode"] == "live"
            for each in measured:
                assert each.lower() in why.lower(), f"{name}: {why}"


def test_each_of_its_pages_says_its_thing(folder: Path) -> None:
    world = f"/ui/worlds/{WORLD}"
    pages = {
        "/ui": "US large caps",
        "/ui/system": "a replay clock",
        "/ui/words": "e-value",
        world: "5 of 6",  # Slots taken.
        f"{world}/policy": "No error rate is promised",
        f"{world}/journal": "Nothing in it is ever edited",
        f"{world}/journal/verified": "Yes: 3,",
        f"{world}/hub": "paper fresh 1 of 1",
        f"{world}/day": "Nothing waits for people",
    }
    with (
        served(folder / "data", "--clock", "replay") as server,
        httpx.Client(base_url=server.url, headers=server.headers, timeout=30) as client,
    ):
        for path, said in pages.items():
            page = Seen(client.get(path))
            assert (page.status, said in page.text) == (200, True), f"{path}: {page.text}"


def test_a_second_time_it_is_the_same(tmp_path: Path) -> None:
    until = date(2003, 2, 28)
    first, second = (played(tmp_path / name, until=until) for name in ("first", "second"))
    assert first == second
    timelines = [(tmp_path / name / "timeline.txt").read_text() for name in ("first", "second")]
    assert timelines[0] == timelines[1]


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    with pytest.raises(SystemExit, match="no demo made it"):
        main(tmp_path)
    assert (tmp_path / "data" / "mine").exists()
