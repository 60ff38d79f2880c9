"""What a soak is there to find, it finds: each thing that may go wrong, planted."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from bench.soak.checks import exactly_once, told, untold
from bench.soak.desk import Desk
from bench.soak.ears import BusEar, Follower
from bench.soak.plan import DIES, DOWN_SEC, SURVIVES, deaths
from qmtl.adapters import jetstream
from qmtl.adapters.client import Event, Quiet
from qmtl.core import facts as f
from qmtl.core.fold import advance
from qmtl.core.names import ActorId, StrategyId, WorldId
from qmtl.core.notices import of_entry
from qmtl.core.view import WorldView
from qmtl.entry.notify.messages import message_id

AT = datetime(2024, 1, 1, tzinfo=UTC)


def entry(seq: int, fact: f.Fact, by: str = "olga") -> f.Entry:
    return f.Entry(seq=seq, generation=seq, at=AT, actor=ActorId(by), fact=fact)


def bound(sid: str) -> f.StrategyBound:
    return f.StrategyBound(
        strategy_id=StrategyId(sid),
        name="",
        author=ActorId("ana"),
        fingerprint=f"f-{sid}",
        variants_tried=1,
    )


KILLED, AGAIN = f.Killed(reason="on day 3"), f.Killed(reason="on day 4")
JOURNAL = [entry(1, bound("s1")), entry(2, KILLED)]
WRITTEN = Counter([("strategy_bound", "s1"), ("killed", "on day 3")])


def desk() -> Desk:
    found = Desk("w", ["s1"], days=10, seed=0, staff=cast(Any, None))
    found.written = Counter(WRITTEN)
    return found


@pytest.mark.parametrize(
    ("journal", "wrong"),
    [
        (JOURNAL, []),
        (JOURNAL[:1], ["w: ('killed', 'on day 3') was acknowledged, and is lost"]),
        (
            [*JOURNAL, entry(3, f.Killed(reason="on day 3"))],
            ["('killed', 'on day 3') is there too"],
        ),
        (
            [*JOURNAL, entry(3, f.Killed(reason="on day 4"))],
            ["('killed', 'on day 4') is there too"],
        ),
    ],
)
def test_what_is_lost_or_twice_is_found(journal: list[f.Entry], wrong: list[str]) -> None:
    found = exactly_once(desk(), journal)
    assert len(found) == len(wrong)
    assert all(said in each for said, each in zip(wrong, found, strict=True))


def test_what_the_notifier_did_not_tell_is_found() -> None:
    notice = of_entry(advance(WorldView(world_id=WorldId("w")), JOURNAL[0]), JOURNAL[1])
    assert notice is not None
    assert untold(JOURNAL, "w", {message_id(notice)}) == []
    assert untold(JOURNAL, "w", set()) == ["w: entry 2: The world w was killed"]


def followed(*seqs: int) -> Follower:
    follower = Follower("w", ())
    follower._read(cast(Any, [Quiet(), *(Event(seq, "killed", b"{}") for seq in seqs)]))
    return follower


@pytest.mark.parametrize(
    ("seqs", "wrong"),
    [
        ((1, 2, 3), []),
        ((1, 3), ["w: after 1 came 3"]),
        ((1, 2, 2, 3), ["w: after 2 came 2"]),
        ((2,), ["w: after 0 came 2"]),
    ],
)
def test_a_gap_and_a_duplicate_are_heard(seqs: tuple[int, ...], wrong: list[str]) -> None:
    assert followed(*seqs).wrong == wrong


@pytest.mark.parametrize(
    ("seqs", "again", "wrong"),
    [
        ((1, 2, 3), 0, []),
        ((1, 2, 1, 2, 3), 2, []),  # The bus may say again what it said.
        ((1, 3), 0, ["3 came after 1"]),
    ],
)
def test_the_bus_may_repeat_and_may_not_skip(
    seqs: tuple[int, ...], again: int, wrong: list[str]
) -> None:
    ear = BusEar("nats://127.0.0.1:1")
    subject = jetstream.subject(WorldId("w"))
    for seq in seqs:
        ear._heard(subject, seq)
    assert (ear.again, ear.wrong) == (again, [f"{subject}: {said}" for said in wrong])
    assert told("w", ear.reached("w"), 3) == []
    assert told("w", ear.reached("w"), 4) == ["w: 3 of 4 events came"]


def test_deaths_are_of_the_seed_and_of_everybody() -> None:
    drawn = deaths(days=250, count=40, seed=7)
    assert drawn == deaths(days=250, count=40, seed=7) != deaths(days=250, count=40, seed=8)
    assert {death.target for death in drawn} == {*DIES, *SURVIVES}
    late = {death.target for death in drawn if death.day >= 125}
    assert late == set(DIES), "what grows is seen in what goes on living"
    assert all(0 <= death.day < 250 and 0 <= death.part < 1 for death in drawn)
    assert all(DOWN_SEC[0] <= death.down_sec <= DOWN_SEC[1] for death in drawn)
    assert len(drawn) == 40
    assert deaths(days=3, count=0, seed=7) == ()
