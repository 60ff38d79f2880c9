"""Signing out is kept, in whatever the server keeps things in."""

from datetime import timedelta

from qmtl.adapters.sealing import Seal
from qmtl.entry.sessions import Sessions, is_over
from tests.http.harness import Harness


def test_a_session_is_over_for_every_server_of_the_store(each_store: Harness) -> None:
    store, seal = each_store.store, Seal.new()
    sessions, elsewhere = Sessions(seal), Sessions(seal)
    mine, other = sessions.begin("d" * 64), sessions.begin("d" * 64)
    for _ in range(2):  # An impatient hand.
        sessions.end(store, mine, each_store.now)
    sessions.end(store, "nobody's", each_store.now)
    each_store.advance(timedelta(days=6))
    sessions.end(store, sessions.begin("e" * 64), each_store.now)  # Which forgets what is old.
    found = [elsewhere.of(mine), elsewhere.of(other)]
    assert [session is not None and is_over(store, session) for session in found] == [True, False]
