"""Changed code under a known id: a version of its own, from nothing, and it frees nobody."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.app.ports import Store
from qmtl.core import versions
from qmtl.core.errors import Conflict, Forbidden, Refusal
from qmtl.core.invariants import check
from qmtl.core.names import ID_CHARS_MAX, Mode, Phase, Reason, Stage, StrategyId
from qmtl.core.promotion import Blocked
from qmtl.core.versions import changed, family
from qmtl.sim import cast
from qmtl.sim.scene import DAY, START, Scene
from tests.worlds import (
    ALPHA,
    BETA,
    PAPER_DAYS,
    good,
    in_paper,
    live,
    observe,
    observed,
    opened,
    proposed,
)

ALPHA2, ALPHA3 = StrategyId("alpha.2"), StrategyId("alpha.3")
PARTS = {"code": "c1", "parameters": "p1", "data": "d1", "engine": "e1"}


def submitted(
    scene: Scene, fingerprint: str, sid: StrategyId = ALPHA, **more: object
) -> StrategyId:
    """Which strategy it became."""
    return scene.submit(sid, good(30), end=START, fingerprint=fingerprint, **more).strategy_id  # type: ignore[arg-type]  # `more` is its.


def test_what_was_changed_is_a_strategy_of_its_own(store: Store) -> None:
    scene = observed(store)
    before = scene.view
    run = scene.submit(ALPHA, -good(30), fingerprint="f2")
    view = scene.view
    assert (run.strategy_id, run.stage) == (ALPHA2, Stage.BACKTEST)
    made = view.strategies[ALPHA2]
    assert (made.family, made.version, made.previous) == (ALPHA, 2, ALPHA)
    assert (made.row, made.author, made.fingerprint) == (1, cast.ANN, "f2")
    assert made.bound_at == view.entered_at(1) == scene.now
    assert view.phase(1) is Phase.BACKTEST
    assert len(store.series(scene.world_id, ALPHA2, Stage.PAPER).t) == 0
    assert view.strategies[ALPHA] == before.strategies[ALPHA]
    assert view.standings.same(before.standings, 1)
    assert all(track.same(before.tracks[stage], 1) for stage, track in view.tracks.items())
    assert check(view, scene.now) == ()


def test_the_same_fingerprint_is_the_same_version_whichever_is_named(store: Store) -> None:
    scene = opened(store)
    made = [submitted(scene, fingerprint) for fingerprint in ("f1", "f2", "f3")]
    assert made == [ALPHA, ALPHA2, ALPHA3]
    assert [s.previous for s in family(scene.view, ALPHA)] == [None, ALPHA, ALPHA2]
    seq = scene.view.seq
    for sid in made:
        assert [submitted(scene, f"f{n}", sid) for n in (3, 1, 2)] == [ALPHA3, ALPHA, ALPHA2]
    assert scene.view.seq == seq
    assert submitted(scene, "f4", ALPHA2) == "alpha.4", "a later version's id is of its family"
    assert scene.view.strategies[StrategyId("alpha.4")].previous == ALPHA3


def test_many_at_once_are_one(store: Store) -> None:
    """I3 n concurrent equal requests have one effect."""
    scene = opened(store)
    submitted(scene, "f1")
    seq = scene.view.seq
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda n: submitted(scene, f"f{2 + n % 2}"), range(16)))
    assert made == {ALPHA2, ALPHA3}
    assert len(scene.view.strategies) == 3
    entries = [entry.fact.kind for entry in store.journal(scene.world_id, seq, 100)]
    assert sorted(entries) == sorted(
        2 * ["strategy_bound", "snapshot_stored", "evaluations_recorded", "phase_entered"]
    )


def test_what_changed_is_known_from_what_was_told(store: Store) -> None:
    scene = opened(store)
    submitted(scene, "f1", parts=PARTS)
    submitted(scene, "f2", parts={**PARTS, "data": "d2"})
    submitted(scene, "f3")
    submitted(scene, "f4", parts={**PARTS, "code": "c4"})
    found = [changed(scene.view, strategy) for strategy in family(scene.view, ALPHA)]
    assert found == [(), ("data",), (), ()]
    submitted(scene, "f2", parts=PARTS)
    assert scene.view.strategies[ALPHA2].parts["data"] == "d2", "told once"


def test_an_id_without_a_fingerprint_takes_the_first(store: Store) -> None:
    scene = opened(store)
    scene.bind(ALPHA, fingerprint=None)
    assert submitted(scene, "f1", parts=PARTS) == ALPHA
    (only,) = scene.view.in_order()
    assert (only.fingerprint, only.version, only.previous, only.parts) == ("f1", 1, None, PARTS)
    assert submitted(scene, "f2") == ALPHA2


def test_who_tells_no_fingerprint_means_the_one_there_is(store: Store) -> None:
    scene = opened(store)
    submitted(scene, "f1")
    seq = scene.view.seq
    assert scene.submit(ALPHA, good(30), end=START, fingerprint=None).strategy_id == ALPHA
    assert scene.view.seq == seq


def test_a_name_that_somebody_has_is_passed_over(store: Store) -> None:
    scene = opened(store)
    submitted(scene, "f1")
    scene.bind(ALPHA2, cast.BOB, fingerprint="mine")
    assert submitted(scene, "f2") == ALPHA3
    made = scene.view.strategies[ALPHA3]
    assert (made.version, made.previous) == (2, ALPHA)
    assert scene.submit(ALPHA2, good(30), cast.BOB, fingerprint="other").strategy_id == "alpha.2.2"
    assert check(scene.view, scene.now) == ()


def full(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    monkeypatch.setattr(versions, "VERSIONS_MAX", 1)
    return lambda: submitted(scene, "f2")


def long(scene: Scene, _: pytest.MonkeyPatch) -> Callable[[], object]:
    sid = StrategyId("a" * (ID_CHARS_MAX - 1))
    submitted(scene, "f5", sid)
    return lambda: submitted(scene, "f2", sid)


def anothers(scene: Scene, _: pytest.MonkeyPatch) -> Callable[[], object]:
    return lambda: scene.submit(ALPHA, good(30), cast.BOB, fingerprint="f2")


def unusable(scene: Scene, _: pytest.MonkeyPatch) -> Callable[[], object]:
    return lambda: scene.submit(ALPHA, np.append(good(29), -1.5), fingerprint="f2")


def only_bound(scene: Scene, _: pytest.MonkeyPatch) -> Callable[[], object]:
    return lambda: scene.bind(ALPHA, fingerprint="f2")


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (full, "alpha has 1 versions.*another strategy_id"),
        (long, "129 characters of 128.*a shorter strategy_id"),
        (anothers, "a strategy of ann"),
        (unusable, "-1.5"),
        (only_bound, "POST /strategies, which makes a new version"),
    ],
)
def test_what_makes_no_version_changes_nothing(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    case: Callable[[Scene, pytest.MonkeyPatch], Callable[[], object]],
    says: str,
) -> None:
    scene = in_paper(store)
    tries = case(scene, monkeypatch)
    before = scene.view
    with pytest.raises(Refusal, match=says):
        tries()
    assert scene.view is before or scene.view.seq == before.seq
    assert set(scene.view.strategies) == set(before.strategies)


# ---- A new version frees nobody ------------------------------------------------------------------


def held() -> Scene:
    scene = live(MemoryStore())
    scene.demote(ALPHA)
    return scene


def rejected() -> Scene:
    scene = proposed(MemoryStore())
    scene.reject(ALPHA)
    return scene


def retired() -> Scene:
    scene = in_paper(MemoryStore())
    scene.demote(ALPHA, Phase.RETIRED)
    return scene


def killed() -> Scene:
    scene = live(MemoryStore())
    scene.kill()
    return scene


def cooling() -> Scene:
    return live(MemoryStore())


FROM = [held, rejected, retired, killed, cooling]


@pytest.mark.parametrize("build", FROM)
def test_a_new_version_starts_from_nothing_and_leaves_the_old_as_it_stands(
    build: Callable[[], Scene],
) -> None:
    scene = build()
    view = scene.view
    assert submitted(scene, "f2") == ALPHA2
    after = scene.view
    assert after.standings.same(view.standings, 1)
    assert after.open_candidate(ALPHA) == view.open_candidate(ALPHA)
    assert (after.live, after.killed) == (view.live, view.killed)
    assert after.promoted_at == view.promoted_at, "a cooldown is the world's"
    assert after.open_candidate(ALPHA2) is None
    assert scene.decide(ALPHA2).effective_mode is Mode.PAPER
    paper = scene.view.runs.get((ALPHA2, Stage.BACKTEST))
    assert paper is not None
    refused = scene.apply(ALPHA2, paper.run_id)
    assert isinstance(refused, Blocked)
    assert {Reason.PAPER_RUN_MISSING, Reason.MANUAL_APPROVAL_REQUIRED} <= set(refused.reasons)


@pytest.mark.parametrize("build", [held, rejected, retired])
def test_the_old_code_is_the_old_version_and_stands_where_it_stood(
    build: Callable[[], Scene],
) -> None:
    scene = build()
    submitted(scene, "f2")
    before = scene.view
    for sid in (ALPHA, ALPHA2):
        again = scene.submit(sid, good(30), end=START - DAY, stats={"trades_total": 50.0})
        assert again.strategy_id == ALPHA
    assert scene.view.standings.same(before.standings, 2)
    assert scene.view.open_candidate(ALPHA) == before.open_candidate(ALPHA)


@pytest.mark.parametrize("build", [held, rejected])
@pytest.mark.parametrize("bound", [True, False], ids=["of another family", "of a bare id"])
def test_held_code_does_not_come_back_as_a_version(build: Callable[[], Scene], bound: bool) -> None:
    scene = build()
    scene.bind(BETA, fingerprint="f9" if bound else None)
    before = scene.view.seq
    ways = [lambda: submitted(scene, "f1", BETA)]
    ways += [] if bound else [lambda: scene.bind(BETA, fingerprint="f1")]  # type: ignore[list-item, return-value]  # It raises.
    for way in ways:
        with pytest.raises(Conflict, match="held or rejected"):
            way()
    assert scene.view.seq == before
    scene.release(ALPHA)
    assert submitted(scene, "f1", BETA) == (StrategyId("beta.2") if bound else BETA)


def test_a_version_of_a_live_strategy_needs_every_gate_anew(store: Store) -> None:
    scene = live(store)
    assert submitted(scene, "f2") == ALPHA2
    observe(scene, Stage.PAPER, PAPER_DAYS, ALPHA2)
    scene.cohort([ALPHA2])
    candidate = scene.candidate(ALPHA2)
    assert (candidate.step, candidate.approvals) == (0, ())
    blocked = scene.apply(ALPHA2)
    assert isinstance(blocked, Blocked)
    assert Reason.MANUAL_APPROVAL_REQUIRED in blocked.reasons
    with pytest.raises(Forbidden, match="author"):
        scene.approve(ALPHA2, cast.ANN)
    assert ALPHA in scene.view.live
    assert scene.decide(ALPHA2).effective_mode is Mode.PAPER
