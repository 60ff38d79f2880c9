"""Retention on every store: what goes, what is held, and that nothing that was decided changes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import Phase as Looking
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.adapters.memory import MemoryStore, State, World, after, replay, store_of
from qmtl.adapters.objects import MemoryObjects
from qmtl.adapters.sql import reduction
from qmtl.adapters.sql.errors import StoreDamaged
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.wire.verify import verify
from qmtl.app import retention
from qmtl.app.ports import Store
from qmtl.app.why import Outcome, why
from qmtl.core import retention as core
from qmtl.core.errors import Invalid, Refusal
from qmtl.core.facts import EvaluationsRecorded, RetentionApplied, SnapshotStored
from qmtl.core.fold import fold
from qmtl.core.names import Phase, Stage, StrategyId
from qmtl.core.policy import Bound, Gates
from qmtl.core.snapshot import PostedSeries
from qmtl.core.view import WorldView, same_view
from qmtl.sim import cast
from qmtl.sim.scene import DAY, WORLD, Scene
from tests.exports import exported, told_of
from tests.objects import everything_leaves
from tests.worlds import ALPHA, BETA, GAMMA, MINUTE, POLICY, at_once, good, good_bar, opened

from .by_hand import edit, rows
from .conftest import Reopened
from .test_store_sql import UNLOCKED

AGE = timedelta(days=8)
BOUNDS = (Bound(metric="ex_ante_volatility", max=9.0), Bound(metric="trades_total", min=1.0))
DETAILED = replace(  # Verdicts rest on what a snapshot carries beside its returns.
    POLICY,
    gates=Gates(
        by_stage={
            stage: (*bounds, *BOUNDS) if stage is not Stage.BACKTEST else bounds
            for stage, bounds in POLICY.gates.by_stage.items()
        }
    ),
)


def bar(scene: Scene, stage: Stage, *sids: StrategyId, level: float = 0.0) -> None:
    """A day, and a snapshot with everything that one may carry."""
    scene.wait(DAY)
    mine = sids or (ALPHA,)
    days = (scene.now - scene.now.replace(month=1, day=1)).days
    scene.bar(
        stage,
        dict.fromkeys(mine, good_bar(scene) + level),
        covariance={f"{sid},{sid}": 1e-4 * (1 + days % 7) for sid in mine},
        stress={sid: {"crash": 0.1 + 0.01 * (days % 3), "gap": 0.05} for sid in mine},
        stats={sid: {"trades_total": 10.0 + days} for sid in mine},
    )


@at_once
def lived(store: Store) -> Scene:
    """Alpha is live: judged twice on the way, and refused once; then nothing for a while."""
    scene = opened(store, DETAILED)
    scene.submit(ALPHA, good(30), stats={"trades_total": 50.0})
    for day in range(14):
        bar(scene, Stage.PAPER)
        if day in (3, 11):
            scene.cohort([ALPHA])
        if day == 12:
            scene.apply(ALPHA)  # Nobody has approved it.
            scene.approve(ALPHA, cast.PIA)
            scene.approve(ALPHA, cast.PETE)
    scene.apply(ALPHA)
    assert scene.view.phase(0) is Phase.LIVE
    for _ in range(3):
        bar(scene, Stage.LIVE)
    scene.wait(20 * DAY)
    return scene


def retain(scene: Scene, age: timedelta = AGE, orphans: timedelta = DAY) -> retention.Survey:
    by = cast.by(cast.POLLY, scene.now)
    return retention.apply(scene.store, scene.world_id, by, age, orphans)[0]


def snapshots(store: Store) -> dict[int, SnapshotStored]:
    entries = store.journal(WORLD, 0, 10_000)
    return {e.seq: e.fact for e in entries if isinstance(e.fact, SnapshotStored)}


def answers(store: Store) -> list[tuple[Outcome, object]]:
    """What `why` derives of every entry, from the journal alone."""
    world, found = World(WorldView(world_id=WORLD), []), []
    for entry in store.journal(WORLD, 0, 10_000):
        again = why(store_of(world), WORLD, entry)
        if not isinstance(entry.fact, RetentionApplied):
            found.append((again.outcome, again.differences))
        world.journal.append(entry)
        world = after(world, entry)
    return found


def evidence_again(store: Store) -> int:
    """Every run's evidence, from the journal as it is told; how many runs there are."""
    view, count = WorldView(world_id=WORLD), 0
    for entry in store.journal(WORLD, 0, 10_000):
        if isinstance(entry.fact, EvaluationsRecorded):
            for run in entry.fact.runs:
                row = view.strategies[run.strategy_id].row
                assert view.tracks[run.stage].digest[row].decode() == run.evidence
                count += 1
        view = fold(view, [entry])
    return count


