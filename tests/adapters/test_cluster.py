"""A Dask cluster is one more place: the same answers, whoever of it dies on the way."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from typer.testing import CliRunner

from qmtl.adapters import cluster, workers
from qmtl.adapters.workers import HERE, WorkersError, at, computed
from qmtl.entry.cli import app
from qmtl.sdk.engine import Engine
from qmtl.sdk.runner import Runner
from qmtl.sdk.strategy import StrategyError
from tests.dask_cluster import PATH, Cluster, serving
from tests.sdk.swept import Trend
from tests.sdk.test_sweep import walk

from . import pieces

DEADLINE_SEC = 30.0
SCRIPT = """
import sys
from distributed import Client
from qmtl.adapters.workers import computed

def doubled(number):
    return 2 * number

if __name__ == "__main__":
    with Client(sys.argv[1]) as client:
        print(computed(doubled, range(4), client.get_executor()))
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with serving(2) as found:
        yield found


@pytest.fixture
def client(running: Cluster) -> Iterator[Client]:
    """Of a cluster with two workers, whatever became of others before."""
    running.workers = [each for each in running.workers if each.poll() is None]
    while len(running.workers) < 2:
        running.add_worker()
    with Client(f"tcp://{running.address}", timeout=DEADLINE_SEC, set_as_default=False) as found:
        found.wait_for_workers(2, timeout=DEADLINE_SEC)
        yield found


@pytest.fixture
def dask(client: Client) -> Executor:
    found: Executor = client.get_executor()
    return found


def wait_until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_SEC
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- The same there ----------------------------------------------------------------------------


def test_answers_are_the_same_on_a_cluster(dask: Executor) -> None:
    ended: list[int] = []
    there = computed(pieces.drawn, range(9), dask, finished=ended.append)
    assert there == computed(pieces.drawn, range(9), HERE)
    assert sorted(ended) == list(range(9))
    with pytest.raises(ZeroDivisionError, match="the third"):
        computed(pieces.failing, range(6), dask)


def test_few_pieces_are_spread_over_the_workers(client: Client, dask: Executor) -> None:
    computed(pieces.drawn, range(9), dask)  # They are quick, and Dask expects the like.
    wait_until(lambda: not client.who_has())  # Of many it would think otherwise.
    done = Counter(computed(pieces.slow, range(4), dask))
    assert sorted(done.values()) == [2, 2]


def test_a_sweep_is_the_same_on_a_cluster(dask: Executor) -> None:
    given: dict[str, Any] = {"world": "us", "prices": walk(), "engine": Engine(cost_bps=1.0)}
    grid = {"lookback": [0, *range(2, 30)], "share": [0.25, 0.5]}
    there, here = (
        Runner.sweep(Trend, grid, executor=where, submit=False, **given) for where in (dask, HERE)
    )
    assert there.rows == here.rows


def test_a_policy_is_tried_on_a_cluster(client: Client, running: Cluster) -> None:
    asked = ["policy", "simulate", "sandbox", "--worlds", "3", "--days", "25", "--json"]
    asked += ["--strategies", "11", "--executor"]
    there = CliRunner().invoke(app, [*asked, f"dask://{running.address}"])
    assert (there.exit_code, there.stderr) == (0, "")
    assert there.stdout == CliRunner().invoke(app, [*asked, "inline"]).stdout
    assert json.loads(there.stdout)["worlds"] == 3


def test_what_a_script_has_itself_goes_with_it(
    client: Client, running: Cluster, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), f"tcp://{running.address}"],
        env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SEC,
    )
    assert done.stdout == "[0, 2, 4, 6]\n", done.stderr


# ---- Deaths ------------------------------------------------------------------------------------


