"""SIGKILL at every boundary of approve, reject, apply, demote, submit, kill and resume.

What is left is whole, and is the old state or the new one; what was answered is there; the same
request again, without a key or with one, comes to exactly one effect, recorded once.  `dying.py`
says what a boundary is; the servers are real.  A sample here, the same every time; `make crash`
has them all.
"""

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from qmtl.adapters.audit.allowed import audit
from qmtl.adapters.client import Client
from qmtl.adapters.sql import checkup
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.wire.export import lines
from qmtl.core.names import SYSTEM, WorldId
from qmtl.entry.loop import run_once
from qmtl.entry.wiring import ADMIN_TOKEN, Part, Settings
from tests import campaigns
from tests.campaigns import BEGAN, MANUAL

from .dying import DEADLINE_SEC, NEVER, POLL_SEC, Mortal, serve

ALL = "QMTL_CRASH_ROUNDS" in os.environ
CUTS = 1  # Of each act, in the ordinary run.
WORLD, SID = "w", "s00"
ENTRIES_MAX = 10_000
AWAY = "http://127.0.0.1:9"  # The discard port, where nobody listens.
KEY = "k"
MOMENTS = ("before", "after")

State = dict[str, list[Any]]


@dataclass(frozen=True)
class Act:
    """A request, and where it begins: the last step of `SCENES` that was done before."""

    name: str
    scene: str
    path: str
    body: dict[str, Any]
    who: str = "admin"
    key: str | None = None

    def __str__(self) -> str:
        return self.name


ABOUT = {"strategy_id": SID, "run_id": "RUN"}
WHY = {"reason": "a test"}
LIVE = f"/worlds/{WORLD}/promotions/live"
ACTS = [
    Act("submit", "proposed", "/strategies", campaigns.submission(WORLD, "s01")),
    Act("approve", "proposed", f"{LIVE}/approve", ABOUT | WHY, "pia"),
    Act("approve with a key", "proposed", f"{LIVE}/approve", ABOUT | WHY, "pia", KEY),
    Act("reject", "proposed", f"{LIVE}/reject", ABOUT | WHY, "pia"),
    Act("apply", "approve", f"{LIVE}/apply", ABOUT),
    Act("apply with a key", "approve", f"{LIVE}/apply", ABOUT, key=KEY),
    Act("demote", "apply", f"/worlds/{WORLD}/demote", {"strategy_id": SID, "to": "paper"} | WHY),
    Act("kill", "apply", f"/worlds/{WORLD}/kill", WHY),
    Act("resume", "kill", f"/worlds/{WORLD}/resume", WHY),
]
BY_NAME = {act.name: act for act in ACTS}
SCENES = ("approve", "apply", "kill")  # After "proposed", each on the one before.
SUBMIT = BY_NAME["submit"]


@dataclass
class Ground:
    """Folders as they are before each act, and who has which credential."""

    home: Path
    tokens: dict[str, str] = field(default_factory=dict)
    run: str = ""
    came_to: dict[str, "Outcome"] = field(default_factory=dict)
    used: int = 0

    def folder(self, scene: str) -> Path:
        """A copy of a scene's folder, for one trial."""
        self.used += 1
        return Path(shutil.copytree(self.home / scene, self.home / f"trial{self.used}"))

    def beside(self) -> Path:
        """An empty folder for a gateway."""
        self.used += 1
        return self.home / f"gateway{self.used}"

    def send(self, url: str, act: Act) -> httpx.Response | None:
        """The answer; None when there is none."""
        with self.sent(url, act) as answer:
            return answer

    @contextmanager
    def sent(self, url: str, act: Act) -> Iterator[httpx.Response | None]:
        """The same, its connection open meanwhile: who hangs up once all of a streamed answer has
        come may be spared its last part, which is empty, and then has fewer boundaries."""
        headers = {"Authorization": f"Bearer {self.tokens[act.who]}"}
        if act.key is not None:
            headers["Idempotency-Key"] = act.key
        body = {k: self.run if v == "RUN" else v for k, v in act.body.items()}
        with httpx.Client(timeout=DEADLINE_SEC, trust_env=False) as client:
            try:
                answer = client.post(url + act.path, json=body, headers=headers)
            except httpx.TransportError:
                answer = None
            yield answer


@dataclass(frozen=True)
class Outcome:
    """What an act comes to undisturbed: before, after, its answer, and its boundaries."""

    old: State
    new: State
    answer: Any
    reached: tuple[str, ...]

    @property
    def boundaries(self) -> int:
        return len(self.reached)


