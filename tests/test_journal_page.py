"""docs/journal.md does what it says, on a fresh server; and its own check finds what ours does."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.exceptions import InvalidSignature

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.wire.verify import Fault, verify
from tests import pages
from tests.adapters.test_retention import lived, retain
from tests.exports import KEY, Told, exported, told_of
from tests.servers import served

PAGE = Path(__file__).parent.parent / "docs" / "journal.md"
BLOCKS = pages.blocks(PAGE.read_text())
NAMED = {block.name: block.text for block in BLOCKS if block.name}


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    with served(tmp_path / "data") as server:
        env = pages.environment(QMTL_URL=server.url, QMTL_TOKEN=server.token)
        said = "".join(pages.run(block, folder, env) for block in BLOCKS)
    assert "sandbox.jsonl: whole." in said
    assert "it leads to every head that was kept: 1" in said
    assert "2 entries, as they were written" in said


def test_every_kind_of_wrong_is_explained() -> None:
    text = PAGE.read_text()
    assert all(f"`{fault}`" in text for fault in Fault)


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("page") / "check.py"
    path.write_text(NAMED["check.py"])
    spec = importlib.util.spec_from_file_location("check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def halved(lines: list[bytes]) -> list[bytes]:
    return lines[: len(lines) // 2]


@pytest.mark.parametrize(
    "change",
    [
        halved,
        lambda lines: lines[::-1],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [*lines[:2], *lines[1:]],
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        lambda lines: [*lines[:1], lines[1].replace(b"olga", b"rita"), *lines[2:]],
        lambda lines: [*lines[:1], lines[1].replace(b"fire", b"Fire"), *lines[2:]],
        lambda lines: [*lines[:-1], lines[-1].replace(b":30:", b":31:")],
    ],
)
def test_both_checks_find_the_same(
    check: ModuleType, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    lines = NAMED["example.jsonl"].encode().splitlines(keepends=True)
    public = NAMED["example-key.json"].split('"')[-2]
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"".join(lines))
    assert check.check(str(path), public) == verify(lines).entries == 2
    wrong = change(lines)
    assert wrong != lines
    path.write_bytes(b"".join(wrong))
    assert verify(wrong).problem is not None
    with pytest.raises((AssertionError, AttributeError, KeyError, ValueError, InvalidSignature)):
        check.check(str(path), public)


def reduced() -> Told:
    """A journal of which retention took something, as it is told."""
    scene = lived(MemoryStore())
    retain(scene)
    return told_of(scene.store, scene.world_id)


def rewritten(told: Told, seq: int, **changes: object) -> Told:
    """One entry's fact is another; the chain is as it was."""
    fact = {**told[seq - 1]["fact"], **changes}
    return [*told[: seq - 1], {**told[seq - 1], "fact": fact}, *told[seq:]]


@pytest.mark.parametrize(
    "case", ["whole", "another left", "more of it", "nobody said so", "of another entry"]
)
def test_a_part_that_retention_took_is_missing_and_no_other(
    check: ModuleType, tmp_path: Path, case: str
) -> None:
    """The page's own check, and ours."""
    told = reduced()
    named = [each for entry in told for each in entry["fact"].get("reduced", ())]
    first, whole = named[0]["seq"], [e["seq"] for e in told if e["kind"] == "snapshot_stored"]
    assert len(named) > 8
    wrong = None
    match case:
        case "another left":
            told, wrong = rewritten(told, first, weights={"alpha": 0.5}), first
        case "more of it":  # One that is held, as if it had been reduced, too.
            wrong = max(set(whole) - {each["seq"] for each in named})
            parts = {"parts": ["stats"], "at": "2026-01-01T00:00:00Z"}
            told = rewritten(told, wrong, stats=None, removed=parts)
        case "nobody said so":
            end = next(e["seq"] for e in told if e["kind"] == "retention_applied")
            told, wrong = told[: end - 1], first
        case "of another entry":
            last = named[-1]["seq"]
            told, wrong = rewritten(told, first, **told[last - 1]["fact"]), first
    lines = exported(told, "w")
    found = verify(lines)
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"".join(lines))
    public = KEY.told["public_key"]
    if wrong is None:
        assert (found.problem, found.reduced) == (None, len(named))
        assert check.check(str(path), public) == len(told)
    else:
        assert found.problem is not None
        assert (found.problem.fault, found.problem.seq) == (Fault.EDITED, wrong)
        with pytest.raises(AssertionError, match=r"a part of their facts|was edited"):
            check.check(str(path), public)
