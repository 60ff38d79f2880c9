"""The code blocks of a page, run as a reader would: in order, in one folder, against one server."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cronsim import CronSim

FENCE = re.compile(r"^```([a-z]+)[ \t]*(\S*)[^\n]*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
SECONDS_MAX = 120
NEVER = datetime(2024, 1, 1, tzinfo=UTC)  # Any instant: what is asked is whether one follows.
SAID = frozenset({"text", "mermaid"})  # What somebody says, or draws; nothing that runs.
FILES = frozenset({"yaml", "toml", "json", "csv"})  # With a name behind it, the reader's file.


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, the file it is when it has a name, its text, its line."""

    language: str
    name: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Every fenced block of a page.  One without a language is a fault: nothing would run it."""
    bare = [number for number, line in enumerate(page.splitlines(), 1) if line == "```"]
    found = [
        Block(m[1], m[2], m[3], page.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(page)
    ]
    assert len(bare) == len(found), "every block says its language"
    return found


def environment(**told: str) -> dict[str, str]:
    """A reader's: `qmtl` on the path, and none of the settings that are ours."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("QMTL_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", **told}


def run(block: Block, folder: Path, env: Mapping[str, str]) -> str:
    """What a block prints.  Raises AssertionError, naming the line, when it fails."""
    match block.language:
        case "sh":
            command = ["bash", "-e", "-o", "pipefail", "-c", block.text]
        case "python":
            script = folder / (block.name or f"block_{block.line}.py")
            script.write_text(block.text)
            command = [sys.executable, str(script)]
        case "crontab":
            return "".join(_run_cron_line(line, folder, env) for line in block.text.splitlines())
        case language if language in FILES and block.name:
            (folder / block.name).write_text(block.text)
            return ""
        case language:
            assert language in SAID, f"line {block.line}: nothing runs a {language} block"
            return ""
    return _run(command, folder, env, block.line)


def _run_cron_line(line: str, folder: Path, env: Mapping[str, str]) -> str:
    minute, hour, day, month, weekday, command = line.split(maxsplit=5)
    assert next(CronSim(" ".join((minute, hour, day, month, weekday)), NEVER)), line
    return _run(["bash", "-e", "-c", command], folder, env, 0)


def _run(command: list[str], folder: Path, env: Mapping[str, str], line: int) -> str:
    done = subprocess.run(
        command, cwd=folder, env=dict(env), capture_output=True, text=True, timeout=SECONDS_MAX
    )
    assert done.returncode == 0, f"line {line}: {done.stdout}{done.stderr}"
    return done.stdout
