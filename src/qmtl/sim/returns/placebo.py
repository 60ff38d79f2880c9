"""Strategies whose truth is known, many paths at once: what a policy makes of them says what it is.

Each maker answers daily returns, fractions, shape (observations, paths), oldest first, with a
standard deviation of `VOLATILITY`.  The same arguments give the same bytes.  Every ingredient has a
stream of its own, drawn path by path: asked for more, the paths there were stay what they were.

`null` makes those that earn nothing on average.  The first four are what the promise is about;
`REGIMES` and `SHORT_VOLATILITY` earn nothing either, and break it: they are here to be reported.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf, sqrt
from typing import Final, assert_never

import numpy as np
from numpy.random import Generator, Philox, SeedSequence

from qmtl.core.columns import Float

DAYS_PER_YEAR: Final = 252
VOLATILITY: Final = 0.01  # Daily: 16 % a year, what an index of large companies has.
RETURN_MAX: Final = 0.5  # Of a day, either way, so that nobody loses more than there is.

STUDENT_DEGREES: Final = 4  # What daily stock returns are fitted with (Blattberg & Gonedes 1974).
GARCH_SHOCK, GARCH_MEMORY = 0.08, 0.90  # Daily, a portfolio of stocks and bonds (Engle 2001).
GARCH_BURN_IN: Final = 250  # 0.98^250 < 1 %: nothing is left of where the variance started.
AR_COEFFICIENT: Final = 0.1  # What stale prices do to index returns (Lo & MacKinlay 1988).
REGIME_DAYS: Final = 126  # Half a year, on average, until the good times turn bad or back.
REGIME_SHARPE: Final = 1.5  # Annual, of the good times; of the bad ones its negative.
CRASH_EVERY: Final = 252  # About once a year.
CRASH: Final = 0.15  # In one day: short-volatility funds lost that and more in February 2018.
LEAKY_SHARPE: Final = 5.0  # Annual, of a backtest that saw the future.


class Null(StrEnum):
    """Earns nothing on average."""

    NORMAL = "iid normal"
    STUDENT = "Student t4"
    GARCH = "GARCH(1,1)"
    AR = "AR(1) .1"
    REGIMES = "persistent regimes"
    SHORT_VOLATILITY = "short volatility"


PROMISED = (Null.NORMAL, Null.STUDENT, Null.GARCH, Null.AR)  # An error rate is named for these.


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Moments of one day's return in the long run; `kurtosis` raw, so that a normal has 3."""

    mean: float = 0.0
    deviation: float = VOLATILITY
    skew: float = 0.0
    kurtosis: float = 3.0
    autocorrelation: float = 0.0  # Of lag 1.


def streams(seed: int, what: str, count: int) -> list[Generator]:
    """`count` streams of chance that share nothing with each other, nor with those of others."""
    root = SeedSequence((seed, *what.encode()))
    return [Generator(Philox(each)) for each in root.spawn(count)]


def by_day(drawn: Float) -> Float:
    """Paths as they are drawn, one a row, as answered: one a column."""
    return np.ascontiguousarray(drawn.T)


# ---- Without skill -----------------------------------------------------------------------------


def null(kind: Null, observations: int, paths: int, seed: int) -> Float:
    """Returns of strategies that earn nothing on average."""
    shape = (paths, observations)
    chance, other = streams(seed, kind, 2)
    match kind:
        case Null.NORMAL:
            return by_day(VOLATILITY * chance.standard_normal(shape))
        case Null.STUDENT:
            scale = VOLATILITY / sqrt(STUDENT_DEGREES / (STUDENT_DEGREES - 2))
            drawn = scale * chance.standard_t(STUDENT_DEGREES, shape)
            return by_day(np.clip(drawn, -RETURN_MAX, RETURN_MAX))
        case Null.GARCH:
            return _garch(by_day(chance.standard_normal((paths, GARCH_BURN_IN + observations))))
        case Null.AR:
            return _autoregressive(by_day(chance.standard_normal(shape)))
        case Null.REGIMES:
            return _regimes(by_day(chance.standard_normal(shape)), by_day(other.random(shape)))
        case Null.SHORT_VOLATILITY:
            crashes = by_day(other.random(shape)) < 1 / CRASH_EVERY
            quiet = QUIET_MEAN + QUIET_DEVIATION * by_day(chance.standard_normal(shape))
            return np.where(crashes, -CRASH, quiet)
        case other_kind:
            assert_never(other_kind)


def _garch(shocks: Float) -> Float:
    """r_t = s_t z_t, s_t^2 = w + a r_{t-1}^2 + b s_{t-1}^2 (Bollerslev 1986)."""
    long_run = VOLATILITY**2 * (1 - GARCH_SHOCK - GARCH_MEMORY)
    r = np.empty_like(shocks)
    variance = np.full(shocks.shape[1], VOLATILITY**2)
    for day, shock in enumerate(shocks):
        r[day] = np.sqrt(variance) * shock
        variance = long_run + GARCH_SHOCK * r[day] ** 2 + GARCH_MEMORY * variance
    return np.clip(r[GARCH_BURN_IN:], -RETURN_MAX, RETURN_MAX)


