"""Histories that could have happened, drawn step by step: what stores are tested with.

A history is a list of commits.  Each fact is legal on the view before it: it names what is there,
its times go forward, a candidate is applied once.  Whether a *policy* would have allowed it is not
asked; a store must keep whatever the core hands it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random

import numpy as np

from qmtl.adapters.codec import fact_to_bytes
from qmtl.app.ports import Commit
from qmtl.core import facts as f
from qmtl.core import retention
from qmtl.core.evaluation_run import EvaluationRun, GateResult, Metric, Source
from qmtl.core.fold import entries, fold
from qmtl.core.names import (
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
from qmtl.core.policy import AutoApply, Disabled, Governance, ManualApproval, Policy
from qmtl.core.times import instant, micros
from qmtl.core.versions import family
from qmtl.core.view import Expected, Rejected, WorldView

WORLD = WorldId("w")
START = datetime(2026, 1, 1, tzinfo=UTC)
EVERYWHERE = Expected()
ACTORS = tuple(ActorId(name) for name in ("ann", "bob", "loop"))
DIGEST = Digest("0123456789abcdef" * 2)
STRATEGIES_MAX = 5
Series = Mapping[StrategyId, tuple[Sequence[int], Sequence[float]]]  # Times and returns.
PROMOTIONS = (
    Disabled(),
    AutoApply(),
    ManualApproval(min=1),
    ManualApproval(min=2, roles=frozenset({Role.APPROVER, Role.ADMIN})),
)


def points(series: Series) -> f.Points:
    """Times and returns of several strategies, as a fact carries them."""
    return f.Points(
        strategies=tuple(series),
        counts=tuple(len(t) for t, _ in series.values()),
        t=b"".join(np.array(t, "<i8").tobytes() for t, _ in series.values()),
        r=b"".join(np.array(r, "<f8").tobytes() for _, r in series.values()),
    )


def evaluation(
    strategy_id: StrategyId,
    run_id: str = "r1",
    stage: Stage = Stage.PAPER,
    revision: int = 1,
    verdict: Verdict = Verdict.PASS,
    sharpe: float | None = 1.25,
) -> EvaluationRun:
    """A run with a metric and a gate."""
    metric = Metric(
        value=sharpe, unit="ratio", source=Source.REALIZED_RETURNS, snapshot_version="v"
    )
    gate = GateResult(
        metric="sharpe_annual", min=0.5, max=None, value=sharpe, verdict=verdict, detail="…"
    )
    passes = verdict is Verdict.PASS
    return EvaluationRun(
        strategy_id=strategy_id,
        run_id=RunId(run_id),
        stage=stage,
        revision=revision,
        verdict=verdict,
        problems=() if passes else ((Reason.VALIDATION_FAILED, "too low"),),
        metrics={"sharpe_annual": metric},
        gates=(gate,),
        policy_version=1,
        snapshot_version=None,
        evidence=DIGEST,
        observations=3,
        observed_sec=86_400.5,
    )


def bound(strategy_id: str, fingerprint: str | None = "f1") -> f.StrategyBound:
    return f.StrategyBound(
        strategy_id=StrategyId(strategy_id),
        name=f"the {strategy_id}",
        author=ACTORS[0],
        fingerprint=fingerprint,
        variants_tried=None,
    )


def snapshot(
    version: str,
    series: Series,
    as_of: datetime = START,
    stage: Stage = Stage.PAPER,
) -> f.SnapshotStored:
    return f.SnapshotStored(
        version=version,
        stage=stage,
        as_of=as_of,
        ttl_sec=900,
        content=DIGEST,
        weights=dict.fromkeys(series, 1.0 / max(1, len(series))),
        covered=tuple(series),
        points=points(series),
    )


@dataclass
class History:
    """Draws commits, each legal on the view that those before it led to."""

    draw: Random
    view: WorldView = field(default_factory=lambda: WorldView(world_id=WORLD))
    now: datetime = START
    counted: int = 0  # Makes ids that were never used.
    revisions: dict[tuple[StrategyId, str], int] = field(default_factory=dict)
    whole: dict[int, f.SnapshotStored] = field(default_factory=dict)  # That may be reduced.

    def commit(self) -> Commit:
        """Between one and four facts, at a later instant."""
        self.now += timedelta(seconds=self.draw.randint(1, 200_000))
        actor = self.draw.choice(ACTORS)
        facts: list[f.Fact] = []
        expected, before = self.view.expected, self.view
        for _ in range(self.draw.randint(1, 4)):
            facts.append(self._fact())
            self.view = fold(before, entries(before, facts, actor, self.now))
        return Commit(expected, facts, actor, self.now)

    def commits(self, count: int) -> list[Commit]:
        return [self.commit() for _ in range(count)]

    def _fact(self) -> f.Fact:
        while True:
            made = self.draw.choice(MAKERS)(self)
            if made is not None:
                return made

    def fresh(self, kind: str) -> str:
        self.counted += 1
        return f"{kind}{self.counted}"

    def strategy(self, *phases: Phase) -> StrategyId | None:
        """One that is bound, in one of these phases if any are named."""
        found = [
            s.strategy_id
            for s in self.view.in_order()
            if not phases or self.view.phase(s.row) in phases
        ]
        return self.draw.choice(found) if found else None

    def live(self) -> StrategyId | None:
        return self.draw.choice(sorted(self.view.live)) if self.view.live else None

    def candidate(self, rejected: bool = False) -> CandidateId | None:
        """One that is open; of those rejected, if asked."""
        found = [
            c.candidate_id
            for c in self.view.open_candidates()
            if isinstance(c.standing, Rejected) is rejected
        ]
        return self.draw.choice(found) if found else None

    def series(self, strategy_id: StrategyId, stage: Stage) -> tuple[list[int], list[float]]:
        """New points: one bar mostly, now and then so many that chunks overflow."""
        row = self.view.strategies[strategy_id].row
        count = self.draw.choice((0, 1, 1, 1, 2, 130, 300))
        last = int(self.view.tracks[stage].last_t[row])
        step = 60_000_000
        start = max(last, micros(self.now) - self.draw.choice((0, 20)) * 86_400_000_000 - count)
        return (
            [start + step * (i + 1) for i in range(count)],
            [self.draw.uniform(-0.05, 0.06) for _ in range(count)],
        )


def _bind(h: History) -> f.Fact | None:
    if len(h.view.strategies) < STRATEGIES_MAX:
        return _version(h) or bound(h.fresh("s"), h.draw.choice(("f1", None)))
    bare = [s.strategy_id for s in h.view.in_order() if s.fingerprint is None]
    return bound(h.draw.choice(bare), "f2") if bare else None


def _version(h: History) -> f.Fact | None:
    """Now and then, of a family that can have one more."""
    told = [s for s in h.view.in_order() if s.fingerprint is not None]
    if not told or h.draw.random() < 0.5:
        return None
    last = family(h.view, h.draw.choice(told).family)[-1]
    return replace(
        bound(f"{last.family}.{last.version + 1}", h.fresh("f")),
        family=last.family,
        version=last.version + 1,
        previous=last.strategy_id,
        parts=h.draw.choice(({}, {"code": "c", "data": "d"})),
    )


def _policy(h: History) -> f.Fact:
    governance = Governance(live_promotion=h.draw.choice(PROMOTIONS))
    return f.PolicyAdded(
        version=len(h.view.policies) + 1, checksum="c", policy=Policy(governance=governance)
    )


def _default(h: History) -> f.Fact | None:
    versions = sorted(h.view.policies)
    return f.DefaultPolicySet(version=h.draw.choice(versions)) if versions else None


def _snapshot(h: History) -> f.Fact | None:
    stage = h.draw.choice(tuple(Stage))
    some = [s.strategy_id for s in h.view.in_order() if h.draw.random() < 0.7]
    if not some:
        return None
    made = snapshot(h.fresh("v"), {sid: h.series(sid, stage) for sid in some}, h.now, stage)
    filled = {s: c for s, c in zip(made.points.strategies, made.points.counts, strict=True) if c}
    as_of = h.now - timedelta(days=h.draw.choice((0, 0, 0, 3)))
    stress = {some[0]: {"crash": 0.2, "gap": 0.1}} if h.draw.random() < 0.5 else None
    stored = f.SnapshotStored(
        version=made.version,
        stage=stage,
        as_of=as_of,
        ttl_sec=60,
        content=DIGEST,
        weights={s: w for s, w in made.weights.items() if h.draw.random() < 0.9},
        covered=made.covered,
        points=f.Points(
            strategies=tuple(filled),
            counts=tuple(filled.values()),
            t=made.points.t,
            r=made.points.r,
        ),
        stress=stress,
    )
    if stress:
        h.whole[h.view.seq + 1] = stored
    return stored


def _retention(h: History) -> f.Fact | None:
    """As if nothing held any of them: a store is not asked that."""
    if len(h.whole) < 3:
        return None
    gone = [(seq, h.whole.pop(seq)) for seq in h.draw.sample(sorted(h.whole), 2)]
    reduced = [
        f.Reduced(seq, digest_of(fact), digest_of(retention.reduced(fact, h.now)))
        for seq, fact in gone
    ]
    return f.RetentionApplied(stored_before=h.now, reduced=tuple(reduced))


def digest_of(fact: f.Fact) -> Digest:
    return Digest(sha256(fact_to_bytes(fact)).hexdigest())


def _restated(h: History) -> f.Fact | None:
    sid, stage = h.strategy(), h.draw.choice(tuple(Stage))
    if sid is None:
        return None
    count = h.draw.choice((1, 2, 129))
    start = micros(START)
    series = ([start + i for i in range(count)], [0.01] * count)
    return f.SeriesRestated(
        stage=stage, strategy_id=sid, reason="vendor", points=points({sid: series})
    )


def _evaluations(h: History) -> f.Fact | None:
    stage = h.draw.choice(tuple(Stage))
    some = [s.strategy_id for s in h.view.in_order() if h.draw.random() < 0.6]
    if not some:
        return None
    runs = []
    for sid in some:
        run_id = f"{stage}-{h.draw.randint(1, 3)}"
        revision = h.revisions[sid, run_id] = h.revisions.get((sid, run_id), 0) + 1
        verdict = h.draw.choice(tuple(Verdict))
        runs.append(evaluation(sid, run_id, stage, revision, verdict, h.draw.choice((None, 1.5))))
    cohort = tuple(s.strategy_id for s in h.view.in_order()) if h.draw.random() < 0.4 else ()
    return f.EvaluationsRecorded(
        stage=stage,
        policy_version=h.draw.choice((1, 2)),
        runs=tuple(runs),
        cohort=cohort,
        selected=cohort[:2],
    )


def _phase(h: History) -> f.Fact | None:
    sid = h.strategy(Phase.BACKTEST, Phase.PAPER)
    if sid is None:
        return None
    phase = h.draw.choice((Phase.PAPER, Phase.PAPER, Phase.RETIRED, Phase.BACKTEST))
    return f.PhaseEntered(strategy_id=sid, phase=phase)


def _proposed(h: History) -> f.Fact | None:
    sid = h.strategy(Phase.PAPER, Phase.LIVE)
    if sid is None or h.view.default_version is None or h.view.open_candidate(sid):
        return None
    row = h.view.strategies[sid].row
    return f.CandidateProposed(
        candidate_id=CandidateId(h.fresh("c")),
        strategy_id=sid,
        fingerprint="f1",
        policy_version=h.view.default_version,
        entered_at=h.view.entered_at(row) or instant(0),
        step=int(h.view.standings.step[row]) + 1,
        run_id=RunId("r"),
        evidence=DIGEST,
    )


def _about_candidate(h: History) -> f.Fact | None:
    cid = h.candidate()
    if cid is None:
        return None
    return h.draw.choice(
        (
            f.ApprovalGiven(candidate_id=cid, run_id=RunId("r"), evidence=DIGEST, reason="good"),
            f.ApprovalGiven(candidate_id=cid, run_id=RunId("r"), evidence=DIGEST, reason="yes"),
            f.ApprovalWithdrawn(candidate_id=cid),
            f.CandidateRejected(candidate_id=cid, reason="no"),
            f.CandidateVoided(candidate_id=cid, reason=Reason.CANDIDATE_SUPERSEDED),
        )
    )


def _released(h: History) -> f.Fact | None:
    cid = h.candidate(rejected=True)
    return f.CandidateReleased(candidate_id=cid, reason="looked again") if cid else None


def _applied(h: History) -> f.Fact | None:
    cid = h.candidate()
    if cid is None:
        return None
    candidate = h.view.candidates[cid]
    row = h.view.strategies[candidate.strategy_id].row
    if h.view.phase(row) not in (Phase.PAPER, Phase.LIVE):
        return None
    return f.PromotionApplied(
        candidate_id=cid,
        strategy_id=candidate.strategy_id,
        run_id=candidate.run_id,
        evidence=DIGEST,
        snapshot_seq=max(1, h.view.seq),
        step=candidate.step,
        weight=h.draw.uniform(0.0, 1.0),
    )


def _about_live(h: History) -> f.Fact | None:
    sid = h.live()
    if sid is None:
        return None
    most = h.view.live[sid].applied_weight
    return h.draw.choice(
        (
            f.ActivationLowered(
                strategy_id=sid, weight=most * h.draw.random(), freeze=True, drain=False
            ),
            f.ActivationAcknowledged(strategy_id=sid, sequence=h.view.live[sid].sequence),
            f.Demoted(
                strategy_id=sid,
                to=h.draw.choice((Phase.PAPER, Phase.RETIRED)),
                reason=Reason.DRAWDOWN_BREACHED,
                detail="0.2 > 0.1",
                held=h.draw.random() < 0.5,
            ),
        )
    )


def _about_strategy(h: History) -> f.Fact | None:
    sid = h.strategy()
    if sid is None:
        return None
    blocked = (Reason.HELD, Reason.FROZEN)
    return h.draw.choice(
        (
            f.HoldReleased(strategy_id=sid, reason="fine"),
            f.CampaignExtended(strategy_id=sid, by_sec=86_400, reason="close"),
            f.PromotionBlocked(
                strategy_id=sid, candidate_id=h.candidate(), reasons=blocked, details=("x", "y")
            ),
        )
    )


def _about_world(h: History) -> f.Fact:
    asked = h.fresh("k")
    return h.draw.choice(
        (
            f.LiveAllowed(allowed=True),
            f.LiveAllowed(allowed=False),
            f.StateChanged(state=h.draw.choice(tuple(WorldState))),
            f.Killed(reason="storm"),
            f.Resumed(reason="calm"),
            f.ConfirmationRequested(confirmation_id=asked, what="resume", policy_version=None),
            f.ConfirmationGiven(confirmation_id=min(h.view.confirmations, default="")),
        )
        if h.view.confirmations
        else (f.ConfirmationRequested(confirmation_id=asked, what="allow_live", policy_version=1),)
    )


def _about_system(h: History) -> f.Fact:
    made = h.fresh("n")
    token = f.TokenCreated(
        token_sha256=made, actor=ACTORS[1], roles=(Role.AUTHOR,), world_id=None, expires_at=h.now
    )
    world = f.WorldCreated(
        world_id=WorldId(made), name=made, description="", labels={"a": "b"}, allow_live=False
    )
    program = f.ProgramStarted(code=Digest(made))
    known = min(h.view.tokens, default=None)
    if known is None:
        return h.draw.choice((token, world, program))
    if len(h.view.tokens) % 2:
        until = h.now + timedelta(days=1)
        token = replace(token, replaces=known, overlap_until=until, sponsor=ACTORS[0])
    return h.draw.choice((token, world, program, f.TokenRevoked(token_sha256=known)))


Maker = Callable[[History], f.Fact | None]
MAKERS: tuple[Maker, ...] = (
    _bind,
    _bind,
    _policy,
    _default,
    *(_snapshot,) * 4,
    _retention,
    *(_evaluations,) * 3,
    _restated,
    *(_phase,) * 3,
    *(_proposed,) * 4,
    *(_about_candidate,) * 3,
    _released,
    *(_applied,) * 5,
    *(_about_live,) * 3,
    *(_about_strategy,) * 3,
    _about_world,
    _about_system,
)
