"""What every store promises: one suite, asked of each of them."""

import time
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread

import pytest

from qmtl.adapters import memory
from qmtl.adapters.codec import fact_from_bytes
from qmtl.adapters.sql import journal
from qmtl.app.ports import Commit, Head, Store
from qmtl.core import facts as f
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.facts import Entry, Fact
from qmtl.core.names import ActorId, Phase, RunId, Stage, StrategyId, Stream, Verdict, WorldId
from qmtl.core.policy import Policy
from qmtl.core.times import micros
from qmtl.core.view import Expected

from .histories import ACTORS, EVERYWHERE, START, WORLD, bound, evaluation, points, snapshot

A, B = StrategyId("a"), StrategyId("b")
ANN, BOB, LOOP = ACTORS
MINUTE = timedelta(minutes=1)
THREADS = 8
COMMITS_EACH = 40


def write(
    store: Store,
    *facts: Fact,
    expected: Expected = EVERYWHERE,
    world: WorldId = WORLD,
    actor: ActorId = ANN,
    minute: int = 0,
) -> tuple[Entry, ...] | None:
    commit = Commit(expected, facts, actor, START + minute * MINUTE)
    return store.write(lambda: store.commit(world, commit))


def begin(store: Store) -> None:
    policy = f.PolicyAdded(version=1, checksum="c", policy=Policy())
    write(store, policy, f.DefaultPolicySet(version=1), bound("a"), bound("b"))


def bar(
    version: str, minute: int, stage: Stage = Stage.PAPER, **returns: float
) -> f.SnapshotStored:
    at = START + minute * MINUTE
    series = {StrategyId(sid): ([micros(at)], [r]) for sid, r in returns.items()}
    return snapshot(version, series, at, stage)


def recorded(*runs: EvaluationRun) -> f.EvaluationsRecorded:
    return f.EvaluationsRecorded(stage=Stage.PAPER, policy_version=1, runs=runs)


# ---- The chain -------------------------------------------------------------------------------


def test_a_journal_is_told_with_its_chain(store: Store) -> None:
    assert store.chained(WORLD, 0, 9) == []
    assert store.head(WORLD) == Head(0, "0" * 64)
    begin(store)
    whole = store.chained(WORLD, 0, 9)
    assert [entry.seq for entry in whole] == [1, 2, 3, 4]
    assert [entry.previous for entry in whole] == ["0" * 64, *(e.hash for e in whole[:-1])]
    assert store.chained(WORLD, 1, 2) == whole[1:3]
    assert store.chained(WORLD, 4, 9) == store.chained(WORLD, 9, 9) == []
    assert store.head(WORLD) == Head(4, whole[-1].hash)
    for entry, told in zip(store.journal(WORLD, 0, 9), whole, strict=True):
        assert (told.at, told.actor, told.kind) == (entry.at, entry.actor, entry.fact.kind)
        assert fact_from_bytes(told.body) == entry.fact


@pytest.mark.parametrize("asked", [True, False])
def test_what_a_failed_job_wrote_is_in_no_chain(store: Store, asked: bool) -> None:
    begin(store)
    before = store.head(WORLD)

    def job() -> None:
        store.commit(WORLD, Commit(EVERYWHERE, [f.Killed(reason="never")], ANN, START))
        assert store.head(WORLD).seq == store.chained(WORLD, 4, 9)[-1].seq == 5
        raise KeyError

    with pytest.raises(KeyError):
        store.write(job)
    if asked:  # Before there is another entry in its place.
        assert store.head(WORLD) == before
    write(store, f.Killed(reason="now"))
    (last,) = store.chained(WORLD, 4, 9)
    assert (last.previous, b"now" in last.body) == (before.hash, True)
    assert store.head(WORLD) == Head(5, last.hash)


def test_large_entries_come_a_few_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(store)
    whole = store.chained(WORLD, 0, 9)
    two = len(whole[0].body) + len(whole[1].body)
    for module in (memory, journal):
        monkeypatch.setattr(module, "PAGE_BYTES_MAX", two)
    assert store.chained(WORLD, 0, 9) == whole[:2]
    for module in (memory, journal):
        monkeypatch.setattr(module, "PAGE_BYTES_MAX", 1)
    assert store.chained(WORLD, 0, 9) == whole[:1], "one, however large"


# ---- Commits ---------------------------------------------------------------------------------


