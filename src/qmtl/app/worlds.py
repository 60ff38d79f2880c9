"""Worlds: made, listed, opened and closed to live, killed and resumed; and their policies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qmtl.core import confirmations
from qmtl.core.confirmations import What
from qmtl.core.errors import Conflict, Forbidden, Invalid
from qmtl.core.facts import (
    DefaultPolicySet,
    Fact,
    Killed,
    LiveAllowed,
    PolicyAdded,
    Resumed,
    StateChanged,
    WorldCreated,
)
from qmtl.core.names import SYSTEM, Role, WorldId, WorldState
from qmtl.core.policy import AutoApply, Policy
from qmtl.core.view import Confirmation, PolicyVersion, WorldRecord, WorldView

from .ports import Commit, Store
from .step import ANYTHING, GOVERNANCE, By, foreseen, step, world


@dataclass(frozen=True, slots=True)
class Pending:
    """Half done: a second person has to confirm it."""

    confirmation_id: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorld:
    world_id: WorldId
    name: str
    description: str
    labels: Mapping[str, str]
    allow_live: bool


def create(store: Store, by: By, new: NewWorld, *, dual_control: bool) -> tuple[WorldRecord, bool]:
    """The world, and whether it was made now.  The same again is the same, else Conflict."""
    if new.world_id == SYSTEM:
        raise Invalid(f"id: {SYSTEM} is taken.")
    if new.allow_live:
        _must_be_policy_admin(by, "allow_live")

    def attempt() -> tuple[WorldRecord, bool]:
        store.hold(SYSTEM)
        system = store.load(SYSTEM)
        asked = WorldCreated(
            world_id=new.world_id,
            name=new.name,
            description=new.description,
            labels=new.labels,
            allow_live=new.allow_live,
        )
        known = system.worlds.get(new.world_id)
        if known is not None:
            same = (new.name, new.description, new.labels, new.allow_live) == (
                known.name,
                known.description,
                known.labels,
                known.allow_live,
            )
            if not same:
                raise Conflict(f"World {new.world_id} exists and is different.")
            return known, False
        commit = Commit(system.expected, (asked,), by.actor, by.now)
        if store.commit(SYSTEM, commit) is None:
            raise Conflict(f"World {new.world_id} was made by another at the same time.")
        if new.allow_live:
            allow_live(store, new.world_id, by, True, dual_control=dual_control)
        return store.load(SYSTEM).worlds[new.world_id], True

    return store.write(attempt)


def allow_live(
    store: Store, world_id: WorldId, by: By, allowed: bool, *, dual_control: bool
) -> Pending | None:
    """Off empties the live set at once; on activates nothing, and may take two people."""
    if not allowed:
        return step(
            store,
            world_id,
            by,
            lambda view: (None, _live_off(view)),
            reads=GOVERNANCE,
            archived=True,
        )
    _must_be_policy_admin(by, "allow_live")

    def decide(view: WorldView) -> tuple[Pending | None, Sequence[Fact]]:
        if view.allow_live:
            return None, ()
        if dual_control:
            return _ask(view, by, "allow_live", None)
        return None, (LiveAllowed(allowed=True),)

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def _live_off(view: WorldView) -> tuple[Fact, ...]:
    """Also of a world that is closed, where somebody has asked to open it."""
    asked = any(c.what == "allow_live" for c in view.confirmations.values())
    return (LiveAllowed(allowed=False),) if view.allow_live or asked else ()


def change_state(store: Store, world_id: WorldId, by: By, state: WorldState) -> None:
    """Suspending and archiving empty the live set; becoming active again restores nothing."""

    def decide(view: WorldView) -> tuple[None, Sequence[Fact]]:
        return None, () if view.state is state else (StateChanged(state=state),)

    step(store, world_id, by, decide, reads=GOVERNANCE, archived=True)


def kill(store: Store, world_id: WorldId, by: By, reason: str) -> None:
    """All weights to 0, gates closed, and whatever somebody has asked for is void.

    Needs nothing and nobody (I10), and waits for no other writer: it is right in any state.
    """

    def decide(view: WorldView) -> tuple[None, Sequence[Fact]]:
        done = view.killed and not view.confirmations
        return None, () if done else (Killed(reason=reason),)

    step(store, world_id, by, decide, reads=ANYTHING, archived=True)


def resume(
    store: Store, world_id: WorldId, by: By, reason: str, *, dual_control: bool
) -> Pending | None:
    """Opens the gates again.  What was live is not: it goes through them anew."""

    def decide(view: WorldView) -> tuple[Pending | None, Sequence[Fact]]:
        if not view.killed:
            return None, ()
        if dual_control:
            return _ask(view, by, "resume", None)
        return None, (Resumed(reason=reason),)

    return step(store, world_id, by, decide, reads=GOVERNANCE)


@dataclass(frozen=True, slots=True)
class AddedPolicy:
    version: PolicyVersion
    created: bool
    pending: Pending | None  # It would be the default, once confirmed.


def add_policy(
    store: Store, world_id: WorldId, by: By, policy: Policy, checksum: str, *, dual_control: bool
) -> AddedPolicy:
    """A new immutable version; the first becomes the default.  The newest again is the same."""
    _must_be_policy_admin(by, "policies")

    def decide(view: WorldView) -> tuple[AddedPolicy, Sequence[Fact]]:
        newest = view.policies.get(len(view.policies))
        if newest is not None and newest.checksum == checksum:
            return AddedPolicy(newest, False, None), ()
        version = len(view.policies) + 1
        facts: list[Fact] = [PolicyAdded(version=version, checksum=checksum, policy=policy)]
        pending = None
        if view.default_version is None:
            pending, more = _default(foreseen(view, facts, by), by, version, dual_control)
            facts += more
        added = foreseen(view, facts, by).policies[version]
        return AddedPolicy(added, True, pending), facts

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def set_default(
    store: Store, world_id: WorldId, by: By, version: int, *, dual_control: bool
) -> Pending | None:
    """The version in force from the next evaluation on.  Open approvals become void."""
    _must_be_policy_admin(by, "policies")

    def decide(view: WorldView) -> tuple[Pending | None, Sequence[Fact]]:
        view.policy_version(version)
        if view.default_version == version:
            return None, ()
        return _default(view, by, version, dual_control)

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def confirm(store: Store, world_id: WorldId, by: By, confirmation_id: str) -> Confirmation:
    """The second person's word; what was asked for happens.  Raises Forbidden for the first."""

    def decide(view: WorldView) -> tuple[Confirmation, Sequence[Fact]]:
        return confirmations.confirm(
            view, by.actor, by.roles, confirmation_id, by.now, sponsor=by.sponsor
        )

    return step(store, world_id, by, decide, reads=GOVERNANCE)


