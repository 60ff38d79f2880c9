"""Live that ceases to be what paper was: how soon it is seen, and how often nothing was wrong."""

from math import sqrt

import numpy as np

from bench.quality.report import Cell, Section, median, rate
from qmtl.core.columns import Float
from qmtl.core.evidence import drift
from qmtl.core.policy import Evidence
from qmtl.sim.returns.placebo import DAYS_PER_YEAR, mean_of, skilled

PAPER, LIVE = 252, 756  # Days: a year on paper, and three live.
BEFORE, AFTER = 2.0, -1.0
ROLLING, DRAWDOWN = 126, 0.15  # Days; the standard policy's breaker.


def decays(count: int, seed: int) -> list[Section]:
    """The detector, a rolling Sharpe ratio below zero, and the drawdown breaker."""
    paper = skilled(BEFORE, PAPER, count, seed)
    healthy = skilled(BEFORE, LIVE, count, seed + 1)
    decayed = healthy + mean_of(AFTER - BEFORE)
    rows: list[tuple[Cell, ...]] = []
    alarm = Evidence().decay_mean_false_alarm
    assert alarm is not None
    for name, found in (
        (f"decay detector, {alarm} days between false alarms", lambda r: detector(paper, r, alarm)),
        (f"Sharpe ratio of {ROLLING} days below 0", rolling),
        (f"drawdown above {DRAWDOWN:.0%}", drawdown),
    ):
        late, false = found(decayed), found(healthy)
        year = DAYS_PER_YEAR
        rows.append(
            (name, median(late), rate(late <= year), rate(false <= year), rate(false <= LIVE))
        )
    section = Section(
        title="Live that decays",
        about=(
            f"A year of paper at Sharpe {BEFORE:g}, then three years live: at {AFTER:g} from the "
            f"first day on, or at {BEFORE:g} as before. The detector is the standard policy's."
        ),
        head=(
            "rule",
            "median days to the alarm",
            "found within a year",
            "false alarm within a year",
            "within three",
        ),
        rows=tuple(rows),
    )
    return [section]


def detector(paper: Float, live: Float, alarm: float) -> Float:
    """The day of the alarm of each path, infinite when there is none."""
    told = [drift.healthy(r) for r in paper.T]
    assert all(told), "a year of noise says what is healthy"
    cap = np.array([each.cap for each in told if each is not None])
    mean = np.array([each.mean for each in told if each is not None])
    held = np.zeros((live.shape[1], len(drift.RATES)))
    first = np.full(live.shape[1], np.inf)
    for day, r in enumerate(live, start=1):
        held = drift.more_decay(held, r, cap, mean)
        first = np.where(np.isinf(first) & (drift.decay(held) >= alarm), day, first)
    return first


def rolling(live: Float) -> Float:
    """The first day on which the last ROLLING returns have a negative mean."""
    total = np.cumsum(live, axis=0)
    window = total[ROLLING:] - total[:-ROLLING]
    return _first(window / ROLLING * sqrt(DAYS_PER_YEAR) < 0.0, ROLLING + 1)


def drawdown(live: Float) -> Float:
    """The first day below the highest equity by more than DRAWDOWN."""
    equity = np.cumprod(1 + live, axis=0)
    peak = np.maximum(np.maximum.accumulate(equity, axis=0), 1.0)
    return _first(1 - equity / peak > DRAWDOWN, 1)


def _first(alarms: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]", start: int) -> Float:
    day = alarms.argmax(axis=0) + float(start)
    return np.where(alarms.any(axis=0), day, np.inf)
