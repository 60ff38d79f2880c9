"""Everything a decision may look at, at one generation.

A view never changes.  What every strategy has is in columns (`columns.py`), one row each; what
only some have (candidates, activations) is in persistent maps.  Runs and series are in the store.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from immutables import Map

from .columns import PHASES, VERDICTS, Proof, Standings, Track
from .errors import Conflict, UnknownCandidate, UnknownPolicy, UnknownStrategy
from .names import (
    ActorId,
    CandidateId,
    Digest,
    Phase,
    Reason,
    Role,
    RunId,
    Stage,
    StrategyId,
    Verdict,
    WorldId,
    WorldState,
)
from .policy import Policy
from .times import instant_or_none


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A strategy as it was bound to the world."""

    strategy_id: StrategyId
    row: int
    name: str
    author: ActorId
    fingerprint: str | None
    variants_tried: int | None
    bound_at: datetime
    family: StrategyId  # The id of its first version.
    version: int  # From 1; dense.
    previous: StrategyId | None  # The version before.
    parts: Mapping[str, str]  # Of the fingerprint, by name, as far as they were told.


def hands_of(actor: ActorId, sponsor: ActorId | None) -> frozenset[ActorId]:
    """Who may have been at work where an actor's credential was: its holder, and who made it.

    Two acts take two people only when their hands are different ones.
    """
    return frozenset({actor} if sponsor is None else {actor, sponsor})


@dataclass(frozen=True, slots=True)
class Approval:
    by: ActorId
    at: datetime
    run_id: RunId
    evidence: Digest
    reason: str
    sponsor: ActorId | None = None

    @property
    def hands(self) -> frozenset[ActorId]:
        return hands_of(self.by, self.sponsor)


@dataclass(frozen=True, slots=True)
class Proposed:
    pass


@dataclass(frozen=True, slots=True)
class Approved:
    at: datetime  # When the last approval that was needed came.


@dataclass(frozen=True, slots=True)
class Rejected:
    by: ActorId
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Applied:
    at: datetime
    seq: int


@dataclass(frozen=True, slots=True)
class Void:
    at: datetime
    reason: Reason