def world_on(data: Path, port: int = 0) -> Mortal:
    return serve(Settings(data=data, port=port, replay=True, part=Part.WORLD))


def gateway_on(data: Path, world_url: str) -> Mortal:
    return serve(Settings(data=data, port=0, part=Part.GATEWAY, world_url=world_url))


def state_of(data: Path) -> State:
    """Every fact, of a copy: the folder stays as it was found."""
    copy = Path(shutil.copytree(data, data.with_name(data.name + "-seen")))
    store = SqlStore(copy)
    try:
        found: State = {}
        for world in (SYSTEM, WorldId(WORLD)):
            entries = store.journal(world, 0, ENTRIES_MAX)
            found[world] = [(e.seq, e.generation, e.at, e.actor, e.fact) for e in entries]
        return found
    finally:
        store.close()
        shutil.rmtree(copy)


def unharmed(data: Path) -> None:
    """SQLite's own checks, the chain, tables that say what the journal does, and the invariants."""
    found = checkup.look(data, BEGAN)
    assert not found.database
    assert found.worlds
    assert not any(found.worlds.values()), found.worlds


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    made = Ground(tmp_path_factory.mktemp("boundaries"))
    data = made.home / "proposed"
    with (
        serve(Settings(data=data, port=0, replay=True, at=BEGAN)) as server,
        Client(server.url, (data / ADMIN_TOKEN).read_text().strip()) as client,
    ):
        made.tokens["admin"] = (data / ADMIN_TOKEN).read_text().strip()
        made.tokens["pia"] = client.create_token(actor="pia", roles=["approver"])["token"]
        campaigns.begin(client, WORLD, 1, MANUAL)
        campaigns.month_of_paper(client, {WORLD: 1})
        assert run_once(client, WORLD).ok
        [candidate] = client.candidates(WORLD)
        made.run = candidate["run_id"]
    before = "proposed"
    for name in SCENES:
        shutil.copytree(made.home / before, made.home / name)
        with world_on(made.home / name) as server:
            answer = made.send(server.url, BY_NAME[name])
            assert answer is not None
            assert answer.is_success, answer.text
        before = name
    return made


def undisturbed(ground: Ground, act: Act) -> Outcome:
    """Played once an act."""
    if act.name not in ground.came_to:
        data = ground.folder(act.scene)
        old = state_of(data)
        with world_on(data) as server:
            server.arm(NEVER)
            answer = ground.send(server.url, act)
            assert answer is not None
            assert answer.is_success, answer.text
            assert not server.settled()
            reached = tuple(server.reached)
        new = state_of(data)
        assert new != old
        ground.came_to[act.name] = Outcome(old, new, answer.json(), reached)
    return ground.came_to[act.name]


def chosen(name: str, boundaries: int) -> list[int]:
    """Where to die: everywhere, and once beyond, where nobody dies; or a sample."""
    if ALL:
        return list(range(1, boundaries + 2))
    return sorted(random.Random(name).sample(range(1, boundaries + 1), CUTS))


def once(ground: Ground, act: Act, url: str) -> None:
    """The same request again: it is done, and every weight that went up was allowed."""
    answer = ground.send(url, act)
    assert answer is not None
    assert answer.is_success, answer.text
    if act.key is not None:
        assert answer.json() == undisturbed(ground, act).answer
    with Client(url, ground.tokens["admin"]) as client:
        head, key = client.journal_head(WORLD), client.journal_key()
        transitions = audit(lines(head, key, list(client.journal(WORLD))))
    assert [each.violations for each in transitions] == [()] * len(transitions)


@pytest.mark.parametrize("act", ACTS, ids=str)
def test_the_boundaries_are_those_that_matter(ground: Ground, act: Act) -> None:
    reached = undisturbed(ground, act).reached
    borders = ["BEGIN IMMEDIATE", "SAVEPOINT job_0", "RELEASE job_0", "COMMIT"]
    expected = [f"{when} {border}" for border in borders for when in MOMENTS]
    written = reached[reached.index(expected[0]) :]  # Reading has a BEGIN and a COMMIT, too.
    assert [name for name in written if name in expected] == expected
    commit = written.index("after COMMIT")
    assert set(written[commit + 1 :]) == {f"{when} a part of the answer" for when in MOMENTS}


