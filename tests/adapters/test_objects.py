"""What every object store promises: one suite, asked of each of them."""

from datetime import timedelta
from hashlib import sha256

import pytest

from qmtl.adapters import objects
from qmtl.adapters.clock import SystemClock
from qmtl.adapters.objects import MemoryObjects, ObjectDamaged, ObjectsAway, Remembered, S3Objects
from qmtl.app.ports import Kept, Objects
from qmtl.core.errors import Invalid
from tests.objects import BUCKET, Server
from tests.postgres import free_port

CHUNK = bytes(range(256)) * 300


@pytest.fixture(params=["memory", "remembered", "s3"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Objects:
    if request.param == "memory":
        return MemoryObjects()
    if request.param == "remembered":
        return Remembered(MemoryObjects())
    return bucket(request.getfixturevalue("s3"), request.node.name, monkeypatch)


def bucket(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """A prefix of its own."""
    for key, value in server.environment().items():
        monkeypatch.setenv(key, value)
    return objects.at(f"s3://{BUCKET}/{sha256(name.encode()).hexdigest()[:9]}/")


def spoil(held: Objects, kept: Kept, chunk: bytes) -> None:
    """Other bytes under its key."""
    if isinstance(held, Remembered):
        spoil(held.of, kept, chunk)
    elif isinstance(held, MemoryObjects):
        held.held[kept.key] = chunk, held.held[kept.key][1]
    else:
        assert isinstance(held, S3Objects)
        held._store.put(kept.key, chunk)


def test_what_is_put_is_got(held: Objects) -> None:
    kept = held.put(CHUNK)
    assert (kept.digest, kept.size) == (sha256(CHUNK).hexdigest(), len(CHUNK))
    assert held.get(kept) == CHUNK


def test_each_put_has_a_key_of_its_own_and_is_deleted_alone(held: Objects) -> None:
    first, second = held.put(CHUNK), held.put(CHUNK)
    assert first.key != second.key
    assert first.digest == second.digest
    held.delete(first.key)
    assert held.get(second) == CHUNK
    with pytest.raises(ObjectDamaged, match="not there"):
        held.get(first)
    held.delete(first.key)


def test_all_are_listed_with_their_size_and_age(held: Objects) -> None:
    assert list(held.listed()) == []
    put = [held.put(CHUNK), held.put(b"x")]
    found = {each.key: each for each in held.listed()}
    assert {key: each.size for key, each in found.items()} == {k.key: k.size for k in put}
    now = SystemClock().now()
    assert all(abs(now - each.at) < timedelta(minutes=1) for each in found.values())


@pytest.mark.parametrize(
    "spoilt", [CHUNK[:-1], CHUNK + b"x", b"x" + CHUNK[1:], b""], ids=["short", "long", "bit", "no"]
)
def test_what_is_not_what_was_put_is_never_given(held: Objects, spoilt: bytes) -> None:
    kept = held.put(CHUNK)
    spoil(held, kept, spoilt)
    with pytest.raises(ObjectDamaged, match=kept.key):
        held.get(kept)
    with pytest.raises(ObjectDamaged, match=kept.key):
        held.get(Kept(kept.key, kept.digest, len(spoilt)))


def test_what_was_asked_for_last_is_at_hand_and_no_more_than_there_is_room_for() -> None:
    behind = MemoryObjects()
    held = Remembered(behind, size_max=2 * len(CHUNK))
    first, second, third = (held.put(CHUNK) for _ in range(3))
    for kept in (first, second, first, third):  # The second is the one that goes.
        held.get(kept)
    behind.held.clear()
    assert held.get(first) == held.get(third) == CHUNK
    with pytest.raises(ObjectDamaged):
        held.get(second)
    held.delete(first.key)
    with pytest.raises(ObjectDamaged):
        held.get(first)
    with pytest.raises(ObjectDamaged, match=third.key):
        held.get(Kept(third.key, first.digest, 1))


def test_a_store_that_is_away_says_so_and_nobody_queues_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = bucket(Server(port=free_port()), "away", monkeypatch)
    assert isinstance(away, S3Objects)
    kept = Kept("k", sha256(b"").hexdigest(), 0)
    with pytest.raises(ObjectsAway) as first:
        away.put(CHUNK)
    assert "moment ago" not in str(first.value)
    for ask in (lambda: away.get(kept), lambda: away.put(b"x"), lambda: list(away.listed())):
        with pytest.raises(ObjectsAway, match="moment ago"):
            ask()
    away._asked_again_at = 0.0
    with pytest.raises(ObjectsAway) as later:
        away.delete("k")
    assert "moment ago" not in str(later.value)


def test_a_bucket_that_is_not_there_is_a_store_that_is_away(
    s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket(s3, "x", monkeypatch)
    other = objects.at("s3://nobody-made-it/x")
    with pytest.raises(ObjectsAway):
        other.put(CHUNK)


@pytest.mark.parametrize("url", ["", "s3:bucket", "s3://", "file:///tmp", "https://a/b"])
def test_a_url_that_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="s3://bucket/prefix"):
        objects.at(url)
