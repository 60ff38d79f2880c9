"""Evaluating: the same evidence is one run, a cohort is all or nothing, and who may select."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qmtl.app.ports import Store
from qmtl.core.errors import Conflict, Invalid, UnknownStrategy
from qmtl.core.evaluation_run import Source
from qmtl.core.names import Phase, Reason, RunId, Stage, StrategyId, Verdict
from qmtl.core.policy import Bound, Gates, Selection, TopK
from qmtl.core.promotion import Blocked
from qmtl.core.times import NEVER
from qmtl.core.view import Proposed
from qmtl.sim import cast
from qmtl.sim.scene import DAY, Scene, daily
from tests.worlds import (
    ALPHA,
    BETA,
    GAMMA,
    LONELY,
    MINUTE,
    PAPER_DAYS,
    POLICY,
    good,
    in_paper,
    live,
    observe,
    observed,
    open_candidate,
    opened,
    proposed,
)

R = Reason
PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def kinds(scene: Scene, after: int) -> list[str]:
    return [e.fact.kind for e in scene.store.journal(scene.world_id, after, 1000)]


def with_gates(**stages: Bound) -> Any:
    by_stage = {Stage(name): (bound,) for name, bound in stages.items()}
    return replace(LONELY, gates=Gates(by_stage=by_stage))


# ---- Idempotency -------------------------------------------------------------------------------


def test_many_calls_on_the_same_evidence_are_one(store: Store) -> None:
    scene = observed(store, LONELY)
    first = scene.evaluate(ALPHA)
    assert (first.run.verdict, first.active, first.phase) == (PASS, True, Phase.PAPER)
    after = scene.view
    for _ in range(3):
        scene.wait(DAY)
        assert scene.evaluate(ALPHA, actor=cast.OTTO) == first
    assert scene.view.seq == after.seq
    assert len(store.revisions(scene.world_id, ALPHA, first.run.run_id)) == 1


def test_the_same_run_id_updates_the_same_run_and_keeps_its_history(store: Store) -> None:
    scene = observed(store, LONELY)
    mine = RunId("mine")
    first = scene.evaluate(ALPHA, run_id=mine).run
    observe(scene, Stage.PAPER, 1)
    second = scene.evaluate(ALPHA, run_id=mine).run
    assert (first.revision, second.revision) == (1, 2)
    kept = [stored.run for stored in store.revisions(scene.world_id, ALPHA, mine)]
    assert kept == [first, second]
    newest = store.run(scene.world_id, ALPHA, mine)
    assert newest is not None
    assert newest.run == second


def test_the_evidence_names_the_run_when_nobody_else_does(store: Store) -> None:
    scene = observed(store, LONELY)
    run = scene.evaluate(ALPHA).run
    assert run.run_id == f"paper-{run.evidence[:16]}"
    observe(scene, Stage.PAPER, 1)
    assert scene.evaluate(ALPHA).run.run_id != run.run_id


def test_a_run_id_is_of_one_stage(store: Store) -> None:
    scene = observed(store, LONELY)
    scene.evaluate(ALPHA, run_id=RunId("mine"))
    with pytest.raises(Invalid):
        scene.evaluate(ALPHA, Stage.BACKTEST, run_id=RunId("mine"))


def test_another_run_on_the_same_evidence_proposes_no_other_candidate(store: Store) -> None:
    scene = observed(store, LONELY)
    scene.evaluate(ALPHA)
    before = open_candidate(scene.view)
    scene.evaluate(ALPHA, run_id=RunId("again"))
    after = open_candidate(scene.view)
    assert after == replace(before, run_id=RunId("again"))


# ---- Requests ----------------------------------------------------------------------------------


def test_metrics_in_a_request_are_for_backtests(store: Store) -> None:
    scene = observed(store, LONELY)
    for stage in (None, Stage.PAPER, Stage.SHADOW, Stage.LIVE):
        with pytest.raises(Conflict):
            scene.evaluate(ALPHA, stage, metrics={"trades_total": 50.0})


@pytest.mark.parametrize("name", ["sharp", "observations", "effective_history_years"])
def test_unknown_metrics_and_counts_are_refused(store: Store, name: str) -> None:
    scene = opened(store)
    scene.bind(ALPHA)
    before = scene.view
    with pytest.raises(Invalid, match=name):
        scene.evaluate(ALPHA, metrics={name: 1.0})
    assert scene.view.seq == before.seq


def test_a_request_fills_a_backtest_with_what_the_hub_lacks(store: Store) -> None:
    scene = opened(store, with_gates(backtest=Bound(metric="trades_total", min=30.0)))
    run = scene.submit(ALPHA, good(30))
    assert (run.verdict, run.reasons) == (FAIL, (R.METRIC_MISSING,))
    told = scene.evaluate(ALPHA, metrics={"trades_total": 31.0, "sharpe_annual": 99.0}).run
    assert told.verdict is PASS
    assert told.metrics["trades_total"].source is Source.REQUEST
    assert told.metrics["sharpe_annual"].source is Source.REALIZED_RETURNS
    assert scene.view.phase(0) is Phase.PAPER


@pytest.mark.parametrize("returns", [np.full(30, 0.001), np.append(good(29), -1.0)])
def test_a_request_defines_nothing_that_returns_leave_undefined(store: Store, returns: Any) -> None:
    scene = opened(store)
    scene.submit(ALPHA, returns)
    told = scene.evaluate(ALPHA, metrics={"sharpe_annual": 3.0})
    assert (told.run.verdict, told.phase) == (FAIL, Phase.BACKTEST)


def test_metrics_alone_are_no_observations(store: Store) -> None:
    scene = opened(store)
    scene.bind(ALPHA)
    told = scene.evaluate(ALPHA, metrics={"sharpe_annual": 3.0})
    assert told.run.verdict is OPEN
    assert told.phase is Phase.BACKTEST


def test_nobody_and_nothing_known_is_evaluated(store: Store) -> None:
    scene = opened(store)
    with pytest.raises(UnknownStrategy):
        scene.evaluate(StrategyId("omega"))
    scene.bind(ALPHA)
    assert scene.evaluate(ALPHA).run.verdict is FAIL  # Its gate finds no Sharpe ratio.


# ---- What follows ------------------------------------------------------------------------------


def test_a_passing_backtest_with_a_full_window_enters_paper(store: Store) -> None:
    scene = opened(store)
    short = scene.submit(ALPHA, good(15))
    assert (short.verdict, scene.view.phase(0)) == (OPEN, Phase.BACKTEST)
    assert R.BACKTEST_WINDOW_INCOMPLETE in short.reasons
    full = scene.submit(BETA, good(30))
    assert (full.verdict, scene.view.phase(1)) == (PASS, Phase.PAPER)
    assert scene.view.entered_at(1) == scene.now


def test_a_failing_paper_run_voids_its_candidate_and_a_later_one_starts_over(
    store: Store,
) -> None:
    scene = observed(store, LONELY)
    scene.evaluate(ALPHA)
    scene.approve(ALPHA, cast.PIA)
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: -0.3})
    failed = scene.evaluate(ALPHA)
    assert failed.run.verdict is FAIL
    assert scene.view.open_candidate(ALPHA) is None
    for _ in range(40):  # The drawdown stays in the window: no later bar helps.
        scene.wait(DAY)
        scene.bar(Stage.PAPER, {ALPHA: 0.01})
    assert scene.evaluate(ALPHA).run.verdict is FAIL


def test_a_candidate_voided_by_one_bad_day_is_approved_anew(store: Store) -> None:
    policy = with_gates(paper=Bound(metric="sharpe_annual", min=0.5))
    scene = observed(store, policy)
    scene.evaluate(ALPHA)
    scene.approve(ALPHA, cast.PIA)
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: -0.1})
    scene.evaluate(ALPHA)
    assert scene.view.open_candidate(ALPHA) is None
    for _ in range(20):
        scene.wait(DAY)
        scene.bar(Stage.PAPER, {ALPHA: 0.02})
    scene.evaluate(ALPHA)
    again = open_candidate(scene.view)
    assert (again.standing, again.approvals) == (Proposed(), ())


def test_paper_that_runs_out_of_time_retires_and_more_time_brings_it_back(store: Store) -> None:
    scene = observed(store, LONELY)
    observe(scene, Stage.PAPER, 60)
    over = scene.evaluate(ALPHA)
    assert over.phase is Phase.RETIRED
    assert scene.view.open_candidate(ALPHA) is None
    scene.extend(ALPHA, 30 * DAY)
    assert scene.view.phase(0) is Phase.PAPER
    assert scene.evaluate(ALPHA).phase is Phase.PAPER  # And on what is known it is a candidate.
    assert isinstance(open_candidate(scene.view).standing, Proposed)


def test_a_backtest_that_passed_while_held_goes_on_when_released(store: Store) -> None:
    scene = opened(store, LONELY)
    scene.bind(ALPHA)
    scene.demote(ALPHA)
    scene.submit(ALPHA, good(30))
    assert scene.view.phase(0) is Phase.BACKTEST
    assert scene.tick().actions == ()
    scene.release(ALPHA)
    assert len(scene.loop().actions) == 1
    assert scene.view.phase(0) is Phase.PAPER
    assert scene.tick().actions == ()


def test_a_strategy_that_is_new_to_live_is_not_demoted_for_it(store: Store) -> None:
    scene = live(store)
    told = scene.evaluate(ALPHA)
    assert (told.run.stage, told.run.verdict) == (Stage.LIVE, OPEN)
    assert told.phase is Phase.LIVE
    assert ALPHA in scene.view.live


def test_a_second_life_is_not_judged_by_the_first(store: Store) -> None:
    scene = live(store, LONELY)
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: -0.2})  # The breaker demotes.
    assert scene.view.phase(0) is Phase.PAPER
    scene.evaluate(ALPHA, Stage.LIVE)
    observe(scene, Stage.PAPER, PAPER_DAYS)
    scene.evaluate(ALPHA)
    scene.approve(ALPHA, cast.PIA)
    scene.approve(ALPHA, cast.PETE)
    scene.apply(ALPHA)
    assert ALPHA in scene.view.live
    scene.loop()
    assert ALPHA in scene.view.live
    run = scene.evaluate(ALPHA).run
    assert run.verdict is OPEN
    assert run.metrics["max_drawdown"].source is Source.INHERITED


def test_a_live_run_that_fails_demotes(store: Store) -> None:
    policy = with_gates(live=Bound(metric="cagr", min=0.0))
    scene = live(store, policy)
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: -0.01})
    told = scene.evaluate(ALPHA)
    assert (told.run.verdict, told.phase) == (FAIL, Phase.PAPER)
    assert not scene.view.live
    assert scene.view.tracks[Stage.PAPER].window_points[0] == 0


def test_what_a_snapshot_carries_may_change_on_the_same_returns(store: Store) -> None:
    policy = replace(
        with_gates(paper=Bound(metric="stress_loss_max", max=0.5)),
        risk=replace(POLICY.risk, max_stress_loss=None),
    )
    scene = proposed_alone(store, policy)
    paper = store.series(scene.world_id, ALPHA, Stage.PAPER)
    series = {ALPHA: daily(paper.r, scene.now - MINUTE)}
    scene.post(Stage.PAPER, series, stress={ALPHA: {"crash": 0.9}})
    blocked = scene.plan(ALPHA).blocked
    assert blocked is not None
    assert blocked.reasons == (R.VALIDATION_FAILED,)
    answer = scene.apply(ALPHA)
    assert isinstance(answer, Blocked)
    assert scene.evaluate(ALPHA).run.verdict is FAIL
    scene.wait(MINUTE)
    scene.post(Stage.PAPER, series, stress={ALPHA: {"crash": 0.1}})
    assert scene.evaluate(ALPHA).run.verdict is PASS


def proposed_alone(store: Store, policy: Any) -> Scene:
    scene = observed(store, policy)
    scene.evaluate(ALPHA)
    scene.approve(ALPHA, cast.PIA)
    scene.approve(ALPHA, cast.PETE)
    return scene


# ---- Cohorts -----------------------------------------------------------------------------------

ALL = (ALPHA, BETA, GAMMA)
TOP_ONE = replace(POLICY, selection=Selection(top_k=TopK(metric="sharpe_annual", k=1)))


def crowd(store: Store, policy: Any = TOP_ONE) -> Scene:
    """Three in paper with full windows, of which alpha is the best and gamma the worst."""
    scene = in_paper(store, policy, *ALL)
    for day in range(PAPER_DAYS):
        scene.wait(DAY)
        dip = -0.004 if day % 2 else 0.01
        scene.bar(Stage.PAPER, {ALPHA: dip, BETA: dip - 0.001, GAMMA: dip - 0.002})
    return scene


def selected(scene: Scene) -> list[StrategyId]:
    flags = scene.view.standings.selected
    return [s.strategy_id for s in scene.view.in_order() if flags[s.row]]


def test_a_cohort_is_judged_as_one(store: Store) -> None:
    scene = crowd(store)
    before = scene.view.seq
    told = scene.cohort(ALL)
    assert [answer.active for answer in told] == [True, False, False]
    assert selected(scene) == [ALPHA]
    first, *rest = kinds(scene, before)
    assert first == "evaluations_recorded"
    assert set(rest) == {"candidate_proposed"}
    seq = scene.view.seq
    assert scene.cohort(ALL) == told
    assert scene.view.seq == seq


@pytest.mark.parametrize(
    ("sids", "error"),
    [
        ((), Invalid),
        ((ALPHA, ALPHA), Invalid),
        ((ALPHA, StrategyId("omega")), UnknownStrategy),
    ],
    ids=["nobody", "twice", "a stranger"],
)
def test_a_cohort_is_all_or_nothing(
    store: Store, sids: tuple[StrategyId, ...], error: type[Exception]
) -> None:
    scene = crowd(store)
    seq = scene.view.seq
    with pytest.raises(error):
        scene.cohort(sids)
    assert scene.view.seq == seq


def test_one_without_a_source_is_named_and_nobody_is_judged(store: Store) -> None:
    scene = crowd(store)
    scene.bind(StrategyId("empty"))
    seq = scene.view.seq
    with pytest.raises(Invalid, match="empty"):
        scene.cohort((*ALL, StrategyId("empty")))
    assert scene.view.seq == seq


def test_a_cohort_of_several_stages_names_one(store: Store) -> None:
    scene = crowd(store)
    scene.submit(StrategyId("new"), good(5))
    with pytest.raises(Invalid):
        scene.cohort((ALPHA, StrategyId("new")), stage=None)
    scene.cohort((ALPHA, StrategyId("new")), stage=Stage.BACKTEST)


def test_a_cohort_that_leaves_out_a_rival_selects_nobody(store: Store) -> None:
    scene = crowd(store)
    scene.cohort((GAMMA,))
    assert selected(scene) == []
    scene.cohort((BETA, GAMMA))
    assert selected(scene) == []
    scene.cohort(ALL)
    assert selected(scene) == [ALPHA]
    scene.cohort((GAMMA,))
    assert selected(scene) == [ALPHA]


@pytest.mark.parametrize("stage", [Stage.BACKTEST, Stage.SHADOW, Stage.LIVE])
def test_a_cohort_of_another_stage_selects_nobody_in_paper(store: Store, stage: Stage) -> None:
    """It has no rivals there at all: a way around them (I1)."""
    scene = crowd(store)
    scene.cohort((GAMMA,), stage=stage)
    scene.cohort(ALL, stage=stage)
    assert selected(scene) == []


def test_a_rival_that_is_none_stands_in_nobodys_way(store: Store) -> None:
    scene = crowd(store)
    scene.cohort(ALL)
    scene.demote(ALPHA, Phase.RETIRED)
    scene.cohort(ALL)  # Alpha is still the best, and no rival any more.
    assert selected(scene) == [BETA]


def test_only_a_cohort_in_paper_selects(store: Store) -> None:
    scene = opened(store, TOP_ONE)
    scene.bind(ALPHA)
    scene.demote(ALPHA)  # So that it stays in backtest, and is alone there.
    scene.submit(ALPHA, good(30))
    scene.cohort((ALPHA,), stage=Stage.BACKTEST)
    assert selected(scene) == []
    assert Stage.BACKTEST in {stage for _, stage in scene.view.runs}, "judged all the same"


def test_a_selection_under_another_policy_is_none(store: Store) -> None:
    scene = crowd(store, POLICY)  # It takes two.
    scene.cohort(ALL)
    assert selected(scene) == [ALPHA, BETA]
    scene.add_policy(TOP_ONE, "one")
    scene.set_default(2)
    scene.evaluate(BETA)
    assert selected(scene) == [ALPHA]
    blocked = scene.plan(BETA).blocked
    assert blocked is not None
    assert R.SELECTION_FAILED in blocked.reasons
    scene.cohort(ALL)
    assert selected(scene) == [ALPHA]


def test_who_is_not_selected_is_not_promoted(store: Store) -> None:
    scene = crowd(store)
    scene.cohort(ALL)
    scene.approve(GAMMA, cast.PIA)
    scene.approve(GAMMA, cast.PETE)
    answer = scene.apply(GAMMA)
    assert isinstance(answer, Blocked)
    assert R.SELECTION_FAILED in answer.reasons


def test_evaluating_one_by_one_selects_nobody(store: Store) -> None:
    scene = crowd(store)
    for sid in ALL:
        told = scene.evaluate(sid)
        assert told.run.verdict is PASS
        assert not told.active
    assert selected(scene) == []


# ---- Restated back -----------------------------------------------------------------------------


def test_history_that_is_restated_back_is_judged_again(store: Store) -> None:
    scene = opened(store, LONELY)
    scene.submit(ALPHA, -good(30))
    first = store.series(scene.world_id, ALPHA, Stage.BACKTEST)
    end = scene.now - DAY
    scene.restate(Stage.BACKTEST, ALPHA, daily(good(30), end))
    scene.restate(Stage.BACKTEST, ALPHA, daily(first.r, end))
    assert scene.view.tracks[Stage.BACKTEST].judged_t[0] == NEVER
    assert len(scene.loop().actions) == 1
    assert scene.view.verdict(0, Stage.BACKTEST) is FAIL
    assert scene.tick().actions == ()


def test_proposing_names_who_evaluated(store: Store) -> None:
    scene = proposed(store)
    assert open_candidate(scene.view).proposer == cast.LOOP
