"""The hub: snapshots once, history that does not change, and late data that counts for nothing."""

import numpy as np
import pytest

from qmtl.app import hub
from qmtl.app.ports import Store
from qmtl.core.errors import Conflict, Invalid, UnknownSnapshot
from qmtl.core.names import Phase, Reason, Stage
from qmtl.core.snapshot import PostedSeries
from qmtl.core.times import micros
from qmtl.core.windows import progress
from qmtl.sim import cast
from qmtl.sim.scene import DAY, START, daily
from tests.worlds import ALPHA, BETA, MINUTE, POLICY, good, in_paper, observe, observed, opened

R = Reason


def test_the_same_again_is_no_second_event(store: Store) -> None:
    scene = in_paper(store)
    scene.wait(DAY)
    stored, created = scene.bar(Stage.PAPER, {ALPHA: 0.01})
    assert created
    assert (stored.actor, stored.created_at, stored.seq) == (cast.FEED, scene.now, scene.view.seq)
    seq = scene.view.seq
    scene.wait(MINUTE)
    assert scene.bar(Stage.PAPER, {ALPHA: 0.01}, at=scene.now - MINUTE) == (stored, False)
    assert scene.view.seq == seq
    assert hub.get(store, scene.world_id, stored.fact.version) == stored


def test_a_version_that_holds_other_content_stays_what_it_is(store: Store) -> None:
    scene = in_paper(store)
    scene.wait(DAY)
    stored, _ = scene.bar(Stage.PAPER, {ALPHA: 0.01}, version="v")
    with pytest.raises(Conflict):
        scene.bar(Stage.PAPER, {ALPHA: 0.02}, version="v")
    assert hub.get(store, scene.world_id, "v") == stored
    with pytest.raises(UnknownSnapshot):
        hub.get(store, scene.world_id, "w")


def test_another_version_with_the_same_points_adds_none(store: Store) -> None:
    scene = in_paper(store)
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: 0.01}, version="v1")
    digest = scene.view.digest(0, Stage.PAPER)
    stored, created = scene.bar(Stage.PAPER, {ALPHA: 0.01}, version="v2")
    assert created
    assert stored.fact.points.counts == ()
    assert scene.view.digest(0, Stage.PAPER) == digest
    assert scene.view.tracks[Stage.PAPER].covered_seq[0] == stored.seq


def test_history_that_differs_is_refused_and_nothing_is_stored(store: Store) -> None:
    scene = observed(store)
    seq = scene.view.seq
    held = store.series(scene.world_id, ALPHA, Stage.PAPER)
    with pytest.raises(Conflict) as refused:
        scene.post(Stage.PAPER, {ALPHA: PostedSeries(held.t, held.r + 0.001)})
    assert refused.value.reasons == (R.EVIDENCE_CHANGED,)
    with pytest.raises(Invalid):
        scene.bar(Stage.PAPER, {ALPHA: 0.1}, at=scene.now + 2 * MINUTE)
    assert scene.view.seq == seq


def test_one_bad_series_refuses_the_whole_snapshot(store: Store) -> None:
    scene = in_paper(store, POLICY, ALPHA, BETA)
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: 0.01})
    scene.wait(DAY)
    good_one = daily(np.array([0.1]), scene.now)
    changed = daily(np.array([0.5, 0.1]), scene.now)
    with pytest.raises(Conflict):
        scene.post(Stage.PAPER, {BETA: good_one, ALPHA: changed})
    assert len(store.series(scene.world_id, BETA, Stage.PAPER).t) == 0


def test_an_older_snapshot_is_stored_and_never_the_latest(store: Store) -> None:
    scene = observed(store)
    covered = int(scene.view.tracks[Stage.PAPER].covered_seq[0])
    held = store.series(scene.world_id, ALPHA, Stage.PAPER)
    old = scene.now - 3 * DAY
    stored, created = scene.post(Stage.PAPER, {ALPHA: PostedSeries(held.t[:1], held.r[:1])}, old)
    assert created
    assert scene.view.tracks[Stage.PAPER].covered_seq[0] == covered
    latest = store.latest_snapshot(scene.world_id, Stage.PAPER)
    assert latest is not None
    assert latest.seq == covered != stored.seq


