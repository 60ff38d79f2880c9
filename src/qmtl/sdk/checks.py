"""Checks at submit: what an author had better know before the world judges, and the way out.

A finding either stops the submission, since a backtest with it proves nothing (look-ahead, weights
that are no numbers or have no limit), or is advice: the world decides, by its own figures. Advice
is said only where it is true of most strategies that show it; each threshold says why it is there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from qmtl.core.metrics import Measure, Undefined, performance
from qmtl.sdk.demands import Demands
from qmtl.sdk.lookahead import Leak
from qmtl.sdk.prices import FloatArray, Prices, TimeArray, stamp

# A move of 5 % against it is the end, and nobody lends so much against a portfolio: weights that
# are not fractions of equity (prices, numbers of shares, money), or a division by next to nothing.
GROSS_MAX = 20.0
GROSS_ADVISED = 2.0  # What an account may hold overnight (Regulation T); above it, margin calls.
GROSS_GROWTH = 2.0  # From the first to the last quarter of a history: a sum, not a level.
QUARTERS = 4

# Liquid portfolios are below 0.1. At 0.2 smoothing alone raises a Sharpe ratio by a fifth:
# r'[t] = a r[t] + (1-a) r[t-1] has the variance 1/(1+2 rho) of r (Getmansky, Lo and Makarov 2004).
AUTOCORRELATION_MAX = 0.2
AUTOCORRELATION_SIGMAS = 3.0  # Of 1/sqrt(n), its standard error without autocorrelation.
SHARPE_SUSPICIOUS = 3.0  # Above it, a leak or a missing cost is likelier than skill.
# One price in four that did not move is a price that was not traded. (Coarse ticks leave one in
# ten.)
ZERO_RETURNS_MAX = 0.25
BARS_A_YEAR_APART = 1.1  # Bars a year of the prices and of the policy: other bars, not holidays.

ROUNDING = 1e-9  # A sum of weights that is 2 may come out a little more.
DAY = np.timedelta64(1, "D")
SCALED = ("max_drawdown", "volatility")  # About proportional to the weights.
PRODUCED = ("trades_total", "turnover_annual")  # What returns do not tell, and who trades counts.

Severity: TypeAlias = Literal["stop", "advice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    name      the check, in one word for programs
    severity  stop: nothing is sent. advice: it is sent all the same
    message   what was found, with its figures and dates
    remedy    what to do about it
    """

    name: str
    severity: Severity
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


class StrategyRejected(Exception):
    """A check stopped the submission, and nothing was sent.

    findings  every reason, each with its date and a way out
    leak      what the look-ahead check found, if it did
    """

    def __init__(self, findings: Sequence[Finding], leak: Leak | None = None) -> None:
        super().__init__("\n".join(map(str, findings)))
        self.findings = tuple(findings)
        self.leak = leak


# ---- What stops a submission -----------------------------------------------------------------

LEAKS = {
    "look_ahead": "row i may use prices[: i + 1] only: no shift(-1), no centred window, no mean or"
    " deviation of the whole sample, no filling backwards",
    "not_deterministic": "seed what is random inside weights(), keep nothing from one call for the"
    " next, and sort what comes out of a set",
    "fails_on_short_history": "answer with zeros, one row a bar, while there are too few bars",
}


def of_leak(leak: Leak) -> Finding:
    """The look-ahead check's answer."""
    return Finding(leak.kind, "stop", leak.message, LEAKS[leak.kind])


def of_weights(weights: FloatArray, prices: Prices) -> list[Finding]:
    """What is wrong with weights (bars, assets) whatever the prices do.  Empty: nothing."""
    return [*_not_numbers(weights, prices), *_without_limit(weights, prices)]


def _not_numbers(weights: FloatArray, prices: Prices) -> Iterator[Finding]:
    bad = ~np.isfinite(weights)
    if not bad.any():
        return
    row, column = (int(at) for at in np.argwhere(bad)[0])
    value, asset = float(weights[row, column]), prices.assets[column]
    rows = int(bad.any(axis=1).sum())
    yield Finding(
        "nan_weights",
        "stop",
        f"the weight of {asset} on {stamp(prices.times[row])} is {value}, the first of"
        f" {int(bad.sum()):,} on {rows:,} of {prices.bars:,} bars that are no numbers",
        "where too little is known say 0, which is to hold nothing: np.where(np.isfinite(w), w, 0)"
        " once you know why it is not a number",
    )


