"""What grows is found, and what only wavers is not said to grow."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from bench.soak.growth import (
    Line,
    Sample,
    Usage,
    database_bytes_per_event,
    fitted,
    grown,
    second_half,
)

DAYS, HOURS = 200, 0.4


def samples(mb_per_h: float = 0.0, noise_mb: float = 0.3, seed: int = 1) -> list[Sample]:
    """A soak of one server: it warms up over the first tenth, and is the same ever after, but for
    what it is asked to grow by."""
    chance, found, wander = Random(seed), [], 0.0
    for day in range(DAYS):
        hours = HOURS * day / DAYS
        wander = 0.7 * wander + chance.gauss(0, noise_mb)
        warm = 100 + 40 * min(day / (DAYS / 10), 1.0)
        used = Usage(1, warm + mb_per_h * hours + wander, 30, 12)
        found.append(Sample(day, hours, 1000 * day, 10 + day, 10, {"server": used}))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_what_wavers_does_not_grow(seed: int) -> None:
    (found,) = grown(samples(seed=seed), ["server"])
    assert found.faults() == []


@pytest.mark.parametrize("mb_per_h", [20.0, 200.0])
def test_a_leak_is_found(mb_per_h: float) -> None:
    (found,) = grown(samples(mb_per_h), ["server"])
    assert found.per_hour.slope == pytest.approx(mb_per_h, abs=3 * found.per_hour.error)
    (said,) = found.faults()
    assert said.startswith("server: memory grows by ")
    assert found.per_day_kb.slope == pytest.approx(mb_per_h * HOURS / DAYS * 1024, rel=0.3)


def test_a_line_is_as_uncertain_as_numpy_says_and_more_when_samples_are_alike() -> None:
    chance = np.random.default_rng(3)
    x = np.arange(50.0)
    white = 3 * x + chance.normal(0, 1, 50)
    _, covariance = np.polyfit(x, white, 1, cov=True)
    line = fitted(list(x), list(white))
    assert line.slope == pytest.approx(np.polyfit(x, white, 1)[0])
    assert line.error == pytest.approx(float(covariance[0, 0]) ** 0.5, rel=0.15)
    alike = 3 * x + np.cumsum(chance.normal(0, 1, 50))
    _, covariance = np.polyfit(x, alike, 1, cov=True)
    assert fitted(list(x), list(alike)).error > 2 * float(covariance[0, 0]) ** 0.5


@pytest.mark.parametrize("x", [[1.0, 2.0, 3.0], [1.0] * 10])
def test_of_too_little_nothing_is_certain(x: list[float]) -> None:
    assert fitted(x, x) == Line(0.0, float("inf"))
    assert not fitted(x, x).exceeds(0.0)


@pytest.mark.parametrize("name", ["files", "threads"])
def test_what_is_left_open_is_found(name: str) -> None:
    leaking = [
        replace(each, usage={"server": replace(each.usage["server"], **{name: 30 + each.day})})
        for each in samples()
    ]
    (found,) = grown(leaking, ["server"])
    assert found.faults() == [f"server: {30 + DAYS * 3 // 4 - 1} {name} grew to {30 + DAYS - 1}"]


def test_who_was_started_again_is_not_judged() -> None:
    again = samples()
    used = again[-1].usage["server"]
    again[-1] = replace(again[-1], usage={"server": replace(used, born=2)})
    assert grown(again, ["server"]) == []
    early = samples()
    early[0] = replace(early[0], usage={"server": replace(used, born=2)})
    assert len(grown(early, ["server"])) == 1
    assert len(second_half(early)) == DAYS // 2


def test_what_an_event_takes_is_told_for_each_half() -> None:
    early, late = database_bytes_per_event(samples())
    assert early == late == pytest.approx(2**20 / 1000)
