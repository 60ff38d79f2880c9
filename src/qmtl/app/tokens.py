"""API tokens, by their digests.  The tokens themselves are made at the door and kept nowhere."""

from collections.abc import Sequence
from datetime import datetime

from qmtl.core.errors import Invalid, UnknownToken
from qmtl.core.facts import Fact, TokenCreated, TokenRevoked
from qmtl.core.names import SYSTEM, ActorId, Role, WorldId
from qmtl.core.view import Token

from .ports import Commit, Store
from .step import By, world


def create(
    store: Store,
    by: By,
    token_sha256: str,
    actor: ActorId,
    roles: Sequence[Role],
    world_id: WorldId | None,
    expires_at: datetime | None,
) -> Token:
    """Let a token in: for one world, or for every one.  Raises UnknownWorld, Invalid."""
    if not roles:
        raise Invalid("roles: a token needs at least one.")
    if expires_at is not None and expires_at <= by.now:
        raise Invalid("expires_at: it has passed already.")
    if world_id is not None:
        world(store, world_id)
    fact = TokenCreated(
        token_sha256=token_sha256,
        actor=actor,
        roles=tuple(sorted(set(roles))),
        world_id=world_id,
        expires_at=expires_at,
    )
    _commit(store, by, fact)
    return store.load(SYSTEM).tokens[token_sha256]


def revoke(store: Store, by: By, token_sha256: str) -> None:
    """From the next request on it opens nothing.  Raises UnknownToken."""
    if token_sha256 not in store.load(SYSTEM).tokens:
        raise UnknownToken(token_sha256[:12])
    _commit(store, by, TokenRevoked(token_sha256=token_sha256))


def listed(store: Store) -> list[Token]:
    """Every token, oldest first."""
    tokens = store.load(SYSTEM).tokens.values()
    return sorted(tokens, key=lambda token: (token.created_at, token.token_sha256))


def _commit(store: Store, by: By, fact: Fact) -> None:
    def attempt() -> None:
        view = store.load(SYSTEM)
        done = store.commit(SYSTEM, Commit(view.expected, (fact,), by.actor, by.now))
        assert done is not None, "only one process writes to _system at a time"

    store.write(attempt)
