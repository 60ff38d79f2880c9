"""What a gate knows and what follows from it: start open, break one thing, and it is closed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qmtl.core.decision import DecisionEnvelope
from qmtl.core.names import Mode, StrategyId, WorldId
from qmtl.sdk.decisions import Refused, Silent
from qmtl.sdk.lease import CLOSED, Lease, Leave
from qmtl.sdk.notice import Notice

NOON = datetime(2024, 1, 31, 12, tzinfo=UTC)
TTL = 60.0
CONNECTED, ASKED, NOW = 1_000.0, 1_001.0, 1_010.0


def decision(generation: int = 5, mode: Mode = Mode.LIVE, **changes: Any) -> DecisionEnvelope:
    live = mode is Mode.LIVE
    envelope = DecisionEnvelope(
        world_id=WorldId("w"),
        strategy_id=StrategyId("s"),
        policy_version=1,
        effective_mode=mode,
        weight=0.25 if live else 0.0,
        ramp_fraction=1.0 if live else 0.0,
        reasons=("live_campaign",) if live else ("paper_campaign", "held"),
        generation=generation,
        issued_at=NOON,
        expires_at=NOON + timedelta(seconds=300),
    )
    return replace(envelope, **changes)


NEW = Lease(ttl_sec=TTL)
OPEN = NEW.heard(CONNECTED).told(decision(), ASKED).heard(NOW)
KILLED = Notice(6, "killed (event 41)")


def may(lease: Lease, now: float = NOW) -> tuple[Mode, float]:
    leave = lease.leave()
    return (leave.mode, leave.weight) if now < leave.until else (Mode.COMPUTE_ONLY, 0.0)


def test_it_is_open() -> None:
    assert may(OPEN) == (Mode.LIVE, 0.25)
    assert (OPEN.why(NOW), OPEN.sequence, OPEN.leased, OPEN.renew_sec) == (None, 5, 5, 20.0)
    assert OPEN.leave().until == ASKED + TTL


def after(lease: Lease, *steps: Callable[[Lease], Lease]) -> Lease:
    for step in steps:
        lease = step(lease)
    return lease


def told(
    answered: DecisionEnvelope | Refused | Silent, at: float = NOW
) -> Callable[[Lease], Lease]:
    return lambda lease: lease.told(answered, at)


def kept_alive(lease: Lease) -> Lease:
    """Signs of life all the while."""
    for now in range(int(NOW), int(NOW + TTL) + 1, 10):
        lease = lease.heard(float(now))
    return lease


def reminded(lease: Lease) -> Lease:
    """Decisions all the while."""
    for now in range(int(NOW), int(NOW + TTL) + 1, 10):
        lease = lease.told(decision(), float(now))
    return lease


FLOOR = decision(0, Mode.COMPUTE_ONLY, reasons=("worldservice_away",), safe_mode=True)
BROKEN: list[tuple[str, Callable[[Lease], Lease], float, str]] = [
    ("never connected", lambda _: NEW.told(decision(), ASKED), NOW, "not connected"),
    ("never told", lambda _: NEW.heard(CONNECTED), NOW, "not yet told"),
    ("never told, and nobody there", lambda _: NEW.missed("world away: x"), NOW, "world away: x"),
    ("killed", lambda lease: lease.noticed(KILLED), NOW, "killed (event 41)"),
    ("decided", told(decision(6, Mode.COMPUTE_ONLY)), NOW, "paper_campaign; held"),
    ("decided at the same generation", told(decision(5, Mode.COMPUTE_ONLY)), NOW, "held"),
    ("refused", told(Refused("403 no")), NOW, "403 no"),
    ("nobody could be asked", told(FLOOR), NOW, "worldservice_away"),
    ("a floor that says live", told(decision(9, safe_mode=True)), NOW, "live_campaign"),
    ("a term too long", told(decision(expires_at=NOON + timedelta(301))), NOW, "is none"),
    ("a term of nothing", told(decision(expires_at=NOON)), NOW, "is none"),
    ("expired", kept_alive, ASKED + TTL, "lease expired 0 s ago"),
    ("silent", reminded, NOW + TTL, "stream silent for 60 s"),
    ("not to be trusted", lambda lease: lease.deafened("gap"), NOW, "gap"),
    ("ended", lambda lease: lease.ended("left"), NOW, "left"),
    ("weight 0", told(decision(weight=0.0, reasons=("draining",))), NOW, "draining"),
    ("heard of long ago", lambda lease: lease.heard(-1e9), NOW, "stream silent"),
]


@pytest.mark.parametrize(("name", "step", "now", "why"), BROKEN, ids=[case[0] for case in BROKEN])
def test_each_thing_alone_closes_it(
    name: str, step: Callable[[Lease], Lease], now: float, why: str
) -> None:
    broken = step(OPEN)
    assert may(broken, now)[1] == 0.0
    assert (may(broken, now)[0] is Mode.LIVE) is (name == "weight 0")
    assert why in str(broken.why(now))


def test_a_weight_of_0_may_trade_to_get_out() -> None:
    assert may(OPEN.told(decision(weight=0.0), NOW)) == (Mode.LIVE, 0.0)


def test_paper_is_paper_and_has_no_weight() -> None:
    paper = OPEN.told(decision(6, Mode.PAPER, weight=0.5), NOW)
    assert paper.leave() == Leave(Mode.PAPER, 0.0, NOW + TTL)
    assert paper.leased == 5, "what it held is let go in the end"


SAME: list[tuple[str, Callable[[Lease], Lease]]] = [
    ("silence of the world", told(Silent("away"))),
    ("an older decision", told(decision(4, Mode.COMPUTE_ONLY))),
    ("a broken connection", lambda lease: lease.missed("world away: x")),
    ("an event that calls for asking", lambda lease: lease.noticed(Notice(6, None))),
    ("an event that the decision knows of", lambda lease: lease.noticed(Notice(5, "killed"))),
]


@pytest.mark.parametrize(("name", "step"), SAME, ids=[case[0] for case in SAME])
def test_what_proves_nothing_changes_nothing(name: str, step: Callable[[Lease], Lease]) -> None:
    same = step(OPEN)
    assert same.leave() == OPEN.leave()
    assert same.why(NOW) is None


def test_a_shorter_term_of_the_decision_counts() -> None:
    short = OPEN.told(decision(expires_at=NOON + timedelta(seconds=12)), NOW)
    assert (short.leave().until, short.renew_sec) == (NOW + 12, 4.0)


CLOSES = OPEN.noticed(KILLED)
OPENS: list[tuple[str, Lease, Callable[[Lease], Lease], bool]] = [
    ("killed, and told before that", CLOSES, told(decision(5)), False),
    ("killed, and told so", CLOSES, told(decision(6, Mode.COMPUTE_ONLY)), False),
    ("killed, and nobody answers", CLOSES, told(Silent("away")), False),
    ("killed, and live again", CLOSES, told(decision(8)), True),
    ("killed, and decided live by who knows", CLOSES, told(decision(6)), True),
    ("refused, and then an older one", OPEN.told(Refused("403"), NOW), told(decision(4)), False),
    ("refused, and then a good one", OPEN.told(Refused("403"), NOW), told(decision(5)), True),
    ("deaf, and told", OPEN.deafened("gap"), told(decision(7)), False),
    ("deaf, and heard", OPEN.deafened("gap"), lambda lease: lease.heard(NOW + 1), False),
    ("deaf, heard and told", OPEN.deafened("gap").heard(NOW), told(decision()), True),
    (
        "deaf, heard, and told what was asked for before",
        OPEN.deafened("gap").heard(NOW),
        told(decision(9), NOW - 0.1),
        False,
    ),
    ("ended", OPEN.ended("left"), told(decision(9)), False),
    ("ended and heard", OPEN.ended("left"), lambda lease: lease.heard(NOW), False),
]


@pytest.mark.parametrize(("name", "lease", "step", "opens"), OPENS, ids=[case[0] for case in OPENS])
def test_what_opens_it_again(
    name: str, lease: Lease, step: Callable[[Lease], Lease], opens: bool
) -> None:
    assert may(lease) == (Mode.COMPUTE_ONLY, 0.0)
    assert may(step(lease)) == ((Mode.LIVE, 0.25) if opens else (Mode.COMPUTE_ONLY, 0.0))


def test_after_a_silence_it_takes_a_decision_that_was_asked_for_since() -> None:
    """Renewed all the while by asking; but what was not heard meanwhile may have been a kill."""
    late = NOW + TTL + 5
    silent = reminded(OPEN)
    back = silent.heard(late)
    assert may(silent, late) == may(back, late) == (Mode.COMPUTE_ONLY, 0.0)
    assert may(back.told(decision(), late - 1), late) == (Mode.COMPUTE_ONLY, 0.0)
    assert may(back.told(decision(), late), late) == (Mode.LIVE, 0.25)


def test_the_first_reason_of_an_end_stays() -> None:
    assert OPEN.ended("a bug").ended("left").why(NOW) == "a bug"
    assert OPEN.ended("a bug").leave() == CLOSED


def test_what_kept_from_asking_is_said_when_it_matters() -> None:
    away = kept_alive(OPEN).told(Silent("world away: gone"), NOW)
    assert away.why(NOW) is None
    assert away.why(ASKED + TTL + 3) == "lease expired 3 s ago: world away: gone"
    behind = OPEN.noticed(Notice(9, None)).told(decision(), NOW)
    assert "decision 5 is older than 9" in str(kept_alive(behind).why(ASKED + TTL))
