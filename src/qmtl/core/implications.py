"""What a policy implies before anyone is judged by it: how many get there, how long, and never.

Only arithmetic on the policy itself.  With S the true Sharpe ratio a year, m a gate's `min`, p the
bars a year, Y years of independent, near-normal returns:

* The estimate of S has the standard error sqrt((1 + S^2/(2p)) / Y) (Lo 2002).  So at one look after
  Y years it is at m or above with the probability 1 - Phi((m - S) / that error).  Whoever looks
  often finds it there more often than that.
* S is told from m at 95 %, one-sided, after about (1.645/(S-m))^2 (1 + S^2/(2p)) years when S > m
  (half of such strategies earlier, half later), and never when S <= m.
* A ramp step with e-value e is reached without skill with probability <= 1/e (Ville), where the
  e-value is valid.  How many with skill reach it in time, and after how long half of them have, is
  simulated, seeded (`evidence/power.py`), on the same paths: half are there in time when, and only
  when, the median of their times is in time.
* What a drawdown gate asks depends on the volatility of who is asked; it is simulated, too.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .contradictions import contradictions, in_days, window_of, years_of
from .evidence import power
from .evidence.crowd import e_bh_threshold, ramp_bound, spending_share
from .evidence.power import DEVIATION_ANNUAL, PATHS, POINTS_OFF
from .names import Role, Stage
from .policy import (
    AutoApply,
    Bound,
    Data,
    Evidence,
    ManualApproval,
    Policy,
    Window,
)
from .proof import terms
from .proving import LIFETIME_YEARS

RAMP: Final = "governance.live_promotion.ramp"
# What has to be passed within a time that ends: before the first live step.
BEFORE_LIVE: Final = ("gates.backtest", "gates.paper", f"{RAMP}[0].e_value")
DAYS_PER_YEAR: Final = 365.25
SHARPES_ASSUMED: Final = (1.0, 2.0, 3.0)
Z_95: Final = NormalDist().inv_cdf(0.95)
TWO_YEARS: Final = timedelta(days=730)

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
SIMULATED: Final = (
    f"simulated: {PATHS} strategies of each true Sharpe ratio, with independent normal returns; a "
    f"share is right to {POINTS_OFF:g} points of 100. Half after: the median of all their times, "
    "however long paper may last; never: fewer than half are ever there, or not within "
    f"{LIFETIME_YEARS:g} years."
)
VOLATILE: Final = f"at a volatility of {DEVIATION_ANNUAL:.0%} a year"


@dataclass(frozen=True, slots=True, kw_only=True)
class Implication:
    """A row: what one part of the policy implies.

    `shares` are of strategies whose true Sharpe ratios are `SHARPES_ASSUMED`: how many pass it in
    the time that `says` names.  `years` is when half of them have, None for never.  Either is empty
    where it says nothing.  `never`: nothing can meet it.
    """

    path: str
    says: str
    shares: tuple[float, ...] = ()
    years: tuple[float | None, ...] = ()
    never: bool = False


def years_to_tell(sharpe: float, gate: float, periods_per_year: float) -> float | None:
    """Years until a true annual Sharpe ratio is told from `gate` at 95 %; None is never."""
    if not sharpe > gate:
        return None
    return (Z_95 / (sharpe - gate)) ** 2 * (1 + sharpe**2 / (2 * periods_per_year))


def passes(sharpe: float, gate: float, years: float, periods_per_year: float) -> float:
    """The chance that a true annual Sharpe ratio shows `gate` or more, at one look."""
    error = math.sqrt((1 + sharpe**2 / (2 * periods_per_year)) / years)
    return 1 - NormalDist().cdf((gate - sharpe) / error)


def implications(policy: Policy) -> tuple[Implication, ...]:
    """The table: a row for each window, gate and ramp step, and one for each contradiction."""
    never = impossible(policy)
    return (*_windows(policy), *_gates(policy), *_ramp(policy, never), *never)


def impossible(policy: Policy) -> tuple[Implication, ...]:
    """Why nobody can ever go live, or nothing when somebody can."""
    return tuple(
        Implication(path=path, says=says, never=True) for path, says in contradictions(policy)
    )


def warnings(policy: Policy) -> tuple[str, ...]:
    """What to know before using it, worst first: what is not promised, never met, or off."""
    rows = implications(policy)
    never = [f"{row.path}: {row.says}" for row in rows if row.never]
    return (*_promises(policy), *never, *unlikely(rows), *_off(policy))


def unlikely(rows: Iterable[Implication]) -> list[str]:
    """What none of the simulated strategies passes, of what has to be passed in time."""
    return [
        f"{row.path}: {row.says} None of {PATHS} simulated strategies of a true Sharpe ratio of "
        f"{SHARPES_ASSUMED[-1]:g} passes it in time, {VOLATILE}."
        for row in rows
        if row.shares and row.path.startswith(BEFORE_LIVE) and not any(row.shares)
    ]


def percent_of(share: float) -> str:
    """A share in words.  Fewer than half never rounds to half, nor few to none."""
    whole = round(100 * share)
    if share < 0.5:
        whole = min(whole, 49)
    return "<1%" if share > 0 and whole == 0 else f"{whole}%"


def median_of(years: float | None) -> str:
    """When half are there, in years, in words."""
    return "never" if years is None else f"{years:.2g}" if years < 9.95 else f"{years:.0f}"


# ---- Rows ------------------------------------------------------------------------------------


def _windows(policy: Policy) -> Iterator[Implication]:
    for stage, window in window_of(policy).items():
        longest = window.max_window
        until = "" if longest is None else f", and ends after {in_days(longest)} without promotion"
        years = _years_at_least(window, policy.data)
        says = f"takes at least {_long(years)} of data{until}."
        yield Implication(path=f"campaign.{stage}", says=says)


def _gates(policy: Policy) -> Iterator[Implication]:
    for stage, bounds in policy.gates.by_stage.items():
        window = window_of(policy).get(stage)
        years = 1.0 if window is None else _years_at_least(window, policy.data)
        for bound in bounds:
            path = f"gates.{stage}.{bound.metric}"
            origin = _ORIGINS.get(bound.metric, "")
            missing = f", {origin}; missing: {policy.gates.on_missing}" if origin else ""
            shares: tuple[float, ...] = ()
            if bound.metric == "max_drawdown" and bound.max is not None:
                shares = _kept(bound.max, years, policy.data)
                missing = f"; in {_long(years)}, {VOLATILE}"
            yield Implication(path=path, says=f"{_interval(bound)}{missing}.", shares=shares)
            if bound.metric == "sharpe_annual" and bound.min is not None:
                yield _sharpe(f"{path}.min", bound.min, policy.data, window)


def _sharpe(path: str, gate: float, data: Data, window: Window | None) -> Implication:
    if window is None:
        says = "no window: a strategy without skill passes it, and one with skill fails, by luck."
        return Implication(path=path, says=says)
    years, a_year = _years_at_least(window, data), data.periods_per_year
    luck, *shares = (passes(s, gate, years, a_year) for s in (0.0, *SHARPES_ASSUMED))
    told = [years_to_tell(s, gate, a_year) for s in SHARPES_ASSUMED]
    spans = ", ".join("never" if y is None else _long(y) for y in told)
    says = (
        f"shown after {_long(years)} by {percent_of(luck)} of strategies without skill; to tell a "
        f"true {_listed(SHARPES_ASSUMED)} from {gate:g} at 95 % takes: {spans}."
    )
    return Implication(path=path, says=says, shares=tuple(shares))


def _kept(most: float, years: float, data: Data) -> tuple[float, ...]:
    """How many lose no more than that from their highest point, in so many years."""
    root = math.sqrt(data.periods_per_year)
    sharpes = tuple(s / root for s in SHARPES_ASSUMED)
    bars = max(1, round(years * data.periods_per_year))
    found = power.drawdowns(sharpes, DEVIATION_ANNUAL / root, bars)
    return tuple((found <= most).mean(axis=1).tolist())


def _ramp(policy: Policy, never: Sequence[Implication]) -> Iterator[Implication]:
    ramp = policy.governance.ramp
    for i, step in enumerate(ramp):
        weight = f"{step.fraction * policy.governance.allocation:.2%} of capital"
        luck = (
            ""
            if step.e_value is None
            else f", without skill with probability <= {1 / step.e_value:.2g}"
        )
        yield Implication(path=f"{RAMP}[{i}]", says=f"{weight}{luck}.")
    yield Implication(path=RAMP, says=_luck(policy))
    if policy.evidence is not None:
        yield from _proofs(policy, policy.evidence, never)


def _luck(policy: Policy) -> str:
    """What a strategy without skill gets, and where that is not so."""
    bound = bound_on_luck(policy)
    if policy.evidence is None:
        return f"without skill {bound:.0%} of an allocation may be had: nothing is promised."
    asked = terms(policy)
    where = (
        f"of returns above -{asked.floor:.3g} a bar; a regime breaks it, which is skill while it "
        "lasts"
        if asked.method == "bounded"
        else f"where the e-values are valid: persistent regimes and unseen crashes break "
        f"{asked.method}"
    )
    return f"without skill at most {bound:.1%} of an allocation are expected, {where}."


def bound_on_luck(policy: Policy) -> float:
    """The share of an allocation that a strategy without skill is expected to get at most."""
    return ramp_bound((step.fraction, step.e_value) for step in policy.governance.ramp)


def _proofs(policy: Policy, asked: Evidence, never: Sequence[Implication]) -> Iterator[Implication]:
    """What each step's evidence takes, and what the last one's does in company."""
    method = asked.paper.method.replace("_", " ")
    rows = [
        (f"{RAMP}[{i}].e_value", step.e_value, f"an e-value of {step.e_value:g} ({method})")
        for i, step in enumerate(policy.governance.ramp)
        if step.e_value is not None
    ]
    for campaigns in CROWDS if asked.multiplicity != "per_strategy" else ():
        threshold = _alone_among(asked, campaigns)
        says = (
            f"{asked.multiplicity}, {campaigns} campaigns begun and nobody at the top: the last "
            f"step takes an e-value of {threshold:.4g}"
        )
        rows.append(("evidence.multiplicity", threshold, says))
    if not rows:
        return
    if never:
        for path, _, says in rows:
            nobody = (None,) * len(SHARPES_ASSUMED)
            yield Implication(
                path=path, says=f"{says}: never, since nobody goes live.", years=nobody
            )
        return
    within = min(years_of(policy.campaign.paper.max_window or TWO_YEARS), LIFETIME_YEARS)
    times = _years_until(policy, tuple(threshold for _, threshold, _ in rows))
    shares, medians = (times <= within).mean(axis=-1), power.median(times)
    at = f", {VOLATILE}" if asked.paper.method == "bounded" else ""
    for j, (path, _, says) in enumerate(rows):
        yield Implication(
            path=path,
            says=f"{says}; in {_long(within)}{at}.",
            shares=tuple(shares[:, j].tolist()),
            years=tuple(y if math.isfinite(y) else None for y in medians[:, j].tolist()),
        )


def _alone_among(asked: Evidence, campaigns: int) -> float:
    if asked.multiplicity == "spending":
        return 1 / (asked.alpha * spending_share(campaigns))
    return e_bh_threshold(campaigns, asked.alpha, np.empty(0))


def _years_until(policy: Policy, thresholds: tuple[float, ...]) -> NDArray[np.float64]:
    """When each path is at each threshold, inf never: (SHARPES_ASSUMED, thresholds, paths)."""
    asked, a_year = terms(policy), policy.data.periods_per_year
    bars = 1 if asked.method == "bounded" else asked.block
    most, root = int(LIFETIME_YEARS * a_year / bars), math.sqrt(a_year / bars)
    sharpes = tuple(annual / root for annual in SHARPES_ASSUMED)
    if asked.method == "bounded":
        deviation = DEVIATION_ANNUAL / root
        found = power.bars_until(thresholds, sharpes, deviation, asked.floor, most)
    else:
        found = power.blocks_until(thresholds, sharpes, asked.design, most, asked.horizon)
    return found * (bars / a_year)


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
    if (
        policy.evidence is not None
        and policy.evidence.paper.method == "bounded"
        and terms(policy).floor == 1.0
    ):
        yield (
            "evidence.paper.method: bounded without gates.live.max_bar_loss. Its loss floor is "
            "100 %, so that it bets next to nothing, and takes decades; max_bar_loss: {max: 0.1} "
            "makes it 10 %."
        )
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


def _years_at_least(window: Window, data: Data) -> float:
    return max(years_of(window.span), window.min_observations / data.periods_per_year)


def _interval(bound: Bound) -> str:
    ends = (("at least", bound.min), ("at most", bound.max))
    return " and ".join(f"{words} {end:g}" for words, end in ends if end is not None)


def _long(years: float) -> str:
    """Years to two digits, and days where there is no year."""
    if years < 0.995:
        return f"{years * DAYS_PER_YEAR:.0f} days"
    said = f"{years:.2g}" if years < 99.5 else f"{years:.0f}"
    return "1 year" if said == "1" else f"{said} years"


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{each:g}" for each in numbers)
