"""Is an exported journal what the server wrote?  Written from docs/journal.md, and from that alone.

It is meant to be read in one sitting by who has to rely on it, so it shares no code with the store
that wrote the journal: the standard library, and Ed25519.  It compares bytes, not what they mean:
every byte of an export is either fixed by the format, hashed, or signed.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

GENESIS: Final = "0" * 64  # What the first entry follows.

_WORLD: Final = rb"[A-Za-z0-9][A-Za-z0-9._:-]*"
_TIME: Final = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?Z"
_HASH: Final = rb"[0-9a-f]{64}"
OPENING: Final = re.compile(
    rb'\{"format":"qmtl-journal/1","world_id":"(%b)","exported_at":"(%b)",'
    rb'"key_id":"(%b)","public_key":"(%b)"\}\n' % (_WORLD, _TIME, _HASH, _HASH)
)
# In JSON a quote within a string is escaped, so the first `},"previous":"` ends the header.
ENTRY: Final = re.compile(
    rb'\{"header":(\{.*?\}),"previous":"(%b)","hash":"(%b)","fact":(\{.*\})\}\n' % (_HASH, _HASH),
    re.DOTALL,
)
CLOSING: Final = re.compile(
    rb'\{"head":(\{"world_id":"%b","seq":(?:0|[1-9][0-9]*),"hash":"%b","at":"%b",'
    rb'"key_id":"%b","signature":"[0-9a-f]{128}"\})\}\n' % (_WORLD, _HASH, _TIME, _HASH)
)


class Fault(StrEnum):
    """What kind of wrong it is."""

    UNREADABLE = "unreadable"
    EDITED = "edited"
    REMOVED = "removed"
    INSERTED = "inserted"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    BROKEN = "broken"
    TRUNCATED = "truncated"
    FORKED = "forked"
    OTHER_WORLD = "other_world"
    OTHER_KEY = "other_key"
    SIGNATURE = "signature"
    TRAILING = "trailing"


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing that is wrong; `seq` is the entry's, None when it is at no entry."""

    fault: Fault
    seq: int | None
    what: str


