"""Each gate alone must hold the door.  Start ready; break one thing; read every reason."""

import ast
import inspect
from dataclasses import replace
from datetime import datetime, timedelta
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from immutables import Map

from qmtl.core import promotion, proving, snapshot, windows
from qmtl.core.confirmations import CONFIRM_WITHIN, What
from qmtl.core.errors import Invalid
from qmtl.core.evidence.eprocess import Blocks, t_mixture
from qmtl.core.facts import CandidateProposed, CandidateVoided, Demoted
from qmtl.core.names import (
    ActorId,
    Digest,
    Phase,
    Reason,
    RunId,
    Stage,
    StrategyId,
    Verdict,
    WorldState,
)
from qmtl.core.policy import (
    STANDARD_RAMP,
    AutoApply,
    Disabled,
    Evidence,
    Freeze,
    LivePromotion,
    ManualApproval,
    RampStep,
)
from qmtl.core.promotion import Blocked, Clearance, Dossier
from qmtl.core.proof import terms
from qmtl.core.times import micros
from qmtl.core.view import (
    Applied,
    Approval,
    Confirmation,
    Outstanding,
    Proposed,
    Rejected,
    Void,
    WorldView,
)
from qmtl.sim import cast
from qmtl.sim.scene import DAY
from tests.worlds import (
    ALPHA,
    BETA,
    DOSSIER,
    GAMMA,
    LATER,
    MINUTE,
    NOW,
    POLICY,
    beside,
    cleared,
    climbing,
    governed,
    open_candidate,
    ready,
)

R = Reason
MODES: list[type[LivePromotion]] = [ManualApproval, AutoApply]
US = timedelta(microseconds=1)
AS_OF = NOW - MINUTE  # Of the newest paper snapshot.
TTL = timedelta(seconds=900)
REJECTED = Rejected(cast.PIA, NOW, "no")
RISK = POLICY.risk
YOUNGER = replace(RISK, snapshot_max_age=MINUTE)
EVIDENT = replace(governed(ramp=STANDARD_RAMP), evidence=Evidence())
# Forty blocks, and a first step that asks for just what they show.
SHOWN = {"blocks": 40.0, "block_mean": 0.01, "block_m2": 0.03}
E_SHOWN = float(
    t_mixture(Blocks(*(np.array([x]) for x in (*SHOWN.values(), 0, 0))), terms(EVIDENT).design)[0]
)
JUST = replace(
    EVIDENT,
    governance=governed(
        ramp=(RampStep(fraction=0.25, e_value=E_SHOWN), *STANDARD_RAMP[2:])
    ).governance,
)
GONE = Void(NOW, R.VALIDATION_FAILED)
FROZEN = (Freeze(cron="0 0 * * *", length=timedelta(hours=1)),)
FROZEN_RAMP = governed(freeze=FROZEN, ramp=STANDARD_RAMP).governance


def at(mode: type[LivePromotion], policy: Any) -> Any:
    """The policy, approving as the mode does."""
    if isinstance(policy.governance.live_promotion, Disabled) or mode is ManualApproval:
        return policy
    return governed(policy, live_promotion=AutoApply())


def world_with(mode: type[LivePromotion], changes: dict[str, Any]) -> WorldView:
    if "policy" in changes:
        changes = changes | {"policy": at(mode, changes["policy"])}
    return ready(mode, **changes)


def asked(what: What, at: datetime = NOW) -> Map[Any, Any]:
    """Somebody's half of what takes two."""
    version = 1 if what == "default_policy" else None
    half = Confirmation(
        confirmation_id="c", what=what, policy_version=version, by=cast.POLLY, at=at
    )
    return Map({"c": half})


def away(weight: float, *sids: StrategyId, until: datetime = NOW + MINUTE) -> Map[Any, Any]:
    """Weights that were taken back from these."""
    return Map({sid: Outstanding(weight=weight, until=until, sequence=1) for sid in sids})


def by_of(actor: ActorId) -> Approval:
    """An approval that somebody gave, or that was recorded in their name."""
    return replace(open_candidate(ready()).approvals[0], by=actor)