# ---- On every store ----------------------------------------------------------------------------


def test_what_nothing_rests_on_goes_and_the_rest_is_as_it_was(store: Store) -> None:
    scene = lived(store)
    before, derived, whole = scene.view, answers(store), snapshots(store)
    paths = [store.runs(WORLD, ALPHA, 100), store.series(WORLD, ALPHA, Stage.PAPER).r.tolist()]
    asked = retention.survey(store, WORLD, scene.now, AGE)
    assert scene.view == before, "to ask changes nothing"
    found = retain(scene)
    assert found == asked
    assert {each.stage for each in found.removable} == {Stage.PAPER, Stage.LIVE}
    held = [reason for each in found.held for reason in each.held]
    for reason in ("run ", "approved alpha", "went live", "refused live", "newest live"):
        assert any(reason in each for each in held), reason
    gone = {each.seq for each in found.removable}
    assert len(gone) > 8
    now = snapshots(store)
    for seq, fact in whole.items():
        left = core.reduced(fact, scene.now) if seq in gone else fact
        assert now[seq] == left
        assert store.snapshot(WORLD, fact.version).fact == left  # type: ignore[union-attr]  # It is there.
    applied = store.journal(WORLD, before.seq, 100)
    assert all(isinstance(entry.fact, RetentionApplied) for entry in applied)
    assert {r.seq for e in applied for r in e.fact.reduced} == gone  # type: ignore[union-attr]  # Asserted above.
    expected = replace(
        before,
        seq=before.seq + len(applied),
        evidence_generation=before.evidence_generation + len(applied),
    )
    assert same_view(scene.view, expected)
    assert answers(store) == derived
    assert evidence_again(store) == len(paths[0]) > 2
    assert [store.runs(WORLD, ALPHA, 100), store.series(WORLD, ALPHA, Stage.PAPER).r.tolist()] == [
        *paths
    ]


def test_twice_is_once(store: Store) -> None:
    scene = lived(store)
    retain(scene)
    head = store.head(WORLD)
    assert retain(scene).removable == ()
    assert store.head(WORLD) == head


def test_the_chain_is_whole_and_says_what_went(store: Store) -> None:
    scene = lived(store)
    before = store.chained(WORLD, 0, 10_000)
    gone = {each.seq for each in retain(scene).removable}
    for was, is_ in zip(before, store.chained(WORLD, 0, 10_000), strict=False):
        assert (was.hash, was.body_digest) == (is_.hash, is_.body_digest)
        assert (was.body != is_.body) is (was.seq in gone)
    found = verify(exported(told_of(store, WORLD), WORLD))
    assert found.problem is None
    assert found.reduced == len(gone)


def test_what_is_young_stays_and_too_young_is_refused(store: Store) -> None:
    scene = lived(store)
    head = store.head(WORLD)
    assert retain(scene, timedelta(days=400)).old == ()
    for given_ in ((timedelta(days=6), DAY), (AGE, timedelta(hours=23))):
        with pytest.raises(Invalid, match="older_than: at least"):
            retain(scene, *given_)
    assert store.head(WORLD) == head


def test_the_same_snapshot_again_is_no_conflict(store: Store) -> None:
    scene = opened(store)
    scene.bind(ALPHA)
    posts: list[Callable[[], Any]] = []
    for _ in range(2):
        scene.wait(DAY)
        now = scene.now
        posts.append(
            lambda now=now: scene.bar(  # type: ignore[misc]  # A default in a lambda.
                Stage.PAPER, {ALPHA: 0.01}, at=now, covariance={"alpha,alpha": 0.1}
            )
        )
        posts[-1]()
    scene.wait(AGE)
    assert len(retain(scene).removable) == 1
    stored, made = posts[0]()
    assert not made
    assert stored.fact.removed is not None


def test_it_is_one_job_and_one_that_fails_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = lived(store)
    before = store.chained(WORLD, 0, 10_000)

    def cut_off() -> None:
        retain(scene)
        raise KeyError

    with pytest.raises(KeyError):
        store.write(cut_off)
    assert store.chained(WORLD, 0, 10_000) == before


# ---- In a database -----------------------------------------------------------------------------


