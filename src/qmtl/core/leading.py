"""Which of the campaign loops that are there works on which world.

Every loop that is there has its share, and when one goes only its own worlds move: the rendezvous
hashing of Thaler and Ravishankar (IEEE/ACM Transactions on Networking 6(1), 1998).
"""

from collections.abc import Iterable
from hashlib import sha256

from .names import WorldId


def leader(world_id: WorldId, loops: Iterable[str]) -> str | None:
    """The one of these loops that works on a world; None of none.  Their order means nothing."""

    def score(loop: str) -> bytes:
        return sha256(f"{world_id}\0{loop}".encode()).digest()

    return max(loops, key=score, default=None)
