"""What is done to a database that was put back from a copy, before anybody is served from it.

A copy does not know what was stopped after it was taken: a demotion, a kill, a token revoked.  So
all of it is stopped.  Starting again is for people, at the gates that are there for that.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from qmtl.core.names import SYSTEM, ActorId, Role, WorldId

from . import tokens, worlds
from .ports import Store
from .step import By

RESTORER: Final = ActorId("restore")  # In the journal; no credential has to do with it.
WHY: Final = "restored from a copy: what was stopped after it was taken is not known here"


@dataclass(frozen=True, slots=True)
class Stopped:
    """`killed`: the worlds that this killed; others were.  Tokens: how many of each."""

    killed: tuple[WorldId, ...]
    tokens_revoked: int
    tokens_kept: int


def stop(store: Store, now: datetime, *, keep_tokens: bool) -> Stopped:
    """Kill every world; and, unless they are to be kept, revoke every token."""
    by = By(RESTORER, frozenset({Role.ADMIN, Role.OPERATOR}), now)
    killed = []
    for world_id in sorted(store.load(SYSTEM).worlds):
        before = store.head(world_id)
        worlds.kill(store, world_id, by, WHY)
        if store.head(world_id) != before:
            killed.append(world_id)
    standing = tokens.listed(store)
    if keep_tokens:
        return Stopped(tuple(killed), 0, len(standing))
    for token in standing:
        tokens.revoke(store, by, token.token_sha256)
    return Stopped(tuple(killed), len(standing), 0)
