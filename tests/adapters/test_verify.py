"""Whatever is done to an export is found, and named; `docs/journal.md` is what it is held to."""

import json
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.adapters import codec
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.signing import JournalKey
from qmtl.adapters.sql import folder
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.wire import export
from qmtl.adapters.wire.verify import Fault, Head, Verified, documents, head_of, key_of, verify
from qmtl.app.ports import Commit
from qmtl.core import facts as f
from qmtl.core.errors import Conflict, Invalid
from qmtl.core.facts import Fact
from qmtl.core.names import StrategyId
from tests import exports
from tests.exports import KEY, Told, chained, exported, told_of
from tests.worlds import live

from .histories import EVERYWHERE, START, WORLD
from .test_codec import SAMPLES, named
from .test_store_migrations import MADE

W = "w"
OTHER = JournalKey.new()
FLIPS = 12  # Other values, drawn from a seed, that each byte is changed to.
SPECIAL = b' \n\r\t\\"0aA{},'  # And those to which a careless reader is blind.
BOUND_KB = 600


@pytest.fixture(scope="module")
def told() -> Told:
    """Of a world named `w`, in which alpha has just gone live."""
    scene = live(MemoryStore())
    assert scene.world_id == W
    return told_of(scene.store, scene.world_id)


def small() -> list[bytes]:
    """A short export with all that is hard to keep: floats, other alphabets, odd instants."""
    lowered = f.ActivationLowered(strategy_id=StrategyId("ü"), weight=0.1, freeze=True, drain=False)
    facts = [f.Killed(reason='“Tür”\n"},"fact":{ \\ 0.10 </script>'), lowered]
    facts.append(replace(lowered, weight=1e-300))
    parts = {"stream": "governance", "generation": 1, "at": "2024-01-01T21:00:00.000007Z"}
    told = [
        {**parts, "actor": "ann", "kind": fact.kind, "fact": codec.fact_to_json(fact)}
        for fact in facts
    ]
    return exported(chained(told, W), W)


def split(text: bytes) -> list[bytes]:
    """As a file is read: at line feeds, and nowhere else."""
    parts = text.split(b"\n")
    return [*(part + b"\n" for part in parts[:-1]), *filter(None, parts[-1:])]


# ---- Whole -----------------------------------------------------------------------------------


def test_what_was_written_is_whole(told: Told) -> None:
    found = verify(exported(told, W))
    assert (found.problem, found.world_id, found.entries) == (None, W, len(told))
    assert (found.hash, found.key_id, found.key_known) == (told[-1]["hash"], KEY.key_id, False)
    assert found.head == head_of(exports.head_of(told, W))


def test_a_journal_without_entries_is_whole() -> None:
    found = verify(exported([], W), [kept([])])
    assert (found.problem, found.entries, found.heads) == (None, 0, 1)


def test_the_chain_is_the_one_that_is_documented(told: Told) -> None:
    """Made a second time from the page, with another JSON library."""
    assert chained(told, W) == told


@pytest.mark.parametrize("fact", SAMPLES, ids=named)
def test_a_fact_off_the_wire_gives_its_stored_bytes_again(fact: Fact) -> None:
    body = codec.fact_to_bytes(fact)
    assert codec.dumps(json.loads(json.dumps(orjson.loads(body)))) == body


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
                    | st.integers(-(2**63), 2**64 - 1) | st.text(),
                    lambda each: st.lists(each) | st.dictionaries(st.text(), each)))  # fmt: skip
def test_so_does_any_json(value: object) -> None:
    body = codec.dumps(value)
    assert codec.dumps(json.loads(body)) == body


def test_both_stores_tell_the_same_chain(busy: SqlStore) -> None:
    memory = MemoryStore()
    for entry in busy.journal(WORLD, 0, 1_000):
        commit = Commit(EVERYWHERE, [entry.fact], entry.actor, entry.at)
        memory.write(lambda commit=commit: memory.commit(WORLD, commit))  # type: ignore[misc]  # Its own.
    one, two = busy.chained(WORLD, 0, 1_000), memory.chained(WORLD, 0, 1_000)
    assert [entry.body for entry in one] == [entry.body for entry in two]
    assert verify(exported(told_of(busy, WORLD), WORLD)).problem is None
    assert verify(exported(told_of(memory, WORLD), WORLD)).problem is None


