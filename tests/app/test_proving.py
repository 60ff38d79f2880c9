"""Evidence in the life of a strategy: what it stops, and that enough of it stops nothing."""

from dataclasses import replace

import numpy as np
import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.app import campaigns, explanations
from qmtl.core import proving
from qmtl.core.columns import Float
from qmtl.core.evidence.sharpe import selection_p
from qmtl.core.facts import CandidateVoided, Demoted, PromotionApplied
from qmtl.core.names import Phase, Reason, Stage, StrategyId, Verdict
from qmtl.core.policy import (
    AutoApply,
    Bound,
    Consistency,
    Evidence,
    Futility,
    Gates,
    PaperEvidence,
    Policy,
    RampStep,
    Risk,
    Window,
)
from qmtl.core.promotion import Blocked
from qmtl.core.proof import terms
from qmtl.core.snapshot import PostedSeries
from qmtl.core.times import micros
from qmtl.core.view import Activation
from qmtl.sim.scene import DAY, Scene
from tests.worlds import ALPHA, BETA, LONELY, governed, opened

R = Reason
RAMP = (RampStep(fraction=0.25, e_value=3.0), RampStep(fraction=1.0, e_value=20.0))
BARE = Evidence(
    selection_max_p=None,
    paper=PaperEvidence(block=1, design_sharpe_annual=8.0),  # So that a test is short.
    futility=None,
    consistency=None,
    decay_mean_false_alarm=None,
)


def asking(evidence: Evidence = BARE, **governance: object) -> Policy:
    """Nothing but evidence: no gates, no approvals, no cooldown."""
    asked = {"live_promotion": AutoApply(), "cooldown": 0 * DAY, "ramp": RAMP, **governance}
    base = governed(LONELY, **asked)
    paper = Window(span=DAY, min_observations=2, max_window=None)
    return replace(
        base,
        campaign=replace(base.campaign, paper=paper),
        gates=Gates(),
        evidence=evidence,
        risk=Risk(),
    )


def noise(count: int, mean: float, seed: int = 0) -> Float:
    """Returns of deviation .01 whose mean is just this one."""
    r = np.random.default_rng(seed).normal(0.0, 0.01, count)
    return r - r.mean() + mean


def world(policy: Policy, *sids: StrategyId, backtest: Float | None = None) -> Scene:
    scene = opened(MemoryStore(), policy)
    for sid in sids or (ALPHA,):
        scene.submit(sid, noise(30, 0.003) if backtest is None else backtest)
    return scene


def days(scene: Scene, stage: Stage, returns: Float, *sids: StrategyId, **more: object) -> None:
    """A bar a day, and a round of the loop after it."""
    for r in returns:
        scene.wait(DAY)
        scene.bar(stage, dict.fromkeys(sids or (ALPHA,), float(r)), **more)
        scene.loop()


def phase(scene: Scene, sid: StrategyId = ALPHA) -> Phase:
    return scene.view.phase(scene.view.strategies[sid].row)


def facts(scene: Scene, kind: type) -> list:
    entries = scene.store.journal(scene.world_id, 0, 10_000)
    return [entry.fact for entry in entries if isinstance(entry.fact, kind)]


# ---- The ramp ----------------------------------------------------------------------------------


def test_capital_follows_evidence() -> None:
    scene = world(asking())
    days(scene, Stage.PAPER, noise(9, 0.012))
    assert phase(scene) is Phase.PAPER  # Nine blocks say nothing.
    days(scene, Stage.PAPER, noise(6, 0.012, 1))
    assert phase(scene) is Phase.LIVE
    (applied,) = facts(scene, PromotionApplied)
    assert applied.step == 0
    assert applied.e_value >= 3.0
    days(scene, Stage.LIVE, noise(30, 0.012, 2))
    _, second = facts(scene, PromotionApplied)
    assert second.step == 1
    assert second.e_value >= 20.0  # Of paper and live together: it runs on.
    assert scene.view.live[ALPHA].weight == pytest.approx(0.4)


def test_without_skill_nothing_moves_however_often_one_looks() -> None:
    scene = world(asking())
    days(scene, Stage.PAPER, noise(60, 0.0))
    for _ in range(20):
        scene.loop()
        scene.evaluate(ALPHA)
    assert phase(scene) is Phase.PAPER
    assert not facts(scene, PromotionApplied)


