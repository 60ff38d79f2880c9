"""What facts mean: what each leaves as it was matters as much as what it changes."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.core import facts as f
from qmtl.core.columns import CAPACITY_MIN, Standings, Track
from qmtl.core.fold import advance, entries, fold
from qmtl.core.invariants import check
from qmtl.core.names import (
    CandidateId,
    Digest,
    Phase,
    Reason,
    RunId,
    Stage,
    StrategyId,
    Stream,
    Verdict,
    WorldId,
    WorldState,
)
from qmtl.core.snapshot import packed
from qmtl.core.times import NEVER, micros
from qmtl.core.view import Applied, Approved, Proposed, Void, WorldView, same_view
from qmtl.sim import cast
from qmtl.sim.scene import DAY, START, Scene, daily
from tests.worlds import (
    ALPHA,
    AUTO,
    BETA,
    GAMMA,
    LATER,
    MINUTE,
    NOW,
    POLICY,
    climbed,
    climbing,
    in_paper,
    judged,
    open_candidate,
    ready,
)

R = Reason


def after(view: WorldView, *facts: f.Fact, now: Any = LATER) -> WorldView:
    return fold(view, entries(view, facts, cast.OTTO, now))


def paper(view: WorldView, name: str) -> Any:
    return view.tracks[Stage.PAPER].arrays()[name][0]


def standing(view: WorldView, name: str) -> Any:
    return view.standings.arrays()[name][0]


def history(scene: Scene) -> list[f.Entry]:
    return scene.store.journal(scene.world_id, 0, 10_000)


def eventful() -> Scene:
    """A scene in which nearly everything happens that can."""
    scene = climbed(MemoryStore())
    scene.apply(ALPHA)
    scene.bind(BETA, cast.BOB, fingerprint=None)
    scene.bind(BETA, cast.BOB, fingerprint="f2")
    scene.add_policy(AUTO, "auto")
    scene.kill()
    scene.resume()
    scene.set_default(2)
    run = scene.evaluate(ALPHA).run
    scene.reject(ALPHA)
    scene.release(ALPHA)
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: -0.9})
    scene.evaluate(ALPHA)
    scene.extend(ALPHA, DAY)
    scene.demote(ALPHA)
    scene.apply(ALPHA, run.run_id)
    scene.release(ALPHA)
    scene.demote(ALPHA, Phase.RETIRED)
    scene.restate(Stage.BACKTEST, BETA, daily(np.array([0.1, 0.2]), scene.now))
    scene.change_state(WorldState.SUSPENDED)
    scene.allow_live(False)
    return scene


# ---- Views never change ------------------------------------------------------------------------


def arrays(view: WorldView) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, array in view.standings.arrays().items():
        yield name, array
    for stage, track in view.tracks.items():
        for name, array in track.arrays().items():
            yield f"{stage}.{name}", array


def test_a_view_handed_out_never_changes() -> None:
    view = WorldView(world_id=WorldId("w"))
    kept: list[tuple[WorldView, dict[str, bytes], dict[str, Any]]] = []
    sparse = [field.name for field in fields(WorldView)]
    for entry in history(eventful()):
        before = {name: array.tobytes() for name, array in arrays(view)}
        kept.append((view, before, {name: getattr(view, name) for name in sparse}))
        view = advance(view, entry)
    for old, before, values in kept:
        assert {name: array.tobytes() for name, array in arrays(old)} == before
        assert all(getattr(old, name) is value for name, value in values.items())
        assert not any(array.flags.writeable for _, array in arrays(old))


def test_a_fact_copies_no_column_that_it_does_not_touch() -> None:
    view = climbing()
    killed = after(view, f.Killed(reason=""))
    assert killed.tracks[Stage.PAPER] is view.tracks[Stage.PAPER]
    lowered = after(view, f.ActivationLowered(strategy_id=ALPHA, weight=0.0, freeze=0, drain=0))
    assert lowered.standings is view.standings


def test_the_journal_tells_the_whole_story() -> None:
    scene = eventful()
    told = fold(WorldView(world_id=scene.world_id), history(scene))
    assert same_view(told, scene.view)
    assert check(told, scene.now) == ()


def test_every_step_of_the_story_is_sound() -> None:
    """Between facts of one commit, too, but for what the rest of the commit completes."""
    scene = eventful()
    view = WorldView(world_id=scene.world_id)
    for entry in history(scene):
        view = advance(view, entry)
        violations = check(view, entry.at)
        assert violations == () or entry.fact.kind == "series_restated", violations


def test_nearly_every_kind_of_fact_was_told() -> None:
    told = {entry.fact.kind for entry in history(eventful())}
    known = {
        field.default for kind in get_args(f.Fact) for field in fields(kind) if field.name == "kind"
    }
    system = {"world_created", "token_created", "token_revoked", "program_started"}
    elsewhere = {
        "activation_lowered",
        "activation_acknowledged",
        "approval_withdrawn",
        "confirmation_requested",
        "confirmation_given",
        "retention_applied",
    }
    assert known - told == system | elsewhere


# ---- Entries and streams -----------------------------------------------------------------------


def test_a_commit_raises_each_stream_it_writes_to_by_one() -> None:
    view = ready()
    facts = (f.Killed(reason=""), f.Resumed(reason=""), evaluations(view, Verdict.PASS))
    made = entries(view, facts, cast.OTTO, NOW)
    assert [entry.seq for entry in made] == [view.seq + 1, view.seq + 2, view.seq + 3]
    governed, evident = view.governance_generation + 1, view.evidence_generation + 1
    assert [entry.generation for entry in made] == [governed, governed, evident]
    found = fold(view, made)
    assert (found.seq, found.governance_generation) == (view.seq + 3, governed)
    assert found.evidence_generation == evident


def test_a_fact_of_one_stream_leaves_the_other_where_it_was() -> None:
    killed = after(ready(), f.Killed(reason=""))
    assert killed.evidence_generation == ready().evidence_generation
    judged = after(ready(), evaluations(ready(), Verdict.PASS))
    assert judged.governance_generation == ready().governance_generation
    assert {f.stream_of(f.Killed(reason=""))} == {Stream.GOVERNANCE}


def evaluations(
    view: WorldView,
    verdict: Verdict,
    run_id: str = "r2",
    stage: Stage = Stage.PAPER,
    policy_version: int = 1,
    **changes: Any,
) -> f.EvaluationsRecorded:
    made = judged(view, stage, verdict, run_id=RunId(run_id))
    return f.EvaluationsRecorded(
        stage=stage, policy_version=policy_version, runs=(made,), **changes
    )


# ---- Strategies --------------------------------------------------------------------------------


def bound(sid: str, fingerprint: str | None = None) -> f.StrategyBound:
    return f.StrategyBound(
        strategy_id=StrategyId(sid),
        name=sid,
        author=cast.BOB,
        fingerprint=fingerprint,
        variants_tried=None,
    )


def test_columns_grow_with_the_strategies_and_rows_stay() -> None:
    view = WorldView(world_id=WorldId("w"))
    for i in range(CAPACITY_MIN + 1):
        view = after(view, bound(f"s{i}"), now=START)
    assert [view.ids[i] for i in range(CAPACITY_MIN + 1)] == [
        f"s{i}" for i in range(CAPACITY_MIN + 1)
    ]
    assert check(view, START) == ()
    assert view.phase(CAPACITY_MIN) is Phase.BACKTEST
    assert view.entered_at(0) == START


def test_a_fingerprint_told_later_keeps_row_and_time() -> None:
    view = after(WorldView(world_id=WorldId("w")), bound("a"), now=START)
    told = after(view, bound("a", "f9"), now=NOW)
    found = told.strategies[StrategyId("a")]
    assert (found.row, found.bound_at, found.fingerprint) == (0, START, "f9")
    assert told.standings is view.standings


# ---- Kill, allow_live, suspension: down with the window kept ------------------------------------

CLOSES: list[tuple[f.Fact, Reason]] = [
    (f.Killed(reason=""), R.WORLD_KILLED),
    (f.LiveAllowed(allowed=False), R.LIVE_NOT_ALLOWED),
    (f.StateChanged(state=WorldState.SUSPENDED), R.WORLD_SUSPENDED),
    (f.StateChanged(state=WorldState.ARCHIVED), R.WORLD_SUSPENDED),
]


@pytest.mark.parametrize(("fact", "reason"), CLOSES, ids=lambda x: getattr(x, "kind", ""))
def test_closing_the_world_empties_the_live_set_and_keeps_the_window(
    fact: f.Fact, reason: Reason
) -> None:
    view = climbing()
    closed = after(view, fact)
    assert not closed.live
    assert closed.phase(0) is Phase.PAPER
    for name in ("window_from", "window_us", "window_points", "equity", "verdict", "digest"):
        assert paper(closed, name) == paper(view, name)
    assert standing(closed, "entered_at") == paper(view, "window_from")
    assert (standing(closed, "step"), standing(closed, "step_window_us")) == (-1, 0)
    assert not standing(closed, "selected")
    assert not closed.current[ALPHA]
    standings = [closed.candidates[cid].standing for cid in view.current[ALPHA]]
    assert standings == [Void(LATER, reason)] * 2
    assert check(closed, LATER) == ()


def test_opening_again_activates_nothing() -> None:
    view = climbing()
    for down, up in (
        (f.Killed(reason=""), f.Resumed(reason="")),
        (f.LiveAllowed(allowed=False), f.LiveAllowed(allowed=True)),
        (f.StateChanged(state=WorldState.SUSPENDED), f.StateChanged(state=WorldState.ACTIVE)),
    ):
        again = after(view, down, up)
        assert (again.allow_live, again.killed, again.state) == (True, False, WorldState.ACTIVE)
        assert not again.live
        assert check(again, LATER) == ()


def test_what_was_not_live_is_not_touched_by_a_kill() -> None:
    killed = after(ready(), f.Killed(reason=""))
    assert isinstance(open_candidate(killed).standing, Approved)
    assert killed.standings is ready().standings


# ---- Demotion: for cause, the window begins anew ------------------------------------------------


def demoted(to: Phase, held: bool = False) -> f.Demoted:
    return f.Demoted(strategy_id=ALPHA, to=to, reason=R.VALIDATION_FAILED, detail="", held=held)


def test_a_demotion_starts_the_paper_window_anew() -> None:
    view = after(climbing(), demoted(Phase.PAPER))
    assert view.phase(0) is Phase.PAPER
    assert paper(view, "window_from") == standing(view, "entered_at") == micros(LATER)
    assert (paper(view, "window_us"), paper(view, "window_points")) == (0, 0)
    assert (paper(view, "verdict"), paper(view, "judged_policy")) == (0, 0)
    assert paper(view, "points") == paper(climbing(), "points")  # Nothing is forgotten.
    assert not view.live
    assert not view.current[ALPHA]
    assert not standing(view, "held")
    assert check(view, LATER) == ()


def test_a_demotion_by_hand_holds() -> None:
    view = after(climbing(), demoted(Phase.PAPER, held=True))
    assert standing(view, "held")
    released = after(view, f.HoldReleased(strategy_id=ALPHA, reason=""))
    assert not standing(released, "held")
    assert released.phase(0) is Phase.PAPER


def test_a_demotion_within_a_phase_keeps_its_window_and_voids() -> None:
    view = after(ready(), demoted(Phase.PAPER, held=True))
    assert paper(view, "window_us") == paper(ready(), "window_us")
    assert not view.current[ALPHA]
    assert not standing(view, "selected")


@pytest.mark.parametrize("to", [Phase.BACKTEST, Phase.RETIRED])
def test_leaving_the_campaign_voids_and_unselects(to: Phase) -> None:
    for view in (ready(), climbing()):
        gone = after(view, demoted(to))
        assert gone.phase(0) is to
        assert not gone.live
        assert not gone.current[ALPHA]
        assert not standing(gone, "selected")
        assert check(gone, LATER) == ()


def test_a_rejection_outlives_whatever_happens_around_it() -> None:
    cid = open_candidate(ready()).candidate_id
    view = after(ready(), f.CandidateRejected(candidate_id=cid, reason="no"))
    standing_ = view.candidates[cid].standing
    for fact in (
        demoted(Phase.PAPER, held=True),
        demoted(Phase.BACKTEST),
        f.PhaseEntered(strategy_id=ALPHA, phase=Phase.RETIRED),
        f.Killed(reason=""),
        f.DefaultPolicySet(version=2),
        restated(Stage.PAPER),
    ):
        later = after(view, f.PolicyAdded(version=2, checksum="", policy=AUTO), fact)
        assert later.candidates[cid].standing == standing_, fact.kind
        assert later.current[ALPHA] == (cid,)


# ---- Policies ----------------------------------------------------------------------------------


def test_another_policy_voids_what_is_open_and_leaves_what_is_live() -> None:
    added = f.PolicyAdded(version=2, checksum="c2", policy=AUTO)
    view = after(climbing(), added)
    assert view.default_version == 1
    changed = after(view, f.DefaultPolicySet(version=2))
    assert changed.live == climbing().live
    open_ = open_candidate(climbing()).candidate_id
    assert changed.candidates[open_].standing == Void(LATER, R.POLICY_CHANGED)
    assert len(changed.current[ALPHA]) == 1
    assert check(changed, LATER) == ()
    same = after(view, f.DefaultPolicySet(version=1))
    assert same.current == view.current


# ---- Evaluations -------------------------------------------------------------------------------


def test_newer_good_evidence_keeps_a_candidate_and_its_approvals() -> None:
    view = after(ready(), evaluations(ready(), Verdict.PASS, "r2"))
    candidate = open_candidate(view)
    assert candidate == replace(open_candidate(ready()), run_id=RunId("r2"))
    assert len(candidate.approvals) == 2


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_bad_evidence_does_not_become_the_candidates(verdict: Verdict) -> None:
    view = after(ready(), evaluations(ready(), verdict, "r2"))
    assert open_candidate(view) == open_candidate(ready())  # Voiding it is another fact's.
    assert view.verdict(0, Stage.PAPER) is verdict
    latest = view.runs[ALPHA, Stage.PAPER]
    assert (latest.run_id, latest.verdict, latest.at) == ("r2", verdict, LATER)


def test_evidence_of_another_stage_does_not_become_the_candidates() -> None:
    for stage in (Stage.BACKTEST, Stage.SHADOW, Stage.LIVE):
        view = after(ready(), evaluations(ready(), Verdict.PASS, "r2", stage))
        assert open_candidate(view).run_id != "r2"


def test_what_was_judged_is_remembered() -> None:
    view = after(ready(track={"judged_policy": 0}), evaluations(ready(), Verdict.PASS))
    assert paper(view, "judged_digest") == paper(view, "digest")
    assert paper(view, "judged_t") == paper(view, "last_t")
    assert paper(view, "judged_policy") == 1


def selected_of(view: WorldView) -> list[bool]:
    return [bool(x) for x in view.standings.selected[: len(view.ids)]]


def test_a_cohort_selects_and_unselects_all_of_it() -> None:
    scene = in_paper(MemoryStore(), POLICY, ALPHA, BETA, GAMMA)
    first = f.EvaluationsRecorded(
        stage=Stage.PAPER,
        policy_version=1,
        runs=(),
        cohort=(ALPHA, BETA, GAMMA),
        selected=(GAMMA, ALPHA),
    )
    view = after(scene.view, first)
    assert selected_of(view) == [True, False, True]
    second = replace(first, cohort=(ALPHA, BETA), selected=(BETA,))
    assert selected_of(after(view, second)) == [False, True, True]
    assert selected_of(after(view, replace(second, cohort=(), selected=()))) == [True, False, True]


def test_a_run_under_another_policy_takes_back_what_was_selected_under_this() -> None:
    view = ready()
    same = after(view, evaluations(view, Verdict.PASS))
    assert selected_of(same) == [True]
    other = after(view, evaluations(view, Verdict.PASS, policy_version=2))
    assert selected_of(other) == [False]
    again = after(
        view,
        evaluations(view, Verdict.PASS, policy_version=2, cohort=(ALPHA,), selected=(ALPHA,)),
    )
    assert selected_of(again) == [True]
    live = after(climbing(), evaluations(climbing(), Verdict.PASS, policy_version=2))
    assert selected_of(live) == [True]  # What is live was selected for good.


# ---- Snapshots and restatements ----------------------------------------------------------------


def snapshot(as_of: Any, **changes: Any) -> f.SnapshotStored:
    made = f.SnapshotStored(
        version=f"v{as_of}",
        stage=Stage.PAPER,
        as_of=as_of,
        ttl_sec=60,
        content=Digest(""),
        weights={ALPHA: 1.0},
        covered=(ALPHA,),
        points=f.Points(),
        stress={ALPHA: {"a": 0.1, "b": 0.3}},
    )
    return replace(made, **changes)


def test_the_newest_snapshot_that_contains_it_covers_a_strategy() -> None:
    view = after(ready(), snapshot(NOW + MINUTE))
    assert paper(view, "covered_seq") == view.seq
    assert paper(view, "covered_as_of") == micros(NOW + MINUTE)
    assert paper(view, "covered_ttl_us") == 60_000_000
    assert paper(view, "stress_loss") == 0.3
    older = after(view, snapshot(NOW))
    assert paper(older, "covered_seq") == view.seq
    again = after(view, snapshot(NOW + MINUTE, stress=None))
    assert paper(again, "covered_seq") == again.seq
    assert np.isnan(paper(again, "stress_loss"))


@pytest.mark.parametrize(
    "missing", [{"weights": {}}, {"covered": ()}, {"stage": Stage.SHADOW}], ids=str
)
def test_a_snapshot_that_lacks_it_covers_nothing(missing: dict[str, Any]) -> None:
    view = after(ready(), snapshot(NOW + MINUTE, **missing))
    assert paper(view, "covered_seq") == paper(ready(), "covered_seq")


def restated(stage: Stage, t: Any = NOW) -> f.SeriesRestated:
    points = packed([(ALPHA, np.array([micros(t)]), np.array([0.5]))])
    return f.SeriesRestated(stage=stage, strategy_id=ALPHA, reason="", points=points)


def test_a_restatement_starts_the_window_anew_and_voids() -> None:
    view = after(ready(), restated(Stage.PAPER))
    assert paper(view, "points") == 1
    assert (paper(view, "window_points"), paper(view, "window_us")) == (0, 0)
    assert paper(view, "window_from") == micros(LATER)
    assert paper(view, "covered_as_of") == NEVER
    assert paper(view, "verdict") == 0
    assert (ALPHA, Stage.PAPER) not in view.runs
    assert not view.current[ALPHA]
    assert not standing(view, "selected")
    assert check(view, LATER) == ()


def test_restated_points_of_paper_count_for_nothing() -> None:
    view = after(ready(), restated(Stage.PAPER, LATER + MINUTE))
    assert (paper(view, "points"), paper(view, "window_points")) == (1, 0)


def test_a_restatement_of_what_nothing_relies_on_voids_nothing() -> None:
    shadow = after(climbing(), restated(Stage.SHADOW))
    assert shadow.current == climbing().current
    assert check(shadow, LATER) == ()
    old_live = after(ready(), restated(Stage.LIVE))
    assert old_live.current == ready().current
    assert standing(old_live, "selected")


# ---- Promotion ---------------------------------------------------------------------------------


def test_a_promotion_keeps_what_an_operator_froze() -> None:
    frozen = after(
        climbing(),
        f.ActivationLowered(strategy_id=ALPHA, weight=0.01, freeze=True, drain=False),
    )
    candidate = open_candidate(frozen)
    up = after(
        frozen,
        f.PromotionApplied(
            candidate_id=candidate.candidate_id,
            strategy_id=ALPHA,
            run_id=candidate.run_id,
            evidence=Digest(""),
            snapshot_seq=1,
            step=1,
            weight=0.4,
        ),
    )
    held = up.live[ALPHA]
    assert (held.step, held.weight, held.applied_weight, held.freeze) == (1, 0.4, 0.4, True)
    assert up.candidates[candidate.candidate_id].standing == Applied(LATER, up.seq)
    assert standing(up, "step_window_us") == 6 * 86_400_000_000
    assert up.tracks[Stage.LIVE].window_points[0] == 7  # The live window goes on.
    assert check(up, LATER) == ()


def test_going_live_starts_the_live_window() -> None:
    candidate = open_candidate(ready())
    view = after(
        ready(),
        f.PromotionApplied(
            candidate_id=candidate.candidate_id,
            strategy_id=ALPHA,
            run_id=candidate.run_id,
            evidence=Digest(""),
            snapshot_seq=1,
            step=0,
            weight=0.1,
        ),
    )
    assert view.tracks[Stage.LIVE].window_from[0] == micros(LATER)
    assert view.tracks[Stage.PAPER] is ready().tracks[Stage.PAPER]
    assert view.promoted_at == LATER
    assert check(view, LATER) == ()


def test_a_released_candidate_is_proposed_without_approvals() -> None:
    cid = open_candidate(ready()).candidate_id
    view = after(ready(), f.CandidateReleased(candidate_id=cid, reason=""))
    assert (view.candidates[cid].standing, view.candidates[cid].approvals) == (Proposed(), ())


def test_more_time_brings_back_what_ran_out_of_it() -> None:
    expired = after(ready(), f.PhaseEntered(strategy_id=ALPHA, phase=Phase.RETIRED))
    back = after(expired, f.CampaignExtended(strategy_id=ALPHA, by_sec=9, reason=""))
    assert back.phase(0) is Phase.PAPER
    assert paper(back, "window_us") == paper(ready(), "window_us")
    assert standing(back, "entered_at") == paper(ready(), "window_from")
    assert standing(back, "extension_us") == 9_000_000
    more = after(back, f.CampaignExtended(strategy_id=ALPHA, by_sec=1, reason=""))
    assert standing(more, "extension_us") == 10_000_000


# ---- Columns -----------------------------------------------------------------------------------


def test_a_put_copies_and_keeps_dtypes() -> None:
    blank = Track.blank(3)
    changed = blank.put(1, verdict=2, equity=0.5, digest=b"abc")
    assert changed.verdict.tolist() == [0, 2, 0]
    assert blank.verdict.tolist() == [0, 0, 0]
    assert {n: a.dtype for n, a in changed.arrays().items()} == {
        n: a.dtype for n, a in blank.arrays().items()
    }
    with pytest.raises(ValueError, match="read-only"):
        changed.verdict[0] = 1


def test_growing_doubles_and_keeps() -> None:
    one = Standings.blank(0).grown(1)
    assert len(one.phase) == CAPACITY_MIN
    assert one.grown(CAPACITY_MIN) is one
    two = one.put(0, step=4).grown(CAPACITY_MIN + 1)
    assert len(two.phase) == 2 * CAPACITY_MIN
    assert two.step.tolist()[:2] == [4, -1]


def test_an_unknown_candidate_is_a_bug() -> None:
    with pytest.raises(KeyError):
        after(ready(), f.CandidateVoided(candidate_id=CandidateId("?"), reason=R.MANUAL))
