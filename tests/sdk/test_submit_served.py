"""Submissions over a real server: versions, returns that grow or changed, a world away."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qmtl.adapters.client import ApiError, Client
from qmtl.core.names import Mode, Phase, Reason, Verdict
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.returns import Returns
from qmtl.sdk.runner import Runner
from tests.sdk.swept import Trend
from tests.servers import Served, served

WORLD = "us"
POLICY = """
version: 1
data: {periods_per_year: 365.25}
campaign:
  backtest: {window: 400d, min_observations: 380}
gates:
  backtest: {max_drawdown: {max: 0.9}}
evidence: none
"""
START = np.datetime64("2022-01-01T21:00", "us")
DAY = np.timedelta64(1, "D")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as running:
        with Client(running.url, running.token) as client:
            client.create_world(WORLD)
            client.add_policy(WORLD, POLICY)
        yield running


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    with Client(server.url, server.token) as found:
        yield found


def walk(bars: int = 600) -> Prices:
    steps = np.random.default_rng(5).normal(0.0008, 0.01, (600, 2))[:bars]
    return Prices(START + np.arange(bars) * DAY, ("A", "B"), 100 * np.exp(steps.cumsum(axis=0)))


def series(bars: int) -> Returns:
    values = np.random.default_rng(6).normal(0.0008, 0.01, 600)[:bars]
    return Returns(START + np.arange(bars) * DAY, values)


def kinds(client: Client, after: int = 0) -> list[str]:
    return [entry["kind"] for entry in client.journal(WORLD, after=after)]


def seq(client: Client) -> int:
    return max(entry["seq"] for entry in client.journal(WORLD))


def test_a_strategy_is_submitted_and_the_world_says_what_comes_next(client: Client) -> None:
    result = Runner.submit(
        Trend(5), world=WORLD, prices=walk(), variants_tried=1, strategy_id="one", client=client
    )
    assert (result.strategy_id, result.version, result.previous) == ("one", 1, None)
    assert result.world is not None
    assert (result.world.verdict, result.world.phase) == (Verdict.PASS, Phase.PAPER)
    assert result.effective_mode is Mode.PAPER
    assert result.world.sentences
    assert " ".join(result.world.sentences[0].split()) in " ".join(str(result).split())
    assert max(map(len, str(result).splitlines())) <= 80
    before = seq(client)
    again = Runner.submit(
        Trend(5), world=WORLD, prices=walk(), variants_tried=1, strategy_id="one", client=client
    )
    assert (again.strategy_id, again.version) == ("one", 1)
    assert kinds(client, before) == [], "twice is once"


def test_what_is_changed_is_a_new_version_that_says_what_was_changed(client: Client) -> None:
    def submit(strategy: Trend, bars: int) -> Any:
        return Runner.submit(
            strategy, world=WORLD, prices=walk(bars), strategy_id="two", client=client
        )

    submit(Trend(5), 500)
    other = submit(Trend(7), 500)
    assert (other.strategy_id, other.version, other.previous) == ("two.2", 2, "two")
    assert other.changed == ("parameters",)
    longer = submit(Trend(7), 600)
    assert (longer.strategy_id, longer.changed) == ("two.3", ("data",))
    assert longer.precheck.findings[0].name == "only_data_changed"
    assert "the code is the same as version 2" in longer.precheck.findings[0].message
    assert submit(Trend(5), 500).strategy_id == "two", "the same fingerprint is the same strategy"


def test_too_short_a_history_is_foretold_as_the_world_judges(client: Client) -> None:
    result = Runner.submit(
        Trend(5), world=WORLD, prices=walk(300), strategy_id="short", client=client
    )
    finding = next(each for each in result.precheck.findings if each.name == "history_short")
    assert "400 days and 380 observations; this has 298.0 and 299" in finding.message
    assert "start on 2021-09-21 or before, not on 2022-01-01" in finding.remedy
    assert result.world is not None
    assert "298.0 of 400.0 days" in " ".join(result.world.details)
    assert "299 of 380" in " ".join(result.world.details)
    # And what is asked for is enough.
    bars = 300 + 102
    times = np.datetime64("2021-09-21T21:00", "us") + np.arange(bars) * DAY
    steps = np.random.default_rng(5).normal(0.0008, 0.01, (bars, 2))
    enough = Prices(times, ("A", "B"), 100 * np.exp(steps.cumsum(axis=0)))
    found = Runner.submit(Trend(5), world=WORLD, prices=enough, strategy_id="long", client=client)
    assert found.world is not None
    assert found.world.phase is Phase.PAPER


# ---- Returns made elsewhere ------------------------------------------------------------------


def send(client: Client, returns: Returns, **options: Any) -> Any:
    return Runner.submit(
        returns, world=WORLD, strategy_id="elsewhere", variants_tried=1, client=client, **options
    )


def held(client: Client, version: str) -> int:
    (status,) = client.status(WORLD, version)["strategies"]
    return int(status["backtest"]["observations"])


def test_returns_grow_and_a_changed_history_is_another_version(client: Client) -> None:
    first = send(client, series(300))
    assert (first.strategy_id, first.version) == ("elsewhere", 1)
    assert (first.world.verdict, held(client, "elsewhere")) == (Verdict.INCONCLUSIVE, 300)
    grown = send(client, series(450))
    assert (grown.strategy_id, grown.version, grown.changed) == ("elsewhere", 1, ())
    assert (grown.world.phase, held(client, "elsewhere")) == (Phase.PAPER, 450)

    values = series(460).values.copy()
    values[10] += 0.001
    changed, before = Returns(series(460).times, values), seq(client)
    with pytest.raises(ApiError) as caught:
        send(client, changed)
    assert (caught.value.status, caught.value.reasons) == (409, (Reason.EVIDENCE_CHANGED,))
    assert "Give version=..." in caught.value.__notes__[0]
    assert (kinds(client, before), held(client, "elsewhere")) == ([], 450), "nothing changed"

    restated = send(client, changed, version="restated")
    assert (restated.strategy_id, restated.version) == ("elsewhere.2", 2)
    assert (restated.previous, restated.changed) == ("elsewhere", ("code",))
    assert send(client, series(500)).strategy_id == "elsewhere"


def test_what_returns_do_not_tell_can_be_said(client: Client) -> None:
    stats = {"trades_total": 80.0, "turnover_annual": 4.5}
    result = Runner.submit(series(450), world=WORLD, strategy_id="told", stats=stats, client=client)
    assert result.world is not None
    run = client.send("GET", f"/worlds/{WORLD}/strategies/told/runs/{result.world.run_id}/metrics")
    assert {name: run["metrics"][name]["value"] for name in stats} == stats


# ---- Away ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quiet:
    """Holds a little, always."""

    share: float = 0.25

    def weights(self, prices: FloatArray) -> FloatArray:
        return np.full_like(prices, self.share)


def test_what_was_kept_while_the_world_was_away_is_sent_once(
    tmp_path: Path, server: Served, home: Path
) -> None:
    with Client("http://127.0.0.1:9", server.token) as nobody:
        nobody.url = server.url  # As if that server had not been up.
        kept = Runner.submit(Quiet(), world=WORLD, prices=walk(), strategy_id="kept", client=nobody)
    assert (kept.effective_mode, kept.safe_mode, kept.downgraded) == (Mode.COMPUTE_ONLY, True, True)
    assert kept.spooled is not None
    with Client(server.url, server.token) as client:
        assert [s for s in client.strategies(WORLD) if s["strategy_id"] == "kept"] == []
        result = Runner.submit(
            Quiet(0.3), world=WORLD, prices=walk(), strategy_id="kept", client=client
        )
        assert [(each.strategy_id, each.outcome) for each in result.flushed] == [("kept", "sent")]
        assert (result.strategy_id, result.previous) == ("kept.2", "kept"), "oldest first"
        assert Runner.flush(client) == []
        bound = [s["strategy_id"] for s in client.strategies(WORLD)]
    assert [each for each in bound if each.startswith("kept")] == ["kept", "kept.2"]
