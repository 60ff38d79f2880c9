"""A policy on trial: who gets through the real gate, told with its uncertainty."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from qmtl.adapters import policies
from qmtl.adapters.workers import HERE, Processes
from qmtl.core.policy import Evidence, Policy
from qmtl.entry.cli import app
from qmtl.sim import trial
from qmtl.sim.trial import DECAYS_ON, Life, Truth, interval, lives, table, tried

SANDBOX = policies.parse(policies.shipped("sandbox"))
COUNT, DAYS = len(Truth), 40


def life(truth: Truth, **changes: object) -> Life:
    plain = Life(truth=truth, live=None, top=None, down=None, share=0.0, naive=None)
    return replace(plain, **changes)  # type: ignore[arg-type]  # Its fields.


def test_one_world_is_its_seed() -> None:
    first = lives(SANDBOX, 3, COUNT, 75)
    assert first == lives(SANDBOX, 3, COUNT, 75)
    assert first != lives(SANDBOX, 4, COUNT, 75)
    assert [each.truth for each in first] == list(Truth)


def test_worlds_are_the_same_wherever_they_are_computed() -> None:
    with ThreadPoolExecutor(2) as threads:
        here, *others = (
            repr(tried(SANDBOX, 2, COUNT, 25, 7, place))
            for place in (HERE, threads, *map(Processes, (1, 2, 3)))
        )
    assert others == [here] * 4
    assert here != repr(tried(SANDBOX, 2, COUNT, 25, 8))


def test_no_two_truths_share_their_noise() -> None:
    _, ids, returns = trial._world(SANDBOX, 0, 2 * COUNT, 300)
    together = np.corrcoef(returns.T) - np.eye(len(ids))
    factor = list(Truth).index(Truth.CORRELATED)
    together[factor, factor + COUNT] = together[factor + COUNT, factor] = 0.0  # Meant to.
    assert np.abs(together).max() < 0.3


def test_without_evidence_luck_goes_live() -> None:
    """The sandbox promises nothing: it promotes most that have been watched for its window."""
    found = lives(SANDBOX, 0, COUNT, DAYS)
    assert sum(each.live is not None for each in found) >= 4


def test_with_evidence_it_hardly_does() -> None:
    governance = policies.parse(policies.shipped("standard")).governance
    strict: Policy = replace(SANDBOX, evidence=Evidence(consistency=None), governance=governance)
    found = lives(strict, 0, COUNT, DAYS)
    assert sum(each.live is not None for each in found) <= 1


def test_the_table_counts() -> None:
    rows = table(
        [
            life(Truth.SHARPE_2, live=50, top=80, share=0.5, naive=60),
            life(Truth.SHARPE_2, live=70, down=100),
            life(Truth.SHARPE_2),
            life(Truth.DECAYING, live=90, down=DECAYS_ON + 30, share=0.2),
        ]
    )
    two, decaying = rows
    assert (two.count, two.live, two.top, two.down, two.naive) == (3, 2, 1, 1, 1)
    assert two.share == pytest.approx(0.5 / 3)
    assert (two.days_to_live, two.days_down) == (60, 30)
    assert (decaying.truth, decaying.days_down) == (Truth.DECAYING, 30)


def test_the_interval_is_wilsons() -> None:
    assert interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert interval(0, 0) == (0.0, 1.0)


def test_the_naive_rule_looks_daily_from_its_day_on() -> None:
    rising = np.where(np.arange(200) % 2, 0.011, -0.009)
    assert trial._naive(rising) == trial.NAIVE_FROM
    assert trial._naive(-rising) is None


def test_the_command_tries_a_policy() -> None:
    asked = [
        "policy",
        "simulate",
        "sandbox",
        "--worlds",
        "1",
        "--days",
        "25",
        "--executor",
        "inline",
    ]
    told = CliRunner().invoke(app, [*asked, "--strategies", str(COUNT), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert [row["truth"] for row in found["rows"]] == list(Truth)
    shown = CliRunner().invoke(app, [*asked, "--strategies", str(COUNT)])
    assert "no skill: short volatility" in shown.stdout
    assert "is promised" in shown.stdout


def test_a_truth_too_few_is_refused() -> None:
    told = CliRunner().invoke(
        app, ["policy", "simulate", "sandbox", "--worlds", "1", "--strategies", "3"]
    )
    assert told.exit_code == 2
    assert f"at least {COUNT} strategies in all" in told.stderr