def test_what_an_older_program_wrote_verifies_as_it_was_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with closing(sqlite3.connect(data / folder.DATABASE)) as by_hand:
        by_hand.executescript(MADE)
    store = SqlStore(data)
    told = told_of(store, WORLD)
    store.close()
    bound = [entry["fact"] for entry in told if entry["kind"] == "strategy_bound"]
    assert bound
    assert not any("version" in fact for fact in bound), "a field that came later"
    assert verify(exported(told, WORLD)).problem is None


def test_nothing_that_was_read_is_kept(told: Told) -> None:
    entry, many = told[0], 4_000

    def lines() -> Iterator[bytes]:
        previous: Told = []
        yield export.opening(exports.head_of([], W), KEY.told)
        for seq in range(1, many):
            before = previous[-1]["hash"] if previous else exports.GENESIS
            (last,) = [{**entry, "fact": {"kind": "x", "note": "x" * 1_000}, "seq": seq}]
            digest = exports.sha256(exports.canonical(last["fact"])).hexdigest()
            header = {"world_id": W, "body_digest": digest}
            header |= {n: last[n] for n in export.HEADER if n != "body_digest"}
            hashed = exports.sha256(before.encode() + exports.canonical(header)).hexdigest()
            last |= {"previous": before, "hash": hashed, "body_digest": digest}
            previous = [last]
            yield export.entry(W, last)
        yield export.closing(exports.head_of(previous, W))

    tracemalloc.start()
    try:
        found = verify(lines())
        peak_kb = tracemalloc.get_traced_memory()[1] / 1024
    finally:
        tracemalloc.stop()
    assert (found.problem, found.entries) == (None, many - 1)
    assert peak_kb < BOUND_KB, "an export of 4 MB"


# ---- One byte --------------------------------------------------------------------------------


