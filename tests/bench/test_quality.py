"""The promises of the evidence, on a few hundred paths; `python -m bench.quality` has 10,000."""

import numpy as np
import pytest

from bench.quality import crowds, decay, lies, nulls, paths, power, report
from qmtl.sim.returns.placebo import Null, null

COUNT, SEED = 400, 0


def test_no_promise_is_broken() -> None:
    found = [*nulls.crossings(COUNT, SEED), *nulls.capital(COUNT, SEED)]
    found += [*lies.lies(COUNT, SEED), *crowds.crowds(COUNT, SEED)]
    promised = [c for s in found for row in s.rows for c in row if getattr(c, "promise", None)]
    assert len(promised) > 100
    assert [said for section in found for said in section.broken()] == []


def test_a_broken_promise_is_seen() -> None:
    """The highest of many restarts, which is what looking anew every month would be."""

    def restarted(r: np.ndarray) -> np.ndarray:
        month = 42
        parts = [paths.t_mixture(r[i:]) for i in range(0, len(r) - 60, month)]
        padded = [np.pad(part, ((len(r) - len(part), 0), (0, 0))) for part in parts]
        best: np.ndarray = np.max(padded, axis=0)
        return best

    (section,) = nulls.crossings(COUNT, SEED, {"restarted": restarted})
    assert section.broken()


def test_what_is_not_promised_is_reported_and_breaks_it() -> None:
    r = null(Null.SHORT_VOLATILITY, 252, COUNT, SEED)
    assert paths.ever(paths.t_mixture(r), 20, 252).mean() > 0.15
    assert paths.ever(nulls.above_crash(r), 20, 252).mean() <= 0.05


def test_who_knows_the_truth_is_ahead() -> None:
    (section,) = power.power(COUNT, SEED)
    by_method = {(row[0], row[1], row[2]): row[-1] for row in section.rows}
    known = by_method["2", "504", "who knows the truth"]
    ours = by_method["2", "504", "t_mixture"]
    assert isinstance(known, report.Rate)
    assert isinstance(ours, report.Rate)
    assert 0.4 < ours.value < known.value


def test_decay_is_found_and_seldom_where_there_is_none() -> None:
    (section,) = decay.decays(COUNT, SEED)
    detector, rolling, _ = section.rows
    _, median, found, false, _ = detector
    assert isinstance(median, report.Median)
    assert median.value < 252
    assert isinstance(found, report.Rate)
    assert isinstance(false, report.Rate)
    assert isinstance(rolling[3], report.Rate)
    assert found.value > 0.7
    assert false.value < rolling[3].value / 2


@pytest.mark.parametrize(("hits", "broken"), [(50, False), (83, True)])
def test_three_standard_errors_are_allowed(hits: int, broken: bool) -> None:
    assert report.Rate(hits, 1_000, 0.05).broken is broken
