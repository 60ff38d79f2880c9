"""Eight days of a soak: whatever can die does, nothing is lost, and nobody is called.

`make soak` is a year of a thousand strategies, and says what grows (docs/performance.md).
"""

from pathlib import Path

from bench.soak.plan import DIES, deaths
from bench.soak.run import NOBODY_CALLED, Settings, soak

SETTINGS = Settings(strategies=4, days=8, seed=47, kills=4)
CHECKS = 9  # All but growth, of which seconds say nothing.


def test_nothing_is_lost_whoever_dies(tmp_path: Path) -> None:
    done: list[str] = []
    found = soak(SETTINGS, tmp_path, lambda what, _done, _of: done.append(what))
    assert [(check.what, check.wrong) for check in found.checks if not check.ok] == []
    assert len(found.checks) == CHECKS
    assert found.checks[0].what == NOBODY_CALLED
    planned = deaths(SETTINGS.days, SETTINGS.kills, SETTINGS.seed)
    assert sorted(each.death.target for each in found.died) == sorted(d.target for d in planned)
    assert set(DIES) == {death.target for death in planned}
    kinds = {kind for desk in found.desks for kind, _ in desk.written}
    assert {"strategy_bound", "snapshot_stored", "approval_given", "promotion_applied"} <= kinds
    assert len(found.samples) == SETTINGS.days
    assert done.count("traded") == SETTINGS.days
