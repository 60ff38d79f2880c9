"""Tokens: their digests, in a world of their own."""

from dataclasses import replace
from datetime import timedelta

import pytest

from qmtl.app import tokens, worlds
from qmtl.app.ports import Store
from qmtl.app.step import By
from qmtl.core.errors import Conflict, Forbidden, Invalid, UnknownToken, UnknownWorld
from qmtl.core.names import SYSTEM, ActorId, Role, WorldId
from qmtl.core.view import Token
from qmtl.sim import cast
from qmtl.sim.scene import DAY, START
from tests.worlds import opened

DIGEST = "d" * 64


def test_let_in_listed_and_put_out(store: Store) -> None:
    scene = opened(store)
    by = scene.by(cast.POLLY)
    roles = (Role.READER, Role.AUTHOR, Role.READER)
    token = tokens.create(store, by, DIGEST, cast.BOB, roles, scene.world_id, scene.now + DAY)
    assert token.roles == (Role.AUTHOR, Role.READER)
    assert (token.created_at, token.world_id) == (scene.now, scene.world_id)
    scene.wait(DAY)
    other = tokens.create(
        store, scene.by(cast.POLLY), "e" * 64, cast.PIA, [Role.READER], None, None
    )
    assert tokens.listed(store) == [token, other]
    tokens.revoke(store, by, DIGEST)
    assert tokens.listed(store) == [other]
    with pytest.raises(UnknownToken):
        tokens.revoke(store, by, DIGEST)


def test_what_cannot_be_is_refused(store: Store) -> None:
    scene = opened(store)
    by, seq = scene.by(cast.POLLY), store.load(SYSTEM).seq
    with pytest.raises(Invalid):
        tokens.create(store, by, DIGEST, cast.BOB, [], None, None)
    with pytest.raises(Invalid):
        tokens.create(store, by, DIGEST, cast.BOB, [Role.READER], None, scene.now)
    with pytest.raises(UnknownWorld):
        tokens.create(store, by, DIGEST, cast.BOB, [Role.READER], WorldId("nowhere"), None)
    assert store.load(SYSTEM).seq == seq


# ---- Two people --------------------------------------------------------------------------------

ADAM, EVE, MALLORY = ActorId("adam"), ActorId("eve"), ActorId("mallory")
HOUR = timedelta(hours=1)


def admin(actor: ActorId, sponsor: ActorId | None = None, **changes: object) -> By:
    asked = {"roles": frozenset({Role.ADMIN}), "now": START, **changes}
    return By(actor=actor, sponsor=sponsor, **asked)  # type: ignore[arg-type]  # As By's fields.


def made(store: Store, by: By, *roles: Role, digest: str = DIGEST, dual: bool = True) -> Token:
    return tokens.create(store, by, digest, cast.PIA, roles, None, None, dual_control=dual)


def pending(store: Store, digest: str = DIGEST) -> bool:
    view = store.load(SYSTEM)
    return tokens.is_pending(view, view.tokens[digest])


@pytest.mark.parametrize("role", Role)
def test_a_power_takes_two_people(store: Store, role: Role) -> None:
    token = made(store, admin(ADAM), role)
    assert (token.created_by, token.sponsor) == (ADAM, ADAM)
    assert pending(store) == (role in {"operator", "approver", "policy-admin", "admin"})
    tokens.confirm(store, admin(EVE), DIGEST)
    assert not pending(store)
    seq = store.load(SYSTEM).seq
    tokens.confirm(store, admin(EVE), DIGEST)
    assert store.load(SYSTEM).seq == seq, "twice is once"


@pytest.mark.parametrize("role", Role)
def test_without_dual_control_it_takes_one(store: Store, role: Role) -> None:
    token = made(store, admin(ADAM), role, dual=False)
    assert (token.created_by, token.sponsor) == (ADAM, None)
    assert not pending(store)


@pytest.mark.parametrize(
    ("asks", "confirms"),
    [
        (admin(ADAM), admin(ADAM)),
        (admin(ADAM), admin(EVE, sponsor=ADAM)),  # He has seen her token.
        (admin(ADAM, sponsor=EVE), admin(EVE)),  # She has seen his.
        (admin(ADAM, sponsor=MALLORY), admin(EVE, sponsor=MALLORY)),  # And she has seen both.
    ],
)
def test_one_hand_does_not_confirm_what_it_asked_for(store: Store, asks: By, confirms: By) -> None:
    made(store, asks, Role.APPROVER)
    with pytest.raises(Forbidden, match="another admin"):
        tokens.confirm(store, confirms, DIGEST)
    assert pending(store)


def test_so_for_what_a_world_asks_two_people_for(store: Store) -> None:
    """Polly made paul's credential: what she asked for, he does not confirm."""
    scene = opened(store)
    scene.kill()
    asked = worlds.resume(store, scene.world_id, scene.by(cast.POLLY), "", dual_control=True)
    assert asked is not None
    paul = scene.by(cast.PAUL)
    with pytest.raises(Forbidden, match="second person"):
        worlds.confirm(
            store, scene.world_id, replace(paul, sponsor=cast.POLLY), asked.confirmation_id
        )
    assert scene.view.killed
    worlds.confirm(store, scene.world_id, replace(paul, sponsor=EVE), asked.confirmation_id)
    assert not scene.view.killed


