"""What a strategy may do now, and until when.

`decide` is the server's half, `permitted` the client's.  The client may lower an envelope, never
raise it; in doubt it is compute-only.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import assert_never

from .names import Mode, Phase, Reason, Stage, StrategyId, WorldId, WorldState
from .times import instant
from .view import Activation, WorldView

DECISION_TTL = timedelta(seconds=300)  # How long a client cut off may go on as it was told.
SILENCE_LAGS_MAX = 3  # With five days of lag, longer than any market closes for holidays.
DOMAINS = {Mode.COMPUTE_ONLY: "backtest", Mode.PAPER: "dryrun", Mode.LIVE: "live"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionEnvelope:
    """A decision with its term.  `weight` is a share of capital, `ramp_fraction` 0 to 1."""

    world_id: WorldId
    strategy_id: StrategyId
    policy_version: int | None
    effective_mode: Mode
    weight: float
    ramp_fraction: float
    reasons: tuple[str, ...]
    generation: int
    issued_at: datetime
    expires_at: datetime
    downgraded: bool = False  # The mode is lower than the world decided.
    safe_mode: bool = False  # Nobody could be asked: the floor.

    @property
    def ttl(self) -> timedelta:
        return self.expires_at - self.issued_at

    @property
    def execution_domain(self) -> str:
        return DOMAINS[self.effective_mode]

    @property
    def etag(self) -> str:
        """Names the decision, not the moment it was told."""
        told = (
            f"{self.world_id}\0{self.strategy_id}\0{self.policy_version}\0{self.effective_mode}\0"
            f"{self.weight!r}\0{self.ramp_fraction!r}\0{'|'.join(self.reasons)}\0{self.generation}"
        )
        return sha256(told.encode()).hexdigest()[:32]


def decide(view: WorldView, strategy_id: StrategyId, now: datetime) -> DecisionEnvelope:
    """The envelope of one strategy.  Raises UnknownStrategy."""
    mode, weight, reasons = _decided(view, strategy_id, now)
    return DecisionEnvelope(
        world_id=view.world_id,
        strategy_id=strategy_id,
        policy_version=view.default_version,
        effective_mode=mode,
        weight=weight,
        ramp_fraction=_ramp_fraction(view, strategy_id) if mode is Mode.LIVE else 0.0,
        reasons=tuple(reasons),
        generation=view.governance_generation,
        issued_at=now,
        expires_at=now + DECISION_TTL,
    )


def _decided(
    view: WorldView, strategy_id: StrategyId, now: datetime
) -> tuple[Mode, float, list[str]]:
    row = view.strategy(strategy_id).row
    phase = view.phase(row)
    if view.state is not WorldState.ACTIVE:
        return Mode.COMPUTE_ONLY, 0.0, [Reason.WORLD_SUSPENDED]
    lowered = [Reason.WORLD_KILLED] if view.killed else []
    match phase:
        case Phase.BACKTEST:
            return Mode.COMPUTE_ONLY, 0.0, [phase, *lowered]
        case Phase.RETIRED:
            return Mode.COMPUTE_ONLY, 0.0, [Reason.RETIRED, *lowered]
        case Phase.PAPER:
            held = [Reason.HELD] if view.standings.held[row] else []
            return Mode.PAPER, 0.0, [phase, *held, *lowered]
        case Phase.LIVE:
            return _live(view, strategy_id, now)
        case _:
            assert_never(phase)


def _live(view: WorldView, strategy_id: StrategyId, now: datetime) -> tuple[Mode, float, list[str]]:
    """INVARIANT: `live` needs the world's leave now, not only at the time of promotion (I1).

    And it needs to be watched: without returns for SILENCE_LAGS_MAX times `data.max_lag`,
    compute-only until they come again.  Nothing is demoted by silence alone.
    """
    held = view.live.get(strategy_id)
    if held is None or view.killed or not view.allow_live:
        checks = (
            (view.allow_live, Reason.LIVE_NOT_ALLOWED),
            (not view.killed, Reason.WORLD_KILLED),
            (held is not None, Reason.DECISION_MISSING),
        )
        return Mode.COMPUTE_ONLY, 0.0, [reason for holds, reason in checks if not holds]
    if now > silent_at(view, held):
        return Mode.COMPUTE_ONLY, 0.0, [Reason.RISK_SNAPSHOT_STALE]
    if held.freeze:
        return Mode.COMPUTE_ONLY, 0.0, [Reason.FROZEN]
    if held.drain:
        return Mode.LIVE, 0.0, [Phase.LIVE, Reason.DRAINING]
    return Mode.LIVE, held.weight, [Phase.LIVE]


def silent_at(view: WorldView, held: Activation) -> datetime:
    """After when, should no live return come, a live strategy may compute only."""
    version = view.candidates[held.candidate_id].policy_version
    lag = view.policies[version].policy.data.max_lag
    return heard_at(view, held.strategy_id) + SILENCE_LAGS_MAX * lag


def heard_at(view: WorldView, strategy_id: StrategyId) -> datetime:
    """The last live return of a strategy, or its entry into live."""
    row, track = view.strategies[strategy_id].row, view.tracks[Stage.LIVE]
    return instant(max(int(track.last_t[row]), int(track.window_from[row])))


def _ramp_fraction(view: WorldView, strategy_id: StrategyId) -> float:
    held = view.live[strategy_id]
    version = view.candidates[held.candidate_id].policy_version
    return view.policies[version].policy.governance.ramp[held.step].fraction


def floor(
    world_id: WorldId, strategy_id: StrategyId, reason: Reason, now: datetime
) -> DecisionEnvelope:
    """The envelope when nobody could be asked: compute-only, and it says so."""
    return DecisionEnvelope(
        world_id=world_id,
        strategy_id=strategy_id,
        policy_version=None,
        effective_mode=Mode.COMPUTE_ONLY,
        weight=0.0,
        ramp_fraction=0.0,
        reasons=(reason,),
        generation=0,
        issued_at=now,
        expires_at=now + DECISION_TTL,
        downgraded=True,
        safe_mode=True,
    )


def permitted(envelope: DecisionEnvelope | None, age: timedelta) -> Mode:
    """What a client may do, `age` after it asked for what it holds.  In doubt, compute only.

    The client measures `age` on its own monotonic clock; `issued_at` only orders.
    """
    if envelope is None or envelope.ttl > DECISION_TTL:
        return Mode.COMPUTE_ONLY
    if timedelta(0) <= age < envelope.ttl:
        return envelope.effective_mode
    return Mode.COMPUTE_ONLY


def newer(held: DecisionEnvelope | None, told: DecisionEnvelope) -> DecisionEnvelope:
    """Of two envelopes of one strategy, the one to hold: never an older generation (I4)."""
    if held is None or told.generation >= held.generation:
        return told
    return held
