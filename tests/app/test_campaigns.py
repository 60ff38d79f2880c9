"""Status and tick over a store: where each strategy stands, and why it is not further."""

from typing import Any

import pytest

from qmtl.app import campaigns
from qmtl.app.campaigns import StrategyStatus
from qmtl.app.ports import Store
from qmtl.core.errors import UnknownStrategy, UnknownWorld
from qmtl.core.names import Phase, Reason, Stage, StrategyId, WorldId
from qmtl.sim import cast
from qmtl.sim.scene import DAY, Scene
from tests.worlds import (
    ALPHA,
    BETA,
    approved,
    climbed,
    good,
    in_paper,
    live,
    observed,
    opened,
    proposed,
)

R = Reason


def status(scene: Scene) -> StrategyStatus:
    return campaigns.status(scene.store, scene.view, ALPHA, scene.now)


def reasons(scene: Scene) -> set[Reason]:
    return {reason for reason, _ in status(scene).problems}


def test_in_backtest(store: Store) -> None:
    scene = opened(store)
    scene.bind(ALPHA)
    told = status(scene)
    assert (told.phase, told.entered_at, told.runs) == (Phase.BACKTEST, scene.now, {})
    assert not told.promotable_to_paper
    assert not told.promotable_to_live
    assert reasons(scene) == {
        R.BACKTEST_RUN_MISSING,
        R.BACKTEST_WINDOW_INCOMPLETE,
        R.OBSERVATIONS_INSUFFICIENT,
    }
    scene.submit(ALPHA, -good(15))
    assert reasons(scene) == {
        R.VALIDATION_FAILED,
        R.BACKTEST_WINDOW_INCOMPLETE,
        R.OBSERVATIONS_INSUFFICIENT,
    }
    scene.demote(ALPHA)
    assert R.HELD in reasons(scene)


@pytest.mark.parametrize(
    ("build", "phase", "problems"),
    [
        (
            in_paper,
            Phase.PAPER,
            {
                R.CANDIDATE_SUPERSEDED,
                R.MANUAL_APPROVAL_REQUIRED,
                R.PAPER_RUN_MISSING,
                R.PAPER_WINDOW_INCOMPLETE,
                R.OBSERVATIONS_INSUFFICIENT,
                R.SELECTION_FAILED,
                R.VALIDATION_FAILED,  # No stress has been told.
                R.RISK_SNAPSHOT_MISSING,
            },
        ),
        (
            observed,
            Phase.PAPER,
            {
                R.CANDIDATE_SUPERSEDED,
                R.MANUAL_APPROVAL_REQUIRED,
                R.PAPER_RUN_MISSING,
                R.SELECTION_FAILED,
            },
        ),
        (proposed, Phase.PAPER, {R.MANUAL_APPROVAL_REQUIRED}),
        (approved, Phase.PAPER, set()),
        (live, Phase.LIVE, {R.OBSERVATIONS_INSUFFICIENT}),
        (climbed, Phase.LIVE, set()),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_why_it_is_not_further(
    store: Store, build: Any, phase: Phase, problems: set[Reason]
) -> None:
    scene = build(store)
    told = status(scene)
    assert told.phase is phase
    assert reasons(scene) == problems
    assert told.promotable_to_live == (build is approved)


def test_retired_is_retired(store: Store) -> None:
    scene = approved(store)
    scene.demote(ALPHA, Phase.RETIRED)
    assert reasons(scene) == {R.RETIRED}


def test_windows_and_runs_of_every_stage(store: Store) -> None:
    told = status(climbed(store))
    assert set(told.runs) == set(told.windows) == {Stage.BACKTEST, Stage.PAPER, Stage.LIVE}
    assert [told.windows[s].satisfied for s in told.windows] == [True, True, True]
    assert told.runs[Stage.LIVE].stage is Stage.LIVE


def test_one_or_all(store: Store) -> None:
    scene = in_paper(store)
    scene.bind(BETA)
    world_id = scene.world_id
    _, everyone = campaigns.statuses(store, world_id, None, scene.now)
    assert [told.strategy_id for told in everyone] == [ALPHA, BETA]
    _, (one,) = campaigns.statuses(store, world_id, BETA, scene.now)
    assert one == everyone[1]
    with pytest.raises(UnknownStrategy):
        campaigns.statuses(store, world_id, StrategyId("omega"), scene.now)
    with pytest.raises(UnknownWorld):
        campaigns.statuses(store, WorldId("nowhere"), None, scene.now)


def test_a_promotable_strategy_is_promoted_by_doing_what_is_recommended(store: Store) -> None:
    scene = observed(store)
    scene.loop()
    scene.approve(ALPHA, cast.PIA)
    scene.approve(ALPHA, cast.PETE)
    assert status(scene).promotable_to_live
    scene.apply(ALPHA)
    assert status(scene).phase is Phase.LIVE


def test_looking_changes_nothing(store: Store) -> None:
    scene = climbed(store)
    view = scene.view
    status(scene)
    scene.tick()
    scene.tick(only=ALPHA)
    scene.wait(9 * DAY)
    scene.tick(limit=1)
    status(scene)
    assert scene.view is view
