"""A sweep counts what it tried, and comes to the same wherever its variants ran."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from qmtl.adapters import workers
from qmtl.adapters.client import Client
from qmtl.core.metrics import Undefined
from qmtl.sdk import sweep
from qmtl.sdk.checks import StrategyRejected
from qmtl.sdk.engine import Engine
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.runner import Runner
from qmtl.sdk.strategy import StrategyError
from qmtl.sdk.sweep import SweepResult
from tests.sdk.swept import Dying, Peeking, Talking, Threads, Trend

URL = "http://world.test"
DEADLINE_SEC = 10.0
ENGINE = Engine(cost_bps=1.0)


def walk(bars: int = 600) -> Prices:
    steps = np.random.default_rng(7).normal(0.0005, 0.01, (bars, 2))
    times = np.datetime64("2020-01-01T21:00", "us") + np.arange(bars) * np.timedelta64(1, "D")
    return Prices(times, ("A", "B"), 100 * np.exp(steps.cumsum(axis=0)))


class Here(Executor):
    """Does everything in this process, at once."""

    def submit(self, call: Any, /, *given: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*given, **options))
        return future


def tried(grid: dict[str, Any], **options: Any) -> SweepResult:
    given: dict[str, Any] = {"executor": Here(), "submit": False, "prices": walk(), **options}
    strategy = given.pop("strategy", Trend)
    return Runner.sweep(strategy, grid, world="us", engine=ENGINE, **given)


class World:
    """Takes every submission."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def client(self) -> Client:
        def handle(request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                return httpx.Response(200, json={"default_policy_version": None})
            self.seen.append(json.loads(request.content))
            return httpx.Response(200, json={"strategy_id": self.seen[-1]["strategy_id"]})

        return Client(URL, "t", transport=httpx.MockTransport(handle))


def test_a_sweep_that_is_stopped_leaves_its_callers_executor_nothing_to_do() -> None:
    stopped = threading.Event()
    made: list[int] = []

    def trend(lookback: int) -> Trend:
        made.append(lookback)
        if len(made) > 200:  # Far into the grid, and far from its end.
            stopped.wait(DEADLINE_SEC)
        return Trend(lookback)

    def stop(what: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(KeyboardInterrupt):
            tried(
                {"lookback": [5] * 1_000},
                strategy=trend,
                prices=walk(20),
                executor=threads,
                progress=stop,
            )
        stopped.set()
    assert len(made) < 1_000


# ---- Variants --------------------------------------------------------------------------------


def test_every_combination_is_a_row_in_the_grids_order() -> None:
    found = tried({"lookback": [5, 3], "share": (0.5, 0.25)})
    assert [dict(row.parameters) for row in found.rows] == [
        {"lookback": 5, "share": 0.5},
        {"lookback": 5, "share": 0.25},
        {"lookback": 3, "share": 0.5},
        {"lookback": 3, "share": 0.25},
    ]
    assert found.tried == 4


def test_a_row_is_the_backtest_of_its_variant() -> None:
    found = tried({"lookback": [3, 9]})
    prices = walk()
    alone = ENGINE.backtest(Trend(9).weights(prices.values), prices)
    metrics = found.rows[1].metrics
    assert set(metrics) == set(sweep.METRICS)
    assert metrics["trades_total"] == alone.trades_total
    assert metrics["turnover_annual"] == alone.turnover_annual
    assert metrics["observations"] == len(alone.returns)


def test_the_best_is_chosen_and_of_equals_the_first() -> None:
    sharpe = [row.metrics["sharpe_annual"] for row in tried({"lookback": range(2, 9)}).rows]
    found = tried({"lookback": range(2, 9)})
    assert found.chosen is found.rows[int(np.argmax(np.array(sharpe, dtype=float)))]
    twice = tried({"lookback": [9_999, 4, 4]})
    assert twice.chosen is twice.rows[1]
    assert twice.tried == 3


def test_where_less_is_better_the_least_is_chosen() -> None:
    found = tried({"share": [0.5, 0.1, 0.3], "lookback": [4]}, metric="max_drawdown")
    assert found.chosen.parameters["share"] == 0.1


def test_a_variant_that_fails_is_a_row_and_counts() -> None:
    found = tried({"lookback": [0, 4, 0]})
    assert [row.error for row in found.rows] == [
        "ZeroDivisionError: no lookback",
        None,
        "ZeroDivisionError: no lookback",
    ]
    assert (found.rows[0].metrics, found.tried) == ({}, 3)
    assert found.chosen is found.rows[1]


def test_what_is_undefined_never_wins() -> None:
    found = tried({"lookback": [10_000, 4]})  # The first never trades.
    assert found.rows[0].metrics["sharpe_annual"] is Undefined.CONSTANT
    assert found.chosen is found.rows[1]
    assert found.best_first() == [found.rows[1]]


def test_what_was_tried_before_counts() -> None:
    assert tried({"lookback": [3, 4]}, variants_before=40).tried == 42


def test_numbers_of_numpys_are_plain_ones() -> None:
    found = tried({"lookback": np.arange(3, 5), "share": np.linspace(0.25, 0.5, 2)})
    assert {type(value) for value in found.rows[0].parameters.values()} == {int, float}
    assert json.loads(found.to_json())["chosen"]["parameters"]["lookback"] in (3, 4)


WRONG: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("nothing", {}, {}, "a grid has 1 to 10,000 variants, not 0 (no parameters)"),
    ("no values", {"lookback": []}, {}, "not 0 (0 of lookback)"),
    (
        "too many",
        {"lookback": range(200), "share": range(200)},
        {},
        "not 40,000 (200 of lookback x 200 of share)",
    ),
    ("without end", {"lookback": count()}, {}, "lookback has more values than the 10,000 variants"),
    ("text", {"lookback": "35"}, {}, "lookback takes a list of values, not '35'"),
    ("one value", {"lookback": 35}, {}, "lookback takes a list of values, not 35"),
    ("a name it has not", {"window": [3]}, {}, "Trend cannot be made of window: "),
    ("a parameter too few", {"share": [0.5]}, {}, "missing a required argument: 'lookback'"),
    ("no metric", {"lookback": [3]}, {"metric": "sharp"}, "sharp is no metric here; there are s"),
    ("fewer than none", {"lookback": [3]}, {"variants_before": -1}, "counts what was tried"),
    (
        "all fail",
        {"lookback": [0, 0]},
        {},
        "of 2 variants none has a sharpe_annual; the first, lookback=0: ZeroDivisionError: no look",
    ),
    ("none is defined", {"lookback": [9_999]}, {}, "sharpe_annual is undefined (constant)"),
]


@pytest.mark.parametrize(
    ("name", "grid", "options", "says"), WRONG, ids=[case[0] for case in WRONG]
)
def test_what_cannot_be_swept_is_said(
    name: str, grid: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(StrategyError) as caught:
        tried(grid, **options)
    assert says in str(caught.value)


# ---- Submitting ------------------------------------------------------------------------------


def test_the_chosen_one_is_submitted_with_the_number_tried() -> None:
    world = World()
    found = tried(
        {"lookback": [0, 3, 4]},
        submit=True,
        variants_before=10,
        strategy_id="trend",
        client=world.client(),
    )
    (sent,) = world.seen
    assert (sent["strategy_id"], sent["variants_tried"]) == ("trend", 13)
    assert found.submission is not None
    plain = json.loads(found.to_json())
    assert plain["submission"]["strategy_id"] == "trend"
    assert str(found).endswith(str(found.submission))
    chosen = Runner.submit(
        Trend(**found.chosen.parameters), world="us", prices=walk(), engine=ENGINE,
        client=world.client(),
    )  # fmt: skip
    assert world.seen[1]["fingerprint"] == sent["fingerprint"]
    assert chosen.precheck.metrics["sharpe_annual"] == found.chosen.metrics["sharpe_annual"]


def test_the_chosen_one_is_looked_at_for_look_ahead() -> None:
    world = World()
    with pytest.raises(StrategyRejected, match="looks ahead"):
        tried({"lookback": [3]}, strategy=Peeking, submit=True, client=world.client())
    assert not world.seen


def test_without_submitting_nobody_is_asked() -> None:
    assert tried({"lookback": [3]}, client=Client("http://127.0.0.1:9")).submission is None


# ---- Where it runs ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def test_wherever_it_runs_it_comes_to_the_same(processes: ProcessPoolExecutor) -> None:
    grid = {"lookback": [0, *range(2, 40)], "share": [0.25, 0.5]}
    here = tried(grid)
    own = tried(grid, executor=None)
    with ThreadPoolExecutor(2) as threads:
        others = [tried(grid, executor=threads), tried(grid, executor=processes)]
    for other in (own, *others):
        assert other.rows == here.rows
        assert other.chosen == here.chosen


def test_a_worker_computes_with_one_thread_unless_it_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in workers.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POLARS_MAX_THREADS", "3")
    found = tried({"name": list(workers.THREADS)}, strategy=Threads, executor=None, metric="cagr")
    alike = {row.parameters["name"]: row.metrics["volatility"] for row in found.rows}
    assert alike.pop("POLARS_MAX_THREADS") != alike["OMP_NUM_THREADS"]
    assert len(set(alike.values())) == 1
    one = tried({"lookback": [1]}, strategy=lambda lookback: _Flat())
    assert alike["OMP_NUM_THREADS"] == one.rows[0].metrics["volatility"]
    assert "OMP_NUM_THREADS" not in os.environ, "the author's own process is left as it was"


class _Flat:
    def weights(self, prices: FloatArray) -> FloatArray:
        return np.full_like(prices, 0.01)


def test_what_a_variant_prints_is_no_part_of_what_its_caller_does(
    capfd: pytest.CaptureFixture[str],
) -> None:
    tried({"lookback": [3]}, strategy=Talking, executor=None)
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "I was asked\n")


def test_what_cannot_be_sent_to_a_worker_says_what_to_do() -> None:
    with pytest.raises(StrategyError, match=r"cannot be sent to a worker.*ThreadPoolExecutor"):
        tried({"lookback": [3]}, strategy=lambda lookback: Trend(lookback), executor=None)


def test_a_worker_that_dies_ends_the_sweep_and_says_what_to_do() -> None:
    with pytest.raises(StrategyError, match="died 3 times in a row, with 0 of 2 pieces done"):
        tried({"number": [1, 2]}, strategy=Dying, executor=None)


def test_a_script_without_its_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from qmtl import Runner\n"
        "from tests.sdk.swept import Trend\n"
        "from tests.sdk.test_sweep import walk\n"
        "Runner.sweep(Trend, {'lookback': [3]}, world='us', prices=walk(), submit=False)\n"
    )
    root = Path(__file__).parent.parent.parent
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "in a script, call under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]


