"""The journal's hash chain: each entry carries the hash of its predecessor and of its own header.

    hash = sha256(hash of the predecessor, in hex || header)

The header is JSON with sorted keys, and names the body by its SHA-256, so the chain holds when
retention has dropped a body.  The first entry's predecessor is `GENESIS`.

What others rely on is docs/journal.md; `wire/verify.py` is written from that, and not from here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from qmtl.adapters.codec import dumps
from qmtl.app.ports import ChainedEntry
from qmtl.core.facts import Entry, stream_of
from qmtl.core.names import WorldId
from qmtl.core.times import instant, micros

HASH_CHARS = 64  # SHA-256 in hex.
GENESIS = "0" * HASH_CHARS
AT_MAX = 2**55  # Microseconds, more than a thousand years either way: nothing was written then.

Cell = str | int | float | bytes | None  # As in the tables; a line has text and numbers.


@dataclass(frozen=True, slots=True)
class Line:
    """A journal entry as it is stored, without its body.  `at` is in microseconds."""

    world_id: str
    seq: int
    stream: str
    generation: int
    at: int
    actor: str
    kind: str
    body_digest: str
    hash: str

    def follows(self, previous: str) -> bool:
        """Whether its hash is what its predecessor and its header make it."""
        if not isinstance(self.at, int) or abs(self.at) > AT_MAX:
            return False  # No header that was ever written; a damaged row may say anything.
        return self.hash == link(previous, self.cells())

    def cells(self) -> dict[str, Cell]:
        return {name: getattr(self, name) for name in self.__slots__}

    def told(self, previous: str, body: bytes) -> ChainedEntry:
        """As it goes out, with what it follows."""
        return ChainedEntry(
            seq=self.seq,
            stream=self.stream,
            generation=self.generation,
            at=instant(self.at),
            actor=self.actor,
            kind=self.kind,
            body=body,
            body_digest=self.body_digest,
            previous=previous,
            hash=self.hash,
        )


def link(previous: str, cells: dict[str, Cell]) -> str:
    """The hash of a line: its cells without `hash`, the instant written out."""
    header: dict[str, object] = {k: v for k, v in cells.items() if k != "hash"}
    at = cells["at"]
    assert isinstance(at, int), "microseconds"
    header["at"] = instant(at)
    return sha256(previous.encode() + dumps(header)).hexdigest()


def lines(
    world_id: WorldId, previous: str, entries: Iterable[tuple[Entry, bytes]]
) -> Iterator[dict[str, Cell]]:
    """Entries with their bodies as rows of `journal`, chained on."""
    for entry, body in entries:
        cells: dict[str, Cell] = {
            "world_id": world_id,
            "seq": entry.seq,
            "stream": stream_of(entry.fact).value,
            "generation": entry.generation,
            "at": micros(entry.at),
            "actor": entry.actor,
            "kind": entry.fact.kind,
            "body_digest": sha256(body).hexdigest(),
        }
        previous = cells["hash"] = link(previous, cells)
        yield cells