def _autoregressive(shocks: Float) -> Float:
    r = VOLATILITY * shocks
    innovation = sqrt(1 - AR_COEFFICIENT**2)
    for day in range(1, len(r)):
        r[day] = AR_COEFFICIENT * r[day - 1] + innovation * r[day]
    return r


# What is left of the variance in one regime, whose mean differs from the other's.
REGIME_MEAN: Final = REGIME_SHARPE * VOLATILITY / sqrt(DAYS_PER_YEAR)
REGIME_DEVIATION: Final = sqrt(VOLATILITY**2 - REGIME_MEAN**2)


def _regimes(shocks: Float, chance: Float) -> Float:
    """Good and bad times in turn, each of a length nobody knows; it starts in either."""
    turns = chance < 1 / REGIME_DAYS
    turns[0] = chance[0] < 1 / 2
    good = np.cumsum(turns, axis=0) % 2 == 1
    return np.where(good, REGIME_MEAN, -REGIME_MEAN) + REGIME_DEVIATION * shocks


# Between the crashes it earns what they cost, and moves by what they leave of the variance.
QUIET_MEAN: Final = CRASH / (CRASH_EVERY - 1)
QUIET_DEVIATION: Final = sqrt(
    (VOLATILITY**2 - CRASH**2 / CRASH_EVERY) / (1 - 1 / CRASH_EVERY) - QUIET_MEAN**2
)


def truth(kind: Null) -> Truth:
    """What the returns of `null` are in the long run."""
    match kind:
        case Null.NORMAL:
            return Truth()
        case Null.STUDENT:
            return Truth(kurtosis=inf)
        case Null.GARCH:
            persistence = (GARCH_SHOCK + GARCH_MEMORY) ** 2
            return Truth(kurtosis=3 * (1 - persistence) / (1 - persistence - 2 * GARCH_SHOCK**2))
        case Null.AR:
            return Truth(autocorrelation=AR_COEFFICIENT)
        case Null.REGIMES:
            mean, deviation = REGIME_MEAN / VOLATILITY, REGIME_DEVIATION / VOLATILITY
            return Truth(
                kurtosis=3 * deviation**4 + 6 * deviation**2 * mean**2 + mean**4,
                autocorrelation=mean**2 * (1 - 2 / REGIME_DAYS),
            )
        case Null.SHORT_VOLATILITY:
            rate = 1 / CRASH_EVERY
            m, s, loss = QUIET_MEAN / VOLATILITY, QUIET_DEVIATION / VOLATILITY, CRASH / VOLATILITY
            return Truth(
                skew=(1 - rate) * (m**3 + 3 * m * s**2) - rate * loss**3,
                kurtosis=(1 - rate) * (m**4 + 6 * m**2 * s**2 + 3 * s**4) + rate * loss**4,
            )
        case other_kind:
            assert_never(other_kind)


def families(correlation: float, size: int, observations: int, count: int, seed: int) -> Float:
    """`count` families of `size` strategies without skill, those of a family next to each other.

    A family's members share a factor: any two correlate by `correlation`, in [0, 1]."""
    assert 0.0 <= correlation <= 1.0, "correlation: in [0, 1]"
    common, own = streams(seed, "families", 2)
    factor = np.repeat(common.standard_normal((count, observations)), size, axis=0)
    rest = own.standard_normal((count * size, observations))
    mixed = sqrt(correlation) * factor + sqrt(1 - correlation) * rest
    return by_day(VOLATILITY * mixed)


# ---- With skill, for as long as it lasts -------------------------------------------------------


def mean_of(sharpe_annual: float) -> float:
    """The daily mean of a strategy of this annual Sharpe ratio."""
    return sharpe_annual * VOLATILITY / sqrt(DAYS_PER_YEAR)


def skilled(sharpe_annual: float, observations: int, paths: int, seed: int) -> Float:
    """Normal returns of this annual Sharpe ratio, in truth: what a path shows is another matter."""
    (chance,) = streams(seed, "skilled", 1)
    drawn = chance.standard_normal((paths, observations))
    return by_day(mean_of(sharpe_annual) + VOLATILITY * drawn)


def decaying(
    before: float, after: float, at: int, observations: int, paths: int, seed: int
) -> Float:
    """Normal returns whose annual Sharpe ratio is `before`, and `after` from day `at` on."""
    r = skilled(before, observations, paths, seed)
    r[at:] += mean_of(after - before)
    return r


# ---- Backtests that lie ------------------------------------------------------------------------


def best_of(trials: int, observations: int, paths: int, seed: int) -> Float:
    """Of `trials` backtests without skill, the one of the best Sharpe ratio; so for each path."""
    (chance,) = streams(seed, "best of", 1)
    kept = np.empty((paths, observations))
    for path in range(paths):
        tried = chance.standard_normal((trials, observations))
        ratio = tried.mean(axis=1) / tried.std(axis=1)
        kept[path] = tried[np.argmax(ratio)]
    return by_day(VOLATILITY * kept)


def leaky(observations: int, paths: int, seed: int) -> Float:
    """Backtests that saw the future."""
    return skilled(LEAKY_SHARPE, observations, paths, seed)
