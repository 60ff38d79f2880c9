"""A world's journal as an export, line by line: docs/journal.md.  What checks it is `verify.py`.

Nothing is mended on the way: a line is made of what the server answered, and whether that is what
it once wrote, only reading the export shows.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from qmtl.adapters.codec import dumps
from qmtl.core.errors import Conflict, Invalid

FORMAT: Final = "qmtl-journal/1"
HEADER: Final = ("seq", "stream", "generation", "at", "actor", "kind", "body_digest")
CHAINED: Final = (*HEADER, "previous", "hash", "fact")

Told = Mapping[str, object]


def opening(head: Told, key: Told) -> bytes:
    """The first line.  Raises Conflict when the head is signed with another key."""
    if head["key_id"] != key["key_id"]:
        raise Conflict("The server's journal key changed just now: ask again.")
    return _line(
        format=FORMAT,
        world_id=head["world_id"],
        exported_at=head["at"],
        key_id=key["key_id"],
        public_key=key["public_key"],
    )


def entry(world_id: str, told: Told) -> bytes:
    """The line of an entry as `GET /worlds/{w}/journal` tells it.

    Raises Invalid when that is not all there: the server is older than the chain on the wire.
    """
    missing = [name for name in CHAINED if name not in told]
    if missing:
        raise Invalid(f"entry {told.get('seq')}: the server tells no {', '.join(missing)} of it.")
    return _line(
        header={"world_id": world_id, **{name: told[name] for name in HEADER}},
        previous=told["previous"],
        hash=told["hash"],
        fact=told["fact"],
    )


def closing(head: Told) -> bytes:
    """The last line."""
    names = ("world_id", "seq", "hash", "at", "key_id", "signature")
    return b'{"head":%b}\n' % _ordered({name: head[name] for name in names})


def lines(head: Told, key: Told, entries: Iterable[Told]) -> Iterator[bytes]:
    """A whole export, up to the head; `entries` may go on after it, and begin with the first.

    Raises Conflict, Invalid.
    """
    world_id, last = str(head["world_id"]), head["seq"]
    yield opening(head, key)
    if last:
        for told in entries:
            yield entry(world_id, told)
            if told["seq"] == last:
                break
    yield closing(head)


def _line(**parts: object) -> bytes:
    return _ordered(parts) + b"\n"


def _ordered(parts: Told) -> bytes:
    """JSON in the order of the format; what is within a part has its keys sorted."""
    return b"{%b}" % b",".join(b'"%b":%b' % (n.encode(), dumps(v)) for n, v in parts.items())