def test_a_world_is_folded_anew_from_what_is_left(
    sql: SqlStore, data: Path, reopened: Reopened
) -> None:
    scene = lived(sql)
    retain(scene)
    view = scene.view
    assert sql.verify(WORLD) is None
    assert sql.audit(WORLD) == []
    size = "SELECT sum(length(body)) FROM bodies JOIN journal ON body_digest = digest"
    assert rows(data, f"{size} WHERE kind = 'snapshot_stored' AND seq IN (SELECT seq FROM reduced)")
    gone = "SELECT count(*) FROM reduced JOIN journal USING (world_id, seq)"
    assert rows(data, f"{gone} JOIN bodies ON bodies.digest = body_digest") == [(0,)]
    sql.close()
    edit(data, "DELETE FROM checkpoints")
    again = reopened(sql)
    assert same_view(again.load(WORLD), view)
    assert again.audit(WORLD) == []


TAMPERED = [
    ("the row is of another entry", "UPDATE reduced SET seq = 3 WHERE seq = {first}"),
    (
        "another body stands there",
        "UPDATE reduced SET digest = (SELECT digest FROM reduced WHERE seq = {last}) "
        "WHERE seq = {first}",
    ),
    (
        "there is nothing in its place",
        "DELETE FROM bodies WHERE digest = (SELECT digest FROM reduced WHERE seq = {first})",
    ),
    (
        "one more, of which nobody said so",
        "INSERT INTO reduced SELECT world_id, 2, digest FROM reduced WHERE seq = {first}",
    ),
]


@pytest.mark.parametrize(("name", "statement"), TAMPERED, ids=[case[0] for case in TAMPERED])
def test_what_no_entry_says_is_found_and_nothing_is_decided_by_it(
    sql: SqlStore, data: Path, reopened: Reopened, name: str, statement: str
) -> None:
    gone = [each.seq for each in retain(lived(sql)).removable]
    sql.close()
    edit(data, *UNLOCKED, "DELETE FROM checkpoints")
    assert edit(data, statement.format(first=gone[0], last=gone[-1])) == 1
    again = reopened(sql)
    if "nothing" not in name:
        assert again.verify(WORLD) is not None
    assert again.audit(WORLD) != [] if "nothing" not in name else True
    with pytest.raises(StoreDamaged, match=f"journal of {WORLD}"):
        again.load(WORLD)


def test_what_another_world_has_too_stays_there(sql: SqlStore, data: Path) -> None:
    scenes = [opened(sql), Scene(sql, world_id=type(WORLD)("other"))]
    scenes[1].create()
    for scene in scenes:
        scene.bind(ALPHA)
        bar(scene, Stage.PAPER)
        bar(scene, Stage.PAPER)
        scene.wait(AGE)
    assert rows(data, "SELECT count(*) FROM snapshots") == [(4,)]
    shared = "SELECT count(DISTINCT body_digest) FROM journal WHERE kind = 'snapshot_stored'"
    assert rows(data, shared) == [(2,)]
    assert len(retain(scenes[0]).removable) == 1
    other = sql.latest_snapshot(scenes[1].world_id, as_of=scenes[1].now - AGE - DAY)
    assert other is not None
    assert other.fact.covariance is not None
    assert sql.audit(scenes[1].world_id) == sql.audit(WORLD) == []
    assert len(retain(scenes[1]).removable) == 1
    assert sql.audit(scenes[1].world_id) == sql.audit(WORLD) == []
    gone = "SELECT count(*) FROM bodies JOIN reduced USING (digest)"
    assert rows(data, gone) == [(1,)] or rows(data, gone) == [(2,)]


