"""Says how much was tried, once the tests are through."""

from collections import Counter
from collections.abc import Callable

import pytest

TRIED = "qmtl power"
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
    for what, number in sorted(counts.items()):
        terminalreporter.write_line(f"power: {number:>7} {what}")
