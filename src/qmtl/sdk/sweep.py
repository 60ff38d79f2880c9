"""A sweep: every variant of a grid is tested, in processes beside each other, and all are counted.

A variant is the strategy made with one value of each parameter. The grid's order is the result's,
wherever and whenever each variant ran; one that fails is a row with its error. What was tried is
part of the evidence: the more variants, the better the best of them looks by luck alone.

Where they run is `adapters/workers.py`. What is swept lives in a module, which a worker imports;
a script calls under `if __name__ == "__main__":`.
"""

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from qmtl.adapters import workers
from qmtl.core.implications import LOWER_IS_BETTER
from qmtl.core.metrics import UNITS, Measure, Undefined, performance
from qmtl.core.words import counted
from qmtl.sdk.engine import YEAR, Engine
from qmtl.sdk.prices import Prices
from qmtl.sdk.strategy import Strategy, StrategyError, called, code_of, weights_of

if TYPE_CHECKING:
    from qmtl.sdk.result import SubmitResult

VARIANTS_MAX = (
    10_000  # The best of more is luck: of so many without skill one shows Sharpe 4 a year.
)
CHUNKS_A_WORKER = 16  # So few that sending them costs nothing, so many that workers end together.
ROWS_SHOWN = 20
METRICS = (*UNITS, "trades_total", "turnover_annual")
SHOWN = {  # Columns of the table.
    "sharpe_annual": ("sharpe", ".2f"),
    "cagr": ("a year", ".1%"),
    "max_drawdown": ("drawdown", ".1%"),
    "turnover_annual": ("turnover", ".1f"),
    "trades_total": ("trades", ",.0f"),
}

Parameters: TypeAlias = Mapping[str, Any]
Outcome: TypeAlias = tuple[dict[str, Measure], str | None]  # Metrics, or the error.


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One variant.  `metrics` are empty, and `error` says why, when it failed."""

    parameters: Parameters
    metrics: Mapping[str, Measure]
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep found.

    rows        every variant, in the grid's order
    metric      by which the best was chosen
    chosen      the best; of equals the first
    tried       variants looked at: all rows, failed ones too, and those tried before
    submission  what became of the chosen one; None when it was not submitted
    """

    rows: tuple[SweepRow, ...]
    metric: str
    chosen: SweepRow
    tried: int
    submission: "SubmitResult | None" = None

    def best_first(self) -> list[SweepRow]:
        """The rows that can be compared, the best first; of equals as in the grid."""
        return sorted(_usable(self.rows, self.metric), key=partial(_badness, metric=self.metric))

    def to_json(self) -> str:
        """All of it, as of now, as one JSON object."""
        plain = {
            "metric": self.metric,
            "tried": self.tried,
            "chosen": _row(self.chosen),
            "rows": [_row(row) for row in self.rows],
            "submission": None if self.submission is None else self.submission.plain(),
        }
        return json.dumps(plain, indent=2, allow_nan=False)

    def __str__(self) -> str:
        """The best, as a table; then what became of it."""
        ranked = self.best_first()
        before = self.tried - len(self.rows)
        tried = f"{self.tried:,} tried" + (f", {before:,} of them before" if before else "")
        lines = [f"best of {counted(len(self.rows), 'variant')} by {self.metric} ({tried})"]
        lines += _table(ranked[:ROWS_SHOWN], self.metric)
        if len(ranked) > ROWS_SHOWN:
            lines.append(f"  and {len(ranked) - ROWS_SHOWN:,} more")
        failed = [row for row in self.rows if row.error is not None]
        if failed:
            said = _said(failed[0].parameters)
            lines.append(f"  {len(failed):,} failed; the first, {said}: {failed[0].error}")
        undefined = len(self.rows) - len(ranked) - len(failed)
        if undefined:
            lines.append(f"  {undefined:,} without a {self.metric}")
        lines.append(f"chosen: {_said(self.chosen.parameters)}")
        return "\n".join(lines if self.submission is None else [*lines, "", str(self.submission)])


def explore(
    strategy: Callable[..., Strategy],
    grid: Mapping[str, Iterable[Any]],
    *,
    prices: Prices,
    engine: Engine,
    metric: str,
    executor: workers.Place | None,
    variants_before: int,
    tell: Callable[[str, int, int], None],
) -> SweepResult:
    """Test every variant; nothing is sent.

    strategy  a class, or any function, that makes the strategy of one keyword a parameter
    grid      the values of each parameter; every combination is a variant
    metric    one of METRICS: the highest is the best, the lowest where less is better
    executor  by default processes, one a core that this process may use

    Raises StrategyError for a grid without variants or with more than VARIANTS_MAX, for names that
    the strategy does not take, when no variant has the metric, and when workers cannot work.
    """
    if metric not in METRICS:
        raise StrategyError(f"{metric} is no metric here; there are {', '.join(METRICS)}")
    if variants_before < 0:
        raise StrategyError(f"variants_before counts what was tried, not {variants_before}")
    variants = _variants(grid)
    _made_of(strategy, variants[0])
    work = _Work(strategy, tuple(variants), prices, engine, _code(strategy))
    outcomes = _outcomes(work, executor, tell)
    rows = tuple(
        SweepRow(parameters=parameters, metrics=metrics, error=error)
        for parameters, (metrics, error) in zip(variants, outcomes, strict=True)
    )
    usable = _usable(rows, metric)
    if not usable:
        first = rows[0].error or f"{metric} is undefined ({rows[0].metrics[metric]})"
        raise StrategyError(
            f"of {counted(len(rows), 'variant')} none has a {metric}; the first,"
            f" {_said(rows[0].parameters)}: {first}"
        )
    return SweepResult(
        rows=rows,
        metric=metric,
        chosen=min(usable, key=partial(_badness, metric=metric)),
        tried=len(rows) + variants_before,
    )


