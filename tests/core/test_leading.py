"""Of the loops that are there, each world has one; they share out the worlds."""

from collections import Counter

from qmtl.core.leading import leader
from qmtl.core.names import WorldId

WORLDS = [WorldId(f"w{number}") for number in range(1_000)]
LOOPS = ["a", "b", "c", "d"]


def test_each_loop_has_its_share() -> None:
    shares = Counter(leader(world, LOOPS) for world in WORLDS)
    assert set(shares) == set(LOOPS)
    assert all(190 < count < 310 for count in shares.values()), shares  # 250, and 4.5 deviations.


def test_when_one_goes_only_its_worlds_move() -> None:
    before = {world: leader(world, LOOPS) for world in WORLDS}
    after = {world: leader(world, ["d", "b", "c"]) for world in WORLDS}
    moved = {world for world in WORLDS if before[world] != after[world]}
    assert moved == {world for world in WORLDS if before[world] == "a"}
    assert {after[world] for world in moved} == {"b", "c", "d"}


def test_of_none_there_is_none() -> None:
    assert leader(WORLDS[0], []) is None