def without(stage: Stage) -> dict[str, Any]:
    """Changes after which the stage has not been judged."""
    return {"track": {"verdict": 0, "judged_policy": 0}, "runs": Map()}


Case = tuple[str, dict[str, Any], datetime, Dossier, tuple[Reason, ...]]


def case(
    what: str, *reasons: Reason, now: datetime = NOW, dossier: Any = DOSSIER, **c: Any
) -> Case:
    return what, c, now, dossier, reasons


CASES = [
    # The world.
    case("live is off", R.LIVE_NOT_ALLOWED, allow_live=False),
    case("nobody is promoted", R.PROMOTION_DISABLED, policy=governed(live_promotion=Disabled())),
    case("suspended", R.WORLD_SUSPENDED, state=WorldState.SUSPENDED),
    case("archived", R.WORLD_SUSPENDED, state=WorldState.ARCHIVED),
    case("killed", R.WORLD_KILLED, killed=True),
    case(
        "closed, and one of two asked to open it",
        R.LIVE_NOT_ALLOWED,
        R.CONFIRMATION_PENDING,
        allow_live=False,
        confirmations=asked("allow_live"),
    ),
    case(
        "killed, and one of two asked to resume",
        R.WORLD_KILLED,
        R.CONFIRMATION_PENDING,
        killed=True,
        confirmations=asked("resume"),
    ),
    case(
        "killed, and it was asked too long ago",
        R.WORLD_KILLED,
        killed=True,
        confirmations=asked("resume", at=NOW - CONFIRM_WITHIN),
    ),
    case(
        "killed, and something else was asked",
        R.WORLD_KILLED,
        killed=True,
        confirmations=asked("allow_live"),
    ),
    case(
        "closed, and something else was asked",
        R.LIVE_NOT_ALLOWED,
        allow_live=False,
        confirmations=asked("default_policy"),
    ),
    case("held by an operator", R.HELD, standing={"held": True}),
    case("in a freeze", R.FROZEN, policy=governed(freeze=FROZEN)),
    # The candidate.
    case("still in backtest", R.NOT_PAPER_STAGE, standing={"phase": 0}),
    case("retired", R.NOT_PAPER_STAGE, standing={"phase": 3}),
    case("rejected", R.CANDIDATE_REJECTED, candidate={"standing": REJECTED}),
    case("void", R.CANDIDATE_SUPERSEDED, candidate={"standing": GONE}),
    case("applied before", R.CANDIDATE_SUPERSEDED, candidate={"standing": Applied(NOW, 1)}),
    case("entered again", R.CANDIDATE_SUPERSEDED, standing={"entered_at": micros(NOW)}),
    # Evidence.
    case("no run", R.PAPER_RUN_MISSING, **without(Stage.PAPER)),
    case("nothing to judge by", R.PAPER_RUN_MISSING, dossier=replace(DOSSIER, verdict=None)),
    case("a run of before", R.PAPER_RUN_MISSING, track={"verdict": 0}),
    case("it fails now", R.VALIDATION_FAILED, dossier=replace(DOSSIER, verdict=Verdict.FAIL)),
    case(
        "it is inconclusive now",
        R.VALIDATION_FAILED,
        dossier=replace(DOSSIER, verdict=Verdict.INCONCLUSIVE),
    ),
    case("its latest run failed", R.VALIDATION_FAILED, track={"verdict": 2}),
    case("its latest run was inconclusive", R.VALIDATION_FAILED, track={"verdict": 3}),
    case(
        "the window is short", R.PAPER_WINDOW_INCOMPLETE, track={"window_us": 864_000_000_000 - 1}
    ),
    case("too few observations", R.OBSERVATIONS_INSUFFICIENT, track={"window_points": 7}),
    case("too little to say anything", R.EVIDENCE_INSUFFICIENT, policy=EVIDENT),
    case(
        "evidence a hair below the step",
        R.EVIDENCE_INSUFFICIENT,
        policy=JUST,
        proof=SHOWN | {"carried": 1.0 - 1e-9},
    ),
    case("not selected", R.SELECTION_FAILED, standing={"selected": False}),
    case("worse under stress", R.VALIDATION_FAILED, track={"stress_loss": 0.2500001}),
    case("stress not told", R.VALIDATION_FAILED, track={"stress_loss": np.nan}),
    case(
        "correlated with a live one",
        R.CORRELATION_EXCEEDED,
        live=beside(ready(), BETA),
        dossier=replace(DOSSIER, correlations={BETA: 0.81}),
    ),
    case(
        "correlation unknown",
        R.CORRELATION_EXCEEDED,
        live=beside(ready(), BETA),
        dossier=replace(DOSSIER, correlations={BETA: None}),
    ),
    case(
        "correlation not a number",
        R.CORRELATION_EXCEEDED,
        live=beside(ready(), BETA),
        dossier=replace(DOSSIER, correlations={BETA: float("nan")}),
    ),
    case(
        "correlation not looked for",
        R.CORRELATION_EXCEEDED,
        live=beside(ready(), BETA),
        dossier=replace(DOSSIER, correlations={}),
    ),
    # Capital.
    case(
        "slots are full",
        R.MAX_LIVE_SLOTS_EXCEEDED,
        live=beside(ready(), BETA, GAMMA),
        dossier=replace(DOSSIER, correlations={BETA: 0.0, GAMMA: 0.0}),
    ),
    case(
        "the weight is taken",
        R.MAX_LIVE_WEIGHT_EXCEEDED,
        live=beside(ready(), BETA, weight=0.7 + 2e-9),
    ),
    case("cooling down", R.COOLDOWN_ACTIVE, promoted_at=NOW - DAY + US),
    case("slots not let go of", R.LEASE_OUTSTANDING, outstanding=away(0.1, BETA, GAMMA)),
    case(
        "a slot not let go of",
        R.LEASE_OUTSTANDING,
        live=beside(ready(), BETA),
        outstanding=away(0.1, GAMMA),
        dossier=replace(DOSSIER, correlations={BETA: 0.0}),
    ),
    case("weight not let go of", R.LEASE_OUTSTANDING, outstanding=away(0.7 + 2e-9, BETA)),
    case(
        "weight let go of in a microsecond",
        R.LEASE_OUTSTANDING,
        outstanding=away(0.71, BETA, until=NOW + US),
    ),
    case(
        "more of a live one than it has",
        R.LEASE_OUTSTANDING,
        live=beside(ready(), BETA),
        outstanding=away(0.71, BETA),
        dossier=replace(DOSSIER, correlations={BETA: 0.0}),
    ),
    case(
        "its own of before, and another's",
        R.LEASE_OUTSTANDING,
        live=beside(ready(), BETA),
        outstanding=away(0.71, ALPHA),
        dossier=replace(DOSSIER, correlations={BETA: 0.0}),
    ),
    # The snapshot.
    case("no snapshot", R.RISK_SNAPSHOT_MISSING, track={"covered_as_of": -(2**63)}),
    case("outlived", R.RISK_SNAPSHOT_EXPIRED, now=AS_OF + TTL + US),
    case("stale", R.RISK_SNAPSHOT_STALE, now=NOW + US, policy=replace(POLICY, risk=YOUNGER)),
    case(
        "from the future", R.RISK_SNAPSHOT_STALE, track={"covered_as_of": micros(NOW + MINUTE) + 1}
    ),
]
# Approvals are for one mode only: below.
APPROVAL_CASES = [
    case("nobody approved", R.MANUAL_APPROVAL_REQUIRED, candidate={"approvals": ()}),
    case(
        "one of two approved",
        R.APPROVALS_INSUFFICIENT,
        candidate={"approvals": open_candidate(ready()).approvals[:1]},
    ),
    case(
        "one of two approvals is the author's",
        R.APPROVALS_INSUFFICIENT,
        candidate={"approvals": (by_of(cast.ANN), by_of(cast.PETE))},
    ),
    case(
        "one of two approvals is the proposer's",
        R.APPROVALS_INSUFFICIENT,
        candidate={"approvals": (by_of(cast.PIA), by_of(cast.LOOP))},
    ),
    case(
        "only the author approved",
        R.MANUAL_APPROVAL_REQUIRED,
        candidate={"approvals": (by_of(cast.ANN), by_of(cast.LOOP))},
    ),
    case(
        "approved too long ago",
        R.APPROVALS_INSUFFICIENT,
        R.APPROVAL_EXPIRED,
        candidate={
            "approvals": tuple(
                replace(a, at=NOW - timedelta(hours=72)) for a in open_candidate(ready()).approvals
            )
        },
    ),
    case(
        "one approved too long ago",
        R.APPROVALS_INSUFFICIENT,
        R.APPROVAL_EXPIRED,
        candidate={
            "approvals": (
                replace(open_candidate(ready()).approvals[0], at=NOW - timedelta(hours=72)),
                open_candidate(ready()).approvals[1],
            )
        },
    ),
]


