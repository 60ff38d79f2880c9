"""Where a metric comes from: the order of the contract, told for each, and nothing else passes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qmtl.core.columns import Float
from qmtl.core.evaluation_run import EvaluationRun, Metric, Source
from qmtl.core.facts import Points, SnapshotStored
from qmtl.core.metrics import UNITS, performance
from qmtl.core.names import Digest, RunId, Stage, Verdict
from qmtl.core.sourcing import Sources, source
from qmtl.sim.scene import START
from tests.worlds import ALPHA, BETA, good

NOTHING: Float = np.empty(0)
SNAPSHOT = SnapshotStored(
    version="s1",
    stage=Stage.PAPER,
    as_of=START,
    ttl_sec=900,
    content=Digest("c"),
    weights={ALPHA: 1.0},
    covered=(ALPHA,),
    points=Points(),
)
CARRYING = replace(
    SNAPSHOT,
    stats={ALPHA: {"trades_total": 40.0, "turnover_annual": 3.0}, BETA: {"trades_total": 1.0}},
    covariance={f"{ALPHA},{ALPHA}": 0.0004, f"{ALPHA},{BETA}": 9.0},
    stress={ALPHA: {"crash": 0.2, "rates": 0.1}, BETA: {"crash": 0.9}},
)


def run(stage: Stage, source_: Source = Source.REALIZED_RETURNS, **values: Any) -> EvaluationRun:
    """A run of a stage with these metrics; a text is why one is undefined."""
    metrics = {
        name: Metric(
            value=None if isinstance(value, str) else value,
            unit="u",
            source=source_,
            snapshot_version="s0",
            undefined=value if isinstance(value, str) else None,
        )
        for name, value in values.items()
    }
    return EvaluationRun(
        strategy_id=ALPHA,
        run_id=RunId("r"),
        stage=stage,
        revision=1,
        verdict=Verdict.PASS,
        problems=(),
        metrics=metrics,
        gates=(),
        policy_version=1,
        snapshot_version=None,
        evidence=Digest(""),
        observations=0,
        observed_sec=0.0,
    )


def sourced(**changes: Any) -> dict[str, Metric]:
    nothing = Sources(
        returns=NOTHING, snapshot=None, same_stage=None, earlier_stage=None, requested={}
    )
    return source(replace(nothing, **changes), ALPHA, 252.0)


def told(metrics: dict[str, Metric]) -> dict[str, tuple[float | None, Source]]:
    return {name: (metric.value, metric.source) for name, metric in metrics.items()}


SAME = run(Stage.PAPER, sharpe_annual=1.1, trades_total=7.0)
EARLIER = run(Stage.BACKTEST, sharpe_annual=2.2, trades_total=8.0, cagr=0.5)
ASKED = {"sharpe_annual": 3.3, "trades_total": 9.0, "turnover_annual": 1.5}


def test_the_hubs_own_returns_come_first() -> None:
    found = sourced(
        returns=good(30),
        snapshot=SNAPSHOT,
        same_stage=SAME,
        earlier_stage=EARLIER,
        requested={"sharpe_annual": 3.3},
    )
    assert set(found) == set(UNITS)
    expected = performance(good(30), 252.0)
    for name, metric in found.items():
        assert metric.source is Source.REALIZED_RETURNS
        assert metric.value == expected[name]
        assert metric.unit == UNITS[name]
        assert metric.snapshot_version == "s1"


def test_without_returns_the_same_stage_is_reused_and_then_an_earlier_one() -> None:
    found = told(sourced(same_stage=SAME, earlier_stage=EARLIER))
    assert found == {
        "sharpe_annual": (1.1, Source.PRIOR_RUN),
        "trades_total": (7.0, Source.PRIOR_RUN),
        "cagr": (0.5, Source.INHERITED),
    }


def test_what_was_inherited_stays_inherited() -> None:
    before = run(Stage.PAPER, Source.INHERITED, sharpe_annual=1.1)
    assert told(sourced(same_stage=before)) == {"sharpe_annual": (1.1, Source.INHERITED)}


def test_what_is_reused_keeps_its_origin_and_why_it_is_undefined() -> None:
    found = sourced(same_stage=run(Stage.PAPER, sharpe_annual="ruined"))
    assert found["sharpe_annual"] == Metric(
        value=None, unit="u", source=Source.PRIOR_RUN, snapshot_version="s0", undefined="ruined"
    )


def test_the_snapshot_carries_the_rest() -> None:
    found = told(sourced(returns=good(30), snapshot=CARRYING))
    assert found["trades_total"] == (40.0, Source.PRODUCER_STATS)
    assert found["turnover_annual"] == (3.0, Source.PRODUCER_STATS)
    assert found["stress_loss_max"] == (0.2, Source.STRESS)
    value, origin = found["ex_ante_volatility"]
    assert value == pytest.approx(np.sqrt(0.0004 * 252))
    assert origin is Source.COVARIANCE


def test_the_snapshot_is_newer_than_what_is_reused() -> None:
    found = told(sourced(snapshot=CARRYING, same_stage=SAME, earlier_stage=EARLIER))
    assert found["trades_total"] == (40.0, Source.PRODUCER_STATS)
    assert found["sharpe_annual"] == (1.1, Source.PRIOR_RUN)


@pytest.mark.parametrize("returns", [NOTHING, good(30)], ids=["no returns", "returns"])
def test_performance_is_never_a_producers_word(returns: Float) -> None:
    stats = {ALPHA: {"sharpe_annual": 9.0, "max_drawdown": 0.0, "observations": 999.0}}
    found = sourced(returns=returns, snapshot=replace(SNAPSHOT, stats=stats))
    assert all(metric.source is not Source.PRODUCER_STATS for metric in found.values())


def test_what_the_hub_derives_is_not_the_producers_to_say() -> None:
    stats = {ALPHA: {"stress_loss_max": 0.0, "ex_ante_volatility": 0.0}}
    found = told(sourced(returns=good(30), snapshot=replace(CARRYING, stats=stats)))
    assert found["stress_loss_max"] == (0.2, Source.STRESS)
    assert found["ex_ante_volatility"][1] is Source.COVARIANCE


def test_a_request_fills_only_what_nobody_else_says() -> None:
    found = told(sourced(returns=good(30), snapshot=CARRYING, requested=ASKED | {"x": 1.0}))
    assert found["sharpe_annual"][1] is Source.REALIZED_RETURNS
    assert found["trades_total"] == (40.0, Source.PRODUCER_STATS)
    assert found["turnover_annual"] == (3.0, Source.PRODUCER_STATS)
    assert found["x"] == (1.0, Source.REQUEST)
    reused = told(sourced(same_stage=SAME, requested=ASKED))
    assert reused["sharpe_annual"] == (3.3, Source.REQUEST)  # An old run is no more than a guess.


@pytest.mark.parametrize(
    "returns",
    [np.full(30, 0.001), np.append(good(30), -1.0), good(1)],
    ids=["constant", "ruined", "one bar"],
)
def test_what_the_returns_leave_undefined_nobody_defines(returns: Float) -> None:
    metric = sourced(returns=returns, requested=ASKED)["sharpe_annual"]
    assert (metric.value, metric.source) == (None, Source.REALIZED_RETURNS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_has_no_value(value: float) -> None:
    asked = sourced(requested={"trades_total": value})["trades_total"]
    assert (asked.value, asked.undefined) == (None, "not_finite")
    carried = replace(SNAPSHOT, stats={ALPHA: {"trades_total": value}})
    assert sourced(snapshot=carried)["trades_total"].value is None
    wild = replace(SNAPSHOT, covariance={f"{ALPHA},{ALPHA}": 1e308})
    assert sourced(snapshot=wild)["ex_ante_volatility"].value is None
    broken = replace(SNAPSHOT, covariance={f"{ALPHA},{ALPHA}": -abs(value)})
    assert "ex_ante_volatility" not in sourced(snapshot=broken)


def test_with_no_source_at_all_everything_is_undefined() -> None:
    found = sourced()
    assert set(found) == set(UNITS)
    counted = {"observations", "effective_history_years"}
    assert {name for name, metric in found.items() if metric.value is not None} == counted
    nothing = Sources(
        returns=NOTHING, snapshot=CARRYING, same_stage=None, earlier_stage=None, requested={}
    )
    assert not nothing.any
    for something in (
        replace(nothing, returns=good(1)),
        replace(nothing, same_stage=SAME),
        replace(nothing, earlier_stage=EARLIER),
        replace(nothing, requested={"x": 1.0}),
    ):
        assert something.any
