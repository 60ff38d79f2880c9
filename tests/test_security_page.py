"""SECURITY.md says which test shows each thing; every one of them is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text()
LINES_MAX = 120
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]


def functions_of(path: Path) -> set[str]:
    found = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "test"), NAMED, ids=["::".join(each) for each in NAMED])
def test_what_it_names_is_there(file: str, test: str) -> None:
    assert (ROOT / file).is_file()
    assert not test or test in functions_of(ROOT / file)


def test_everything_it_claims_is_shown() -> None:
    assert len(ROWS) > 25
    for row in ROWS:
        *_, shown, _ = row.split("|")
        assert re.search(r"`tests/[\w/]+\.py::test_\w+`", shown), row


def test_it_is_read_in_one_sitting() -> None:
    assert len(PAGE.splitlines()) <= LINES_MAX