def test_the_gate_says_how_much_there_is_and_is_asked_for() -> None:
    scene = world(asking())
    days(scene, Stage.PAPER, noise(20, 0.001))
    plan = scene.plan(ALPHA)
    assert plan.blocked is not None
    (detail,) = [d for r, d in plan.blocked.problems if r is R.EVIDENCE_INSUFFICIENT]
    assert detail.startswith("evidence: an e-value (t mixture) of ")
    assert detail.endswith("step 1 of the ramp asks for 3")


def test_a_candidate_is_void_once_its_evidence_is_below_the_step() -> None:
    manual = replace(asking(), governance=replace(LONELY.governance, ramp=RAMP))
    scene = world(manual)
    days(scene, Stage.PAPER, noise(15, 0.012))
    assert scene.view.open_candidate(ALPHA) is not None
    days(scene, Stage.PAPER, noise(3, -0.03))
    assert scene.view.open_candidate(ALPHA) is None
    assert facts(scene, CandidateVoided)[-1].reason is R.EVIDENCE_INSUFFICIENT


# ---- Many --------------------------------------------------------------------------------------


def shown(scene: Scene, sid: StrategyId = ALPHA, step: int = 1) -> proving.Shown:
    found = proving.shown(scene.view, scene.view.strategies[sid].row, step, scene.view.policy)
    assert found is not None
    return found


def of(multiplicity: str) -> Policy:
    return asking(replace(BARE, multiplicity=multiplicity))


@pytest.mark.parametrize(
    ("multiplicity", "threshold", "budget", "rivals"),
    [
        ("e_bh", 40.0, 0.5, 2),
        ("spending", 1 / (0.05 * 50 / (51 * 52)), 50 / (51 * 52), 2),
        ("per_strategy", 20.0, 1.0, None),
    ],
)
def test_the_last_step_pays_for_all_that_were_looked_at(
    multiplicity: str, threshold: float, budget: float, rivals: int | None
) -> None:
    """Of beta, the second of two."""
    scene = world(of(multiplicity), ALPHA, BETA)
    found = shown(scene, BETA)
    assert (found.threshold, found.budget) == pytest.approx((threshold, budget))
    assert found.rivals == rivals
    assert shown(scene, BETA, 0).threshold == 3.0  # The first is its own affair.


def test_a_retired_campaign_was_looked_at_too() -> None:
    scene = world(of("e_bh"), ALPHA, BETA)
    scene.demote(BETA, Phase.RETIRED)
    assert shown(scene).threshold == pytest.approx(40.0)


def test_one_at_the_top_that_is_strong_halves_the_threshold_of_the_next() -> None:
    scene = world(of("e_bh"), ALPHA, BETA)
    view = scene.view
    strong = {"blocks": 100.0, "block_mean": 0.01, "block_m2": 0.0001 * 99}
    row = view.strategies[BETA].row
    up = view.standings.put(row, step=1)
    view = replace(view, standings=up, proof=view.proof.put(row, **strong))
    alpha = view.strategies[ALPHA].row
    found = proving.shown(view, alpha, 1, view.policy)
    assert found is not None
    assert found.threshold == pytest.approx(20.0)
    weak = replace(view, proof=view.proof.put(row, carried=1e-12))
    found = proving.shown(weak, alpha, 1, view.policy)
    assert found is not None
    assert found.threshold == pytest.approx(40.0)  # Of today: what it was once does not count.


def test_credit_of_the_backtest_lowers_the_last_threshold_only() -> None:
    ramp = (RAMP[0], RampStep(fraction=1.0))
    credited = replace(BARE, paper=PaperEvidence(block=1, backtest_credit_cap=3.0))
    scene = world(asking(credited, ramp=ramp), backtest=noise(60, 0.01))
    assert shown(scene).threshold == pytest.approx(20.0 / 3.0)
    assert shown(scene, step=0).threshold == 3.0
    scene = world(asking(ramp=ramp), backtest=noise(60, 0.01))  # The default: none.
    assert shown(scene).threshold == pytest.approx(20.0)
    scene = world(asking(credited), backtest=noise(60, 0.01))  # A step's own is not lowered.
    assert shown(scene).threshold == pytest.approx(20.0)


# ---- The backtest ------------------------------------------------------------------------------

SELECTIVE = asking(replace(BARE, selection_max_p=0.05, trials_default=10))


