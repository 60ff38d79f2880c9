"""Judging: gates, windows, verdicts; what a cohort selects."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.core.columns import Float
from qmtl.core.errors import Conflict, Invalid
from qmtl.core.evaluation import Subject, evaluate, judge, run_id_of, select, stage_of
from qmtl.core.evaluation_run import EvaluationRun, Metric, Source
from qmtl.core.metrics import Undefined
from qmtl.core.names import Phase, Reason, RunId, Stage, StrategyId, Verdict
from qmtl.core.policy import (
    Bound,
    Gates,
    Hysteresis,
    OnMissing,
    Policy,
    Selection,
    TopK,
)
from qmtl.core.series import OVERLAP_MIN, Series
from qmtl.core.sourcing import Sources
from qmtl.core.view import WorldView
from tests.worlds import ALPHA, BETA, GAMMA, POLICY, climbing, good, ready

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
STRICT, LENIENT = OnMissing.FAIL, OnMissing.INCONCLUSIVE
NAN, INF = float("nan"), float("inf")
R = Reason


def metric(
    value: float | None, source: Source = Source.REALIZED_RETURNS, undefined: str | None = None
) -> Metric:
    return Metric(value=value, unit="", source=source, snapshot_version=None, undefined=undefined)


def undefined(why: Undefined, source: Source = Source.REALIZED_RETURNS) -> Metric:
    return metric(None, source, why.value)


# ---- One gate ----------------------------------------------------------------------------------

AT_LEAST, AT_MOST = Bound(metric="m", min=1.0), Bound(metric="m", max=1.0)
BETWEEN = Bound(metric="m", min=0.0, max=1.0)


@pytest.mark.parametrize(
    ("bound", "value", "verdict"),
    [
        (AT_LEAST, 1.0, PASS),
        (AT_LEAST, 0.999999, FAIL),
        (AT_LEAST, INF, PASS),  # No metric is infinite: see sourcing.
        (AT_LEAST, -INF, FAIL),
        (AT_MOST, 1.0, PASS),
        (AT_MOST, 1.000001, FAIL),
        (BETWEEN, 0.0, PASS),
        (BETWEEN, 1.0, PASS),
        (BETWEEN, -0.1, FAIL),
        (BETWEEN, 1.1, FAIL),
        (AT_LEAST, NAN, FAIL),
        (AT_MOST, NAN, FAIL),
        (BETWEEN, NAN, FAIL),
    ],
)
@pytest.mark.parametrize("on_missing", OnMissing)
@pytest.mark.parametrize("stage", Stage)
def test_a_number_is_compared(
    bound: Bound, value: float, verdict: Verdict, on_missing: OnMissing, stage: Stage
) -> None:
    assert judge(bound, metric(value), stage, on_missing).verdict is verdict


INHERITED = metric(5.0, Source.INHERITED)
# (the metric, the verdict of a strict policy, that of a lenient one); on paper, and live if other.
UNKNOWN: list[tuple[str, Metric | None, Verdict, Verdict, Verdict, Verdict]] = [
    ("nobody reported it", None, FAIL, OPEN, FAIL, OPEN),
    ("inherited", INHERITED, FAIL, OPEN, FAIL, OPEN),
    ("constant", undefined(Undefined.CONSTANT), FAIL, OPEN, FAIL, OPEN),
    ("not a number", undefined(Undefined.NOT_FINITE), FAIL, OPEN, FAIL, OPEN),
    ("empty", undefined(Undefined.EMPTY), FAIL, OPEN, OPEN, OPEN),
    ("one bar", undefined(Undefined.TOO_SHORT), FAIL, OPEN, OPEN, OPEN),
    ("ruined", undefined(Undefined.RUINED), FAIL, FAIL, FAIL, FAIL),
    ("ruined before", undefined(Undefined.RUINED, Source.INHERITED), FAIL, OPEN, FAIL, OPEN),
]


@pytest.mark.parametrize(
    ("what", "found", "strict", "lenient", "live_strict", "live_lenient"),
    UNKNOWN,
    ids=[u[0] for u in UNKNOWN],
)
def test_what_is_unknown_never_passes(
    what: str,
    found: Metric | None,
    strict: Verdict,
    lenient: Verdict,
    live_strict: Verdict,
    live_lenient: Verdict,
) -> None:
    for stage in (Stage.BACKTEST, Stage.PAPER, Stage.SHADOW):
        for bound in (AT_LEAST, AT_MOST, BETWEEN):
            assert judge(bound, found, stage, STRICT).verdict is strict, what
            assert judge(bound, found, stage, LENIENT).verdict is lenient, what
    assert judge(AT_LEAST, found, Stage.LIVE, STRICT).verdict is live_strict, what
    assert judge(AT_LEAST, found, Stage.LIVE, LENIENT).verdict is live_lenient, what


def test_an_inherited_metric_never_satisfies_a_gate_however_good() -> None:
    for source in Source:
        found = judge(AT_LEAST, metric(5.0, source), Stage.PAPER, STRICT)
        assert (found.verdict is PASS) == (source is not Source.INHERITED)
        assert (found.value is None) == (source is Source.INHERITED)


def test_a_gate_says_what_it_wanted_and_what_it_found() -> None:
    found = judge(BETWEEN, metric(1.5), Stage.PAPER, STRICT)
    assert found.detail == "paper m must be at least 0 and at most 1: it is 1.5"
    missing = judge(AT_MOST, undefined(Undefined.CONSTANT), Stage.LIVE, STRICT)
    assert missing.detail == "live m must be at most 1: undefined (constant)"


# ---- One run -----------------------------------------------------------------------------------


def subject(returns: Float | None = None, **changes: Any) -> Subject:
    sources = Sources(
        returns=good(12) if returns is None else returns,
        snapshot=None,
        same_stage=None,
        earlier_stage=None,
        requested={},
    )
    made = Subject(strategy_id=ALPHA, run_id=RunId("r"), sources=sources, recorded=None)
    return replace(made, **changes)


def gated(stage: Stage, *bounds: Bound, on_missing: OnMissing = STRICT) -> Policy:
    return replace(POLICY, gates=Gates(by_stage={stage: bounds}, on_missing=on_missing))


DRAWDOWN = Bound(metric="max_drawdown", max=0.2)
SHARPE = Bound(metric="sharpe_annual", min=0.5)
TRADES = Bound(metric="trades_total", min=30.0)
BAD = -good(12)
SHORT = {"window_us": 0, "window_points": 1}
# (the view, the returns, the gates, on_missing) -> verdict, reasons
RUNS: list[tuple[str, dict[str, Any], Float, tuple[Bound, ...], OnMissing, Verdict, set[R]]] = [
    ("good", {}, good(12), (DRAWDOWN, SHARPE), STRICT, PASS, set()),
    ("no gates", {}, BAD, (), STRICT, PASS, set()),
    ("one gate fails", {}, BAD, (DRAWDOWN, SHARPE), STRICT, FAIL, {R.VALIDATION_FAILED}),
    ("one is missing", {}, good(12), (DRAWDOWN, TRADES), STRICT, FAIL, {R.METRIC_MISSING}),
    ("one is missing: open", {}, good(12), (TRADES,), LENIENT, OPEN, {R.METRIC_MISSING}),
    (
        "missing and failing",
        {},
        BAD,
        (SHARPE, TRADES),
        LENIENT,
        FAIL,
        {R.VALIDATION_FAILED, R.METRIC_MISSING},
    ),
    ("constant", {}, np.full(12, 0.01), (SHARPE,), STRICT, FAIL, {R.METRIC_MISSING}),
    (
        "short",
        {"track": SHORT},
        good(12),
        (SHARPE,),
        STRICT,
        OPEN,
        {R.PAPER_WINDOW_INCOMPLETE, R.OBSERVATIONS_INSUFFICIENT},
    ),
    (
        "short and failing",
        {"track": SHORT},
        BAD,
        (SHARPE,),
        STRICT,
        FAIL,
        {R.PAPER_WINDOW_INCOMPLETE, R.OBSERVATIONS_INSUFFICIENT, R.VALIDATION_FAILED},
    ),
]


@pytest.mark.parametrize(
    ("what", "changes", "returns", "bounds", "on_missing", "verdict", "reasons"),
    RUNS,
    ids=[r[0] for r in RUNS],
)
def test_the_verdict_of_a_paper_run(
    what: str,
    changes: dict[str, Any],
    returns: Float,
    bounds: tuple[Bound, ...],
    on_missing: OnMissing,
    verdict: Verdict,
    reasons: set[Reason],
) -> None:
    view = ready(policy=gated(Stage.PAPER, *bounds, on_missing=on_missing), **changes)
    run = evaluate(view, Stage.PAPER, subject(returns))
    assert run.verdict is verdict, what
    assert set(run.reasons) == reasons
    assert len(run.details) == len(run.problems)
    assert [gate.metric for gate in run.gates] == [bound.metric for bound in bounds]


def test_a_run_tells_what_it_rests_on() -> None:
    run = evaluate(ready(), Stage.PAPER, subject())
    assert (run.revision, run.policy_version, run.stage) == (1, 1, Stage.PAPER)
    assert run.evidence == ready().digest(0, Stage.PAPER)
    assert (run.observations, run.observed_sec) == (12, 11 * 86_400.0)
    assert run.value("sharpe_annual") == run.metrics["sharpe_annual"].value
    assert run.value("unheard_of") is None


def test_a_live_strategy_that_is_new_there_is_not_failed_for_it() -> None:
    earlier = evaluate(ready(), Stage.PAPER, subject())
    for bounds in ((DRAWDOWN,), (TRADES,), (SHARPE, DRAWDOWN, TRADES)):
        view = climbing(policy=gated(Stage.LIVE, *bounds))
        sources = replace(subject(np.empty(0)).sources, earlier_stage=earlier)
        new = evaluate(view, Stage.LIVE, subject(sources=sources))
        assert new.verdict is OPEN
        assert R.OBSERVATIONS_INSUFFICIENT in new.reasons
    one_bar = evaluate(climbing(policy=gated(Stage.LIVE, SHARPE)), Stage.LIVE, subject(good(1)))
    assert one_bar.verdict is OPEN
    missing = evaluate(climbing(policy=gated(Stage.LIVE, TRADES)), Stage.LIVE, subject(good(9)))
    assert missing.verdict is FAIL


def test_a_live_run_is_judged_before_its_step_is_observed() -> None:
    view = climbing(track={"window_us": 0})
    assert evaluate(view, Stage.LIVE, subject()).verdict is PASS


def test_the_same_found_again_is_the_recorded_revision() -> None:
    view = ready()
    first = evaluate(view, Stage.PAPER, subject())
    again = evaluate(view, Stage.PAPER, subject(recorded=first))
    assert again is first
    repeated = replace(first, snapshot_version="another that says the same")
    assert evaluate(view, Stage.PAPER, subject(recorded=repeated)) is repeated


@pytest.mark.parametrize(
    "changes",
    [
        {"track": {"verdict": 0}},  # Its window began anew since.
        {"track": {"verdict": 2}},  # Another run came between and found otherwise.
        {"track": {"judged_digest": b"other"}},
        {"track": {"judged_policy": 2}},
    ],
)
def test_what_was_recorded_before_something_else_is_recorded_again(changes: Any) -> None:
    first = evaluate(ready(), Stage.PAPER, subject())
    again = evaluate(ready(**changes), Stage.PAPER, subject(recorded=first))
    assert again == replace(first, revision=2)


def test_something_else_found_is_another_revision() -> None:
    first = evaluate(ready(), Stage.PAPER, subject())
    other = evaluate(ready(), Stage.PAPER, subject(BAD, recorded=first))
    assert (other.revision, other.verdict) == (2, FAIL)


def test_a_run_is_of_one_stage() -> None:
    first = evaluate(ready(), Stage.PAPER, subject())
    with pytest.raises(Invalid):
        evaluate(ready(), Stage.BACKTEST, subject(recorded=first))


def test_a_world_without_a_policy_judges_nobody() -> None:
    with pytest.raises(Conflict) as refused:
        evaluate(ready(default_version=None), Stage.PAPER, subject())
    assert refused.value.reasons == (R.POLICY_MISSING,)


def test_the_stage_is_the_campaigns() -> None:
    stages = [
        stage_of(ready(standing={"phase": list(Phase).index(phase)}), ALPHA)
        for phase in (Phase.BACKTEST, Phase.PAPER, Phase.LIVE)
    ]
    assert stages == [Stage.BACKTEST, Stage.PAPER, Stage.LIVE]
    with pytest.raises(Invalid):
        stage_of(ready(standing={"phase": 3}), ALPHA)


def test_the_evidence_names_the_run() -> None:
    digest = ready().digest(0, Stage.PAPER)
    assert run_id_of(ready(), ALPHA, Stage.PAPER) == f"paper-{digest[:16]}"
    assert run_id_of(ready(), ALPHA, Stage.SHADOW) == "shadow-empty"


# ---- A cohort ----------------------------------------------------------------------------------

SIDS = (ALPHA, BETA, GAMMA)
TOP = TopK(metric="sharpe_annual", k=2)


def several(selected: Mapping[StrategyId, bool] | None = None) -> WorldView:
    """A world with three strategies, of which some are selected already."""
    view = ready()
    for i, sid in enumerate(SIDS):
        mine = replace(view.strategies[ALPHA], strategy_id=sid, row=i)
        view = replace(view, strategies=view.strategies.set(sid, mine), ids=view.ids.set(i, sid))
    flags = [bool((selected or {}).get(sid)) for sid in SIDS]
    return replace(view, standings=view.standings.put(slice(0, 3), selected=flags))


def cohort(**sharpes: float | None) -> tuple[EvaluationRun, ...]:
    """Passing runs by strategy; a Sharpe ratio of None is undefined."""
    made = evaluate(ready(), Stage.PAPER, subject())
    return tuple(
        replace(
            made,
            strategy_id=StrategyId(sid),
            verdict=PASS,
            metrics={"sharpe_annual": metric(sharpe), "skew": metric(0.0)},
        )
        for sid, sharpe in sharpes.items()
    )


def chosen(
    runs: tuple[EvaluationRun, ...],
    selection: Selection | None,
    series: Mapping[StrategyId, Series] | None = None,
    selected: Mapping[StrategyId, bool] | None = None,
) -> tuple[StrategyId, ...] | None:
    policy = replace(POLICY, selection=selection)
    return select(several(selected), policy, runs, series or {})


def test_who_selects_nobody_says_so() -> None:
    assert chosen(cohort(alpha=1.0), None) is None


def test_the_best_k_are_chosen_best_first_and_ties_by_name() -> None:
    top = Selection(top_k=TOP)
    assert chosen(cohort(alpha=1.0, beta=3.0, gamma=2.0), top) == (BETA, GAMMA)
    assert chosen(cohort(gamma=1.0, beta=1.0, alpha=1.0), top) == (ALPHA, BETA)
    assert chosen(cohort(alpha=None, beta=-1.0, gamma=None), top) == (BETA, ALPHA)


def test_only_what_passes_is_chosen() -> None:
    runs = cohort(alpha=1.0, beta=3.0, gamma=2.0)
    judged = tuple(replace(run, verdict=v) for run, v in zip(runs, (PASS, FAIL, OPEN), strict=True))
    assert chosen(judged, Selection(top_k=TOP)) == (ALPHA,)


NOISE = np.random.default_rng(7).normal(size=(3, OVERLAP_MIN))


def series(r: Float) -> Series:
    return Series(np.arange(len(r)), r, np.ones(len(r), np.bool_))


def test_who_is_correlated_with_a_better_one_is_left_out() -> None:
    alike = {ALPHA: series(NOISE[0]), BETA: series(2 * NOISE[0]), GAMMA: series(NOISE[1])}
    runs = cohort(alpha=3.0, beta=2.0, gamma=1.0)
    apart = Selection(correlation_max=0.8)
    assert chosen(runs, apart, alike) == (ALPHA, GAMMA)
    both = Selection(correlation_max=0.8, top_k=TOP)
    assert chosen(runs, both, alike) == (ALPHA, GAMMA)  # Who is left out takes no place.
    assert chosen(runs, Selection(correlation_max=1.0), alike) == (ALPHA, BETA, GAMMA)


def test_a_correlation_that_is_unknown_leaves_out() -> None:
    short = {ALPHA: series(NOISE[0]), BETA: series(NOISE[1][1:]), GAMMA: series(NOISE[2])}
    runs = cohort(alpha=3.0, beta=2.0, gamma=1.0)
    assert chosen(runs, Selection(correlation_max=1.0), short) == (ALPHA, GAMMA)


BAND = Selection(hysteresis=Hysteresis(metric="sharpe_annual", enter=0.6, exit=0.3))


@pytest.mark.parametrize(
    ("sharpe", "inside", "stays"),
    [
        (0.6, False, True),
        (0.59, False, False),
        (0.59, True, True),
        (0.3, True, True),
        (0.29, True, False),
        (None, True, False),
        (NAN, True, False),
    ],
)
def test_it_is_easier_to_stay_than_to_enter(
    sharpe: float | None, inside: bool, stays: bool
) -> None:
    found = chosen(cohort(alpha=sharpe), BAND, selected={ALPHA: inside})
    assert found == ((ALPHA,) if stays else ())


selections = st.builds(
    Selection,
    top_k=st.none() | st.builds(TopK, metric=st.just("sharpe_annual"), k=st.integers(1, 3)),
    correlation_max=st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
    hysteresis=st.none() | st.just(BAND.hysteresis),
)
sharpes = st.sampled_from([None, 0.0, 0.29, 0.3, 0.45, 0.6, 0.7])


@given(
    selections,
    st.fixed_dictionaries({"alpha": sharpes, "beta": sharpes, "gamma": sharpes}),
    st.fixed_dictionaries({sid: st.booleans() for sid in SIDS}),
    st.permutations([0, 0, 1]),
)
def test_selecting_again_on_the_same_evidence_selects_the_same(
    selection: Selection,
    values: dict[str, float | None],
    before: dict[StrategyId, bool],
    of: list[int],
) -> None:
    """I7: more evaluations never make a promotion more likely."""
    held = {sid: series(NOISE[i]) for sid, i in zip(SIDS, of, strict=True)}
    first = chosen(cohort(**values), selection, held, before)
    assert first is not None
    inside = dict.fromkeys(first, True)
    assert chosen(cohort(**values), selection, held, inside) == first
