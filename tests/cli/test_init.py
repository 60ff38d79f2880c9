"""`qmtl init`: what a new project holds, that it means what it says, and that nothing is lost."""

import json
import re
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qmtl.adapters import policies
from qmtl.adapters.policies import documents
from qmtl.entry.cli import app, init, project, source
from qmtl.sdk.lookahead import find_leak
from qmtl.sdk.prices import Prices, as_prices


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["init", *arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "deep" / "trend"
    assert f"next: cd {folder} && qmtl submit" in run(str(folder))
    return folder


def prices_of(made: Path) -> Prices:
    here = project.here(made)
    assert here.prices is not None
    assert here.until is not None
    return as_prices(here.prices).between(date.min, here.until)


def test_it_holds_what_it_says_it_holds(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == set(init.WHAT) == set(init.contents())


def test_the_project_names_what_is_there(made: Path) -> None:
    here = project.here(made)
    assert (here.world, here.strategy_id, here.until) == ("sandbox", "trend", date(2021, 12, 31))
    assert here.grid
    assert here.strategy == f"{made}/strategy.py:Trend"
    assert prices_of(made).bars > 10 * 250


def test_bars_are_left_to_rehearse_with(made: Path) -> None:
    left = as_prices(made / "prices.csv").bars - prices_of(made).bars
    assert left > 200


def test_every_parameter_of_the_sweep_is_one_of_the_strategy(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "strategy", raising=False)
    monkeypatch.syspath_prepend(str(made))
    strategy = source.strategy_of(str(project.here(made).strategy))
    for name, values in project.here(made).grid.items():
        assert getattr(strategy, name) in values
    held = strategy.weights(prices_of(made).values)
    assert ((held >= 0) & (held <= 1)).all()
    assert held.sum(axis=1).max() == pytest.approx(1.0)
    assert find_leak(strategy, prices_of(made)) is None, "the sample is honest"


def test_the_policy_is_that_of_the_world_it_names(made: Path) -> None:
    written = policies.parse((made / "policy.yaml").read_bytes(), documents.YAML)
    shipped = policies.parse(policies.shipped("sandbox"), documents.YAML)
    assert policies.checksum(written) == policies.checksum(shipped)


def test_the_licence_of_the_prices_is_there(made: Path) -> None:
    assert "skfolio" in (made / "prices.LICENSE").read_text()
    assert "prices.LICENSE" in (made / "README.md").read_text()


def test_every_command_of_the_readme_is_one(made: Path) -> None:
    """As far as it is read before anything is done; that it works is the tutorial's to show."""
    blocks = re.findall(r"```sh\n(.*?)```", (made / "README.md").read_text(), flags=re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("qmtl ")]
    assert len(commands) > 5
    for name, *rest in commands:
        told = CliRunner().invoke(app, [name, *(word for word in rest if "-" in word), "--help"])
        assert told.exit_code == 0, told.output


@pytest.mark.parametrize(("folder", "inside"), [("x", "x"), (".", "")])
def test_an_empty_folder_will_do(
    folder: str, inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / inside).mkdir(exist_ok=True)
    told = json.loads(run(folder, "--json"))
    assert told["folder"] == folder
    assert told["next"] == [*(["cd x"] if inside else []), "qmtl submit"]
    assert {path.name for path in (tmp_path / inside).iterdir()} == set(told["files"])


def test_the_next_command_is_what_a_shell_understands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "next: cd 'my own $trend' && qmtl submit" in run("my own $trend")


def test_no_name_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "name a folder" in run("", code=2)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_empty_is_left_alone_and_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1")
    assert "is not empty: mine.py" in run(str(tmp_path), code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is no folder" in run(str(tmp_path / "file"), code=2)


def test_on_an_error_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dict(init.contents())
    # The last of them cannot be written: there is no folder of that name.
    monkeypatch.setattr(init, "contents", lambda: {**whole, "no/such": b""})
    told = run(str(tmp_path / "a" / "b"), code=2)
    assert "nothing was written" in told
    assert list(tmp_path.iterdir()) == []