def ids(cases: list[Case]) -> list[str]:
    return [what for what, *_ in cases]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("what", "changes", "now", "dossier", "reasons"), CASES, ids=ids(CASES))
def test_each_gate_alone_blocks(
    mode: type[LivePromotion],
    what: str,
    changes: dict[str, Any],
    now: datetime,
    dossier: Dossier,
    reasons: tuple[Reason, ...],
) -> None:
    answer = cleared(world_with(mode, changes), now, dossier)
    assert isinstance(answer, Blocked), what
    assert answer.reasons == reasons
    assert all(answer.details)


@pytest.mark.parametrize("mode", MODES)
def test_a_ready_world_clears(mode: type[LivePromotion]) -> None:
    answer = cleared(ready(mode))
    assert isinstance(answer, Clearance)
    assert answer.candidate == open_candidate(ready(mode))
    assert answer.weight == 0.25 * 0.8 / 2
    assert answer.evidence == ready(mode).digest(0, Stage.PAPER)
    assert answer.snapshot_seq == int(ready(mode).tracks[Stage.PAPER].covered_seq[0])


@pytest.mark.parametrize(
    ("what", "changes", "now", "dossier", "reasons"), APPROVAL_CASES, ids=ids(APPROVAL_CASES)
)
def test_approvals_are_asked_for_when_people_decide_and_only_then(
    what: str,
    changes: dict[str, Any],
    now: datetime,
    dossier: Dossier,
    reasons: tuple[Reason, ...],
) -> None:
    answer = cleared(ready(**changes), now, dossier)
    assert isinstance(answer, Blocked), what
    assert answer.reasons == reasons
    auto = ready(policy=governed(live_promotion=AutoApply()), **changes)
    assert isinstance(cleared(auto, now, dossier), Clearance)


