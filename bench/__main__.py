"""`make bench`: what we cost, beside what the same work costs bare, in the same minute.

A floor is the least that does the durable part of the work: the body parsed and written with one
commit by bare sqlite3, or the same reduction in bare numpy. Ours is the whole path in process: the
door's parsing and validation, the decision, journal, tables and a commit with a full flush.
"""

import platform
from collections.abc import Sequence
from datetime import timedelta
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import polars as pl

from bench import evidence, gate, load, pages, postgres, sdk, size
from bench.floors import BareStore, Figure, paired, reduction
from bench.load import body
from bench.worlds import BEGAN, WORLD, by, evaluate, post, world
from qmtl.adapters.sql.store import SqlStore
from qmtl.app import evaluations
from qmtl.core.names import Stage, StrategyId
from qmtl.demo import us_large_caps
from qmtl.sdk.engine import Engine
from qmtl.sdk.frames import KINDS, Kind, given
from qmtl.sdk.strategy import weights_of


def snapshots(folder: Path) -> Figure:
    store, bare = world(folder / "ours", 400), BareStore(folder / "bare.db")
    bodies = [
        body([f"s{20 * n + i}" for i in range(20)], BEGAN - timedelta(days=300), 252, n)
        for n in range(20)
    ]
    figure = paired(
        "snapshot, 20 series x 252, durable",
        lambda n: bare.write(bodies[n]),
        lambda n: post(store, bodies[n], Stage.PAPER),
        "<= 4",
    )
    store.close()
    bare.close()
    return figure


def evaluates(folder: Path) -> Figure:
    """New evidence each time, so that each writes a run. The floor writes as many bytes."""
    store, bare = world(folder / "ours", 30), BareStore(folder / "bare.db")
    names = [f"s{i}" for i in range(30)]
    post(store, body(names, BEGAN - timedelta(days=300), 252, 0), Stage.SHADOW)
    chance = np.random.default_rng(1)
    returns = chance.normal(0.001, 0.01, 252)
    written = orjson.dumps({"metrics": dict.fromkeys(map(str, range(200)), 0.123456)})

    def floor(_: int) -> None:
        reduction(returns)
        bare.write(written)

    figure = paired(
        "evaluate from the hub, 252 observations",
        floor,
        lambda n: evaluate(store, names[n], BEGAN),
        "<= 6",
    )
    store.close()
    bare.close()
    return figure


def evaluates_late(folder: Path, runs: int = 10_000) -> Figure:
    """Evaluations of a world with 10 runs, beside those of one with 10,000."""
    few, many = world(folder / "few", 30), world(folder / "many", 30)
    names = [f"s{i}" for i in range(30)]
    for store in (few, many):
        post(store, body(names, BEGAN - timedelta(days=300), 252, 0), Stage.SHADOW)
    run_ids = [evaluations.RunId(f"r{n}") for n in range(runs)]

    def fill(store: SqlStore, count: int) -> None:
        for start in range(0, count, 500):
            chosen = run_ids[start : start + 500]

            def job(chosen: Sequence[evaluations.RunId] = chosen) -> None:
                for number, run_id in enumerate(chosen):
                    request = evaluations.Request(
                        strategy_id=StrategyId(names[number % 30]),
                        stage=Stage.SHADOW,
                        run_id=run_id,
                    )
                    evaluations.evaluate(store, WORLD, by(BEGAN), request)

            store.write(job)

    fill(few, 10)
    fill(many, runs)
    figure = paired(
        f"evaluate after {runs:,} runs, to after 10",
        lambda n: evaluate(few, names[n], BEGAN),
        lambda n: evaluate(many, names[n], BEGAN),
        "about 1",
    )
    few.close()
    many.close()
    return figure


def cohort(folder: Path, strategies: int = 1_000) -> Figure:
    """All judged as one, a new run each time; the floor reduces them one by one."""
    store, names = world(folder, strategies), [f"s{n}" for n in range(strategies)]
    for start in range(0, strategies, 100):
        first = BEGAN - timedelta(days=300)
        post(store, body(names[start : start + 100], first, 252, start), Stage.SHADOW)
    returns = np.random.default_rng(1).normal(0.001, 0.01, (strategies, 252))

    def judged(number: int) -> None:
        request = evaluations.CohortRequest(
            campaign_id="bench",
            strategies=tuple(map(StrategyId, names)),
            stage=Stage.SHADOW,
            run_id=evaluations.RunId(f"r{number}"),
        )
        evaluations.evaluate_cohort(store, WORLD, by(BEGAN), request)

    figure = paired(
        f"cohort of {strategies:,} x 252, durable",
        lambda _: [reduction(each) for each in returns],
        judged,
        "25 ms",
        rounds=5,
    )
    store.close()
    return figure


class Halves:
    """Holds half of everything: a strategy that costs next to nothing, in whatever it is given."""

    def __init__(self, frame: str) -> None:
        self.frame = frame

    def weights(self, prices: Any) -> Any:
        if self.frame == "polars":
            return prices.with_columns(pl.all().exclude("time") * 0 + 0.025)
        return prices * 0 + 0.025


def engine(frame: Kind) -> Figure:
    """From prices to a backtest; the floor is the strategy's own time."""
    prices, strategy = us_large_caps(), Halves(frame)
    shown = given(prices, frame)
    return paired(
        f"engine, 20 assets x 8,313 bars, {frame}",
        lambda _: strategy.weights(shown),
        lambda _: Engine().backtest(weights_of(strategy, prices), prices),
        "ours < floor + 50 ms",
    )


def main() -> None:
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}\n")
    print(f"{'':<44}{'floor ms':>10}{'ours ms':>10}{'ratio':>9}  (range)")
    for bench in (snapshots, evaluates, evaluates_late, cohort):
        with TemporaryDirectory() as folder:
            print(bench(Path(folder)).row(), flush=True)
    for kind in KINDS:
        print(engine(kind).row(), flush=True)
    print(evidence.rows(), flush=True)
    print(sdk.rows(), flush=True)
    with TemporaryDirectory() as folder:
        print(gate.rows(Path(folder)), flush=True)
    for row in size.rows():
        print(row, flush=True)
    print("\nOver HTTP:\n", flush=True)
    for row in chain(load.rows(), postgres.rows()):
        print(row, flush=True)
    print("\nPages:\n", flush=True)
    for row in pages.rows():
        print(row, flush=True)


if __name__ == "__main__":
    main()
