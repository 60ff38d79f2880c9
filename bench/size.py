"""What a world costs as it grows: a tick, a start, memory and disk.

`make bench` looks at 10,000 strategies with one run each. `python -m bench.size --strategies 100000
--runs 10` looks at a million runs, and takes a quarter of an hour to make them.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from bench.floors import Figure, paired
from bench.load import READY, body
from bench.worlds import BEGAN, WORLD, by, post, world
from qmtl.adapters.sql.store import SqlStore
from qmtl.app import campaigns, evaluations
from qmtl.core.names import RunId, Stage, StrategyId

BARS = 20
AT_ONCE = 1_000  # Strategies of a snapshot, of a cohort, and of a page of actions.
STARTS = 5
LIBRARIES = "import fastapi, numpy, sqlalchemy, uvicorn"


def tick(folder: Path, strategies: int) -> Figure:
    """A page of 1,000 actions, of a world where everyone is due; the floor is a few columns."""
    store = world(folder, strategies)
    for number, names in enumerate(parts(strategies)):
        post(store, body(names, BEGAN - timedelta(days=3), 2, number), Stage.BACKTEST)
    chance = np.random.default_rng(1)
    phase, judged, told = (chance.integers(0, 4, strategies) for _ in range(3))
    names = [f"s{number}" for number in range(strategies)]

    def bare(_: int) -> list[dict[str, object]]:
        due = np.flatnonzero((phase >= 0) & (judged + told >= 0))[:AT_ONCE]
        return [{"action": "evaluate", "strategy_id": names[row], "row": row} for row in due]

    figure = paired(
        f"tick, {strategies:,} strategies, 1,000 actions",
        bare,
        lambda _: campaigns.tick(store, WORLD, BEGAN),
        "<= 3.3",
    )
    store.close()
    return figure


def parts(strategies: int) -> Iterator[list[str]]:
    """Their names, so many at once."""
    for start in range(0, strategies, AT_ONCE):
        yield [f"s{number}" for number in range(start, min(start + AT_ONCE, strategies))]


def judged(folder: Path, strategies: int, runs: int) -> float:
    """A world of so many strategies with so many runs each; how many bytes a run takes on disk."""
    store = world(folder, strategies)
    for number, names in enumerate(parts(strategies)):
        post(store, body(names, BEGAN - timedelta(days=BARS + 1), BARS, number), Stage.SHADOW)
    store.close()
    before, store = on_disk(folder), SqlStore(folder)
    for run in range(runs):
        for names in parts(strategies):
            request = evaluations.CohortRequest(
                campaign_id="bench",
                strategies=tuple(map(StrategyId, names)),
                stage=Stage.SHADOW,
                run_id=RunId(f"r{run}"),
            )
            evaluations.evaluate_cohort(store, WORLD, by(BEGAN), request)
    store.close()
    return (on_disk(folder) - before) / (strategies * runs)


def on_disk(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.iterdir() if each.is_file())


def bar(folder: Path, strategies: int = 20, bars: int = 500) -> float:
    """How many bytes a bar takes on disk, of each strategy: journal, tables and all."""
    store = world(folder, strategies)
    names = [f"s{number}" for number in range(strategies)]
    store.close()
    before, store = on_disk(folder), SqlStore(folder)
    for number in range(bars):
        at = BEGAN - timedelta(days=bars - number)
        post(store, body(names, at, 1, number), Stage.PAPER)
    store.close()
    return (on_disk(folder) - before) / bars


# ---- A server on it ----------------------------------------------------------------------------


@contextmanager
def serving(data: Path) -> Iterator[tuple[str, int]]:
    """A real server on a data folder: its address and process id.  In the end it is killed."""
    command = [sys.executable, "-m", "qmtl", "serve", "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = next(line.split()[-1] for line in process.stdout if READY in line)
        yield url, process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def asked(url: str, data: Path, path: str) -> httpx.Response:
    token = (data / "admin.token").read_text().strip()
    answer = httpx.get(f"{url}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def started(name: str, data: Path, path: str, aim: str) -> Figure:
    """From exec to the first 200; the floor imports what a server stands on, and ends.

    Each start is after a SIGKILL of the one before.
    """

    def serve(_: int) -> None:
        with serving(data) as (url, _pid):
            asked(url, data, path)

    def libraries(_: int) -> None:
        subprocess.run([sys.executable, "-c", LIBRARIES], check=True)

    return paired(name, libraries, serve, aim, rounds=STARTS)


def resident(data: Path, path: str) -> float:
    """Of a server that has read its world, in bytes."""
    with serving(data) as (url, pid):
        asked(url, data, path)
        status = Path(f"/proc/{pid}/status").read_text()
    return float(status.split("VmRSS:")[1].split()[0]) * 1024


def rows(strategies: int = 10_000, runs: int = 1) -> Iterator[str]:
    with TemporaryDirectory() as made:
        folder = Path(made)
        for size in (1_000, 10_000, 100_000):
            if size <= strategies:
                yield tick(folder / f"tick{size}", size).row()
        empty, large = folder / "empty", folder / "large"
        yield started("start to first 200, empty", empty, "/worlds", "ours <= 350 ms").row()
        run_bytes = judged(large, strategies, runs)
        decide = f"/worlds/{WORLD}/decide?strategy_id=s0"
        name = f"start to first 200, {strategies:,} with {strategies * runs:,} runs"
        yield started(name, large, decide, "ours <= 1,500 ms").row()
        idle, full = resident(empty, "/worlds"), resident(large, decide)
        yield told("resident, idle", idle / 2**20, "MB", "<= 80 MB")
        each = (full - idle) / strategies
        yield told(f"resident, each of {strategies:,} strategies", each, "B", "<= 1,024 B")
        yield told("on disk, a run", run_bytes, "B", "<= 1,536 B")
        yield told("on disk, a bar of 20 strategies", bar(folder / "bars"), "B", "<= 1,024 B")


def told(name: str, value: float, unit: str, aim: str) -> str:
    return f"{name:<44}{value:>17,.0f} {unit:<12}aim {aim}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=1, help="of each strategy")
    given = parser.parse_args()
    print(f"{'':<44}{'floor ms':>10}{'ours ms':>10}{'ratio':>9}  (range)")
    for row in rows(given.strategies, given.runs):
        print(row, flush=True)


if __name__ == "__main__":
    main()