def test_a_world_that_nobody_wrote_to_is_blank(store: Store) -> None:
    view = store.load(WORLD)
    assert (view.seq, view.evidence_generation, view.governance_generation) == (0, 0, 0)
    assert store.journal(WORLD, 0, 10) == []
    assert len(store.series(WORLD, A, Stage.PAPER).t) == 0
    assert store.latest_snapshot(WORLD) is None
    assert store.run(WORLD, A, RunId("r")) is None


def test_a_commit_numbers_its_entries_and_raises_each_stream_once(store: Store) -> None:
    begin(store)
    written = write(store, f.Killed(reason="x"), bar("v", 0, a=0.1), f.Resumed(reason="y"))
    assert written is not None
    assert [entry.seq for entry in written] == [5, 6, 7]
    assert [entry.generation for entry in written] == [2, 1, 2]
    view = store.load(WORLD)
    assert (view.seq, view.evidence_generation, view.governance_generation) == (7, 1, 2)
    assert store.journal(WORLD, 4, 10) == list(written)
    assert [entry.seq for entry in store.journal(WORLD, 2, 3)] == [3, 4, 5]


def test_a_commit_of_nothing_changes_nothing(store: Store) -> None:
    assert write(store) == ()
    assert store.load(WORLD).seq == 0


@pytest.mark.parametrize(
    ("moved", "read", "holds"),
    [
        (Stream.EVIDENCE, Stream.EVIDENCE, False),
        (Stream.GOVERNANCE, Stream.GOVERNANCE, False),
        (Stream.EVIDENCE, Stream.GOVERNANCE, True),
        (Stream.GOVERNANCE, Stream.EVIDENCE, True),
    ],
)
def test_a_commit_holds_while_the_streams_it_read_have_not_moved(
    store: Store, moved: Stream, read: Stream, holds: bool
) -> None:
    begin(store)
    view = store.load(WORLD)
    expected = {
        Stream.EVIDENCE: Expected(evidence=view.evidence_generation),
        Stream.GOVERNANCE: Expected(governance=view.governance_generation),
    }[read]
    write(store, bar("v", 0, a=0.1) if moved is Stream.EVIDENCE else f.Killed(reason="x"))
    before = store.load(WORLD)
    written = write(store, f.Killed(reason="late"), expected=expected)
    assert (written is not None) is holds
    assert (store.load(WORLD) == before) is not holds
    assert len(store.journal(WORLD, before.seq, 10)) == int(holds)


def test_worlds_are_apart(store: Store) -> None:
    begin(store)
    write(store, f.Killed(reason="x"), world=WorldId("other"))
    assert not store.load(WORLD).killed
    assert store.load(WorldId("other")).seq == 1


def test_a_view_handed_out_never_changes(store: Store) -> None:
    begin(store)
    view = store.load(WORLD)
    points_held = view.tracks[Stage.PAPER].points.copy()
    write(store, bar("v", 0, a=0.1), f.PhaseEntered(strategy_id=A, phase=Phase.PAPER))
    assert (view.tracks[Stage.PAPER].points == points_held).all()
    assert view.phase(0) is Phase.BACKTEST
    assert store.load(WORLD).phase(0) is Phase.PAPER


# ---- Loops -----------------------------------------------------------------------------------


def test_loops_are_there_for_their_time(store: Store) -> None:
    begin(store)
    long, short, other = timedelta(seconds=60), timedelta(seconds=0.2), WorldId("other")
    assert store.beat(WORLD, "b", long) == ["b"]
    assert store.beat(WORLD, "a", short) == ["a", "b"]
    assert store.beat(other, "a", long) == ["a"], "of another world"
    assert store.beat(WORLD, "a", short) == ["a", "b"], "once, however often it says so"
    time.sleep(0.3)
    assert store.beat(WORLD, "c", long) == ["b", "c"]
    assert store.beat(WORLD, "b", timedelta(0)) == ["c"], "it goes"
    assert store.beat(other, "b", long) == ["a", "b"]


# ---- Jobs ------------------------------------------------------------------------------------


class Stop(Exception):
    """What a job of these tests fails with."""


def commit(store: Store, *facts: Fact) -> None:
    assert store.commit(WORLD, Commit(EVERYWHERE, facts, ANN, START)) is not None