def _without_limit(weights: FloatArray, prices: Prices) -> Iterator[Finding]:
    gross = gross_of(weights)
    row = int(gross.argmax())
    if not gross[row] > GROSS_MAX:
        return
    yield Finding(
        "weights_without_limit",
        "stop",
        f"gross exposure is {gross[row]:,.4g} times equity on {stamp(prices.times[row])}, the"
        f" largest; more than {GROSS_MAX:g} is no portfolio: a move of {1 / gross[row]:.2%} against"
        " it on one bar ends it",
        "weights are fractions of equity, not prices, shares or money: divide by their sum of"
        " absolute values, or cap it",
    )


def gross_of(weights: FloatArray) -> FloatArray:
    """(bars,): gross exposure, as a multiple of equity; what is no number holds nothing."""
    total: FloatArray = np.abs(np.where(np.isfinite(weights), weights, 0.0)).sum(axis=1)
    return total


def of_ruin(error: Exception) -> Finding:
    """The engine's refusal to go on when nothing is left."""
    return Finding(
        "equity_ends",
        "stop",
        str(error),
        "hold less on that bar: it is the price move there times the weights",
    )


# ---- What is advice --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Traded:
    """What only an engine knows of a backtest.

    gross         (bars,) gross exposure by bar of the prices, as a multiple of equity
    before_costs  (bars-1,) simple returns of the same weights at no cost
    """

    times: TimeArray
    gross: FloatArray
    before_costs: FloatArray
    cost_bps: float
    costs_annual: float
    turnover_annual: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """All that advice is drawn from.

    times, returns  (n,) when each return was realised, and what it was, net
    starts          the first bar: of the prices, else of the returns
    stats           trades_total and turnover_annual, as far as known
    traded          None for returns that were made elsewhere
    demands         of the world; in words why they are not known
    """

    times: TimeArray
    returns: FloatArray
    starts: np.datetime64
    metrics: Mapping[str, Measure]
    periods_per_year: float
    stats: Mapping[str, float]
    traded: Traded | None
    variants_tried: int | None
    demands: Demands | str


def advice(on: Examined) -> tuple[Finding, ...]:
    """Everything worth saying, in a fixed order; nothing for a backtest without doubts."""
    return tuple(finding for check in CHECKS for finding in check(on))


def _advice(name: str, message: str, remedy: str) -> Finding:
    return Finding(name, "advice", message, remedy)


def _holds_nothing(on: Examined) -> Iterator[Finding]:
    if on.traded is not None and not on.traded.gross.any():
        yield _advice(
            "holds_nothing",
            f"it holds nothing: every weight of all {len(on.traded.gross):,} bars is 0",
            "see which condition is never met, whether it waits for more bars than there are, and"
            " what turns NaN into 0",
        )


def _policy_unknown(on: Examined) -> Iterator[Finding]:
    if isinstance(on.demands, str):
        yield _advice(
            "policy_unknown",
            f"not compared with the world's policy: {on.demands}",
            "the world compares when it gets the submission",
        )


def _history(on: Examined) -> Iterator[Finding]:
    """Days and observations as the world counts them: from the first return to the last."""
    if isinstance(on.demands, str):
        return
    asked, span = on.demands, on.times[-1] - on.times[0]
    window = np.timedelta64(asked.window)
    days, observations = window / DAY - span / DAY, asked.observations - len(on.returns)
    if days <= 0 and observations <= 0:
        return
    bar = span / max(1, len(on.times) - 1)
    missing = [f"{days:,.1f} days"] if days > 0 else []
    missing += [f"{observations:,} observations"] if observations > 0 else []
    earlier = max(window - span, max(observations, 0) * bar)
    what = "returns" if on.traded is None else "prices"
    yield _advice(
        "history_short",
        f"the world asks a backtest for {window / DAY:,.0f} days and {asked.observations:,}"
        f" observations; this has {span / DAY:,.1f} and {len(on.returns):,}:"
        f" {' and '.join(missing)} are missing",
        f"give {what} that start on {_day(on.starts - earlier)} or before, not on"
        f" {_day(on.starts)}",
    )


