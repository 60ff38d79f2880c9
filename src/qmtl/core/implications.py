"""What a policy implies before anyone is judged by it: how long, how likely by luck, and never.

Only arithmetic on the policy itself.  With S the true Sharpe ratio a year, m a gate's `min`, p the
bars a year, Y years of independent, near-normal returns:

* The estimate of S has the standard error sqrt((1 + S^2/(2p)) / Y) (Lo 2002).  So a gate m is told
  from luck at 95 %, one-sided, after about (1.645/(S-m))^2 (1 + S^2/(2p)) years when S > m (half of
  such strategies earlier, half later), and never when S <= m.
* A strategy without skill is above m at one look after Y years with probability 1 - Phi(m sqrt(Y)).
  Whoever looks often finds it above m more often than that.
* A ramp step with e-value e is reached without skill with probability <= 1/e (Ville), where the
  e-value is valid.  How long it takes is when it is expected at the expected t; how many reach it
  in time is simulated, seeded (`evidence/power.py`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import NormalDist
from typing import Final

import numpy as np
from cronsim import CronSim
from numpy.typing import NDArray

from .evidence.crowd import e_bh_threshold, spending_share
from .evidence.duration import returns_needed
from .evidence.eprocess import BLOCKS_MIN
from .evidence.power import DEVIATION_ANNUAL, best_of_bets, best_of_blocks
from .names import Role, Stage
from .policy import (
    AutoApply,
    Bound,
    Data,
    Disabled,
    Evidence,
    Freeze,
    ManualApproval,
    Policy,
    Window,
)
from .proof import terms
from .proving import LIFETIME_YEARS, blocks_in_all
from .times import SECONDS_PER_YEAR

SHARPES_ASSUMED: Final = (1.0, 2.0, 3.0)
Z_95: Final = NormalDist().inv_cdf(0.95)
TWO_YEARS: Final = timedelta(days=730)
FREEZE_HORIZON: Final = timedelta(days=400)  # After a year the seasons repeat.
FREEZE_LOOKUPS_MAX: Final = 10_000  # Enough for an hourly freeze; half a second.

LOWER_IS_BETTER: Final = frozenset(
    {
        "volatility",
        "max_drawdown",
        "kurtosis",
        "var_p01",
        "es_p01",
        "max_bar_loss",
        "time_under_water_ratio",
        "turnover_annual",
        "stress_loss_max",
        "ex_ante_volatility",
    }
)

_ORIGINS: Final = {  # Of metrics that returns alone do not give.
    "trades_total": "from the producer",
    "turnover_annual": "from the producer",
    "stress_loss_max": "from the snapshot's stress",
    "ex_ante_volatility": "from the snapshot's covariance",
}

NO_EVIDENCE: Final = (
    "evidence: none. No error rate is promised: gates that are looked at again and again promote "
    "luck. A Sharpe threshold checked daily from day 60 over two years promoted 59 % of simulated "
    "strategies without skill."
)
SYMMETRIC: Final = (
    "evidence.paper.method: {}. Its error rates hold for near-symmetric, weakly dependent returns, "
    "however often anyone looks. Persistent regimes and short volatility exceed them: of such "
    "strategies without skill, about .23 and .63 reach an e-value of 3 within a year by t_mixture, "
    "where .33 is promised (docs/evidence.md)."
)
CREDITED: Final = (
    "evidence.paper.backtest_credit_cap: {:g}. A backtest that leaks is credited, too: with a "
    "credit of up to 3, 6 % of strategies with such a backtest and no skill reached an e-value of "
    "20 in two years, and 1.4 % without credit (docs/evidence.md)."
)
ALONE: Final = (
    "evidence.multiplicity: per_strategy. Each strategy has an error rate of its own: of many "
    "without skill, that share reaches the top."
)
UNCOMPARED: Final = (
    "evidence.consistency: asked for. A strategy whose producer posts no replay of its engine "
    "beside the returns does not pass paper; Runner.follow posts it by itself."
)
CROWDS: Final = (10, 50)  # Campaigns for which the last step is spelt out.


@dataclass(frozen=True, slots=True, kw_only=True)
class Implication:
    """A row: what one part of the policy implies.

    `years` is how long it takes to tell the gate from luck at each of `SHARPES_ASSUMED`, None for
    never; empty when the part is no Sharpe gate.  `never`: nothing can meet it.
    """

    path: str
    says: str
    years: tuple[float | None, ...] = ()
    never: bool = False


def years_to_tell(sharpe: float, gate: float, periods_per_year: float) -> float | None:
    """Years until a true annual Sharpe ratio is told from `gate` at 95 %; None is never."""
    if not sharpe > gate:
        return None
    return (Z_95 / (sharpe - gate)) ** 2 * (1 + sharpe**2 / (2 * periods_per_year))


def passes_by_luck(gate: float, years: float) -> float:
    """The chance that a strategy of Sharpe 0 shows `gate` or more, at one look after `years`."""
    return 1 - NormalDist().cdf(gate * math.sqrt(years))


def implications(policy: Policy) -> tuple[Implication, ...]:
    """The table: a row for each window, gate and ramp step, and one for each contradiction."""
    return (*_windows(policy), *_gates(policy), *_ramp(policy), *_contradictions(policy))


def warnings(policy: Policy) -> tuple[str, ...]:
    """What to know before using the policy, worst first: what is off, never met, or slow."""
    rows = implications(policy)
    never = [f"{row.path}: {row.says}" for row in rows if row.never]
    slow = [f"{row.path}: {row.says} {_at_each_sharpe(row)}" for row in rows if row.years]
    return (*_promises(policy), *never, *_off(policy), *slow)


# ---- Rows ------------------------------------------------------------------------------------


def _windows(policy: Policy) -> Iterator[Implication]:
    for stage, window in _window_of(policy).items():
        longest = window.max_window
        until = "" if longest is None else f", and ends after {_days(longest)} without promotion"
        years = _years_at_least(window, policy.data)
        says = f"takes at least {years:.2g} years of data{until}."
        yield Implication(path=f"campaign.{stage}", says=says)


def _gates(policy: Policy) -> Iterator[Implication]:
    for stage, bounds in policy.gates.by_stage.items():
        window = _window_of(policy).get(stage)
        for bound in bounds:
            path = f"gates.{stage}.{bound.metric}"
            origin = _ORIGINS.get(bound.metric, "")
            missing = f", {origin}; missing: {policy.gates.on_missing}" if origin else ""
            yield Implication(path=path, says=f"{_interval(bound)}{missing}.")
            if bound.metric == "sharpe_annual" and bound.min is not None:
                yield _sharpe(f"{path}.min", bound.min, policy.data, window)


def _sharpe(path: str, gate: float, data: Data, window: Window | None) -> Implication:
    if window is None:
        says = "no window: a strategy without skill passes it, and one with skill fails, by luck."
    else:
        years = _years_at_least(window, data)
        by_luck = passes_by_luck(gate, years)
        says = f"{by_luck:.0%} of strategies without skill show {gate:g} after {years:.2g} years."
    told = tuple(years_to_tell(s, gate, data.periods_per_year) for s in SHARPES_ASSUMED)
    return Implication(path=path, says=says, years=told)


def _ramp(policy: Policy) -> Iterator[Implication]:
    below, expected = 0.0, 0.0
    for i, step in enumerate(policy.governance.ramp):
        chance = 1.0 if step.e_value is None else 1 / step.e_value
        expected += (step.fraction - below) * chance
        below = step.fraction
        weight = f"{step.fraction * policy.governance.allocation:.2%} of capital"
        luck = "" if step.e_value is None else f", without skill with probability <= {chance:.2g}"
        yield Implication(path=f"governance.live_promotion.ramp[{i}]", says=f"{weight}{luck}.")
    if policy.evidence is not None:
        says = (
            f"a strategy without skill is expected to get at most {expected:.1%} of an allocation, "
            "where the e-values are valid (EVIDENCE: persistent regimes and unseen crashes break "
            "t_mixture)."
        )
        yield Implication(path="governance.live_promotion.ramp", says=says)
        yield from _proofs(policy, policy.evidence)


def _proofs(policy: Policy, asked: Evidence) -> Iterator[Implication]:
    """What each step's evidence takes, and what the last one's does in company."""
    ramp = policy.governance.ramp
    method = asked.paper.method.replace("_", " ")
    for i, step in enumerate(ramp):
        if step.e_value is not None:
            shares = _in_time(policy, step.e_value)
            path = f"governance.live_promotion.ramp[{i}].e_value"
            says = f"an e-value of {step.e_value:g} ({method}), {shares}."
            yield Implication(path=path, says=says, years=_years_to_show(policy, step.e_value))
    for campaigns in CROWDS if asked.multiplicity != "per_strategy" else ():
        threshold = _alone_among(asked, campaigns)
        says = (
            f"{asked.multiplicity}: with {campaigns} campaigns begun and nobody at the top, the "
            f"last step takes an e-value of {threshold:.4g}, {_in_time(policy, threshold)}."
        )
        years = _years_to_show(policy, threshold)
        yield Implication(path="evidence.multiplicity", says=says, years=years)


def _alone_among(asked: Evidence, campaigns: int) -> float:
    if asked.multiplicity == "spending":
        return 1 / (asked.alpha * spending_share(campaigns))
    return e_bh_threshold(campaigns, asked.alpha, np.empty(0))


def _in_time(policy: Policy, threshold: float) -> str:
    """How many reach it within the longest paper campaign, or two years."""
    years = _years(policy.campaign.paper.max_window or TWO_YEARS)
    shares = [f"{(_best(policy, s, years) >= threshold).mean():.0%}" for s in SHARPES_ASSUMED]
    at = ", ".join(f"{s:g}" for s in SHARPES_ASSUMED)
    return f"reached within {years:.2g} years by {', '.join(shares)} at a true Sharpe of {at}"


def _best(policy: Policy, annual: float, years: float) -> NDArray[np.float64]:
    """The best that each of many paths of a Sharpe ratio shows in that time."""
    asked, a_year = terms(policy), policy.data.periods_per_year
    if asked.method == "bounded":
        root = math.sqrt(a_year)
        return best_of_bets(
            annual / root, DEVIATION_ANNUAL / root, asked.floor, int(years * a_year)
        )
    sharpe, blocks = annual * math.sqrt(asked.block / a_year), int(years * a_year / asked.block)
    return best_of_blocks(sharpe, asked.design, blocks, asked.horizon)


def _years_to_show(policy: Policy, threshold: float) -> tuple[float | None, ...]:
    """Expected, at each of SHARPES_ASSUMED; None beyond a lifetime."""
    asked, a_year = terms(policy), policy.data.periods_per_year
    found: list[float | None] = []
    for annual in SHARPES_ASSUMED:
        if asked.method == "bounded":
            deviation = DEVIATION_ANNUAL / math.sqrt(a_year)
            most = int(LIFETIME_YEARS * a_year)
            sharpe = annual / math.sqrt(a_year)
            bars = returns_needed(threshold, sharpe, deviation, asked.floor, None, most)
        else:
            most = int(LIFETIME_YEARS * a_year / asked.block)
            sharpe = annual * math.sqrt(asked.block / a_year)
            blocks = blocks_in_all(asked, threshold, sharpe, most=most)
            bars = None if blocks is None else blocks * asked.block
        found.append(None if bars is None else bars / a_year)
    return tuple(found)


# ---- Never -----------------------------------------------------------------------------------


def _contradictions(policy: Policy) -> Iterator[Implication]:
    for path, says in (*_room(policy), *_counts(policy), *_frozen(policy)):
        yield Implication(path=path, says=says, never=True)


def _room(policy: Policy) -> Iterator[tuple[str, str]]:
    """What needs more observations than the longest paper campaign holds."""
    paper, most = policy.campaign.paper, _observations_most(policy)
    if paper.min_observations > most:
        yield (
            "campaign.paper.min_observations",
            f"can never be met: max_window {_days(paper.max_window)} holds about {most:.0f} "
            f"observations at {policy.data.periods_per_year:g} a year, and "
            f"{paper.min_observations} are asked for.",
        )
    if terms(policy).method == "group_sequential" and paper.max_window is None:
        yield (
            "evidence.paper.method",
            "can never be met: group_sequential needs campaign.paper.max_window for a horizon.",
        )
    needed = BLOCKS_MIN * policy.evidence.paper.block if policy.evidence else 0
    if needed > most:
        yield (
            "evidence.paper.block",
            f"can never be met: an e-value needs {BLOCKS_MIN} blocks, {needed} observations, and "
            f"max_window {_days(paper.max_window)} holds about {most:.0f}.",
        )


def _counts(policy: Policy) -> Iterator[tuple[str, str]]:
    """Gates on the length of the history that the stage's window contradicts."""
    a_year = policy.data.periods_per_year
    for stage, window in _window_of(policy).items():
        most = _observations_most(policy) if stage is Stage.PAPER else math.inf
        per_unit = {"observations": 1.0, "effective_history_years": 1 / a_year}
        for bound in policy.gates.of(stage):
            scale = per_unit.get(bound.metric)
            if scale is None:
                continue
            path, least = f"gates.{stage}.{bound.metric}", window.min_observations
            if bound.max is not None and bound.max < least * scale:
                says = f"{bound.max:g} is less than min_observations, {least}, make."
                yield f"{path}.max", f"can never be met: {says}"
            if bound.min is not None and bound.min > most * scale:
                says = f"{bound.min:g} is more than max_window holds, about {most * scale:.3g}."
                yield f"{path}.min", f"can never be met: {says}"


