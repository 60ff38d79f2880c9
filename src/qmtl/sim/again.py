"""A world's own history again, under another policy: through the real evaluation, tick and gate.

What came from outside comes again, in its order and at its times: strategies, returns, and what
people did to the world.  What the code decided is decided anew.  Every approval counts as given the
moment it is asked for: who would have approved what they were never asked is unknown.

A return goes to where its strategy is.  One that is live here and was not then has its paper
returns as live ones; one that was live then and is not here has its live returns as paper ones.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from math import ceil
from statistics import median
from typing import Final

import numpy as np

from qmtl.adapters.memory import MemoryStore, World, after, store_of
from qmtl.app import campaigns, hub, promotions
from qmtl.app.step import By, step
from qmtl.core import facts as f
from qmtl.core.campaign import breakers
from qmtl.core.columns import Int64
from qmtl.core.errors import Invalid, Refusal
from qmtl.core.fold import entries, fold
from qmtl.core.names import Phase, Reason, Role, Stage, StrategyId, WorldId, WorldState
from qmtl.core.policy import AutoApply, Disabled, Policy
from qmtl.core.view import WorldView

from .scene import Scene
from .trial import LOOKS_AFTER, turns

LEAST: Final = -0.999  # A residual of a bad day must not lose more than there is.
SPAN_POWER: Final = 1 / 3  # Blocks of n^(1/3) bars keep what returns remember of each other.
EVERYTHING: Final = frozenset(Role)

Outside = (
    f.LiveAllowed | f.StateChanged | f.StrategyBound | f.Killed | f.Resumed
)  # Comes again as it came.
Decided = (
    f.EvaluationsRecorded
    | f.PhaseEntered
    | f.CandidateProposed
    | f.CandidateVoided
    | f.PromotionBlocked
    | f.PromotionApplied
)  # By the code, when somebody looked; a breaker needs nobody.


class Null(StrEnum):
    """How the mean is taken out of a history, and the rest is shuffled."""

    SIGNS = "sign-flipped"
    BLOCKS = "block-bootstrapped"


@dataclass(frozen=True, slots=True)
class Move:
    """A strategy came somewhere: `what` in words, and when."""

    what: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One strategy: its moves under the policy on trial, and in fact.

    `apart_at` is the end of the first day (UTC) after which the two differ, None when none did;
    `why` is what then kept back the one that was behind.
    """

    strategy_id: StrategyId
    trial: tuple[Move, ...]
    fact: tuple[Move, ...]
    apart_at: datetime | None
    why: str | None


Turns = list[tuple[f.Entry, f.Entry | None]]


def again(
    policy: Policy,
    world_id: WorldId,
    journal: Sequence[f.Entry],
    watch: Callable[[Turns], Iterable[tuple[f.Entry, f.Entry | None]]] = iter,
) -> list[Story]:
    """What `policy` makes of a journal (whole, from entry 1), in the order strategies were bound.

    `watch` is given each entry with the one that follows, and answers the same, shown as they pass.
    Raises Invalid when it has no policy, since before the first one nothing was judged, and when no
    strategy was ever there.
    """
    if not any(isinstance(entry.fact, f.PolicyAdded) for entry in journal):
        raise Invalid("the world never had a policy: there is nothing to compare with.")
    if not any(isinstance(entry.fact, f.StrategyBound) for entry in journal):
        raise Invalid("no strategy was ever in the world: there is no history to try it on.")
    replay = _Replay(_at_once(policy), world_id, _lag(journal))
    for entry, following in watch(list(zip(journal, [*journal[1:], None], strict=True))):
        replay.take(entry)
        replay.look_if_due(following)
        if following is None or following.at.date() != entry.at.date():
            replay.compare()
    return replay.stories()


def _at_once(policy: Policy) -> Policy:
    live = policy.governance.live_promotion
    mode = live if isinstance(live, Disabled) else AutoApply()
    return replace(policy, governance=replace(policy.governance, live_promotion=mode))


def _lag(journal: Sequence[f.Entry]) -> timedelta:
    """How long after a bar somebody looked, as a rule."""
    found = [
        (entry.at - before.at).total_seconds()
        for before, entry in pairwise(journal)
        if isinstance(before.fact, f.SnapshotStored)
        and isinstance(entry.fact, Decided)
        and entry.at > before.at
    ]
    return timedelta(seconds=median(found)) if found else LOOKS_AFTER


