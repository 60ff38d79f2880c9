"""The journal over HTTP: with its chain, with a signed head, and with the public key."""

import pytest

from qmtl.adapters import memory
from qmtl.adapters.sql import journal
from qmtl.adapters.wire import export
from qmtl.adapters.wire.verify import Chain, head_of, key_of, verify
from qmtl.core.names import Role
from tests.exports import canonical
from tests.http.harness import DAY, Harness, W, with_live, with_world

J = f"/worlds/{W}/journal"


def exported(harness: Harness) -> list[bytes]:
    """As a client does it."""
    key = harness.ok("rea", "GET", "/journal/key")
    head = harness.ok("rea", "GET", f"{J}/head")
    told, after = [], 0
    while True:
        page = harness.ok("rea", "GET", J, params={"after": after, "limit": 7})
        told += page["entries"]
        if page["next_cursor"] is None:
            return list(export.lines(head, key, told))
        after = page["entries"][-1]["seq"]
        assert page["next_cursor"] == str(after)


def test_what_is_told_can_be_verified(each_store: Harness) -> None:
    with_world(each_store)
    with_live(each_store)
    key = key_of(each_store.ok("rea", "GET", "/journal/key"))
    kept = head_of(each_store.ok("rea", "GET", f"{J}/head"))
    each_store.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "the end"})
    found = verify(exported(each_store), [kept], [key])
    assert (found.problem, found.heads, found.key_known) == (None, 1, True)
    assert found.entries == each_store.store.load(W).seq  # type: ignore[arg-type]  # A WorldId.
    assert found.entries > kept.seq


def test_pages_that_end_early_say_that_there_is_more(
    each_store: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_world(each_store)
    for module in (memory, journal):
        monkeypatch.setattr(module, "PAGE_BYTES_MAX", 2_000)
    page = each_store.ok("rea", "GET", J, params={"limit": 1000})
    size = sum(len(canonical(entry["fact"])) for entry in page["entries"])
    assert size <= 2_000 or len(page["entries"]) == 1
    assert page["next_cursor"] is not None
    assert verify(exported(each_store)).problem is None


def test_a_fact_is_told_as_it_was_written(each_store: Harness) -> None:
    with_world(each_store)
    chain = Chain(W)
    for entry in each_store.ok("rea", "GET", J, params={"limit": 1000})["entries"]:
        chain.follow(export.entry(W, entry))
        assert entry["fact"]["kind"] == entry["kind"]
    assert chain.hash == each_store.store.head(W).hash  # type: ignore[arg-type]  # A WorldId.


def test_a_world_in_which_nothing_happened_has_a_head(each_store: Harness) -> None:
    each_store.ok("admin", "POST", "/worlds", {"id": W})
    head = each_store.ok("rea", "GET", f"{J}/head")
    assert (head["seq"], head["hash"]) == (0, "0" * 64)
    found = verify(exported(each_store), [head_of(head)])
    assert (found.problem, found.entries, found.heads) == (None, 0, 1)


def test_a_head_is_signed_when_it_is_asked_for(harness: Harness) -> None:
    with_world(harness)
    first = harness.call("rea", "GET", f"{J}/head")
    harness.advance(DAY)
    again = harness.ok("rea", "GET", f"{J}/head")
    assert again["at"] > first.json()["at"]
    assert (again["seq"], again["hash"]) == (first.json()["seq"], first.json()["hash"])
    tag = {"If-None-Match": first.headers["etag"]}
    assert harness.call("rea", "GET", f"{J}/head", headers=tag).status_code == 304
    harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "x"})
    assert harness.call("rea", "GET", f"{J}/head", headers=tag).status_code == 200


def test_the_key_is_for_everybody_and_a_head_is_not(harness: Harness) -> None:
    with_world(harness)
    key = harness.call(None, "GET", "/journal/key")
    assert key.status_code == 200
    assert set(key.json()) == {"algorithm", "key_id", "public_key"}
    assert harness.call(None, "GET", f"{J}/head").status_code == 401
    assert harness.call("rea", "GET", "/worlds/nowhere/journal/head").status_code == 404
    assert harness.call("rea", "GET", "/worlds/_system/journal/head").status_code == 422
    harness.ok("admin", "POST", "/worlds", {"id": "beta"})
    harness.token("zoe", Role.ADMIN, world="beta")
    assert harness.call("zoe", "GET", f"{J}/head").status_code == 403
