"""What each fact means.  The one definition: every store must agree with it, and replay is it.

`advance(view, entry)` is the next view.  It never fails on a fact that was committed, reads no
clock, and shares with the view before it all that the fact did not touch.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from . import facts as f
from . import proof
from .candidates import candidate_fact, stand, void, void_all
from .columns import PHASES, VERDICTS
from .confirmations import SETTLES, unsettled
from .leases import settled
from .names import ActorId, Phase, Reason, Stage, StrategyId, Stream, Verdict
from .series import append, blank_window
from .times import NEVER, micros
from .view import (
    Activation,
    Applied,
    Confirmation,
    LatestRun,
    PolicyVersion,
    Rejected,
    Strategy,
    Token,
    WorldRecord,
    WorldView,
)
from .windows import evidence_stage


def advance(view: WorldView, entry: f.Entry) -> WorldView:
    """The view after one journal entry."""
    view = replace(view, seq=entry.seq)
    match f.stream_of(entry.fact):
        case Stream.EVIDENCE:
            view = replace(view, evidence_generation=entry.generation)
            return _evidence(view, entry)
        case Stream.GOVERNANCE:
            view = replace(view, governance_generation=entry.generation)
            return _governance(view, entry)


def fold(view: WorldView, entries: Iterable[f.Entry]) -> WorldView:
    """The view after many entries."""
    for entry in entries:
        view = advance(view, entry)
    return view


def entries(
    view: WorldView, facts: Iterable[f.Fact], actor: ActorId, at: datetime
) -> tuple[f.Entry, ...]:
    """The journal entries that these facts become when they are committed on `view`.

    One commit raises the generation of each stream it writes to by one.
    """
    generation = {
        Stream.EVIDENCE: view.evidence_generation + 1,
        Stream.GOVERNANCE: view.governance_generation + 1,
    }
    return tuple(
        f.Entry(seq=seq, generation=generation[f.stream_of(fact)], at=at, actor=actor, fact=fact)
        for seq, fact in enumerate(facts, view.seq + 1)
    )


def _evidence(view: WorldView, entry: f.Entry) -> WorldView:
    fact = entry.fact
    match fact:
        case f.SnapshotStored():
            return _snapshot_stored(view, entry, fact)
        case f.SeriesRestated():
            return _series_restated(view, entry, fact)
        case f.EvaluationsRecorded():
            return _evaluations_recorded(view, entry, fact)
        case f.RetentionApplied():
            return view  # Of what it removed, no view was ever made.
        case _:
            raise AssertionError(f"{fact.kind} is not of the evidence stream")


def _governance(view: WorldView, entry: f.Entry) -> WorldView:
    fact = entry.fact
    if type(fact) in SETTLES:
        view = replace(view, confirmations=Map(unsettled(view, fact)))
    match fact:
        case f.WorldCreated() | f.TokenCreated() | f.TokenRevoked() | f.ProgramStarted():
            return _system(view, entry, fact)
        case f.LiveAllowed(allowed=allowed):
            view = replace(view, allow_live=allowed)
            return view if allowed else _empty_live(view, entry, Reason.LIVE_NOT_ALLOWED)
        case f.Killed():
            return _empty_live(replace(view, killed=True), entry, Reason.WORLD_KILLED)
        case f.Resumed():
            return replace(view, killed=False)
        case f.StateChanged(state=state):
            view = replace(view, state=state)
            working = state is state.ACTIVE
            return view if working else _empty_live(view, entry, Reason.WORLD_SUSPENDED)
        case f.PolicyAdded() | f.DefaultPolicySet():
            return _policy(view, entry, fact)
        case f.ConfirmationRequested(confirmation_id=key):
            asked = Confirmation(
                confirmation_id=key,
                what=fact.what,
                policy_version=fact.policy_version,
                by=entry.actor,
                at=entry.at,
                sponsor=fact.sponsor,
            )
            return replace(view, confirmations=view.confirmations.set(key, asked))
        case f.ConfirmationGiven(confirmation_id=key):
            settled_already = key not in view.confirmations  # As older journals tell it.
            if settled_already:
                return view
            return replace(view, confirmations=view.confirmations.delete(key))
        case f.StrategyBound():
            return _strategy_bound(view, entry, fact)
        case f.PhaseEntered(strategy_id=sid, phase=phase, reason=reason):
            return _phase_entered(view, entry, sid, phase, reason)
        case f.Demoted():
            return _demoted(view, entry, fact)
        case f.HoldReleased(strategy_id=sid):
            row = view.strategies[sid].row
            return replace(view, standings=view.standings.put(row, held=False))
        case f.CampaignExtended():
            return _campaign_extended(view, entry, fact)
        case f.PromotionApplied():
            return _promotion_applied(view, entry, fact)
        case f.ActivationLowered() | f.ActivationAcknowledged():
            return _activation(view, entry, fact)
        case _:
            return candidate_fact(view, entry, fact)


SystemFact = f.WorldCreated | f.TokenCreated | f.TokenRevoked | f.ProgramStarted


def _system(view: WorldView, entry: f.Entry, fact: SystemFact) -> WorldView:
    match fact:
        case f.WorldCreated(world_id=world_id):
            record = WorldRecord(
                world_id=world_id,
                name=fact.name,
                description=fact.description,
                labels=fact.labels,
                allow_live=fact.allow_live,
                created_at=entry.at,
                created_by=entry.actor,
            )
            return replace(view, worlds=view.worlds.set(world_id, record))
        case f.TokenCreated():
            return _token_created(view, entry, fact)
        case f.TokenRevoked(token_sha256=key):
            return replace(view, tokens=view.tokens.delete(key))
        case f.ProgramStarted(code=code):
            return replace(view, code=code)
        case _:
            assert_never(fact)


def _token_created(view: WorldView, entry: f.Entry, fact: f.TokenCreated) -> WorldView:
    """A new token, or the next of one that is rotated: that one ends when the overlap does."""
    before = None if fact.replaces is None else view.tokens.get(fact.replaces)
    token = Token(
        token_sha256=fact.token_sha256,
        actor=fact.actor,
        roles=fact.roles,
        world_id=fact.world_id,
        expires_at=fact.expires_at,
        created_at=entry.at if before is None else before.created_at,
        created_by=entry.actor if before is None else before.created_by,
        sponsor=fact.sponsor,
        replaces=fact.replaces,
        rotated_at=None if before is None else entry.at,
    )
    tokens = view.tokens.set(token.token_sha256, token)
    if before is not None:
        until = fact.overlap_until or entry.at
        if before.replaced_until is not None:  # Rotated again: its end never moves away.
            until = min(until, before.replaced_until)
        tokens = tokens.set(before.token_sha256, replace(before, replaced_until=until))
    return replace(view, tokens=tokens)


def _policy(view: WorldView, entry: f.Entry, fact: f.PolicyAdded | f.DefaultPolicySet) -> WorldView:
    match fact:
        case f.PolicyAdded(version=version):
            added = PolicyVersion(
                version=version, checksum=fact.checksum, policy=fact.policy, at=entry.at
            )
            return replace(view, policies=view.policies.set(version, added))
        case f.DefaultPolicySet(version=version):
            learnt = proof.judged_anew(view, view.policies[version].policy)
            view = replace(view, default_version=version, proof=learnt)
            for candidate in view.open_candidates():
                rejected = isinstance(candidate.standing, Rejected)  # Holds whatever the policy.
                if candidate.policy_version != version and not rejected:
                    view = void(view, entry, candidate.candidate_id, Reason.POLICY_CHANGED)
            return view
        case _:
            assert_never(fact)


def _strategy_bound(view: WorldView, entry: f.Entry, fact: f.StrategyBound) -> WorldView:
    known = view.strategies.get(fact.strategy_id)
    row = len(view.strategies) if known is None else known.row
    strategy = Strategy(
        strategy_id=fact.strategy_id,
        row=row,
        name=fact.name,
        author=fact.author,
        fingerprint=fact.fingerprint,
        variants_tried=fact.variants_tried,
        bound_at=entry.at if known is None else known.bound_at,
        family=fact.family or fact.strategy_id,
        version=fact.version,
        previous=fact.previous,
        parts=fact.parts,
    )
    view = replace(view, strategies=view.strategies.set(fact.strategy_id, strategy))
    if known is not None:
        return view
    standings = view.standings.grown(row + 1)
    return replace(
        view,
        ids=view.ids.set(row, fact.strategy_id),
        standings=standings.put(row, entered_at=micros(entry.at)),
        tracks={stage: track.grown(row + 1) for stage, track in view.tracks.items()},
        proof=view.proof.grown(row + 1),
    )


def _snapshot_stored(view: WorldView, entry: f.Entry, fact: f.SnapshotStored) -> WorldView:
    policy = view.policies[view.default_version].policy if view.default_version else None
    track = view.tracks[fact.stage]
    if fact.points.strategies:
        rows = _rows(view, fact.points.strategies)
        track = append(track, rows, fact.points, fact.stage, entry.at, policy)
    as_of = micros(fact.as_of)
    covered = [s for s in fact.covered if s in fact.weights]
    newest = [s for s in covered if as_of >= track.covered_as_of[view.strategies[s].row]]
    if newest:
        stress = fact.stress or {}
        track = track.put(
            _rows(view, newest),
            covered_seq=entry.seq,
            covered_as_of=as_of,
            covered_ttl_us=fact.ttl_sec * 1_000_000,
            stress_loss=[max(stress.get(s, {}).values(), default=np.nan) for s in newest],
        )
    learnt = proof.learn(view, fact, entry.at)
    return replace(view, tracks={**view.tracks, fact.stage: track}, proof=learnt)


def _rows(view: WorldView, strategies: Iterable[StrategyId]) -> NDArray[np.intp]:
    return np.array([view.strategies[s].row for s in strategies], dtype=np.intp)


def _series_restated(view: WorldView, entry: f.Entry, fact: f.SeriesRestated) -> WorldView:
    sid, row = fact.strategy_id, view.strategies[fact.strategy_id].row
    track = view.tracks[fact.stage]
    since = int(track.window_from[row])
    blank = track.blank(1).arrays()
    track = track.put(row, **{name: array[0] for name, array in blank.items()})
    track = track.put(row, window_from=NEVER if since == NEVER else micros(entry.at))
    rows = _rows(view, [sid])
    track = append(track, rows, fact.points, fact.stage, entry.at, policy=None)
    learnt = proof.unlearn(view, sid, fact.stage, entry.at)
    view = replace(view, tracks={**view.tracks, fact.stage: track}, proof=learnt)
    if (sid, fact.stage) in view.runs:
        view = replace(view, runs=view.runs.delete((sid, fact.stage)))
    live = view.phase(row) is Phase.LIVE
    if fact.stage is Stage.SHADOW or (fact.stage is Stage.LIVE and not live):
        return view  # Nothing that stands relied on it.
    view = replace(view, standings=view.standings.put(row, selected=False))
    return void_all(view, entry, sid, Reason.EVIDENCE_CHANGED)


def _evaluations_recorded(
    view: WorldView, entry: f.Entry, fact: f.EvaluationsRecorded
) -> WorldView:
    track = view.tracks[fact.stage]
    rows = _rows(view, (run.strategy_id for run in fact.runs))
    track = track.put(
        rows,
        verdict=[VERDICTS.index(run.verdict) for run in fact.runs],
        judged_digest=[run.evidence.encode() for run in fact.runs],
        judged_policy=fact.policy_version,
        judged_t=track.last_t[rows],
    )
    with view.runs.mutate() as runs:
        for run in fact.runs:
            runs[run.strategy_id, fact.stage] = LatestRun(
                run_id=run.run_id,
                revision=run.revision,
                verdict=run.verdict,
                problems=run.problems,
                at=entry.at,
            )
        latest = runs.finish()
    view = _unselected(view, fact, rows)
    selected_p = proof.of_backtests(view, fact)
    view = replace(view, runs=latest, tracks={**view.tracks, fact.stage: track}, proof=selected_p)
    if fact.cohort:
        selected = frozenset(fact.selected)
        chosen = [sid in selected for sid in fact.cohort]
        standings = view.standings.put(_rows(view, fact.cohort), selected=chosen)
        view = replace(view, standings=standings)
    for run in fact.runs:
        candidate = view.open_candidate(run.strategy_id)
        if candidate is None or run.verdict is not Verdict.PASS:
            continue
        if fact.stage is evidence_stage(candidate.step):  # Newer good evidence keeps it.
            newer = replace(candidate, run_id=run.run_id, evidence=run.evidence)
            view = replace(view, candidates=view.candidates.set(newer.candidate_id, newer))
    return view


def _unselected(view: WorldView, fact: f.EvaluationsRecorded, rows: NDArray[np.intp]) -> WorldView:
    """Another policy judges paper: what a cohort selected under the one before is not selected."""
    if fact.stage is not Stage.PAPER:
        return view
    standings, judged = view.standings, view.tracks[fact.stage].judged_policy[rows]
    in_paper = standings.phase[rows] == PHASES.index(Phase.PAPER)
    stale = rows[in_paper & (judged != fact.policy_version) & standings.selected[rows]]
    if not len(stale):
        return view
    return replace(view, standings=standings.put(stale, selected=False))


def _phase_entered(
    view: WorldView, entry: f.Entry, sid: StrategyId, phase: Phase, reason: Reason | None
) -> WorldView:
    """Into a phase.  Entering paper starts its window anew."""
    row, at = view.strategies[sid].row, micros(entry.at)
    standings = view.standings.put(row, phase=PHASES.index(phase), entered_at=at)
    if phase is not Phase.LIVE:  # Selected was the strategy as it stood before.
        standings = standings.put(row, selected=False)
    view = replace(view, standings=standings)
    match phase:
        case Phase.PAPER:
            view = replace(view, proof=proof.enter(view, row, entry.at))
            return _window_anew(view, entry, row, Stage.PAPER)
        case Phase.BACKTEST | Phase.RETIRED:
            return void_all(view, entry, sid, reason or Reason.RETIRED)
        case Phase.LIVE:
            return view
        case _:
            assert_never(phase)


def _window_anew(view: WorldView, entry: f.Entry, row: int, stage: Stage) -> WorldView:
    track = blank_window(view.tracks[stage], row, micros(entry.at))
    return replace(view, tracks={**view.tracks, stage: track})


def _demoted(view: WorldView, entry: f.Entry, fact: f.Demoted) -> WorldView:
    sid, row = fact.strategy_id, view.strategies[fact.strategy_id].row
    view = _leave_live(view, entry, sid, fact.reason)
    if view.phase(row) is not fact.to:
        view = _phase_entered(view, entry, sid, fact.to, fact.reason)
    if fact.held:
        view = replace(view, standings=view.standings.put(row, held=True))
    return view


def _leave_live(view: WorldView, entry: f.Entry, sid: StrategyId, reason: Reason) -> WorldView:
    """Out of the live set and the selection, weight and ramp gone, its candidates void.

    The phase stays.
    """
    row = view.strategies[sid].row
    if sid in view.live:
        view = settled(view, replace(view, live=view.live.delete(sid)), entry, sid)
    standings = view.standings.put(row, step=-1, step_window_us=0, selected=False)
    return void_all(replace(view, standings=standings), entry, sid, reason)


def _empty_live(view: WorldView, entry: f.Entry, reason: Reason) -> WorldView:
    """Every live strategy back to paper, its paper window kept as it was."""
    for sid in sorted(view.live):
        row = view.strategies[sid].row
        view = _leave_live(view, entry, sid, reason)
        paper_since = int(view.tracks[Stage.PAPER].window_from[row])
        standings = view.standings.put(row, phase=PHASES.index(Phase.PAPER), entered_at=paper_since)
        view = replace(view, standings=standings)
    return view


def _campaign_extended(view: WorldView, entry: f.Entry, fact: f.CampaignExtended) -> WorldView:
    """More time.  A strategy that ran out of it is back in paper with its window kept."""
    row = view.strategies[fact.strategy_id].row
    more = int(view.standings.extension_us[row]) + fact.by_sec * 1_000_000
    standings = view.standings.put(row, extension_us=more)
    if view.phase(row) is Phase.RETIRED:
        since = int(view.tracks[Stage.PAPER].window_from[row])
        standings = standings.put(row, phase=PHASES.index(Phase.PAPER), entered_at=since)
    return replace(view, standings=standings)


def _promotion_applied(view: WorldView, entry: f.Entry, fact: f.PromotionApplied) -> WorldView:
    sid, row = fact.strategy_id, view.strategies[fact.strategy_id].row
    held = view.live.get(sid)
    activation = Activation(
        strategy_id=sid,
        candidate_id=fact.candidate_id,
        run_id=fact.run_id,
        step=fact.step,
        applied_weight=fact.weight,
        weight=fact.weight,
        freeze=held is not None and held.freeze,
        drain=held is not None and held.drain,
        sequence=entry.generation,
        at=entry.at,
        acknowledged=0 if held is None else held.acknowledged,
    )
    view = stand(view, fact.candidate_id, Applied(entry.at, entry.seq))
    after = replace(
        view,
        live=view.live.set(sid, activation),
        promoted_at=entry.at,
        blocked=view.blocked.set(sid, ()),
    )
    view = settled(view, after, entry, sid)
    if view.phase(row) is not Phase.LIVE:
        view = _window_anew(view, entry, row, Stage.LIVE)
        standings = view.standings.put(
            row, phase=PHASES.index(Phase.LIVE), entered_at=micros(entry.at)
        )
        watched = proof.watch(view, row, fact)
        view = replace(view, standings=standings, proof=watched)
    observed = int(view.tracks[Stage.LIVE].window_us[row])
    standings = view.standings.put(row, step=fact.step, step_window_us=observed)
    return replace(view, standings=standings)


def _activation(
    view: WorldView, entry: f.Entry, fact: f.ActivationLowered | f.ActivationAcknowledged
) -> WorldView:
    held = view.live[fact.strategy_id]
    match fact:
        case f.ActivationLowered(weight=weight, freeze=freeze, drain=drain):
            held = replace(
                held,
                weight=weight,
                freeze=freeze,
                drain=drain,
                sequence=entry.generation,
                at=entry.at,
            )
        case f.ActivationAcknowledged(sequence=sequence):
            held = replace(held, acknowledged=sequence)
        case _:
            assert_never(fact)
    after = replace(view, live=view.live.set(fact.strategy_id, held))
    return settled(view, after, entry, fact.strategy_id)
