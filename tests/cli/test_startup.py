"""Nothing heavy is loaded before it is needed: what somebody waits for at a prompt is only this."""

import subprocess
import sys

import pytest

HEAVY = {
    *("numpy", "httpx", "rich", "fastapi", "pandas", "polars", "narwhals"),
    *("pydantic", "sqlalchemy", "starlette", "uvicorn", "yaml"),
}


def loaded(code: str) -> set[str]:
    """Which of HEAVY some code has loaded by its end, in a process of its own."""
    ended = f"import sys\ntry:\n    {code}\nfinally:\n    print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", ended], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    assert loaded("import qmtl") == set()


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_the_program_loads_nothing_heavy(arguments: str) -> None:
    assert loaded(f"from qmtl.entry.cli import app; app({arguments.split()!r})") == set()


@pytest.mark.parametrize("arguments", ["submit --help", "doctor --help", "status --help"])
def test_the_help_of_a_command_loads_only_what_shows_it(arguments: str) -> None:
    # Typer itself reads a command's parameters with pydantic.
    assert loaded(f"from qmtl.entry.cli import app; app({arguments.split()!r})") <= {"pydantic"}


def test_heavy_things_would_be_seen() -> None:
    assert loaded("import numpy, httpx") >= {"numpy", "httpx"}
