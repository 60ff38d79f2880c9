"""Figures with their uncertainty, in sections: on a terminal, as Markdown, or as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist

import numpy as np
from rich.console import Console
from rich.table import Table

from qmtl.core.columns import Bool, Float

LEVEL = 0.95  # Of the intervals that are printed.
ERRORS_ALLOWED = 3.0  # Standard errors above a promise: one kept promise in 740 looks broken.


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of how many, and between which shares it lies (Wilson 1927)."""

    hits: int
    of: int
    promise: float | None = None  # At most this, if anything was promised.

    @property
    def value(self) -> float:
        return self.hits / self.of

    @property
    def interval(self) -> tuple[float, float]:
        z = NormalDist().inv_cdf((1 + LEVEL) / 2)
        p, n = self.value, self.of
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        reach = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - reach), min(1.0, middle + reach)

    @property
    def broken(self) -> bool:
        """More than was promised, beyond what chance explains."""
        if self.promise is None:
            return False
        error = sqrt(self.promise * (1 - self.promise) / self.of)
        return not self.value <= self.promise + ERRORS_ALLOWED * error

    def __str__(self) -> str:
        return percents(self.value, *self.interval)


@dataclass(frozen=True, slots=True)
class Average:
    """A mean, and between which values it lies; normal, which for many paths it is."""

    value: float
    error: float
    promise: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * self.error
        return self.value - reach, self.value + reach

    @property
    def broken(self) -> bool:
        """More than was promised, beyond what chance explains."""
        if self.promise is None:
            return False
        return not self.value <= self.promise + ERRORS_ALLOWED * self.error

    def __str__(self) -> str:
        return percents(self.value, *self.interval)


@dataclass(frozen=True, slots=True)
class Median:
    """The middle value, and between which it lies (order statistics; binomial, exact in the limit).

    Infinite when half of them never happen."""

    value: float
    interval: tuple[float, float]
    broken: bool = False  # Nothing is promised of it.

    def __str__(self) -> str:
        low, high = self.interval
        return "never" if np.isinf(self.value) else f"{self.value:.0f} ({low:.0f}–{high:.0f})"


Cell = str | Rate | Average | Median


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table: what it shows, and each figure."""

    title: str
    about: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def broken(self) -> list[str]:
        """Each promise that was not kept, in words."""
        return [
            f"{self.title}: {', '.join(c for c in row if isinstance(c, str))}: {name} is {cell}, "
            f"and {cell.promise:.2%} was promised"
            for row in self.rows
            for name, cell in zip(self.head, row, strict=True)
            if isinstance(cell, Rate | Average) and cell.broken
        ]


def percents(value: float, low: float, high: float) -> str:
    """The value, and how far the interval reaches on its longer side, in points."""
    return f"{value:.2%} ±{100 * max(high - value, value - low):.2f}"


def rate(happened: Bool, promise: float | None = None) -> Rate:
    """Of an array with one truth a path."""
    return Rate(int(np.count_nonzero(happened)), happened.size, promise)


def average(values: Float, promise: float | None = None) -> Average:
    """Of an array with one value a path."""
    error = float(values.std(ddof=1)) / sqrt(values.size)
    return Average(float(values.mean()), error, promise)


def median(values: Float) -> Median:
    """Of an array with one value a path; infinity is later than everything."""
    ordered, n = np.sort(values), values.size
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * sqrt(n) / 2
    low, high = max(0, int(n / 2 - reach)), min(n - 1, int(n / 2 + reach) + 1)
    return Median(float(ordered[n // 2]), (float(ordered[low]), float(ordered[high])))


# ---- To be read --------------------------------------------------------------------------------


def markdown(section: Section) -> str:
    """As it stands in a document."""
    lines = [f"## {section.title}", "", section.about, ""]
    lines += [_row(section.head), _row(["---"] * len(section.head))]
    lines += [_row([marked(cell) for cell in row]) for row in section.rows]
    lines += ["", *section.notes] if section.notes else []
    return "\n".join([*lines, ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def marked(cell: Cell) -> str:
    broken = not isinstance(cell, str) and cell.broken
    return f"**{cell}: broken**" if broken else str(cell)


def show(section: Section, console: Console) -> None:
    """On a terminal; what breaks a promise is red."""
    table = Table(title=section.title, caption="\n".join(section.notes) or None)
    for number, name in enumerate(section.head):
        text = isinstance(section.rows[0][number], str)
        table.add_column(name, justify="left" if text else "right")
    for row in section.rows:
        styled = (
            f"[bold red]{cell}[/]" if not isinstance(cell, str) and cell.broken else str(cell)
            for cell in row
        )
        table.add_row(*styled)
    console.print(section.about)
    console.print(table)


def document(sections: Sequence[Section]) -> dict[str, object]:
    """As JSON would have it."""
    return {
        "sections": [
            {
                "title": section.title,
                "about": section.about,
                "rows": [
                    {name: _json(cell) for name, cell in zip(section.head, row, strict=True)}
                    for row in section.rows
                ],
            }
            for section in sections
        ],
        "broken": [each for section in sections for each in section.broken()],
    }


def _json(cell: Cell) -> object:
    if isinstance(cell, str):
        return cell
    low, high = cell.interval
    told: dict[str, object] = {"value": _finite(cell.value), "low": _finite(low)}
    told["high"] = _finite(high)
    if isinstance(cell, Rate):
        told["of"] = cell.of
    if not isinstance(cell, Median) and cell.promise is not None:
        told |= {"promise": cell.promise, "broken": cell.broken}
    return told


def _finite(value: float) -> float | None:
    """JSON knows no infinity; what never happens has no number."""
    return value if np.isfinite(value) else None