def test_a_crash_while_it_is_written_leaves_what_was(
    sql: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = lived(sql)
    before = sql.chained(WORLD, 0, 10_000)
    write = reduction.write

    def cut_off(*given_: Any) -> None:
        write(*given_)
        raise KeyboardInterrupt

    monkeypatch.setattr(reduction, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        retain(scene)
    assert sql.chained(WORLD, 0, 10_000) == before
    monkeypatch.undo()
    retain(scene)
    assert sql.audit(WORLD) == []


# ---- Objects -----------------------------------------------------------------------------------


@pytest.fixture
def held() -> MemoryObjects:
    return MemoryObjects()


def older(held: MemoryObjects, age: timedelta) -> None:
    for key, (chunk, at) in list(held.held.items()):
        held.held[key] = chunk, at - age


def test_objects_that_nothing_names_go_and_only_they(
    data: Path, held: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything_leaves(monkeypatch)
    store = SqlStore(data, objects=held)
    scene = lived(store)
    store.offload()
    named = {str(key) for (key,) in rows(data, "SELECT key FROM objects")}
    orphan = held.put(b"of a commit that was never reached")
    gone = retain(scene).removable
    assert orphan.key in held.held, "it is young: its commit may be on its way"
    still = {str(key) for (key,) in rows(data, "SELECT key FROM objects")}
    assert len(named - still) == len(gone)
    assert named <= set(held.held), "a backup of yesterday names them"
    older(held, timedelta(days=2))
    store.offload()
    assert store.collect(DAY) == len(gone) + 1
    assert set(held.held) == {str(key) for (key,) in rows(data, "SELECT key FROM objects")}
    assert store.collect(DAY) == 0
    assert store.audit(WORLD) == []
    assert store.verify(WORLD) is None
    store.close()


# ---- Whatever happens --------------------------------------------------------------------------

ACTS = st.lists(
    st.sampled_from(
        [
            *("paper", "paper", "paper", "live", "shadow", "judge", "judge", "cohort", "loop"),
            *("approve", "apply", "demote", "restate", "submit"),
        ]
    ),
    min_size=12,
    max_size=40,
)


def act(scene: Scene, name: str, draw: Random) -> None:
    sid = draw.choice((ALPHA, BETA))
    both = draw.choice(((ALPHA,), (BETA,), (ALPHA, BETA)))
    if name in ("approve", "apply") and scene.view.open_candidate(sid) is None:
        return
    match name:
        case "paper" | "live" | "shadow":
            bar(scene, Stage(name), *both, level=draw.choice((0.0, 0.0, -0.01)))
        case "judge":
            scene.evaluate(sid, draw.choice((None, Stage.PAPER, Stage.SHADOW, Stage.LIVE)))
        case "cohort":
            scene.cohort((ALPHA, BETA))
        case "loop":
            scene.loop()
        case "approve":
            for actor in (cast.PIA, cast.PETE):
                scene.approve(sid, actor)
        case "apply":
            scene.apply(sid)
        case "demote":
            scene.demote(sid)
        case "restate":
            series = scene.store.series(WORLD, sid, Stage.PAPER)
            scene.restate(Stage.PAPER, sid, PostedSeries(series.t, series.r + 0.001))
        case "submit":
            scene.submit(GAMMA, good(30))


# Not shrunk: a failure is told by its seed, and each look at it takes a while.
@settings(max_examples=25, deadline=None, phases=[Looking.explicit, Looking.generate])
@given(acts=ACTS, seed=st.integers(0, 2**16), ages=st.lists(st.integers(8, 20), max_size=3))
def test_after_any_retention_every_run_and_every_decision_derives_again(
    acts: list[str], seed: int, ages: list[int]
) -> None:
    store = MemoryStore()
    draw, scene = Random(seed), opened(store, DETAILED)
    for sid in (ALPHA, BETA):
        scene.submit(sid, good(30))
    for day in range(12):  # So that there is a full window to judge.
        bar(scene, Stage.PAPER, ALPHA, BETA)
        if day % 5 == 4:
            scene.cohort((ALPHA, BETA))
    for name in acts:
        scene.wait(MINUTE)
        try:
            act(scene, name, draw)
        except Refusal:
            continue  # Not in this world.
    derived = answers(scene.store)
    runs = evidence_again(scene.store)
    world = replay(WORLD, store.journal(WORLD, 0, 10_000))
    twin = Scene(MemoryStore(State(worlds=store._state.worlds.set(WORLD, world))))
    for age in ages:
        scene.wait(timedelta(days=draw.choice((0, 5))))
        retain(scene, timedelta(days=age))
        assert evidence_again(scene.store) == runs
        assert answers(scene.store) == derived
        assert verify(exported(told_of(scene.store, WORLD), WORLD)).problem is None
    twin.now = scene.now
    for sid in (ALPHA, BETA):  # And what comes next is what would have come.
        for stage in (Stage.PAPER, Stage.LIVE, Stage.SHADOW):
            assert judged(scene, sid, stage) == judged(twin, sid, stage)


def judged(scene: Scene, sid: StrategyId, stage: Stage) -> object:
    try:
        return scene.evaluate(sid, stage).run
    except Refusal as refused:
        return str(refused)
