"""Without skill: how often the evidence says otherwise, however often one looks."""

from collections.abc import Callable, Mapping

import numpy as np

from bench.quality import naive, paths
from bench.quality.report import Cell, Section, average, rate
from qmtl.core.columns import Float
from qmtl.core.evidence import crowd
from qmtl.core.policy import STANDARD_RAMP
from qmtl.core.words import listed
from qmtl.sim.returns.placebo import CRASH, PROMISED, Null, null

HORIZONS = (252, 504)  # Days: a year, and two.
LOOKS = (1, 5, 21)  # Days between ticks: every day, week and month.
STEPS = tuple((step.fraction, step.e_value) for step in STANDARD_RAMP)
THRESHOLDS = tuple(e_value for _, e_value in STEPS if e_value is not None)

Method = Callable[[Float], Float]


def above_crash(r: Float) -> Float:
    """`bounded` with a floor that the crash of short volatility stays above."""
    return paths.bounded(r, floor=0.2)


METHODS: Mapping[str, Method] = {
    "t_mixture": paths.t_mixture,
    f"bounded, loss floor {paths.LOSS_FLOOR:.0%}": paths.bounded,
    "bounded, loss floor 20%": above_crash,
    "group_sequential": paths.group_sequential,
}


def promised(kind: Null, method: Method) -> bool:
    """Whether an error rate is named for it.

    `bounded` needs no more than a mean that is not positive whatever came before, and a floor that
    holds.  `group_sequential` is exact, so it has no room for dependence; e-values have.
    """
    if method is paths.group_sequential:
        return kind in (Null.NORMAL, Null.STUDENT)
    return kind in PROMISED or (kind is Null.SHORT_VOLATILITY and method is above_crash)


def crossings(count: int, seed: int, methods: Mapping[str, Method] = METHODS) -> list[Section]:
    """P(ever E >= threshold) for every null, at every tick interval; the promise beside it."""
    return [_crossings(name, method, count, seed) for name, method in methods.items()]


def _crossings(name: str, method: Method, count: int, seed: int) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for kind in Null:
        r = null(kind, max(HORIZONS), count, seed)
        for days in HORIZONS:
            grown = method(r[:days])
            cells = (
                rate(
                    paths.ever(grown, threshold, days, every),
                    1 / threshold if promised(kind, method) else None,
                )
                for threshold in THRESHOLDS
                for every in LOOKS
            )
            rows.append((kind, f"{days}", *cells))
    asked = " / ".join(f"{threshold:g}" for threshold in THRESHOLDS)
    most = " / ".join(f"{1 / threshold:.1%}" for threshold in THRESHOLDS)
    reported = [kind for kind in Null if not promised(kind, method)]
    return Section(
        title=f"Without skill: who ever gets there ({name})",
        about=(
            f"The share of strategies that ever reach an e-value of {asked}. Promised: at most "
            f"{most}. Nothing is promised for {listed(reported)}."
        ),
        head=(
            "strategy",
            "days",
            *(f"≥ {threshold:g}, {LOOK[every]}" for threshold in THRESHOLDS for every in LOOKS),
        ),
        rows=tuple(rows),
    )


LOOK = {1: "daily", 5: "weekly", 21: "monthly"}


def capital(count: int, seed: int, methods: Mapping[str, Method] = METHODS) -> list[Section]:
    """The fraction of its allocation that a strategy without skill reaches, on average."""
    bound = crowd.ramp_bound(STEPS)
    rows: list[tuple[Cell, ...]] = []
    for kind in Null:
        r = null(kind, max(HORIZONS), count, seed)
        cells = (
            average(
                reached(method(r[:days]))[-1],
                bound if promised(kind, method) else None,
            )
            for method in methods.values()
            for days in HORIZONS
        )
        rows.append((kind, *cells))
    section = Section(
        title="Without skill: how much capital",
        about=(
            "The fraction of its allocation that a strategy without skill reaches on the standard "
            "ramp, on average over all of them, nobody ever taken down again. Promised: at most "
            f"{bound:.1%}, in the rows that the tables above promise something for."
        ),
        head=("strategy", *(f"{name}, {days} days" for name in methods for days in HORIZONS)),
        rows=tuple(rows),
    )
    return [section]


def reached(evidence: Float) -> Float:
    """The highest fraction of the standard ramp so far, by day."""
    best = np.maximum.accumulate(evidence, axis=0)
    fractions = np.array([0.0, *(fraction for fraction, _ in STEPS)])
    return fractions[np.searchsorted(THRESHOLDS, best, side="right")]


def looking(count: int, seed: int) -> list[Section]:
    """What is commonly done, on the same strategies."""
    rows: list[tuple[Cell, ...]] = []
    for kind in Null:
        r = null(kind, max(HORIZONS), count, seed)
        for days in HORIZONS:
            cells = [naive.ever_above(r, threshold, days) for threshold in (1.0, 1.5)]
            rows.append((kind, f"{days}", *cells, naive.ever_probable(r, 0.95, days)))
    section = Section(
        title="Without skill: what is commonly done",
        about=(
            "The same strategies, under rules that look at them every day from day "
            f"{naive.WARM_UP} on and keep what looks good. Five per cent is what people mean by "
            "the last one."
        ),
        head=("strategy", "days", "Sharpe ≥ 1", "Sharpe ≥ 1.5", "PSR ≥ 0.95"),
        rows=tuple(rows),
    )
    return [section]


assert CRASH < 0.2, "above_crash names a floor that the crash stays above"
