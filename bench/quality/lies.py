"""Backtests that lie, of strategies that earn nothing on paper: what selection and paper make of
them together."""

import numpy as np

from bench.quality import paths
from bench.quality.report import Cell, Section, rate
from qmtl.core.columns import Bool, Float
from qmtl.core.evidence import sharpe
from qmtl.core.policy import Evidence
from qmtl.sim.returns.placebo import Null, best_of, leaky, null

BACKTEST, PAPER = 504, 504  # Days; the backtest's are what the standard policy asks for.
VARIANTS = 100
STANDARD = Evidence()
ALPHA = STANDARD.alpha
CAPS = (1.0, sharpe.CREDIT_MAX)  # No credit, as in the standard policy; and the most there is.
BEST_MOST = 0.01  # Of the best of many without skill, how many may get to the top.


def lies(count: int, seed: int) -> list[Section]:
    """Leaky backtests, and the best of a hundred, declared or not; then paper without skill."""
    best, leaked = best_of(VARIANTS, BACKTEST, count, seed), leaky(BACKTEST, count, seed)
    evidence = paths.t_mixture(null(Null.NORMAL, PAPER, count, seed)).max(axis=0)
    unsaid = STANDARD.trials_default
    cases = (
        ("leaky backtest", leaked, unsaid, ALPHA),
        (f"best of {VARIANTS}, declared", best, VARIANTS, BEST_MOST),
        (f"best of {VARIANTS}, {unsaid} assumed", best, unsaid, ALPHA),
    )
    rows = [(name, *_ends(r, trials, evidence, most)) for name, r, trials, most in cases]
    section = Section(
        title="Backtests that lie, and no skill on paper",
        about=(
            f"Two years of backtest and {PAPER} days of paper under the standard policy. Promised: "
            f"at most {ALPHA:.0%} of leaky backtests and {BEST_MOST:.0%} of the best of {VARIANTS} "
            "that were all declared ever reach the last step, where backtests get no credit, as in "
            "the standard policy. Nothing is promised of credit: a leak is credited, too."
        ),
        head=(
            "strategy",
            "passes selection",
            "ever at the last step, no credit",
            f"with a credit of up to {CAPS[-1]:g}",
            "were credit not capped (nobody can ask for it)",
        ),
        rows=tuple(rows),
    )
    return [section]


def _ends(backtest: Float, trials: int, evidence: Float, most: float) -> tuple[Cell, ...]:
    assert STANDARD.selection_max_p is not None
    p = np.array([sharpe.selection_p(r, trials) for r in backtest.T])
    selected = p <= STANDARD.selection_max_p
    capped = (
        rate(at_the_top(p, evidence, cap) & selected, most if cap == CAPS[0] else None)
        for cap in CAPS
    )
    uncapped = evidence / np.sqrt(np.maximum(p, 1e-300)) / 2 >= 1 / ALPHA
    return rate(selected), *capped, rate(uncapped & selected)


def at_the_top(p: Float, evidence: Float, cap: float) -> Bool:
    """Whose best e-value, with the credit of its backtest, is what one strategy alone needs."""
    credit = np.array([sharpe.credit(float(each), cap) for each in p])
    found: Bool = credit * evidence >= 1 / ALPHA
    return found
