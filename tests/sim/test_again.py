"""A world's own history again: under its own policy it is what it was, and nothing else may be."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from qmtl.adapters import policies
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.workers import HERE, Processes
from qmtl.core import facts as f
from qmtl.core.errors import Invalid
from qmtl.core.names import Reason, Stage, StrategyId
from qmtl.core.policy import Bound, Policy, Window
from qmtl.entry.cli import app
from qmtl.entry.cli.context import Setting
from qmtl.sim import again, cast, inputs, trial
from qmtl.sim.again import Null
from qmtl.sim.returns import placebo
from qmtl.sim.scene import DAY, WORLD, Scene
from tests.exports import KEY, exported, head_of, told_of
from tests.worlds import AUTO, POLICY

DAYS, COUNT, NONE = 60, 4, timedelta(0)
SIDS = [StrategyId(f"s{n}") for n in range(COUNT)]


@cache
def history() -> tuple[Scene, tuple[f.Entry, ...]]:
    """Skilled strategies that go up; one is taken down by a breaker, one by hand."""
    scene = Scene(MemoryStore())
    scene.create(allow_live=True)
    scene.add_policy(AUTO, "own")
    r = placebo.skilled(6.0, DAYS, COUNT, 5)
    r[45, 1] = -0.3
    backtests = placebo.leaky(60, COUNT, 3)
    for i, sid in enumerate(SIDS):
        scene.submit(sid, backtests[:, i], fingerprint=f"f{i}", parts={"data": sid})
        scene.evaluate(sid)
    for day in range(DAYS):
        trial._close(scene)
        trial._post(scene, SIDS, r[day])
        trial.turns(scene)
        if day == 50 and scene.view.live:
            scene.demote(min(scene.view.live))
    return scene, tuple(scene.store.journal(WORLD, 0, 1_000_000))


def kept(policy: Policy) -> list[again.Story]:
    return again.again(policy, WORLD, history()[1])


def test_under_its_own_policy_it_is_what_it_was() -> None:
    stories = kept(AUTO)
    assert [s.trial for s in stories] == [s.fact for s in stories]
    assert all(s.apart_at is None and s.why is None for s in stories)
    what = [move.what for s in stories for move in s.fact]
    assert what.count("live, step 1") >= 2, what
    assert "live, step 2" in what, what
    reasons = {e.fact.reason for e in history()[1] if isinstance(e.fact, f.Demoted)}
    assert {Reason.MANUAL} < reasons, reasons


def followed(
    policy: Policy, approve_after: int | None = None, *, loop: bool = True
) -> tuple[f.Entry, ...]:
    """A world whose returns go to the one stage that each strategy is in, as a follower posts
    them; with a kill in it.  People, if any, approve so many days after they were asked."""
    scene = Scene(MemoryStore())
    scene.create(allow_live=True)
    scene.add_policy(policy, "own")
    r, backtests = placebo.skilled(6.0, DAYS, COUNT, 5), placebo.leaky(60, COUNT, 3)
    r[15, 1] = -0.3  # Beyond the hard limit, while it is live.
    for i, sid in enumerate(SIDS):
        scene.submit(sid, backtests[:, i], fingerprint=f"f{i}", parts={"data": sid})
    asked: dict[StrategyId, int] = {}
    for day in range(DAYS):
        trial._close(scene)
        for i, sid in enumerate(SIDS):
            stage = Stage.LIVE if sid in scene.view.live else Stage.PAPER
            stress = {sid: {"worst": trial.STRESS_LOSS}}
            scene.bar(stage, {sid: float(r[day, i])}, stress=stress, ttl_sec=86_400)
        scene.wait(trial.LOOKS_AFTER)
        if loop:
            trial.turns(scene)
        if day == 30:
            scene.kill()
            scene.wait(DAY / 24)
            scene.resume()
        for sid in SIDS if approve_after is not None else ():
            if scene.view.open_candidate(sid) is not None:
                asked.setdefault(sid, day)
                if day == asked[sid] + (approve_after or 0):
                    scene.approve(sid, cast.PIA)
                    scene.approve(sid, cast.PETE)
                    scene.apply(sid)
    return tuple(scene.store.journal(WORLD, 0, 1_000_000))


def test_a_follower_posts_to_one_stage_and_it_is_what_it_was() -> None:
    journal = followed(AUTO)
    stories = again.again(AUTO, WORLD, journal)
    down = [entry.at for entry in journal if isinstance(entry.fact, f.Demoted)]
    posted = [entry.at for entry in journal if isinstance(entry.fact, f.SnapshotStored)]
    assert set(down) & set(posted), "a breaker takes down at the bar, before anyone looks"
    assert [s.trial for s in stories] == [s.fact for s in stories]
    assert again.went_live(stories) >= 2
    what = [move.what for s in stories for move in s.fact]
    assert "demoted with the world" in what, "the kill took them down"


def test_where_nobody_looked_somebody_does() -> None:
    """A world without a loop recorded no look at all; here it has one after each bar."""
    stories = again.again(AUTO, WORLD, followed(AUTO, loop=False))
    assert again.went_live(stories, in_fact=True) == 0
    assert again.went_live(stories) >= 2


def test_people_who_were_late_are_why() -> None:
    """The same policy, whose people took a week: it goes live earlier, and says what kept it."""
    stories = again.again(POLICY, WORLD, followed(POLICY, approve_after=5))
    apart = [s for s in stories if any(m.what == "live, step 1" for m in s.fact)]
    assert apart
    for story in apart:
        live = [next(m.at for m in each if "live" in m.what) for each in (story.trial, story.fact)]
        assert live[0] < live[1], story
        assert (story.why or "").startswith("in fact: "), story
        assert "approv" in str(story.why), story


def test_an_earlier_history_is_enough_to_be_the_same() -> None:
    """Nothing is decided on what came later: cut anywhere, it is what it was by then."""
    whole = kept(AUTO)
    cut = len(history()[1]) * 2 // 3
    for was, now in zip(whole, again.again(AUTO, WORLD, history()[1][:cut]), strict=True):
        assert now.trial == now.fact == was.fact[: len(now.fact)]


def test_a_stricter_policy_promotes_fewer_and_says_why() -> None:
    bounds = {**AUTO.gates.by_stage, Stage.PAPER: (Bound(metric="sharpe_annual", min=1_000.0),)}
    stories = kept(replace(AUTO, gates=replace(AUTO.gates, by_stage=bounds)))
    assert again.went_live(stories, in_fact=True) >= 2
    assert again.went_live(stories) == 0
    why = [s.why for s in stories if any(m.what.startswith("live") for m in s.fact)]
    assert all(w and w.startswith("under this policy: ") and "sharpe_annual" in w for w in why), why


def test_where_it_goes_live_and_did_not_its_paper_returns_are_its_live_ones() -> None:
    slots = replace(AUTO.governance, max_live_slots=4, max_live_weight=1.0, cooldown=NONE)
    more = replace(AUTO, selection=None, governance=slots)
    stories = kept(more)
    early = [s for s in stories if s.trial != s.fact]
    assert early
    # Up the ramp it came by the returns of then, which were those of paper.
    only_here = [s for s in stories if not any(m.what.startswith("live") for m in s.fact)]
    assert any(m.what == "live, step 2" for s in only_here for m in s.trial), stories


@pytest.mark.parametrize("null", list(Null))
def test_a_placebo_has_the_shape_and_no_skill(null: Null) -> None:
    _, journal = history()
    drawn = again.placebo(journal, null, 1)
    assert drawn == again.placebo(journal, null, 1)
    assert drawn != again.placebo(journal, null, 2)
    for stage in (Stage.PAPER, Stage.LIVE):
        was, now = (_returns(each, stage) for each in (journal, drawn))
        assert was.keys() == now.keys()
    was, now = (_returns(each, Stage.PAPER) for each in (journal, drawn))
    for sid in SIDS:
        a, b = np.array(was[sid]), np.array(now[sid])
        left = a - a.mean()
        if null is Null.SIGNS:
            assert np.abs(b) == pytest.approx(np.abs(left))
        else:
            apart = np.abs(b[:, None] - np.maximum(left, again.LEAST)[None, :]).min(axis=1)
            assert apart.max() < 1e-12
        assert 0.2 < (np.sign(b) == np.sign(a)).mean() < 0.8
        assert abs(b.mean()) < 4 * left.std() / len(a) ** 0.5
    assert drawn[:2] == list(journal[:2])  # What is no return is what it was.


def _returns(journal: Sequence[f.Entry], stage: Stage) -> dict[StrategyId, list[float]]:
    found: dict[StrategyId, list[float]] = {}
    for entry in journal:
        if isinstance(entry.fact, f.SnapshotStored) and entry.fact.stage is stage:
            for sid, part in again._parts(entry.fact.points):
                found.setdefault(sid, []).extend(entry.fact.points.returns()[part].tolist())
    return found


def test_placebos_of_a_skilled_world_lose_their_skill() -> None:
    """A threshold that the history reaches, and luck seldom."""
    slots = replace(AUTO.governance, max_live_slots=COUNT, max_live_weight=1.0, cooldown=NONE)
    window = Window(span=40 * DAY, min_observations=30, max_window=90 * DAY)
    bounds = {**AUTO.gates.by_stage, Stage.PAPER: (Bound(metric="sharpe_annual", min=4.0),)}
    strict = replace(
        AUTO,
        selection=None,
        governance=slots,
        gates=replace(AUTO.gates, by_stage=bounds),
        campaign=replace(AUTO.campaign, paper=window),
    )
    _, journal = history()
    real = again.went_live(again.again(strict, WORLD, journal))
    drawn = [again.promoted(strict, WORLD, journal, (null, n)) for null in Null for n in range(4)]
    live, of = sum(a for a, _ in drawn), sum(b for _, b in drawn)
    assert of == 8 * COUNT
    assert real >= 3
    assert live / of < real / COUNT / 2, (live, of)
    assert drawn[0] == again.promoted(strict, WORLD, journal, (Null.SIGNS, 0))


def test_a_world_without_a_policy_has_nothing_to_compare() -> None:
    with pytest.raises(Invalid, match="never had a policy"):
        again.again(AUTO, WORLD, [])


# ---- What a history lacks ----------------------------------------------------------------------


def lacking(policy: Policy, journal: Sequence[f.Entry]) -> dict[str, tuple[int, int]]:
    return {each.path: (each.recorded, each.of) for each in inputs.missing(policy, journal)}


STANDARD = policies.parse(policies.shipped("standard"))


def test_what_nobody_recorded_is_missing_for_everybody() -> None:
    """A follower's world without replays; trades came with no backtest."""
    found = lacking(STANDARD, followed(AUTO))
    nobody = (0, COUNT)
    assert found == {"evidence.consistency": nobody, "gates.backtest.trades_total": nobody}
    assert "evidence.consistency" not in lacking(STANDARD, history()[1]), "there, replays are"


