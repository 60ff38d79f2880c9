"""Tokens: their digests, in a world of their own."""

import pytest

from qmtl.app import tokens
from qmtl.app.ports import Store
from qmtl.core.errors import Invalid, UnknownToken, UnknownWorld
from qmtl.core.names import SYSTEM, Role, WorldId
from qmtl.sim import cast
from qmtl.sim.scene import DAY
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