def test_a_job_sees_what_it_has_committed_and_nobody_else_does_yet(store: Store) -> None:
    begin(store)
    seen: list[int] = []

    def look() -> None:
        seen.append(store.load(WORLD).seq)
        seen.append(len(store.journal(WORLD, 0, 100)))
        seen.append(len(store.series(WORLD, A, Stage.PAPER).t))

    def job() -> None:
        seen.clear()  # It may be done again.
        commit(store, bar("v", 0, a=0.1), recorded(evaluation(A)))
        look()
        assert store.snapshot(WORLD, "v") is not None
        assert store.run(WORLD, A, RunId("r1")) is not None
        other = Thread(target=look)
        other.start()
        other.join()

    store.write(job)
    assert seen == [6, 6, 1, 4, 4, 0]


def test_a_job_that_raises_leaves_nothing(store: Store) -> None:
    begin(store)
    before = store.load(WORLD)

    def job() -> None:
        commit(store, bar("v", 0, a=0.1))
        commit(store, recorded(evaluation(A)), f.Killed(reason="x"))
        raise Stop

    with pytest.raises(Stop):
        store.write(job)
    assert store.load(WORLD) == before
    assert len(store.journal(WORLD, 0, 100)) == before.seq
    assert store.snapshot(WORLD, "v") is None
    assert store.run(WORLD, A, RunId("r1")) is None
    assert len(store.series(WORLD, A, Stage.PAPER).t) == 0
    write(store, bar("v", 0, a=0.2))
    assert store.series(WORLD, A, Stage.PAPER).r.tolist() == [0.2]


def test_an_inner_job_is_part_of_the_outer_one(store: Store) -> None:
    begin(store)

    def outer() -> None:
        commit(store, f.Killed(reason="x"))
        store.write(lambda: commit(store, f.Resumed(reason="y")))
        raise Stop

    with pytest.raises(Stop):
        store.write(outer)
    assert store.load(WORLD).seq == 4


def test_an_inner_job_that_raises_takes_only_its_own_back(store: Store) -> None:
    begin(store)

    def inner() -> None:
        commit(store, f.Killed(reason="inner"))
        raise Stop

    def outer() -> None:
        commit(store, bar("v", 0, a=0.1))
        with pytest.raises(Stop):
            store.write(inner)
        assert not store.load(WORLD).killed
        commit(store, bar("w", 1, a=0.2))

    store.write(outer)
    view = store.load(WORLD)
    assert (view.seq, view.killed) == (6, False)
    assert store.series(WORLD, A, Stage.PAPER).r.tolist() == [0.1, 0.2]


def test_a_job_answers(store: Store) -> None:
    assert store.write(lambda: 42) == 42


def test_what_cannot_be_stored_is_a_bug_and_changes_nothing(store: Store) -> None:
    begin(store)
    with pytest.raises((AssertionError, ValueError)):
        write(store, recorded(evaluation(A, sharpe=float("nan"))))
    assert store.load(WORLD).seq == 4


def together(count: int, task: Callable[[int], None]) -> None:
    """Run `task(0)` ... `task(count - 1)` in threads that start at once; raise what any raises."""
    failed: list[BaseException] = []
    barrier = Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            task(number)
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_many_writers_lose_nothing(store: Store) -> None:
    begin(store)
    answered: list[int] = []

    def task(number: int) -> None:
        for i in range(COMMITS_EACH):

            def job() -> int:
                """Reads, and writes what follows from it: an update to lose."""
                view = store.load(WORLD)
                held = int(view.standings.extension_us[0]) // 1_000_000
                fact = f.CampaignExtended(strategy_id=A, by_sec=1, reason=str(held))
                made = Commit(view.expected, [fact], ANN, START)
                written = store.commit(WORLD, made)
                assert written is not None, "a job is the only writer"
                return written[0].seq

            mine = store.write(job)
            answered.append(mine)
            assert store.load(WORLD).seq >= mine, f"{number} {i}: answered, and unseen"

    together(THREADS, task)
    total = THREADS * COMMITS_EACH
    assert sorted(answered) == list(range(5, 5 + total))
    journal = store.journal(WORLD, 0, 10 * total)
    assert [entry.seq for entry in journal] == list(range(1, 5 + total))
    reasons = [e.fact.reason for e in journal if isinstance(e.fact, f.CampaignExtended)]
    assert reasons == [str(n) for n in range(total)]


