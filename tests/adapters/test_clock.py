"""Clocks: one that goes by itself, one that only goes where it is set."""

from datetime import UTC, timedelta

import pytest

from qmtl.adapters.clock import LATEST, ReplayClock, SystemClock
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Store
from qmtl.core import facts as f
from qmtl.core.errors import Conflict, Invalid

from .conftest import Reopened
from .histories import START
from .test_store import write

HOUR = timedelta(hours=1)
Kept = MemoryStore | SqlStore


def test_the_system_clock_is_in_utc_and_goes_forward() -> None:
    clock = SystemClock()
    first = clock.now()
    assert first.tzinfo is UTC
    assert clock.now() >= first


def test_a_replay_clock_shows_what_it_was_set_to(store: Kept) -> None:
    clock = ReplayClock(store, START)
    assert clock.now() == START
    clock.set(START + HOUR)
    assert clock.now() == START + HOUR
    clock.set(START + HOUR)


def test_a_replay_clock_is_never_set_back(store: Kept) -> None:
    clock = ReplayClock(store, START)
    with pytest.raises(Conflict, match="only goes forward"):
        clock.set(START - HOUR)
    assert clock.now() == START
    assert store.last_instant() == START


def test_a_slip_of_the_keyboard_is_not_for_ever(store: Kept) -> None:
    clock = ReplayClock(store, START)
    with pytest.raises(Invalid):
        clock.set(LATEST + timedelta(microseconds=1))
    assert clock.now() == START


def test_a_replay_clock_starts_no_earlier_than_what_was_recorded(store: Kept) -> None:
    recorded: Store = store
    write(recorded, f.Killed(reason="x"), minute=90)
    write(recorded, f.Resumed(reason="y"), minute=60)
    assert ReplayClock(store, START).now() == START + 1.5 * HOUR
    assert ReplayClock(store, START + 2 * HOUR).now() == START + 2 * HOUR


def test_a_replay_clock_goes_on_where_it_was(sql: SqlStore, reopened: Reopened) -> None:
    ReplayClock(sql, START).set(START + HOUR)
    assert ReplayClock(reopened(sql), START).now() == START + HOUR
