"""Pictures of evidence: SVG and PNG, for who would rather look than read.

They need Matplotlib (the extra `plot`), which is imported where something is drawn.  The same
numbers are the same SVG, byte for byte.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qmtl.core.errors import Invalid
from qmtl.core.names import Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from qmtl.app.growth import Growth
    from qmtl.core.course import Course
    from qmtl.core.implications import Implication
    from qmtl.sim.again import Move, Story
    from qmtl.sim.trial import Row

SUFFIXES: Final = (".svg", ".png")
BELOW: Final = "outside lower center"  # Where a legend covers nothing.
STYLE: Final = "tableau-colorblind10"
WIDTH: Final = 9.0  # Inches.
ROW: Final = 0.35  # Inches, of a line of labels.
E_VALUE_LEAST: Final = 1e-3  # Below it nobody looks: the scale is for what counts.
SETTINGS: Final[Any] = {  # Text stays text, and the same numbers are the same file.
    "svg.hashsalt": "qmtl",
    "svg.fonttype": "none",
    "text.parse_math": False,
}


def checked(path: Path) -> Path:
    """The same, before anything is computed for it.  Raises Invalid saying what to do."""
    if path.suffix.lower() not in SUFFIXES:
        raise Invalid(f"{path}: a picture is a file that ends in {' or '.join(SUFFIXES)}.")
    if not path.absolute().parent.is_dir():
        raise Invalid(f"{path}: there is no folder {path.parent}.")
    _writable(path)
    try:
        import matplotlib.figure  # noqa: F401  # Whether it loads, before a long computation.
    except ModuleNotFoundError as error:
        raise Invalid("drawing takes Matplotlib: pip install 'qmtl[plot]'") from error
    except ImportError as error:
        again = "pip install --force-reinstall 'qmtl[plot]'"
        raise Invalid(f"Matplotlib is installed, but does not load ({error}): {again}") from error
    return path


def _writable(path: Path) -> None:
    """Whether it can be: by trying, since rights alone do not tell.  It is left as it was."""
    there = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise _unwritten(path, error) from error
    if not there:
        path.unlink()


def _unwritten(path: Path, error: OSError) -> Invalid:
    return Invalid(f"{path}: the picture cannot be written: {error.strerror or error}.")


@contextmanager
def _figure(path: Path, title: str, height: float, **grid: Any) -> Iterator[Any]:
    """Its axes, which are written to `path` at the end."""
    from matplotlib import rc_context, style
    from matplotlib.figure import Figure

    with style.context(STYLE), rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.suptitle(title)
        yield figure.subplots(**grid)
        # A date in the file would make it another one each time.
        dated = {"Date": None} if path.suffix.lower() == ".svg" else None
        try:
            figure.savefig(path, metadata=dated)
        except OSError as error:
            raise _unwritten(path, error) from error


def strategy(path: Path, name: str, taken: "Course", earned: "Growth") -> None:
    """Its e-value against what the next step asks for, its weight, and its drawdown with what
    demotes it.  Times are UTC."""
    with _figure(path, name, 7.5, nrows=3, sharex=True, height_ratios=(3, 1, 2)) as axes:
        evidence, weight, drawdown = axes
        _evidence(evidence, taken)
        at = _instants(taken.at)
        weight.step(at, 100 * taken.weight, where="post")
        weight.fill_between(at, 100 * taken.weight, step="post", alpha=0.2)
        weight.set(ylabel="weight, %")
        weight.set_ylim(bottom=0)
        _drawdown(drawdown, taken, earned)
        drawdown.set_xlabel("recorded at (UTC); drawdown: of the bar")
        drawdown.figure.autofmt_xdate()


def _evidence(axes: "Axes", taken: "Course") -> None:
    at = _instants(taken.at)
    axes.step(at, np.maximum(taken.e_value, E_VALUE_LEAST), where="post", label="e-value")
    if not np.isnan(taken.threshold).all():
        asked = "asked for by the next step"
        axes.step(at, taken.threshold, "--", where="post", label=asked)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set(yscale="log", ylabel="e-value")
    _plain(axes.yaxis)
    if np.isnan(taken.e_value).all():
        axes.text(0.5, 0.5, "too little to say", transform=axes.transAxes, ha="center")
    axes.legend(loc="upper left")


def _plain(axis: "Axis") -> None:
    """Numbers of a logarithmic axis as people write them, between its powers of ten, too."""

    def between(x: float, _position: float) -> str:
        low, high = axis.get_view_interval()
        shown = "25" if high > 10 * low else "123456789"  # Where it is wide, not all of them.
        return f"{x:g}" if f"{x:e}"[0] in shown else ""

    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(between)
    axis.set_tick_params(which="minor", pad=5)  # In line with the others, whose ticks are longer.


def _drawdown(axes: "Axes", taken: "Course", earned: "Growth") -> None:
    from qmtl.app.growth import STAGES

    at = _instants(earned.t)
    for stage in (Stage.PAPER, Stage.LIVE):
        mine = earned.stage == STAGES.index(stage)
        if mine.any():
            down = np.where(mine, 100 * earned.drawdown, np.nan)  # Where it is elsewhere: a gap.
            axes.plot(at, down, label=str(stage))
    if taken.breaker is not None:
        label = "demotes from live"
        axes.axhline(-100 * taken.breaker, color="C3", linestyle=":", label=label)
    axes.set(ylabel="drawdown, %")
    if axes.lines:
        axes.legend(loc="lower left")


def implied(path: Path, name: str, found: Sequence["Implication"]) -> None:
    """How long it takes until half show each e-value, at each true Sharpe ratio assumed."""
    from qmtl.core.implications import SHARPES_ASSUMED

    gates = [row for row in found if row.years][::-1]
    if not gates:
        raise Invalid(f"{name} asks for no e-value: there is nothing to draw.")
    title = f"When half of the strategies of a true Sharpe ratio are there: {name}"
    with _figure(path, title, 1.5 + 2 * ROW * len(gates)) as axes:
        y = np.arange(len(gates))
        for n, sharpe in enumerate(SHARPES_ASSUMED):
            years = [np.nan if row.years[n] is None else row.years[n] for row in gates]
            axes.plot(years, y, "osD"[n], label=f"Sharpe {sharpe:g}", alpha=0.8)
        for at, row in enumerate(gates):
            never = [f"{s:g}" for s, y in zip(SHARPES_ASSUMED, row.years, strict=True) if y is None]
            if never:
                said = f"never at Sharpe {', '.join(never)}"
                axes.text(1.01, at, said, transform=axes.get_yaxis_transform(), va="center")
        axes.set(xscale="log", xlabel="years", yticks=y, yticklabels=_labels(gates))
        _plain(axes.xaxis)
        axes.grid(axis="x", which="both", alpha=0.3)
        axes.figure.legend(loc=BELOW, ncols=len(SHARPES_ASSUMED))


def _labels(gates: Sequence["Implication"]) -> list[str]:
    """The part of the policy; where it has several rows, with the case that each is about."""
    paths = [row.path for row in gates]
    return [
        path if paths.count(path) == 1 else f"{path}:\n{row.says.partition(' and ')[0]}"
        for path, row in zip(paths, gates, strict=True)
    ]


def tried(path: Path, name: str, rows: Sequence["Row"]) -> None:
    """Who was ever live, with 95 % intervals, beside what a Sharpe threshold would have done."""
    rows = rows[::-1]
    y = np.arange(len(rows))
    live = np.array([row.live / row.count for row in rows])
    ends = np.array([row.live_95 for row in rows])
    naive = [100 * row.naive / row.count for row in rows]
    title = f"Strategies whose truth is known, under {name}"
    with _figure(path, title, 1.5 + ROW * len(rows)) as axes:
        reach = 100 * np.abs(ends.T - live)
        label = "ever live under this policy, 95 %"
        axes.errorbar(100 * live, y, xerr=reach, fmt="o", capsize=3, label=label)
        axes.plot(naive, y, "x", label="Sharpe >= 1, looked at daily")
        labels = [f"{row.truth} ({row.count})" for row in rows]
        axes.set(xlabel="% of strategies", yticks=y, yticklabels=labels, xlim=(-3, 103))
        axes.grid(axis="x", alpha=0.3)
        axes.figure.legend(loc=BELOW, ncols=2)


def against(path: Path, name: str, stories: Sequence["Story"], until: datetime) -> None:
    """A world's history: how many were live at a time, under a policy and in fact."""
    with _figure(path, f"The history of {name}", 4.5) as axes:
        for label, style, told in (
            ("under this policy", "-", [story.trial for story in stories]),
            ("in fact", "--", [story.fact for story in stories]),
        ):
            at, count = _live(told, until)
            axes.step(at, count, style, where="post", label=label)
        axes.set(ylabel="strategies live", xlabel="UTC")
        axes.set_ylim(bottom=0)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.figure.autofmt_xdate()
        axes.figure.legend(loc=BELOW, ncols=2)


def _live(told: Sequence[Sequence["Move"]], until: datetime) -> tuple[list[datetime], list[int]]:
    """How many are live from an instant on."""
    changes: dict[datetime, int] = {until: 0}
    for moves in told:
        was = False
        for move in moves:
            now = move.what.startswith("live")
            changes[move.at] = changes.get(move.at, 0) + now - was
            was = now
    at = sorted(changes)
    return at, np.cumsum([changes[each] for each in at]).tolist()


def _instants(seconds: Any) -> Any:
    return np.array([datetime.fromtimestamp(float(each), UTC) for each in seconds])
