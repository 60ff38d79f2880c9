"""Live promotion from end to end: approvals, the gate, what is recorded, and every way down."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from qmtl.app.ports import Store
from qmtl.app.promotions import candidates
from qmtl.core import facts as f
from qmtl.core.activation import Change
from qmtl.core.errors import (
    Changed,
    Conflict,
    Forbidden,
    Invalid,
    UnknownCandidate,
    UnknownRun,
    UnknownStrategy,
)
from qmtl.core.names import Digest, Mode, Phase, Reason, RunId, Stage, StrategyId
from qmtl.core.policy import Disabled, ManualApproval
from qmtl.core.promotion import Blocked
from qmtl.core.view import Activation, Applied, Approved, Proposed, Rejected, Void
from qmtl.sim import cast
from qmtl.sim.scene import DAY, Scene, daily
from tests.worlds import (
    ALPHA,
    AUTO,
    BETA,
    GAMMA,
    MINUTE,
    PAPER_DAYS,
    POLICY,
    approved,
    climbed,
    good,
    good_bar,
    governed,
    in_paper,
    live,
    observe,
    observed,
    open_candidate,
    proposed,
)

R = Reason
HOURS_72 = timedelta(hours=72)
STRESS = {"crash": 0.1}


def facts(scene: Scene, kind: type[Any]) -> list[Any]:
    entries = scene.store.journal(scene.world_id, 0, 10_000)
    return [entry.fact for entry in entries if isinstance(entry.fact, kind)]


def refresh(scene: Scene, stage: Stage = Stage.PAPER, **returns: float) -> None:
    """Another good bar, a day later, so that there is a fresh snapshot."""
    scene.wait(DAY)
    told = {StrategyId(sid): r for sid, r in returns.items()} or {ALPHA: good_bar(scene)}
    scene.bar(stage, told, stress=dict.fromkeys(told, STRESS))


def blocked(answer: Activation | Blocked) -> tuple[Reason, ...]:
    assert isinstance(answer, Blocked), answer
    return answer.reasons


# ---- Apply -------------------------------------------------------------------------------------


def test_through_the_gate(store: Store) -> None:
    scene = approved(store)
    run_id = open_candidate(scene.view).run_id
    activation = scene.apply(ALPHA)
    assert isinstance(activation, Activation)
    assert activation == scene.view.live[ALPHA]
    assert (activation.step, activation.weight, activation.run_id) == (0, 0.1, run_id)
    assert activation.sequence == scene.view.governance_generation
    assert scene.view.phase(0) is Phase.LIVE
    assert scene.decide(ALPHA).effective_mode is Mode.LIVE
    (told,) = facts(scene, f.PromotionApplied)
    snapshot = store.snapshot_at(scene.world_id, told.snapshot_seq)
    assert snapshot is not None
    assert snapshot.fact.stage is Stage.PAPER


def test_twice_is_once(store: Store) -> None:
    scene = approved(store)
    run_id = open_candidate(scene.view).run_id
    first = scene.apply(ALPHA, run_id)
    seq = scene.view.seq
    scene.wait(10 * DAY)  # Whatever the gate would say now.
    assert scene.apply(ALPHA, run_id, actor=cast.LOOP) == first
    assert scene.view.seq == seq
    assert len(facts(scene, f.PromotionApplied)) == 1


def test_up_the_ramp_to_the_top(store: Store) -> None:
    scene = climbed(store)
    first = scene.view.live[ALPHA]
    run_id = open_candidate(scene.view).run_id
    second = scene.apply(ALPHA)
    assert isinstance(second, Activation)
    assert (second.step, second.weight) == (1, 0.4)
    assert second.sequence > first.sequence
    assert scene.apply(ALPHA, run_id) == second
    observe(scene, Stage.LIVE, 7)
    scene.evaluate(ALPHA)
    assert scene.view.open_candidate(ALPHA) is None  # There is nothing above.
    assert scene.plan(ALPHA).blocked is not None


def test_a_refusal_changes_nothing_but_its_record_and_is_recorded_once(store: Store) -> None:
    scene = proposed(store)
    before = scene.view
    first = blocked(scene.apply(ALPHA))
    assert first == (R.MANUAL_APPROVAL_REQUIRED,)
    recorded = scene.view
    assert recorded.seq == before.seq + 1
    assert recorded.blocked[ALPHA] == first
    candidate = open_candidate(before)
    assert facts(scene, f.PromotionBlocked) == [
        f.PromotionBlocked(
            strategy_id=ALPHA,
            candidate_id=candidate.candidate_id,
            reasons=first,
            details=("0 of 2 approvals",),
        )
    ]
    for _ in range(3):
        assert blocked(scene.apply(ALPHA)) == first
    assert scene.view.seq == recorded.seq
    scene.wait(DAY)  # Another reason joins: another record.
    both = blocked(scene.apply(ALPHA))
    assert both == (R.MANUAL_APPROVAL_REQUIRED, R.RISK_SNAPSHOT_EXPIRED)
    scene.apply(ALPHA)
    assert len(facts(scene, f.PromotionBlocked)) == 2


def test_after_a_success_the_same_refusal_is_news_again(store: Store) -> None:
    scene = proposed(store)
    blocked(scene.apply(ALPHA))
    scene.approve(ALPHA, cast.PIA)
    scene.approve(ALPHA, cast.PETE)
    scene.apply(ALPHA)
    assert scene.view.blocked[ALPHA] == ()


def test_nobody_is_applied_by_a_run_that_proposed_nothing(store: Store) -> None:
    scene = approved(store)
    with pytest.raises(UnknownRun):
        scene.apply(ALPHA, RunId("x"))
    with pytest.raises(UnknownStrategy):
        scene.apply(StrategyId("omega"), RunId("x"))
    backtest = scene.view.runs[ALPHA, Stage.BACKTEST].run_id
    assert R.CANDIDATE_SUPERSEDED in blocked(scene.apply(ALPHA, backtest))


def test_apply_looks_at_evidence_that_nobody_has_judged_yet(store: Store) -> None:
    scene = approved(store)
    refresh(scene, alpha=-0.5)
    assert R.VALIDATION_FAILED in blocked(scene.apply(ALPHA))
    assert not scene.view.live


def test_a_plan_says_what_apply_would_do_and_does_nothing(store: Store) -> None:
    scene = approved(store)
    seq = scene.view.seq
    plan = scene.plan(ALPHA)
    assert (plan.blocked, plan.activate, plan.weights) == (None, (ALPHA,), {ALPHA: 0.1})
    assert plan.cooldown_remaining_sec == 0.0
    assert scene.view.seq == seq
    scene.apply(ALPHA)
    again = scene.plan(ALPHA)
    assert again.blocked is not None
    assert (again.activate, again.weights) == ((), {ALPHA: 0.1})
    assert again.cooldown_remaining_sec == 86_400.0


def test_cooldown_slots_and_weight_hold_the_next_one(store: Store) -> None:
    policy = governed(replace(POLICY, selection=None), max_live_slots=1)
    scene = in_paper(store, policy, ALPHA, BETA)
    observe(scene, Stage.PAPER, PAPER_DAYS, ALPHA, BETA)
    for sid in (ALPHA, BETA):
        scene.evaluate(sid)
        scene.approve(sid, cast.PIA)
        scene.approve(sid, cast.PETE)
    assert isinstance(scene.apply(ALPHA), Activation)
    # The two are the same series: correlated, too.
    assert set(blocked(scene.apply(BETA))) == {
        R.MAX_LIVE_SLOTS_EXCEEDED,
        R.COOLDOWN_ACTIVE,
        R.CORRELATION_EXCEEDED,
    }


# ---- Approvals ---------------------------------------------------------------------------------


def test_one_approval_of_two_is_not_enough(store: Store) -> None:
    scene = proposed(store)
    scene.approve(ALPHA, cast.PIA)
    assert blocked(scene.apply(ALPHA)) == (R.APPROVALS_INSUFFICIENT,)
    told = scene.approve(ALPHA, cast.PETE)
    assert isinstance(told.standing, Approved)
    assert isinstance(scene.apply(ALPHA), Activation)


def test_the_author_and_the_proposer_are_refused_and_nothing_changes(store: Store) -> None:
    scene = proposed(store)
    seq = scene.view.seq
    for actor in (cast.ANN, cast.LOOP, cast.OTTO, cast.FEED):
        with pytest.raises(Forbidden):
            scene.approve(ALPHA, actor)
    assert scene.view.seq == seq


def test_an_approval_expires_and_may_be_given_again(store: Store) -> None:
    scene = approved(store)
    scene.wait(HOURS_72 - DAY)
    refresh(scene)
    assert set(blocked(scene.apply(ALPHA))) == {R.APPROVALS_INSUFFICIENT, R.APPROVAL_EXPIRED}
    scene.approve(ALPHA, cast.PIA)
    scene.approve(ALPHA, cast.PETE)
    assert isinstance(scene.apply(ALPHA), Activation)


def test_another_good_bar_voids_no_approval(store: Store) -> None:
    scene = approved(store)
    before = open_candidate(scene.view)
    refresh(scene)
    scene.cohort([ALPHA])
    after = open_candidate(scene.view)
    assert after.candidate_id == before.candidate_id
    assert after.approvals == before.approvals
    assert after.evidence != before.evidence
    assert isinstance(after.standing, Approved)
    assert isinstance(scene.apply(ALPHA), Activation)


def test_what_an_approver_saw_must_be_current(store: Store) -> None:
    scene = proposed(store)
    seen = open_candidate(scene.view).evidence
    with pytest.raises(Changed):
        scene.approve(ALPHA, cast.PIA, evidence=Digest("old"))
    told = scene.approve(ALPHA, cast.PIA, evidence=seen)
    assert told.approvals[0].evidence == seen
    refresh(scene)
    scene.cohort([ALPHA])
    with pytest.raises(Changed):
        scene.approve(ALPHA, cast.PETE, evidence=seen)


def test_an_approval_taken_back_counts_no_more(store: Store) -> None:
    scene = approved(store)
    told = scene.withdraw(ALPHA, cast.PIA)
    assert isinstance(told.standing, Proposed)
    assert blocked(scene.apply(ALPHA)) == (R.APPROVALS_INSUFFICIENT,)
    seq = scene.view.seq
    scene.withdraw(ALPHA, cast.PIA)
    assert scene.view.seq == seq


def test_another_policy_voids(store: Store) -> None:
    scene = approved(store)
    run_id = open_candidate(scene.view).run_id
    scene.add_policy(governed(cooldown=2 * DAY), "other")
    scene.set_default(2)
    assert scene.view.open_candidate(ALPHA) is None
    with pytest.raises(UnknownCandidate):
        scene.approve(ALPHA, cast.PIA, run_id)
    assert R.CANDIDATE_SUPERSEDED in blocked(scene.apply(ALPHA, run_id))
    scene.cohort([ALPHA])
    again = open_candidate(scene.view)
    assert (again.policy_version, again.approvals) == (2, ())


def test_another_fingerprint_voids(store: Store) -> None:
    scene = in_paper(store)
    scene.bind(BETA, fingerprint=None)
    scene.submit(BETA, good(30), fingerprint=None)
    observe(scene, Stage.PAPER, PAPER_DAYS, ALPHA, BETA)
    scene.cohort([ALPHA, BETA])
    scene.approve(BETA, cast.PIA)
    run_id = scene.candidate(BETA).run_id
    seq = scene.view.seq
    scene.bind(BETA, fingerprint="told at last")
    bound, voided = (entry.fact for entry in store.journal(scene.world_id, seq, 10))
    assert isinstance(bound, f.StrategyBound)
    assert isinstance(voided, f.CandidateVoided)
    assert voided.reason is R.FINGERPRINT_CHANGED
    with pytest.raises(UnknownCandidate):
        scene.approve(BETA, cast.PETE, run_id)
    assert R.CANDIDATE_SUPERSEDED in blocked(scene.apply(BETA, run_id))


def test_another_fingerprint_lifts_no_rejection(store: Store) -> None:
    scene = in_paper(store)
    scene.submit(BETA, good(30), fingerprint=None)
    observe(scene, Stage.PAPER, PAPER_DAYS, ALPHA, BETA)
    scene.cohort([ALPHA, BETA])
    scene.reject(BETA)
    scene.bind(BETA, fingerprint="told at last")
    assert isinstance(open_candidate(scene.view, BETA).standing, Rejected)


VOIDS: list[tuple[str, Any, R]] = [
    ("paper was restated", lambda s: s.restate(
        Stage.PAPER, ALPHA, daily(good(40), s.now - DAY)), R.EVIDENCE_CHANGED),
    ("the backtest was restated", lambda s: s.restate(
        Stage.BACKTEST, ALPHA, daily(good(40), s.now - DAY)), R.EVIDENCE_CHANGED),
    ("another policy", lambda s: (s.add_policy(AUTO, "auto"), s.set_default(2)), R.POLICY_CHANGED),
    ("a run that fails", lambda s: losing(s), R.VALIDATION_FAILED),
    ("an operator's demotion", lambda s: s.demote(ALPHA, f.Phase.RETIRED), R.MANUAL),
]  # fmt: skip


def losing(scene: Scene) -> None:
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: -0.5}, stress={ALPHA: STRESS})
    scene.cohort([ALPHA])


@pytest.mark.parametrize(("what", "change", "reason"), VOIDS, ids=[v[0] for v in VOIDS])
def test_approvals_that_are_void_say_why(store: Store, what: str, change: Any, reason: R) -> None:
    scene = approved(store)
    before = scene.candidate(ALPHA)
    change(scene)
    gone = scene.view.candidates[before.candidate_id].standing
    assert isinstance(gone, Void), what
    assert gone.reason is reason
    assert R.CANDIDATE_SUPERSEDED in blocked(scene.apply(ALPHA, before.run_id))


@pytest.mark.parametrize("stage", [Stage.BACKTEST, Stage.PAPER])
def test_a_restatement_voids(store: Store, stage: Stage) -> None:
    scene = approved(store)
    run_id = open_candidate(scene.view).run_id
    scene.restate(stage, ALPHA, daily(good(40), scene.now - DAY))
    assert scene.view.open_candidate(ALPHA) is None
    missing = R.NOT_PAPER_STAGE if stage is Stage.BACKTEST else R.PAPER_RUN_MISSING
    assert {R.CANDIDATE_SUPERSEDED, missing} <= set(blocked(scene.apply(ALPHA, run_id)))


# ---- Rejection and holds -----------------------------------------------------------------------


def test_a_rejection_holds_until_it_is_released(store: Store) -> None:
    scene = approved(store)
    told = scene.reject(ALPHA)
    assert told.standing == Rejected(cast.PIA, scene.now, "no")
    assert R.CANDIDATE_REJECTED in blocked(scene.apply(ALPHA, told.run_id))
    with pytest.raises(Conflict):
        scene.approve(ALPHA, cast.PETE)
    refresh(scene)
    scene.cohort([ALPHA])
    assert isinstance(open_candidate(scene.view).standing, Rejected)
    scene.release(ALPHA)
    again = open_candidate(scene.view)
    assert (again.standing, again.approvals) == (Proposed(), ())


def test_a_rejection_holds_across_another_policy(store: Store) -> None:
    scene = proposed(store)
    run_id = scene.reject(ALPHA).run_id
    scene.add_policy(AUTO, "auto")
    scene.set_default(2)
    refresh(scene)
    scene.cohort([ALPHA])
    scene.auto_apply()
    assert not scene.view.live
    assert isinstance(open_candidate(scene.view).standing, Rejected)
    assert R.CANDIDATE_REJECTED in blocked(scene.apply(ALPHA, run_id))
    scene.release(ALPHA)  # What it rejected is void by now.
    assert scene.view.open_candidate(ALPHA) is None
    scene.cohort([ALPHA])
    assert isinstance(open_candidate(scene.view).standing, Proposed)


def test_a_demotion_by_hand_holds_until_it_is_released(store: Store) -> None:
    scene = live(store)
    assert scene.demote(ALPHA) is Phase.PAPER
    assert not scene.view.live
    observe(scene, Stage.PAPER, PAPER_DAYS)
    scene.cohort([ALPHA])
    scene.approve(ALPHA, cast.PIA)
    scene.approve(ALPHA, cast.PETE)
    assert blocked(scene.apply(ALPHA)) == (R.HELD,)
    scene.release(ALPHA)
    assert isinstance(scene.apply(ALPHA), Activation)


def test_live_is_no_demotion(store: Store) -> None:
    scene = approved(store)
    with pytest.raises(Invalid):
        scene.demote(ALPHA, Phase.LIVE)
    assert not scene.view.live


def test_an_operator_lowers_freezes_drains_and_switches_off(store: Store) -> None:
    scene = live(store)
    scene.lower(ALPHA, Change(weight=0.05))
    assert scene.decide(ALPHA).weight == 0.05
    scene.lower(ALPHA, Change(freeze=True))
    assert scene.decide(ALPHA).effective_mode is Mode.COMPUTE_ONLY
    scene.lower(ALPHA, Change(freeze=False, drain=True, weight=0.1 + 1e-10))
    assert (scene.decide(ALPHA).weight, scene.view.live[ALPHA].weight) == (0.0, 0.1)
    scene.lower(ALPHA, Change(active=False))
    assert scene.decide(ALPHA).effective_mode is Mode.PAPER
    assert scene.view.standings.held[0]


# ---- Auto apply --------------------------------------------------------------------------------


def three(store: Store, **governance: Any) -> Scene:
    """Three candidates that apply themselves; gamma has the best evidence, then beta."""
    ramp = (replace(AUTO.governance.ramp[0], fraction=1.0),)
    policy = governed(
        replace(
            AUTO, selection=None, risk=replace(AUTO.risk, max_pairwise_correlation_to_live=None)
        ),
        **{"cooldown": timedelta(0), "ramp": ramp, **governance},
    )
    scene = in_paper(store, policy, ALPHA, BETA, GAMMA)
    for day in range(PAPER_DAYS):
        scene.wait(DAY)
        dip = -0.004 if day % 2 else 0.01
        told = {ALPHA: dip - 0.002, BETA: dip - 0.001, GAMMA: dip}
        scene.bar(Stage.PAPER, told, stress=dict.fromkeys(told, STRESS))
    for sid in (ALPHA, BETA, GAMMA):
        scene.evaluate(sid)
    return scene


def test_the_best_evidence_goes_first(store: Store) -> None:
    scene = three(store)
    told = scene.auto_apply()
    assert [activation.strategy_id for activation in told.applied] == [GAMMA, BETA]
    ((left, why),) = told.blocked
    assert left == ALPHA
    assert why.reasons == (R.MAX_LIVE_SLOTS_EXCEEDED, R.MAX_LIVE_WEIGHT_EXCEEDED)
    assert scene.view.blocked[ALPHA] == why.reasons
    seq = scene.view.seq
    again = scene.auto_apply()
    assert again.applied == ()
    assert scene.view.seq == seq


def test_each_promotion_cools_down_the_next(store: Store) -> None:
    scene = three(store, cooldown=DAY)
    told = scene.auto_apply()
    assert [activation.strategy_id for activation in told.applied] == [GAMMA]
    assert [why.reasons for _, why in told.blocked] == [(R.COOLDOWN_ACTIVE,)] * 2


def test_one_may_be_named(store: Store) -> None:
    scene = three(store)
    assert [a.strategy_id for a in scene.auto_apply(ALPHA).applied] == [ALPHA]
    assert scene.auto_apply(BETA, RunId("x")).applied == ()
    with pytest.raises(UnknownStrategy):
        scene.auto_apply(StrategyId("omega"))


def test_only_where_nobody_approves(store: Store) -> None:
    scene = approved(store)
    with pytest.raises(Conflict):
        scene.auto_apply()
    assert not scene.view.live


def test_auto_apply_skips_the_approval_and_nothing_else(store: Store) -> None:
    scene = observed(store, AUTO)
    assert scene.auto_apply().applied == ()  # There is no candidate yet.
    scene.cohort([ALPHA])
    scene.wait(DAY)
    ((_, why),) = scene.auto_apply().blocked
    assert why.reasons == (R.RISK_SNAPSHOT_EXPIRED,)


def test_a_loop_takes_a_strategy_from_backtest_to_the_top(store: Store) -> None:
    scene = observed(store, AUTO)
    for _ in range(3):
        scene.loop()
    assert scene.view.live[ALPHA].step == 0
    for _ in range(8):
        scene.wait(DAY)
        scene.bar(Stage.LIVE, {ALPHA: good_bar(scene)}, stress={ALPHA: STRESS})
        for _ in range(3):
            scene.loop()
    assert scene.view.live[ALPHA].step == 1
    assert scene.tick().actions == ()


# ---- Kill and allow_live -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "allow_live", "suspend"])
def test_what_was_live_goes_through_the_gates_anew(store: Store, how: str) -> None:
    scene = climbed(store)
    run_id = scene.view.live[ALPHA].run_id
    paper = scene.view.tracks[Stage.PAPER].window_us[0]
    if how == "kill":
        scene.kill()
        scene.resume()
    elif how == "allow_live":
        scene.allow_live(False)
        scene.allow_live(True)
    else:
        scene.change_state(f.WorldState.SUSPENDED)
        scene.change_state(f.WorldState.ACTIVE)
    assert not scene.view.live
    assert scene.view.tracks[Stage.PAPER].window_us[0] == paper
    assert all(isinstance(c.standing, Void) for c in scene.view.candidates.values())
    reasons = blocked(scene.apply(ALPHA, run_id))
    assert {R.CANDIDATE_SUPERSEDED, R.SELECTION_FAILED} <= set(reasons)
    refresh(scene)
    scene.loop()
    again = open_candidate(scene.view)
    assert (again.step, again.approvals, again.standing) == (0, (), Proposed())
    scene.approve(ALPHA, cast.PIA)
    scene.approve(ALPHA, cast.PETE)
    assert isinstance(scene.apply(ALPHA), Activation)


def test_under_a_policy_that_promotes_nobody_nobody_is(store: Store) -> None:
    scene = approved(store, governed(live_promotion=Disabled()))
    assert R.PROMOTION_DISABLED in blocked(scene.apply(ALPHA))
    with pytest.raises(Conflict):
        scene.approve(ALPHA, cast.PIA)


# ---- Breakers and restatements while live -------------------------------------------------------


def test_a_breach_demotes_in_the_commit_that_brings_it(store: Store) -> None:
    scene = live(store)
    scene.wait(DAY)
    seq = scene.view.seq
    scene.bar(Stage.LIVE, {ALPHA: -0.16})
    entries = store.journal(scene.world_id, seq, 10)
    assert [entry.fact.kind for entry in entries] == ["snapshot_stored", "demoted"]
    assert scene.view.phase(0) is Phase.PAPER
    assert scene.decide(ALPHA).effective_mode is Mode.PAPER


def test_a_loss_just_within_the_limit_does_not(store: Store) -> None:
    scene = live(store)
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: -0.1499})
    assert scene.view.phase(0) is Phase.LIVE
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: -0.001})
    assert scene.view.phase(0) is Phase.PAPER


@pytest.mark.parametrize(
    ("stage", "phase"),
    [
        (Stage.BACKTEST, Phase.BACKTEST),
        (Stage.PAPER, Phase.PAPER),
        (Stage.LIVE, Phase.PAPER),
        (Stage.SHADOW, Phase.LIVE),
    ],
)
def test_a_restatement_takes_out_what_relied_on_it(
    store: Store, stage: Stage, phase: Phase
) -> None:
    scene = climbed(store)
    scene.restate(stage, ALPHA, daily(np.array([0.1, 0.1]), scene.now - MINUTE))
    assert scene.view.phase(0) is phase
    assert (ALPHA in scene.view.live) == (phase is Phase.LIVE)
    if phase is Phase.LIVE:
        assert isinstance(scene.apply(ALPHA), Activation)  # Nothing relied on it.


# ---- Lists -------------------------------------------------------------------------------------


def test_candidates_are_listed_with_what_the_gate_says(store: Store) -> None:
    scene = climbed(store)
    first, second = candidates(store, scene.view, scene.now)
    assert isinstance(first.candidate.standing, Applied)
    assert first.plan.blocked is not None
    assert second.plan.blocked is None
    assert (second.candidate.step, second.approvals_needed) == (1, 2)


def test_a_list_says_who_has_approved_who_is_missing_and_who_may_not(store: Store) -> None:
    scene = proposed(store)
    scene.approve(ALPHA, cast.PIA)
    scene.wait(HOURS_72 - DAY)
    scene.approve(ALPHA, cast.PETE)

    def told() -> tuple[int, int, list[str]]:
        (one,) = candidates(store, scene.view, scene.now)
        assert one.barred == {cast.ANN: "author", cast.LOOP: "proposer"}
        assert (one.approver_roles, one.approvals_expire) == ({f.Role.APPROVER}, HOURS_72)
        valid = [approval.by for approval in one.approvals_valid]
        return one.approvals_needed, one.approvals_missing, valid

    assert told() == (2, 0, [cast.PIA, cast.PETE])
    scene.wait(DAY)
    assert told() == (2, 1, [cast.PETE])
    scene.withdraw(ALPHA, cast.PETE)
    assert told() == (2, 2, [])


def test_where_nobody_approves_nobody_is_missing(store: Store) -> None:
    (one,) = candidates(store, (scene := approved(store, AUTO)).view, scene.now)
    assert (one.approvals_needed, one.approvals_missing, one.approvals_expire) == (0, 0, None)


def test_policies_say_who_approves(store: Store) -> None:
    roles = frozenset({f.Role.OPERATOR})
    policy = governed(live_promotion=ManualApproval(roles=roles, min=1))
    scene = observed(store, policy)
    scene.cohort([ALPHA], actor=cast.FEED)
    with pytest.raises(Forbidden):
        scene.approve(ALPHA, cast.PIA)
    assert isinstance(scene.approve(ALPHA, cast.OTTO).standing, Approved)


def test_an_approval_taken_back_lifts_no_rejection(store: Store) -> None:
    scene = approved(store)
    scene.reject(ALPHA)
    told = scene.withdraw(ALPHA, cast.PIA)
    assert isinstance(told.standing, Rejected)
    assert [a.by for a in told.approvals] == [cast.PETE]
    assert R.CANDIDATE_REJECTED in blocked(scene.apply(ALPHA))
