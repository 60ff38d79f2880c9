"""What the gate says, word for word: each refusal is read by people who have to act on it."""

from dataclasses import replace
from typing import Any

import pytest
from immutables import Map

from qmtl.core.errors import Invalid
from qmtl.core.evidence.drift import Healthy
from qmtl.core.facts import CandidateProposed
from qmtl.core.names import Digest, Phase, Reason, RunId, Stage, Verdict
from qmtl.core.policy import ManualApproval, RampStep
from qmtl.core.promotion import (
    WEIGHT_TOLERANCE,
    Blocked,
    Clearance,
    capital_problems,
    demote,
    propose,
)
from tests.core.test_promotion import APPROVAL_CASES, CASES, Case, away, world_with
from tests.worlds import (
    ALPHA,
    BETA,
    DOSSIER,
    GAMMA,
    LATER,
    NOW,
    POLICY,
    beside,
    changed,
    cleared,
    climbing,
    governed,
    ready,
)

SAID: dict[str, tuple[str, ...]] = {
    "live is off": ("the world does not allow live",),
    "nobody is promoted": ("the policy's live_promotion is disabled",),
    "suspended": ("the world is suspended",),
    "archived": ("the world is archived",),
    "killed": ("the world was killed and not resumed",),
    "closed, and one of two asked to open it": (
        "the world does not allow live",
        "polly asked to allow live on 2026-01-17: a second person has to confirm it",
    ),
    "killed, and one of two asked to resume": (
        "the world was killed and not resumed",
        "polly asked to resume the world on 2026-01-17: a second person has to confirm it",
    ),
    "killed, and it was asked too long ago": ("the world was killed and not resumed",),
    "killed, and something else was asked": ("the world was killed and not resumed",),
    "closed, and something else was asked": ("the world does not allow live",),
    "held by an operator": ("an operator demoted it; it is held until released",),
    "in a freeze": ("the policy's freeze window is open: no promotions now",),
    "still in backtest": ("the strategy is in backtest, not on paper",),
    "retired": ("the strategy is retired, not on paper",),
    "rejected": ("rejected by pia: no",),
    "void": ("the candidate is void: validation_failed",),
    "applied before": ("the candidate was applied already",),
    "entered again": (
        "the fingerprint, the policy or the phase has changed since it was proposed",
    ),
    "no run": ("there is no paper run",),
    "nothing to judge by": ("there is no paper run",),
    "a run of before": ("there is no paper run",),
    "it fails now": ("the paper run did not pass",),
    "it is inconclusive now": ("the paper run did not pass",),
    "its latest run failed": ("the latest recorded paper run did not pass: evaluate it first",),
    "its latest run was inconclusive": (
        "the latest recorded paper run did not pass: evaluate it first",
    ),
    "the window is short": ("paper window: 10.0 of 10.0 days observed",),
    "too few observations": ("paper observations: 7 of 8",),
    "too little to say anything": (
        "evidence: 2 of the 10 blocks of returns that an e-value (t mixture) takes; step 1 "
        "of the ramp asks for 3",
    ),
    "evidence a hair below the step": (
        "evidence: an e-value (t mixture) of 4.896; step 1 of the ramp asks for 4.896",
    ),
    "not selected": ("the latest cohort did not select it",),
    "worse under stress": ("worst stress loss must be at most 0.25: it is 0.25",),
    "stress not told": ("worst stress loss must be at most 0.25: no snapshot tells it",),
    "correlated with a live one": ("correlation with live beta must be at most 0.8: it is 0.81",),
    "correlation unknown": ("correlation with live beta must be at most 0.8: it is unknown",),
    "correlation not a number": ("correlation with live beta must be at most 0.8: it is unknown",),
    "correlation not looked for": (
        "correlation with live beta must be at most 0.8: it is unknown",
    ),
    "slots are full": ("2 of 2 live slots are taken",),
    "the weight is taken": ("live weight would be 0.8, at most 0.8",),
    "cooling down": ("the last promotion was too recent; 1e-06 s of cooldown are left",),
    "slots not let go of": (
        "clients that hear nothing may still act on what was taken back, beta 0.1 until "
        "2026-01-17 00:02:00 UTC and gamma 0.1 until 2026-01-17 00:02:00 UTC; with that, 2 "
        "of 2 live slots are taken",
    ),
    "a slot not let go of": (
        "clients that hear nothing may still act on what was taken back, gamma 0.1 until "
        "2026-01-17 00:02:00 UTC; with that, 2 of 2 live slots are taken",
    ),
    "weight not let go of": (
        "clients that hear nothing may still act on what was taken back, beta 0.7 until "
        "2026-01-17 00:02:00 UTC; with that, live weight would be 0.8, at most 0.8",
    ),
    "weight let go of in a microsecond": (
        "clients that hear nothing may still act on what was taken back, beta 0.71 until "
        "2026-01-17 00:01:00 UTC; with that, live weight would be 0.81, at most 0.8",
    ),
    "more of a live one than it has": (
        "clients that hear nothing may still act on what was taken back, beta 0.71 until "
        "2026-01-17 00:02:00 UTC; with that, live weight would be 0.81, at most 0.8",
    ),
    "its own of before, and another's": (
        "clients that hear nothing may still act on what was taken back, alpha 0.71 until "
        "2026-01-17 00:02:00 UTC; with that, live weight would be 0.81, at most 0.8",
    ),
    "no snapshot": ("no paper snapshot contains the strategy in weights and returns",),
    "outlived": ("the snapshot of 2026-01-17T00:00:00+00:00 outlived its TTL of 900 s",),
    "stale": ("the snapshot of 2026-01-17T00:00:00+00:00 is older than the policy's 0:01:00",),
    "from the future": ("the snapshot of 2026-01-17T00:02:00.000001+00:00 is from the future",),
    "nobody approved": ("0 of 2 approvals",),
    "one of two approved": ("1 of 2 approvals are valid",),
    "one of two approvals is the author's": ("1 of 2 approvals are valid",),
    "one of two approvals is the proposer's": ("1 of 2 approvals are valid",),
    "only the author approved": ("0 of 2 approvals",),
    "approved too long ago": (
        "0 of 2 approvals are valid",
        "2 approvals older than 3.0 days",
    ),
    "one approved too long ago": (
        "1 of 2 approvals are valid",
        "1 approval older than 3.0 days",
    ),
}


