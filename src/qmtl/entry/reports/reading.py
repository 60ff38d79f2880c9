"""A world's journal, read through the API: every entry verified, and the worlds they lead to."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from qmtl.adapters.client import Client
from qmtl.adapters.memory import World, after
from qmtl.adapters.wire import export
from qmtl.adapters.wire.history import entry_of, in_order
from qmtl.adapters.wire.instants import parse
from qmtl.adapters.wire.verify import verify
from qmtl.core.errors import Invalid
from qmtl.core.facts import Entry
from qmtl.core.names import WorldId
from qmtl.core.view import WorldView

Told = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """All entries up to a signed head.

    `hashes` are theirs, by seq; `problem` says what is wrong with the journal, None when it is
    whole; `now` is the server's clock.
    """

    world_id: WorldId
    entries: tuple[Entry, ...]
    hashes: tuple[str, ...]
    head: dict[str, Any]
    key: dict[str, Any]
    now: datetime
    problem: str | None

    def proof(self) -> dict[str, Any]:
        """What an auditor compares with a head that was kept elsewhere."""
        names = ("seq", "hash", "at", "key_id", "signature")
        return {
            "entries": len(self.entries),
            "whole": self.problem is None,
            "problem": self.problem,
            "head": {name: self.head[name] for name in names},
            "public_key": self.key["public_key"],
        }

    def worlds(self) -> Iterator[tuple[World, Entry, World]]:
        """Each entry with the world before and after it.  Raises Invalid when one does not fit."""
        world = World(WorldView(world_id=self.world_id), [])
        for entry in in_order(self.entries):
            before = world
            before.journal.append(entry)
            try:
                world = after(before, entry)
            except (KeyError, IndexError, ValueError) as error:
                why = f"entry {entry.seq} does not fit the entries before it: {error!r}."
                raise Invalid(why) from error
            yield before, entry, world


@dataclass
class _Read:
    entries: list[Entry] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)


def read(client: Client, world: str, page: int = 1_000) -> Journal:
    """The journal up to its head of now, and whether it is whole.

    Raises ApiError, Away, and Invalid for what cannot be read back at all.
    """
    now = parse(str(client.clock()["now"]))
    key, head = client.journal_key(), client.journal_head(world)
    return read_back(head, key, client.journal(world, limit=page), now)


def read_back(head: Told, key: Told, entries: Iterable[Told], now: datetime) -> Journal:
    """The journal that these entries are, as the API tells them; `now` is the server's clock.

    Raises Invalid for what cannot be read back at all.
    """
    kept = _Read()
    found = verify(export.lines(head, key, _kept(entries, kept)))
    problem = None if found.problem is None else found.problem.what
    if problem is not None and len(kept.entries) < int(str(head["seq"])):
        raise Invalid(f"{problem}: no report is made of a journal that is not whole.")
    return Journal(
        world_id=WorldId(str(head["world_id"])),
        entries=tuple(kept.entries),
        hashes=tuple(kept.hashes),
        head=dict(head),
        key=dict(key),
        now=now,
        problem=problem,
    )


def _kept(told: Iterable[Told], kept: _Read) -> Iterator[Told]:
    """The same, read back on the way."""
    for each in told:
        kept.entries.append(entry_of(each))
        kept.hashes.append(str(each.get("hash", "")))
        yield each
