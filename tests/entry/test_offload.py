"""A server moves what is large to its object store by itself, and says when it cannot."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qmtl.adapters.objects import MemoryObjects, ObjectsAway
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Kept
from qmtl.core.errors import Invalid
from qmtl.core.names import Stage
from qmtl.entry import wiring
from qmtl.entry.offload import Offload
from qmtl.sim.scene import WORLD
from tests.adapters.test_offload import LONG, long
from tests.objects import BUCKET, Server
from tests.worlds import BETA

WAIT_SEC = 20.0


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SEC
    while not holds():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)


class Away(MemoryObjects):
    away = True

    def put(self, chunk: bytes) -> Kept:
        if self.away:
            raise ObjectsAway("It is away.")
        return super().put(chunk)


def test_it_waits_for_a_store_that_is_away_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = Away()
    store = SqlStore(tmp_path / "data", objects=held)
    long(store)
    with caplog.at_level(logging.WARNING, "qmtl.store"):
        offload = Offload(store, every_sec=0.01)
        until(lambda: offload.away is not None)
        time.sleep(0.1)
    said = [each.message for each in caplog.records if "object store" in each.message]
    assert len(said) == 1
    assert len(store.series(WORLD, BETA, Stage.BACKTEST).t) == LONG
    held.away = False
    until(lambda: len(held.held) == 6 and offload.away is None)
    offload.close()
    store.close()


def test_a_server_is_told_where(
    tmp_path: Path, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in s3.environment().items():
        monkeypatch.setenv(key, value)
    data = tmp_path / "data"
    store = SqlStore(data)
    long(store)
    store.close()
    settings = wiring.Settings(data=data, objects=f"s3://{BUCKET}/told")
    opened = wiring.opened(settings)
    opened.ending()
    opened.close()  # Begun is done: a batch is not left in the middle.
    opened = wiring.opened(settings)
    store = opened.app.state.services.store
    until(lambda: store.offload().parts == 0)
    assert len(store.series(WORLD, BETA, Stage.BACKTEST).t) == LONG
    opened.ending()
    opened.close()


def test_a_url_of_no_bucket_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="s3://"):
        wiring.opened(wiring.Settings(data=tmp_path / "data", objects="elsewhere"))
    SqlStore(tmp_path / "data").close()  # The folder was given back.