Standing = Proposed | Approved | Rejected | Applied | Void


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A strategy's proposed promotion, one ramp step up."""

    candidate_id: CandidateId
    strategy_id: StrategyId
    fingerprint: str | None
    policy_version: int
    entered_at: datetime
    step: int
    run_id: RunId  # The newest that supports it.
    evidence: Digest
    proposed_at: datetime
    proposer: ActorId
    standing: Standing
    approvals: tuple[Approval, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A live strategy's weight: a lease, not a flag."""

    strategy_id: StrategyId
    candidate_id: CandidateId
    run_id: RunId
    step: int
    applied_weight: float
    weight: float  # At most what was applied.
    freeze: bool
    drain: bool
    sequence: int  # The governance generation that set it.
    at: datetime
    acknowledged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outstanding:
    """A weight that was taken back: a client that is cut off may act on it before `until`."""

    weight: float
    until: datetime
    sequence: int  # The governance generation that took it back.


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestRun:
    """The newest run of a strategy and stage: enough to say where it stands."""

    run_id: RunId
    revision: int
    verdict: Verdict
    problems: tuple[tuple[Reason, str], ...]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Something that takes two people, asked for by the first."""

    confirmation_id: str
    what: str
    policy_version: int | None
    by: ActorId
    at: datetime
    sponsor: ActorId | None = None

    @property
    def hands(self) -> frozenset[ActorId]:
        return hands_of(self.by, self.sponsor)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldRecord:
    """A world on the list, as it was created."""

    world_id: WorldId
    name: str
    description: str
    labels: Mapping[str, str]
    allow_live: bool
    created_at: datetime
    created_by: ActorId


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a credential stands for.  The token itself is nowhere.

    A rotated one goes on as another: who made the first, and when, stays with it.
    """

    token_sha256: str
    actor: ActorId
    roles: tuple[Role, ...]
    world_id: WorldId | None
    expires_at: datetime | None
    created_at: datetime
    created_by: ActorId
    sponsor: ActorId | None = None
    replaces: str | None = None
    rotated_at: datetime | None = None  # When it took the place of the one before.
    replaced_until: datetime | None = None  # Another took its place; it ends then.

    @property
    def ends_at(self) -> datetime | None:
        """When it opens nothing any more; None: when somebody revokes it."""
        ends = [end for end in (self.expires_at, self.replaced_until) if end is not None]
        return min(ends, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    version: int
    checksum: str
    policy: Policy
    at: datetime


@dataclass(frozen=True, slots=True)
class Expected:
    """The generations a decision was made on; None for a stream it did not read."""

    evidence: int | None = None
    governance: int | None = None


def blank_tracks() -> Mapping[Stage, Track]:
    return {stage: Track.blank() for stage in Stage}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldView:
    """One world, whole, at (`evidence_generation`, `governance_generation`)."""

    world_id: WorldId
    seq: int = 0
    evidence_generation: int = 0
    governance_generation: int = 0
    allow_live: bool = False
    state: WorldState = WorldState.ACTIVE
    killed: bool = False
    policies: Map[int, PolicyVersion] = Map()
    default_version: int | None = None
    promoted_at: datetime | None = None  # The latest promotion: cooldown runs from here.
    strategies: Map[StrategyId, Strategy] = Map()
    ids: Map[int, StrategyId] = Map()  # By row.
    standings: Standings = field(default_factory=Standings.blank)
    tracks: Mapping[Stage, Track] = field(default_factory=blank_tracks)
    proof: Proof = field(default_factory=Proof.blank)
    runs: Map[tuple[StrategyId, Stage], LatestRun] = Map()
    candidates: Map[CandidateId, Candidate] = Map()
    current: Map[StrategyId, tuple[CandidateId, ...]] = Map()  # Its candidates that are not void.
    blocked: Map[StrategyId, tuple[Reason, ...]] = Map()  # Why its apply was last refused.
    live: Map[StrategyId, Activation] = Map()
    outstanding: Map[StrategyId, Outstanding] = Map()  # Of the latest that went down.
    confirmations: Map[str, Confirmation] = Map()
    worlds: Map[WorldId, WorldRecord] = Map()  # In `_system` only.
    tokens: Map[str, Token] = Map()  # In `_system` only.
    code: Digest | None = None  # In `_system` only: of the program that started last.

    @property
    def expected(self) -> Expected:
        return Expected(self.evidence_generation, self.governance_generation)

    def stands(self, expected: Expected) -> bool:
        """Whether what a decision was made on is still so."""
        return expected.evidence in (None, self.evidence_generation) and (
            expected.governance in (None, self.governance_generation)
        )

    @property
    def policy(self) -> Policy:
        """The policy in force.  Raises Conflict when the world has none yet."""
        if self.default_version is None:
            raise Conflict("The world has no policy yet.", reasons=(Reason.POLICY_MISSING,))
        return self.policies[self.default_version].policy

    def policy_version(self, version: int) -> PolicyVersion:
        found = self.policies.get(version)
        if found is None:
            raise UnknownPolicy(f"version {version}")
        return found

    def strategy(self, strategy_id: StrategyId) -> Strategy:
        found = self.strategies.get(strategy_id)
        if found is None:
            raise UnknownStrategy(strategy_id)
        return found

    def candidate(self, candidate_id: CandidateId) -> Candidate:
        found = self.candidates.get(candidate_id)
        if found is None:
            raise UnknownCandidate(candidate_id)
        return found

    def phase(self, row: int) -> Phase:
        return PHASES[int(self.standings.phase[row])]

    def verdict(self, row: int, stage: Stage) -> Verdict | None:
        return VERDICTS[int(self.tracks[stage].verdict[row])]

    def digest(self, row: int, stage: Stage) -> Digest:
        """Names the series held of a strategy and stage; empty when there is none."""
        return Digest(self.tracks[stage].digest[row].decode())

    def entered_at(self, row: int) -> datetime | None:
        return instant_or_none(self.standings.entered_at[row])

    def open_candidate(self, strategy_id: StrategyId) -> Candidate | None:
        """The strategy's candidate that is neither applied nor void."""
        for candidate_id in self.current.get(strategy_id, ()):
            candidate = self.candidates[candidate_id]
            if not isinstance(candidate.standing, Applied):
                return candidate
        return None

    def open_candidates(self) -> list[Candidate]:
        """Every open candidate, by strategy."""
        found = (self.open_candidate(sid) for sid in sorted(self.current))
        return [candidate for candidate in found if candidate is not None]

    def in_order(self) -> Iterator[Strategy]:
        """Every strategy, in the order in which they were bound."""
        return (self.strategies[self.ids[row]] for row in range(len(self.ids)))


def same_view(a: WorldView, b: WorldView) -> bool:
    """Whether two views say the same, NaN being equal to itself.

    Columns count as far as there are strategies: how much room they have for more says nothing.
    """
    rows = len(a.strategies)
    return (
        replace(a, standings=b.standings, tracks=b.tracks, proof=b.proof) == b
        and a.standings.same(b.standings, rows)
        and a.proof.same(b.proof, rows)
        and all(track.same(b.tracks[stage], rows) for stage, track in a.tracks.items())
    )
