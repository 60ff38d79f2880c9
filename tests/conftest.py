"""No test depends on what the shell of whoever runs it exports."""

import os
from collections.abc import Iterator

import pytest

PREFIX = "QMTL_"  # Of every variable that the program reads.


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_shell() -> Iterator[None]:
    """How much a campaign does (QMTL_POWER and the like) is read before: at import."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        yield
