"""`app.ports.Objects`: chunks in an S3-compatible store, or in this process for tests.

A key is the digest and what no other `put` has: who writes the same bytes again writes another
object.  So an object that no commit names can be deleted, and none that a commit names ever is.
"""

import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Final

from qmtl.app.ports import Kept, Listed, Objects
from qmtl.core.errors import Invalid

from .clock import SystemClock
from .sql.errors import StoreAway, StoreDamaged

if TYPE_CHECKING:
    from obstore.store import S3Store

SCHEME: Final = "s3://"
CONNECT: Final = timedelta(seconds=2)
REQUEST: Final = timedelta(seconds=10)  # 16 MiB at 2 MB/s; the one writer may wait for it.
REMEMBERED_BYTES: Final = 64 << 20  # A thousand parts of series.
RESTS_SEC: Final = 5.0  # After it did not answer it is not asked: nobody queues behind a timeout.


class ObjectsAway(StoreAway):
    """The object store cannot be reached now.  Ask again: done twice is done once."""


class ObjectDamaged(StoreDamaged):
    """What the object store gave is not what was put there.  Restore the object from a copy."""


def here() -> Objects | None:
    """That of QMTL_OBJECTS_URL; None when it is not set.  Raises Invalid."""
    url = os.environ.get("QMTL_OBJECTS_URL")
    return at(url) if url else None


def at(url: str) -> Objects:
    """The store of s3://bucket/prefix; endpoint, region and keys are the usual AWS_ variables.

    Nothing is asked of it yet.  Raises Invalid.
    """
    bucket = url.removeprefix(SCHEME).split("/")[0]
    if not url.startswith(SCHEME) or not bucket:
        raise Invalid(f"The object store's URL is {SCHEME}bucket/prefix.")
    try:
        from obstore.store import S3Store
    except ImportError:
        raise Invalid("An object store needs its client: pip install qmtl[s3].") from None
    store = S3Store.from_url(
        url.rstrip("/"),
        client_options={
            "allow_http": True,  # Whether it is HTTPS the endpoint's URL says.
            "connect_timeout": CONNECT,
            "timeout": REQUEST,
        },
        retry_config={"max_retries": 1},
    )
    return S3Objects(store)


def named(digest: str) -> str:
    """A key that was never used, in a folder of its own for each 256th."""
    return f"{digest[:2]}/{digest}-{secrets.token_hex(8)}"


def checked(kept: Kept, chunk: bytes) -> bytes:
    """INVARIANT: what is not what was put is never given out.  Raises ObjectDamaged."""
    if len(chunk) != kept.size or sha256(chunk).hexdigest() != kept.digest:
        raise ObjectDamaged(f"Object {kept.key}: {len(chunk)} bytes, not those of its digest.")
    return chunk


@dataclass
class S3Objects:
    """Objects in a bucket."""

    _store: "S3Store"
    _asked_again_at: float = 0.0  # By the monotonic clock; no sooner.

    def put(self, chunk: bytes) -> Kept:
        digest = sha256(chunk).hexdigest()
        kept = Kept(named(digest), digest, len(chunk))
        with self._asking():
            self._store.put(kept.key, chunk, use_multipart=False)
        return kept

    def get(self, kept: Kept) -> bytes:
        with self._asking():
            try:
                chunk = bytes(self._store.get(kept.key).bytes())
            except FileNotFoundError:
                raise ObjectDamaged(f"Object {kept.key} is not there.") from None
        return checked(kept, chunk)

    def delete(self, key: str) -> None:
        with self._asking():
            self._store.delete(key)  # S3 says nothing of one that is not there.

    def listed(self) -> Iterator[Listed]:
        with self._asking():
            for page in self._store.list():
                for each in page:
                    yield Listed(each["path"], each["size"], each["last_modified"])

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        if time.monotonic() < self._asked_again_at:
            raise ObjectsAway("It did not answer a moment ago.")
        try:
            yield
        except (BaseError, FileNotFoundError) as error:  # The bucket is not there.
            self._asked_again_at = time.monotonic() + RESTS_SEC
            raise ObjectsAway(str(error).splitlines()[0]) from error


@dataclass
class Remembered:
    """Objects of another store, those asked for last kept at hand: they never change."""

    of: Objects
    size_max: int = REMEMBERED_BYTES
    _held: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _size: int = 0
    _lock: Lock = field(default_factory=Lock)

    def put(self, chunk: bytes) -> Kept:
        return self.of.put(chunk)  # Not remembered: who reads it back wants to see it there.

    def at_hand(self, kept: Kept) -> bytes | None:
        """Without asking the other store."""
        with self._lock:
            if kept.key not in self._held:
                return None
            self._held.move_to_end(kept.key)
            return checked(kept, self._held[kept.key])

    def get(self, kept: Kept) -> bytes:
        chunk = self.at_hand(kept)
        if chunk is not None:
            return chunk
        chunk = self.of.get(kept)
        with self._lock:
            if kept.key not in self._held:
                self._held[kept.key] = chunk
                self._size += len(chunk)
            while self._size > self.size_max:
                self._size -= len(self._held.popitem(last=False)[1])
        return chunk

    def delete(self, key: str) -> None:
        with self._lock:
            self._size -= len(self._held.pop(key, b""))
        self.of.delete(key)

    def listed(self) -> Iterator[Listed]:
        return self.of.listed()


@dataclass
class MemoryObjects:
    """Objects in this process, and gone with it."""

    held: dict[str, tuple[bytes, datetime]] = field(default_factory=dict)

    def put(self, chunk: bytes) -> Kept:
        digest = sha256(chunk).hexdigest()
        kept = Kept(named(digest), digest, len(chunk))
        self.held[kept.key] = chunk, SystemClock().now()
        return kept

    def get(self, kept: Kept) -> bytes:
        if kept.key not in self.held:
            raise ObjectDamaged(f"Object {kept.key} is not there.")
        return checked(kept, self.held[kept.key][0])

    def delete(self, key: str) -> None:
        self.held.pop(key, None)

    def listed(self) -> Iterator[Listed]:
        for key, (chunk, at) in list(self.held.items()):
            yield Listed(key, len(chunk), at)
