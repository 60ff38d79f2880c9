"""Worlds in process, as a server has them: what is asked of them is what a door would ask."""

from datetime import UTC, datetime
from pathlib import Path

import orjson

from qmtl.adapters import policies
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.wire.bodies_hub import Snapshot
from qmtl.app import evaluations, hub, strategies, worlds
from qmtl.app.step import By
from qmtl.core.names import ActorId, Role, Stage, StrategyId, WorldId

WORLD = WorldId("bench")
BEGAN = datetime(2025, 1, 1, 21, tzinfo=UTC)


def by(now: datetime) -> By:
    return By(ActorId("bench"), frozenset(Role), now)


def world(folder: Path, count: int) -> SqlStore:
    """A world under the sandbox policy with `count` strategies."""
    store = SqlStore(folder)
    new = worlds.NewWorld(world_id=WORLD, name="", description="", labels={}, allow_live=True)
    worlds.create(store, by(BEGAN), new, dual_control=False)
    policy = policies.parse(policies.shipped("sandbox"))
    checksum = policies.checksum(policy)
    worlds.add_policy(store, WORLD, by(BEGAN), policy, checksum, dual_control=False)

    def bind() -> None:
        for number in range(count):
            binding = strategies.Binding(
                strategy_id=StrategyId(f"s{number}"), name="", fingerprint=None, variants_tried=None
            )
            strategies.bind(store, WORLD, by(BEGAN), binding)

    store.write(bind)
    return store


def post(store: SqlStore, posted: bytes, stage: Stage) -> None:
    snapshot = Snapshot.of(orjson.loads(posted)).meaning(stage)
    hub.post(store, WORLD, by(snapshot.as_of), snapshot)


def evaluate(store: SqlStore, sid: str, now: datetime) -> None:
    request = evaluations.Request(strategy_id=StrategyId(sid), stage=Stage.SHADOW)
    evaluations.evaluate(store, WORLD, by(now), request)