def _gates(on: Examined) -> Iterator[Finding]:
    """The gates that are not met, by the policy's own bars a year."""
    if isinstance(on.demands, str):
        return
    asked = on.demands
    known: dict[str, Measure] = {**performance(on.returns, asked.periods_per_year), **on.stats}
    apart = on.periods_per_year / asked.periods_per_year
    other = not 1 / BARS_A_YEAR_APART < apart < BARS_A_YEAR_APART
    by = f" at the policy's {asked.periods_per_year:g} bars a year" if other else ""
    for metric, (least, most) in asked.gates.items():
        value, name = known.get(metric), f"gate_{metric}"
        wanted = " and ".join(
            f"{words} {bound:g}"
            for words, bound in (("at least", least), ("at most", most))
            if bound is not None
        )
        asks = f"the world asks a backtest for {metric} of {wanted}"
        if value is None or isinstance(value, Undefined):
            why = "not known" if value is None else f"undefined ({value})"
            yield _advice(name, f"{asks}; here it is {why}", _remedy_unknown(metric, value))
        elif least is not None and not value >= least:
            yield _advice(name, f"{asks}; this has {value:.4g}{by}", _remedy_low(metric))
        elif most is not None and not value <= most:
            remedy = _remedy_high(metric, value, most)
            yield _advice(name, f"{asks}; this has {value:.4g}{by}", remedy)


UNCHANGED = "the world will not pass it as it is; every variant tried to change that counts"


def _remedy_unknown(metric: str, value: Undefined | None) -> str:
    if value is not None:
        return "what is undefined passes no gate"
    if metric in PRODUCED:
        return f"count it where the strategy runs, and give stats={{'{metric}': ...}}"
    return "no submission carries it: ask whoever wrote the policy"


def _remedy_low(metric: str) -> str:
    if metric == "trades_total":
        return "give a longer history, or choose a world for strategies that trade seldom"
    return UNCHANGED


def _remedy_high(metric: str, value: float, most: float) -> str:
    if metric in SCALED:
        return f"hold less: at {most / value:.2f} times the weights it would be about that"
    if metric == "turnover_annual":
        return "trade less: decide less often, or not at all on small changes"
    return UNCHANGED


def _leverage(on: Examined) -> Iterator[Finding]:
    if on.traded is None:
        return
    gross, row = on.traded.gross, int(on.traded.gross.argmax())
    if gross[row] > GROSS_ADVISED * (1 + ROUNDING):
        yield _advice(
            "leverage",
            f"gross exposure reaches {gross[row]:.2f} times equity, on"
            f" {_day(on.traded.times[row])}: a move of {1 / gross[row]:.0%} against it ends it",
            f"cap it, at {GROSS_ADVISED:g} say; an account may hold no more overnight",
        )


def _growth(on: Examined) -> Iterator[Finding]:
    """Whether exposure grows from quarter to quarter of the history: a running sum has no limit."""
    if on.traded is None:
        return
    active = on.traded.gross[int((on.traded.gross > 0).argmax()) :]
    if len(active) < 2 * QUARTERS:
        return
    levels = [float(np.median(part)) for part in np.array_split(active, QUARTERS)]
    grows = all(later > earlier for earlier, later in pairwise(levels))
    if grows and levels[-1] > max(1.0, GROSS_GROWTH * levels[0]):
        yield _advice(
            "weights_grow",
            f"gross exposure grows all along: {levels[0]:.2f} times equity in the first quarter of"
            f" the history, {levels[-1]:.2f} in the last (medians)",
            "nothing here would stop it: divide the weights by something that grows with them",
        )


def _costs_exceed_edge(on: Examined) -> Iterator[Finding]:
    """Means a year, before compounding. Costs a year are proportional to cost_bps."""
    traded = on.traded
    if traded is None or not traded.costs_annual > 0:
        return
    gross = float(traded.before_costs.mean()) * on.periods_per_year
    if gross > traded.costs_annual:
        return
    paid = (
        f"costs of {traded.cost_bps:g} bps take {traded.costs_annual:.1%} a year, at a turnover of"
        f" {traded.turnover_annual:.1f}"
    )
    if gross <= 0:
        yield _advice(
            "costs_exceed_edge",
            f"it earns {gross:.1%} a year before costs; {paid}",
            "no saving of costs helps here",
        )
        return
    even = traded.cost_bps * gross / traded.costs_annual
    yield _advice(
        "costs_exceed_edge",
        f"it earns {gross:.1%} a year before costs; {paid}; it breaks even at {even:.2g} bps",
        "trade less: decide less often, ignore small changes of weight, or hold longer",
    )


