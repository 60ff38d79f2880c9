"""What is remembered is forgotten before each test: else a broken function is not asked at all."""

import pytest

from qmtl.core.evidence import power


@pytest.fixture(autouse=True)
def forgetful() -> None:
    for remembers in (power.blocks_until, power.bars_until, power.drawdowns):
        remembers.cache_clear()
