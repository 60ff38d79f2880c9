"""What a strategy's returns have proven: the state of its e-process, advanced by the fold.

The statistics are `evidence`'s; here is which returns they are told, in which order.  The state is
columns (`Proof`), so that a new bar costs the same after ten years as after ten days.

* It begins at a strategy's first entry into paper, is told paper returns while the strategy is not
  live and live returns while it is, and never restarts: not by a demotion, a pause or a new policy.
* Accepted returns count (DESIGN 7.2).  INVARIANT: a loss counts however late it came, so that
  nothing is gained by being late with it.
* Another method, hurdle, block, design or floor is another test, of the returns that follow.  What
  had been shown against the strategy stays (`carried`); what had been shown for it does not, since
  the policy may have been chosen by it.
* A restatement takes away what it rested on: it begins anew, and counts as one more campaign
  wherever many are looked at together.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from . import facts as f
from .columns import PHASES, Bool, Float, Int64, Proof
from .evidence import drift, eprocess, horizon
from .names import Phase, Stage, StrategyId
from .policy import Evidence, Policy
from .series import accepted
from .times import NEVER, SECONDS_PER_YEAR, micros
from .view import WorldView

Rows = NDArray[np.intp]

SELECTION_P = "selection_p"  # Of a backtest's run, as a metric.
STANDARD = Evidence()  # Kept up to date where a policy asks for none, so that nothing is lost.
OF_TERMS = ("seen", "blocks", "block_mean", "block_m2", "part_sum", "part_points", "wealth")
FLOOR_MIN = 1e-4  # Nobody bets on a breaker tighter than a basis point; a wider one is as valid.
DRIFTED = ("drift_points", "drift_mean", "drift_m2", "unrealised")


# ---- The terms of a test -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """What a test of the returns is fixed by, before they are seen."""

    method: str
    hurdle: float  # Per bar.
    block: int  # Bars.
    design: float  # Sharpe ratio per block.
    floor: float  # The loss of one bar that a breaker allows; 1 where none does.
    horizon: int  # Blocks; for `group_sequential`.


def terms(policy: Policy) -> Terms:
    """The terms of a policy's test; of the standard one where it asks for no evidence."""
    asked = (policy.evidence or STANDARD).paper
    a_year = policy.data.periods_per_year
    floors = [b.max for b in policy.gates.of(Stage.LIVE) if b.metric == "max_bar_loss"]
    longest = policy.campaign.paper.max_window
    years = math.inf if longest is None else longest.total_seconds() / SECONDS_PER_YEAR
    blocks = years * a_year / asked.block
    return Terms(
        method=asked.method,
        hurdle=asked.hurdle_annual / a_year,
        block=asked.block,
        design=asked.design_sharpe_annual * math.sqrt(asked.block / a_year),
        floor=max(FLOOR_MIN, min((most for most in floors if most), default=1.0)),
        horizon=int(blocks) if asked.method == "group_sequential" and blocks < math.inf else 0,
    )


def e_values(proof: Proof, rows: Rows, asked: Terms) -> Float:
    """What the strategies of these rows have shown so far; NaN for too little to say."""
    match asked.method:
        case "bounded":
            found = np.where(proof.seen[rows] > 0, eprocess.bounded(proof.wealth[rows]), np.nan)
        case "group_sequential":
            found = horizon.group_sequential(blocks_of(proof, rows), asked.horizon)
        case _:
            found = eprocess.t_mixture(blocks_of(proof, rows), asked.design)
    shown: Float = proof.carried[rows] * found
    return shown


def blocks_of(proof: Proof, rows: Rows) -> eprocess.Blocks:
    """The blocks of these rows."""
    return eprocess.Blocks(
        proof.blocks[rows],
        proof.block_mean[rows],
        proof.block_m2[rows],
        proof.part_sum[rows],
        proof.part_points[rows],
    )


