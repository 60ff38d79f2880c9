"""E-values of many strategies at once, and of one more bar after a long history."""

from collections.abc import Callable

import numpy as np

from bench.floors import Figure, paired
from qmtl.core.columns import Float
from qmtl.core.evidence import eprocess

STRATEGIES, OBSERVATIONS, BLOCK, DESIGN = 10_000, 504, 5, 0.2
SHORT, LONG, BARS = 100, 100_000, 200


def rows() -> str:
    return "\n".join(figure.row() for figure in (batch(), one_more()))


def batch() -> Figure:
    """All of a history in one go; the floor is its means and deviations in bare numpy."""
    shape = (STRATEGIES, OBSERVATIONS)
    r, counted = np.random.default_rng(0).normal(0.0, 0.01, shape), np.ones(shape, np.bool_)

    def e_values(_: int) -> Float:
        held = eprocess.more_blocks(eprocess.no_blocks(STRATEGIES), r, counted, BLOCK)
        return eprocess.t_mixture(held, DESIGN)

    return paired(
        f"e-values, {STRATEGIES:,} x {OBSERVATIONS}",
        lambda _: (r.mean(axis=1), r.std(axis=1, ddof=1)),
        e_values,
        "< 3",
        rounds=7,
    )


def one_more() -> Figure:
    """BARS more bars of one strategy, after LONG of them; the floor is the same after SHORT."""
    bar, seen = np.array([[0.01]]), np.ones((1, 1), np.bool_)

    def more(history: int) -> Callable[[int], None]:
        r = np.random.default_rng(0).normal(0.0, 0.01, (1, history))
        held = eprocess.more_blocks(eprocess.no_blocks(1), r, np.ones(r.shape, np.bool_), BLOCK)

        def told(_: int) -> None:
            now = held
            for _ in range(BARS):
                now = eprocess.more_blocks(now, bar, seen, BLOCK)
                eprocess.t_mixture(now, DESIGN)

        return told

    name = f"{BARS} bars of one strategy after {LONG:,}"
    return paired(name, more(SHORT), more(LONG), "1")