class _Replay:
    """Two worlds side by side: as it was (`fact`), and under the policy on trial (`scene`)."""

    def __init__(self, policy: Policy, world_id: WorldId, lag: timedelta) -> None:
        self.policy, self.lag = policy, lag
        self.fact = World(WorldView(world_id=world_id), [])
        self.scene = Scene(MemoryStore(), world_id=world_id)
        self.scene.create()
        self.bar_at: datetime | None = None  # Since nobody looked.
        self.seen = 0
        self.trial_moves: dict[StrategyId, list[Move]] = {}
        self.fact_moves: dict[StrategyId, list[Move]] = {}
        self.apart: dict[StrategyId, tuple[datetime, str | None]] = {}

    # ---- What comes again ----------------------------------------------------------------------

    def take(self, entry: f.Entry) -> None:
        self.scene.now = max(self.scene.now, entry.at) if self.seen else entry.at
        before = self.fact.view
        self.fact.journal.append(entry)
        self.fact = after(self.fact, entry)
        _told(self.fact_moves, [entry])
        self._again(entry, before)

    def _again(self, entry: f.Entry, before: WorldView) -> None:
        match entry.fact:
            case f.PolicyAdded() if not self.scene.view.policies:
                self.scene.add_policy(self.policy, "on trial")
            case f.SnapshotStored() as fact:
                for one in _routed(fact, before, self.scene.view):
                    self._post(entry, one)
                self.bar_at = entry.at
            case f.SeriesRestated() as fact:
                self._restate(entry, fact)
            case f.EvaluationsRecorded() as fact if _is_submission(fact, entry, before):
                for run in fact.runs:
                    with suppress(Refusal):
                        self.scene.evaluate(run.strategy_id, Stage.BACKTEST, actor=entry.actor)
            case f.Demoted(reason=Reason.MANUAL) as fact:
                with suppress(Refusal):  # It is not that high up here.
                    promotions.demote(
                        self.scene.store,
                        self.scene.world_id,
                        _by(entry),
                        fact.strategy_id,
                        fact.to,
                        fact.detail,
                    )
            case f.HoldReleased() as fact if self._is_held(fact.strategy_id):
                self._commit(entry, lambda view: (fact,))
            case f.CampaignExtended() as fact:
                with suppress(Refusal):
                    promotions.extend(
                        self.scene.store,
                        self.scene.world_id,
                        _by(entry),
                        fact.strategy_id,
                        fact.by_sec,
                        fact.reason,
                    )
            case f.ActivationLowered() as fact:
                held = self.scene.view.live.get(fact.strategy_id)
                if held is not None:
                    lower = replace(fact, weight=min(fact.weight, held.weight))
                    self._commit(entry, lambda view: (lower,))
            case f.PhaseEntered() | f.CandidateProposed() | f.CandidateVoided() if (
                entry.at == _decided_at(self.fact)
            ):
                pass  # Part of what was just decided.
            case fact if isinstance(fact, Outside):
                self._commit(entry, lambda view: (fact,))
            case fact if isinstance(fact, Decided):
                self._look()
            case _:
                pass  # Approvals, and what belongs to the program: see the head of the file.

    def _is_held(self, sid: StrategyId) -> bool:
        view = self.scene.view
        return bool(view.standings.held[view.strategies[sid].row])

    def _commit(self, entry: f.Entry, facts: Callable[[WorldView], Sequence[f.Fact]]) -> None:
        store, world_id = self.scene.store, self.scene.world_id
        step(store, world_id, _by(entry), lambda view: (None, facts(view)), archived=True)

    def _post(self, entry: f.Entry, fact: f.SnapshotStored) -> None:
        def decide(view: WorldView) -> tuple[f.Fact, ...]:
            if fact.stage is not Stage.LIVE:
                return (fact,)
            return (fact, *breakers(_with(view, fact, entry), fact.points))

        self._commit(entry, decide)

    def _restate(self, entry: f.Entry, fact: f.SeriesRestated) -> None:
        self._commit(entry, lambda view: (fact, *hub.relied_upon(_with(view, fact, entry), fact)))

    # ---- Looking -------------------------------------------------------------------------------

    def look_if_due(self, following: f.Entry | None) -> None:
        """Somebody looks after a bar, also where they found nothing to record then."""
        if self.bar_at is None:
            return
        due = self.bar_at + self.lag
        if following is not None and (following.at <= due or isinstance(following.fact, Decided)):
            return
        self.scene.now = max(self.scene.now, due)
        self._look()

    def _look(self) -> None:
        self.bar_at = None
        if self.scene.view.policies:
            turns(self.scene)

    # ---- Against what happened -----------------------------------------------------------------

    def compare(self) -> None:
        store, world_id = self.scene.store, self.scene.world_id
        new = store.journal(world_id, self.seen, self.scene.view.seq)
        self.seen = self.scene.view.seq
        _told(self.trial_moves, new)
        for sid in self.fact.view.strategies:
            tried, was = self.trial_moves.get(sid, []), self.fact_moves.get(sid, [])
            if sid not in self.apart and [m.what for m in tried] != [m.what for m in was]:
                self.apart[sid] = (self.scene.now, self._why(sid))

    def _why(self, sid: StrategyId) -> str | None:
        """What keeps the one that is behind."""
        views = {True: self.scene.view, False: self.fact.view}
        heights = {trial: _height(view, sid) for trial, view in views.items()}
        if heights[True] == heights[False]:
            return None
        behind = heights[True] < heights[False]
        store = self.scene.store if behind else store_of(self.fact)
        try:
            status = campaigns.status(store, views[behind], sid, self.scene.now)
        except Refusal as refused:
            return str(refused)
        said = "; ".join(detail for _, detail in status.problems)
        where = "under this policy" if behind else "in fact"
        return f"{where}: {said or 'nobody had looked, or approved, yet'}"

    def stories(self) -> list[Story]:
        return [
            Story(
                strategy_id=each.strategy_id,
                trial=tuple(self.trial_moves.get(each.strategy_id, ())),
                fact=tuple(self.fact_moves.get(each.strategy_id, ())),
                apart_at=self.apart.get(each.strategy_id, (None, None))[0],
                why=self.apart.get(each.strategy_id, (None, None))[1],
            )
            for each in self.fact.view.in_order()
        ]