class Wrong(Exception):
    """The journal is not what was written."""

    def __init__(self, fault: Fault, seq: int | None, what: str) -> None:
        super().__init__(what)
        self.problem = Problem(fault, seq, what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A signed head: at `at` the journal of a world ended with entry `seq`, of this hash."""

    world_id: str
    seq: int
    hash: str
    at: str
    key_id: str
    signature: str

    @property
    def statement(self) -> bytes:
        """What is signed."""
        lines = ("qmtl-journal-head/1", self.world_id, str(self.seq), self.hash, self.at)
        return "".join(f"{line}\n" for line in lines).encode()


def head_of(told: object) -> Head:
    """A head that was kept, of JSON.  Raises ValueError."""
    kinds = {"world_id": str, "seq": int, "hash": str, "at": str, "key_id": str, "signature": str}
    if not isinstance(told, Mapping):
        raise ValueError("is no signed head: not a JSON object")
    for name, kind in kinds.items():
        if type(told.get(name)) is not kind:
            raise ValueError(f"is no signed head: {name} is missing or of the wrong type")
    return Head(**{name: told[name] for name in kinds})


def key_of(told: object) -> bytes:
    """The 32 bytes of a public key that was kept, of JSON.  Raises ValueError."""
    text, key_id = None, None
    if isinstance(told, Mapping):
        text, key_id = told.get("public_key"), told.get("key_id")
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("is no public key of a journal: public_key must be 64 hex digits")
    public = bytes.fromhex(text)
    if key_id != sha256(public).hexdigest():
        raise ValueError("is no public key of a journal: key_id is not the SHA-256 of public_key")
    return public


def documents(text: str) -> Iterator[object]:
    """The JSON values of a text, one after the other.  Raises ValueError."""
    decoder, at = json.JSONDecoder(), 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        yield value


@dataclass(slots=True)
class Chain:
    """As far as the entries of one world have been followed.

    `reduced`: snapshots of which retention left a part, until a later entry says so: the digest of
    what was recorded, and of what is left.
    """

    world_id: str
    seq: int = 0
    hash: str = GENESIS
    reduced: dict[int, tuple[str, str]] = field(default_factory=dict)
    confirmed: int = 0  # Of them.

    def follow(self, line: bytes) -> None:
        """One more entry.  Raises Wrong when it is not the one that was written next."""
        wanted = self.seq + 1
        found = ENTRY.fullmatch(line)
        if found is None:
            raise Wrong(Fault.UNREADABLE, wanted, f"the line of entry {wanted} is not of the form")
        header, previous, hashed, fact = found.groups()
        if sha256(previous + header).hexdigest().encode() != hashed:
            what = f"entry {wanted} was edited: its header and its predecessor do not give its hash"
            raise Wrong(Fault.EDITED, wanted, what)
        world_id, seq, digest = _named(header, wanted)
        left = sha256(fact).hexdigest()
        if left != digest and not _is_reduced(fact):
            raise Wrong(Fault.EDITED, wanted, f"entry {wanted} was edited: its fact is another")
        if world_id != self.world_id:
            what = f"entry {wanted} is of world {world_id}, not of {self.world_id}"
            raise Wrong(Fault.OTHER_WORLD, wanted, what)
        if seq != wanted:
            raise self._out_of_order(seq, hashed.decode())
        if previous.decode() != self.hash:
            what = f"entry {seq} does not follow entry {seq - 1}: one of the two was replaced"
            raise Wrong(Fault.BROKEN, seq, what)
        self.seq, self.hash = seq, hashed.decode()
        if left != digest:
            self.reduced[seq] = digest, left
        self._confirm(fact)

    def _confirm(self, fact: bytes) -> None:
        """What an entry says retention left of those before it."""
        for seq, *digests in _left_by(fact):
            if isinstance(seq, int) and self.reduced.get(seq) == tuple(digests):
                del self.reduced[seq]
                self.confirmed += 1

    def end(self) -> None:
        """Raises Wrong when nothing says why a fact is another."""
        if self.reduced:
            seq = min(self.reduced)
            what = (
                f"entry {seq} was edited: a part of its fact is missing, and no entry after it "
                "says that retention removed it"
            )
            raise Wrong(Fault.EDITED, seq, what)

    def _out_of_order(self, seq: int, hashed: str) -> Wrong:
        if seq > self.seq:
            return Missing(self.seq + 1, seq)
        if hashed == self.hash:
            return Wrong(Fault.DUPLICATED, seq, f"entry {seq} is there twice")
        if seq == self.seq:
            what = f"there are two entries {seq}, and only one of them was written"
            return Wrong(Fault.INSERTED, seq, what)
        return Wrong(Fault.REORDERED, seq, f"entry {seq} comes again, after entry {self.seq}")


def _told(fact: bytes, kind: str) -> dict[str, object]:
    """A fact of a kind, read; of every other one, and of what cannot be read, nothing."""
    if b'"kind":"%b"' % kind.encode() not in fact:  # Not all of it is read: some are large.
        return {}
    try:
        told = json.loads(fact)
    except ValueError:
        return {}
    return told if isinstance(told, dict) and told.get("kind") == kind else {}


def _is_reduced(fact: bytes) -> bool:
    """Whether a snapshot says of itself that retention took a part of it."""
    return isinstance(_told(fact, "snapshot_stored").get("removed"), dict)


def _left_by(fact: bytes) -> Iterator[tuple[object, ...]]:
    """Entry, digest recorded and digest left, of each that a retention names."""
    named = _told(fact, "retention_applied").get("reduced")
    for each in named if isinstance(named, list) else ():
        if isinstance(each, dict):
            yield tuple(each.get(key) for key in ("seq", "body", "left"))


class Missing(Wrong):
    """An entry is not where it should be; whether it comes later, the lines after it say."""

    def __init__(self, seq: int, instead: int) -> None:
        what = f"entry {seq} was removed: entry {instead} comes instead"
        super().__init__(Fault.REMOVED, seq, what)
        self.seq = seq


def _named(header: bytes, wanted: int) -> tuple[str, int, str]:
    """World, seq and digest of the body, of a header whose hash is right."""
    try:
        told = json.loads(header)
    except ValueError:
        told = None
    if isinstance(told, dict):
        world_id, seq, digest = (told.get(key) for key in ("world_id", "seq", "body_digest"))
        if isinstance(world_id, str) and type(seq) is int and isinstance(digest, str):
            return world_id, seq, digest
    raise Wrong(Fault.UNREADABLE, wanted, f"the header of entry {wanted} is not of the form")


@dataclass(slots=True, kw_only=True)
class Verified:
    """How far a journal was followed, who signed it, and the first problem if there is one."""

    world_id: str | None = None
    entries: int = 0
    hash: str = GENESIS
    head: Head | None = None
    key_id: str | None = None
    key_known: bool = False  # It is one that was given, and not only the one in the export.
    heads: int = 0  # That were kept, and agree.
    reduced: int = 0  # Snapshots of which retention left a part, and a later entry says so.
    problem: Problem | None = None


def verify(
    lines: Iterable[bytes], heads: Sequence[Head] = (), keys: Sequence[bytes] = ()
) -> Verified:
    """Follows an export, line by line with their line ends; keeps nothing of what it has read.

    `heads` were kept elsewhere: the journal has to lead to each of them.  `keys` (32 bytes each)
    are those whose signature counts; without them, the one that the export names.
    """
    found = Verified()
    rest = iter(lines)
    try:
        _Reading(found, heads, keys).read(rest)
    except Missing as missing:
        found.problem = missing.problem
        if any(_seq_of(line) == missing.seq for line in rest):
            what = f"entry {missing.seq} comes too late: the entries were reordered"
            found.problem = Problem(Fault.REORDERED, missing.seq, what)
    except Wrong as wrong:
        found.problem = wrong.problem
    return found


def _seq_of(line: bytes) -> int | None:
    """Of a line that may be anything."""
    entry = ENTRY.fullmatch(line)
    try:
        return None if entry is None else _named(entry[1], 0)[1]
    except Wrong:
        return None


@dataclass(slots=True)
class _Reading:
    found: Verified
    heads: Sequence[Head]
    keys: Sequence[bytes]
    trusted: dict[str, bytes] = field(default_factory=dict)

    def read(self, lines: Iterator[bytes]) -> None:
        exported_at = self._open(next(lines, b""))
        for head in self.heads:
            self._signed(head, "the head that was kept")
        chain_ = Chain(self.found.world_id or "")
        kept = sorted(self.heads, key=lambda head: head.seq)
        for line in lines:
            self._agree(chain_, kept)
            closing = CLOSING.fullmatch(line)
            if closing is not None:
                self._close(head_of(json.loads(closing[1])), chain_, exported_at)
                self._missing_after(chain_, kept)
                self._end(lines)
                chain_.end()
                self.found.reduced = chain_.confirmed
                return
            chain_.follow(line)
            self.found.entries, self.found.hash = chain_.seq, chain_.hash
        self._agree(chain_, kept)
        self._missing_after(chain_, kept)
        what = f"the export ends after entry {chain_.seq}, without a signed head"
        raise Wrong(Fault.TRUNCATED, chain_.seq + 1, what)

    def _open(self, line: bytes) -> str:
        """Reads the first line: when it was exported."""
        opening = OPENING.fullmatch(line)
        if opening is None:
            what = "the first line is not that of an export of a journal"
            raise Wrong(Fault.UNREADABLE, None, what)
        world_id, exported_at, key_id, public_key = (part.decode() for part in opening.groups())
        public = bytes.fromhex(public_key)
        if sha256(public).hexdigest() != key_id:
            what = "key_id in the first line is not the SHA-256 of its public_key"
            raise Wrong(Fault.EDITED, None, what)
        self.trusted = {sha256(key).hexdigest(): key for key in self.keys or (public,)}
        self.found.world_id, self.found.key_id = world_id, key_id
        if key_id not in self.trusted:
            what = f"it is signed by the key {key_id}, which is not one that was given"
            raise Wrong(Fault.OTHER_KEY, None, what)
        self.found.key_known = bool(self.keys)
        return exported_at

    def _signed(self, head: Head, which: str) -> None:
        """Raises Wrong unless a head is of this world, and signed by a key that counts."""
        named = f"{which} (entry {head.seq}, {head.at})"
        if head.world_id != self.found.world_id:
            what = f"{named} is of world {head.world_id}, not of {self.found.world_id}"
            raise Wrong(Fault.OTHER_WORLD, head.seq, what)
        public = self.trusted.get(head.key_id)
        if public is None:
            what = f"{named} is signed by another key, {head.key_id}: give its public key, too"
            raise Wrong(Fault.OTHER_KEY, head.seq, what)
        try:
            key = Ed25519PublicKey.from_public_bytes(public)
            key.verify(bytes.fromhex(head.signature), head.statement)
        except (InvalidSignature, ValueError):
            what = f"{named} was edited: its signature is not of it"
            raise Wrong(Fault.SIGNATURE, head.seq, what) from None

    def _agree(self, chain_: Chain, kept: list[Head]) -> None:
        """Heads that were kept, as soon as the entries have come to them."""
        while kept and kept[0].seq <= chain_.seq:
            head = kept.pop(0)
            if head.hash != chain_.hash:
                what = (
                    f"entry {head.seq} is another than in the head that was kept ({head.at}): the "
                    "journal was rewritten there or before"
                )
                raise Wrong(Fault.FORKED, head.seq, what)
            self.found.heads += 1

    def _missing_after(self, chain_: Chain, kept: list[Head]) -> None:
        if kept:
            what = (
                f"it ends at entry {chain_.seq}, and a head that was kept ({kept[0].at}) is of "
                f"entry {kept[0].seq}: the entries between were cut off"
            )
            raise Wrong(Fault.TRUNCATED, chain_.seq + 1, what)

    def _close(self, head: Head, chain_: Chain, exported_at: str) -> None:
        self._signed(head, "the head at the end")
        self.found.head = head
        if head.key_id != self.found.key_id:
            raise Wrong(Fault.OTHER_KEY, None, "its head is signed by another key than it says")
        if head.at != exported_at:
            raise Wrong(Fault.EDITED, None, "exported_at in the first line is not when it was")
        if head.seq > chain_.seq:
            what = f"entries {chain_.seq + 1} to {head.seq}, which its head signs, are missing"
            raise Wrong(Fault.TRUNCATED, chain_.seq + 1, what)
        if head.seq < chain_.seq:
            what = f"entry {head.seq + 1} was added: its head signs no more than {head.seq}"
            raise Wrong(Fault.INSERTED, head.seq + 1, what)
        if head.hash != chain_.hash:
            what = f"its head signs another entry {head.seq}: the journal was rewritten"
            raise Wrong(Fault.FORKED, head.seq, what)

    def _end(self, lines: Iterator[bytes]) -> None:
        if next(lines, None) is not None:
            raise Wrong(Fault.TRAILING, None, "something follows the signed head")