@pytest.mark.parametrize("case", [*CASES, *APPROVAL_CASES], ids=lambda case: case[0])
def test_what_the_gate_says(case: Case) -> None:
    what, changes, now, dossier, _ = case
    answer = cleared(world_with(ManualApproval, dict(changes)), now, dossier)
    assert isinstance(answer, Blocked)
    assert answer.details == SAID[what]


def test_every_sentence_is_of_a_case() -> None:
    assert set(SAID) == {what for what, *_ in (*CASES, *APPROVAL_CASES)}


def test_nobody_proposed_it() -> None:
    answer = cleared(ready(candidates=Map(), current=Map()))
    assert isinstance(answer, Blocked)
    assert "no candidate stands: no passing run with a full window has proposed one" in (
        answer.details
    )


def test_every_problem_of_a_run_is_told() -> None:
    problems = ((Reason.VALIDATION_FAILED, "one"), (Reason.METRIC_MISSING, "two"))
    failing = replace(DOSSIER, verdict=Verdict.FAIL, problems=problems)
    answer = cleared(ready(), dossier=failing)
    assert isinstance(answer, Blocked)
    assert answer.details == ("one; two",)


def test_at_the_top_there_is_no_step() -> None:
    short = governed(ramp=POLICY.governance.ramp[:1])
    assert capital_problems(climbing(policy=short), ALPHA, 1, short, NOW) == [
        (Reason.CANDIDATE_SUPERSEDED, "it is at the top of its ramp")
    ]


def test_what_it_is_live_with_counts_as_leased() -> None:
    """More than the step ahead, as only another policy would have given it."""
    held = replace(climbing().live[ALPHA], applied_weight=0.75, weight=0.75)
    answer = cleared(climbing(live=beside_alpha(held, 0.2)), now=LATER)
    assert isinstance(answer, Blocked)
    assert answer.details == (
        "clients that hear nothing may still act on what was taken back, the weight that it is "
        "live with; with that, live weight would be 0.95, at most 0.8",
    )


def beside_alpha(held: Any, weight: float) -> Map[Any, Any]:
    return beside(climbing(), BETA, weight=weight).set(ALPHA, held)


@pytest.mark.parametrize("over", [0.0, 1e-12])
def test_the_last_of_the_weight_may_be_taken(over: float) -> None:
    """0.1 beside what leaves just that, rounding allowed for; and not a hair more."""
    most = POLICY.governance.max_live_weight + WEIGHT_TOLERANCE
    other = most - 0.1
    while other + 0.1 > most:
        other -= 1e-17
    assert other + 0.1 == most
    answer = cleared(ready(live=beside(ready(), BETA, weight=other + over)))
    assert isinstance(answer, Clearance if over == 0.0 else Blocked)


def test_the_last_of_the_weight_is_not_free_while_a_client_may_act_on_more() -> None:
    """Alpha's and beta's are just the most; what gamma was told yesterday comes on top."""
    most = POLICY.governance.max_live_weight + WEIGHT_TOLERANCE
    other = most - 0.1
    while other + 0.1 > most:
        other -= 1e-17
    view = ready(live=beside(ready(), BETA, weight=other), outstanding=away(0.05, GAMMA))
    wide = governed(max_live_slots=3, ramp=(RampStep(fraction=0.375), RampStep(fraction=1.0)))
    answer = cleared(changed(view, Stage.PAPER, policy=wide))
    assert isinstance(answer, Blocked)
    assert answer.reasons == (Reason.LEASE_OUTSTANDING,)


def test_what_is_healthy_is_fixed_at_the_first_step_only() -> None:
    told = replace(DOSSIER, healthy=Healthy(0.03, 0.001))
    first, second = cleared(ready(), dossier=told), cleared(climbing(), now=LATER, dossier=told)
    assert isinstance(first, Clearance)
    assert isinstance(second, Clearance)
    assert (first.healthy, second.healthy) == (Healthy(0.03, 0.001), None)


def test_a_candidate_is_of_the_strategys_fingerprint() -> None:
    view = ready(candidates=Map(), current=Map())
    (proposed,) = propose(view, ALPHA, RunId("r"), Digest("d"))
    assert isinstance(proposed, CandidateProposed)
    assert proposed.fingerprint == view.strategies[ALPHA].fingerprint == "f1"


def test_up_is_no_demotion() -> None:
    with pytest.raises(Invalid) as refused:
        demote(climbing(), ALPHA, Phase.LIVE, Reason.MANUAL, "", held=True)
    assert refused.value.args == ("to: live_campaign is not a demotion.",)