def _default(
    view: WorldView, by: By, version: int, dual_control: bool
) -> tuple[Pending | None, tuple[Fact, ...]]:
    promotion = view.policies[version].policy.governance.live_promotion
    if dual_control and isinstance(promotion, AutoApply):
        return _ask(view, by, "default_policy", version)
    return None, (DefaultPolicySet(version=version),)


def _ask(
    view: WorldView, by: By, what: What, version: int | None
) -> tuple[Pending, tuple[Fact, ...]]:
    key, facts = confirmations.ask(view, by.actor, what, version, by.now, sponsor=by.sponsor)
    return Pending(key, what), facts


def _must_be_policy_admin(by: By, what: str) -> None:
    if Role.POLICY_ADMIN not in by.roles:
        raise Forbidden(f"{what} takes the role {Role.POLICY_ADMIN}; no other role implies it.")


def listed(store: Store, after: WorldId | None, limit: int) -> list[WorldRecord]:
    """A page of worlds by id."""
    worlds = store.load(SYSTEM).worlds
    return [worlds[key] for key in sorted(worlds) if after is None or key > after][:limit]


def record(store: Store, world_id: WorldId) -> tuple[WorldRecord, WorldView]:
    """A world as it was made and as it is.  Raises UnknownWorld."""
    view = world(store, world_id)
    return store.load(SYSTEM).worlds[world_id], view