def test_the_best_of_ten_has_to_be_better_than_the_best_of_one() -> None:
    r = noise(60, 0.01 * 2.05 / np.sqrt(60))
    assert selection_p(r, 1) < 0.05
    scene = world(SELECTIVE, backtest=r)
    assert phase(scene) is Phase.BACKTEST
    run = scene.evaluate(ALPHA).run
    assert run.verdict is Verdict.FAIL
    assert run.reasons == (R.EVIDENCE_INSUFFICIENT,)
    assert run.value("trials") == 10.0
    assert run.value("selection_p") == pytest.approx(selection_p(r, 10))
    assert run.details[0].startswith("backtest selection_p must be at most 0.05: it is 0.3")


def test_whoever_declares_one_variant_is_one_of_one() -> None:
    scene = world(SELECTIVE, backtest=noise(60, 0.01 * 2.05 / np.sqrt(60)))
    view = scene.view
    honest = replace(view.strategies[ALPHA], variants_tried=1)
    assert proving.trials(view, ALPHA, 10) == 10
    view = replace(view, strategies=view.strategies.set(ALPHA, honest))
    assert proving.trials(view, ALPHA, 10) == 1


def test_every_other_submission_on_the_same_data_is_a_trial() -> None:
    scene = world(asking(), ALPHA, BETA)
    view = scene.view
    assert proving.trials(view, ALPHA, 10) == 11  # Beta declared nothing: one.
    beta = replace(view.strategies[BETA], variants_tried=200)
    more = replace(view, strategies=view.strategies.set(BETA, beta))
    assert proving.trials(more, ALPHA, 10) == 210
    elsewhere = replace(beta, parts={"data": "other"})
    apart = replace(view, strategies=view.strategies.set(BETA, elsewhere))
    assert proving.trials(apart, ALPHA, 10) == 10
    version = replace(elsewhere, family=ALPHA)  # A version of it is on the same data.
    kin = replace(view, strategies=view.strategies.set(BETA, version))
    assert proving.trials(kin, ALPHA, 10) == 210
    by_others = replace(beta, author="ben")
    theirs = replace(view, strategies=view.strategies.set(BETA, by_others))
    assert proving.trials(theirs, ALPHA, 10) == 10


def test_a_flat_backtest_has_no_p_and_does_not_pass() -> None:
    scene = world(SELECTIVE, backtest=np.full(60, 0.001))
    run = scene.evaluate(ALPHA).run
    assert (run.verdict, run.value("selection_p")) == (Verdict.FAIL, None)
    assert phase(scene) is Phase.BACKTEST


# ---- Consistency -------------------------------------------------------------------------------

CONSISTENT = asking(replace(BARE, consistency=Consistency()))


def test_paper_without_replays_is_not_known_to_be_consistent() -> None:
    scene = world(CONSISTENT)
    days(scene, Stage.PAPER, noise(20, 0.012))
    run = scene.evaluate(ALPHA).run
    assert (run.verdict, run.reasons) == (Verdict.FAIL, (R.CONSISTENCY_FAILED,))
    assert "too few replays were posted beside the returns" in run.details[0]
    assert phase(scene) is Phase.PAPER


@pytest.mark.parametrize(("left_out", "verdict"), [(3, Verdict.PASS), (4, Verdict.FAIL)])
def test_paper_is_compared_on_nine_bars_of_ten(left_out: int, verdict: Verdict) -> None:
    """Whoever chose which bars are compared would choose the answer."""
    scene = world(CONSISTENT)
    for number, r in enumerate(noise(30, 0.012)):
        scene.wait(DAY)
        replay = {} if number < left_out else {ALPHA: float(r)}
        scene.bar(Stage.PAPER, {ALPHA: float(r)}, replay=replay)
    assert scene.evaluate(ALPHA).run.verdict is verdict


def test_who_leaves_out_the_bad_bars_is_not_consistent() -> None:
    scene = world(CONSISTENT)
    for r in noise(60, 0.0, 4):
        scene.wait(DAY)
        earned = {} if r < -0.005 else {ALPHA: float(r)}
        scene.bar(Stage.PAPER, earned, replay={ALPHA: float(r)}, weights={ALPHA: 1.0})
    run = scene.evaluate(ALPHA).run
    assert (run.verdict, run.reasons) == (Verdict.FAIL, (R.CONSISTENCY_FAILED,) * len(run.reasons))
    told = explanations.explanation(scene.store, scene.view, ALPHA, scene.now)
    (cause,) = [s for s in told.sentences if "cause is" in s]
    left = int(scene.view.proof.unrealised[0])
    assert left > 6
    assert f"{left} bars of the engine's without a return" in cause


