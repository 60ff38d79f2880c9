"""The look-ahead check: does a strategy know today what it can only know tomorrow?

A causal strategy gives row i the same weights whatever comes after bar i. So it is asked again

* without a future: on the first `cut` bars alone, for many cuts;
* with another future: on all bars, with every price after `cut` halved, or doubled. This wakes a
  strategy that looks ahead only to what is rare, a crash say, which few cuts fall just before.

Every row up to the cut must be the same, and the first that is not names the leak. Cuts are powers
of two (where warm-up rows are filled from what follows them), evenly spread, drawn from a fixed
seed, and the last three bars; so the check gives the same answer each time.

Each question goes to a fresh copy of the strategy: one that selects its parameters on first use and
keeps them would otherwise carry the answer from one question to the next. What a strategy keeps
outside itself (module globals, files) is not reset, and can hide a leak. Nor is a parameter seen
through that was fitted to these prices before: that takes prices it has never seen, and time.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from qmtl.sdk.prices import FloatArray, Prices, PricesError, stamp
from qmtl.sdk.strategy import Strategy, StrategyError, called, weights_of

Kind: TypeAlias = Literal["look_ahead", "not_deterministic", "fails_on_short_history"]

# Relative to the largest weight of the row. Causal code may round in another order on fewer rows
# (1e-16 an operation); what looks ahead differs by far more.
TOLERANCE = 1e-12
CUTS_EVEN = 6
CUTS_RANDOM = 6
CUTS_LAST = 3
FUTURES_CUTS = 3
FUTURES = (0.5, 2.0)
SEED = 1990


@dataclass(frozen=True, slots=True)
class Leak:
    """Why a backtest of the strategy proves nothing.

    kind     look_ahead: weights depend on later prices. not_deterministic: the same prices gave
             other weights. fails_on_short_history: it raised, or gave another shape, on fewer bars
    date     datetime64[us]: the earliest bar seen whose weights differ; for fails_on_short_history
             the last bar of the longest history it failed on
    asset    the first asset whose weight differs there; None for fails_on_short_history
    cut      how many of the first bars it was given as they are
    message  all that, in a sentence
    """

    kind: Kind
    date: np.datetime64
    asset: str | None
    cut: int
    message: str


@dataclass(frozen=True, slots=True)
class _Difference:
    row: int
    column: int
    expected: float
    answered: float


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception


# The prices to ask with, given all of them and how many of the first bars to keep.
_Change: TypeAlias = Callable[[Prices, int], Prices]
_Probe: TypeAlias = Callable[[int], _Difference | _Failure | None]

Progress: TypeAlias = Callable[[int, int], None]  # How many cuts are tried, and of how many.


def find_leak(
    strategy: Strategy, prices: Prices, *, seed: int = SEED, progress: Progress | None = None
) -> Leak | None:
    """The first way found in which the strategy's weights on `prices` cannot be trusted, or None.

    Looking ahead is reported before failing on a short history. The earliest date is found by
    bisection, so it is the earliest of a leak that shows at every cut, as most do. Costs about as
    much as twenty runs of the strategy on all of `prices`; `seed` moves the random cuts; `progress`
    is told after each cut.

    Raises PricesError for fewer than two bars, StrategyError for a strategy that cannot be copied
    or fails on another future, and passes on what the strategy raises on `prices` themselves.
    """
    if prices.bars < 2:
        raise PricesError("a look-ahead check needs two bars: one to know and one to leave out")
    full = weights_of(_copied(strategy), prices)
    found = _unsteady(strategy, prices)
    if found is not None:
        return _not_deterministic(strategy, prices, found, prices.bars)

    shorter, others = _cuts(prices.bars, seed), _even(prices.bars, FUTURES_CUTS)
    total, tried = len(shorter) + len(FUTURES) * len(others), 0

    def counted(cuts: list[int]) -> Iterator[int]:
        nonlocal tried
        for cut in cuts:
            yield cut
            tried += 1
            if progress is not None:
                progress(tried, total)

    def shown_by(change: _Change, cuts: list[int], future: str) -> Leak | None:
        probe = partial(_probe, strategy, prices, full, change)
        return _search(strategy, prices, probe, counted(cuts), future)

    failed = shown_by(_shortened, shorter, "are not known yet")
    if failed is not None and failed.kind != "fails_on_short_history":
        return failed
    for factor in FUTURES:
        change = partial(_multiplied, factor)
        other = shown_by(change, others, f"are multiplied by {factor}")
        if other is not None and other.kind == "fails_on_short_history":
            raise StrategyError(other.message)
        if other is not None:
            return other
    return failed


# Asking -------------------------------------------------------------------------------------------


def _shortened(prices: Prices, cut: int) -> Prices:
    return prices.head(cut)


def _multiplied(factor: float, prices: Prices, cut: int) -> Prices:
    changed = prices.values.copy()
    changed[cut:] *= factor
    return replace(prices, values=changed)


def _probe(
    strategy: Strategy, prices: Prices, full: FloatArray, change: _Change, cut: int
) -> _Difference | _Failure | None:
    asked = change(prices, cut)
    fresh = _copied(strategy)
    try:
        answer = weights_of(fresh, asked)
    except Exception as error:  # Somebody else's code may raise anything; it is reported.
        return _Failure(error)
    return _difference(full[:cut], answer[:cut])


def _copied(strategy: Strategy) -> Strategy:
    try:
        return copy.deepcopy(strategy)
    except TypeError as error:
        raise StrategyError(
            f"{called(strategy)} cannot be copied, so what it remembers cannot be told from what"
            f" it foresees: {error}"
        ) from error


def _unsteady(strategy: Strategy, prices: Prices) -> _Difference | None:
    """Where two answers to one question differ: of one copy asked twice, or of another copy."""
    one, other = _copied(strategy), _copied(strategy)
    first = weights_of(one, prices)
    again = _difference(first, weights_of(one, prices))
    return again or _difference(first, weights_of(other, prices))


def _difference(head: FloatArray, part: FloatArray) -> _Difference | None:
    """The first place where two tables of one shape (rows, assets) differ. NaN equals NaN."""
    finite = np.isfinite(head) & np.isfinite(part)
    known, told = np.where(finite, head, 0.0), np.where(finite, part, 0.0)
    scale = np.max(np.maximum(np.abs(known), np.abs(told)), axis=1, keepdims=True)
    close = finite & (np.abs(known - told) <= TOLERANCE * scale)
    same = close | (head == part) | (np.isnan(head) & np.isnan(part))
    if same.all():
        return None
    row, column = (int(at) for at in np.argwhere(~same)[0])
    return _Difference(row, column, float(head[row, column]), float(part[row, column]))


# Searching ----------------------------------------------------------------------------------------


def _cuts(bars: int, seed: int) -> list[int]:
    """Histories to try, in bars, ascending, each in [1, bars - 1]."""
    powers = [2**power for power in range(bars.bit_length())]
    drawn = np.random.default_rng(seed).integers(1, bars, size=CUTS_RANDOM).tolist()
    last = [bars - before for before in range(1, CUTS_LAST + 1)]
    cuts = {*powers, *_even(bars, CUTS_EVEN), *drawn, *last}
    return sorted(cut for cut in cuts if 1 <= cut < bars)


def _even(bars: int, count: int) -> list[int]:
    return sorted({max(1, bars * part // (count + 1)) for part in range(1, count + 1)})


def _search(
    strategy: Strategy, prices: Prices, probe: _Probe, cuts: Iterable[int], future: str
) -> Leak | None:
    """The earliest difference between two neighbouring cuts, else the longest failing history."""
    failed: Leak | None = None
    clean = 0
    for cut in cuts:
        match probe(cut):
            case _Difference() as found:
                if (chance := _unsteady(strategy, prices.head(cut))) is not None:
                    return _not_deterministic(strategy, prices, chance, cut)
                return _look_ahead(strategy, prices, *_earliest(probe, clean, cut, found), future)
            case _Failure(error):
                failed = _failing(strategy, prices, error, cut, future)
            case None:
                pass
        clean = cut
    return failed


def _earliest(probe: _Probe, clean: int, cut: int, found: _Difference) -> tuple[_Difference, int]:
    """Bisects (clean, cut] for the shortest history that shows the leak, and its first row."""
    seen = cut
    while cut - clean > 1:
        middle = (clean + cut) // 2
        answer = probe(middle)
        if not isinstance(answer, _Difference):
            clean = middle  # Clean, or too short for the strategy to answer at all.
            continue
        cut = middle
        if answer.row <= found.row:
            found, seen = answer, middle
    return found, seen


# Saying -------------------------------------------------------------------------------------------


def _look_ahead(
    strategy: Strategy, prices: Prices, found: _Difference, cut: int, future: str
) -> Leak:
    date, asset = prices.times[found.row], prices.assets[found.column]
    message = (
        f"{called(strategy)} looks ahead: its weight of {asset} on {stamp(date)} is"
        f" {found.expected:.6g}, and {found.answered:.6g} when the prices after"
        f" {stamp(prices.times[cut - 1])} {future}"
    )
    return Leak("look_ahead", date, asset, cut, message)


def _not_deterministic(strategy: Strategy, prices: Prices, found: _Difference, cut: int) -> Leak:
    date, asset = prices.times[found.row], prices.assets[found.column]
    message = (
        f"{called(strategy)} is not deterministic: asked twice with the same prices, its weight of"
        f" {asset} on {stamp(date)} is {found.expected:.6g} and then {found.answered:.6g};"
        f" draw from a generator seeded inside weights()"
    )
    return Leak("not_deterministic", date, asset, cut, message)


def _failing(strategy: Strategy, prices: Prices, error: Exception, cut: int, future: str) -> Leak:
    date = prices.times[cut - 1]
    message = (
        f"{called(strategy)} fails with {error!r} when the prices after {stamp(date)}, the last of"
        f" {cut} bars, {future}; where a strategy knows too little it holds nothing"
    )
    return Leak("fails_on_short_history", date, None, cut, message)