def test_progress_counts_variants() -> None:
    told: list[tuple[str, int, int]] = []
    tried({"lookback": range(2, 100)}, progress=lambda *said: told.append(said))
    assert told[0] == ("sweep", 0, 98)
    assert told[-1] == ("sweep", 98, 98)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert len(told) > 10, "one step a chunk"


# ---- For people and programs -----------------------------------------------------------------


def test_the_table_has_the_best_twenty_and_says_what_is_left() -> None:
    found = tried({"lookback": [0, 9_999, *range(2, 40)]}, variants_before=2)
    lines = str(found).splitlines()
    assert lines[0] == "best of 40 variants by sharpe_annual (42 tried, 2 of them before)"
    assert lines[1].split() == [
        "lookback", "sharpe", "a", "year", "drawdown", "turnover", "trades",
    ]  # fmt: skip
    shown = [int(line.split()[0]) for line in lines[2:22]]
    assert shown == [row.parameters["lookback"] for row in found.best_first()[:20]]
    assert len({len(line) for line in lines[1:22]}) == 1, "aligned"
    assert lines[22:] == [
        "  and 18 more",
        "  1 failed; the first, lookback=0: ZeroDivisionError: no lookback",
        "  1 without a sharpe_annual",
        f"chosen: lookback={shown[0]}",
    ]


def test_another_metric_has_a_column_of_its_own() -> None:
    lines = str(tried({"lookback": [3, 4]}, metric="sortino")).splitlines()
    assert lines[1].split()[:3] == ["lookback", "sortino", "sharpe"]


def test_json_holds_every_row() -> None:
    found = tried({"lookback": [0, 9_999, 4]})
    plain = json.loads(found.to_json())
    assert set(plain) == {"metric", "tried", "chosen", "rows", "submission"}
    assert [row["error"] is None for row in plain["rows"]] == [False, True, True]
    assert plain["rows"][1]["metrics"]["sharpe_annual"] is None
    assert plain["rows"][1]["undefined"]["sharpe_annual"] == "constant"
    assert plain["chosen"] == plain["rows"][2]
    assert plain["submission"] is None


def test_a_parameter_that_json_has_not_is_told_as_python_writes_it() -> None:
    def made(lookback: Any) -> Trend:
        return Trend(4)

    values = [("a", 1), float("inf"), {3}, None, True]
    plain = json.loads(tried({"lookback": values}, strategy=made).to_json())
    told = [row["parameters"]["lookback"] for row in plain["rows"]]
    assert told == [["a", 1], "inf", "{3}", None, True]
