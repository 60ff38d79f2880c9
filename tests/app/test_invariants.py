"""I1 to I10 (DESIGN, section 9): each by its name, each failing when the code breaks it."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.app import campaigns, decisions, promotions
from qmtl.app.ports import Commit, Store
from qmtl.core import facts as f
from qmtl.core import promotion
from qmtl.core.activation import Change
from qmtl.core.decision import DECISION_TTL, newer, permitted
from qmtl.core.errors import Refusal
from qmtl.core.evaluation import judge
from qmtl.core.evaluation_run import Metric, Source
from qmtl.core.fold import fold
from qmtl.core.invariants import check
from qmtl.core.names import (
    SYSTEM,
    Mode,
    Phase,
    Reason,
    RunId,
    Stage,
    StrategyId,
    Verdict,
    WorldState,
)
from qmtl.core.policy import Bound, Disabled, Freeze, OnMissing, Policy, Selection, TopK
from qmtl.core.promotion import Blocked
from qmtl.core.snapshot import PostedSeries
from qmtl.core.view import Expected, Rejected, WorldView, same_view
from qmtl.sim import cast
from qmtl.sim.scene import DAY, Scene, daily
from tests.worlds import (
    ALPHA,
    AUTO,
    BETA,
    LONELY,
    MINUTE,
    POLICY,
    approved,
    climbed,
    good,
    governed,
    in_paper,
    judged,
    live,
    observe,
    observed,
    opened,
    proposed,
)

R = Reason
Change1 = Callable[[Scene], object]


def everyone_tries(scene: Scene) -> None:
    """Every way to live there is, for alpha, one after the other."""
    runs = {run.run_id for (sid, _), run in scene.view.runs.items() if sid == ALPHA}
    ways: list[Change1] = [
        *(lambda s, run=run: s.apply(ALPHA, run) for run in sorted(runs)),  # type: ignore[misc]  # `run` is bound.
        lambda s: s.auto_apply(),
        lambda s: s.auto_apply(ALPHA),
        lambda s: s.lower(ALPHA, Change(active=True)),
        lambda s: s.lower(ALPHA, Change(weight=0.1)),
        lambda s: s.evaluate(ALPHA, Stage.LIVE),
        lambda s: s.evaluate(ALPHA),
        lambda s: s.cohort([ALPHA]),
        lambda s: s.loop(),
        lambda s: s.auto_apply(),
        lambda s: s.demote(ALPHA, Phase.LIVE),
        lambda s: s.release(ALPHA),
    ]
    for way in ways:
        try:
            way(scene)
        except Refusal:
            continue


def with_(policy: Policy) -> Change1:
    def change(scene: Scene) -> None:
        scene.add_policy(policy, str(hash(str(policy))))
        scene.set_default(2)

    return change


def short_of_bars(scene: Scene) -> None:
    scene.restate(Stage.PAPER, ALPHA, daily(good(3), scene.now))
    observe(scene, Stage.PAPER, 7)


def short_of_days(scene: Scene) -> None:
    """Many observations, and little time."""
    scene.restate(Stage.PAPER, ALPHA, daily(good(3), scene.now))
    for i in range(30):
        scene.wait(MINUTE)
        bar = {ALPHA: 0.001 + 0.0001 * (i % 3)}
        scene.bar(Stage.PAPER, bar, stress={ALPHA: {"crash": 0.1}})


def losing(scene: Scene) -> None:
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: -0.5}, stress={ALPHA: {"crash": 0.1}})


def crowded(scene: Scene) -> None:
    """Another strategy takes the only slot."""
    scene.submit(BETA, good(30), actor=cast.BOB)
    for _ in range(12):
        observe(scene, Stage.PAPER, 1, ALPHA, BETA)
    scene.add_policy(governed(LONELY_AUTO, max_live_slots=1), "one slot")
    scene.set_default(2)
    scene.evaluate(BETA)
    scene.auto_apply(BETA)
    assert BETA in scene.view.live
    scene.add_policy(governed(LONELY_AUTO, max_live_slots=1, cooldown=timedelta(0)), "and now")
    scene.set_default(3)


LONELY_AUTO = replace(
    AUTO, selection=None, risk=replace(AUTO.risk, max_pairwise_correlation_to_live=None)
)
NOT_YET: list[tuple[str, Change1]] = [
    ("live is off", lambda s: s.allow_live(False)),
    ("nobody is promoted", with_(governed(LONELY_AUTO, live_promotion=Disabled()))),
    ("the window is short of bars", short_of_bars),
    ("the window is short of days", short_of_days),
    ("the latest run fails", losing),
    ("the snapshot has expired", lambda s: s.wait(timedelta(hours=1))),
    ("the slots are taken", crowded),
    ("killed", lambda s: s.kill()),
    ("suspended", lambda s: s.change_state(WorldState.SUSPENDED)),
    ("archived", lambda s: s.change_state(WorldState.ARCHIVED)),
    ("retired", lambda s: s.demote(ALPHA, Phase.RETIRED)),
    ("the backtest was restated", lambda s: s.restate(
        Stage.BACKTEST, ALPHA, daily(-good(30), s.now))),
]  # fmt: skip


@pytest.mark.parametrize(("what", "change"), NOT_YET, ids=[what for what, _ in NOT_YET])
def test_i1_nobody_is_live_whom_not_every_gate_let_through(
    store: Store, what: str, change: Change1
) -> None:
    """I1 No strategy is live unless, at that commit: allow_live, promotion not disabled, window
    and observations complete, latest paper verdict pass, fresh snapshot covering it, approvals
    valid (when manual), slots free, not cooling down.  On every path."""
    scene = approved(store, LONELY_AUTO)
    change(scene)
    everyone_tries(scene)
    assert ALPHA not in scene.view.live, what
    assert scene.decide(ALPHA).effective_mode is not Mode.LIVE
    assert check(scene.view, scene.now) == ()


@pytest.mark.parametrize("approvers", [(), (cast.PIA,), (cast.PIA, cast.PIA)], ids=str)
def test_i1_people_are_not_skipped_where_people_decide(
    store: Store, approvers: tuple[f.ActorId, ...]
) -> None:
    scene = imported(proposed(MemoryStore()), store)
    for approver in approvers:
        scene.approve(ALPHA, approver)
    everyone_tries(scene)
    assert not scene.view.live
    for approver in (cast.PIA, cast.PETE):
        scene.approve(ALPHA, approver)
    scene.apply(ALPHA)
    assert scene.view.live


def imported(there: Scene, store: Store) -> Scene:
    """The same history in another store, as an import brings it."""

    def job() -> None:
        for world_id in (SYSTEM, there.world_id):
            for entry in there.store.journal(world_id, 0, 10_000):
                commit = Commit(Expected(), (entry.fact,), entry.actor, entry.at)
                assert store.commit(world_id, commit)

    store.write(job)
    return Scene(store, there.now)


def test_i1_an_imported_verdict_does_not_fill_a_window(store: Store) -> None:
    """Facts that somebody else wrote say pass, proposed and approved; the returns do not."""
    scene = in_paper(store, LONELY)
    observe(scene, Stage.PAPER, 5)
    made = promotion.propose(scene.view, ALPHA, RunId("r"), scene.view.digest(0, Stage.PAPER))
    (proposed_,) = made
    assert isinstance(proposed_, f.CandidateProposed)
    cid = proposed_.candidate_id
    run = judged(scene.view, Stage.PAPER, Verdict.PASS)
    facts: list[tuple[f.ActorId, f.Fact]] = [
        (cast.LOOP, f.EvaluationsRecorded(stage=Stage.PAPER, policy_version=1, runs=(run,))),
        (cast.LOOP, proposed_),
        *(
            (
                actor,
                f.ApprovalGiven(
                    candidate_id=cid, run_id=run.run_id, evidence=run.evidence, reason=""
                ),
            )
            for actor in (cast.PIA, cast.PETE)
        ),
    ]

    def job() -> None:
        for actor, fact in facts:
            assert store.commit(scene.world_id, Commit(Expected(), (fact,), actor, scene.now))

    store.write(job)
    answer = scene.apply(ALPHA, run.run_id)
    assert isinstance(answer, Blocked)
    assert set(answer.reasons) == {R.PAPER_WINDOW_INCOMPLETE, R.OBSERVATIONS_INSUFFICIENT}
    everyone_tries(scene)
    assert not scene.view.live


def test_i1_cooling_down_holds_on_every_path(store: Store) -> None:
    scene = live(store, AUTO)
    observe(scene, Stage.LIVE, 7)
    scene.add_policy(governed(AUTO, cooldown=30 * DAY), "cool")
    scene.set_default(2)
    everyone_tries(scene)
    assert scene.view.live[ALPHA].step == 0


def test_i1_a_replay_makes_nobody_live_that_was_not(store: Store) -> None:
    scene = climbed(store)
    scene.kill()
    view = WorldView(world_id=scene.world_id)
    for entry in store.journal(scene.world_id, 0, 10_000):
        view = fold(view, (entry,))
        if entry.fact.kind not in ("promotion_applied", "activation_lowered"):
            assert set(view.live) <= {ALPHA}
    assert not view.live


# Down, in every way there is; alpha's client is told nothing of it.
TAKEN_BACK: list[tuple[str, Change1]] = [
    ("demoted", lambda s: s.demote(ALPHA)),
    ("retired", lambda s: s.demote(ALPHA, Phase.RETIRED)),
    ("switched off", lambda s: s.lower(ALPHA, Change(active=False))),
    ("frozen, then demoted", lambda s: (s.lower(ALPHA, Change(freeze=True)), s.demote(ALPHA))),
    ("emptied, then demoted", lambda s: (s.lower(ALPHA, Change(weight=0.0)), s.demote(ALPHA))),
    ("drained, then demoted", lambda s: (s.lower(ALPHA, Change(drain=True)), s.demote(ALPHA))),
    ("killed", lambda s: (s.kill(), s.resume())),
    ("closed", lambda s: (s.allow_live(False), s.allow_live(True))),
    ("suspended", lambda s: (
        s.change_state(WorldState.SUSPENDED), s.change_state(WorldState.ACTIVE))),
    ("losing", lambda s: (s.wait(timedelta(seconds=1)), s.bar(Stage.LIVE, {ALPHA: -0.5}))),
]  # fmt: skip


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("acknowledged", [False, True], ids=["", "acknowledged"])
@pytest.mark.parametrize(("what", "change"), TAKEN_BACK, ids=[what for what, _ in TAKEN_BACK])
def test_i1_clients_cut_off_count_as_live_until_they_stop(
    what: str, change: Change1, acknowledged: bool, slots: int
) -> None:
    """What all clients together may act on never exceeds the limits, cut off or not."""
    ramp = (replace(POLICY.governance.ramp[0], fraction=1.0),)
    limits = {"max_live_slots": slots, "max_live_weight": 0.4 * slots, "cooldown": timedelta(0)}
    policy = governed(LONELY_AUTO, ramp=ramp, **limits)
    scene = in_paper(MemoryStore(), policy, ALPHA, BETA)
    for _ in range(12):
        observe(scene, Stage.PAPER, 1, ALPHA, BETA)
    scene.evaluate(ALPHA)
    scene.evaluate(BETA)
    scene.auto_apply(ALPHA)
    cut_off = scene.decide(ALPHA)
    assert (cut_off.effective_mode, cut_off.weight) == (Mode.LIVE, 0.4)
    scene.add_policy(governed(policy, max_live_weight=0.5), "less")
    change(scene)
    if slots == 2:  # There is a slot, and not the weight for it.
        scene.set_default(2)
    if acknowledged:  # By another client of alpha's.
        sequence = scene.view.governance_generation
        decisions.acknowledge(scene.store, scene.world_id, scene.by(cast.FEED), ALPHA, sequence)
    scene.evaluate(BETA)
    ((sid, why),) = scene.auto_apply(BETA).blocked
    assert (sid, why.reasons) == (BETA, (R.LEASE_OUTSTANDING,)), what
    assert scene.decide(BETA).effective_mode is not Mode.LIVE
    while permitted(cut_off, scene.now - cut_off.issued_at) is Mode.LIVE:
        assert scene.auto_apply(BETA).applied == ()
        scene.wait(timedelta(seconds=10))
    scene.wait(timedelta(seconds=30))  # For what was decided while the change was being recorded.
    scene.bar(Stage.PAPER, {BETA: 0.01}, stress={BETA: {"crash": 0.1}})
    (applied,) = scene.auto_apply(BETA).applied
    assert scene.decide(BETA).weight == applied.weight > 0.0


# ---- I2 ----------------------------------------------------------------------------------------


def dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_i2_looking_changes_nothing(tmp_path: Path) -> None:
    """I2 tick, status, plan, decide and every GET change nothing: database dump before equals
    after, byte for byte."""
    store = SqlStore(tmp_path / "data")
    scene = climbed(store)
    (path,) = (p for p in (tmp_path / "data").iterdir() if p.suffix in (".sqlite", ".db"))
    before = dump(path)
    now, world_id = scene.now, scene.world_id
    for _ in range(2):
        campaigns.tick(store, world_id, now)
        campaigns.tick(store, world_id, now + DAY, only=ALPHA, limit=1)
        campaigns.statuses(store, world_id, None, now)
        promotions.plan(store, scene.view, now, ALPHA, None)
        promotions.candidates(store, scene.view, now)
        decisions.decide(store, world_id, None, now)
        scene.tick()
        store.journal(world_id, 0, 10)
        store.series(world_id, ALPHA, Stage.PAPER)
        store.runs(world_id, ALPHA, 10)
        store.snapshots(world_id, 10)
        store.latest_snapshot(world_id)
        now += 30 * DAY
    assert dump(path) == before
    store.close()


# ---- I3 ----------------------------------------------------------------------------------------

TWICE: list[tuple[str, Callable[[Store], Scene], Change1]] = [
    ("bind", in_paper, lambda s: s.bind(BETA)),
    ("submit", in_paper, lambda s: s.submit(BETA, good(30), end=s.now)),
    ("bar", in_paper, lambda s: s.bar(Stage.PAPER, {ALPHA: 0.1}, at=s.now)),
    ("evaluate", observed, lambda s: s.evaluate(ALPHA)),
    ("evaluate as", observed, lambda s: s.evaluate(ALPHA, run_id=RunId("mine"))),
    ("cohort", observed, lambda s: s.cohort([ALPHA])),
    ("approve", proposed, lambda s: s.approve(ALPHA, cast.PIA)),
    ("withdraw", approved, lambda s: s.withdraw(ALPHA, cast.PIA)),
    ("reject", approved, lambda s: s.reject(ALPHA)),
    ("release", approved, lambda s: s.release(ALPHA)),
    ("apply", approved, lambda s: s.apply(ALPHA, s.view.runs[ALPHA, Stage.PAPER].run_id)),
    ("a refusal", proposed, lambda s: s.apply(ALPHA)),
    ("demote", live, lambda s: s.demote(ALPHA)),
    ("kill", live, lambda s: s.kill()),
    ("lower", live, lambda s: s.lower(ALPHA, Change(weight=0.05))),
    ("allow_live", live, lambda s: s.allow_live(False)),
    ("suspend", live, lambda s: s.change_state(WorldState.SUSPENDED)),
    ("restate", observed, lambda s: s.restate(Stage.PAPER, ALPHA, daily(good(3), s.now))),
    ("policy", opened, lambda s: s.add_policy(AUTO, "auto")),
]


@pytest.mark.parametrize(("what", "build", "do"), TWICE, ids=[what for what, *_ in TWICE])
def test_i3_twice_is_once(
    store: Store, what: str, build: Callable[[Store], Scene], do: Change1
) -> None:
    """I3 The same request twice has the effect of once.  The same run_id updates the same run."""
    scene = build(store)
    scene.wait(MINUTE)
    do(scene)
    seq = scene.view.seq
    do(scene)
    assert scene.view.seq == seq, what


def test_i3_many_at_once_are_one(store: Store) -> None:
    """I3 n concurrent equal requests have one effect."""
    scene = approved(store)
    run = scene.candidate(ALPHA).run_id
    seq = scene.view.seq
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: scene.apply(ALPHA, run), range(16)))
    assert len({answer.sequence for answer in answers if not isinstance(answer, Blocked)}) == 1
    assert not any(isinstance(answer, Blocked) for answer in answers)
    assert scene.view.seq == seq + 1


# ---- I4 ----------------------------------------------------------------------------------------


def test_i4_in_doubt_compute_only(store: Store) -> None:
    """I4 A decision that is missing, expired, malformed, from the future or older than one
    already seen is compute-only."""
    scene = live(store)
    told = scene.decide(ALPHA)
    assert permitted(told, timedelta(0)) is Mode.LIVE
    for envelope, age in (
        (None, timedelta(0)),
        (told, DECISION_TTL),
        (told, -timedelta(microseconds=1)),
        (replace(told, expires_at=told.issued_at), timedelta(0)),
        (replace(told, expires_at=told.issued_at + 10 * DECISION_TTL), timedelta(0)),
    ):
        assert permitted(envelope, age) is Mode.COMPUTE_ONLY
    scene.demote(ALPHA, Phase.RETIRED)
    later = newer(told, scene.decide(ALPHA))
    assert permitted(newer(later, told), timedelta(0)) is Mode.COMPUTE_ONLY


# ---- I5 ----------------------------------------------------------------------------------------


def eventful(store: Store) -> Scene:
    scene = climbed(store)
    scene.apply(ALPHA)
    scene.lower(ALPHA, Change(weight=0.1, drain=True))
    scene.bind(BETA, cast.BOB)
    scene.kill()
    scene.resume()
    scene.apply(ALPHA, scene.view.runs[ALPHA, Stage.PAPER].run_id)
    scene.restate(Stage.BACKTEST, ALPHA, daily(good(25), scene.now))
    scene.loop()
    scene.demote(ALPHA, Phase.RETIRED)
    return scene


def test_i5_the_journal_tells_all_of_it(store: Store) -> None:
    """I5 Every change of state is a fact in the journal, with its actor; fold(journal) ==
    tables; nothing edits the journal."""
    scene = eventful(store)
    entries = store.journal(scene.world_id, 0, 10_000)
    assert same_view(fold(WorldView(world_id=scene.world_id), entries), scene.view)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert all(entry.actor for entry in entries)
    if isinstance(store, SqlStore):
        assert store.audit(scene.world_id) == []


def test_i5_nothing_edits_the_journal(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "data")
    eventful(store)
    store.close()
    (path,) = (p for p in (tmp_path / "data").iterdir() if p.suffix in (".sqlite", ".db"))
    connection = sqlite3.connect(path)
    for edit in (
        "UPDATE journal SET actor = 'nobody'",
        "DELETE FROM journal",
        "UPDATE bodies SET body = x'00'",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(edit)
    connection.close()


# ---- I6 ----------------------------------------------------------------------------------------


def test_i6_a_job_that_fails_leaves_what_was(store: Store) -> None:
    """I6 A crash at any instant leaves the old state or the new one, never half."""
    scene = approved(store)
    before = scene.view

    def half() -> None:
        scene.apply(ALPHA)
        assert scene.view.live
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(half)
    assert same_view(scene.view, before)
    assert len(store.journal(scene.world_id, 0, 10_000)) == before.seq
    scene.apply(ALPHA)
    assert scene.view.live


def test_i6_a_restart_needs_no_repair(tmp_path: Path) -> None:
    """I6 ... and a restart needs no repair."""
    store = SqlStore(tmp_path / "data")
    scene = climbed(store)
    before = scene.view
    store.close()
    store = SqlStore(tmp_path / "data")
    again = Scene(store, scene.now)
    assert same_view(again.view, before)
    assert store.audit(scene.world_id) == []
    again.apply(ALPHA)
    assert again.view.live[ALPHA].step == 1
    store.close()


# ---- I7 ----------------------------------------------------------------------------------------


def chances(scene: Scene) -> set[StrategyId]:
    """Who would go live now."""
    everyone = [strategy.strategy_id for strategy in scene.view.in_order()]
    return {sid for sid in everyone if scene.plan(sid).blocked is None}


@pytest.mark.parametrize("policy", [POLICY, LONELY, AUTO], ids=["manual", "lonely", "auto"])
def test_i7_asking_again_never_helps(store: Store, policy: Policy) -> None:
    """I7 More ticks, more evaluations or more restarts on the same evidence never make a
    promotion more likely."""
    scene = in_paper(store, policy, ALPHA, BETA)
    flags = []
    for day in range(6):  # Too few days, whatever one asks.
        scene.wait(DAY)
        bar = {ALPHA: 0.01 - 0.001 * (day % 2), BETA: 0.01 - 0.002 * (day % 2)}
        scene.bar(Stage.PAPER, bar, stress={sid: {"crash": 0.1} for sid in bar})
        for again in range(4):
            scene.tick()
            for sid in (ALPHA, BETA):
                scene.evaluate(sid)
                scene.evaluate(sid, run_id=RunId(f"{day}-{again}"))
                scene.evaluate(sid, Stage.BACKTEST, RunId(f"b-{day}-{again}"))
            for stage in (Stage.PAPER, Stage.BACKTEST, Stage.SHADOW):
                scene.cohort([ALPHA, BETA], stage, RunId(f"c-{stage}-{day}-{again}"))
            scene.loop()
            flags.append(scene.view.standings.selected[:2].tolist())
        assert chances(scene) == set()
        assert not scene.view.open_candidates()
    assert flags[-1] == flags[-2] == flags[-3]
    window = scene.view.tracks[Stage.PAPER]
    assert window.window_points[:2].tolist() == [6, 6]


def test_i7_who_chooses_the_rivals_does_not_choose_the_winner(store: Store) -> None:
    best = replace(POLICY, selection=Selection(top_k=TopK(metric="sharpe_annual", k=1)))
    scene = in_paper(store, best, ALPHA, BETA)
    for day in range(12):
        scene.wait(DAY)
        bar = {ALPHA: 0.01 - 0.001 * (day % 2), BETA: 0.01 - 0.005 * (day % 2)}
        scene.bar(Stage.PAPER, bar, stress={sid: {"crash": 0.1} for sid in bar})
    for stage in Stage:
        for some in ([BETA], [ALPHA, BETA], [BETA]):
            scene.cohort(some, stage)
            assert not scene.view.standings.selected[1], (stage, some)
    assert scene.view.standings.selected[0]


def test_i7_a_failing_strategy_is_not_talked_up(store: Store) -> None:
    scene = observed(store, replace(LONELY, gates=replace(LONELY.gates, on_missing=OnMissing.FAIL)))
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: -0.3}, stress={ALPHA: {"crash": 0.1}})
    for again in range(5):
        scene.evaluate(ALPHA, run_id=RunId(f"r{again}"))
        scene.evaluate(ALPHA)
        scene.loop()
    assert scene.view.open_candidate(ALPHA) is None
    assert chances(scene) == set()


def test_i7_restarts_do_not_help_either(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "data")
    scene = observed(store, AUTO)
    scene.wait(timedelta(hours=1))
    for _ in range(3):
        scene.loop()
        scene.auto_apply()
        store.close()
        store = SqlStore(tmp_path / "data")
        scene = Scene(store, scene.now)
    assert not scene.view.live
    store.close()


# ---- I8 ----------------------------------------------------------------------------------------


def test_i8_a_refusal_says_every_reason_and_is_recorded(store: Store) -> None:
    """I8 A refusal says every reason, and the reason is recorded."""
    scene = proposed(store)
    scene.wait(DAY)
    scene.allow_live(False)
    scene.add_policy(governed(AUTO, live_promotion=Disabled()), "off")
    run = scene.candidate(ALPHA).run_id
    scene.set_default(2)
    scene.kill()
    answer = scene.apply(ALPHA, run)
    assert isinstance(answer, Blocked)
    assert set(answer.reasons) == {
        R.LIVE_NOT_ALLOWED,
        R.PROMOTION_DISABLED,
        R.WORLD_KILLED,
        R.CANDIDATE_SUPERSEDED,
        R.RISK_SNAPSHOT_EXPIRED,
    }
    entry = store.journal(scene.world_id, scene.view.seq - 1, 1)[0]
    assert isinstance(entry.fact, f.PromotionBlocked)
    assert entry.fact.reasons == answer.reasons
    assert entry.fact.details == answer.details
    assert entry.actor == cast.OTTO
    assert scene.view.blocked[ALPHA] == answer.reasons


# ---- I9 ----------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("number", [NAN, INF, -INF], ids=str)
def test_i9_no_number_that_is_none_reaches_a_gate(store: Store, number: float) -> None:
    """I9 No number that is NaN, infinite, missing or of the wrong unit reaches a gate."""
    scene = observed(store, LONELY)
    seq = scene.view.seq
    one = {ALPHA: PostedSeries(None, good(13))}
    wrong: list[Change1] = [
        lambda s: s.bar(Stage.PAPER, {ALPHA: number}),
        lambda s: s.post(Stage.PAPER, one, weights={ALPHA: number}),
        lambda s: s.post(Stage.PAPER, one, stress={ALPHA: {"crash": number}}),
        lambda s: s.post(Stage.PAPER, one, stats={ALPHA: {"trades_total": number}}),
        lambda s: s.post(Stage.PAPER, one, covariance={"alpha,alpha": number}),
        lambda s: s.restate(Stage.PAPER, ALPHA, daily(np.array([number]), s.now)),
    ]
    for posted in wrong:
        with pytest.raises((Refusal, ValueError)):
            posted(scene)
    assert scene.view.seq == seq
    fresh = opened(MemoryStore())
    fresh.bind(ALPHA)
    fresh.evaluate(ALPHA, metrics={"sharpe_annual": number})
    assert fresh.view.phase(0) is Phase.BACKTEST


@pytest.mark.parametrize(
    "returns",
    [np.full(30, 0.01), np.zeros(30), np.append(good(29), -1.0)],
    ids=["constant", "quiet", "ruined"],
)
def test_i9_what_has_no_value_passes_no_gate(store: Store, returns: Any) -> None:
    for on_missing in OnMissing:
        policy = replace(LONELY, gates=replace(LONELY.gates, on_missing=on_missing))
        scene = Scene(store, world_id=f.WorldId(f"w-{on_missing}"))
        scene.create()
        scene.add_policy(policy, "p")
        scene.submit(ALPHA, returns, end=scene.now)
        assert scene.view.phase(0) is Phase.BACKTEST
        scene.evaluate(ALPHA, metrics={"sharpe_annual": 3.0})
        assert scene.view.phase(0) is Phase.BACKTEST


@pytest.mark.parametrize("value", [NAN, None], ids=str)
@pytest.mark.parametrize(
    "bound", [Bound(metric="m", min=0.0), Bound(metric="m", max=0.0)], ids=["min", "max"]
)
def test_i9_a_comparison_says_what_must_hold(value: float | None, bound: Bound) -> None:
    """However a number that is none got that far, it does not pass."""
    metric = Metric(value=value, unit="", source=Source.REALIZED_RETURNS, snapshot_version=None)
    for stage in Stage:
        assert judge(bound, metric, stage, OnMissing.FAIL).verdict is Verdict.FAIL


def test_i9_percent_is_no_fraction(store: Store) -> None:
    scene = observed(store)
    with pytest.raises(Refusal):
        scene.bar(Stage.PAPER, {ALPHA: 1_500.0})
    with pytest.raises(Refusal):
        scene.bar(Stage.PAPER, {ALPHA: -1.5})
    with pytest.raises(Refusal):
        scene.bar(Stage.PAPER, {ALPHA: 0.01}, stress={ALPHA: {"crash": 20.0}})


# ---- I10 ---------------------------------------------------------------------------------------


ALWAYS = (Freeze(cron="* * * * *", length=DAY),)
DOWN: list[tuple[str, Change1]] = [
    ("demote", lambda s: s.demote(ALPHA)),
    ("retire", lambda s: s.demote(ALPHA, Phase.RETIRED)),
    ("switch off", lambda s: s.lower(ALPHA, Change(active=False))),
    ("weight to nothing", lambda s: s.lower(ALPHA, Change(weight=0.0))),
    ("freeze", lambda s: s.lower(ALPHA, Change(freeze=True))),
    ("kill", lambda s: s.kill()),
    ("close", lambda s: s.allow_live(False)),
    ("suspend", lambda s: s.change_state(WorldState.SUSPENDED)),
]


@pytest.mark.parametrize(("what", "down"), DOWN, ids=[what for what, _ in DOWN])
@pytest.mark.parametrize("frozen", [False, True], ids=["", "in a freeze"])
def test_i10_going_down_needs_no_evidence(
    store: Store, what: str, down: Change1, frozen: bool
) -> None:
    """I10 Demotion, rejection, freeze and kill need no evidence and cannot be blocked by missing
    evidence."""
    scene = live(store)
    if frozen:  # Of promotions only.
        scene.add_policy(governed(freeze=ALWAYS), "frozen")
        scene.set_default(2)
    scene.wait(1000 * DAY)  # Nothing that is known is fresh any more.
    down(scene)
    told = scene.decide(ALPHA)
    assert told.effective_mode is not Mode.LIVE or told.weight == 0.0, what


def test_i10_a_rejection_needs_no_evidence(store: Store) -> None:
    scene = approved(store)
    scene.wait(1000 * DAY)
    scene.allow_live(False)
    scene.kill()
    assert isinstance(scene.reject(ALPHA).standing, Rejected)


def test_i10_a_bad_bar_demotes_without_an_evaluation(store: Store) -> None:
    scene = live(store)
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: -0.9}, ttl_sec=1)
    assert not scene.view.live