def test_one_of_many_that_fails_fails_alone(store: Store) -> None:
    begin(store)

    def task(number: int) -> None:
        def job() -> None:
            commit(store, f.CampaignExtended(strategy_id=A, by_sec=1, reason=str(number)))
            if number % 2:
                raise Stop

        if number % 2:
            with pytest.raises(Stop):
                store.write(job)
        else:
            store.write(job)

    together(THREADS, task)
    assert store.load(WORLD).seq == 4 + THREADS // 2
    kept = {e.fact.reason for e in store.journal(WORLD, 4, 99) if hasattr(e.fact, "reason")}
    assert kept == {str(n) for n in range(0, THREADS, 2)}


# ---- What is kept ----------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[1], [127, 1, 1], [128, 128], [300, 1, 200], [1] * 130])
def test_a_series_comes_back_as_it_arrived(store: Store, counts: list[int]) -> None:
    begin(store)
    held_t: list[int] = []
    held_r: list[float] = []
    for n, count in enumerate(counts):
        first = micros(START) + len(held_t)
        t = [first + i for i in range(count)]
        r = [0.001 * (len(held_r) + i) for i in range(count)]
        write(store, snapshot(f"v{n}", {A: (t, r), B: (t[:1], r[:1])}))
        held_t += t
        held_r += r
    series = store.series(WORLD, A, Stage.PAPER)
    assert series.t.tolist() == held_t
    assert series.r.tolist() == held_r
    assert series.accepted.all()
    assert len(store.series(WORLD, B, Stage.PAPER).t) == len(counts)
    assert len(store.series(WORLD, A, Stage.LIVE).t) == 0


def test_a_late_point_is_kept_and_not_accepted(store: Store) -> None:
    begin(store)
    days_10 = 10 * 24 * 60
    write(store, snapshot("v", {A: ([micros(START)], [0.1])}), minute=days_10)
    write(store, bar("w", days_10, a=0.2), minute=days_10)
    assert store.series(WORLD, A, Stage.PAPER).accepted.tolist() == [False, True]


def test_a_restatement_replaces_a_series(store: Store) -> None:
    begin(store)
    for minute in range(3):
        write(store, bar(f"v{minute}", minute, a=0.1, b=0.2))
    new = points({A: ([1, 2], [0.5, 0.6])})
    write(store, f.SeriesRestated(stage=Stage.PAPER, strategy_id=A, reason="x", points=new))
    assert store.series(WORLD, A, Stage.PAPER).r.tolist() == [0.5, 0.6]
    assert not store.series(WORLD, A, Stage.PAPER).accepted.any()
    assert store.series(WORLD, B, Stage.PAPER).r.tolist() == [0.2] * 3
    write(store, bar("w", 9, a=0.7))
    assert store.series(WORLD, A, Stage.PAPER).r.tolist() == [0.5, 0.6, 0.7]


def test_a_restatement_to_nothing_empties_a_series(store: Store) -> None:
    begin(store)
    write(store, bar("v", 0, a=0.1))
    gone = f.SeriesRestated(stage=Stage.PAPER, strategy_id=A, reason="x", points=f.Points())
    write(store, gone)
    assert len(store.series(WORLD, A, Stage.PAPER).t) == 0
    write(store, bar("w", 1, a=0.2))
    assert store.series(WORLD, A, Stage.PAPER).r.tolist() == [0.2]


def test_a_snapshot_of_a_job_that_failed_is_not_kept(store: Store) -> None:
    begin(store)

    def seen(version: str, *, fails: bool) -> str | None:
        def job() -> str | None:
            commit(store, bar(version, 1, a=0.1))
            found = store.snapshot_at(WORLD, 5)
            if fails:
                raise Stop(found)
            return None if found is None else found.fact.version

        return store.write(job)

    with pytest.raises(Stop, match="undone"):
        seen("undone", fails=True)
    assert store.snapshot_at(WORLD, 5) is None
    assert seen("kept", fails=False) == "kept"
    again = store.snapshot_at(WORLD, 5)
    assert again is not None
    assert again.fact.version == "kept"


