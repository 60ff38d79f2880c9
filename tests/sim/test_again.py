"""A world's own history again: under its own policy it is what it was, and nothing else may be."""

from functools import cache

from qmtl.adapters.memory import MemoryStore
from qmtl.core import facts as f
from qmtl.core.names import StrategyId
from qmtl.core.policy import Policy
from qmtl.sim import again, trial
from qmtl.sim.returns import placebo
from qmtl.sim.scene import WORLD, Scene
from tests.worlds import AUTO

DAYS, COUNT = 60, 4
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
    assert any(w.startswith("demoted") for w in what), what
