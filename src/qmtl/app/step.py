"""The whole imperative shell: load one view, decide, commit facts, or try again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from qmtl.core.errors import Conflict, UnknownWorld, WorldBusy
from qmtl.core.facts import Fact, stream_of
from qmtl.core.fold import entries, fold
from qmtl.core.names import SYSTEM, ActorId, Reason, Role, Stream, WorldId, WorldState
from qmtl.core.view import Expected, WorldView, hands_of

from .ports import Commit, Store

ATTEMPTS_MAX = 3  # Another process that wins more often than this is better waited for.
T = TypeVar("T")
Decide = Callable[[WorldView], tuple[T, Sequence[Fact]]]
BOTH = frozenset(Stream)
GOVERNANCE = frozenset({Stream.GOVERNANCE})
EVIDENCE = frozenset({Stream.EVIDENCE})
ANYTHING = None  # The facts mean what they should on whatever the world has become.


@dataclass(frozen=True, slots=True)
class By:
    """Who asks, as the credential says it, and when, as the server's clock says it.

    `sponsor` is who made that credential, under dual control; None: it is its holder's alone.
    """

    actor: ActorId
    roles: frozenset[Role]
    now: datetime
    sponsor: ActorId | None = None

    @property
    def hands(self) -> frozenset[ActorId]:
        return hands_of(self.actor, self.sponsor)


def world(store: Store, world_id: WorldId) -> WorldView:
    """The world at its head.  Raises UnknownWorld."""
    if world_id == SYSTEM or world_id not in store.load(SYSTEM).worlds:
        raise UnknownWorld(world_id)
    return store.load(world_id)


def step(
    store: Store,
    world_id: WorldId,
    by: By,
    decide: Decide[T],
    *,
    reads: frozenset[Stream] | None = BOTH,
    archived: bool = False,
) -> T:
    """Answer from one view and commit the facts that follow from it, or neither.

    `reads` names the streams that the decision rests on; those its facts are written to count as
    read, unless it is ANYTHING: then no other writer can win.  An archived world takes no facts
    unless `archived`.  Raises UnknownWorld, WorldBusy when other processes kept winning, and
    whatever `decide` raises.
    """

    def attempt() -> T:
        store.hold(world_id)
        for _ in range(ATTEMPTS_MAX):
            view = world(store, world_id)
            answer, facts = decide(view)
            if not facts:
                return answer
            if view.state is WorldState.ARCHIVED and not archived:
                raise Conflict("The world is archived.", reasons=(Reason.WORLD_SUSPENDED,))
            written = {stream_of(fact) for fact in facts}
            touched = frozenset() if reads is ANYTHING else reads | written
            expected = Expected(
                evidence=view.evidence_generation if Stream.EVIDENCE in touched else None,
                governance=view.governance_generation if Stream.GOVERNANCE in touched else None,
            )
            if store.commit(world_id, Commit(expected, facts, by.actor, by.now)) is not None:
                return answer
        raise WorldBusy(world_id)

    return store.write(attempt)


def foreseen(view: WorldView, facts: Sequence[Fact], by: By) -> WorldView:
    """The view as it will be once these facts are committed on it."""
    return fold(view, entries(view, facts, by.actor, by.now))
