"""kill -9 at every boundary of an act: the old state or the new one, and the retry does it once.

A server plugged with `dying.py` dies at the first boundary of an act, then at the second, and so on
until the act is done without a death: a boundary that is new is found by itself.  After each death
the journal is whole and the tables say what it says; the client sends the same request again, and
its effect is there once.  Two deaths an act here; `make crash` has them all.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.adapters.sql.store import SqlStore
from qmtl.core.names import SYSTEM, WorldId
from tests.crash.test_races import BEGAN, DAY, People, candidate, stamp
from tests.servers import Served, start

EVERY = "QMTL_CRASH_ROUNDS" in os.environ
QUICK = (5, 8)  # Before the commit of most acts, and after it.
BOUNDARIES_MAX = 60  # Of one act; more, and it never ends.


@dataclass
class Mortal:
    """A server that can be told where to die, and is started again."""

    data: Path
    armed: Path
    http: httpx.Client
    server: Served
    tokens: dict[str, str]

    def begin(self) -> None:
        self.server = start_dying(self.data, self.armed)

    def people(self) -> People:
        return People(self.server.url, {**self.tokens, "admin": self.server.token}, self.http)


def start_dying(data: Path, armed: Path) -> Served:
    command = ("-m", "tests.crash.dying", str(armed))
    return start(data, "--clock", "replay", "--at", stamp(BEGAN), command=command)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    folder = tmp_path_factory.mktemp("boundaries")
    armed = folder / "armed"
    with httpx.Client(timeout=20) as http:
        made = Mortal(folder / "data", armed, http, start_dying(folder / "data", armed), {})
        for actor in ("pia", "pete"):
            body = {"actor": actor, "roles": ["approver"]}
            made.tokens[actor] = made.people().ok("admin", "POST", "/tokens", body)["token"]
        try:
            yield made
        finally:
            made.server.stop()


@dataclass(frozen=True)
class Act:
    """Who asks for what, what has to be so before, and how many entries there are after it."""

    who: str
    path: str
    body: dict[str, Any]
    before: tuple[tuple[str, str], ...]  # Who asks for which act first.
    had: dict[str, int]
    has: dict[str, int]


LIVE = "/worlds/{world}/promotions/live"
TWO = (("pia", "approve"), ("pete", "approve"))
ONE = {"strategy_bound": 1, "snapshot_stored": 4, "evaluations_recorded": 2, "phase_entered": 1}
BOTH = {kind: count + 1 for kind, count in ONE.items()}
ACTS = {
    "submit": Act("admin", "/strategies", {}, (), ONE, BOTH),
    "approve": Act("pia", LIVE + "/approve", {}, (), {}, {"approval_given": 1}),
    "reject": Act("pia", LIVE + "/reject", {}, (), {}, {"candidate_rejected": 1}),
    "apply": Act("admin", LIVE + "/apply", {}, TWO, {}, {"promotion_applied": 1}),
    "demote": Act(
        "admin",
        "/worlds/{world}/demote",
        {"to": "paper"},
        (*TWO, ("admin", "apply")),
        {"promotion_applied": 1},
        {"promotion_applied": 1, "demoted": 1},
    ),
    "kill": Act("admin", "/worlds/{world}/kill", {"reason": "a test"}, (), {}, {"killed": 1}),
    "resume": Act(
        "admin",
        "/worlds/{world}/resume",
        {"reason": "a test"},
        (("admin", "kill"),),
        {"killed": 1},
        {"killed": 1, "resumed": 1},
    ),
}


def ask(people: People, world: str, named: dict[str, Any], act: str, key: str) -> httpx.Response:
    does = ACTS[act]
    body = dict(does.body)
    if act in ("approve", "reject"):
        body |= named
    elif act == "apply":
        body |= {name: named[name] for name in ("strategy_id", "run_id")}
    elif act == "demote":
        body |= {"strategy_id": "s", "reason": "a test"}
    elif act == "submit":
        times = [stamp(BEGAN - i * DAY) for i in range(20, 0, -1)]
        series = {"t": times, "r": [0.001 * (i % 3) for i in range(20)]}
        body |= {"strategy_id": "t", "world": world, "fingerprint": "t", "returns": series}
    answer: httpx.Response = people.ask(
        does.who, "POST", does.path.format(world=world), body, headers={"Idempotency-Key": key}
    )
    return answer


def counts(data: Path, world: str) -> dict[str, int]:
    """What a dead server left: whole, and tables that say what the journal says."""
    store = SqlStore(data)
    try:
        for each in (SYSTEM, WorldId(world)):
            assert store.verify(each) is None
            assert store.audit(each) == []
        found: dict[str, int] = {}
        for entry in store.journal(WorldId(world), 0, 10_000):
            found[entry.fact.kind] = found.get(entry.fact.kind, 0) + 1
        return found
    finally:
        store.close()


def dies_at(mortal: Mortal, act: str, boundary: int, number: int) -> bool:
    """One world, and a death in it at this boundary; whether the act came so far."""
    world, named = candidate(mortal.people(), number)
    for who, first in ACTS[act].before:
        key = f"{world}-{who}-{first}"
        people = mortal.people()
        body = dict(named) if first == "approve" else None
        answer = (
            people.ask(who, "POST", LIVE.format(world=world) + "/approve", body)
            if first == "approve"
            else ask(people, world, named, first, key)
        )
        assert answer.status_code < 300, answer.text
    mortal.armed.write_text(str(boundary))
    try:
        answered = ask(mortal.people(), world, named, act, f"{world}-{act}")
        died = False
    except httpx.TransportError:
        answered, died = None, True
    mortal.armed.unlink()
    if died:
        mortal.server.gone()
        left = counts(mortal.data, world)
        assert {kind: left[kind] for kind in ACTS[act].has if kind in left} in (
            ACTS[act].had,
            ACTS[act].has,
        )
        mortal.begin()
        answered = ask(mortal.people(), world, named, act, f"{world}-{act}")
    assert answered is not None
    assert answered.status_code < 300, answered.text
    again = ask(mortal.people(), world, named, act, f"{world}-{act}")
    assert again.status_code < 300, again.text
    entries = mortal.people().ok("admin", "GET", f"/worlds/{world}/journal?limit=1000")["entries"]
    found = {kind: sum(e["kind"] == kind for e in entries) for kind in ACTS[act].has}
    assert found == ACTS[act].has
    return died


@pytest.mark.parametrize("act", ACTS)
def test_an_act_is_there_once_wherever_its_server_died(mortal: Mortal, act: str) -> None:
    base = 1000 * (1 + list(ACTS).index(act))
    deaths = 0
    for boundary in range(1, BOUNDARIES_MAX) if EVERY else QUICK:
        died = dies_at(mortal, act, boundary, base + boundary)
        deaths += died
        if not died:
            break
    else:
        assert not EVERY, "it never came to its end"
    print(f"{act}: {deaths} deaths")
    assert deaths >= (6 if EVERY else 1), "it has boundaries, and died at them"