def test_late_data_is_kept_and_counts_for_nothing(store: Store) -> None:
    scene = in_paper(store)
    scene.wait(11 * DAY)
    scene.post(Stage.PAPER, {ALPHA: daily(good(11), scene.now)})  # Six of them more than 5 d old.
    track = scene.view.tracks[Stage.PAPER]
    assert (track.points[0], track.window_points[0]) == (11, 6)
    assert track.window_us[0] == 5 * 86_400_000_000
    series = store.series(scene.world_id, ALPHA, Stage.PAPER)
    assert series.accepted.tolist() == [False] * 5 + [True] * 6
    run = scene.evaluate(ALPHA).run
    assert run.value("observations") == 6.0
    assert R.PAPER_WINDOW_INCOMPLETE in run.reasons


def test_returns_from_before_the_entry_do_not_count(store: Store) -> None:
    scene = in_paper(store)
    scene.wait(DAY)
    scene.post(Stage.PAPER, {ALPHA: daily(good(4), scene.now)})
    assert scene.view.tracks[Stage.PAPER].window_points[0] == 1


def test_a_list_goes_on_where_it_ended(store: Store) -> None:
    scene = in_paper(store)
    for day in range(1, 4):
        scene.wait(DAY)
        scene.post(Stage.PAPER, {ALPHA: PostedSeries(None, good(day))})
    held = store.series(scene.world_id, ALPHA, Stage.PAPER)
    assert held.t.tolist() == [micros(START + day * DAY) for day in range(1, 4)]
    with pytest.raises(Conflict):
        scene.post(Stage.PAPER, {ALPHA: PostedSeries(None, -good(5))})


def test_nothing_counts_before_there_is_a_policy(store: Store) -> None:
    scene = opened(store)
    empty = type(scene)(store, world_id=type(scene.world_id)("bare"))
    empty.create()
    empty.bind(ALPHA)
    empty.bar(Stage.PAPER, {ALPHA: 0.1})
    empty.bar(Stage.BACKTEST, {ALPHA: 0.1})
    assert not store.series(empty.world_id, ALPHA, Stage.PAPER).accepted.any()
    assert store.series(empty.world_id, ALPHA, Stage.BACKTEST).accepted.all()


# ---- Restatements ------------------------------------------------------------------------------


def test_a_restatement_replaces_and_the_window_starts_anew(store: Store) -> None:
    scene = observed(store)
    scene.restate(Stage.PAPER, ALPHA, daily(good(3), scene.now))
    held = store.series(scene.world_id, ALPHA, Stage.PAPER)
    assert held.r.tolist() == good(3).tolist()
    assert not held.accepted.any()
    view = scene.view
    assert progress(view, 0, Stage.PAPER, view.policy).observations == 0
    assert view.phase(0) is Phase.PAPER
    observe(scene, Stage.PAPER, 2)
    assert progress(scene.view, 0, Stage.PAPER, view.policy).observations == 2


def test_the_same_restatement_is_none(store: Store) -> None:
    scene = observed(store)
    held = store.series(scene.world_id, ALPHA, Stage.PAPER)
    seq = scene.view.seq
    scene.restate(Stage.PAPER, ALPHA, PostedSeries(held.t, held.r))
    assert scene.view.seq == seq


def test_a_restated_backtest_has_to_pass_again(store: Store) -> None:
    scene = observed(store)
    scene.restate(Stage.BACKTEST, ALPHA, daily(-good(30), START - DAY))
    assert scene.view.phase(0) is Phase.BACKTEST
    scene.loop()
    assert scene.view.phase(0) is Phase.BACKTEST
    scene.restate(Stage.BACKTEST, ALPHA, daily(good(30), START - DAY))
    scene.loop()
    assert scene.view.phase(0) is Phase.PAPER
    assert scene.view.tracks[Stage.PAPER].window_points[0] == 0
