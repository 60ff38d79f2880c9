"""The dense part of a view: one row a strategy, one array a column.

A column handed out never changes.  `put` copies the columns it touches, and only those, so that a
fact costs what it changes and every older view stays what it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .evidence.drift import RATES
from .evidence.eprocess import BETS
from .names import Phase, Verdict
from .times import NEVER

CAPACITY_MIN = 8
DIGEST_HEX = 32  # 128 bits name a series; the journal keeps the points themselves.

PHASES = tuple(Phase)
VERDICTS: tuple[Verdict | None, ...] = (None, *Verdict)

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Names = NDArray[np.bytes_]
Rows = NDArray[np.intp] | int


def column(dtype: str, blank: object) -> Mapping[str, object]:
    """What a column is made of: its dtype, and what a row holds before anything happened."""
    return {"dtype": dtype, "blank": blank}


@dataclass(frozen=True, kw_only=True)  # No slots: `vars` is the table by column name.
class Columns:
    """Arrays of equal length.  Rows beyond the view's count hold the blank of their column."""

    @classmethod
    def blank(cls, capacity: int = 0) -> Self:
        """`capacity` rows in which nothing has happened."""
        return cls.of(
            {
                c.name: np.full(capacity, c.metadata["blank"], dtype=c.metadata["dtype"])
                for c in fields(cls)
            }
        )

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """These arrays, read-only from here on."""
        for array in arrays.values():
            array.flags.writeable = False
        return cls(**arrays)

    def arrays(self) -> Mapping[str, NDArray[np.generic]]:
        """Every column by its name."""
        return vars(self)

    def grown(self, rows: int) -> Self:
        """The same with room for `rows`; doubled, so that growing is cheap over many."""
        have = len(next(iter(self.arrays().values())))
        if rows <= have:
            return self
        more = self.blank(max(CAPACITY_MIN, rows, 2 * have) - have).arrays()
        return self.of({n: np.concatenate((a, more[n])) for n, a in self.arrays().items()})

    def same(self, other: Self, rows: int) -> bool:
        """Whether the first `rows` rows hold the same; NaN is equal to itself."""
        theirs = other.arrays()
        return all(
            np.array_equal(mine[:rows], theirs[name][:rows], equal_nan=mine.dtype.kind == "f")
            for name, mine in self.arrays().items()
        )

    def put(self, rows: Rows, **values: ArrayLike) -> Self:
        """A copy in which `rows` of the named columns hold `values`."""
        changed = {}
        for name, value in values.items():
            array = self.arrays()[name].copy()
            array[rows] = value
            array.flags.writeable = False
            changed[name] = array
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class Standings(Columns):
    """Where each strategy's campaign stands."""

    phase: Int8 = field(metadata=column("i1", PHASES.index(Phase.BACKTEST)))
    entered_at: Int64 = field(metadata=column("i8", NEVER))  # Into the phase, microseconds.
    held: Bool = field(metadata=column("?", False))
    selected: Bool = field(metadata=column("?", False))  # By the latest cohort.
    step: Int8 = field(metadata=column("i1", -1))  # Of the ramp; -1 below the first.
    step_window_us: Int64 = field(metadata=column("i8", 0))  # Live window when it was reached.
    extension_us: Int64 = field(metadata=column("i8", 0))  # Beyond the policy's max_window.


@dataclass(frozen=True, kw_only=True)
class Proof(Columns):
    """What each strategy's paper and live returns have shown: the state of its e-process.

    It is of the fingerprint, from its first entry into paper on, over paper and live; see
    `proof.py`.  Times are microseconds.  `blocks` to `block_m2` are the count, mean and sum of
    squared deviations of finished blocks of returns.
    """

    since: Int64 = field(metadata=column("i8", NEVER))  # Returns after it count.
    last_t: Int64 = field(metadata=column("i8", NEVER))  # The last one that counted.
    entry: Int32 = field(metadata=column("i4", 0))  # It was the world's n-th to begin, from 1.
    begun: Int32 = field(metadata=column("i4", 0))  # How often: a restatement begins it anew.
    carried: Float = field(metadata=column("f8", 1.0))  # Shown under terms before: at most 1.
    seen: Float = field(metadata=column("f8", 0.0))  # Returns that counted, under these terms.
    blocks: Float = field(metadata=column("f8", 0.0))
    block_mean: Float = field(metadata=column("f8", 0.0))
    block_m2: Float = field(metadata=column("f8", 0.0))
    part_sum: Float = field(metadata=column("f8", 0.0))  # Of the block that is not finished,
    part_points: Float = field(metadata=column("f8", 0.0))  # and its length so far.
    wealth: Float = field(metadata=column(f"({len(BETS)},)f8", 0.0))  # Logarithms, a bet each.
    selection_p: Float = field(metadata=column("f8", np.nan))  # Of its backtest, for its trials.
    drift_points: Float = field(metadata=column("f8", 0.0))  # Paper less its replay: count,
    drift_mean: Float = field(metadata=column("f8", 0.0))  # mean,
    drift_m2: Float = field(metadata=column("f8", 0.0))  # sum of squared deviations;
    unrealised: Float = field(metadata=column("f8", 0.0))  # of them, bars of the replay alone.
    healthy_cap: Float = field(metadata=column("f8", np.nan))  # Fixed at the first live step.
    healthy_mean: Float = field(metadata=column("f8", np.nan))
    decay: Float = field(metadata=column(f"({len(RATES)},)f8", 0.0))  # Statistics, a rate each.


@dataclass(frozen=True, kw_only=True)
class Track(Columns):
    """One stage's series of each strategy: what is held, the window, the latest judgement.

    A point is accepted when it came in time (DESIGN 7.2).  The window holds the accepted points
    after `window_from`: the entry into the stage's phase, or NEVER when it has not been entered.
    """

    points: Int64 = field(metadata=column("i8", 0))
    digest: Names = field(metadata=column(f"S{DIGEST_HEX}", b""))
    first_t: Int64 = field(metadata=column("i8", NEVER))
    last_t: Int64 = field(metadata=column("i8", NEVER))
    window_from: Int64 = field(metadata=column("i8", NEVER))
    window_first_t: Int64 = field(metadata=column("i8", NEVER))
    window_last_t: Int64 = field(metadata=column("i8", NEVER))
    window_us: Int64 = field(metadata=column("i8", 0))
    window_points: Int64 = field(metadata=column("i8", 0))
    equity: Float = field(metadata=column("f8", 1.0))  # Since window_from, late points too.
    peak: Float = field(metadata=column("f8", 1.0))
    drawdown: Float = field(
        metadata=column("f8", 0.0)
    )  # The worst since then, a positive fraction.
    covered_seq: Int64 = field(metadata=column("i8", 0))  # Journal entry of the newest snapshot
    covered_as_of: Int64 = field(metadata=column("i8", NEVER))  # that contains the strategy in
    covered_ttl_us: Int64 = field(metadata=column("i8", 0))  # weights and in returns.
    stress_loss: Float = field(metadata=column("f8", np.nan))  # Its worst scenario; NaN: none.
    verdict: Int8 = field(metadata=column("i1", 0))  # Of the latest run, an index of VERDICTS.
    judged_digest: Names = field(metadata=column(f"S{DIGEST_HEX}", b""))
    judged_policy: Int32 = field(metadata=column("i4", 0))
    judged_t: Int64 = field(metadata=column("i8", NEVER))  # The last point it saw.
