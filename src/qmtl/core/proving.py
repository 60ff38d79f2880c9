"""What a policy asks the returns to prove: of a ramp step, of a run, of a strategy that is live.

`proof.py` says what has been shown; here is what is enough, and in words what is not.  Whatever is
not known is not enough: comparisons say what must hold, so that NaN fails them.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from .columns import Float
from .evidence import crowd, drift, duration, eprocess, power, sharpe
from .names import Reason, Stage, StrategyId
from .policy import Bound, Evidence, Futility, Policy
from .proof import SELECTION_P, Terms, blocks_of, campaigns, drift_of, e_values, terms
from .times import SECONDS_PER_YEAR
from .view import WorldView
from .words import counted, percent

Problem = tuple[Reason, str]

LIFETIME_YEARS = 50.0  # What takes longer, nobody here will see.


# ---- A step of the ramp ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What has been shown towards a ramp step, and what it asks for."""

    e_value: float | None  # None: too little to say anything.
    threshold: float
    seen: int  # Blocks, or returns where there are none,
    needed: int  # and how many make an e-value.
    rivals: int | None  # Campaigns that the step's error rate is shared by; None: its own alone.
    budget: float  # The share of alpha this strategy may spend at the last step.

    @property
    def enough(self) -> bool:
        return self.e_value is not None and self.e_value >= self.threshold

    @property
    def share(self) -> float | None:
        """How far it is, 0 to 1, on the scale on which evidence adds up; None once enough."""
        if self.enough:
            return None
        if self.e_value is None or not self.threshold > 1.0:
            return 0.0
        return max(0.0, math.log(max(self.e_value, 1.0)) / math.log(self.threshold))


def shown(view: WorldView, row: int, step: int, policy: Policy) -> Shown | None:
    """Towards step `step` of the ramp; None when nothing is asked of it."""
    asked, ramp = policy.evidence, policy.governance.ramp
    if asked is None or step >= len(ramp):
        return None
    last, own = step == len(ramp) - 1, ramp[step].e_value
    if own is None and not last:
        return None
    threshold = own or 0.0
    if last:
        threshold = max(threshold, _among_all(view, row, policy, asked))
    mine = float(e_values(view.proof, np.array([row]), terms(policy))[0])
    blocks = asked.paper.method != "bounded"
    return Shown(
        e_value=None if math.isnan(mine) else mine,
        threshold=threshold,
        seen=int(view.proof.blocks[row] if blocks else view.proof.seen[row]),
        needed=eprocess.BLOCKS_MIN if blocks else 1,
        rivals=campaigns(view) if last and asked.multiplicity != "per_strategy" else None,
        budget=_alone(view, row, asked),
    )


def e_value_towards(view: WorldView, row: int, step: int, policy: Policy) -> float | None:
    """What has been shown, where a step asks for it."""
    found = shown(view, row, step, policy)
    return None if found is None else found.e_value


def _alone(view: WorldView, row: int, asked: Evidence) -> float:
    match asked.multiplicity:
        case "per_strategy":
            return 1.0
        case "spending":
            return crowd.spending_share(max(1, int(view.proof.entry[row])))
        case _:
            return 1.0 / max(1, campaigns(view))


def _among_all(view: WorldView, row: int, policy: Policy, asked: Evidence) -> float:
    """The e-value that the world's multiplicity asks for at the last step, credit allowed for."""
    cap = asked.paper.backtest_credit_cap
    mine = sharpe.credit(float(view.proof.selection_p[row]), cap)
    if asked.multiplicity != "e_bh":
        return 1.0 / (asked.alpha * _alone(view, row, asked)) / mine
    count, top = len(view.ids), len(policy.governance.ramp) - 1
    there = np.flatnonzero(view.standings.step[:count] == top)
    there = there[there != row]
    credits = [sharpe.credit(float(p), cap) for p in view.proof.selection_p[there]]
    others = e_values(view.proof, there, terms(policy)) * np.array(credits)
    return crowd.e_bh_threshold(max(1, campaigns(view)), asked.alpha, others) / mine


