"""A program is named by all of its files."""

import shutil
from pathlib import Path

import pytest

import qmtl
from qmtl.adapters import program

SOURCE = Path(qmtl.__file__).parent


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the source, of which the program is said to be made."""
    source = tmp_path / "qmtl"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))

    def files(package: str) -> Path:
        return tmp_path.joinpath(*package.split("."))

    monkeypatch.setattr(program.resources, "files", files)
    return source


def names() -> tuple[str, str]:
    program._digest_of.cache_clear()
    return program.digest_of_core(), program.digest_of_all()


@pytest.mark.parametrize(
    ("file", "decides"),
    [
        ("core/promotion.py", True),
        ("core/evidence/sharpe.py", True),
        ("core/evidence/new.py", True),
        ("sim/trial.py", False),
        ("core/evidence/notes.txt", None),
    ],
)
def test_a_program_is_named_by_all_of_its_files(
    copied: Path, file: str, decides: bool | None
) -> None:
    core, everything = names()
    with (copied / file).open("a") as source:
        source.write("\n# Changed.\n")
    changed_core, changed = names()
    program._digest_of.cache_clear()
    assert (changed_core != core) == bool(decides)
    assert (changed != everything) == (decides is not None)