def drift_of(proof: Proof, rows: Rows) -> drift.Sums:
    """Paper less its replay, of these rows."""
    return drift.Sums(proof.drift_points[rows], proof.drift_mean[rows], proof.drift_m2[rows])


# ---- What the fold does ------------------------------------------------------------------------


def enter(view: WorldView, row: int, at: datetime) -> Proof:
    """At an entry into paper.  Only the first one begins anything; the window compares anew."""
    if view.proof.since[row] != NEVER:
        return view.proof.put(row, **dict.fromkeys(DRIFTED, 0.0))
    return _begin(view, row, at)


def _begin(view: WorldView, row: int, at: datetime) -> Proof:
    """From nothing, and counted among the campaigns of the world."""
    kept = float(view.proof.selection_p[row])
    entry, begun = campaigns(view) + 1, int(view.proof.begun[row]) + 1
    proof = view.proof.put(row, **_blank())
    return proof.put(row, since=micros(at), entry=entry, begun=begun, selection_p=kept)


def _blank() -> dict[str, NDArray[np.generic]]:
    return {name: array[0] for name, array in Proof.blank(1).arrays().items()}


def campaigns(view: WorldView) -> int:
    """How many were ever looked at in paper, a restated one once more."""
    return int(view.proof.begun[: len(view.ids)].sum())


def unlearn(view: WorldView, strategy_id: StrategyId, stage: Stage, at: datetime) -> Proof:
    """After a restatement of what the evidence rests on."""
    row = view.strategies[strategy_id].row
    if stage is Stage.BACKTEST:
        return view.proof.put(row, selection_p=np.nan)
    if stage is Stage.SHADOW or view.proof.since[row] == NEVER:
        return view.proof
    return _begin(view, row, at)


def of_backtests(view: WorldView, fact: f.EvaluationsRecorded) -> Proof:
    """With what the selection test made of the backtests that were judged."""
    if fact.stage is not Stage.BACKTEST or not fact.runs:
        return view.proof
    rows = np.array([view.strategies[run.strategy_id].row for run in fact.runs], dtype=np.intp)
    found = [run.value(SELECTION_P) for run in fact.runs]
    return view.proof.put(rows, selection_p=[np.nan if p is None else p for p in found])


def judged_anew(view: WorldView, policy: Policy) -> Proof:
    """Under another default policy: other terms begin with the returns that follow."""
    if view.default_version is None or terms(view.policy) == terms(policy):
        return view.proof
    rows, before = np.flatnonzero(view.proof.since[: len(view.ids)] != NEVER), terms(view.policy)
    if before.method == "group_sequential":  # It has no way to speak against; its blocks have.
        before = replace(before, method="t_mixture")
    shown = e_values(view.proof, rows, before)
    against = np.where(np.isnan(shown), view.proof.carried[rows], np.minimum(1.0, shown))
    blank = _blank()
    return view.proof.put(rows, carried=against, **{name: blank[name] for name in OF_TERMS})


def learn(view: WorldView, fact: f.SnapshotStored, at: datetime) -> Proof:
    """With the new returns of a snapshot, for the view from before it."""
    if fact.stage not in (Stage.PAPER, Stage.LIVE) or view.default_version is None:
        return view.proof
    proof, policy, live = view.proof, view.policy, fact.stage is Stage.LIVE
    rows = np.array([view.strategies[s].row for s in fact.points.strategies], dtype=np.intp)
    is_live = view.standings.phase == PHASES.index(Phase.LIVE)
    for which, t, r in fact.points.alike():
        mine = rows[which]
        after = np.maximum(proof.since[mine], proof.last_t[mine])
        if live:
            after = np.maximum(after, view.tracks[Stage.LIVE].window_from[mine])
        told = (is_live[mine] == live) & (proof.since[mine] != NEVER)
        in_time = accepted(t, fact.stage, at, policy) | (r < 0.0)
        counted = (t > after[:, None]) & told[:, None] & in_time
        if not counted.any():
            continue
        proof = _told(proof, mine, t, r, counted, terms(policy))
        if live:
            proof = _watched(proof, mine, r, counted, policy)
        elif fact.replay and t.shape[1] == 1:  # A replay is of the one bar.
            engine = [fact.replay.get(fact.points.strategies[i], np.nan) for i in which]
            proof = _compared(proof, mine, r[:, 0] - np.array(engine), counted[:, 0])
    return proof if live else _unrealised(view, proof, fact)


