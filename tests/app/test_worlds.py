"""Worlds: made once, opened by two, closed by anyone at once; policies that never change."""

from dataclasses import replace
from typing import Any

import pytest

from qmtl.app import worlds
from qmtl.app.ports import Store
from qmtl.app.worlds import NewWorld, Pending
from qmtl.core.confirmations import CONFIRM_WITHIN
from qmtl.core.errors import (
    Conflict,
    Forbidden,
    Invalid,
    UnknownConfirmation,
    UnknownPolicy,
    UnknownWorld,
)
from qmtl.core.names import SYSTEM, ActorId, Stage, WorldId, WorldState
from qmtl.sim import cast
from qmtl.sim.scene import Scene
from tests.worlds import ALPHA, AUTO, POLICY, approved, climbed, governed, live, opened

NEW = NewWorld(
    world_id=WorldId("w"), name="W", description="d", labels={"a": "b"}, allow_live=False
)


def create(scene: Scene, actor: ActorId = cast.POLLY, **changes: Any) -> Any:
    return worlds.create(
        scene.store, scene.by(actor), replace(NEW, **changes), dual_control=scene.dual_control
    )


def asked(pending: Pending | None) -> str:
    assert pending is not None
    return pending.confirmation_id


def two(store: Store, policy: Any = POLICY) -> Scene:
    """A world where what is dangerous takes two."""
    scene = opened(store, policy)
    scene.dual_control = True
    return scene


# ---- The list ----------------------------------------------------------------------------------


def test_a_world_is_made_once(store: Store) -> None:
    scene = Scene(store)
    record, created = create(scene)
    assert (record.world_id, record.name, record.created_by, created) == (
        "w",
        "W",
        cast.POLLY,
        True,
    )
    assert create(scene, cast.OTTO) == (record, False)
    assert store.load(SYSTEM).seq == 1
    assert worlds.record(store, WorldId("w"))[0] == record


@pytest.mark.parametrize(
    "changes", [{"name": "x"}, {"description": "x"}, {"labels": {}}, {"allow_live": True}], ids=str
)
def test_the_same_world_and_different_is_a_conflict(store: Store, changes: Any) -> None:
    scene = Scene(store)
    create(scene)
    with pytest.raises(Conflict):
        create(scene, **changes)
    assert not scene.view.allow_live


def test_the_system_world_is_nobodys(store: Store) -> None:
    scene = Scene(store)
    with pytest.raises(Invalid):
        create(scene, world_id=SYSTEM)
    create(scene)
    for unknown in (SYSTEM, WorldId("nowhere")):
        with pytest.raises(UnknownWorld):
            worlds.kill(store, unknown, scene.by(cast.OTTO), "")


def test_worlds_are_listed_by_page(store: Store) -> None:
    scene = Scene(store)
    for name in ("c", "a", "b"):
        create(scene, world_id=WorldId(name))
    assert [w.world_id for w in worlds.listed(store, None, 2)] == ["a", "b"]
    assert [w.world_id for w in worlds.listed(store, WorldId("b"), 2)] == ["c"]


def test_a_world_made_to_allow_live_needs_who_may(store: Store) -> None:
    scene = Scene(store)
    with pytest.raises(Forbidden):
        create(scene, cast.OTTO, allow_live=True)
    with pytest.raises(UnknownWorld):
        _ = scene.view
    create(scene, allow_live=True)
    assert scene.view.allow_live


def test_a_world_made_to_allow_live_takes_two_where_that_does(store: Store) -> None:
    scene = Scene(store, dual_control=True)
    create(scene, allow_live=True)
    assert not scene.view.allow_live
    (waiting,) = scene.view.confirmations.values()
    scene.confirm(waiting.confirmation_id)
    assert scene.view.allow_live


# ---- allow_live --------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", [cast.OTTO, cast.PIA, cast.ANN, cast.FEED])
def test_only_a_policy_admin_opens_to_live(store: Store, actor: ActorId) -> None:
    scene = opened(store)
    scene.allow_live(False, actor)  # Anyone who gets here may close.
    with pytest.raises(Forbidden):
        scene.allow_live(True, actor)
    assert not scene.view.allow_live