def _frozen(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.governance.freeze and _always_frozen(policy.governance.freeze):
        yield (
            "governance.live_promotion.freeze",
            f"nothing can ever be promoted: no moment in {_days(FREEZE_HORIZON)} is free of it.",
        )


def _always_frozen(freezes: tuple[Freeze, ...]) -> bool:
    """Whether one freeze follows another to the horizon.  False when that takes too long to say."""
    start = moment = datetime(2024, 1, 1, tzinfo=UTC)
    around = [_around(freeze, moment) for freeze in freezes]
    for _ in range(FREEZE_LOOKUPS_MAX // len(freezes)):
        until = max(end for end, _ in around)
        if until <= moment:
            return False
        if until - start > FREEZE_HORIZON:
            return True
        moment = until
        around = [
            (end, following) if moment < following else _around(freeze, moment)
            for freeze, (end, following) in zip(freezes, around, strict=True)
        ]
    return False


def _around(freeze: Freeze, moment: datetime) -> tuple[datetime, datetime]:
    """When the latest freeze that has started at `moment` ends, and when the next one starts."""
    just_after = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    latest = next(CronSim(freeze.cron, just_after, reverse=True))
    return latest + freeze.length, next(CronSim(freeze.cron, moment))


# ---- Off, and what is promised ---------------------------------------------------------------


def _promises(policy: Policy) -> Iterator[str]:
    asked = policy.evidence
    if asked is not None:
        if asked.paper.method != "bounded":
            yield SYMMETRIC.format(asked.paper.method)
        if asked.paper.backtest_credit_cap > 1.0:
            yield CREDITED.format(asked.paper.backtest_credit_cap)
        if asked.multiplicity == "per_strategy":
            yield ALONE
        if asked.consistency is not None:
            yield UNCOMPARED
        return
    yield NO_EVIDENCE
    if isinstance(policy.governance.live_promotion, AutoApply):
        yield (
            "governance.live_promotion.mode: auto_apply with evidence: none. Neither evidence nor "
            "a person stands between luck and capital."
        )


def _off(policy: Policy) -> Iterator[str]:
    live = policy.governance.live_promotion
    if isinstance(live, Disabled):
        yield "governance.live_promotion.mode: disabled. Nothing goes live under this policy."
    for stage in (Stage.BACKTEST, Stage.PAPER):
        if not policy.gates.of(stage):
            yield f"gates.{stage}: none. Every strategy passes whose window is full."
    drawdowns = [gate for gate in policy.gates.of(Stage.LIVE) if gate.metric == "max_drawdown"]
    if not any(gate.max is not None and gate.max < 1.0 for gate in drawdowns):
        yield "gates.live: no max_drawdown below 1. No loss takes a strategy out of the market."
    if isinstance(live, ManualApproval):
        for role in sorted(live.roles & {Role.READER, Role.AUTHOR, Role.PRODUCER}):
            yield f"governance.live_promotion.approvers.roles: every {role} may approve."
    if policy.evidence is not None and policy.governance.ramp[-1].e_value is None:
        yield "governance.live_promotion.ramp: the last step names no e_value."
    chosen = policy.selection
    ranked = (("top_k", chosen.top_k), ("hysteresis", chosen.hysteresis)) if chosen else ()
    for part, rule in ranked:
        if rule is not None and rule.metric in LOWER_IS_BETTER:
            yield f"selection.{part}.metric: the most {rule.metric} is chosen, and less is better."


# ---- Numbers and words -----------------------------------------------------------------------


def _window_of(policy: Policy) -> dict[Stage, Window]:
    return {Stage.BACKTEST: policy.campaign.backtest, Stage.PAPER: policy.campaign.paper}


def _years(span: timedelta) -> float:
    return span.total_seconds() / SECONDS_PER_YEAR


def _years_at_least(window: Window, data: Data) -> float:
    return max(_years(window.span), window.min_observations / data.periods_per_year)


def _observations_most(policy: Policy) -> float:
    """How many bars the longest paper campaign holds; one more, for where it starts."""
    longest = policy.campaign.paper.max_window
    if longest is None:
        return math.inf
    return math.floor(_years(longest) * policy.data.periods_per_year) + 1


def _days(span: timedelta | None) -> str:
    return "without end" if span is None else f"{span / timedelta(days=1):g} days"


def _interval(bound: Bound) -> str:
    ends = (("at least", bound.min), ("at most", bound.max))
    return " and ".join(f"{words} {end:g}" for words, end in ends if end is not None)


def _at_each_sharpe(row: Implication) -> str:
    told = [
        f"{'never' if span is None else f'{span:.2g} years'} at {sharpe:g}"
        for sharpe, span in zip(SHARPES_ASSUMED, row.years, strict=True)
    ]
    gate = row.path.startswith("gates.")
    what = "Time to tell it from luck at 95 %" if gate else "Expected time"
    return f"{what}, by true Sharpe: {', '.join(told)}."