def test_what_nobody_confirms_in_time_is_over(store: Store) -> None:
    made(store, admin(ADAM), Role.APPROVER)
    with pytest.raises(Conflict, match="7 days"):
        tokens.confirm(store, admin(EVE, now=START + 7 * DAY + HOUR), DIGEST)
    tokens.confirm(store, admin(EVE, now=START + 7 * DAY), DIGEST)


def test_revoking_settles_what_waited(store: Store) -> None:
    made(store, admin(ADAM), Role.APPROVER)
    tokens.revoke(store, admin(EVE), DIGEST)
    view = store.load(SYSTEM)
    assert (len(view.tokens), len(view.confirmations)) == (0, 0)
    with pytest.raises(UnknownToken):
        tokens.confirm(store, admin(EVE), DIGEST)


def test_a_name_of_an_issuers_is_no_tokens(store: Store) -> None:
    with pytest.raises(Invalid, match="oidc:"):
        tokens.create(
            store, admin(ADAM), DIGEST, ActorId("oidc:corp:pia"), [Role.READER], None, None
        )
    assert store.load(SYSTEM).seq == 0


# ---- Rotation ----------------------------------------------------------------------------------

NEXT, THIRD = "e" * 64, "f" * 64


def rotated(
    store: Store,
    by: By,
    old: str = DIGEST,
    new: str = NEXT,
    overlap: timedelta = HOUR,
    own: bool = True,
    dual: bool = False,
) -> Token:
    return tokens.rotate(store, by, old, new, overlap, own=own, dual_control=dual)


def test_a_rotated_token_is_the_same_but_for_its_secret(store: Store) -> None:
    ends = START + 9 * DAY
    first = tokens.create(
        store, admin(ADAM), DIGEST, cast.PIA, [Role.READER], None, ends, dual_control=True
    )
    later = START + DAY
    second = rotated(store, admin(cast.PIA, roles=frozenset(), now=later))
    same = (first.actor, first.roles, first.world_id, first.expires_at, first.created_at, ADAM)
    assert (
        *(second.actor, second.roles, second.world_id, second.expires_at, second.created_at),
        second.created_by,
    ) == same
    assert (second.sponsor, second.rotated_at, second.replaces) == (ADAM, later, DIGEST)
    old = store.load(SYSTEM).tokens[DIGEST]
    assert (old.replaced_until, old.ends_at) == (later + HOUR, later + HOUR)
    assert second.ends_at == ends, "rotating does not make it live longer"


def test_at_most_two_of_a_token_are_there(store: Store) -> None:
    """Of two who hold a stolen token, whoever rotates first is shut out by who rotates next."""
    made(store, admin(ADAM), Role.READER)
    me = admin(cast.PIA, roles=frozenset())
    rotated(store, me)
    again = rotated(store, me, new=THIRD, overlap=2 * HOUR)
    known = store.load(SYSTEM).tokens
    assert set(known) == {DIGEST, THIRD}, "the first successor is gone"
    assert known[DIGEST].ends_at == START + HOUR, "its end does not move away"
    rotated(store, me, old=THIRD, new=NEXT)
    assert set(store.load(SYSTEM).tokens) == {THIRD, NEXT}, "and so is the one before"
    assert again.created_by == ADAM


def test_whose_token_may_be_rotated_by_whom(store: Store) -> None:
    made(store, admin(ADAM), Role.APPROVER, dual=False)
    made(store, admin(ADAM), Role.POLICY_ADMIN, digest=THIRD, dual=False)
    for by, old, dual, says in [
        (admin(EVE, roles=frozenset({Role.OPERATOR})), DIGEST, False, "its bearer, or by an admin"),
        (admin(EVE), DIGEST, True, "only its bearer"),
        (admin(EVE), THIRD, False, "policy-admin is given by who has it"),
    ]:
        with pytest.raises(Forbidden, match=says):
            rotated(store, by, old=old, own=False, dual=dual)
    assert rotated(store, admin(EVE), own=False).actor == cast.PIA
    assert rotated(store, admin(cast.PIA), old=NEXT, new="a" * 64, dual=True).actor == cast.PIA


def test_what_cannot_be_rotated(store: Store) -> None:
    tokens.create(store, admin(ADAM), DIGEST, cast.PIA, [Role.READER], None, START + DAY)
    me = admin(cast.PIA)
    with pytest.raises(UnknownToken):
        rotated(store, me, old=THIRD)
    for overlap in (timedelta(seconds=-1), timedelta(days=7, seconds=1)):
        with pytest.raises(Invalid, match="overlap"):
            rotated(store, me, overlap=overlap)
    with pytest.raises(Conflict, match="ended"):
        rotated(store, admin(cast.PIA, now=START + DAY))
    made(store, admin(ADAM), Role.APPROVER, digest=THIRD)
    with pytest.raises(Conflict, match="confirm it first"):
        rotated(store, me, old=THIRD)
    rotated(store, me, overlap=timedelta(0))
    with pytest.raises(Conflict, match="ended"):
        rotated(store, me, new=THIRD)


def test_there_is_an_end_to_tokens(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "TOKENS_MAX", 1)
    made(store, admin(ADAM), Role.READER)
    with pytest.raises(Conflict, match="revoke those"):
        made(store, admin(ADAM), Role.READER, digest=NEXT)