@pytest.mark.parametrize(
    ("apart", "metric"),
    [
        (np.zeros(30), None),
        (noise(30, 0.0) / 100, None),
        (noise(30, 0.0, 3) * 2, "tracking_error_annual"),
        (noise(30, 0.0, 3) / 100 - 0.0005, "drift_annual"),  # Costs that the engine does not know.
    ],
    ids=["the same", "nearly", "another strategy", "costs"],
)
def test_paper_has_to_be_what_its_engine_makes_of_the_bars(
    apart: Float, metric: str | None
) -> None:
    scene = world(CONSISTENT)
    for r, d in zip(noise(30, 0.012), apart, strict=True):
        scene.wait(DAY)
        scene.bar(Stage.PAPER, {ALPHA: float(r + d)}, replay={ALPHA: float(r)})
    run = scene.evaluate(ALPHA).run
    failed = [gate.metric for gate in run.gates if gate.verdict is not Verdict.PASS]
    assert failed == ([] if metric is None else [metric])
    assert run.verdict is (Verdict.PASS if metric is None else Verdict.FAIL)


@pytest.mark.parametrize(
    ("apart", "said"),
    [
        (
            noise(40, 0.0, 3) / 100 - 0.0005,
            "% a year less than its replay, and evenly; look at fees",
        ),
        (noise(40, 0.0, 3) * 2, "different data: bar by bar the two differ both ways"),
        (np.where(np.arange(40) % 2, np.nan, -0.001), "missing bars: 20 of 40 returns came with"),
        (np.zeros(40), None),
    ],
    ids=["costs", "data", "bars", "none"],
)
def test_the_likely_cause_of_drift_is_said(apart: Float, said: str | None) -> None:
    scene = world(CONSISTENT)
    for r, d in zip(noise(40, 0.012), apart, strict=True):
        scene.wait(DAY)
        replay = {} if np.isnan(d) else {ALPHA: float(r - d)}
        scene.bar(Stage.PAPER, {ALPHA: float(r)}, replay=replay)
    scene.evaluate(ALPHA)
    told = explanations.explanation(scene.store, scene.view, ALPHA, scene.now)
    causes = [s for s in told.sentences if "cause is" in s]
    assert [said in cause for cause in causes if said] == ([] if said is None else [True])
    assert bool(causes) == (said is not None), told.sentences
    assert not causes or causes[0] in {wait.sentence for wait in told.waits_for}


# ---- Futility, and decay -----------------------------------------------------------------------


def test_what_the_returns_refute_leaves_the_campaign() -> None:
    scene = world(asking(replace(BARE, futility=Futility(sharpe_annual=3.0, beta=0.1))))
    days(scene, Stage.PAPER, noise(60, -0.004))
    assert phase(scene) is Phase.RETIRED
    status = campaigns.status(scene.store, scene.view, ALPHA, scene.now)
    assert R.FUTILE in {reason for reason, _ in status.problems}


def test_a_losing_strategy_without_futility_stays() -> None:
    scene = world(asking())
    days(scene, Stage.PAPER, noise(60, -0.004))
    assert phase(scene) is Phase.PAPER


DECAYING = asking(replace(BARE, decay_mean_false_alarm=100))


def gone_live(policy: Policy) -> Scene:
    """After enough of paper that one knows what it was."""
    window = replace(policy.campaign.paper, min_observations=37)
    scene = world(replace(policy, campaign=replace(policy.campaign, paper=window)))
    days(scene, Stage.PAPER, noise(37, 0.008))
    scene.loop()
    assert phase(scene) is Phase.LIVE
    return scene


def test_live_that_ceases_to_be_paper_is_demoted_by_the_bar_that_shows_it() -> None:
    scene = gone_live(DECAYING)
    (applied,) = facts(scene, PromotionApplied)[:1]
    assert applied.healthy is not None
    for r in noise(60, -0.006, 5):
        scene.wait(DAY)
        scene.bar(Stage.LIVE, {ALPHA: float(r)})  # No loop: nobody evaluates.
        if phase(scene) is Phase.PAPER:
            break
    (down,) = facts(scene, Demoted)
    assert (down.reason, down.held) == (R.DECAYED, False)
    assert "ceased to be those of paper" in down.detail


