"""What Prometheus is told: how each world stands, to who may know it, and nothing else."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qmtl.adapters.clock import SystemClock
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.errors import StoreAway
from qmtl.core.names import Role, WorldId
from qmtl.entry import observed
from qmtl.entry.http import create_app
from qmtl.entry.spool import Kept, Spool
from tests.http.harness import (
    DAY,
    POLICY,
    START,
    YAML,
    Harness,
    TestClient,
    W,
    begin,
    harness_over,
    with_candidate,
    with_live,
    with_world,
)

WORLD = WorldId(W)
Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def harness(tmp_path: Path) -> Any:
    with harness_over("memory", tmp_path) as made:
        yield made


def samples(text: str) -> Samples:
    """Every sample by its name and its labels, in order."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(harness: Harness, who: str | None = "rea") -> Samples:
    answer = harness.call(who, "GET", "/metrics")
    assert answer.status_code == 200, answer.text
    return samples(answer.text)


def of(found: Samples, name: str, **labels: str) -> float:
    """A sample of the world."""
    return found[f"qmtl_world_{name}", tuple(sorted({"world": W, **labels}.items()))]


def worlds_in(found: Samples) -> set[str]:
    return {dict(labels)["world"] for _, labels in found if "world" in dict(labels)}


def test_a_world_is_told_as_it_stands(harness: Harness) -> None:
    with_world(harness)
    with_live(harness)
    found = scrape(harness)
    view = harness.store.load(WORLD)
    assert of(found, "journal_entries_total") == view.seq
    assert of(found, "strategies", phase="live_campaign") == 1
    assert of(found, "strategies", phase="backtest_campaign") == 0
    assert of(found, "live_weight_ratio") == pytest.approx(0.5)
    assert of(found, "live_allowed") == 1
    assert of(found, "killed") == 0
    assert of(found, "state", state="active") == 1
    assert of(found, "state", state="suspended") == 0
    assert of(found, "candidates", standing="proposed") == 0, "it was applied"
    assert of(found, "candidate_wait_seconds") == 0
    assert of(found, "newest_return_age_seconds", stage="paper") == 0
    assert not [key for key in found if ("stage", "live") in key[1] and "newest" in key[0]]


def test_a_kill_and_a_freeze_are_told(harness: Harness) -> None:
    with_world(harness)
    with_live(harness)
    body = {"strategy_id": "s1", "freeze": True}
    harness.ok("olga", "PUT", f"/worlds/{W}/activation", body)
    assert of(scrape(harness), "frozen_strategies") == 1
    harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "drill"})
    found = scrape(harness)
    assert of(found, "killed") == 1
    assert of(found, "live_weight_ratio") == 0


def test_a_candidate_waits_until_it_is_rejected(harness: Harness) -> None:
    with_world(harness)
    run_id = with_candidate(harness)
    harness.advance(2 * DAY)
    found = scrape(harness)
    assert of(found, "candidates", standing="proposed") == 1
    assert of(found, "candidate_wait_seconds") == 2 * 86_400
    body = {"strategy_id": "s1", "run_id": run_id, "reason": "too thin"}
    harness.ok("al", "POST", f"/worlds/{W}/promotions/live/reject", body)
    found = scrape(harness)
    assert of(found, "candidates", standing="proposed") == 0
    assert of(found, "candidates", standing="rejected") == 1
    assert of(found, "candidate_wait_seconds") == 0, "nobody has to do anything"


def test_data_that_stops_is_told(harness: Harness) -> None:
    with_world(harness)
    harness.advance(DAY)
    harness.feed("paper", {"s1": 0.001})
    found = scrape(harness)
    assert of(found, "newest_return_age_seconds", stage="paper") == 0
    assert of(found, "quiet_strategies", stage="paper") == 0
    harness.advance(30 * DAY)
    found = scrape(harness)
    assert of(found, "newest_return_age_seconds", stage="paper") == 30 * 86_400
    assert of(found, "quiet_strategies", stage="paper") == 1
    assert of(found, "quiet_strategies", stage="live") == 0


def test_work_that_no_loop_does_is_told(harness: Harness) -> None:
    with_world(harness)
    for _ in range(3):
        harness.advance(DAY)
        harness.feed("paper", {"s1": 0.001})
    assert of(scrape(harness), "due_evaluations", stage="paper") == 1
    harness.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1"})
    assert of(scrape(harness), "due_evaluations", stage="paper") == 0


def test_a_tick_of_the_whole_world_is_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_world(harness)
    clock = [1000.0]
    monkeypatch.setattr("qmtl.entry.services.time.monotonic", lambda: clock[0])
    harness.ok("olga", "POST", f"/worlds/{W}/campaign/tick")
    clock[0] += 90
    assert of(scrape(harness), "unticked_seconds") == 90
    harness.ok("olga", "POST", f"/worlds/{W}/campaign/tick?strategy_id=s1")
    assert of(scrape(harness), "unticked_seconds") == 90
    harness.ok("olga", "POST", f"/worlds/{W}/campaign/tick")
    assert of(scrape(harness), "unticked_seconds") == 0


# ---- Who is told -------------------------------------------------------------------------------


