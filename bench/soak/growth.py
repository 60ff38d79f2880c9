"""Does anything grow?  Straight lines through what was measured at the end of each day.

A line is fitted to the second half of a soak, when caches are full and worlds are known, for each
process that lived through all of it.  What is measured at one instant is like what was measured
just before, so that a plain standard error is too small: it is widened for the correlation of each
residual with the next (as if there were fewer samples).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MB_PER_H_MAX = 1.0
STANDARD_ERRORS = 2.0  # Beyond them it is no noise.
SAMPLES_MIN = 4
COUNTED = ("files", "threads")
MORE_MAX = 2  # Open files and threads come and go with the clients of the moment.


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has at an instant: resident MB, open files, threads.

    `born` tells one life of it from the next.
    """

    born: int
    resident_mb: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The end of a day: hours since the first, events told so far, the database in MB."""

    day: int
    hours: float
    events: int
    database_mb: float
    connections: int
    usage: dict[str, Usage]


@dataclass(frozen=True, slots=True)
class Line:
    """y against x: its slope, and the slope's standard error."""

    slope: float
    error: float

    def exceeds(self, most: float) -> bool:
        return self.slope - STANDARD_ERRORS * self.error > most


@dataclass(frozen=True, slots=True)
class Growth:
    """One process in the second half of a soak."""

    name: str
    resident_mb: tuple[float, float]
    files: tuple[int, int]
    threads: tuple[int, int]
    per_hour: Line
    per_event_bytes: Line
    per_day_kb: Line

    def faults(self) -> list[str]:
        found = []
        if self.per_hour.exceeds(MB_PER_H_MAX):
            found.append(
                f"{self.name}: memory grows by {self.per_hour.slope:.1f} MB/h "
                f"(standard error {self.per_hour.error:.1f}); at most {MB_PER_H_MAX:g}"
            )
        for name in COUNTED:
            before, after = getattr(self, name)
            if after > before + MORE_MAX:
                found.append(f"{self.name}: {before} {name} grew to {after}")
        return found


def fitted(x: Sequence[float], y: Sequence[float]) -> Line:
    """Least squares.  No slope and no certainty where x does not change."""
    across, up = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    centred = across - across.mean()
    spread = float(centred @ centred)
    if spread == 0.0 or len(across) < SAMPLES_MIN:
        return Line(0.0, float("inf"))
    slope = float(centred @ up) / spread
    residuals = up - up.mean() - slope * centred
    left = float(residuals @ residuals)
    alike = float(residuals[1:] @ residuals[:-1]) / left if left > 0 else 0.0
    fewer = (1 - alike) / (1 + alike) if alike > 0 else 1.0
    freedom = max(len(across) * fewer - 2, 1.0)
    return Line(slope, (left / freedom / spread) ** 0.5)


def second_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[len(samples) // 2 :]


def grown(samples: Sequence[Sample], names: Iterable[str]) -> list[Growth]:
    """Of those processes that lived through the second half; too few samples, and of none."""
    late = second_half(samples)
    found = []
    for name in names:
        used = [each.usage[name] for each in late if name in each.usage]
        if len(used) < max(len(late), SAMPLES_MIN) or len({each.born for each in used}) > 1:
            continue
        resident = [each.resident_mb for each in used]
        found.append(
            Growth(
                name=name,
                resident_mb=(resident[0], resident[-1]),
                files=(_early(used, "files"), used[-1].files),
                threads=(_early(used, "threads"), used[-1].threads),
                per_hour=fitted([each.hours for each in late], resident),
                per_event_bytes=_scaled(fitted([e.events for e in late], resident), 2.0**20),
                per_day_kb=_scaled(fitted([e.day for e in late], resident), 2.0**10),
            )
        )
    return found


def _early(used: Sequence[Usage], name: str) -> int:
    """The most that it had in the first half of them."""
    return max(int(getattr(each, name)) for each in used[: max(len(used) // 2, 1)])


def _scaled(line: Line, by: float) -> Line:
    return Line(line.slope * by, line.error * by)


def database_bytes_per_event(samples: Sequence[Sample]) -> tuple[float, float]:
    """In the first half and in the second: what is stored of an event does not depend on how many
    there were before."""
    half = len(samples) // 2

    def rate(part: Sequence[Sample]) -> float:
        events = part[-1].events - part[0].events
        grew = part[-1].database_mb - part[0].database_mb
        return grew * 2**20 / events if events else 0.0

    return rate(samples[: half + 1]), rate(samples[half:])