def test_snapshots_are_found_by_version_by_seq_and_newest_first(store: Store) -> None:
    begin(store)
    write(store, bar("v1", 1, a=0.1), actor=ANN, minute=1)
    write(store, bar("v2", 2, Stage.LIVE, a=0.1), actor=BOB, minute=2)
    write(store, bar("v3", 3, a=0.1), actor=BOB, minute=3)
    found = store.snapshot(WORLD, "v2")
    assert found is not None
    assert (found.seq, found.actor, found.created_at) == (6, BOB, START + 2 * MINUTE)
    assert store.snapshot_at(WORLD, 6) == found
    assert store.snapshot_at(WORLD, 4) is None
    assert store.snapshot(WORLD, "nope") is None

    def versions(*args: object, **wanted: object) -> list[str]:
        return [s.fact.version for s in store.snapshots(WORLD, *args, **wanted)]  # type: ignore[arg-type]  # Whatever the case asks for.

    assert versions(9) == ["v3", "v2", "v1"]
    assert versions(2) == ["v3", "v2"]
    assert versions(9, before=7) == ["v2", "v1"]
    assert versions(9, stage=Stage.PAPER) == ["v3", "v1"]
    assert versions(9, actor=BOB) == ["v3", "v2"]
    assert versions(9, actor=BOB, stage=Stage.PAPER, before=7) == []


def test_an_older_snapshot_never_becomes_the_latest(store: Store) -> None:
    begin(store)

    def latest(**wanted: object) -> str | None:
        found = store.latest_snapshot(WORLD, **wanted)  # type: ignore[arg-type]  # As above.
        return None if found is None else found.fact.version

    write(store, bar("new", 10, a=0.1), actor=ANN, minute=10)
    write(store, bar("old", 5, b=0.1), actor=BOB, minute=11)
    write(store, bar("live", 20, Stage.LIVE, b=0.1), actor=BOB, minute=20)
    assert latest() == "live"
    assert latest(stage=Stage.PAPER) == "new"
    assert latest(stage=Stage.SHADOW) is None
    assert latest(actor=BOB, stage=Stage.PAPER) == "old"
    assert latest(as_of=START + 15 * MINUTE) == "new"
    assert latest(as_of=START + 10 * MINUTE) == "new"
    assert latest(as_of=START + 9 * MINUTE) == "old"
    assert latest(as_of=START + 5 * MINUTE) == "old"
    assert latest(as_of=START) is None
    write(store, bar("same", 10, a=0.1), minute=30)  # As new as the newest, and stored later.
    assert latest(stage=Stage.PAPER) == "same"


def test_a_run_keeps_every_revision(store: Store) -> None:
    begin(store)
    first = evaluation(A, verdict=Verdict.FAIL)
    second = evaluation(A, revision=2)
    write(store, recorded(first, evaluation(B)), minute=1)
    write(store, recorded(evaluation(A, "r2")), minute=2)
    write(store, recorded(second), actor=LOOP, minute=3)
    found = store.run(WORLD, A, RunId("r1"))
    assert found is not None
    assert (found.run, found.seq, found.at, found.actor) == (second, 7, START + 3 * MINUTE, LOOP)
    history = store.revisions(WORLD, A, RunId("r1"))
    assert [stored.run for stored in history] == [first, second]
    assert [stored.seq for stored in history] == [5, 7]
    assert [stored.run.run_id for stored in store.runs(WORLD, A, 9)] == ["r1", "r2"]
    assert [stored.run.run_id for stored in store.runs(WORLD, A, 1)] == ["r1"]
    assert [stored.run.run_id for stored in store.runs(WORLD, A, 9, before=7)] == ["r2"]
    assert [stored.run.run_id for stored in store.runs(WORLD, B, 9)] == ["r1"]
    assert store.revisions(WORLD, B, RunId("r2")) == []


def test_an_answer_is_remembered_as_it_was_first_given(store: Store) -> None:
    assert store.remembered(ANN, "k") is None
    store.remember(ANN, "k", "digest", 201, b"{}", START)
    store.remember(ANN, "k", "other", 500, b"no", START)
    assert store.remembered(ANN, "k") == ("digest", 201, b"{}")
    assert store.remembered(BOB, "k") is None


def test_an_answer_of_a_job_that_fails_is_not_remembered(store: Store) -> None:
    def job() -> None:
        store.remember(ANN, "k", "digest", 201, b"{}", START)
        assert store.remembered(ANN, "k") is not None
        raise Stop

    with pytest.raises(Stop):
        store.write(job)
    assert store.remembered(ANN, "k") is None


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_a_limit_limits(store: Store, limit: int) -> None:
    begin(store)
    assert len(store.journal(WORLD, 0, limit)) == limit
