"""The demo tells the story that it promises, and the same one every time."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from qmtl.demo.run import main


def played(out: Path, **options: Any) -> dict[str, Any]:
    assert main(out, **options) == 0
    told: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return told


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """The whole demo, once: each strategy's row by name, and the timeline."""
    out = tmp_path_factory.mktemp("demo")
    rows = {row["name"]: row for row in played(out)["strategies"]}
    return rows, (out / "timeline.txt").read_text().splitlines()


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
