"""`python -m bench.soak` (`make soak`): is anything lost, and does anything grow?

PostgreSQL, NATS, two servers that share both, two campaign loops, and everybody who works on up to
four worlds; days of returns, while servers, loops, the bus and the database are killed with SIGKILL
(the database with an immediate shutdown) and started again, as drawn from the seed.  The exit code
is 1 when anything was lost, wrong, or grew.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.soak import report
from bench.soak.run import Settings, Tell, soak

WIDTH = 120
LINES = 20  # Of progress, where there is no terminal to draw a bar on.


def main() -> int:
    given = _asked()
    settings = Settings(given.strategies, given.days, given.seed, given.kills, given.minutes)
    print(f"seed {settings.seed}", file=sys.stderr, flush=True)
    with TemporaryDirectory(prefix="qmtl-soak-") as made, _progress() as tell:
        folder = given.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        found = soak(settings, folder, tell)
    if given.json:
        print(json.dumps(report.document(found), indent=2))
    else:
        report.show(found, Console(width=WIDTH if not sys.stdout.isatty() else None))
    return 0 if found.ok else 1


def _asked() -> argparse.Namespace:
    defaults = Settings()
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--strategies", type=_some, default=defaults.strategies)
    asked.add_argument("--days", type=_some, default=defaults.days)
    asked.add_argument("--seed", type=int, default=defaults.seed)
    asked.add_argument("--kills", type=_none_or_some, default=defaults.kills)
    asked.add_argument(
        "--minutes", type=float, default=defaults.minutes, help="stop trading then, and check"
    )
    asked.add_argument("--keep", type=Path, help="a folder for the logs, kept")
    asked.add_argument("--json", action="store_true")
    return asked.parse_args()


def _some(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _none_or_some(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


@contextmanager
def _progress() -> Iterator[Tell]:
    """On stderr: a bar on a terminal, elsewhere a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line
        return
    columns = TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        tasks = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield tell


def _line(what: str, done: int, total: int) -> None:
    if done % max(total // LINES, 1) == 0 or done == total:
        print(f"{what} {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
