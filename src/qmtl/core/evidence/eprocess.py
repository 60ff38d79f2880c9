"""E-values of a mean that is not positive: how much a sequence of returns speaks against it.

An e-value is large by luck with probability at most one over it, however often anyone looks
(Ville 1939).  Arrays hold one number a strategy; the sums that they need are kept, so that one more
return costs the same whatever came before.  What has no answer is NaN.

Sources.  R09: Rouder, Speckman, Sun, Morey & Iverson (2009), Bayesian t tests; with a normal prior
on the effect size, one-sided.  WR24: Waudby-Smith & Ramdas (2024), Estimating means of bounded
random variables by betting.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from .normal import FLAT, Bool, Float, least, phi

E_MAX: Final = 1e12  # No policy asks for more, and nothing here is infinite.
LOG_E_MAX: Final = math.log(E_MAX)
BLOCKS_MIN: Final = 10  # Of a t e-value: with fewer, its approximation is none.
SHARE_MAX: Final = 1 - 1e-9  # Of t in sqrt(t^2 + v): what no returns show.
RETURNS_AT_ONCE: Final = 10_000  # Times nine bets: what a processor keeps close to itself.
BETS: Final = tuple(j / 10 for j in range(1, 10))  # Shares of the largest bet that cannot ruin.


@dataclass(frozen=True, slots=True)
class Blocks:
    """Sums of B returns each, as count, mean and sum of squared deviations; and the unfinished one.

    Arrays of one number a strategy.  With B = 1 a block is a return.
    """

    count: Float
    mean: Float
    m2: Float
    part_sum: Float
    part_points: Float


def no_blocks(strategies: int) -> Blocks:
    """Nothing seen yet."""
    return Blocks(*(np.zeros(strategies) for _ in range(5)))


def more_blocks(held: Blocks, returns: Float, counted: Bool, size: int) -> Blocks:
    """After returns of shape (strategies, points), oldest first, those that are `counted`.

    Welford's update, so that no history is too long; any split of the same returns gives the same.
    """
    n, mean, m2 = held.count, held.mean, held.m2
    part, points = held.part_sum, held.part_points
    for j in range(returns.shape[1]):
        seen = counted[:, j]
        part = np.where(seen, part + returns[:, j], part)
        points = points + seen
        whole = points >= size
        if whole.any():
            n = n + whole
            apart = part - mean
            mean = np.where(whole, mean + apart / np.maximum(n, 1.0), mean)
            m2 = np.where(whole, m2 + apart * (part - mean), m2)
            part, points = np.where(whole, 0.0, part), np.where(whole, 0.0, points)
    return Blocks(n, mean, m2, part, points)


def t_statistic(held: Blocks) -> Float:
    """sqrt(n) mean / sd of the finished blocks; NaN for fewer than BLOCKS_MIN or without spread."""
    n = held.count
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(held.m2 / (n - 1))
        flat = FLAT * np.abs(held.mean)
        known = (n >= BLOCKS_MIN) & (deviation > flat) & np.isfinite(deviation)
        return np.where(known, np.sqrt(n) * held.mean / deviation, np.nan)


def t_mixture(held: Blocks, design: float) -> Float:
    """The e-value of the finished blocks against a mean of at most 0; NaN when they are too few.

    `design` is the Sharpe ratio per block that the test looks for: the effect size has a normal
    prior of that scale, cut to its positive half (R09).
    Assumes blocks that are near symmetric and weakly dependent.  Approximate in the factor 2 Phi:
    at most 7 % above the Bayes factor from 10 blocks on with a design of .21 a block (1.5 a year of
    days in fives), 23 % with .1, 46 % with .05, and below it where t is negative.  Its mean without
    skill is 1 after any number of blocks all the same, since 2 Phi(x) + 2 Phi(-x) = 2 and t is as
    often negative as positive; approximate is only that it stays so for who stops by its value.
    """
    return mixture(t_statistic(held), held.count, design)


def futility(held: Blocks, claimed: float, design: float) -> Float:
    """The same against a Sharpe ratio per block of at least `claimed`: large refutes it."""
    return mixture(np.sqrt(held.count) * claimed - t_statistic(held), held.count, design)


def mixture(t: Float, n: Float, design: float) -> Float:
    """The t e-value of n blocks whose t statistic is `t`; see `t_mixture`."""
    v, k = n - 1, n * design**2
    ratio = np.log1p(t**2 / v) - np.log1p(t**2 / (v * (1 + k)))
    log = n / 2 * ratio - np.log1p(k) / 2
    found: Float = 2 * phi(t * np.sqrt(k / (1 + k))) * np.exp(np.minimum(log, LOG_E_MAX))
    return np.minimum(found, E_MAX)


def t_needed(threshold: float, n: Float, design: float) -> Float:
    """The t statistic of n blocks from which on `mixture` is at least `threshold`, which is >= 1.

    inf where no t is enough.  By bisection of t/sqrt(t^2 + v), in [0, 1): `mixture` rises with t,
    and is below 1 for t <= 0.
    """
    most = np.full(len(n), SHARE_MAX)
    v = n - 1  # pragma: no mutate

    def t_of(share: Float) -> Float:
        # Any scale of t would do.
        found: Float = np.sqrt(v) * share / np.sqrt(1 - share**2)  # pragma: no mutate
        return found

    def enough(share: Float) -> Bool:
        # It is halved until there is nothing between: no number is just the threshold.
        found: Bool = mixture(t_of(share), n, design) >= threshold  # pragma: no mutate
        return found

    return np.where(enough(most), t_of(least(enough, np.zeros(len(n)), most)), np.inf)


def no_wealth(strategies: int) -> Float:
    """Logarithms of what each bet of each strategy has become: (strategies, bets)."""
    return np.zeros((strategies, len(BETS)))


def more_wealth(held: Float, returns: Float, counted: Bool, floor: float) -> Float:
    """After returns of shape (strategies, points), those that are `counted`.

    INVARIANT: a return below -floor leaves nothing: the bets rested on its not happening (WR24).
    So does what is no number.
    """
    bets = np.array(BETS) / floor
    sound: Bool = (returns >= -floor) & (returns < np.inf)
    seen = np.where(counted & sound, returns, 0.0)
    ruined: Bool = np.any(counted & ~sound, axis=1, keepdims=True)
    # What is done at once decides on memory, and on nothing else.
    points = max(1, RETURNS_AT_ONCE // max(1, len(returns)))  # pragma: no mutate
    for start in range(0, returns.shape[1], points):
        some = seen[:, start : start + points, None]
        held = held + np.log1p(some * bets).sum(axis=1)
    found: Float = np.where(ruined, -np.inf, held)
    return found


def bounded(held: Float) -> Float:
    """The e-value of bets against a conditional mean of at most 0: their average (WR24).

    Valid for every distribution that stays above -floor, whatever its tails or its dependence.
    """
    found: Float = np.exp(np.minimum(held, LOG_E_MAX)).mean(axis=1)
    return np.minimum(found, E_MAX)