# ---- Variants --------------------------------------------------------------------------------


def _variants(grid: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last parameter fastest."""
    values = {name: _values(name, given) for name, given in grid.items()}
    count = math.prod(map(len, values.values())) if values else 0
    if not 1 <= count <= VARIANTS_MAX:
        said = " x ".join(f"{len(each):,} of {name}" for name, each in values.items())
        raise StrategyError(
            f"a grid has 1 to {VARIANTS_MAX:,} variants, not {count:,} ({said or 'no parameters'})"
        )
    return [dict(zip(values, each, strict=True)) for each in product(*values.values())]


def _values(name: str, given: Iterable[Any]) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise StrategyError(f"{name} takes a list of values, not {given!r}")
    # A number of numpy's is a plain one: the same parameter, the same fingerprint, the same JSON.
    values = list(islice(given, VARIANTS_MAX + 1))
    if len(values) > VARIANTS_MAX:
        raise StrategyError(f"{name} has more values than the {VARIANTS_MAX:,} variants of a grid")
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _made_of(strategy: Callable[..., Strategy], parameters: Parameters) -> None:
    try:
        inspect.signature(strategy).bind(**parameters)
    except TypeError as error:
        name = getattr(strategy, "__name__", type(strategy).__name__)
        raise StrategyError(f"{name} cannot be made of {', '.join(parameters)}: {error}") from error
    except ValueError:
        return  # Made in C, it does not say what it takes.


def _usable(rows: Sequence[SweepRow], metric: str) -> list[SweepRow]:
    return [row for row in rows if not math.isnan(_badness(row, metric))]


def _badness(row: SweepRow, metric: str) -> float:
    """The less the better; NaN when it cannot be told, which never wins."""
    value = row.metrics.get(metric, math.nan)
    if isinstance(value, Undefined):
        return math.nan
    return value if metric in LOWER_IS_BETTER else -value


# ---- Work ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Work:
    strategy: Callable[..., Strategy]
    variants: tuple[Parameters, ...]
    prices: Prices
    engine: Engine
    code: str | None  # Of the strategy; None where it goes along, or cannot be told.


def _code(strategy: Callable[..., Strategy]) -> str | None:
    if getattr(strategy, "__module__", None) == "__main__":
        return None
    try:
        return code_of(strategy)
    except StrategyError:
        return None  # It is said of the variant that is submitted.


def _tried(work: _Work, number: int) -> Outcome:
    try:
        strategy = work.strategy(**work.variants[number])
        found = work.engine.backtest(weights_of(strategy, work.prices), work.prices)
    except Exception as error:  # Somebody else's code may raise anything; it is reported.
        return {}, f"{type(error).__name__}: {error}"
    years = float((work.prices.times[-1] - work.prices.times[0]) / YEAR)
    metrics = performance(found.returns, (work.prices.bars - 1) / years)
    stats = {"trades_total": float(found.trades_total), "turnover_annual": found.turnover_annual}
    return {**metrics, **stats}, None


def _chunk(work: _Work, bounds: tuple[int, int]) -> list[Outcome]:
    if work.code is not None and _code(work.strategy) != work.code:
        raise StrategyError(
            f"a worker has other code of {called(work.strategy)}: its answers would be another"
            " strategy's; install the same there, start the workers again, and ask again"
        )
    return [_tried(work, number) for number in range(*bounds)]


def _outcomes(
    work: _Work, executor: workers.Place | None, tell: Callable[[str, int, int], None]
) -> list[Outcome]:
    """In the order of the variants, wherever each ran."""
    total, cores = len(work.variants), workers.cores()
    size = max(1, total // (cores * CHUNKS_A_WORKER))
    bounds = [(start, min(start + size, total)) for start in range(0, total, size)]
    done = 0

    def finished(number: int) -> None:
        nonlocal done
        start, stop = bounds[number]
        done += stop - start
        tell("sweep", done, total)

    tell("sweep", 0, total)
    place = executor or workers.Processes(cores)
    try:
        found = workers.computed(partial(_chunk, work), bounds, place, finished=finished)
    except workers.WorkersError as error:
        raise StrategyError(str(error)) from error
    return [outcome for chunk in found for outcome in chunk]


# ---- For people and programs -----------------------------------------------------------------


def _said(parameters: Parameters) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in parameters.items())


def _table(rows: Sequence[SweepRow], metric: str) -> list[str]:
    """Lines of aligned columns: parameters, the metric, and what everybody asks."""
    shown = SHOWN if metric in SHOWN else {metric: (metric, ".4g"), **SHOWN}
    table = [[*rows[0].parameters, *(heading for heading, _ in shown.values())]]
    for row in rows:
        cells = [_cell(row.metrics[name], form) for name, (_, form) in shown.items()]
        table.append([*map(str, row.parameters.values()), *cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in table
    ]


def _cell(value: Measure, form: str) -> str:
    return "-" if isinstance(value, Undefined) else format(value, form)


def _row(row: SweepRow) -> dict[str, Any]:
    from qmtl.sdk.result import measures

    return {
        "parameters": {name: _plain(value) for name, value in row.parameters.items()},
        **measures(row.metrics),
        "error": row.error,
    }


def _plain(value: Any) -> Any:
    """A parameter in values that JSON has; what has none is told as Python writes it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return repr(value)
