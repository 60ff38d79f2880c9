"""The model of a disk: what is volatile, and what a power loss leaves of it."""

from collections.abc import Sequence

import pytest

from .disk import (
    ALL,
    LOSSES,
    NOTHING,
    SECTOR_BYTES,
    Answered,
    Created,
    Deleted,
    Event,
    Loss,
    Synced,
    SyncFailed,
    Truncated,
    Volatile,
    Written,
    cuts,
)

OLD, NEW = b"o" * 3 * SECTOR_BYTES, b"n" * 2 * SECTOR_BYTES
A = {"a": OLD}
WRITE = Written("a", 100, NEW)
AFTER = OLD[:100] + NEW + OLD[100 + len(NEW) :]

CASES = [
    ("a write is volatile", [WRITE], NOTHING, A),
    ("and may have come through", [WRITE], ALL, {"a": AFTER}),
    ("a synced write is safe", [WRITE, Synced("a", False)], NOTHING, {"a": AFTER}),
    ("a sync that fails saves nothing", [WRITE, SyncFailed("a")], ALL, A),
    ("nor does the next", [WRITE, SyncFailed("a"), Synced("a", False)], NOTHING, A),
    ("a cut is volatile", [Truncated("a", 7)], NOTHING, A),
    ("a cut that came through", [Truncated("a", 7)], ALL, {"a": OLD[:7]}),
    ("a file is longer", [Truncated("a", len(OLD) + 1)], ALL, {"a": OLD + b"\0"}),
    ("what nobody wrote is zeros", [Written("a", len(OLD) + 1, b"x")], ALL, {"a": OLD + b"\0x"}),
    ("a new file's name is volatile", [Created("b"), Synced("b", False)], NOTHING, A),
    ("and safe with its directory", [Created("b"), Synced("b", True)], NOTHING, {**A, "b": b""}),
    ("a deleted file comes back", [Deleted("a", False)], NOTHING, A),
    ("unless its directory is synced", [Deleted("a", True)], NOTHING, {}),
    ("a name may stand for a new file", [Deleted("a", False), Created("a")], NOTHING, A),
    ("whose content is its own", [Deleted("a", False), Created("a")], ALL, {"a": b""}),
]


@pytest.mark.parametrize(("events", "loss", "left"), [row[1:] for row in CASES], ids=str)
def test_what_is_left(events: Sequence[Event], loss: Loss, left: dict[str, bytes]) -> None:
    disk = Volatile(A)
    disk.see(events)
    assert disk.after(loss.draw(0)) == left


def test_sectors_are_old_or_new_each_by_itself() -> None:
    disk = Volatile(A)
    disk.see([WRITE])
    sectors = [slice(100, SECTOR_BYTES), slice(512, 1024), slice(1024, 100 + len(NEW))]
    seen = set()
    for salt in range(64):
        left = disk.after(LOSSES[-1].draw(salt))["a"]
        for sector in sectors:
            assert left[sector] in (OLD[sector], NEW[: len(OLD[sector])])
        seen.add(tuple(left[sector][:1] for sector in sectors))
    assert len(seen) == 8, "each is the one or the other, whatever became of the others"


def test_the_same_chance_leaves_the_same() -> None:
    disk = Volatile(A)
    disk.see([WRITE])
    assert disk.after(LOSSES[2].draw(5)) == disk.after(LOSSES[2].draw(5))


def test_every_operation_is_cut_in_its_middle_and_once_more_at_the_end() -> None:
    events = [WRITE, Answered(1), Synced("a", False), Deleted("a", True)]
    seen = [
        (number, disk.after(NOTHING.draw(0)), disk.after(ALL.draw(0)), answered)
        for number, disk, answered in cuts(A, events)
    ]
    assert seen == [
        (0, A, {"a": AFTER}, 0),
        (1, A, {"a": AFTER}, 1),
        (2, {"a": AFTER}, {}, 1),
        (3, {}, {}, 1),
    ]
