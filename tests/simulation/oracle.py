"""The journal read a second time, plainly: where everyone stands, and was it right to go live?

Nothing here calls `clear_for_live`, `progress`, `freshness`, `evaluate`, the fold or a view: it
reads the facts that came before a promotion and works out, slowly and plainly, what I1 asks for.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from qmtl.core import facts as f
from qmtl.core.decision import DecisionEnvelope
from qmtl.core.names import Mode, Phase, Stage, StrategyId, Verdict, WorldState
from qmtl.core.policy import AutoApply, Disabled, ManualApproval, Policy
from qmtl.core.times import instant, instant_or_none
from qmtl.core.view import Approved, Proposed, WorldView

Point = tuple[datetime, float, bool, timedelta]  # When, how much, in time, and the longest gap.


@dataclass
class Candidate:
    """What is known of one candidate since it was last proposed."""

    proposer: str
    policy_version: int
    fingerprint: str | None
    open: bool = True
    rejected: bool = False
    approvals: dict[str, datetime] = field(default_factory=dict)


@dataclass
class Life:
    """What is known of one strategy."""

    author: str
    fingerprint: str | None
    family: str = ""
    version: int = 1
    phase: Phase = Phase.BACKTEST
    held: bool = False
    step: int = -1
    weight: float = 0.0
    points: dict[Stage, list[Point]] = field(default_factory=dict)
    since: dict[Stage, datetime] = field(default_factory=dict)  # The window's beginning.
    step_at: dict[Stage, float] = field(default_factory=dict)  # Live seconds used up by a step.
    verdicts: dict[Stage, tuple[Verdict, int]] = field(default_factory=dict)
    covering: dict[Stage, tuple[int, f.SnapshotStored]] = field(default_factory=dict)
    selected: tuple[bool, int] | None = None  # By the latest cohort, under which policy.
    candidates: dict[str, Candidate] = field(default_factory=dict)

    def window(self, stage: Stage) -> tuple[float, int, list[float]]:
        """Seconds observed, how many points, and their returns."""
        since = self.since.get(stage)
        mine = [p for p in self.points.get(stage, []) if since and p[2] and p[0] > since]
        gaps = [min(b[0] - a[0], b[3]) for a, b in pairwise(mine)]
        # Summed as lengths of time: as floats the microseconds would not add up.
        span = sum(gaps, timedelta(0))
        return span.total_seconds(), len(mine), [p[1] for p in mine]

    def heard(self, stage: Stage) -> list[float]:
        """Every return since the window began: a loss counts, however late it came."""
        since = self.since.get(stage)
        return [p[1] for p in self.points.get(stage, []) if since and p[0] > since]


@dataclass
class Past:
    """A world as its journal tells it."""

    allow_live: bool = False
    state: WorldState = WorldState.ACTIVE
    killed: bool = False
    policies: dict[int, Policy] = field(default_factory=dict)
    default: int | None = None
    promoted_at: datetime | None = None
    lives: dict[StrategyId, Life] = field(default_factory=dict)
    limits: tuple[float, int] | None = None  # Weight and slots, of the newest promotion's policy.
    told: dict[StrategyId, list[tuple[datetime, float]]] = field(default_factory=dict)  # To clients
    # who heard nothing since: until when they may act on which weight.

    @property
    def policy(self) -> Policy:
        assert self.default is not None
        return self.policies[self.default]

    def live(self) -> dict[StrategyId, Life]:
        return {sid: life for sid, life in self.lives.items() if life.phase is Phase.LIVE}


def read(past: Past, entry: f.Entry) -> None:
    """Take one more entry into account."""
    fact = entry.fact
    match fact:
        case f.LiveAllowed(allowed=allowed):
            past.allow_live = allowed
            if not allowed:
                _everyone_down(past)
        case f.StateChanged(state=state):
            past.state = state
            if state is not WorldState.ACTIVE:
                _everyone_down(past)
        case f.Killed():
            past.killed = True
            _everyone_down(past)
        case f.Resumed():
            past.killed = False
        case f.PolicyAdded(version=version, policy=policy):
            past.policies[version] = policy
        case f.DefaultPolicySet(version=version):
            past.default = version
            for life in past.lives.values():
                for candidate in life.candidates.values():
                    candidate.open = candidate.open and candidate.policy_version == version
        case f.StrategyBound(strategy_id=sid):
            family = fact.family or sid
            life = Life(fact.author, fact.fingerprint, family, fact.version)
            past.lives.setdefault(sid, life).fingerprint = fact.fingerprint
        case f.SnapshotStored():
            _snapshot(past, entry, fact)
        case f.SeriesRestated():
            _restated(past, entry, fact)
        case f.EvaluationsRecorded():
            _evaluated(past, fact)
        case f.RetentionApplied():
            pass  # Nobody's life is another for it.
        case _:
            _about_one(past, entry, fact)


def _about_one(past: Past, entry: f.Entry, fact: Any) -> None:
    match fact:
        case f.PhaseEntered(strategy_id=sid, phase=phase):
            _enter(past.lives[sid], phase, entry.at)
        case f.Demoted(strategy_id=sid, to=to, held=held):
            life = past.lives[sid]
            _down(life)
            if life.phase is not to:
                _enter(life, to, entry.at)
            life.held = life.held or held
        case f.HoldReleased(strategy_id=sid):
            past.lives[sid].held = False
        case f.CampaignExtended(strategy_id=sid):
            if past.lives[sid].phase is Phase.RETIRED:
                past.lives[sid].phase = Phase.PAPER
        case f.PromotionApplied(strategy_id=sid):
            _applied(past, entry, fact)
        case f.CandidateProposed(strategy_id=sid, candidate_id=cid):
            past.lives[sid].candidates[cid] = Candidate(
                entry.actor, fact.policy_version, fact.fingerprint
            )
        case f.ApprovalGiven(candidate_id=cid):
            _candidate(past, cid).approvals[entry.actor] = entry.at
        case f.ApprovalWithdrawn(candidate_id=cid):
            _candidate(past, cid).approvals.pop(entry.actor, None)
        case f.CandidateRejected(candidate_id=cid) | f.CandidateVoided(candidate_id=cid):
            gone = _candidate(past, cid)
            gone.open, gone.rejected = False, fact.kind == "candidate_rejected"
        case f.CandidateReleased(candidate_id=cid):
            released = _candidate(past, cid)
            released.open, released.rejected, released.approvals = True, False, {}
        case _:
            pass  # Tells nothing that I1 asks for.


def _candidate(past: Past, cid: str) -> Candidate:
    return next(life.candidates[cid] for life in past.lives.values() if cid in life.candidates)


def _everyone_down(past: Past) -> None:
    for life in past.live().values():
        _down(life)
        life.phase = Phase.PAPER


def _down(life: Life) -> None:
    life.step, life.weight, life.selected = -1, 0.0, None
    _close(life)


def _close(life: Life) -> None:
    for candidate in life.candidates.values():
        candidate.open = False


def _enter(life: Life, phase: Phase, at: datetime) -> None:
    life.phase, life.selected = phase, None
    _close(life)
    if phase is Phase.PAPER:
        life.since[Stage.PAPER] = at
        life.verdicts.pop(Stage.PAPER, None)


def _applied(past: Past, entry: f.Entry, fact: f.PromotionApplied) -> None:
    life = past.lives[fact.strategy_id]
    if life.phase is not Phase.LIVE:
        life.phase = Phase.LIVE
        life.since[Stage.LIVE] = entry.at
        life.verdicts.pop(Stage.LIVE, None)
    life.step, life.weight = fact.step, fact.weight
    life.step_at[Stage.LIVE] = life.window(Stage.LIVE)[0]
    life.candidates[fact.candidate_id].open = False
    past.promoted_at = entry.at
    rules = past.policy.governance
    past.limits = (rules.max_live_weight, rules.max_live_slots)


def _snapshot(past: Past, entry: f.Entry, fact: f.SnapshotStored) -> None:
    known = past.policy if past.default is not None else None
    t, r, at = fact.points.times().tolist(), fact.points.returns().tolist(), 0
    for sid, count in zip(fact.points.strategies, fact.points.counts, strict=True):
        for i in range(at, at + count):
            when = instant(t[i])
            backtest = fact.stage is Stage.BACKTEST
            in_time = known is not None and when >= entry.at - known.data.max_lag
            longest = 5 * known.data.bar if known else timedelta(0)
            point = (when, r[i], backtest or in_time, longest)
            past.lives[sid].points.setdefault(fact.stage, []).append(point)
        at += count
    for sid in fact.covered:
        newest = past.lives[sid].covering.get(fact.stage)
        if sid in fact.weights and (newest is None or fact.as_of >= newest[1].as_of):
            past.lives[sid].covering[fact.stage] = (entry.seq, fact)


def _restated(past: Past, entry: f.Entry, fact: f.SeriesRestated) -> None:
    life, stage = past.lives[fact.strategy_id], fact.stage
    t, r = fact.points.times().tolist(), fact.points.returns().tolist()
    backtest = stage is Stage.BACKTEST
    life.points[stage] = [
        (instant(when), ret, backtest, timedelta(0)) for when, ret in zip(t, r, strict=True)
    ]
    if stage in life.since:
        life.since[stage] = entry.at
    life.verdicts.pop(stage, None)
    life.covering.pop(stage, None)
    if stage in (Stage.BACKTEST, Stage.PAPER):
        life.selected = None
        _close(life)


def _evaluated(past: Past, fact: f.EvaluationsRecorded) -> None:
    for run in fact.runs:
        life = past.lives[run.strategy_id]
        _, version = life.verdicts.get(fact.stage, (None, 0))
        in_paper = fact.stage is Stage.PAPER and life.phase is Phase.PAPER
        if in_paper and version != fact.policy_version:
            life.selected = None  # Another policy selected it, if any did.
        life.verdicts[fact.stage] = (run.verdict, fact.policy_version)
    for sid in fact.cohort:
        past.lives[sid].selected = (sid in fact.selected, fact.policy_version)


def tell(past: Past, envelope: DecisionEnvelope) -> None:
    """A client asked, was told this, and hears nothing from here on."""
    if envelope.effective_mode is Mode.LIVE and envelope.weight > 0.0:
        acts = past.told.setdefault(envelope.strategy_id, [])
        acts.append((envelope.issued_at + timedelta(seconds=300), envelope.weight))


# ---- The questions -----------------------------------------------------------------------------


def overcommitted(past: Past, now: datetime) -> list[str]:
    """How all clients together, each as it was told last, go beyond what may be live."""
    past.told = {
        sid: running
        for sid, acts in past.told.items()
        if (running := [(until, weight) for until, weight in acts if now < until])
    }
    if past.limits is None:
        return [f"{sid} may trade, and nobody was promoted" for sid in past.told]
    weight, slots = past.limits
    believed = {sid: max(w for _, w in acts) for sid, acts in past.told.items()}
    checks = (
        (sum(believed.values()) <= weight + 1e-9, f"clients act on {believed}, of {weight} in all"),
        (len(believed) <= slots, f"clients act on {believed}, of {slots} slots"),
    )
    return [why for holds, why in checks if not holds]


PHASE = {Stage.BACKTEST: Phase.BACKTEST, Stage.PAPER: Phase.PAPER, Stage.LIVE: Phase.LIVE}


def disagreements(past: Past, view: WorldView) -> list[str]:
    """Where a view says otherwise than the journal, read this way."""
    told = []
    for sid, life in past.lives.items():
        row = view.strategies[sid].row
        standings, paper = view.standings, view.tracks[Stage.PAPER]
        waiting = [view.candidates[cid] for cid in view.current.get(sid, ())]
        open_ = {c.candidate_id for c in waiting if isinstance(c.standing, Proposed | Approved)}
        pairs: list[tuple[str, object, object]] = [
            ("phase", view.phase(row), life.phase),
            ("held", bool(standings.held[row]), life.held),
            ("step", int(standings.step[row]), life.step),
            ("selected", bool(standings.selected[row]), bool(life.selected and life.selected[0])),
            ("open", open_, {cid for cid, c in life.candidates.items() if c.open}),
            ("window", instant_or_none(int(paper.window_from[row])), life.since.get(Stage.PAPER)),
        ]
        for stage in (Stage.PAPER, Stage.LIVE):
            seconds, count, _ = life.window(stage)
            track = view.tracks[stage]
            verdict = life.verdicts.get(stage)
            pairs += [
                (f"{stage} seconds", int(track.window_us[row]) / 1e6, seconds),
                (f"{stage} points", int(track.window_points[row]), count),
                (f"{stage} verdict", view.verdict(row, stage), verdict and verdict[0]),
                (
                    f"{stage} drawdown",
                    f"{track.drawdown[row]:.9f}",
                    f"{_drawdown(life.heard(stage)):.9f}",
                ),
            ]
        told += [f"{sid} {what}: {a} not {b}" for what, a, b in pairs if a != b]
    live = {sid: a.applied_weight for sid, a in view.live.items()}
    if live != {sid: life.weight for sid, life in past.live().items()}:
        told.append(f"live: {live}")
    return told


def misnamed(past: Past, entry: f.Entry) -> list[str]:
    """Why this strategy should not have been bound as it was: each says what did not hold."""
    fact = entry.fact
    if not isinstance(fact, f.StrategyBound):
        return []
    sid, told = fact.strategy_id, fact.fingerprint
    known = past.lives.get(sid)
    mine = {s: life for s, life in past.lives.items() if life.family == (fact.family or sid)}
    same = {
        s: life for s, life in past.lives.items() if told is not None and life.fingerprint == told
    }
    last = max(mine, key=lambda s: mine[s].version, default=None)
    checks = (
        (fact.author == entry.actor, "in the name of another"),
        (known is None or known.fingerprint is None, "it had a fingerprint"),
        (known is None or known.author == entry.actor, "it is another author's"),
        (not set(same) & set(mine), "its family has that fingerprint"),
        (
            not any(
                life.held or any(c.rejected for c in life.candidates.values())
                for life in same.values()
            ),
            "that fingerprint is held or rejected",
        ),
        (fact.version == 1 or sid not in past.lives, "a later version was bound twice"),
        (fact.version == 1 or fact.previous == last, "it does not follow the last"),
        (fact.version == 1 or fact.version == len(mine) + 1, "a version was left out"),
        (
            fact.version == 1 or {life.author for life in mine.values()} == {entry.actor},
            "its family is another author's",
        ),
        (
            fact.version == 1 or None not in {life.fingerprint for life in mine.values()},
            "what it follows has no fingerprint",
        ),
    )
    return [f"{sid}: {why}" for holds, why in checks if not holds]


def unfair(past: Past, entry: f.Entry) -> list[str]:
    """Why this selection should not have been made: not among all rivals, or of who fails."""
    fact = entry.fact
    if not isinstance(fact, f.EvaluationsRecorded) or not fact.cohort:
        return []
    phase = PHASE.get(fact.stage)
    rivals = {
        sid
        for sid, life in past.lives.items()
        if life.phase is phase and life.window(fact.stage)[1]
    }
    verdicts = {sid: past.lives[sid].verdicts.get(fact.stage, (None,))[0] for sid in rivals}
    verdicts |= {run.strategy_id: run.verdict for run in fact.runs}
    checks = (
        (set(fact.cohort) == rivals, f"{fact.cohort} are not the rivals, {rivals}"),
        (set(fact.selected) <= rivals, f"{fact.selected} are not of the rivals"),
        (
            all(verdicts[sid] is Verdict.PASS for sid in set(fact.selected) & rivals),
            f"{fact.selected} did not all pass",
        ),
    )
    return [why for holds, why in checks if not holds]


def unjustified(past: Past, entry: f.Entry) -> list[str]:
    """Why this promotion should not have been, given all that came before it."""
    fact = entry.fact
    assert isinstance(fact, f.PromotionApplied)
    life, policy, now = past.lives[fact.strategy_id], past.policy, entry.at
    stage = Stage.PAPER if fact.step == 0 else Stage.LIVE
    verdict = life.verdicts.get(stage)
    checks: list[tuple[bool, str]] = [
        (past.allow_live, "live was not allowed"),
        (past.state is WorldState.ACTIVE, "the world was not active"),
        (not past.killed, "the world was killed"),
        (not isinstance(policy.governance.live_promotion, Disabled), "promotion was disabled"),
        (not life.held, "it was held"),
        (life.step == fact.step - 1, "it jumped a step"),
        (life.phase is (Phase.PAPER if stage is Stage.PAPER else Phase.LIVE), "the wrong phase"),
        (not _frozen(policy, now), "it was frozen"),
        (verdict == (Verdict.PASS, past.default), f"the latest run was {verdict}"),
        (_selected(past, life, fact.step), "it was not selected"),
    ]
    told = [*_of_window(past, life, stage), *_of_evidence(past, life, fact.strategy_id, stage, now)]
    told += [*_of_candidate(past, life, fact, now), *_of_capital(past, fact, now)]
    return [why for holds, why in (*checks, *told) if not holds]


def _selected(past: Past, life: Life, step: int) -> bool:
    if past.policy.selection is None:
        return True
    if life.selected is None:
        return False
    chosen, version = life.selected
    return chosen and (version == past.default or step > 0)


def _frozen(policy: Policy, now: datetime) -> bool:
    for freeze in policy.governance.freeze:  # Here they all start on some hour of every day.
        hour = int(freeze.cron.split()[1])
        start = now.replace(hour=hour, minute=0, second=0, microsecond=0)
        start -= timedelta(days=1) if start > now else timedelta(0)
        if now < start + freeze.length:
            return True
    return False


Checks = Iterable[tuple[bool, str]]


def _of_window(past: Past, life: Life, stage: Stage) -> Checks:
    seconds, count, _ = life.window(stage)
    policy = past.policy
    if stage is Stage.PAPER:
        asked, least = policy.campaign.paper.span, policy.campaign.paper.min_observations
    else:
        asked, least = policy.governance.ramp[life.step + 1].observe, 1
        seconds -= life.step_at[Stage.LIVE]
    yield seconds >= asked.total_seconds(), f"{seconds} s observed of {asked}"
    yield count >= least, f"{count} observations of {least}"


def _of_evidence(past: Past, life: Life, sid: StrategyId, stage: Stage, now: datetime) -> Checks:
    policy, (_, _, returns) = past.policy, life.window(stage)
    seq, snapshot = life.covering.get(stage, (0, None))
    yield snapshot is not None, "no snapshot covered it"
    if snapshot is None:
        return
    age, most = now - snapshot.as_of, policy.risk.snapshot_max_age
    ttl = timedelta(seconds=snapshot.ttl_sec)
    yield timedelta(seconds=-60) <= age <= ttl, f"the snapshot {seq} was {age} old of {ttl}"
    yield most is None or age <= most, f"the snapshot {seq} was {age} old of {most}"
    worst = max((snapshot.stress or {}).get(sid, {"": math.nan}).values())
    limit = policy.risk.max_stress_loss
    yield limit is None or worst <= limit, f"stress {worst} of {limit}"
    known: dict[str, Callable[[], float]] = {
        "sharpe_annual": lambda: _sharpe(returns, policy.data.periods_per_year),
        "max_drawdown": lambda: _drawdown(returns) if returns else math.nan,
        "stress_loss_max": lambda: worst,
        "trades_total": lambda: (snapshot.stats or {}).get(sid, {}).get("trades_total", math.nan),
    }
    for bound in policy.gates.of(stage):
        value = known[bound.metric]()
        slack = 1e-9
        yield bound.min is None or value >= bound.min - slack, f"{bound.metric} was {value}"
        yield bound.max is None or value <= bound.max + slack, f"{bound.metric} was {value}"
    yield from _correlated(past, life, sid)


def _sharpe(returns: Sequence[float], periods_per_year: float) -> float:
    r = np.array(returns)
    if len(r) < 2 or r.std(ddof=1) <= 1e-12 or (r <= -1).any():
        return math.nan
    return float(r.mean() / r.std(ddof=1) * math.sqrt(periods_per_year))


def _drawdown(returns: Sequence[float]) -> float:
    equity = peak = 1.0
    worst = 0.0
    for r in returns:
        equity = max(0.0, equity * (1 + r))
        peak = max(peak, equity)
        worst = max(worst, 1 - equity / peak)
    return worst


def _correlated(past: Past, life: Life, sid: StrategyId) -> Checks:
    limit = past.policy.risk.max_pairwise_correlation_to_live
    for other, theirs in past.live().items():
        if limit is None or other == sid:
            continue
        found = []
        for a in (Stage.PAPER, Stage.LIVE):
            for b in (Stage.PAPER, Stage.LIVE):
                mine = {p[0]: p[1] for p in life.points.get(a, [])}
                his = {p[0]: p[1] for p in theirs.points.get(b, [])}
                common = sorted(set(mine) & set(his))
                x, y = np.array([mine[t] for t in common]), np.array([his[t] for t in common])
                if len(common) >= 20 and min(x.std(), y.std()) > 1e-9:
                    found.append(float(np.corrcoef(x, y)[0, 1]))
        yield bool(found) and max(found) <= limit + 1e-9, f"correlation with {other}: {found}"


def _of_candidate(past: Past, life: Life, fact: f.PromotionApplied, now: datetime) -> Checks:
    candidate = life.candidates.get(fact.candidate_id)
    yield candidate is not None, "nobody proposed it"
    if candidate is None:
        return
    yield candidate.open, "its candidate was void, rejected or applied"
    yield candidate.policy_version == past.default, "proposed under another policy"
    yield candidate.fingerprint == life.fingerprint, "proposed with another fingerprint"
    promotion = past.policy.governance.live_promotion
    if isinstance(promotion, ManualApproval):
        valid = [
            by
            for by, at in candidate.approvals.items()
            if now - at < promotion.expires and by not in (life.author, candidate.proposer)
        ]
        yield len(valid) >= promotion.min, f"approved by {valid} of {promotion.min}"
    else:
        yield isinstance(promotion, AutoApply), "nobody promotes"


def _of_capital(past: Past, fact: f.PromotionApplied, now: datetime) -> Checks:
    rules = past.policy.governance
    others = {sid: life for sid, life in past.live().items() if sid != fact.strategy_id}
    cleared = rules.ramp[fact.step].fraction * rules.max_live_weight / rules.max_live_slots
    total = sum(life.weight for life in others.values()) + fact.weight
    cool = past.promoted_at is None or now >= past.promoted_at + rules.cooldown
    yield abs(fact.weight - cleared) < 1e-9, f"a weight of {fact.weight} for {cleared}"
    yield len(others) < rules.max_live_slots, "the slots were taken"
    yield total <= rules.max_live_weight + 1e-9, f"a weight of {total} in all"
    yield cool, f"cooling down since {past.promoted_at}"