def test_an_alarm_between_two_posts_is_an_alarm() -> None:
    """Many bars in one post are watched bar by bar as well: a recovery undoes nothing."""
    scene = gone_live(DECAYING)
    returns = np.array([*noise(20, -0.012, 5), *np.full(20, 0.04)])
    times = [micros(scene.now + (i + 1) * DAY / 10) for i in range(len(returns))]
    scene.wait(4 * DAY)
    scene.post(Stage.LIVE, {ALPHA: PostedSeries(np.array(times, np.int64), returns)})
    assert [down.reason for down in facts(scene, Demoted)] == [R.DECAYED]


def test_live_that_keeps_up_stays() -> None:
    scene = gone_live(DECAYING)
    days(scene, Stage.LIVE, noise(60, 0.005, 5))
    assert phase(scene) is Phase.LIVE


def test_without_decay_nothing_is_fixed_and_nobody_demoted() -> None:
    scene = gone_live(asking())
    assert facts(scene, PromotionApplied)[0].healthy is None
    days(scene, Stage.LIVE, noise(60, -0.006, 5))
    assert phase(scene) is Phase.LIVE


# ---- What one is told --------------------------------------------------------------------------


def test_status_says_how_far_it_is_and_when_it_is_there() -> None:
    scene = world(asking())
    days(scene, Stage.PAPER, noise(20, 0.002))
    status = campaigns.status(scene.store, scene.view, ALPHA, scene.now)
    assert status.shown is not None
    assert status.shown.e_value is not None
    assert 0.0 <= status.shown.e_value < status.shown.threshold == 3.0
    assert status.eta is not None
    at = {1: status.eta.sharpe_1, 2: status.eta.sharpe_2, 3: status.eta.at_observed}
    assert all(end is not None and end > scene.now for end in at.values())
    assert sorted(at, key=lambda sharpe: str(at[sharpe])) == [3, 2, 1]  # It shows more than 2.


def test_a_tick_says_what_was_shown_of_who_waits_at_the_gate() -> None:
    manual = replace(asking(), governance=replace(LONELY.governance, ramp=RAMP))
    scene = world(manual)
    days(scene, Stage.PAPER, noise(15, 0.012))
    (action,) = scene.tick().actions
    assert action.shown is not None
    assert action.shown.enough
    assert action.shown.threshold == 3.0


def test_a_declared_end_is_no_date_beyond_it() -> None:
    """What t_mixture would show in ten years, group_sequential will not after two."""
    declared = replace(BARE.paper, method="group_sequential", block=5)
    policy = asking(replace(BARE, paper=declared))
    window = replace(policy.campaign.paper, max_window=730 * DAY)
    scene = world(replace(policy, campaign=replace(policy.campaign, paper=window)))
    days(scene, Stage.PAPER, noise(60, 0.0))
    eta = proving.eta(scene.view, 0, 1, scene.view.policy, scene.now)
    assert eta.sharpe_1 is None
    assert eta.sharpe_2 is None or eta.sharpe_2 < scene.now + 730 * DAY


@pytest.mark.parametrize("method", ["t_mixture", "bounded", "group_sequential"])
def test_each_method_lets_the_good_through(method: str) -> None:
    paper = replace(BARE.paper, method=method)  # type: ignore[arg-type]  # One of three.
    floor = Gates(by_stage={Stage.LIVE: (Bound(metric="max_bar_loss", max=0.1),)})
    policy = replace(asking(replace(BARE, paper=paper)), gates=floor)
    if method == "group_sequential":
        window = replace(policy.campaign.paper, max_window=60 * DAY)
        policy = replace(policy, campaign=replace(policy.campaign, paper=window))
        assert terms(policy).horizon == 60
    scene = world(policy)
    days(scene, Stage.PAPER, noise(50, 0.012))
    assert phase(scene) is Phase.LIVE


def test_a_strategy_at_the_gate_without_evidence_is_refused_and_it_is_recorded() -> None:
    manual = replace(asking(), governance=replace(LONELY.governance, ramp=RAMP))
    scene = world(manual)
    days(scene, Stage.PAPER, noise(15, 0.012))
    run_id = scene.candidate(ALPHA).run_id
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: -0.09})  # And nobody has judged it.
    answer = scene.apply(ALPHA, run_id)
    assert isinstance(answer, Blocked)
    assert R.EVIDENCE_INSUFFICIENT in answer.reasons
    assert not isinstance(answer, Activation)