def unproven(view: WorldView, row: int, step: int, policy: Policy) -> tuple[Problem, ...]:
    """Why the evidence is not enough for a ramp step; nothing when it is, or none is asked."""
    found = shown(view, row, step, policy)
    if found is None or found.enough:
        return ()
    method = terms(policy).method.replace("_", " ")
    if found.e_value is None:
        unit = "blocks of returns" if found.needed > 1 else "returns"
        has = f"{found.seen} of the {found.needed} {unit} that an e-value ({method}) takes"
    else:
        has = f"an e-value ({method}) of {found.e_value:.4g}"
    among = "" if found.rivals is None else f", one of {found.rivals} campaigns of the world"
    asks = f"step {step + 1} of the ramp asks for {found.threshold:.4g}{among}"
    return ((Reason.EVIDENCE_INSUFFICIENT, f"evidence: {has}; {asks}"),)


@dataclass(frozen=True, slots=True)
class Eta:
    """When a step's evidence is expected, by the true Sharpe ratio a year; None: not in a lifetime.

    `at_observed`: at the one that the returns so far have shown; None also while none is known.
    """

    sharpe_1: datetime | None
    sharpe_2: datetime | None
    at_observed: datetime | None


def eta(view: WorldView, row: int, step: int, policy: Policy, now: datetime) -> Eta:
    """At the threshold of today, multiplicity included, a bar at a time from now on."""
    found = shown(view, row, step, policy)
    if found is None or found.enough:
        return Eta(now, now, now)
    observed = observed_sharpe_annual(view, row, policy)
    return Eta(
        _reached(view, row, policy, found.threshold, 1.0, now),
        _reached(view, row, policy, found.threshold, 2.0, now),
        None if observed is None else _reached(view, row, policy, found.threshold, observed, now),
    )


def observed_sharpe_annual(view: WorldView, row: int, policy: Policy) -> float | None:
    """Of the blocks so far; None while they are too few, and under `bounded`, which keeps none."""
    asked = terms(policy)
    statistic = _t_of(view, row)
    if statistic is None:
        return None
    per_block = statistic / math.sqrt(float(view.proof.blocks[row]))
    return per_block * math.sqrt(policy.data.periods_per_year / asked.block)


def _t_of(view: WorldView, row: int) -> float | None:
    found = float(eprocess.t_statistic(blocks_of(view.proof, np.array([row])))[0])
    return None if math.isnan(found) else found


def _reached(
    view: WorldView, row: int, policy: Policy, threshold: float, annual: float, now: datetime
) -> datetime | None:
    asked, proof = terms(policy), view.proof
    a_year = policy.data.periods_per_year
    carried = max(float(proof.carried[row]), 1e-300)
    if asked.method == "bounded":
        needed = duration.returns_needed(
            threshold / carried,
            annual / math.sqrt(a_year),
            power.DEVIATION_ANNUAL / math.sqrt(a_year),
            asked.floor,
            proof.wealth[row],
            int(LIFETIME_YEARS * a_year),
        )
        bars = needed
    else:
        statistic = _t_of(view, row)
        blocks = blocks_in_all(
            asked,
            threshold / carried,
            annual * math.sqrt(asked.block / a_year),
            seen=0.0 if statistic is None else float(proof.blocks[row]),
            t=statistic or 0.0,
            most=int(LIFETIME_YEARS * a_year / asked.block),
        )
        bars = None if blocks is None else (blocks - int(proof.blocks[row])) * asked.block
    if bars is None:
        return None
    return now + timedelta(seconds=bars / a_year * SECONDS_PER_YEAR)


def blocks_in_all(
    asked: Terms, threshold: float, sharpe: float, *, seen: float = 0.0, t: float = 0.0, most: int
) -> int | None:
    """Until the method of these terms is expected to reach the threshold; `sharpe` per block."""
    if asked.method == "group_sequential":
        return duration.looks_needed(threshold, sharpe, asked.horizon, seen=seen, t=t)
    return duration.blocks_needed(threshold, sharpe, asked.design, seen=seen, t=t, most=most)


