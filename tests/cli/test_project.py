"""`qmtl.toml`: found, read strictly, and relative to where it is."""

from datetime import date
from pathlib import Path

import pytest
import typer

from qmtl.entry.cli.project import NAME, Project, here, needed

WHOLE = """
world = "sandbox"
strategy = "strategy.py:Trend"
prices = "prices.csv"
id = "trend"
cost_bps = 5
until = 2021-12-31

[sweep]
window = [100, 200]
"""


def test_it_is_found_from_a_folder_below_and_its_paths_are_its_own(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(WHOLE)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert here(below) == Project(
        home=tmp_path,
        world="sandbox",
        strategy=f"{tmp_path}/strategy.py:Trend",
        prices=tmp_path / "prices.csv",
        strategy_id="trend",
        cost_bps=5,
        until=date(2021, 12, 31),
        grid={"window": [100, 200]},
    )


def test_a_module_is_named_as_it_is(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('strategy = "pkg.mod:Trend"')
    assert here(tmp_path).strategy == "pkg.mod:Trend"


def test_outside_a_project_nothing_is_said(tmp_path: Path) -> None:
    assert here(tmp_path) == Project()
    with pytest.raises(typer.BadParameter, match=r"say --world, or world in qmtl\.toml"):
        needed(here(tmp_path).world, "--world", "world")


def test_a_day_may_be_written_either_way(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('until = "2021-12-31"')
    assert here(tmp_path).until == date(2021, 12, 31)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("world = 1", "world cannot be 1"),
        ("cost_bps = true", "cost_bps cannot be True"),
        ("until = 'soon'", "until: 'soon' is no day"),
        ("until = 2021-12-31T00:00:00Z", "a day without a time"),
        ("until = 2021", "until cannot be 2021"),
        ("wrld = 'a'", "wrld is no key"),
        ("[sweep]\nwindow = 3", "sweep.window is a list of values"),
        ("[sweep]\nwindow = []", "sweep.window is a list of values"),
        ("world = ", NAME),
    ],
)
def test_what_it_may_not_say(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(typer.BadParameter, match=why):
        here(tmp_path)
