"""Envelopes and leases over a store."""

import pytest

from qmtl.app import decisions
from qmtl.app.ports import Store
from qmtl.core.errors import Invalid, UnknownStrategy, UnknownWorld
from qmtl.core.names import Mode, StrategyId, WorldId
from qmtl.sim import cast
from tests.worlds import ALPHA, BETA, in_paper, live


def test_one_or_all(store: Store) -> None:
    scene = in_paper(store)
    scene.bind(BETA)
    told = decisions.decide(store, scene.world_id, None, scene.now)
    assert [(e.strategy_id, e.effective_mode) for e in told] == [
        (ALPHA, Mode.PAPER),
        (BETA, Mode.COMPUTE_ONLY),
    ]
    assert decisions.decide(store, scene.world_id, BETA, scene.now) == told[1:]


def test_nobody_and_nowhere(store: Store) -> None:
    scene = in_paper(store)
    with pytest.raises(UnknownStrategy):
        decisions.decide(store, scene.world_id, StrategyId("omega"), scene.now)
    with pytest.raises(UnknownWorld):
        decisions.decide(store, WorldId("nowhere"), None, scene.now)


def test_a_decision_is_older_than_what_follows(store: Store) -> None:
    scene = live(store)
    before = scene.decide(ALPHA)
    scene.kill()
    after = scene.decide(ALPHA)
    assert (before.effective_mode, after.effective_mode) == (Mode.LIVE, Mode.PAPER)
    assert after.generation > before.generation


def test_a_lease_is_let_go_of(store: Store) -> None:
    scene = live(store)
    sequence = scene.view.live[ALPHA].sequence
    by = scene.by(cast.FEED)
    decisions.acknowledge(store, scene.world_id, by, ALPHA, sequence)
    assert scene.view.live[ALPHA].acknowledged == sequence
    with pytest.raises(Invalid):
        decisions.acknowledge(store, scene.world_id, by, ALPHA, 10_000)