# ---- A run -------------------------------------------------------------------------------------

UNITS = {  # Of what evidence adds to a run's metrics.  Nobody may tell them, nor ask for them.
    "trials": "count",
    SELECTION_P: "probability",
    "e_value": "ratio",
    "tracking_error_annual": "fraction, annualised",
    "drift_annual": "fraction, annualised",
}
UNKNOWN = {  # Why one of them has no value.
    "trials": "unknown",
    SELECTION_P: "no_sharpe_ratio",
    "e_value": "too_short",
    "tracking_error_annual": "too_few_replays_were_posted_beside_the_returns",
    "drift_annual": "too_few_bars_to_compare",
}
REASONS = {  # What a run that fails one of these is told.
    SELECTION_P: Reason.EVIDENCE_INSUFFICIENT,
    "tracking_error_annual": Reason.CONSISTENCY_FAILED,
    "drift_annual": Reason.CONSISTENCY_FAILED,
}


def trials(view: WorldView, strategy_id: StrategyId, default: int) -> int:
    """How many variants a backtest is the best of, as far as the world knows.

    Its own, as declared or `default`; and those of every other submission by the same author on
    the same data, one each where none were declared.  Versions of one family are on the same data:
    a day more of it is no other.
    """
    mine = view.strategies[strategy_id]
    others = sum(
        max(1, other.variants_tried or 1)
        for other in view.strategies.values()
        if other.strategy_id != strategy_id
        and other.author == mine.author
        and (other.family == mine.family or other.parts.get("data") == mine.parts.get("data"))
    )
    return (mine.variants_tried or default) + others


def measured(
    view: WorldView, strategy_id: StrategyId, stage: Stage, returns: Float
) -> dict[str, float]:
    """What evidence adds to the metrics of a run; NaN for what is not known.  `returns` are the
    run's own, shape (T,)."""
    policy, row = view.policy, view.strategies[strategy_id].row
    asked = policy.evidence
    if asked is None or not len(returns):
        return {}
    match stage:
        case Stage.BACKTEST:
            tried = trials(view, strategy_id, asked.trials_default)
            return {"trials": float(tried), SELECTION_P: sharpe.selection_p(returns, tried)}
        case Stage.PAPER | Stage.LIVE:
            rows = np.array([row])
            found = {"e_value": float(e_values(view.proof, rows, terms(policy))[0])}
            if stage is Stage.PAPER and asked.consistency is not None:
                a_year = policy.data.periods_per_year
                found |= _consistency(view, row, a_year)
            return found
        case _:
            return {}


def _consistency(view: WorldView, row: int, a_year: float) -> dict[str, float]:
    """How far paper is from its replay; NaN where too few of its returns have one: whoever chose
    which are compared would choose the answer."""
    apart, bars = drift_of(view.proof, np.array([row])), view.tracks[Stage.PAPER].window_points[row]
    both = float(apart.count[0] - view.proof.unrealised[row])
    enough = both >= drift.COMPARED_MIN * bars
    known = enough and apart.count[0] >= drift.DRIFTS_MIN
    return {
        "tracking_error_annual": float(apart.deviation[0]) * math.sqrt(a_year)
        if enough
        else math.nan,
        "drift_annual": float(apart.mean[0]) * a_year if known else math.nan,
    }