def _decided_at(world: World) -> datetime | None:
    """When the entry before the newest was written, if the code decided it; None else."""
    found = world.journal[world.view.seq - 2] if world.view.seq > 1 else None
    return found.at if found is not None and isinstance(found.fact, Decided) else None


def _by(entry: f.Entry) -> By:
    return By(entry.actor, EVERYTHING, entry.at)


def _with(view: WorldView, fact: f.Fact, entry: f.Entry) -> WorldView:
    return fold(view, entries(view, (fact,), entry.actor, entry.at))


def _is_submission(fact: f.EvaluationsRecorded, entry: f.Entry, view: WorldView) -> bool:
    authors = {view.strategies[run.strategy_id].author for run in fact.runs}
    return fact.stage is Stage.BACKTEST and authors == {entry.actor}


def _height(view: WorldView, sid: StrategyId) -> tuple[int, float]:
    phases = (Phase.RETIRED, Phase.BACKTEST, Phase.PAPER, Phase.LIVE)
    held = view.live.get(sid)
    return phases.index(view.phase(view.strategies[sid].row)), 0.0 if held is None else held.weight


def _told(moves: dict[StrategyId, list[Move]], journal: Iterable[f.Entry]) -> None:
    for entry in journal:
        match entry.fact:
            case (
                f.Killed()
                | f.LiveAllowed(allowed=False)
                | f.StateChanged(state=WorldState.SUSPENDED | WorldState.ARCHIVED)
            ):
                for told in moves.values():
                    if told[-1].what.startswith("live"):
                        told.append(Move("demoted with the world", entry.at))
                continue
            case f.PhaseEntered(strategy_id=sid, phase=phase):
                what = str(phase)
            case f.PromotionApplied(strategy_id=sid, step=step_):
                what = f"live, step {step_ + 1}"
            case f.Demoted(strategy_id=sid, to=to):
                what = f"demoted to {to}"
            case _:
                continue
        moves.setdefault(sid, []).append(Move(what, entry.at))


def _routed(fact: f.SnapshotStored, was: WorldView, here: WorldView) -> list[f.SnapshotStored]:
    """The snapshot, and its returns where strategies are here and were not then."""
    if fact.stage is Stage.BACKTEST:
        return [fact]
    other = Stage.LIVE if fact.stage is Stage.PAPER else Stage.PAPER
    moved = {
        sid
        for sid in fact.points.strategies
        if (sid in here.live) == (other is Stage.LIVE) and (sid in was.live) != (sid in here.live)
    }
    if not moved:
        return [fact]
    new = np.array(
        [here.tracks[other].last_t[here.strategies[s].row] for s in fact.points.strategies]
    )
    also = _only(fact.points, moved, new)
    stand_in = replace(
        fact,
        version=f"{fact.version}-as-{other}",
        stage=other,
        points=also,
        covered=also.strategies,
    )
    return [fact, stand_in] if also.strategies else [fact]


def _parts(points: f.Points) -> Iterable[tuple[StrategyId, slice]]:
    at = 0
    for sid, count in zip(points.strategies, points.counts, strict=True):
        yield sid, slice(at, at + count)
        at += count


