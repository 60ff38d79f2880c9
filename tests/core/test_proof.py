"""Which returns an e-process is told, and what never makes it forget."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.core.columns import Proof
from qmtl.core.evidence import eprocess
from qmtl.core.names import Phase, Stage
from qmtl.core.policy import Bound, Evidence, Gates, PaperEvidence, Policy
from qmtl.core.proof import Terms, blocks_of, campaigns, e_values, terms
from qmtl.core.snapshot import PostedSeries
from qmtl.core.times import NEVER, micros
from qmtl.sim.scene import DAY, Scene
from tests.worlds import ALPHA, BETA, LONELY, in_paper, live, opened

HOUR = timedelta(hours=1)


def told(scene: Scene, sid=ALPHA) -> int:
    """How many returns its e-process was told."""
    return int(scene.view.proof.seen[scene.view.strategies[sid].row])


def row_of(scene: Scene, name: str) -> float:
    return float(getattr(scene.view.proof, name)[scene.view.strategies[ALPHA].row])


def paper(scene: Scene, r: float = 0.01, **more: object) -> None:
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {ALPHA: r}, **more)


def test_before_paper_nothing_is_told() -> None:
    scene = opened(MemoryStore(), LONELY)
    scene.bind(ALPHA)
    paper(scene)
    assert (told(scene), row_of(scene, "since"), campaigns(scene.view)) == (0, NEVER, 0)


def test_it_begins_at_the_entry_into_paper() -> None:
    scene = in_paper(MemoryStore(), LONELY)
    assert row_of(scene, "since") == micros(scene.now)
    assert (campaigns(scene.view), row_of(scene, "entry")) == (1, 1)
    scene.bar(Stage.PAPER, {ALPHA: 0.02}, at=scene.now)  # Not after it.
    assert told(scene) == 0
    paper(scene)
    assert (told(scene), row_of(scene, "part_sum")) == (1, 0.01)


def test_backtest_and_shadow_are_no_evidence() -> None:
    scene = in_paper(MemoryStore(), LONELY)
    scene.wait(DAY)
    scene.bar(Stage.SHADOW, {ALPHA: 0.01})
    scene.bar(Stage.BACKTEST, {ALPHA: 0.01})
    assert told(scene) == 0


def test_the_same_data_twice_changes_nothing() -> None:
    scene = in_paper(MemoryStore(), LONELY)
    paper(scene)
    before = scene.view.proof
    scene.bar(Stage.PAPER, {ALPHA: 0.01}, at=scene.now, version="again")
    assert scene.view.proof.same(before, 1)


def test_once_live_live_returns_are_told_and_paper_is_not() -> None:
    scene = live(MemoryStore(), LONELY)
    had = told(scene)
    assert had > 0
    for _ in range(3):
        scene.wait(DAY)
        scene.bar(Stage.PAPER, {ALPHA: 0.03})
        assert told(scene) == had
        scene.bar(Stage.LIVE, {ALPHA: 0.01})
        had += 1
        assert told(scene) == had


def test_live_returns_of_who_is_on_paper_are_not_told() -> None:
    scene = in_paper(MemoryStore(), LONELY)
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: 0.05})
    assert told(scene) == 0


@pytest.mark.parametrize("how", ["demoted", "killed", "live is off"])
def test_it_runs_on_whatever_takes_it_down(how: str) -> None:
    scene = live(MemoryStore(), LONELY)
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: 0.01})
    before = scene.view.proof
    match how:
        case "demoted":
            scene.demote(ALPHA, Phase.PAPER)
        case "killed":
            scene.kill()
        case _:
            scene.allow_live(False)
    after = scene.view.proof
    kept = ("since", "seen", "blocks", "block_mean", "block_m2", "part_sum", "entry", "begun")
    assert all(np.array_equal(getattr(before, n), getattr(after, n)) for n in kept)
    paper(scene)
    assert told(scene) == int(before.seen[0]) + 1


def test_a_bar_told_of_live_is_not_told_again_of_paper() -> None:
    scene = live(MemoryStore(), LONELY)
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: 0.01})
    had = told(scene)
    scene.demote(ALPHA, Phase.PAPER)
    scene.bar(Stage.PAPER, {ALPHA: 0.01}, at=scene.now)
    assert told(scene) == had


@pytest.mark.parametrize(("r", "counts"), [(0.05, 0), (0.0, 0), (-0.05, 1)])
def test_late_returns_count_only_against_it(r: float, counts: int) -> None:
    scene = in_paper(MemoryStore(), LONELY)
    scene.wait(DAY)
    at = scene.now
    scene.wait(LONELY.data.max_lag + HOUR)
    scene.bar(Stage.PAPER, {ALPHA: r}, at=at)
    assert told(scene) == counts


def test_many_bars_at_once_are_the_same_as_one_by_one() -> None:
    one, all_ = in_paper(MemoryStore(), LONELY), in_paper(MemoryStore(), LONELY)
    returns = [0.01, -0.02, 0.005, 0.01, 0.0, 0.007, -0.001]
    times = []
    for r in returns[:4]:
        paper(one, r)
        times.append(micros(one.now))
    all_.wait(4 * DAY)
    series = PostedSeries(np.array(times, np.int64), np.array(returns[:4]))
    all_.post(Stage.PAPER, {ALPHA: series})
    assert one.view.proof.same(all_.view.proof, 1)


def test_a_restatement_begins_anew_and_counts_once_more() -> None:
    scene = in_paper(MemoryStore(), LONELY)
    for _ in range(3):
        paper(scene)
    row = scene.view.strategies[ALPHA].row
    t = scene.view.tracks[Stage.PAPER].last_t[row]
    scene.restate(Stage.PAPER, ALPHA, PostedSeries(np.array([t], np.int64), np.array([0.02])))
    assert (told(scene), campaigns(scene.view)) == (0, 2)
    assert (row_of(scene, "entry"), row_of(scene, "since")) == (2, micros(scene.now))


def test_each_campaign_of_a_world_has_its_place() -> None:
    scene = in_paper(MemoryStore(), LONELY, ALPHA, BETA)
    assert [int(n) for n in scene.view.proof.entry[:2]] == [1, 2]
    assert campaigns(scene.view) == 2


# ---- Terms -------------------------------------------------------------------------------------


def asking(**paper_terms: object) -> Policy:
    return replace(LONELY, evidence=Evidence(paper=PaperEvidence(**paper_terms)))  # type: ignore[arg-type]  # Its fields.


FLOOR = Gates(by_stage={Stage.LIVE: (Bound(metric="max_bar_loss", max=0.1),)})


@pytest.mark.parametrize(
    "other",
    [
        asking(block=4),
        asking(hurdle_annual=0.01),
        asking(design_sharpe_annual=2.0),
        asking(method="bounded"),
        replace(asking(), gates=FLOOR),
    ],
)
@pytest.mark.parametrize("r", [0.01, -0.01])
def test_other_terms_keep_only_what_speaks_against_it(other: Policy, r: float) -> None:
    scene = in_paper(MemoryStore(), LONELY)
    for day in range(60):
        paper(scene, r + (0.004 if day % 2 else -0.004))
    row = np.array([0])
    before = float(e_values(scene.view.proof, row, terms(LONELY))[0])
    assert before > 1 if r > 0 else before < 1
    added = scene.add_policy(other, "other")
    scene.set_default(added.version.version)
    assert row_of(scene, "carried") == pytest.approx(min(1.0, before))
    assert (told(scene), row_of(scene, "blocks")) == (0, 0)
    assert campaigns(scene.view) == 1


@pytest.mark.parametrize(
    "same", [asking(), replace(LONELY, selection=None), asking(backtest_credit_cap=3.0)]
)
def test_another_policy_on_the_same_terms_changes_nothing(same: Policy) -> None:
    scene = in_paper(MemoryStore(), LONELY)
    for _ in range(12):
        paper(scene)
    before = scene.view.proof
    scene.set_default(scene.add_policy(same, "same").version.version)
    assert scene.view.proof.same(before, 1)


@pytest.mark.parametrize("r", [0.01, -0.01])
def test_a_declared_end_keeps_what_speaks_against_it_too(r: float) -> None:
    """`group_sequential` has nothing below 1 to say; the blocks it was told have."""
    first = asking(method="group_sequential")
    scene = in_paper(MemoryStore(), first)
    for day in range(60):
        paper(scene, r + (0.004 if day % 2 else -0.004))
    blocks = blocks_of(scene.view.proof, np.array([0]))
    before = float(eprocess.t_mixture(blocks, terms(first).design)[0])
    assert before > 1 if r > 0 else before < 1
    scene.set_default(scene.add_policy(asking(), "other").version.version)
    assert row_of(scene, "carried") == pytest.approx(min(1.0, before))


def test_what_was_carried_is_carried_on() -> None:
    """Too few returns under the second terms: what the first had shown stays as it was."""
    scene = in_paper(MemoryStore(), LONELY)
    for day in range(60):
        paper(scene, -0.01 + (0.004 if day % 2 else -0.004))
    scene.set_default(scene.add_policy(asking(block=4), "second").version.version)
    carried = row_of(scene, "carried")
    assert 0 < carried < 1
    scene.set_default(scene.add_policy(asking(block=3), "third").version.version)
    assert row_of(scene, "carried") == carried


def test_the_terms_of_a_policy() -> None:
    policy = replace(asking(method="bounded", hurdle_annual=0.0365), gates=FLOOR)
    policy = replace(policy, data=replace(policy.data, periods_per_year=365.0))
    found = terms(policy)
    assert found == Terms(
        method="bounded",
        hurdle=pytest.approx(0.0001),
        block=5,
        design=pytest.approx(1.5 * np.sqrt(5 / 365)),
        floor=0.1,
        horizon=0,
    )
    policy = replace(policy, evidence=asking(method="group_sequential").evidence)
    assert terms(policy).horizon == 11  # 60 days of data at 365 a year and 5 a block.
    endless = replace(policy.campaign.paper, max_window=None)
    campaign = replace(policy.campaign, paper=endless)
    assert terms(replace(policy, campaign=campaign)).horizon == 0
    assert terms(replace(policy, gates=Gates())).floor == 1.0


def test_e_values_of_each_method() -> None:
    rng = np.random.default_rng(0)
    proof = Proof.blank(2)
    held = eprocess.more_blocks(
        eprocess.no_blocks(2), rng.normal(0.002, 0.01, (2, 100)), np.ones((2, 100), bool), 5
    )
    rows = np.arange(2)
    proof = proof.put(
        rows, seen=100.0, blocks=held.count, block_mean=held.mean, block_m2=held.m2, carried=0.5
    )
    base = terms(asking())
    np.testing.assert_allclose(
        e_values(proof, rows, base), 0.5 * eprocess.t_mixture(held, base.design)
    )
    np.testing.assert_allclose(e_values(proof, rows, replace(base, method="bounded")), 0.5)
    planned = e_values(proof, rows, replace(base, method="group_sequential", horizon=100))
    assert (planned >= 0.5).all()
    nothing = e_values(Proof.blank(1), np.array([0]), replace(base, method="bounded"))
    assert np.isnan(nothing).all()


# ---- Replays, and what live has to keep up -----------------------------------------------------


def test_paper_is_compared_with_the_replay_of_the_bar() -> None:
    scene = in_paper(MemoryStore(), LONELY)
    paper(scene, 0.01, replay={ALPHA: 0.012})
    paper(scene, 0.01)  # Without one: not compared.
    paper(scene, 0.01, replay={ALPHA: 0.008})
    assert row_of(scene, "drift_points") == 2
    assert row_of(scene, "drift_mean") == pytest.approx(0.0)
    assert row_of(scene, "drift_m2") == pytest.approx(2 * 0.002**2)


def test_a_bar_that_only_the_engine_has_is_one_on_which_paper_earned_nothing() -> None:
    scene = in_paper(MemoryStore(), LONELY)
    alone(scene, -0.02)
    assert row_of(scene, "drift_points") == 0  # Before its first return paper has not begun.
    paper(scene, 0.01, replay={ALPHA: 0.01})
    alone(scene, -0.03)
    assert (row_of(scene, "drift_points"), row_of(scene, "unrealised")) == (2, 1)
    assert row_of(scene, "drift_mean") == pytest.approx(0.015)
    assert (row_of(scene, "seen"), row_of(scene, "last_t")) == (1, micros(scene.now - DAY))
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {}, replay={ALPHA: -0.04}, weights={ALPHA: 1.0})
    assert row_of(scene, "drift_points") == 2  # Live is compared with paper, not with an engine.


def test_a_late_bar_that_was_left_out_counts_but_not_one_that_is_over() -> None:
    scene = in_paper(MemoryStore(), LONELY)
    paper(scene, 0.01, replay={ALPHA: 0.01})
    first = scene.now
    scene.wait(20 * DAY)
    scene.bar(Stage.PAPER, {}, at=first + DAY, replay={ALPHA: -0.03}, weights={ALPHA: 1.0})
    assert row_of(scene, "unrealised") == 1
    for over in (first, first - DAY):
        scene.bar(Stage.PAPER, {}, at=over, replay={ALPHA: -0.05}, weights={ALPHA: 1.0})
    assert row_of(scene, "unrealised") == 1


def alone(scene: Scene, replay: float) -> None:
    """A day that the engine saw, and paper did not."""
    scene.wait(DAY)
    scene.bar(Stage.PAPER, {}, replay={ALPHA: replay}, weights={ALPHA: 1.0})


def test_a_new_paper_window_compares_anew() -> None:
    scene = live(MemoryStore(), LONELY)
    scene.wait(DAY)
    row = scene.view.strategies[ALPHA].row
    scene.demote(ALPHA, Phase.PAPER)
    paper(scene, 0.01, replay={ALPHA: 0.02})
    assert row_of(scene, "drift_points") == 1
    scene.release(ALPHA)
    scene.demote(ALPHA, Phase.RETIRED)
    assert scene.view.proof.drift_points[row] == 1  # Only an entry into paper does.