def apart_because(
    view: WorldView, row: int, policy: Policy, volatility: float | None
) -> str | None:
    """Why paper is likely not what its engine makes of the same bars, and where to look, in words.

    `volatility` is a bar's, of paper; None: it is what its engine makes of them.  None when nothing
    was compared.
    """
    asked = policy.evidence.consistency if policy.evidence else None
    apart, a_year = drift_of(view.proof, np.array([row])), policy.data.periods_per_year
    count, bars = int(apart.count[0]), int(view.tracks[Stage.PAPER].window_points[row])
    if asked is None or not volatility or not count or bars < drift.DRIFTS_MIN:
        return None
    mean = float(apart.mean[0]) * a_year
    alone = int(view.proof.unrealised[row])
    uneven = float(apart.deviation[0]) / volatility
    match drift.likely_cause(apart, asked.alpha, bars, volatility, alone):
        case drift.Cause.MISSING_BARS:
            return (
                f"the likely cause is missing bars: {count - alone} of {counted(bars, 'return')} "
                f"came with a replay, and {counted(alone, 'bar')} of the engine's without a "
                "return; look at which bars the engine, or the producer, did not see or left out"
            )
        case drift.Cause.COSTS:
            look = "does not know" if mean < 0 else "charges, and nobody pays"
            return (
                f"the likely cause is costs: paper earns {_apart(mean)} than its replay, and "
                f"evenly; look at fees, slippage and financing that the engine {look}"
            )
        case drift.Cause.OTHER_DATA:
            return (
                f"the likely cause is different data: bar by bar the two differ both ways, by "
                f"{percent(uneven)} of the strategy's volatility; look at the prices of both, and "
                "whether one is a bar late"
            )
        case drift.Cause.UNCLEAR:
            return (
                f"the cause is unclear: paper earns {_apart(mean)} than its replay, and unevenly, "
                f"by {percent(uneven)} of the strategy's volatility; look at costs and at data"
            )


def _apart(mean_annual: float) -> str:
    return f"{percent(abs(mean_annual))} a year {'less' if mean_annual < 0 else 'more'}"


def bounds(view: WorldView, strategy_id: StrategyId, stage: Stage) -> tuple[Bound, ...]:
    """The gates that a policy's evidence adds to those of a stage."""
    asked, row = view.policy.evidence, view.strategies[strategy_id].row
    if asked is None:
        return ()
    if stage is Stage.BACKTEST and asked.selection_max_p is not None:
        return (Bound(metric=SELECTION_P, max=asked.selection_max_p),)
    if stage is Stage.PAPER and asked.consistency is not None:
        apart = drift_of(view.proof, np.array([row]))
        radius = float(drift.drift_radius(apart, asked.consistency.alpha)[0])
        most = radius * view.policy.data.periods_per_year
        return (
            Bound(metric="tracking_error_annual", max=asked.consistency.max_tracking_error_annual),
            *(() if math.isnan(most) else (Bound(metric="drift_annual", min=-most, max=most),)),
        )
    return ()


# ---- In the campaign, and live -----------------------------------------------------------------


def refuted(view: WorldView, row: int, policy: Policy) -> str | None:
    """That what a strategy was hoped to earn is ruled out (futility), in words; None while not."""
    asked = policy.evidence.futility if policy.evidence else None
    if asked is None or terms(policy).method == "bounded":
        return None
    against = futility_of(view, row, policy, asked)
    if not against >= 1.0 / asked.beta:
        return None
    return (
        f"its returns speak against a Sharpe ratio of {asked.sharpe_annual:g} a year, with an "
        f"e-value of {against:.3g} where {1 / asked.beta:g} ends the campaign"
    )


def futility_of(view: WorldView, row: int, policy: Policy, asked: Futility) -> float:
    """The e-value against the Sharpe ratio of the policy's futility; NaN for too little."""
    chosen = terms(policy)
    a_year = policy.data.periods_per_year
    claimed = asked.sharpe_annual * math.sqrt(chosen.block / a_year)
    held = blocks_of(view.proof, np.array([row]))
    return float(eprocess.futility(held, claimed, chosen.design)[0])


def decayed(view: WorldView, row: int, policy: Policy) -> str | None:
    """That live has ceased to be what paper was, in words; None as long as it may be."""
    asked = policy.evidence
    if asked is None or asked.decay_mean_false_alarm is None:
        return None
    alarm, most = float(drift.decay(view.proof.decay[row])), asked.decay_mean_false_alarm
    if not alarm >= most:
        return None
    kept = float(view.proof.healthy_mean[row]) * policy.data.periods_per_year
    return (
        f"live returns have ceased to be those of paper: less than half of what paper earned, "
        f"{percent(kept)} a year; the detector is at {alarm:.4g}, its limit is {most}"
    )
