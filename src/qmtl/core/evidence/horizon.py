"""A test with a declared end: more power there, and no evidence after it.

Source.  LD83: Lan & DeMets (1983), Discrete sequential boundaries for clinical trials.
"""

import math
from functools import cache
from typing import Final

import numpy as np

from .eprocess import Blocks, t_statistic
from .normal import NORMAL, Float

LOOKS_MAX: Final = 100
LEVELS: Final = tuple(10.0 ** (-j / 12) for j in range(1, 49))  # Of a test: .83 down to 1e-4.
GRID_SD: Final = 8.0  # A Brownian motion on [0, 1] is cut off so many deviations out,
GRID_PER_STEP: Final = 24  # and kept in cells of this share of the deviation of one step.


def spent(level: float, fraction: float) -> float:
    """What a one-sided test has spent of its level when this much of the information is there.

    Lan & DeMets' spending function of O'Brien-Fleming type (LD83).
    """
    if fraction <= 0:
        return 0.0
    z = NORMAL.inv_cdf(1 - level / 2)
    return 2 * (1 - NORMAL.cdf(z / math.sqrt(min(1.0, fraction))))


class _Walk:
    """A Brownian motion on [0, 1], looked at in equal steps: the density of what is still inside.

    Recursive integration (Armitage, McPherson & Rowe 1969) in cells of equal width.
    """

    def __init__(self, looks: int, copies: int) -> None:
        self.width = math.sqrt(1 / looks) / GRID_PER_STEP
        half = math.ceil(GRID_SD / self.width)
        self.x = np.arange(-half, half + 1) * self.width
        # Room for a step beyond either end, where it is dropped; more of it changes nothing.
        self.size = 1 << math.ceil(math.log2(2 * len(self.x)))  # pragma: no mutate
        self.kernel = np.exp(-2 * (math.pi * GRID_PER_STEP * np.fft.rfftfreq(self.size)) ** 2)
        self.inside = np.zeros((copies, len(self.x)))
        self.inside[:, half] = 1.0

    def step(self) -> None:
        moved = np.fft.irfft(np.fft.rfft(self.inside, self.size) * self.kernel)
        self.inside = np.maximum(moved[:, : len(self.x)], 0.0)

    def cut(self, copy: int, share: float) -> float:
        """Take this much from the top, and say where that begins."""
        mine = self.inside[copy]
        above = np.cumsum(np.append(0.0, mine[::-1]))
        whole = int(np.searchsorted(above, share, side="right"))
        cell, rest = len(mine) - whole, share - above[whole - 1]
        part = rest / mine[cell]  # INVARIANT: the first cell that is more than what is taken.
        mine[cell + 1 :] = 0.0
        mine[cell] -= rest
        return float(self.x[cell] + self.width * (0.5 - part))

    def take_above(self, x: float) -> Float:
        """Take what is above a point, the share of its cell too, and say how much of each copy."""
        share = np.clip((self.x - x) / self.width + 0.5, 0.0, 1.0)
        taken: Float = self.inside @ share
        self.inside = self.inside * (1.0 - share)
        return taken


@cache
def boundaries(looks: int) -> Float:
    """Of z at each of equally spaced looks, for each of LEVELS: shape (looks, levels)."""
    walk = _Walk(looks, len(LEVELS))
    found = np.empty((looks, len(LEVELS)))
    for look in range(1, looks + 1):
        walk.step()
        for i, level in enumerate(LEVELS):
            share = spent(level, look / looks) - spent(level, (look - 1) / looks)
            found[look - 1, i] = walk.cut(i, share) / math.sqrt(look / looks)
    return found


def crossing(bounds: Float, *, two_sided: bool) -> float:
    """The chance that z is at or above its bound at one of equally spaced looks, or, two-sided,
    its size is."""
    walk, crossed = _Walk(len(bounds), 1), 0.0
    for look, bound in enumerate(bounds, start=1):
        walk.step()
        at = float(bound) * math.sqrt(look / len(bounds))
        crossed += walk.take_above(at).item()
        if two_sided:
            walk.inside = walk.inside[:, ::-1]
            crossed += walk.take_above(at).item()
    return crossed


def as_normal(t: Float, degrees: Float) -> Float:
    """The normal deviate with the tail of a Student t, nearly (Wallace 1959)."""
    far = np.sqrt(degrees * np.log1p(t**2 / degrees))
    found: Float = np.sign(t) * (8 * degrees + 1) / (8 * degrees + 3) * far
    return found


def as_t(z: Float, degrees: Float) -> Float:
    """The Student t whose normal deviate is z: `as_normal`, the other way round."""
    far = z * (8 * degrees + 3) / (8 * degrees + 1)
    found: Float = np.sign(z) * np.sqrt(degrees * np.expm1(far**2 / degrees))
    return found


def spaced(horizon: int) -> tuple[int, int]:
    """Blocks from one look to the next, and how many looks there are in so many blocks."""
    stride = max(1, math.ceil(horizon / LOOKS_MAX))
    return stride, max(1, horizon // stride)


def group_sequential(held: Blocks, horizon: int) -> Float:
    """1/level of the strictest test that rejects a mean of at most 0 now; 1 when none does.

    `horizon` is the declared number of blocks; looks are spaced equally over it, at most LOOKS_MAX,
    and after it nothing is evidence any more: NaN, as it is for fewer than BLOCKS_MIN blocks.
    P(ever >= 1/level) <= level for each level, which is what a ramp asks.  It is no e-value: under
    `e_bh` it makes the procedure of Benjamini and Hochberg, valid for independent strategies and
    for those that are positively dependent (PRDS).
    """
    return strictest(t_statistic(held), held.count, horizon)


def strictest(t: Float, n: Float, horizon: int) -> Float:
    """The same of n blocks whose t statistic is `t`."""
    stride, looks = spaced(horizon)
    z = as_normal(t, n - 1)
    look = np.minimum(n / stride, looks).astype(int)
    passed = z[:, None] >= boundaries(looks)[look - 1]
    best = np.where(passed, 1.0 / np.array(LEVELS), 1.0).max(axis=1)
    at_look = np.where(n % stride == 0, best, 1.0)
    found: Float = np.where(np.isnan(z) | (n > horizon), np.nan, at_look)
    return found


def t_needed(threshold: float, n: Float, horizon: int) -> Float:
    """The t statistic of n blocks, n <= horizon, from which on `strictest` is at least `threshold`.

    inf where no t is enough: between two looks, and for what no test is strict enough.
    """
    if threshold <= 1.0:
        return np.full(len(n), -np.inf)
    stride, looks = spaced(horizon)
    strict = np.flatnonzero(1.0 / np.array(LEVELS) >= threshold)
    if not len(strict):
        return np.full(len(n), np.inf)
    look = np.floor_divide(n, stride).astype(int)  # Of 0, what follows is not looked at.
    z = boundaries(looks)[look - 1][:, strict].min(axis=1)
    return np.where(n % stride == 0, as_t(z, n - 1), np.inf)
