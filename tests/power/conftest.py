"""Says how much was tried, once the tests are through."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

TRIED = "qmtl power"
WIDTH = 46  # Of the first column of what is printed.
Tried = Callable[[str, int], None]


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Tried:
    """Counts what a test tries, by what it is."""
    counts: dict[str, int] = {}
    request.node.user_properties.append((TRIED, counts))

    def count(what: str, number: int) -> None:
        counts[what] = counts.get(what, 0) + number

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, found in report.user_properties:
                if name == TRIED:
                    counts.update(found)
    for line in table(counts):
        terminalreporter.write_line(line)


def table(counts: Mapping[str, int]) -> Iterator[str]:
    """What was tried; and of errors, which are named `way: outcome`, how each way ended."""
    ways = sorted({what.partition(": ")[0] for what in counts if ": " in what})
    outcomes = sorted({what.partition(": ")[2] for what in counts if ": " in what})
    yield from (
        f"{what:<{WIDTH}}{number:>12,}" for what, number in counts.items() if ": " not in what
    )
    if ways:
        yield f"{'disk errors, by how they end':<{WIDTH}}" + "".join(f"{w:>12}" for w in ways)
    for outcome in outcomes:
        cells = (f"{counts.get(f'{way}: {outcome}', 0):>12,}" for way in ways)
        yield f"  {outcome:<{WIDTH - 2}}" + "".join(cells)