def test_opening_twice_is_once_and_closing_too(store: Store) -> None:
    scene = opened(store)
    seq = scene.view.seq
    scene.allow_live(True)
    assert scene.view.seq == seq
    scene.allow_live(False)
    scene.allow_live(False)
    assert scene.view.seq == seq + 1


def test_opening_takes_two(store: Store) -> None:
    scene = two(store)
    scene.allow_live(False)
    pending = asked(scene.allow_live(True))
    assert asked(scene.allow_live(True)) == pending  # Asking twice is asking once.
    assert not scene.view.allow_live
    with pytest.raises(Forbidden):
        scene.confirm(pending, cast.POLLY)  # Not by oneself.
    with pytest.raises(Forbidden):
        scene.confirm(pending, cast.OTTO)  # Nor by who may not.
    scene.confirm(pending, cast.PAUL)
    assert scene.view.allow_live
    with pytest.raises(UnknownConfirmation):
        scene.confirm(pending, cast.PAUL)


def test_closing_takes_back_what_was_asked(store: Store) -> None:
    scene = two(store)
    scene.allow_live(False)
    pending = asked(scene.allow_live(True))
    scene.allow_live(False, cast.OTTO)
    with pytest.raises(UnknownConfirmation):
        scene.confirm(pending)
    assert not scene.view.allow_live


# ---- Kill and resume ---------------------------------------------------------------------------


@pytest.mark.parametrize("actor", [cast.OTTO, cast.ANN, ActorId("anyone who gets here")])
def test_a_kill_needs_nothing_and_nobody(store: Store, actor: ActorId) -> None:
    scene = climbed(store)
    scene.dual_control = True
    scene.kill(actor)
    assert scene.view.killed
    assert not scene.view.live
    seq = scene.view.seq
    scene.kill(actor)
    assert scene.view.seq == seq
    scene.resume()
    scene.kill(actor)
    assert scene.view.seq == seq + 2, "who asked to resume is told no"
    assert not scene.view.confirmations


def test_a_kill_of_a_world_with_nothing_in_it(store: Store) -> None:
    scene = Scene(store)
    scene.create()
    scene.kill()
    scene.change_state(WorldState.ARCHIVED)
    scene.kill()
    assert scene.view.killed


def test_resuming_takes_two(store: Store) -> None:
    scene = two(store)
    scene.kill()
    pending = asked(scene.resume())
    assert scene.view.killed
    with pytest.raises(Forbidden):
        scene.confirm(pending, cast.OTTO)
    with pytest.raises(Forbidden):
        scene.confirm(pending, cast.PIA)
    scene.confirm(pending, cast.PAUL)
    assert not scene.view.killed
    assert scene.resume() is None


def test_another_kill_takes_back_what_was_asked(store: Store) -> None:
    scene = two(store)
    scene.kill()
    pending = asked(scene.resume())
    scene.kill()
    with pytest.raises(UnknownConfirmation):
        scene.confirm(pending)
    assert scene.view.killed


def test_a_kill_takes_back_whatever_was_asked(store: Store) -> None:
    scene = two(store)
    scene.add_policy(AUTO, "auto")
    scene.allow_live(False)
    asks = [asked(scene.allow_live(True)), asked(scene.set_default(2))]
    scene.kill()
    for key in asks:
        with pytest.raises(UnknownConfirmation):
            scene.confirm(key)
    assert (scene.view.allow_live, scene.view.default_version) == (False, 1)


def test_an_ask_lapses_and_is_asked_again(store: Store) -> None:
    scene = two(store)
    scene.kill()
    first = asked(scene.resume())
    scene.wait(CONFIRM_WITHIN)
    with pytest.raises(Conflict):
        scene.confirm(first)
    again = asked(scene.resume())
    assert again != first
    scene.confirm(again)
    assert not scene.view.killed


