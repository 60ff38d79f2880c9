"""What follows from a run in each state; what a tick recommends, and that it only looks."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.core import facts as f
from qmtl.core.campaign import (
    ACTIONS_MAX,
    EXTENSION_SEC_MAX,
    Action,
    ActionKind,
    breakers,
    consequences,
    due,
    extend,
    tick,
)
from qmtl.core.errors import Conflict, Invalid, UnknownStrategy
from qmtl.core.names import Digest, Phase, Reason, Stage, StrategyId, Verdict, WorldState
from qmtl.core.policy import AutoApply, Bound, Disabled, Policy
from qmtl.core.promotion import Dossier
from qmtl.core.snapshot import packed
from qmtl.core.times import NEVER
from qmtl.core.view import Candidate, Proposed, Rejected, WorldView
from qmtl.sim import cast
from qmtl.sim.scene import DAY
from tests.worlds import (
    ALPHA,
    AUTO,
    BETA,
    DOSSIER,
    GAMMA,
    LATER,
    LONELY,
    MINUTE,
    NOW,
    POLICY,
    changed,
    climbing,
    governed,
    in_paper,
    judged,
    observe,
    open_candidate,
    opened,
    ready,
)

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
BACKTEST, PAPER, LIVE, RETIRED = Phase
R = Reason
DAY_US = 86_400_000_000
REJECTED = Rejected(cast.PIA, NOW, "no")
LAST_DAY = {"window_us": 60 * DAY_US}


def phase(where: Phase, view: WorldView | None = None, **standing: Any) -> WorldView:
    return ready(standing={"phase": list(Phase).index(where), **standing})


UNPROPOSED = ready(current=ready().current.delete(ALPHA))
UNCLIMBED = climbing(current=climbing().current.set(ALPHA, climbing().current[ALPHA][:1]))
# (what, the view, the stage, the verdict) -> the kinds of what follows
FOLLOWS: list[tuple[str, WorldView, Stage, Verdict, list[str]]] = [
    ("a backtest passes", phase(BACKTEST), Stage.BACKTEST, PASS, ["phase_entered"]),
    ("a backtest fails", phase(BACKTEST), Stage.BACKTEST, FAIL, []),
    ("a backtest is open", phase(BACKTEST), Stage.BACKTEST, OPEN, []),
    ("a backtest passes, held", phase(BACKTEST, held=True), Stage.BACKTEST, PASS, []),
    ("a backtest passes, long since", phase(PAPER), Stage.BACKTEST, PASS, []),
    ("a backtest fails, long since", phase(PAPER), Stage.BACKTEST, FAIL, []),
    ("a backtest passes, retired", phase(RETIRED), Stage.BACKTEST, PASS, []),
    ("paper passes", UNPROPOSED, Stage.PAPER, PASS, ["candidate_proposed"]),
    ("paper passes again", ready(), Stage.PAPER, PASS, []),
    ("paper fails", ready(), Stage.PAPER, FAIL, ["candidate_voided"]),
    ("paper is open", ready(), Stage.PAPER, OPEN, ["candidate_voided"]),
    ("paper fails, no candidate", UNPROPOSED, Stage.PAPER, FAIL, []),
    (
        "paper fails, rejected",
        ready(candidate={"standing": REJECTED}),
        Stage.PAPER,
        FAIL,
        [],
    ),
    (
        "paper passes, rejected",
        ready(candidate={"standing": REJECTED}),
        Stage.PAPER,
        PASS,
        [],
    ),
    (
        "paper passes, entered anew",
        ready(standing={"entered_at": 5}),
        Stage.PAPER,
        PASS,
        ["candidate_voided", "candidate_proposed"],
    ),
    ("paper's time is over", ready(track=LAST_DAY), Stage.PAPER, PASS, ["phase_entered"]),
    ("paper's time is over: fails", ready(track=LAST_DAY), Stage.PAPER, FAIL, ["phase_entered"]),
    (
        "paper's time was extended",
        ready(track=LAST_DAY, standing={"extension_us": 1}),
        Stage.PAPER,
        PASS,
        [],
    ),
    ("paper passes in backtest", phase(BACKTEST), Stage.PAPER, PASS, []),
    ("paper fails in live", climbing(), Stage.PAPER, FAIL, []),
    ("live passes", climbing(), Stage.LIVE, PASS, []),
    ("live passes, no candidate", climbing(candidate={"standing": REJECTED}), Stage.LIVE, PASS, []),
    ("live passes, unproposed", UNCLIMBED, Stage.LIVE, PASS, ["candidate_proposed"]),
    ("live fails", climbing(), Stage.LIVE, FAIL, ["demoted"]),
    ("live is open", climbing(), Stage.LIVE, OPEN, ["candidate_voided"]),
    ("live passes at the top", climbing(standing={"step": 1}), Stage.LIVE, PASS, []),
    ("live fails in paper", ready(), Stage.LIVE, FAIL, []),
    ("shadow passes", ready(), Stage.SHADOW, PASS, []),
    ("shadow fails", climbing(), Stage.SHADOW, FAIL, []),
]


@pytest.mark.parametrize(
    ("what", "view", "stage", "verdict", "kinds"), FOLLOWS, ids=[row[0] for row in FOLLOWS]
)
def test_what_follows_from_a_run(
    what: str, view: WorldView, stage: Stage, verdict: Verdict, kinds: list[str]
) -> None:
    facts = consequences(view, judged(view, stage, verdict))
    assert [fact.kind for fact in facts] == kinds, what


def test_a_run_of_other_evidence_has_no_consequences() -> None:
    for view, stage in ((phase(BACKTEST), Stage.BACKTEST), (climbing(), Stage.LIVE)):
        for verdict in Verdict:
            other = judged(view, stage, verdict, evidence=Digest("other"))
            assert consequences(view, other) == ()


def test_a_live_failure_goes_to_paper_for_its_reasons_and_is_not_held() -> None:
    (fact,) = consequences(climbing(), judged(climbing(), Stage.LIVE, FAIL))
    assert fact == f.Demoted(
        strategy_id=ALPHA, to=PAPER, reason=R.VALIDATION_FAILED, detail="why", held=False
    )


def test_running_out_of_time_retires() -> None:
    view = ready(track=LAST_DAY)
    (fact,) = consequences(view, judged(view, Stage.PAPER, PASS))
    assert fact == f.PhaseEntered(strategy_id=ALPHA, phase=RETIRED, reason=R.CAMPAIGN_EXPIRED)
    endless = replace(POLICY.campaign.paper, max_window=None)
    policy = replace(POLICY, campaign=replace(POLICY.campaign, paper=endless))
    view = ready(track=LAST_DAY, policy=policy)
    assert consequences(view, judged(view, Stage.PAPER, PASS)) == ()


# ---- Breakers and extensions -------------------------------------------------------------------


def gated_live(*bounds: Bound) -> Policy:
    return replace(POLICY, gates=replace(POLICY.gates, by_stage={Stage.LIVE: bounds}))


def bars(*told: tuple[StrategyId, list[float]], since: timedelta = DAY) -> f.Points:
    """New live returns, each series beginning so long after alpha went live."""
    start = int(climbing().tracks[Stage.LIVE].window_from[0]) + since // timedelta(microseconds=1)
    return packed([(sid, start + np.arange(len(r)), np.array(r)) for sid, r in told])


NOTHING_NEW = bars((ALPHA, []))
FLOOR = gated_live(Bound(metric="max_bar_loss", max=0.05))


@pytest.mark.parametrize(
    ("drawdown", "falls"), [(0.15, False), (0.1500001, True), (1.0, True), (float("nan"), True)]
)
def test_a_hard_breaker_waits_for_no_evaluation(drawdown: float, falls: bool) -> None:
    view = climbing(track={"drawdown": drawdown})
    facts = breakers(view, NOTHING_NEW)
    assert bool(facts) is falls
    for fact in facts:
        assert isinstance(fact, f.Demoted)
        assert (fact.reason, fact.held) == (R.DRAWDOWN_BREACHED, False)
        # Nor is it asked whether the live run passes: the policy may be new, the returns late.
        assert consequences(view, judged(view, Stage.LIVE, PASS)) == (fact,)


LOSSES: list[tuple[str, f.Points, bool]] = [
    ("a bar at the limit", bars((ALPHA, [-0.05])), False),
    ("a bar beyond it", bars((ALPHA, [0.5, -0.0500001, 0.5])), True),
    ("two that are together", bars((ALPHA, [-0.03, -0.03])), False),
    ("a gain", bars((ALPHA, [0.9])), False),
    ("nothing", NOTHING_NEW, False),
    ("somebody else's", bars((BETA, [-0.9]), (ALPHA, [0.01]), (GAMMA, [-0.9])), False),
    ("after somebody else's", bars((BETA, [0.1, 0.1]), (ALPHA, [0.01, -0.06])), True),
    ("just after it went live", bars((ALPHA, [-0.9]), since=timedelta(microseconds=1)), True),
    ("from before it went live", bars((ALPHA, [-0.9]), since=timedelta(0)), False),
]


@pytest.mark.parametrize(("what", "points", "falls"), LOSSES, ids=[what for what, *_ in LOSSES])
def test_a_bar_that_loses_too_much_demotes(what: str, points: f.Points, falls: bool) -> None:
    facts = breakers(climbing(policy=FLOOR), points)
    assert bool(facts) is falls, what
    assert breakers(climbing(), points) == (), "nobody asked for it"
    for fact in facts:
        assert isinstance(fact, f.Demoted)
        assert (fact.to, fact.reason, fact.held) == (PAPER, R.LOSS_BREACHED, False)


def test_both_limits_demote_once() -> None:
    both = gated_live(Bound(metric="max_bar_loss", max=0.05), Bound(metric="max_drawdown", max=0.1))
    view = climbing(policy=both, track={"drawdown": 0.9})
    (fact,) = breakers(view, bars((ALPHA, [-0.9])))
    assert isinstance(fact, f.Demoted)


def test_a_breaker_is_for_what_is_live_and_new() -> None:
    down = {"drawdown": 0.9}
    assert breakers(climbing(track=down), f.Points()) == ()
    assert breakers(climbing(track=down, default_version=None), NOTHING_NEW) == ()
    paper = ready().tracks[Stage.LIVE].put(0, drawdown=0.9)
    assert breakers(ready(tracks={**ready().tracks, Stage.LIVE: paper}), NOTHING_NEW) == ()
    least = gated_live(Bound(metric="max_drawdown", min=0.95))  # No limit at all.
    assert breakers(climbing(policy=least, track=down), NOTHING_NEW) == ()


def test_more_time_is_for_who_ran_out_of_it() -> None:
    told = f.CampaignExtended(strategy_id=ALPHA, by_sec=60, reason="why")
    assert extend(ready(), ALPHA, 60, "why") == (told,)
    expired = ready(standing={"phase": 3}, track=LAST_DAY)
    assert extend(expired, ALPHA, 60, "why") == (told,)


@pytest.mark.parametrize(
    "view",
    [
        phase(BACKTEST),
        climbing(),
        phase(RETIRED),
        ready(standing={"phase": 3, "held": True}, track=LAST_DAY),
        changed(ready(standing={"phase": 3}, track=LAST_DAY), Stage.BACKTEST, track={"verdict": 0}),
    ],
    ids=["backtest", "live", "retired for something else", "retired by hand", "restated"],
)
def test_nobody_else_is_extended(view: WorldView) -> None:
    with pytest.raises(Conflict):
        extend(view, ALPHA, 60, "why")


@pytest.mark.parametrize("by_sec", [0, -1, EXTENSION_SEC_MAX + 1])
def test_an_extension_has_a_length(by_sec: int) -> None:
    with pytest.raises(Invalid):
        extend(ready(), ALPHA, by_sec, "why")


# ---- What is due -------------------------------------------------------------------------------

JUDGED = ready(policy=LONELY)
LAST = int(JUDGED.tracks[Stage.PAPER].last_t[0])


@pytest.mark.parametrize(
    ("what", "track", "is_due"),
    [
        ("judged", {}, False),
        ("never judged", {"judged_t": NEVER, "judged_policy": 0, "judged_digest": b""}, True),
        ("another policy", {"judged_policy": 2}, True),
        ("a day newer", {"judged_digest": b"x", "judged_t": LAST - DAY_US}, True),
        ("newer, but no day", {"judged_digest": b"x", "judged_t": LAST - DAY_US + 1}, False),
        ("no points that count", {"window_points": 0, "judged_policy": 2}, False),
    ],
)
def test_due_is_what_there_is_to_learn(what: str, track: dict[str, Any], is_due: bool) -> None:
    assert bool(len(due(ready(policy=LONELY, track=track), Stage.PAPER))) is is_due, what


def test_only_the_phase_of_the_stage_is_due() -> None:
    never = {"judged_policy": 0}
    assert not len(due(ready(policy=LONELY, track=never, standing={"phase": 2}), Stage.PAPER))
    assert not len(due(ready(policy=LONELY, track=never), Stage.BACKTEST))


def test_a_backtest_that_passed_while_held_is_due_once_released() -> None:
    assert not len(due(phase(BACKTEST, held=True), Stage.BACKTEST))
    assert len(due(phase(BACKTEST), Stage.BACKTEST)) == 1


# ---- Ticks -------------------------------------------------------------------------------------


def looked(_: Candidate) -> Dossier:
    return DOSSIER


def kinds(actions: Iterable[Action]) -> list[ActionKind]:
    return [action.kind for action in actions]


MANUAL, APPLY = ActionKind.MANUAL_APPROVAL_REQUIRED, ActionKind.AUTO_APPLY_LIVE
FRESH = {"standing": Proposed(), "approvals": ()}


@pytest.mark.parametrize(
    ("what", "view", "recommended"),
    [
        ("approved", ready(), [MANUAL]),  # An operator applies it.
        ("to be approved", ready(candidate=FRESH), [MANUAL]),
        ("to be approved, blocked", ready(candidate=FRESH, allow_live=False), [MANUAL]),
        ("approved, blocked", ready(allow_live=False), []),
        ("rejected", ready(candidate={"standing": REJECTED}), []),
        ("nobody promotes", ready(policy=governed(live_promotion=Disabled())), []),
        ("applies itself", ready(AutoApply), [APPLY]),
        ("would, blocked", ready(AutoApply, killed=True), []),
        ("suspended", ready(state=WorldState.SUSPENDED), []),
        ("archived", ready(state=WorldState.ARCHIVED), []),
        ("no policy", ready(default_version=None), []),
        ("up the ramp", climbing(AutoApply), [APPLY]),
    ],
)
def test_what_waits_at_the_gate(what: str, view: WorldView, recommended: list[ActionKind]) -> None:
    now = LATER if view.live else NOW
    assert kinds(tick(view, now, looked).actions) == recommended, what


def test_an_action_names_its_effect() -> None:
    (action,) = tick(ready(AutoApply), NOW, looked).actions
    candidate = open_candidate(ready(AutoApply))
    assert (action.strategy_id, action.stage) == (ALPHA, Stage.PAPER)
    assert action.run_id == candidate.run_id


def test_the_same_view_and_instant_give_the_same_page_and_change_nothing() -> None:
    view = climbing(AutoApply, track={"judged_digest": b"x", "judged_t": 0})
    before = {s: {n: a.copy() for n, a in t.arrays().items()} for s, t in view.tracks.items()}
    assert tick(view, LATER, looked) == tick(view, LATER, looked)
    for stage, columns in before.items():
        for name, array in columns.items():
            assert view.tracks[stage].arrays()[name].tobytes() == array.tobytes()


SIDS = [StrategyId(f"s{i:02}") for i in range(12)]


def crowd(policy: Policy = LONELY) -> WorldView:
    """Twelve strategies in paper with two bars each, as yet unjudged there."""
    scene = in_paper(MemoryStore(), policy, *SIDS)
    observe(scene, Stage.PAPER, 2, *SIDS)
    return scene.view


def test_pages_hold_every_action_once() -> None:
    view = crowd()
    whole = tick(view, NOW, looked)
    assert len(whole.actions) == 12
    assert whole.next_offset is None
    paged: list[Action] = []
    offset: int | None = 0
    while offset is not None:
        page = tick(view, NOW, looked, limit=5, offset=offset)
        paged += page.actions
        offset = page.next_offset
    assert tuple(paged) == whole.actions
    assert tick(view, NOW, looked, limit=12).next_offset is None
    assert tick(view, NOW, looked, offset=99).actions == ()


@pytest.mark.parametrize("limit", [0, -1, ACTIONS_MAX + 1])
def test_a_page_has_a_limit(limit: int) -> None:
    with pytest.raises(Invalid):
        tick(ready(), NOW, looked, limit=limit)


def test_one_strategy_may_be_asked_for() -> None:
    view = crowd()
    (action,) = tick(view, NOW, looked, only=SIDS[3]).actions
    assert action.strategy_id == SIDS[3]
    with pytest.raises(UnknownStrategy):
        tick(view, NOW, looked, only=StrategyId("omega"))


def test_nobody_starves_however_short_the_page() -> None:
    scene = in_paper(MemoryStore(), LONELY, *SIDS)
    observe(scene, Stage.PAPER, 12, *SIDS)
    for _ in SIDS:  # All become candidates, and wait for people for ever.
        page = scene.tick(limit=1)
        (action,) = page.actions
        assert action.kind is ActionKind.EVALUATE
        scene.execute(action)
    assert {a.kind for a in scene.tick().actions} == {MANUAL}
    observe(scene, Stage.PAPER, 1, *SIDS[:3])
    seen = set()
    for _ in range(3):
        (action,) = scene.tick(limit=1).actions
        assert action.kind is ActionKind.EVALUATE
        seen.add(action.strategy_id)
        scene.execute(action)
    assert seen == set(SIDS[:3])


def test_the_longest_unjudged_comes_first() -> None:
    scene = in_paper(MemoryStore(), LONELY, ALPHA, BETA, GAMMA)
    observe(scene, Stage.PAPER, 1, ALPHA, BETA, GAMMA)
    scene.evaluate(BETA)
    observe(scene, Stage.PAPER, 1, ALPHA, BETA, GAMMA)
    scene.evaluate(GAMMA)
    observe(scene, Stage.PAPER, 1, ALPHA, BETA, GAMMA)
    order = [action.strategy_id for action in scene.tick().actions]
    assert order == [ALPHA, BETA, GAMMA]


def test_with_a_selection_paper_is_judged_together() -> None:
    view = crowd(POLICY)
    (action,) = tick(view, NOW, looked).actions
    assert action.kind is ActionKind.EVALUATE_COHORT
    assert action.cohort == tuple(SIDS)
    assert action.strategy_id is None
    assert tick(view, NOW, looked) == tick(view, NOW, looked)


def test_who_has_nothing_to_be_judged_by_holds_up_no_cohort() -> None:
    scene = in_paper(MemoryStore(), POLICY, ALPHA, BETA)
    scene.bar(Stage.PAPER, {BETA: 0.01}, at=scene.now - DAY)  # From before it was in paper.
    observe(scene, Stage.PAPER, 1, ALPHA)
    (action,) = scene.tick().actions
    assert action.cohort == (ALPHA,)
    scene.execute(action)
    assert scene.tick().actions == ()


@pytest.mark.parametrize("policy", [POLICY, LONELY, AUTO], ids=["cohort", "single", "auto"])
def test_doing_what_is_recommended_converges(policy: Policy) -> None:
    scene = opened(MemoryStore(), policy)
    for sid in (ALPHA, BETA, GAMMA):
        scene.bind(sid)
    for _ in range(30):
        observe(scene, Stage.BACKTEST, 1, ALPHA, BETA, GAMMA)
    for _ in range(14):
        observe(scene, Stage.PAPER, 1, ALPHA, BETA)
        rounds = 0
        while any(action.kind is not MANUAL for action in scene.loop().actions):
            rounds += 1
            assert rounds < 5, scene.tick()
        before = scene.view
        scene.loop()
        assert scene.view is before  # With no new evidence there is nothing left to do.
    assert scene.view.phase(0) in (PAPER, LIVE)


def test_a_page_is_worth_a_minute_of_anybodys_time() -> None:
    """A tick at another instant of the same evidence recommends the same evaluations."""
    view = crowd()
    assert (
        tick(view, NOW, looked)
        == tick(view, NOW + MINUTE, looked)
        == tick(view, NOW + 9 * DAY + timedelta(seconds=1), looked)
    )