HOLDS = [
    case("approved just in time", candidate={
        "approvals": tuple(
            replace(a, at=NOW - timedelta(hours=72) + US)
            for a in open_candidate(ready()).approvals
        )
    }),
    case("one expired, and two others", candidate={
        "approvals": (
            replace(open_candidate(ready()).approvals[0], by=cast.OTTO, at=NOW - 9 * DAY),
            *open_candidate(ready()).approvals,
        )
    }),
    case("the window is just full", track={"window_us": 864_000_000_000, "window_points": 8}),
    case("stress at its limit", track={"stress_loss": 0.25}),
    case("cooled down", promoted_at=NOW - DAY),
    case("another policy was asked for", confirmations=asked("default_policy")),
    case("resuming was asked for, of what is not killed", confirmations=asked("resume")),
    case("a slot is left beside what was taken back", outstanding=away(0.1, BETA)),
    case("the weight just fits beside what was taken back", outstanding=away(0.7, BETA)),
    case("what was taken back is over", outstanding=away(0.8, BETA, GAMMA, until=NOW)),
    case("its own of before is in its own place", outstanding=away(0.8, ALPHA)),
    case("a live one had no more than it has", live=beside(ready(), BETA, weight=0.7),
         outstanding=away(0.7, BETA)),
    case("as old as its TTL", now=AS_OF + TTL),
    case("as old as the policy lets it be", policy=replace(POLICY, risk=YOUNGER)),
    case("as far ahead as clocks may be", track={"covered_as_of": micros(NOW + MINUTE)}),
    case("correlated as it may be", live=beside(ready(), BETA),
         dossier=replace(DOSSIER, correlations={BETA: 0.8})),
    case("the last slot", live=beside(ready(), BETA)),
    case("the weight just fits", live=beside(ready(), BETA, weight=0.7)),
    case("weights that are not exact in binary", live=beside(ready(), BETA, weight=0.7 + 5e-10)),
    case("the freeze is over", policy=governed(
        freeze=(Freeze(cron="0 0 * * *", length=MINUTE),))),
    case("nobody asks for stress", track={"stress_loss": np.nan},
         policy=replace(POLICY, risk=replace(RISK, max_stress_loss=None))),
    case(
        "nobody asks for correlation",
        live=beside(ready(), BETA),
        dossier=replace(DOSSIER, correlations={}),
        policy=replace(POLICY, risk=replace(RISK, max_pairwise_correlation_to_live=None)),
    ),
    case("nobody selects", standing={"selected": False}, policy=replace(POLICY, selection=None)),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("what", "changes", "now", "dossier", "reasons"), HOLDS, ids=ids(HOLDS))