def test_a_policy_that_applies_itself_is_confirmed_against_the_policy_of_then(
    store: Store,
) -> None:
    scene = Scene(store, dual_control=True)
    scene.create()
    first = asked(scene.add_policy(AUTO, "auto").pending)
    scene.add_policy(POLICY, "manual")
    assert scene.view.default_version == 2
    with pytest.raises(UnknownConfirmation):
        scene.confirm(first)
    assert scene.view.default_version == 2


def test_where_one_is_enough_one_is(store: Store) -> None:
    scene = opened(store)
    scene.kill()
    assert scene.resume() is None
    assert not scene.view.killed


# ---- States ------------------------------------------------------------------------------------


def test_an_archived_world_takes_nothing_but_what_goes_down(store: Store) -> None:
    scene = live(store)
    scene.change_state(WorldState.ARCHIVED)
    assert not scene.view.live
    refused: list[Any] = [
        lambda: scene.bind(ALPHA, fingerprint="other", actor=cast.ANN),
        lambda: scene.add_policy(AUTO, "auto"),
        lambda: scene.evaluate(ALPHA),
        lambda: scene.bar(Stage.PAPER, {ALPHA: 0.1}),
    ]
    for use in refused:
        with pytest.raises(Conflict):
            use()
    scene.demote(ALPHA)
    scene.allow_live(False)
    scene.kill()
    scene.change_state(WorldState.ACTIVE)
    assert not scene.view.live


# ---- Policies ----------------------------------------------------------------------------------


def test_the_first_policy_is_the_default_and_the_next_waits(store: Store) -> None:
    scene = Scene(store)
    scene.create()
    first = scene.add_policy(POLICY, "one")
    assert (first.version.version, first.created, first.pending) == (1, True, None)
    assert scene.view.default_version == 1
    again = scene.add_policy(POLICY, "one")
    assert (again.version, again.created) == (first.version, False)
    second = scene.add_policy(AUTO, "two")
    assert second.version.version == 2
    assert scene.view.default_version == 1
    scene.set_default(2)
    assert scene.view.default_version == 2
    seq = scene.view.seq
    scene.set_default(2)
    assert scene.view.seq == seq
    with pytest.raises(UnknownPolicy):
        scene.set_default(3)


def test_policies_are_for_policy_admins(store: Store) -> None:
    scene = opened(store)
    scene.add_policy(AUTO, "auto")
    for actor in (cast.OTTO, cast.PIA, cast.ANN):
        with pytest.raises(Forbidden):
            scene.add_policy(governed(cooldown=POLICY.governance.cooldown * 2), "x", actor)
        with pytest.raises(Forbidden):
            scene.set_default(2, actor)
    assert scene.view.default_version == 1


def test_a_policy_that_applies_itself_takes_two(store: Store) -> None:
    scene = Scene(store, dual_control=True)
    scene.create()
    first = scene.add_policy(AUTO, "auto")
    assert first.pending is not None
    assert scene.view.default_version is None
    with pytest.raises(Forbidden):
        scene.confirm(first.pending.confirmation_id, cast.POLLY)
    with pytest.raises(Forbidden):
        scene.confirm(first.pending.confirmation_id, cast.OTTO)
    scene.confirm(first.pending.confirmation_id, cast.PAUL)
    assert scene.view.default_version == 1
    scene.add_policy(POLICY, "manual")
    assert scene.set_default(2) is None  # People approve again: that is no danger.
    back = asked(scene.set_default(1))
    assert scene.view.default_version == 2
    scene.confirm(back)
    assert scene.view.default_version == 1


def test_another_default_leaves_what_is_live(store: Store) -> None:
    scene = live(store)
    scene.add_policy(AUTO, "auto")
    scene.set_default(2)
    assert ALPHA in scene.view.live


def test_open_approvals_void_at_once(store: Store) -> None:
    scene = approved(store)
    scene.add_policy(AUTO, "auto")
    assert scene.view.open_candidate(ALPHA) is not None
    scene.set_default(2)
    assert scene.view.open_candidate(ALPHA) is None