def test_without_a_credential_nothing_is_said_of_any_world(harness: Harness) -> None:
    with_world(harness)
    answer = harness.call(None, "GET", "/metrics")
    assert answer.status_code == 200
    assert W not in answer.text
    assert "qmtl_world_" not in answer.text
    assert 'qmtl_http_requests_total{method="POST",route="/worlds"' in answer.text
    assert samples(answer.text)["qmtl_store_up", ()] == 1


@pytest.mark.parametrize("role", Role)
def test_any_role_reads_its_own_worlds_and_no_others(harness: Harness, role: Role) -> None:
    for world in (W, "beta"):
        harness.ok("admin", "POST", "/worlds", {"id": world})
    harness.token("zoe", role, world="beta")
    assert worlds_in(scrape(harness, "zoe")) == {"beta"}
    assert worlds_in(scrape(harness, "rea")) == {W, "beta"}


def test_a_credential_that_is_none_is_refused(harness: Harness) -> None:
    for header in ("Bearer qmtl_wrong", "Bearer", "Basic eDp5", ""):
        answer = harness.call(None, "GET", "/metrics", headers={"Authorization": header})
        assert answer.status_code == 401, header
        assert "qmtl_" not in answer.text.replace("qmtl:problem", "")


def test_a_store_that_is_away_hides_the_worlds_and_not_the_requests(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_world(harness)
    assert worlds_in(scrape(harness)) == {W}

    def away(_world: WorldId) -> None:
        raise StoreAway("The disk is full.")

    monkeypatch.setattr(harness.store, "load", away)
    for who in ("rea", None):
        found = scrape(harness, who)
        assert found["qmtl_store_up", ()] == 0
        assert worlds_in(found) == set()
        assert any(name == "qmtl_http_requests_total" for name, _ in found)


# ---- What it costs -----------------------------------------------------------------------------


def test_a_scrape_loads_views_and_reads_nothing_else(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_world(harness)
    with_candidate(harness)
    before = harness.state()
    reads = [
        name
        for name in vars(MemoryStore)
        if not name.startswith("_") and name not in ("load", "at_hand", "last_instant", "now")
    ]
    assert {"journal", "series", "runs", "head", "write"} <= set(reads)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a scrape reads views only")

    with monkeypatch.context() as patched:
        for name in reads:
            patched.setattr(harness.store, name, never)
        assert worlds_in(scrape(harness)) == {W}
    assert harness.state() == before


# ---- The bus, and a gateway --------------------------------------------------------------------


class Bus:
    """A relay that got somewhere, and stopped."""

    def __init__(self, **reached: int) -> None:
        self.reached = {WorldId(name): seq for name, seq in reached.items()}
        self.unusable = {WorldId("beta"): "it was told more than the journal has"}
        self.away: str | None = "NoServersError"


def test_how_far_the_bus_is_behind_is_told() -> None:
    harness = begin(MemoryStore())
    with_world(harness)
    harness.ok("admin", "POST", "/worlds", {"id": "beta"})
    harness.ok("polly", "POST", "/worlds/beta/policies", content=POLICY, headers=YAML)
    assert not [name for name, _ in scrape(harness) if "bus" in name], "there is none"
    seq = harness.store.load(WORLD).seq
    bus = Bus(alpha=seq - 2)
    harness.client = TestClient(create_app(harness.services, bus))
    found = scrape(harness)
    assert of(found, "bus_behind_entries") == 2
    assert of(found, "bus_unusable") == 0
    beta = harness.store.load(WorldId("beta")).seq
    assert beta > 0
    assert of(found, "bus_behind_entries", world="beta") == beta, "it was told nothing yet"
    assert of(found, "bus_unusable", world="beta") == 1
    assert found["qmtl_bus_up", ()] == 0
    bus.away = None
    assert scrape(harness, None)["qmtl_bus_up", ()] == 1


def test_a_gateway_tells_what_it_keeps(tmp_path: Path) -> None:
    spool, now = Spool(tmp_path), SystemClock().now()
    told = {family.name: family.samples[0].value for family in observed.of_gateway(spool, 0, now)}
    assert told == {observed.SPOOL: 0, observed.SPOOL_AGE: 0, observed.HELD: 0}
    for number, age in enumerate((60, 10)):
        kept = Kept("Bearer x", None, b"%d" % number)
        spool.keep(kept, now - timedelta(seconds=age))
    told = {family.name: family.samples[0].value for family in observed.of_gateway(spool, 7, now)}
    assert told == {observed.SPOOL: 2, observed.SPOOL_AGE: 60, observed.HELD: 7}


def test_every_metric_is_listed_and_every_one_that_is_listed_is_told(tmp_path: Path) -> None:
    harness = begin(MemoryStore())
    with_world(harness)
    with_candidate(harness)
    harness.client = TestClient(create_app(harness.services, Bus()))
    families = [*text_string_to_metric_families(harness.call("rea", "GET", "/metrics").text)]
    gateway = observed.of_gateway(Spool(tmp_path), 0, START)
    told = {f"{f.name}_total" if f.type == "counter" else f.name for f in [*families, *gateway]}
    assert told == {name for name, *_ in observed.listed()}