def test_what_was_recorded_of_some_is_missing_for_the_others() -> None:
    journal = [
        replace(entry, fact=replace(entry.fact, stress={SIDS[0]: {"worst": 0.1}}))
        if isinstance(entry.fact, f.SnapshotStored)
        else entry
        for entry in history()[1]
    ]
    assert lacking(STANDARD, journal)["risk.max_stress_loss"] == (1, COUNT)
    free = replace(STANDARD, risk=replace(STANDARD.risk, max_stress_loss=None))
    assert "risk.max_stress_loss" not in lacking(free, journal)


@pytest.mark.parametrize(
    ("metric", "carried"),
    [
        ("stress_loss_max", {"stress": {sid: {"worst": 0.1} for sid in SIDS}}),
        ("ex_ante_volatility", {"covariance": {"s0,s0": 1e-4}}),
        ("turnover_annual", {"stats": {sid: {"turnover_annual": 3.0} for sid in SIDS}}),
    ],
)
def test_a_gate_on_what_a_snapshot_carries_takes_it(
    metric: str, carried: dict[str, object]
) -> None:
    bounds = {Stage.PAPER: (Bound(metric=metric, max=0.5),)}
    asking = replace(
        AUTO,
        gates=replace(AUTO.gates, by_stage=bounds),
        risk=replace(AUTO.risk, max_stress_loss=None),
    )
    without = [
        replace(entry, fact=replace(entry.fact, stress=None, stats=None, covariance=None))
        if isinstance(entry.fact, f.SnapshotStored)
        else entry
        for entry in history()[1]
    ]
    assert lacking(asking, without) == {f"gates.paper.{metric}": (0, COUNT)}
    having = [
        replace(entry, fact=replace(entry.fact, **carried))
        if isinstance(entry.fact, f.SnapshotStored) and entry.fact.stage is Stage.PAPER
        else entry
        for entry in without
    ]
    assert not lacking(asking, having)