def _told(proof: Proof, rows: Rows, t: Int64, r: Float, counted: Bool, asked: Terms) -> Proof:
    """With those returns, of shape (strategies, points), that are `counted`."""
    last = np.maximum(proof.last_t[rows], np.where(counted, t, NEVER).max(axis=1))
    proof = proof.put(rows, last_t=last, seen=proof.seen[rows] + counted.sum(axis=1))
    excess = r - asked.hurdle
    if asked.method == "bounded":
        held = proof.wealth[rows]
        return proof.put(rows, wealth=eprocess.more_wealth(held, excess, counted, asked.floor))
    sums = eprocess.more_blocks(blocks_of(proof, rows), excess, counted, asked.block)
    return proof.put(
        rows,
        blocks=sums.count,
        block_mean=sums.mean,
        block_m2=sums.m2,
        part_sum=sums.part_sum,
        part_points=sums.part_points,
    )


def _compared(proof: Proof, rows: Rows, apart: Float, counted: Bool) -> Proof:
    """With paper less its replay of one bar, NaN where there is no replay."""
    known = counted & np.isfinite(apart)
    sums = drift.more(drift_of(proof, rows), apart, known)
    return proof.put(rows, drift_points=sums.count, drift_mean=sums.mean, drift_m2=sums.m2)


def _unrealised(view: WorldView, proof: Proof, fact: f.SnapshotStored) -> Proof:
    """With the bars that the engine saw and paper has no return of: there paper earned nothing.

    INVARIANT: who leaves out a loss is apart from the replay by all of it, however late it is told.
    Before its first return an account has not begun, and is apart from nothing.
    """
    alone = {sid: r for sid, r in (fact.replay or {}).items() if sid not in fact.covered}
    if not alone:
        return proof
    rows = np.array([view.strategies[sid].row for sid in alone], dtype=np.intp)
    last_t = proof.last_t[rows]
    is_live = view.standings.phase[rows] == PHASES.index(Phase.LIVE)
    counted = ~is_live & (last_t != NEVER) & (micros(fact.as_of) > last_t)
    proof = _compared(proof, rows, -np.array([*alone.values()]), counted)
    return proof.put(rows, unrealised=proof.unrealised[rows] + counted)


def watch(view: WorldView, row: int, fact: f.PromotionApplied) -> Proof:
    """At the first live step: what live has to keep up, and nothing held against it yet."""
    told = fact.healthy or drift.Healthy(math.nan, math.nan)
    return view.proof.put(row, healthy_cap=told.cap, healthy_mean=told.mean, decay=0.0)


def _watched(proof: Proof, rows: Rows, r: Float, counted: Bool, policy: Policy) -> Proof:
    """With live returns, for those that are watched.

    INVARIANT: an alarm stays an alarm, so that how many bars come in one post changes nothing.
    """
    known = np.isfinite(proof.healthy_cap[rows])
    if not known.any():
        return proof
    held, cap, mean = (
        column[rows] for column in (proof.decay, proof.healthy_cap, proof.healthy_mean)
    )
    limit = policy.evidence.decay_mean_false_alarm if policy.evidence else None
    for j in range(r.shape[1]):
        seen = counted[:, j] & known & ~(drift.decay(held) >= (limit or math.inf))
        held[seen] = drift.more_decay(held[seen], r[seen, j], cap[seen], mean[seen])
    return proof.put(rows, decay=held)
