"""With skill: how many get there in time, and what the best test could do."""

from bench.quality import paths
from bench.quality.nulls import HORIZONS, METHODS, THRESHOLDS
from bench.quality.report import Cell, Section, rate
from qmtl.core.columns import Float
from qmtl.sim.returns.placebo import skilled

SHARPES = (1.0, 1.5, 2.0)
MIXTURE = "t_mixture, were volatility known"


def power(count: int, seed: int) -> list[Section]:
    """P(ever E >= threshold) at each true Sharpe ratio, beside whoever knows the truth."""
    rows: list[tuple[Cell, ...]] = []
    for sharpe in SHARPES:
        r = skilled(sharpe, max(HORIZONS), count, seed)
        for days in HORIZONS:
            for name, method in METHODS.items():
                rows.append((f"{sharpe:g}", f"{days}", name, *_shares(method(r[:days]), days)))
            mixture = paths.z_mixture(r[:days])
            rows.append((f"{sharpe:g}", f"{days}", MIXTURE, *_shares(mixture, days)))
            known = paths.oracle(r[:days], sharpe)
            rows.append((f"{sharpe:g}", f"{days}", "who knows the truth", *_shares(known, days)))
    section = Section(
        title="With skill: who gets there",
        about=(
            "The share of strategies that reach an e-value in time, looked at every day. Who knows "
            "the truth bets by it (the likelihood ratio): no other e-value grows faster on average."
        ),
        head=("Sharpe", "days", "method", *(f"≥ {threshold:g}" for threshold in THRESHOLDS)),
        rows=tuple(rows),
    )
    return [section]


def _shares(grown: Float, days: int) -> list[Cell]:
    return [rate(paths.ever(grown, threshold, days)) for threshold in THRESHOLDS]
