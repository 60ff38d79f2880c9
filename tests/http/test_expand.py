"""A snapshot with its returns goes out while it is read: no more of it is ever at hand."""

import numpy as np
import orjson
import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.errors import StoreDamaged
from qmtl.adapters.wire import answers, expanded
from qmtl.adapters.wire.instants import column_text
from qmtl.core.names import Stage, StrategyId, WorldId
from qmtl.core.series import Series
from qmtl.core.snapshot import PostedSeries
from qmtl.sim.scene import WORLD, daily
from tests.worlds import ALPHA, BETA, opened

from .harness import DAY, Harness, W, stamp, submission, with_world

HUB = f"/risk-hub/worlds/{W}"
POINTS = 25_000


def test_it_is_all_that_is_held_up_to_the_snapshot_a_slice_at_a_time() -> None:
    scene = opened(MemoryStore())
    for sid in (ALPHA, BETA):
        scene.bind(sid)
    series = PostedSeries(np.arange(POINTS) * 1_000_000, np.linspace(-0.1, 0.2, POINTS))
    first, _ = scene.post(Stage.SHADOW, {ALPHA: series, BETA: daily(np.array([0.1]), scene.now)})
    scene.bar(Stage.SHADOW, {ALPHA: 0.5}, at=scene.now.replace(second=1))
    read: list[StrategyId] = []

    def held(sid: StrategyId) -> Series:
        read.append(sid)
        return scene.store.series(WORLD, sid, Stage.SHADOW)

    pieces = expanded.pieces(answers.full_snapshot(WORLD, first), first.fact, held)
    found = [next(pieces)]
    assert read == [ALPHA], "one series at a time"
    found += pieces
    assert read == [ALPHA, BETA]
    assert max(map(len, found)) < 40 * expanded.POINTS_AT_ONCE
    told = orjson.loads(b"".join(found))
    expected = answers.full_snapshot(WORLD, first)
    assert series.t is not None
    expected["realized_returns"] = {
        ALPHA: {"t": column_text(series.t), "r": series.r.tolist()},
        BETA: {"t": column_text(np.array([first.fact.points.times()[-1]])), "r": [0.1]},
    }
    assert told == expected


def snapshots(harness: Harness) -> str:
    """Two strategies with returns; the path of the newest, expanded."""
    with_world(harness)
    harness.ok("ann", "POST", "/strategies", submission("s2"))
    harness.advance(DAY)
    harness.feed("paper", {"s1": 0.01, "s2": 0.02})
    return f"{HUB}/latest?stage=paper&expand=true"


def test_its_tag_changes_with_what_is_held(harness: Harness) -> None:
    path = snapshots(harness)
    first = harness.call("rea", "GET", path)
    tag = {"If-None-Match": first.headers["etag"]}
    assert set(first.json()["realized_returns"]) == {"s1", "s2"}
    assert harness.call("rea", "GET", path, headers=tag).status_code == 304
    restated = {"stage": "paper", "strategy": "s1", "t": [stamp(harness.now)], "r": [0.5]}
    harness.ok("olga", "POST", f"{HUB}/restatements", {**restated, "reason": "wrong"})
    again = harness.call("rea", "GET", path, headers=tag)
    assert again.status_code == 200
    assert again.json()["realized_returns"]["s1"]["r"] == [0.5]


@pytest.mark.parametrize("lost", ["s1", "s2"])
def test_what_cannot_be_read_is_never_an_answer_that_looks_whole(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    path, series = snapshots(harness), MemoryStore.series

    def damaged(store: MemoryStore, world: WorldId, sid: StrategyId, stage: Stage) -> Series:
        if sid == lost:
            raise StoreDamaged("It is not what was written.")
        return series(store, world, sid, stage)

    monkeypatch.setattr(MemoryStore, "series", damaged)
    if lost == "s1":  # Before anything went out.
        refused = harness.call("rea", "GET", path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    else:
        # Nobody catches it, so the server cuts the answer off, and no client takes it for whole.
        with pytest.raises(RuntimeError, match="already started"):
            harness.call("rea", "GET", path)
