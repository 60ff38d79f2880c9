"""What is safe from a power loss: files, and the names that lead to them."""

import os
from pathlib import Path

import pytest

from qmtl.adapters import directories
from qmtl.entry import wiring

Monkey = pytest.MonkeyPatch


def watched(monkeypatch: Monkey) -> list[int]:
    """The inodes of what is synced from here on, in order."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    return synced


def inodes(*paths: Path) -> list[int]:
    return [path.stat().st_ino for path in paths]


def test_a_folder_is_made_with_those_above_it_and_every_name_is_safe(
    tmp_path: Path, monkeypatch: Monkey
) -> None:
    synced = watched(monkeypatch)
    made = directories.made(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == directories.MODE
    assert synced == inodes(tmp_path, tmp_path / "a")


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: Monkey) -> None:
    synced = watched(monkeypatch)
    assert directories.made(tmp_path) == tmp_path
    assert synced == []


def test_the_first_token_is_safe_before_the_store_knows_it(
    tmp_path: Path, monkeypatch: Monkey
) -> None:
    synced = watched(monkeypatch)
    token = wiring._keep(tmp_path, "secret")
    assert synced == inodes(token, tmp_path)
