"""API tokens, by their digests.  The tokens themselves are made at the door and kept nowhere.

Under dual control one admin alone makes nobody powerful: a token with a role of `POWERS` opens
nothing until a second admin has confirmed it, and whatever its bearer does counts as its maker's
hand, too (`core/view.py`, `hands_of`), since the maker has seen it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from qmtl.core.errors import Conflict, Forbidden, Invalid, UnknownToken
from qmtl.core.facts import (
    ConfirmationGiven,
    ConfirmationRequested,
    Fact,
    TokenCreated,
    TokenRevoked,
)
from qmtl.core.names import SYSTEM, ActorId, Role, WorldId
from qmtl.core.view import Token, WorldView

from .ports import Commit, Store
from .step import By, world

POWERS: Final = frozenset({Role.OPERATOR, Role.APPROVER, Role.POLICY_ADMIN, Role.ADMIN})
RESERVED: Final = "oidc:"  # How the actors of an issuer's JWTs begin, and no token's.
CONFIRM_WITHIN: Final = timedelta(days=7)  # Later, nobody remembers why it was asked for.
OVERLAP_DEFAULT: Final = timedelta(hours=1)  # To put the new one where the old one is.
OVERLAP_MAX: Final = timedelta(days=7)  # Longer is no rotation.
TOKENS_MAX: Final = 10_000  # All of them are in memory.


def create(
    store: Store,
    by: By,
    token_sha256: str,
    actor: ActorId,
    roles: Sequence[Role],
    world_id: WorldId | None,
    expires_at: datetime | None,
    *,
    dual_control: bool = False,
) -> Token:
    """Let a token in: for one world, or for every one; at once, or once it is confirmed.

    Raises UnknownWorld, Invalid, Conflict.
    """
    if not roles:
        raise Invalid("roles: a token needs at least one.")
    if actor.startswith(RESERVED):
        raise Invalid(f"actor: names that begin with {RESERVED} are those of an issuer's JWTs.")
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
        sponsor=by.actor if dual_control else None,
    )

    def decide(view: WorldView) -> list[Fact]:
        if len(view.tokens) >= TOKENS_MAX:
            raise Conflict(f"There are {TOKENS_MAX} tokens: revoke those that nobody uses.")
        if not dual_control or not POWERS & set(roles):
            return [fact]
        return [fact, _asked(token_sha256, by)]

    return _commit(store, by, decide).tokens[token_sha256]


def _asked(token_sha256: str, by: By) -> Fact:
    """INVARIANT: a token that a confirmation is named by opens nothing (`is_pending`)."""
    return ConfirmationRequested(
        confirmation_id=token_sha256, what="token", policy_version=None, sponsor=by.sponsor
    )


def is_pending(view: WorldView, token: Token) -> bool:
    """Whether a second admin has yet to confirm it; `view` is of `_system`."""
    return token.token_sha256 in view.confirmations


def confirm(store: Store, by: By, token_sha256: str) -> Token:
    """The second admin's word.  Twice is once.

    Raises Forbidden for the first one's hands, UnknownToken, Conflict when it was asked too long
    ago.
    """

    def decide(view: WorldView) -> list[Fact]:
        _known(view, token_sha256)
        asked = view.confirmations.get(token_sha256)
        if asked is None:
            return []
        if asked.hands & by.hands:
            raise Forbidden(
                f"{asked.by} asked for it: another admin has to confirm it, with a credential "
                f"that is not of {asked.by}'s making."
            )
        if by.now - asked.at > CONFIRM_WITHIN:
            raise Conflict(
                f"It was asked for more than {CONFIRM_WITHIN.days} days ago: revoke it, and make "
                "another."
            )
        return [ConfirmationGiven(confirmation_id=token_sha256)]

    return _commit(store, by, decide).tokens[token_sha256]


def rotate(
    store: Store,
    by: By,
    token_sha256: str,
    new_sha256: str,
    overlap: timedelta,
    *,
    own: bool,
    dual_control: bool = False,
) -> Token:
    """The next token of the same actor, roles, world and end; this one ends after `overlap`.

    `own`: it is the credential that asks.  Any third is revoked: one that took its place before,
    so that of two who hold a stolen token one finds theirs shut, and one whose place it took.

    Raises Forbidden, Conflict, Invalid, UnknownToken.
    """
    if not timedelta(0) <= overlap <= OVERLAP_MAX:
        raise Invalid(f"overlap: at most {OVERLAP_MAX.days} days.")

    def decide(view: WorldView) -> list[Fact]:
        token = _known(view, token_sha256)
        if not own:
            _may_rotate_for_others(by, token, dual_control)
        if is_pending(view, token):
            raise Conflict("It waits for a second admin: confirm it first.")
        if token.ends_at is not None and token.ends_at <= by.now:
            raise Conflict("It has ended: make another.")
        return [
            *(TokenRevoked(token_sha256=each) for each in _beside(view, token)),
            TokenCreated(
                token_sha256=new_sha256,
                actor=token.actor,
                roles=token.roles,
                world_id=token.world_id,
                expires_at=token.expires_at,
                sponsor=token.sponsor,
                replaces=token_sha256,
                overlap_until=by.now + overlap,
            ),
        ]

    return _commit(store, by, decide).tokens[new_sha256]


def _may_rotate_for_others(by: By, token: Token, dual_control: bool) -> None:
    """INVARIANT: rotating gives nobody a role that they could not have given."""
    if Role.ADMIN not in by.roles:
        raise Forbidden("a token is rotated by its bearer, or by an admin.")
    if Role.POLICY_ADMIN in token.roles and Role.POLICY_ADMIN not in by.roles:
        raise Forbidden(f"{Role.POLICY_ADMIN} is given by who has it; no other role implies it.")
    if dual_control and POWERS & set(token.roles):
        raise Forbidden(
            "under dual control only its bearer rotates it, since who rotates it sees the new "
            "one: revoke it and make another, which a second admin confirms."
        )


def _beside(view: WorldView, token: Token) -> list[str]:
    """The one that took its place, or whose place it took.

    INVARIANT: of what was made as one token, at most two are there, the later for the earlier.
    """
    return sorted(
        other.token_sha256
        for other in view.tokens.values()
        if token.token_sha256 == other.replaces or token.replaces == other.token_sha256
    )


def revoke(store: Store, by: By, token_sha256: str) -> None:
    """From the next request on it opens nothing.  Raises UnknownToken."""

    def decide(view: WorldView) -> list[Fact]:
        token = _known(view, token_sha256)
        gone: list[Fact] = [TokenRevoked(token_sha256=token_sha256)]
        if is_pending(view, token):
            gone.append(ConfirmationGiven(confirmation_id=token_sha256))
        return gone

    _commit(store, by, decide)


def listed(store: Store) -> list[Token]:
    """Every token, oldest first."""
    tokens = store.load(SYSTEM).tokens.values()
    return sorted(tokens, key=lambda token: (token.created_at, token.token_sha256))


def _known(view: WorldView, token_sha256: str) -> Token:
    found = view.tokens.get(token_sha256)
    if found is None:
        raise UnknownToken(token_sha256[:12])
    return found


def _commit(store: Store, by: By, decide: Callable[[WorldView], Sequence[Fact]]) -> WorldView:
    """`_system` after what is decided on it."""

    def attempt() -> WorldView:
        store.hold(SYSTEM)
        view = store.load(SYSTEM)
        facts = decide(view)
        if facts:
            done = store.commit(SYSTEM, Commit(view.expected, facts, by.actor, by.now))
            assert done is not None, "nobody else writes to it meanwhile"
        return store.load(SYSTEM)

    return store.write(attempt)
