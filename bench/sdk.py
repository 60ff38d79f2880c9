"""What an author waits for: a sweep on all cores, and the first word of the program."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

from bench.floors import paired
from qmtl.demo import us_large_caps
from qmtl.demo.strategies import TargetedMomentum
from qmtl.sdk.runner import Runner

GRID = {"volatility_annual": tuple(n / 100 for n in range(5, 15)), "window": range(20, 220, 10)}
ONE = {"window": (60,)}
SWEEPS = 5  # Of each; a sweep takes seconds.
CORES = len(os.sched_getaffinity(0))
AIM = f"<= {1 / CORES + 0.25:.2f}"  # All cores, and a start.


def rows() -> str:
    """One figure a line."""
    figures = (
        paired(f"sweep of 200 on {CORES} cores, to one process", alone, together, AIM, SWEEPS),
        paired("sweep of 1, to python -c pass", nothing, start, "ours < 500 ms", SWEEPS),
        paired("import qmtl, to python -c pass", nothing, imported, "ours < 150 ms"),
        paired("qmtl --help, to python -c pass", nothing, helped, "ours < 250 ms"),
    )
    return "\n".join(figure.row() for figure in figures)


class Here(Executor):
    """The same work, in this process."""

    def submit(self, call: Callable[..., Any], /, *given: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*given, **options))
        return future


def swept(grid: dict[str, Iterable[float]], executor: Executor | None = None) -> None:
    prices = us_large_caps()
    Runner.sweep(
        TargetedMomentum, grid, world="bench", prices=prices, executor=executor, submit=False
    )


def alone(_: int) -> None:
    swept(GRID, Here())


def together(_: int) -> None:
    swept(GRID)


def start(_: int) -> None:
    """What it takes for workers to be there."""
    swept(ONE)


def nothing(_: int) -> None:
    run("-c", "pass")


def imported(_: int) -> None:
    run("-c", "import qmtl")


def helped(_: int) -> None:
    run("-m", "qmtl", "--help")


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
