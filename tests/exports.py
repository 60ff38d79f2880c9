"""Journals as they go over the wire, and exports of them: whole, and tampered with.

The chain is made here a second time, from docs/journal.md, so that a test can write a journal that
was edited by somebody who knows how.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from qmtl.adapters.signing import JournalKey
from qmtl.adapters.wire import answers, export
from qmtl.app.ports import Head, Store
from qmtl.core.names import WorldId

Told = list[dict[str, Any]]
KEY = JournalKey.new()
AT = datetime(2024, 2, 1, 21, 0, 0, 250_000, tzinfo=UTC)
GENESIS = "0" * 64


def told_of(store: Store, world_id: WorldId) -> Told:
    """Every entry, as a client reads it."""
    entries = [answers.chained(entry) for entry in store.chained(world_id, 0, 100_000)]
    return [dict(json.loads(json.dumps(entry))) for entry in entries]


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def chained(told: Iterable[dict[str, Any]], world: str) -> Told:
    """The same entries, numbered and hashed anew: what who edits one has to do to all of them."""
    found: Told = []
    for seq, entry in enumerate(told, 1):
        previous = found[-1]["hash"] if found else GENESIS
        digest = sha256(canonical(entry["fact"])).hexdigest()
        names = ("stream", "generation", "at", "actor", "kind")
        header = {"world_id": world, "seq": seq, "body_digest": digest}
        header |= {name: entry[name] for name in names}
        hashed = sha256(previous.encode() + canonical(header)).hexdigest()
        changed = {"seq": seq, "body_digest": digest, "previous": previous, "hash": hashed}
        found.append({**entry, **changed})
    return found


def head_of(told: Told, world: str, key: JournalKey = KEY, at: datetime = AT) -> dict[str, Any]:
    """The signed head of these entries."""
    newest = Head(told[-1]["seq"], told[-1]["hash"]) if told else Head(0, GENESIS)
    return {**key.signed(WorldId(world), newest, at)}


def exported(told: Told, world: str, key: JournalKey = KEY, at: datetime = AT) -> list[bytes]:
    """An export of exactly these entries, in this order, line by line."""
    head = head_of(told, world, key, at)
    entries = [export.entry(world, entry) for entry in told]
    return [export.opening(head, key.told), *entries, export.closing(head)]