def flipped(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Every byte changed: to some values from a seed, to special ones, and to its other case."""
    chance = Random(20260101)
    for at, byte in enumerate(text):
        values = {chance.randrange(256) for _ in range(FLIPS)} | {byte ^ 0x20}
        values |= {SPECIAL[at % len(SPECIAL)]}
        for value in sorted(values - {byte}):
            yield at, text[:at] + bytes([value]) + text[at + 1 :]


def removed(text: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(len(text)):
        yield at, text[:at] + text[at + 1 :]


def added(text: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(len(text) + 1):
        yield at, text[:at] + SPECIAL[at % len(SPECIAL) :][:1] + text[at:]


@pytest.mark.parametrize("change", [flipped, removed, added])
def test_one_byte_anywhere_is_found(change: Callable[[bytes], Iterator[tuple[int, bytes]]]) -> None:
    text = b"".join(small())
    given = [], [key_of(KEY.told)]  # A key that is known makes up for nothing.
    assert all(verify(split(text), keys=keys).problem is None for keys in given)
    unseen, tried = set(), set()
    for at, other in change(text):
        tried.add(at)
        seen = [verify(split(other), keys=keys).problem is not None for keys in given]
        if other != text and not all(seen):
            unseen.add(at)
    assert not unseen, [text[max(0, at - 20) : at + 20] for at in sorted(unseen)]
    assert tried >= set(range(len(text)))


@pytest.mark.parametrize(
    ("was", "other"),
    [
        ('"seq":1,', '"seq":1.0,'),
        ('"seq":1,', '"seq": 1,'),
        ('"kind":"killed"', '"kind":"k\\u0069lled"'),
        ("ü", "\\u00fc"),
        ("0.1}", "0.10}"),
        ("1e-300", "10e-301"),
        ("1e-300", "1E-300"),
        ("</script>", "<\\/script>"),
        ("}\n", "}\r\n"),
        ("}\n", "} \n"),
        ('{"header"', ' {"header"'),
        (',"fact":{', ',"note":1,"fact":{'),
        ('"drain":false,"freeze":true', '"freeze":true,"drain":false'),
    ],
)
def test_every_other_spelling_of_the_same_json_is_found(was: str, other: str) -> None:
    text = b"".join(small())
    changed = text.replace(was.encode(), other.encode(), 1)
    assert changed != text
    assert verify(split(changed)).problem is not None


# ---- Tampering -------------------------------------------------------------------------------


def kept(told: Told, key: JournalKey = KEY, world: str = W) -> Head:
    """A head as somebody keeps it: through JSON."""
    return head_of(json.loads(json.dumps(exports.head_of(told, world, key))))


def swapped(told: Told, seq: int) -> Told:
    return [*told[: seq - 1], told[seq], told[seq - 1], *told[seq + 1 :]]


def edited(told: Told, seq: int, **parts: Any) -> Told:
    return [*told[: seq - 1], {**told[seq - 1], **parts}, *told[seq:]]


def rewritten(told: Told, seq: int) -> Told:
    """Edited by somebody who has the whole chain made anew."""
    return chained(edited(told, seq, actor="eve"), W)


def inserted(told: Told, seq: int) -> Told:
    """One entry more, which follows as it should, and the rest as it was."""
    return [*rewritten(told[:seq], seq), *told[seq - 1 :]]


Tamper = Callable[[Told], list[bytes]]
TAMPERED: list[tuple[str, Tamper, Fault, int | None]] = [
    ("a fact", lambda t: exported(edited(t, 7, fact={"kind": "x"}), W), Fault.EDITED, 7),
    ("an actor", lambda t: exported(edited(t, 7, actor="eve"), W), Fault.EDITED, 7),
    ("an instant", lambda t: exported(edited(t, 7, at=t[7]["at"] + "0"), W), Fault.EDITED, 7),
    ("a hash", lambda t: exported(edited(t, 7, hash=t[7]["hash"]), W), Fault.EDITED, 7),
    ("a predecessor", lambda t: exported(edited(t, 7, previous="0" * 64), W), Fault.EDITED, 7),
    ("the last", lambda t: exported(edited(t, len(t), actor="eve"), W), Fault.EDITED, -1),
    (
        "a fact, and its digest and hash",
        lambda t: exported([*t[:6], rewritten(t[:7], 7)[6], *t[7:]], W),
        Fault.BROKEN,
        8,
    ),
    ("removed", lambda t: exported([*t[:6], *t[7:]], W), Fault.REMOVED, 7),
    ("the first removed", lambda t: exported(t[1:], W), Fault.REMOVED, 1),
    ("several removed", lambda t: exported([*t[:6], *t[9:]], W), Fault.REMOVED, 7),
    (
        "the last removed",
        lambda t: [*exported(t, W)[:-2], exported(t, W)[-1]],
        Fault.TRUNCATED,
        -1,
    ),
    ("without a head", lambda t: exported(t, W)[:-1], Fault.TRUNCATED, 0),
    ("half a line", lambda t: [*exported(t, W)[:7], exported(t, W)[7][:99]], Fault.UNREADABLE, 7),
    ("inserted", lambda t: exported(inserted(t, 7), W), Fault.INSERTED, 7),
    (
        "one more before the head",
        lambda t: [*exported(rewritten([*t, t[-1]], len(t) + 1), W)[:-1], exported(t, W)[-1]],
        Fault.INSERTED,
        0,
    ),
    ("twice", lambda t: exported([*t[:7], *t[6:]], W), Fault.DUPLICATED, 7),
    ("swapped", lambda t: exported(swapped(t, 7), W), Fault.REORDERED, 7),
    ("moved to the end", lambda t: exported([*t[:6], *t[7:], t[6]], W), Fault.REORDERED, 7),
    ("an earlier one again", lambda t: exported([*t[:7], t[2], *t[7:]], W), Fault.REORDERED, 3),
    (
        "rewritten under the old head",
        lambda t: [*exported(rewritten(t, 7), W)[:-1], exported(t, W)[-1]],
        Fault.FORKED,
        -1,
    ),
    (
        "of another world",
        lambda t: exported([*t[:6], chained(t, "v")[6], *t[7:]], "w")[:8],
        Fault.EDITED,
        7,
    ),
    (
        "all of another world",
        lambda t: [exported(t, W)[0], *exported(chained(t, "v"), "v")[1:]],
        Fault.OTHER_WORLD,
        1,
    ),
    (
        "a head of another world",
        lambda t: [*exported(t, W)[:-1], exported(chained(t, "v"), "v")[-1]],
        Fault.OTHER_WORLD,
        -1,
    ),
    (
        "a head of another key",
        lambda t: [*exported(t, W)[:-1], exported(t, W, OTHER)[-1]],
        Fault.OTHER_KEY,
        -1,
    ),
    (
        "a head of another instant",
        lambda t: [*exported(t, W)[:-1], exported(t, W, at=START)[-1]],
        Fault.EDITED,
        None,
    ),
    ("trailing", lambda t: [*exported(t, W), b"\n"], Fault.TRAILING, None),
    ("a second head", lambda t: [*exported(t, W), exported(t, W)[-1]], Fault.TRAILING, None),
    ("garbage within", lambda t: [*exported(t, W)[:7], b"x\n"], Fault.UNREADABLE, 7),
    ("an empty line", lambda t: [*exported(t, W)[:7], b"\n"], Fault.UNREADABLE, 7),
    ("without its first line", lambda t: exported(t, W)[1:], Fault.UNREADABLE, None),
    ("nothing", lambda t: [], Fault.UNREADABLE, None),
    ("its first line alone", lambda t: exported(t, W)[:1], Fault.TRUNCATED, 1),
]


@pytest.mark.parametrize(("tamper", "fault", "seq"), [c[1:] for c in TAMPERED],
                         ids=[c[0] for c in TAMPERED])  # fmt: skip
def test_what_was_done_is_found_and_named(
    told: Told, tamper: Tamper, fault: Fault, seq: int | None
) -> None:
    found = verify(tamper(told))
    assert found.problem is not None
    # 0: the one after the last; -1: the last.
    wanted = seq if seq is None or seq > 0 else len(told) + 1 + seq
    assert (found.problem.fault, found.problem.seq) == (fault, wanted), found.problem.what
    assert found.problem.what[0].islower()


def test_every_fault_has_a_case() -> None:
    against_heads = {Fault.SIGNATURE}
    assert {case[2] for case in TAMPERED} | against_heads == set(Fault)


# ---- Heads that were kept, and keys ----------------------------------------------------------


def test_a_journal_leads_to_every_head_that_was_kept(told: Told) -> None:
    heads = [kept(told[:9]), kept([]), kept(told), kept(told[:1]), kept(told[:9])]
    found = verify(exported(told, W), heads)
    assert (found.problem, found.heads) == (None, 5)


def fault_of(found: Verified) -> tuple[Fault, int | None]:
    assert found.problem is not None
    return found.problem.fault, found.problem.seq


def test_one_that_was_rewritten_and_signed_again_does_not(told: Told) -> None:
    """By somebody who has the server and its key: only what is kept elsewhere is out of reach."""
    false = exported(rewritten(told, 7), W)
    assert verify(false).problem is None
    assert fault_of(verify(false, [kept(told)])) == (Fault.FORKED, len(told))
    found = verify(false, [kept(told), kept(told[:6]), kept(told[:9])])
    assert fault_of(found) == (Fault.FORKED, 9), "the first that is wrong"
    assert found.heads == 1, "what was before it was not rewritten"


def test_one_that_was_cut_off_and_signed_again_does_not(told: Told) -> None:
    short = exported(told[:9], W)
    assert verify(short, [kept(told[:9])]).problem is None
    assert fault_of(verify(short, [kept(told[:12])])) == (Fault.TRUNCATED, 10)
    assert fault_of(verify(short[:-1], [kept(told[:12])])) == (Fault.TRUNCATED, 10)
    assert fault_of(verify(exported([], W), [kept(told)])) == (Fault.TRUNCATED, 1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"hash": "0" * 64}, Fault.SIGNATURE),
        ({"seq": 8}, Fault.SIGNATURE),
        ({"at": "2024-01-01T00:00:00Z"}, Fault.SIGNATURE),
        ({"signature": "0" * 128}, Fault.SIGNATURE),
        ({"signature": "no hex"}, Fault.SIGNATURE),
        ({"signature": ""}, Fault.SIGNATURE),
        ({"world_id": "v"}, Fault.OTHER_WORLD),
        ({"key_id": OTHER.key_id}, Fault.OTHER_KEY),
    ],
)
def test_a_head_that_was_edited_is_none(told: Told, changes: dict[str, Any], fault: Fault) -> None:
    head = replace(kept(told[:9]), **changes)
    assert fault_of(verify(exported(told, W), [head])) == (fault, changes.get("seq", 9))


def test_a_head_of_an_older_key_takes_that_key(told: Told) -> None:
    """The server's key was lost, or replaced: both count, when both are given."""
    now, before = key_of(KEY.told), key_of(OTHER.told)
    old = kept(told[:9], OTHER)
    assert fault_of(verify(exported(told, W), [old])) == (Fault.OTHER_KEY, 9)
    assert fault_of(verify(exported(told, W), [old], [now])) == (Fault.OTHER_KEY, 9)
    found = verify(exported(told, W), [old], [before, now])
    assert (found.problem, found.heads, found.key_known) == (None, 1, True)


def test_with_a_key_no_other_counts(told: Told) -> None:
    now = key_of(KEY.told)
    assert verify(exported(told, W), keys=[now]).key_known
    assert fault_of(verify(exported(told, W, OTHER), keys=[now])) == (Fault.OTHER_KEY, None)
    mixed = [*exported(told, W)[:-1], exported(told, W, OTHER)[-1]]
    both = [now, key_of(OTHER.told)]
    assert fault_of(verify(mixed, keys=both)) == (Fault.OTHER_KEY, None), "it says one of them"


@pytest.mark.parametrize("name", ["world_id", "seq", "hash", "at", "key_id", "signature"])
def test_what_is_no_head_is_not_taken_for_one(told: Told, name: str) -> None:
    whole = exports.head_of(told, W)
    for wrong in ({k: v for k, v in whole.items() if k != name}, {**whole, name: [1]}):
        with pytest.raises(ValueError, match=name):
            head_of(wrong)
    with pytest.raises(ValueError, match="object"):
        head_of([whole])
    assert head_of({**whole, "added": "later"}) == head_of(whole)


@pytest.mark.parametrize(
    "wrong",
    [{}, [], {"public_key": 7}, {**KEY.told, "public_key": "00"}, {**KEY.told, "key_id": "00"},
     {**KEY.told, "public_key": OTHER.told["public_key"]}],
)  # fmt: skip
def test_what_is_no_key_is_not_taken_for_one(wrong: object) -> None:
    with pytest.raises(ValueError, match="no public key"):
        key_of(wrong)


def test_documents_follow_one_another() -> None:
    assert list(documents(' {"a": 1}\n\n{"b":\n2} 3 ')) == [{"a": 1}, {"b": 2}, 3]
    assert list(documents(" \n")) == []
    with pytest.raises(ValueError, match="Expecting"):
        list(documents('{"a": 1} x'))


# ---- Writing ---------------------------------------------------------------------------------


def test_an_export_ends_at_its_head_whatever_happened_since(told: Told) -> None:
    head = exports.head_of(told[:9], W)
    assert list(export.lines(head, KEY.told, told)) == exported(told[:9], W)
    assert list(export.lines(exports.head_of([], W), KEY.told, told)) == exported([], W)


def test_a_key_that_changed_meanwhile_is_said(told: Told) -> None:
    with pytest.raises(Conflict, match="ask again"):
        list(export.lines(exports.head_of(told, W), OTHER.told, told))


def test_a_server_that_tells_no_chain_is_said(told: Told) -> None:
    with pytest.raises(Invalid, match="entry 1: the server tells no hash of it"):
        export.entry(W, {k: v for k, v in told[0].items() if k != "hash"})
