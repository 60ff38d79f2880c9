"""Commands with heavy work: where it is done is said, how far it is is seen, it can be stopped."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qmtl.entry.cli import app

DEADLINE_SEC = 60.0
SIMULATE = ("policy", "simulate", "sandbox", "--strategies", "11", "--days", "25")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--executor", "slurm"), "'slurm' is none of processes, threads, inline, or dask://"),
        (("--executor", "inline", "--jobs", "2"), "jobs are of processes and threads: inline has"),
        (("--executor", "dask://h:1", "--jobs", "2"), "jobs are of processes and threads"),
        (("--jobs", "0"), "greater than or equal to 1"),
    ],
)
@pytest.mark.parametrize("command", [SIMULATE, ("sim", "--seeds", "0-1", "--steps", "5")])
def test_a_place_that_there_is_not_is_wrong_usage(
    command: tuple[str, ...], options: tuple[str, ...], says: str
) -> None:
    told = CliRunner().invoke(app, [*command, *options])
    assert told.exit_code == 2
    assert told.stdout == ""
    assert says in " ".join(told.stderr.replace("│", " ").split())


def test_a_terminal_sees_pieces_as_they_are_done() -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "qmtl", *SIMULATE, "--worlds", "2", "--executor", "threads"]
    with subprocess.Popen(
        [*command, "--json"],
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                part = os.read(master, 65_536)
            except OSError:  # How a terminal says that nobody writes to it any more.
                break
            if not part:
                break
            seen += part
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"{")
        assert process.wait(DEADLINE_SEC) == 0
    os.close(master)
    assert b"worlds" in seen
    assert b"0/2" in seen
    assert b"2/2" in seen


def children_of(process_id: int) -> list[int]:
    """Its processes that compute; not the one that clears up behind them."""
    listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    commands = {int(each): Path(f"/proc/{each}/cmdline").read_bytes() for each in listed}
    return [each for each, command in commands.items() if b"spawn_main" in command]


@pytest.mark.parametrize("after_sec", [0.0, 3.0], ids=["they start", "they compute"])
def test_ctrl_c_ends_it_and_its_workers_without_a_word_from_them(after_sec: float) -> None:
    command = [sys.executable, "-m", "qmtl", *SIMULATE[:3], "--worlds", "9", "--days", "2000"]
    process = subprocess.Popen(
        [*command, "--jobs", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until = time.monotonic() + DEADLINE_SEC
        while len(workers := children_of(process.pid)) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(after_sec)
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
        begun = time.monotonic()
        _, told = process.communicate(timeout=DEADLINE_SEC)
        assert time.monotonic() - begun < DEADLINE_SEC / 4, "nobody waits for what they are at"
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode != 0
    assert "Traceback" not in told, told
    assert not [each for each in workers if Path(f"/proc/{each}").exists()]