def test_without_a_return_in_paper_nothing_else_is_asked() -> None:
    begun = [
        entry
        for entry in history()[1]
        if not isinstance(entry.fact, f.SnapshotStored) or entry.fact.stage is Stage.BACKTEST
    ]
    plain = replace(AUTO, gates=replace(AUTO.gates, by_stage={}))
    assert lacking(plain, begun) == {"campaign.paper": (0, 0)}


def test_placebos_of_one_seed_are_not_those_of_the_next() -> None:
    drawn = [set(trial.seeds(seed, 4)) for seed in range(20)]
    assert len(set.union(*drawn)) == 80
    assert trial.seeds(0, 4) == trial.seeds(0, 8)[:4], "more of them: those there were stay"


def test_a_world_without_a_strategy_has_no_history() -> None:
    scene = Scene(MemoryStore())
    scene.create()
    scene.add_policy(AUTO, "own")
    with pytest.raises(Invalid, match="no strategy was ever in the world"):
        again.again(AUTO, WORLD, tuple(scene.store.journal(WORLD, 0, 100)))


# ---- The command -------------------------------------------------------------------------------


def written(tmp_path: Path) -> tuple[Path, Path]:
    """An export of the history, and its policy."""
    export, policy = tmp_path / "w.jsonl", tmp_path / "own.json"
    export.write_bytes(b"".join(exported(told_of(history()[0].store, WORLD), WORLD)))
    policy.write_text(json.dumps(policies.document(AUTO)))
    return export, policy