def test_what_a_killed_worker_had_is_computed_by_the_other(
    dask: Executor, running: Cluster, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(number: int) -> None:
        if not killed and len(list(tmp_path.iterdir())) == 2:
            running.workers[0].kill()
            killed.append(number)

    found = computed(partial(pieces.busy, tmp_path), range(20), dask, finished=kill)
    assert killed, "on the way"
    assert found == [pieces.drawn(number) for number in range(20)]
    ids = {int(each.name) for each in tmp_path.iterdir()}
    assert ids == {worker.pid for worker in running.workers}, "both had some of it"


def test_a_piece_that_ends_its_workers_ends_in_words(dask: Executor) -> None:
    with pytest.raises(WorkersError, match="a piece ended each of the 2 workers that took it"):
        computed(pieces.deadly, range(6), dask)


def test_a_cluster_whose_workers_are_gone_is_not_waited_for(
    dask: Executor, running: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LOOK_SEC", 0.1)
    monkeypatch.setattr(cluster, "ALONE_SEC", 0.3)
    once_busy(tmp_path, lambda: [worker.kill() for worker in running.workers])
    with pytest.raises(WorkersError, match="has had no worker for 0 s: they died"):
        computed(partial(pieces.endless, tmp_path), range(6), dask)


def test_a_cluster_that_goes_away_is_no_answer(tmp_path: Path) -> None:
    with serving(1) as other, at(f"dask://{other.address}") as dask:
        assert other.scheduler is not None
        once_busy(tmp_path, other.scheduler.kill)
        with pytest.raises(WorkersError, match="the Dask cluster went away"):
            computed(partial(pieces.endless, tmp_path), range(6), dask)


def once_busy(folder: Path, then: Callable[[], Any]) -> None:
    """Meanwhile: as soon as a piece has begun."""

    def watch() -> None:
        wait_until(lambda: any(folder.iterdir()))
        then()

    threading.Thread(target=watch, daemon=True).start()


def test_who_stops_leaves_the_cluster_nothing_to_do(
    client: Client, dask: Executor, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    def stop(number: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        computed(partial(pieces.busy, tmp_path), range(300), dask, finished=stop)
    wait_until(lambda: not any(client.processing().values()))


# ---- What is not there -------------------------------------------------------------------------


def test_what_workers_cannot_import_is_said(
    dask: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def doubled(number): return 2 * number\n")
    monkeypatch.syspath_prepend(tmp_path)
    doubled = import_module("only_here").doubled
    with pytest.raises(WorkersError, match=r"No module named 'only_here'.*install that there"):
        computed(doubled, range(3), dask)


def test_without_dask_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, cluster.__name__)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(WorkersError, match=r"pip install 'qmtl\[dask\]'"), at("dask://127.0.0.1:9"):
        raise AssertionError("it was there")


def test_a_strategy_that_is_another_there_is_said(
    dask: Executor, running: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from tests.sdk.swept import Trend\nclass Mine(Trend):\n    fast = {}\n"
    (tmp_path / "only_there.py").write_text(source.format(3))
    (running.home / "only_there.py").write_text(source.format(4))
    monkeypatch.syspath_prepend(tmp_path)
    mine = import_module("only_there").Mine
    given: dict[str, Any] = {"world": "us", "prices": walk(), "submit": False, "executor": dask}
    with pytest.raises(StrategyError, match="a worker has other code of Mine: "):
        Runner.sweep(mine, {"lookback": [3, 4]}, **given)


def test_nobody_at_an_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SEC", 0.5)
    told = CliRunner().invoke(
        app, ["policy", "simulate", "sandbox", "--executor", "dask://127.0.0.1:9"]
    )
    assert told.exit_code == 1
    assert "error: no Dask scheduler answers at 127.0.0.1:9" in told.stderr
    assert "`dask scheduler`" in told.stderr


def test_a_scheduler_without_workers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(0) as empty:
        with Client(f"tcp://{empty.address}", timeout=DEADLINE_SEC, set_as_default=False):
            monkeypatch.setattr(cluster, "ANSWER_SEC", 1.0)
        says = r"has no worker: start some with `dask worker tcp"
        with pytest.raises(WorkersError, match=says), at(f"dask://{empty.address}"):
            raise AssertionError("there was one")