def _costs_zero(on: Examined) -> Iterator[Finding]:
    if on.traded is not None and not on.traded.cost_bps > 0:
        yield _advice(
            "costs_zero",
            "the engine trades at no cost; no market does",
            "give engine=Engine(cost_bps=...)",
        )


def _smooth(on: Examined) -> Iterator[Finding]:
    """Lag-1 autocorrelation, from the first bar on that earned anything."""
    returns = on.returns[int((on.returns != 0).argmax()) :]
    centred = returns - returns.mean()
    total = float(centred @ centred)
    if len(returns) < 2 or not total > 0:
        return
    found = float(centred[1:] @ centred[:-1]) / total
    if found > AUTOCORRELATION_MAX and found * np.sqrt(len(returns)) > AUTOCORRELATION_SIGMAS:
        factor = np.sqrt(1 + 2 * found)
        yield _advice(
            "smooth_returns",
            f"returns are smooth: their lag-1 autocorrelation is {found:.2f}, which stale or"
            f" averaged prices cause more often than skill (Getmansky, Lo and Makarov 2004);"
            f" unsmoothed, volatility would be {factor:.2f} times as high and Sharpe as much lower",
            "use prices at which one could have traded; mark illiquid assets to market",
        )


def _sharpe(on: Examined) -> Iterator[Finding]:
    sharpe = on.metrics["sharpe_annual"]
    if not isinstance(sharpe, Undefined) and sharpe > SHARPE_SUSPICIOUS:
        yield _advice(
            "sharpe_suspicious",
            f"a Sharpe ratio of {sharpe:.2f}: above {SHARPE_SUSPICIOUS:g} it is a leak or a missing"
            " cost more often than skill",
            "look at costs, delay and the prices themselves; was a parameter fitted to them?",
        )


def _zeros(on: Examined) -> Iterator[Finding]:
    """The share of bars that earned exactly nothing, of those on which something was held."""
    if on.traded is None:
        earned = on.returns[int((on.returns != 0).argmax()) :]
    else:
        earned = on.traded.before_costs[1:][on.traded.gross[:-2] > 0]
    share = float((earned == 0).mean()) if len(earned) else 0.0
    if share > ZERO_RETURNS_MAX:
        when = "after the first that is not" if on.traded is None else "while something is held"
        yield _advice(
            "zero_returns",
            f"{share:.0%} of the returns {when} are exactly zero: stale prices, and then"
            " volatility and drawdown are too low",
            "leave bars out on which an asset did not trade, instead of filling them forward"
            if on.traded is not None
            else "if nothing was held then, all is well; else use prices of trades",
        )


def _variants(on: Examined) -> Iterator[Finding]:
    if on.variants_tried is None:
        count = None if isinstance(on.demands, str) else on.demands.variants_assumed
        assumed = "the number in its policy" if count is None else f"{count}"
        yield _advice(
            "variants_unknown",
            f"variants_tried was not said; where it matters the world assumes {assumed}",
            "count every variant that was looked at, this one included; qmtl sweep does",
        )


def _undefined(on: Examined) -> Iterator[Finding]:
    if any(_holds_nothing(on)):
        return  # Which says it better.
    unknown = [f"{n} ({v})" for n, v in on.metrics.items() if isinstance(v, Undefined)]
    if unknown:
        yield _advice(
            "metrics_undefined",
            f"undefined here: {', '.join(unknown)}",
            "an undefined metric passes no gate: see whether it trades, and loses, at all",
        )


def _elsewhere(on: Examined) -> Iterator[Finding]:
    if on.traded is None:
        yield _advice(
            "not_checked",
            "these returns were made elsewhere: nothing here can tell whether they look ahead, or"
            " are net of costs",
            "check there that a run on the first bars alone gives the same returns, after costs",
        )


CHECKS: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    _holds_nothing,
    _policy_unknown,
    _history,
    _gates,
    _leverage,
    _growth,
    _costs_exceed_edge,
    _costs_zero,
    _smooth,
    _sharpe,
    _zeros,
    _variants,
    _undefined,
    _elsewhere,
)


def _day(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="D"))
