"""Two loops (processes of their own) on one server; one of them is killed with SIGKILL.

It dies at a boundary of its own: before a request or after its answer; once between its tick and
its first action, and then the other one starts after it.  Whatever is left, the other one or the
next turn does; everything that happened happened once.  `test_loop.py` has loops that die alone.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from qmtl.adapters.audit.allowed import audit
from qmtl.adapters.client import Client
from qmtl.adapters.wire.export import lines
from qmtl.entry.loop import run_once
from tests import campaigns
from tests.campaigns import AUTO_APPLY, BEGAN, MANUAL
from tests.servers import served

from .dying import run_loop

ROUNDS = int(os.environ.get("QMTL_CRASH_ROUNDS", "3"))
COUNT = 6  # Strategies of a world: each is judged, and then applied where nobody need approve.
POLICIES = {"auto": AUTO_APPLY, "manual": MANUAL}
AFTER_TICK = 3  # Before its first action, its tick sent and answered.
LAST = 2 * COUNT  # Boundaries of a loop that does half of it all.


@dataclass(frozen=True)
class Real:
    url: str
    token: str
    alone: dict[str, Counter[str]]  # What happens when one loop runs undisturbed, by policy.


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    data = tmp_path_factory.mktemp("loops") / "data"
    with (
        served(data, "--clock", "replay", "--at", campaigns.stamp(BEGAN)) as server,
        Client(server.url, server.token) as client,
    ):
        rounds = [*map(str, range(ROUNDS)), "alone"]
        worlds = {f"{kind}-{each}": kind for kind in POLICIES for each in rounds}
        for world, kind in worlds.items():
            campaigns.begin(client, world, COUNT, POLICIES[kind])
        campaigns.month_of_paper(client, dict.fromkeys(worlds, COUNT))
        alone = {}
        for kind in POLICIES:
            assert run_once(client, f"{kind}-alone").ok
            alone[kind] = campaigns.happened(client, f"{kind}-alone")
        yield Real(server.url, server.token, alone)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_of_two_loops_one_dies_and_everything_happens_once(
    real: Real, kind: str, number: int
) -> None:
    world = f"{kind}-{number}"
    at = random.Random(world).randrange(2, LAST) if number else AFTER_TICK
    with ExitStack() as stack:
        dying = stack.enter_context(run_loop(real.url, real.token, world, at))
        if not number:  # It finds all there is to do, and does nothing of it.
            dying.process.join(60)
            assert dying.died, dying.reached
        other = stack.enter_context(run_loop(real.url, real.token, world))
        for each in (dying, other):
            each.process.join(60)
        assert other.process.exitcode == 0
        # The other one may have left it nothing to die of.
        assert dying.died or dying.process.exitcode == 0
    with Client(real.url, real.token) as client:
        assert run_once(client, world).ok
        assert campaigns.happened(client, world) == real.alone[kind]
        entries = list(client.journal(world))
        applied = [e["fact"]["strategy_id"] for e in entries if e["kind"] == "promotion_applied"]
        assert sorted(applied) == (campaigns.strategies(COUNT) if kind == "auto" else [])
        transitions = audit(lines(client.journal_head(world), client.journal_key(), entries))
        assert [each.violations for each in transitions] == [()] * len(applied)