def test_a_limit_that_is_just_kept_is_kept(
    mode: type[LivePromotion],
    what: str,
    changes: dict[str, Any],
    now: datetime,
    dossier: Dossier,
    reasons: tuple[Reason, ...],
) -> None:
    answer = cleared(world_with(mode, changes), now, dossier)
    assert isinstance(answer, Clearance), answer.reasons


def reasons_in(source: str) -> set[Reason]:
    """Every `Reason.NAME` that some code mentions."""
    return {
        Reason[node.attr]
        for node in ast.walk(ast.parse(dedent(source)))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Reason"
    }


@pytest.mark.parametrize("mode", MODES)
def test_just_enough_evidence_is_enough(mode: type[LivePromotion]) -> None:
    """And what it was is in the clearance."""
    answer = cleared(ready(mode, policy=at(mode, JUST), proof=SHOWN))
    assert isinstance(answer, Clearance)
    assert answer.e_value == pytest.approx(E_SHOWN)


def test_every_reason_that_the_gate_can_give_has_a_case() -> None:
    gate = {
        name: function
        for name, function in vars(promotion).items()
        if inspect.isfunction(function) and function.__module__ == promotion.__name__
    }
    assert {"clear_for_live", "world_problems", "capital_problems"} <= set(gate)
    can_give = {windows.INCOMPLETE[Stage.PAPER]}
    for function in (*gate.values(), proving.unproven, snapshot.freshness, windows.Progress):
        can_give |= reasons_in(inspect.getsource(function))
    told = {reason for *_, reasons in (*CASES, *APPROVAL_CASES) for reason in reasons}
    assert told == can_give


@pytest.mark.parametrize("mode", MODES)
def test_every_reason_is_told_not_only_the_first(mode: type[LivePromotion]) -> None:
    view = ready(
        mode,
        allow_live=False,
        killed=True,
        state=WorldState.SUSPENDED,
        promoted_at=NOW,
        policy=at(mode, replace(EVIDENT, governance=FROZEN_RAMP)),
        standing={"held": True, "selected": False, "phase": 0, "entered_at": 0},
        track={
            "window_us": 0,
            "window_points": 0,
            "covered_as_of": -(2**63),
            "stress_loss": np.nan,
        },
        live=beside(ready(), BETA, GAMMA, weight=0.4),
    )
    answer = cleared(view, NOW, Dossier(verdict=Verdict.FAIL))
    assert isinstance(answer, Blocked)
    superseded = {R.CANDIDATE_SUPERSEDED}
    world = {R.LIVE_NOT_ALLOWED, R.WORLD_SUSPENDED, R.WORLD_KILLED, R.HELD, R.FROZEN}
    evidence = {
        R.NOT_PAPER_STAGE,
        R.VALIDATION_FAILED,
        R.PAPER_WINDOW_INCOMPLETE,
        R.OBSERVATIONS_INSUFFICIENT,
        R.EVIDENCE_INSUFFICIENT,
        R.SELECTION_FAILED,
        R.CORRELATION_EXCEEDED,
        R.RISK_SNAPSHOT_MISSING,
    }
    capital = {R.MAX_LIVE_SLOTS_EXCEEDED, R.MAX_LIVE_WEIGHT_EXCEEDED, R.COOLDOWN_ACTIVE}
    assert set(answer.reasons) == superseded | world | evidence | capital


