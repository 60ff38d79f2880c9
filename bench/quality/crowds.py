"""Many strategies in one world: how many of those at the top of the ramp are there by luck."""

from collections.abc import Callable

import numpy as np

from bench.quality import paths
from bench.quality.report import Cell, Section, average, rate
from qmtl.core.columns import Bool, Float
from qmtl.core.evidence import crowd
from qmtl.core.policy import Evidence
from qmtl.sim.returns.placebo import families, mean_of

ALPHA = Evidence().alpha
DAYS, SIZE, FAMILY = 504, 50, 10
SKILLED = 10  # Of those in a world where some have skill.
SHARPE = 2.0
EVERY = 5  # Days between looks: an e-value moves no more often.
CORRELATIONS = (0.0, 0.5)


def crowds(count: int, seed: int) -> list[Section]:
    """`count` strategies in worlds of SIZE, under each rule: false among those promoted."""
    rows: list[tuple[Cell, ...]] = []
    for correlation in CORRELATIONS:
        for skilled in (0, SKILLED):
            evidence = _worlds(correlation, skilled, max(1, count // SIZE), seed)
            for name, rule in RULES.items():
                rows.append(
                    (name, f"{correlation:g}", f"{skilled}", *_ends(evidence, skilled, rule))
                )
    section = Section(
        title="Many at once",
        about=(
            f"Worlds of {SIZE} strategies over {DAYS} days, in families of {FAMILY} that correlate "
            f"as said; some of Sharpe {SHARPE:g}, all others without skill. Promised of e_bh: of "
            f"those at the top of the ramp, at most {ALPHA:.0%} are expected to be there by luck. "
            "Of spending: in at most that share of worlds is any."
        ),
        head=(
            "multiplicity",
            "correlation",
            "with skill",
            "share by luck, of those at the top",
            "worlds with any by luck",
            "of those with skill at the top",
        ),
        rows=tuple(rows),
        notes=(
            "The last two rules are not on offer: they are what goes wrong without the first two.",
        ),
    )
    return [section]


def _worlds(correlation: float, skilled: int, count: int, seed: int) -> Float:
    """E-values by look, shape (looks, worlds, SIZE); those with skill come first in their world,
    one of each family after the other."""
    r = families(correlation, FAMILY, DAYS, count * SIZE // FAMILY, seed)
    r = r.reshape(DAYS, count, SIZE // FAMILY, FAMILY).swapaxes(2, 3).reshape(DAYS, count, SIZE)
    r[:, :, :skilled] += mean_of(SHARPE)
    grown = paths.t_mixture(r.reshape(DAYS, count * SIZE))
    return grown[EVERY - 1 :: EVERY].reshape(-1, count, SIZE)


def _ends(evidence: Float, skilled: int, rule: "Rule") -> tuple[Cell, ...]:
    there = rule(evidence)
    lucky = there[:, skilled:].sum(axis=1)
    share = lucky / np.maximum(1, there.sum(axis=1))
    of_e_bh, of_spending = rule is e_bh, rule is spending
    power: Cell = average(there[:, :skilled].mean(axis=1)) if skilled else "–"
    return (
        average(share, ALPHA if of_e_bh or of_spending else None),
        rate(lucky > 0, ALPHA if of_spending else None),
        power,
    )


# ---- The rules: who gets to the top within the time, shape (worlds, SIZE) ----------------------


def e_bh(evidence: Float) -> Bool:
    """At each look, whoever reaches what is asked of it beside those that are there; they stay."""
    _, worlds, size = evidence.shape
    there = np.zeros((worlds, size), dtype=np.bool_)
    for now in evidence:
        for world in np.flatnonzero(now.max(axis=1) >= 1 / ALPHA):  # Below it nobody is let in.
            while True:
                standing = now[world, there[world]]
                asked = crowd.e_bh_threshold(size, ALPHA, standing)
                waiting = np.where(there[world], 0.0, now[world])
                if not waiting.max() >= asked:
                    break
                there[world, waiting.argmax()] = True
    return there


def spending(evidence: Float) -> Bool:
    """Each has its own share of alpha, in the order of entry: those with skill came first."""
    size = evidence.shape[2]
    shares = np.array([crowd.spending_share(entry) for entry in range(1, size + 1)])
    found: Bool = (evidence >= 1 / (ALPHA * shares)).any(axis=0)
    return found


def per_strategy(evidence: Float) -> Bool:
    """Each as if it were alone."""
    found: Bool = (evidence >= 1 / ALPHA).any(axis=0)
    return found


def e_bh_of_the_best(evidence: Float) -> Bool:
    """e_bh of the highest that each ever showed."""
    return e_bh(np.maximum.accumulate(evidence, axis=0))


Rule = Callable[[Float], Bool]
RULES: dict[str, Rule] = {
    "e_bh": e_bh,
    "spending": spending,
    "per_strategy": per_strategy,
    "e_bh of running maxima": e_bh_of_the_best,
}
