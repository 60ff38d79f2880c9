"""Completion: what the shell is told at a tab, out of the code and out of a server, or nothing."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from qmtl.adapters.client import Client
from qmtl.entry.cli import app, completion
from tests import campaigns
from tests.servers import Served, served

SHELLS = [shell.value for shell in completion.Shell]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    at = campaigns.stamp(campaigns.BEGAN)
    data = tmp_path_factory.mktemp("completion") / "data"
    with served(data, "--clock", "replay", "--at", at) as found:
        with Client(found.url, found.token) as client:
            campaigns.begin(client, "us-equity", 3)
        yield found


def asked(line: str, url: str, token: str = "") -> tuple[list[str], str]:
    """What bash is told to offer at the end of a line, and what is said beside it."""
    words = line.split(" ")
    environment = {
        **os.environ,
        completion.VARIABLE: "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "QMTL_URL": url,
        "QMTL_TOKEN": token,
    }
    command = [sys.executable, "-m", "qmtl"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split(), done.stderr


NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("qmtl subm", ["submit"]),
        ("qmtl world kil", ["kill"]),
        ("qmtl submit --unt", ["--until"]),
        ("qmtl hub latest us --stage pa", ["paper"]),
        ("qmtl nothing x", []),
    ],
)
def test_commands_and_options_come_from_the_code(line: str, offered: list[str]) -> None:
    assert asked(line, NOWHERE) == (offered, "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("qmtl world show us", ["us-equity"]),
        ("qmtl status ", ["sandbox", "us-equity"]),
        ("qmtl submit --world s", ["sandbox"]),
        ("qmtl world status us-equity s0", ["s00", "s01", "s02"]),
        ("qmtl world plan nowhere s", []),
    ],
)
def test_ids_come_from_the_server(line: str, offered: list[str], server: Served) -> None:
    assert asked(line, server.url, server.token) == (offered, "")


def test_the_server_that_is_named_on_the_line_is_the_one_asked(server: Served) -> None:
    line = f"qmtl --url {server.url} world show us"
    assert asked(line, NOWHERE, server.token) == (["us-equity"], "")


def test_who_may_not_ask_is_offered_nothing_and_told_nothing(server: Served) -> None:
    assert asked("qmtl world show ", server.url, "wrong") == ([], "")


def test_a_server_that_is_away_or_silent_is_not_waited_for() -> None:
    assert asked("qmtl world show ", NOWHERE) == ([], "")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # It takes calls, and says nothing.
        began = time.monotonic()
        assert asked("qmtl world show ", f"http://127.0.0.1:{silent.getsockname()[1]}") == ([], "")
        assert time.monotonic() - began < completion.WAIT_SEC + 5, "it is over without an answer"


def test_a_server_that_answers_drop_by_drop_is_not_waited_for() -> None:
    """Each read is in time, and the whole of it is not."""
    held_up = threading.Event()

    def asked(client: Client) -> list[dict[str, str]]:
        held_up.wait(30)
        return [{"id": "late"}]

    context = typer.Context(get_command(app))
    began = time.monotonic()
    assert completion._answered(context, asked) == []
    assert time.monotonic() - began < 20
    held_up.set()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_each_shell(shell: str) -> None:
    result = CliRunner().invoke(app, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert completion.VARIABLE in result.stdout
    assert f"complete_{shell}" in result.stdout
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=result.stdout, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["completion", "tcsh"]).exit_code == 2


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    script = CliRunner().invoke(app, ["completion", "bash"]).stdout
    folder = Path(sys.executable).parent
    # What bash itself does at a tab.
    ask = (
        "COMP_WORDS=(qmtl poli); COMP_CWORD=1\n_qmtl_completion qmtl\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("policy\n", "")