def test_without_a_candidate_nobody_goes_live() -> None:
    view = ready(AutoApply)
    answer = promotion.clear_for_live(view, ALPHA, None, DOSSIER, NOW)
    assert isinstance(answer, Blocked)
    assert answer.reasons == (R.CANDIDATE_SUPERSEDED,)
    manual = promotion.clear_for_live(ready(), ALPHA, None, DOSSIER, NOW)
    assert isinstance(manual, Blocked)
    assert manual.reasons == (R.CANDIDATE_SUPERSEDED, R.MANUAL_APPROVAL_REQUIRED)


def test_a_block_always_says_why() -> None:
    with pytest.raises(AssertionError):
        Blocked(())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("metric", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_never_passes(mode: type[LivePromotion], metric: float) -> None:
    stressed = cleared(ready(mode, track={"stress_loss": abs(metric)}))
    assert isinstance(stressed, Blocked)
    close = replace(DOSSIER, correlations={BETA: abs(metric)})
    correlated = cleared(ready(mode, live=beside(ready(), BETA)), NOW, close)
    assert isinstance(correlated, Blocked)
    heavy = cleared(ready(mode, live=beside(ready(), BETA, weight=abs(metric))))
    assert isinstance(heavy, Blocked)


# ---- Up the ramp -------------------------------------------------------------------------------

STEP_CASES = [
    case("not live any more", R.NOT_PAPER_STAGE, standing={"phase": 1}),
    case("the live run fails", R.VALIDATION_FAILED, dossier=replace(DOSSIER, verdict=Verdict.FAIL)),
    case("the latest live run failed", R.VALIDATION_FAILED, track={"verdict": 2}),
    case("no live run", R.PAPER_RUN_MISSING, track={"verdict": 0}),
    case("observed too briefly", R.OBSERVATIONS_INSUFFICIENT, standing={
        "step_window_us": 86_400_000_000 + 1}),
    case("never observed", R.OBSERVATIONS_INSUFFICIENT, track={"window_points": 0}),
    case("no live snapshot", R.RISK_SNAPSHOT_MISSING, track={"covered_as_of": -(2**63)}),
    case("the live snapshot is old", R.RISK_SNAPSHOT_EXPIRED, now=LATER + TTL),
    case("worse under stress, live", R.VALIDATION_FAILED, track={"stress_loss": 0.3}),
    case("there already", R.CANDIDATE_SUPERSEDED, standing={"step": 1}),
    case("cooling down", R.COOLDOWN_ACTIVE, promoted_at=LATER - DAY + US),
    case("no room for more weight", R.MAX_LIVE_WEIGHT_EXCEEDED,
         live=beside(climbing(), BETA, weight=0.5)),
    case("the candidate of the step before", R.CANDIDATE_SUPERSEDED, candidate={"step": 0}),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("what", "changes", "now", "dossier", "reasons"), STEP_CASES, ids=ids(STEP_CASES)
)
def test_each_gate_alone_blocks_a_step_up(
    mode: type[LivePromotion],
    what: str,
    changes: dict[str, Any],
    now: datetime,
    dossier: Dossier,
    reasons: tuple[Reason, ...],
) -> None:
    view = climbing(mode, **changes)
    candidate = next(c for c in view.candidates.values() if not isinstance(c.standing, Applied))
    now = LATER if now == NOW else now
    answer = promotion.clear_for_live(view, ALPHA, candidate, dossier, now)
    assert isinstance(answer, Blocked), what
    assert set(answer.reasons) >= set(reasons)
    if what not in ("there already", "the candidate of the step before", "not live any more"):
        assert answer.reasons == reasons


@pytest.mark.parametrize("mode", MODES)
def test_a_step_up_is_cleared_on_live_evidence(mode: type[LivePromotion]) -> None:
    answer = cleared(climbing(mode), LATER)
    assert isinstance(answer, Clearance)
    assert answer.weight == 1.0 * 0.8 / 2
    assert answer.evidence == climbing(mode).digest(0, Stage.LIVE)
    # What its paper stage says now is past.
    assert isinstance(cleared(climbing(mode, killed=False), LATER), Clearance)


def test_the_top_of_the_ramp_is_the_top() -> None:
    short = governed(ramp=POLICY.governance.ramp[:1])
    answer = cleared(climbing(policy=short), LATER)
    assert isinstance(answer, Blocked)
    assert answer.reasons == (R.CANDIDATE_SUPERSEDED,)
    assert promotion.next_step(short, climbing(policy=short), 0) is None


def test_its_own_weight_and_slot_are_not_counted_twice() -> None:
    one_slot = governed(max_live_slots=1)  # Of which alpha has the one.
    assert isinstance(cleared(climbing(policy=one_slot), LATER), Clearance)


# ---- Candidates --------------------------------------------------------------------------------

RUN, DIGEST = RunId("r"), Digest("d")


def test_a_candidate_that_stands_is_kept() -> None:
    assert promotion.propose(ready(), ALPHA, RUN, DIGEST) == ()


def test_a_rejected_strategy_gets_no_other_candidate() -> None:
    rejected = ready(candidate={"standing": REJECTED})
    assert promotion.propose(rejected, ALPHA, RUN, DIGEST) == ()
    entered_again = ready(candidate={"standing": REJECTED}, standing={"entered_at": 7})
    assert promotion.propose(entered_again, ALPHA, RUN, DIGEST) == ()


def test_another_entry_makes_another_candidate() -> None:
    view = ready(standing={"entered_at": micros(NOW)})
    voided, proposed = promotion.propose(view, ALPHA, RUN, DIGEST)
    old = open_candidate(view)
    assert voided == CandidateVoided(candidate_id=old.candidate_id, reason=R.CANDIDATE_SUPERSEDED)
    assert isinstance(proposed, CandidateProposed)
    assert proposed.candidate_id != old.candidate_id
    assert (proposed.entered_at, proposed.step) == (NOW, 0)


def other(view: WorldView, **changes: Any) -> WorldView:
    mine = replace(view.strategies[ALPHA], **changes)
    return replace(view, strategies=view.strategies.set(ALPHA, mine))


@pytest.mark.parametrize(
    "view",
    [
        other(ready(), fingerprint="f2"),
        ready(standing={"entered_at": 1}),
        ready(standing={"step": 0}),
        ready(default_version=2, policies=ready().policies.set(2, ready().policies[1])),
    ],
    ids=["fingerprint", "entry", "step", "policy"],
)
def test_a_candidate_is_of_one_fingerprint_entry_step_and_policy(view: WorldView) -> None:
    candidate = open_candidate(view)
    assert promotion.is_current(ready(), candidate)
    assert not promotion.is_current(view, candidate)


def test_nothing_else_makes_another_candidate() -> None:
    same = other(ready(allow_live=False), name="x", variants_tried=9)
    assert promotion.is_current(same, open_candidate(same))


@pytest.mark.parametrize("standing", [REJECTED, GONE])
def test_what_is_rejected_or_void_is_not_voided(standing: Any) -> None:
    candidate = replace(open_candidate(ready()), standing=standing)
    assert promotion.void(candidate, R.VALIDATION_FAILED) == ()
    assert promotion.void(None, R.VALIDATION_FAILED) == ()


@pytest.mark.parametrize("standing", [Proposed(), Applied(NOW, 1)])
def test_what_stands_can_be_voided(standing: Any) -> None:
    candidate = replace(open_candidate(ready()), standing=standing)
    assert promotion.void(candidate, R.VALIDATION_FAILED) == (
        CandidateVoided(candidate_id=candidate.candidate_id, reason=R.VALIDATION_FAILED),
    )


# ---- Blocks and demotions ----------------------------------------------------------------------


def test_a_refusal_is_recorded_once_per_set_of_reasons() -> None:
    held = Blocked(((R.HELD, "held"), (R.FROZEN, "frozen"), (R.HELD, "again")))
    (fact,) = promotion.block(ready(), ALPHA, None, held)
    assert fact.kind == "promotion_blocked"
    assert fact.reasons == (R.HELD, R.FROZEN)
    assert fact.details == ("held", "frozen", "again")
    known = ready(blocked=Map({ALPHA: (R.FROZEN, R.HELD)}))
    assert promotion.block(known, ALPHA, None, held) == ()
    (wider,) = promotion.block(known, ALPHA, None, Blocked(((R.HELD, "held"),)))
    assert wider.kind == "promotion_blocked"


# From, to, and where it ends up; None: nothing happens.
DOWN = [
    (Phase.LIVE, Phase.PAPER, Phase.PAPER),
    (Phase.LIVE, Phase.BACKTEST, Phase.BACKTEST),
    (Phase.LIVE, Phase.RETIRED, Phase.RETIRED),
    (Phase.PAPER, Phase.PAPER, Phase.PAPER),
    (Phase.PAPER, Phase.BACKTEST, Phase.BACKTEST),
    (Phase.PAPER, Phase.RETIRED, Phase.RETIRED),
    (Phase.BACKTEST, Phase.PAPER, Phase.BACKTEST),  # Never up.
    (Phase.BACKTEST, Phase.BACKTEST, Phase.BACKTEST),
    (Phase.BACKTEST, Phase.RETIRED, Phase.RETIRED),
    (Phase.RETIRED, Phase.PAPER, Phase.RETIRED),
    (Phase.RETIRED, Phase.BACKTEST, Phase.RETIRED),
    (Phase.RETIRED, Phase.RETIRED, Phase.RETIRED),
]


@pytest.mark.parametrize(("phase", "to", "ends"), DOWN)
def test_down_is_never_gated_and_never_up(phase: Phase, to: Phase, ends: Phase) -> None:
    nothing = ready(standing={"phase": list(Phase).index(phase)}, runs=Map(), default_version=None)
    by_hand = promotion.demote(nothing, ALPHA, to, R.MANUAL, "x", held=True)
    assert by_hand == (Demoted(strategy_id=ALPHA, to=ends, reason=R.MANUAL, detail="x", held=True),)
    for_cause = promotion.demote(nothing, ALPHA, to, R.VALIDATION_FAILED, "x", held=False)
    assert bool(for_cause) == (ends is not phase)


def test_a_demotion_to_where_it_is_held_already_is_none() -> None:
    held = ready(standing={"held": True})
    assert promotion.demote(held, ALPHA, Phase.PAPER, R.MANUAL, "x", held=True) == ()


def test_live_is_no_way_down() -> None:
    with pytest.raises(Invalid):
        promotion.demote(ready(), ALPHA, Phase.LIVE, R.MANUAL, "x", held=True)


def test_cooldown_counts_down_to_nothing() -> None:
    left = promotion.cooldown_remaining_sec
    assert left(ready(promoted_at=None), POLICY, NOW) == 0.0
    assert left(ready(promoted_at=NOW), POLICY, NOW) == 86_400.0
    assert left(ready(promoted_at=NOW - DAY), POLICY, NOW) == 0.0
    assert left(ready(promoted_at=NOW - 2 * DAY), POLICY, NOW) == 0.0