def _only(points: f.Points, sids: set[StrategyId], after_t: Int64) -> f.Points:
    t, r = points.times(), points.returns()
    kept = [
        (sid, t[part][t[part] > last], r[part][t[part] > last])
        for (sid, part), last in zip(_parts(points), after_t, strict=True)
        if sid in sids and (t[part] > last).any()
    ]
    return f.Points(
        strategies=tuple(sid for sid, _, _ in kept),
        counts=tuple(len(each) for _, each, _ in kept),
        t=b"".join(each.tobytes() for _, each, _ in kept),
        r=b"".join(each.tobytes() for _, _, each in kept),
    )


# ---- Placebos ----------------------------------------------------------------------------------


def placebo(journal: Sequence[f.Entry], null: Null, seed: int) -> list[f.Entry]:
    """The same history without skill: of paper and live, what is left without the mean, shuffled.

    A bar's sign is flipped for all strategies at once; circular blocks are the same for strategies
    with equally many bars: so what moves together still does.  Backtests stay what they were.
    """
    returns: dict[StrategyId, dict[int, float]] = {}
    for entry in journal:
        if isinstance(entry.fact, f.SnapshotStored) and entry.fact.stage is not Stage.BACKTEST:
            t, r = entry.fact.points.times(), entry.fact.points.returns()
            for sid, part in _parts(entry.fact.points):
                for at, value in zip(t[part].tolist(), r[part].tolist(), strict=True):
                    returns.setdefault(sid, {}).setdefault(at, value)
    instants = sorted({at for mine in returns.values() for at in mine})
    signs = np.random.default_rng([seed, 0]).choice((-1.0, 1.0), len(instants))
    sign_at = dict(zip(instants, signs.tolist(), strict=True))
    changed = {sid: _without_skill(mine, null, seed, sign_at) for sid, mine in returns.items()}
    return [_changed(entry, returns, changed) for entry in journal]


def _without_skill(
    mine: dict[int, float], null: Null, seed: int, sign_at: dict[int, float]
) -> dict[int, float]:
    instants = sorted(mine)
    left = np.array([mine[at] for at in instants])
    left -= left.mean()
    match null:
        case Null.SIGNS:
            left = left * np.array([sign_at[at] for at in instants])
        case Null.BLOCKS:
            n = len(left)
            size = max(1, ceil(n**SPAN_POWER))
            starts = np.random.default_rng([seed, 1]).integers(0, n, ceil(n / size))
            left = left[((starts[:, None] + np.arange(size)) % n).ravel()[:n]]
    return dict(zip(instants, np.maximum(left, LEAST).tolist(), strict=True))


Series = dict[StrategyId, dict[int, float]]


def _changed(entry: f.Entry, was: Series, now: Series) -> f.Entry:
    fact = entry.fact
    match fact:
        case f.SnapshotStored() if fact.stage is not Stage.BACKTEST:
            replay = fact.replay
            if replay is not None:
                t = fact.points.times()
                at = {sid: int(t[part][-1]) for sid, part in _parts(fact.points) if len(t[part])}
                replay = {
                    sid: r + (now[sid][at[sid]] - was[sid][at[sid]]) if sid in at else r
                    for sid, r in replay.items()
                }
            return replace(
                entry, fact=replace(fact, points=_points(fact.points, was, now), replay=replay)
            )
        case f.SeriesRestated() if fact.stage is not Stage.BACKTEST:
            return replace(entry, fact=replace(fact, points=_points(fact.points, was, now)))
        case _:
            return entry


def _points(points: f.Points, was: Series, now: Series) -> f.Points:
    t, r = points.times(), points.returns().copy()
    for sid, part in _parts(points):
        apart = [now[sid].get(at, 0.0) - was[sid].get(at, 0.0) for at in t[part].tolist()]
        r[part] = np.maximum(r[part] + apart, LEAST)
    return replace(points, r=r.tobytes())


Drawn = tuple[Null, int]  # With its seed.


def went_live(stories: Sequence[Story], *, in_fact: bool = False) -> int:
    """How many were ever live."""
    return sum(
        any(move.what.startswith("live") for move in (story.fact if in_fact else story.trial))
        for story in stories
    )


def promoted(
    policy: Policy, world_id: WorldId, journal: Sequence[f.Entry], drawn: Drawn
) -> tuple[int, int]:
    """Of one placebo of a journal: how many were ever live, of how many."""
    stories = again(policy, world_id, placebo(journal, *drawn))
    return went_live(stories), len(stories)