def test_the_command_reads_an_export(tmp_path: Path) -> None:
    export, policy = written(tmp_path)
    asked = ["policy", "simulate", str(policy), "--from-world", str(export)]
    asked += ["--placebos", "1", "--executor", "inline"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "every approval counts as given" in shown.stdout
    assert "without skill (sign-flipped)" in shown.stdout
    told = CliRunner().invoke(app, [*asked, "--json"])
    found = json.loads(told.stdout)
    assert [s["strategy_id"] for s in found["strategies"]] == SIDS
    assert all(s["trial"] == s["fact"] and s["apart_at"] is None for s in found["strategies"])
    assert found["totals"]["live"] == found["totals"]["live_in_fact"] >= 2
    assert [p["of"] for p in found["placebos"]] == [COUNT, COUNT]
    assert json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout) == found


def test_placebos_are_the_same_wherever_they_are_computed() -> None:
    drawn = [(null, seed) for null in Null for seed in (1, 2)]
    asked = (AUTO, WORLD, history()[1], drawn)
    with ThreadPoolExecutor(2) as threads:
        here, *others = (again.placebos(*asked, each) for each in (HERE, threads, Processes(2)))
    assert others == [here, here]
    assert here == [again.promoted(*asked[:3], each) for each in drawn]


def test_the_command_asks_a_server_for_a_world(tmp_path: Path) -> None:
    _, policy = written(tmp_path)
    told = told_of(history()[0].store, WORLD)

    def handle(request: httpx.Request) -> httpx.Response:
        after = int(request.url.params.get("after", 0))
        answers = {
            "/journal/key": KEY.told,
            f"/worlds/{WORLD}/journal/head": head_of(told, WORLD),
            f"/worlds/{WORLD}/journal": {
                "entries": told[after : after + 300],
                "next_cursor": str(after + 300) if after + 300 < len(told) else None,
            },
        }
        return httpx.Response(200, json=answers[request.url.path])

    asked = ["policy", "simulate", str(policy), "--from-world", WORLD, "--placebos", "0", "--json"]
    shown = CliRunner().invoke(
        app,
        ["--url", "http://w.test", *asked],
        obj=Setting(transport=httpx.MockTransport(handle)),
    )
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert all(s["trial"] == s["fact"] for s in found["strategies"])
    assert found["totals"]["live"] >= 2


def test_a_damaged_export_is_refused(tmp_path: Path) -> None:
    export, policy = written(tmp_path)
    lines = export.read_bytes().splitlines(keepends=True)
    export.write_bytes(b"".join(lines[:7] + lines[8:]))
    told = CliRunner().invoke(
        app, ["policy", "simulate", str(policy), "--from-world", str(export), "--json"]
    )
    assert told.exit_code == 1
    assert told.stdout == ""
    assert "entry 7 was removed" in told.stderr


def test_a_history_on_which_nobody_can_go_live_says_why(tmp_path: Path) -> None:
    """Without trials of it: what is blocked by what is missing says nothing of skill."""
    export, _ = written(tmp_path)
    asked = ["policy", "simulate", "standard", "--from-world", str(export), "--placebos", "1"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "This says nothing of the returns: nobody can go live here" in shown.stdout
    said = " ".join(shown.stdout.split())
    assert "gates.backtest.trades_total asks for trades_total in backtest: none was" in said
    assert "without skill" not in shown.stdout
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert len(told["blocked"]) == 1
    assert told["placebos"] == []


def test_a_world_without_history_is_refused(tmp_path: Path) -> None:
    scene, export = Scene(MemoryStore()), tmp_path / "empty.jsonl"
    scene.create()
    scene.add_policy(AUTO, "own")
    export.write_bytes(b"".join(exported(told_of(scene.store, WORLD), WORLD)))
    shown = CliRunner().invoke(app, ["policy", "simulate", "standard", "--from-world", str(export)])
    assert shown.exit_code == 1
    assert "no strategy was ever in the world" in shown.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--placebos", "2"], "--placebos is only with --from-world"),
        (["--from-world", "w", "--worlds", "2"], "--worlds is not with --from-world"),
        (["--from-world", "w", "--days", "9"], "--days is not with --from-world"),
        (["--from-world", "w", "--strategies", "9"], "--strategies is not with --from-world"),
        (["--seed", "-1"], "--seed"),
        (["--from-world", "w", "--seed", "-1"], "--seed"),
    ],
)
def test_what_would_do_nothing_is_refused(asked: list[str], said: str) -> None:
    shown = CliRunner().invoke(app, ["policy", "simulate", "sandbox", *asked])
    assert shown.exit_code == 2
    assert said in " ".join(shown.stderr.split())
