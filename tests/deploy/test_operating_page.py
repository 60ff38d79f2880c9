"""docs/operating.md: its blocks run, its commands are ours, and each alert has advice."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from qmtl.entry import cli
from tests import pages
from tests.servers import served

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
RULES = yaml.safe_load((ROOT / "deploy" / "observe" / "alerts.yml").read_text())
ALERTS = {alert["alert"] for group in RULES["groups"] for alert in group["rules"]}
COMMANDS = sorted({" ".join(found.split()) for found in re.findall(r"`(qmtl [^`]*)`", PAGE)})
SPEAK_FOR_THEMSELVES = {  # The alert's own text says all there is to do.
    "QmtlFailing",
    "QmtlSlow",
    "QmtlWorldsUnseen",
    "QmtlKilled",
    "QmtlFrozen",
}


def test_every_block_runs_on_a_fresh_server(tmp_path: Path) -> None:
    found = pages.blocks(PAGE)
    assert len(found) >= 3
    with served(tmp_path / "data") as server:
        env = pages.environment(
            QMTL_URL=server.url, QMTL_TOKEN=server.token, QMTL_DATA=str(tmp_path / "data")
        )
        for block in found:
            pages.run(block, tmp_path, env)
    with served(tmp_path / "restored") as again:  # With a token of its own: the old ones are gone.
        assert again.token != server.token
    key = (tmp_path / "data" / "journal.key").read_bytes()
    assert (tmp_path / "restored" / "journal.key").read_bytes() == key


def unknown(said: str) -> set[str]:
    """Options that the program has not.  Raises KeyError when it has no such command."""
    command: Any = get_command(cli.app)
    words = said.split()[1:]
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {opt for param in command.params for opt in param.opts}
    return {word for word in words if word.startswith("--")} - known


@pytest.mark.parametrize("said", COMMANDS)
def test_a_command_is_one_of_the_programs(said: str) -> None:
    assert unknown(said) == set()


def test_a_command_that_there_is_not_is_found() -> None:
    assert len(COMMANDS) > 10
    assert unknown("qmtl db backup --into x") == {"--into"}
    with pytest.raises(KeyError):
        unknown("qmtl db bakcup")


def test_every_alert_has_its_row() -> None:
    told = set(re.findall(r"\bQmtl[A-Z]\w+", PAGE))
    assert told <= ALERTS
    assert ALERTS - told == SPEAK_FOR_THEMSELVES