@pytest.mark.parametrize("act", ACTS, ids=str)
def test_killed_at_a_boundary_it_is_the_old_state_or_the_new_one(ground: Ground, act: Act) -> None:
    came_to = undisturbed(ground, act)
    for at in chosen(act.name, came_to.boundaries):
        data = ground.folder(act.scene)
        with world_on(data) as server:
            server.arm(at)
            answer = ground.send(server.url, act)
            assert server.settled() is (at <= came_to.boundaries)
            where = f"boundary {at}, {server.reached[-1:]}"
        unharmed(data)
        found = state_of(data)
        assert found in (came_to.old, came_to.new), where
        if answer is not None and answer.is_success:
            assert found == came_to.new, where
        with world_on(data) as server:
            once(ground, act, server.url)
        assert state_of(data) == came_to.new, where
        unharmed(data)


# ---- A gateway apart -----------------------------------------------------------------------------


def test_a_gateway_killed_at_a_boundary_of_a_submission(ground: Ground) -> None:
    """Its own boundaries, while the world is there: between its request and the world's answer,
    and between that and its own."""
    came_to, data = undisturbed(ground, SUBMIT), ground.folder(SUBMIT.scene)
    with world_on(data) as world, gateway_on(ground.beside(), world.url) as gateway:
        gateway.arm(NEVER)
        with ground.sent(gateway.url, SUBMIT):
            assert not gateway.settled()
        reached = gateway.reached
    assert {"before a request to the world", "after the world's answer"} <= set(reached)
    for at in chosen("at a gateway", len(reached)):
        data, own = ground.folder(SUBMIT.scene), ground.beside()
        with world_on(data) as world:
            with gateway_on(own, world.url) as gateway:
                gateway.arm(at)
                with ground.sent(gateway.url, SUBMIT):
                    assert gateway.settled() is (at <= len(reached))
                where = f"boundary {at}, {gateway.reached[-1:]}"
            with gateway_on(own, world.url) as gateway:
                once(ground, SUBMIT, gateway.url)
        assert state_of(data) == came_to.new, where
        unharmed(data)


def test_a_world_killed_behind_a_gateway_gets_what_was_kept_for_it(ground: Ground) -> None:
    """It dies at each boundary of a submission; the gateway keeps that, and forwards it later."""
    came_to = undisturbed(ground, SUBMIT)
    for at in chosen("behind a gateway", came_to.boundaries):
        data, own = ground.folder(SUBMIT.scene), ground.beside()
        with world_on(data) as world, gateway_on(own, world.url) as gateway:
            world.arm(at)
            answer = ground.send(gateway.url, SUBMIT)
            assert world.settled() is (at <= came_to.boundaries)
            world.stop()
            unharmed(data)
            port = int(world.url.rpartition(":")[2])
            with world_on(data, port) as again:
                if answer is not None and answer.is_success:  # Nobody has to send it again.
                    arrived(ground, own, again)
                once(ground, SUBMIT, gateway.url)
        assert state_of(data) == came_to.new, f"boundary {at}, {world.reached[-1:]}"


def test_a_submission_that_a_gateway_says_it_keeps_survives_its_death(ground: Ground) -> None:
    """The world is away; the gateway dies at each boundary of keeping the submission."""
    came_to = undisturbed(ground, SUBMIT)
    with gateway_on(ground.beside(), AWAY) as gateway:
        gateway.arm(NEVER)
        answer = ground.send(gateway.url, SUBMIT)
        assert answer is not None
        assert answer.status_code == 202
        assert not gateway.settled()
        reached = gateway.reached
    assert {f"{when} {what}" for when in MOMENTS for what in ("fsync", "rename")} <= set(reached)
    for at in chosen("at a gateway alone", len(reached)):
        data, own = ground.folder(SUBMIT.scene), ground.beside()
        with gateway_on(own, AWAY) as gateway:
            gateway.arm(at)
            answer = ground.send(gateway.url, SUBMIT)
            gateway.settled()  # It may die of trying to forward, too.
            where = f"boundary {at}, {gateway.reached[-1:]}"
        with world_on(data) as world, gateway_on(own, world.url) as gateway:
            if answer is not None:
                assert answer.status_code == 202
                arrived(ground, own, world)
            once(ground, SUBMIT, gateway.url)
            arrived(ground, own, world)
        assert state_of(data) == came_to.new, where
        unharmed(data)


def arrived(ground: Ground, own: Path, world: Mortal) -> None:
    """Once a gateway keeps nothing any more, the world has it."""
    deadline = monotonic() + DEADLINE_SEC
    with Client(world.url, ground.tokens["admin"]) as client:
        while list((own / "spool").glob("*.json")):
            assert monotonic() < deadline, "a submission that was kept does not come"
            sleep(POLL_SEC)
        assert "s01" in {each["strategy_id"] for each in client.strategies(WORLD)}
