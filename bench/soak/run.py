"""The soak itself: days of trading while processes die, and what was found when it is over."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from bench.soak.checks import Check, looked
from bench.soak.desk import MODES, Desk, NobodyAnswers, Staff
from bench.soak.ears import BusEar, Follower, receiving
from bench.soak.growth import Growth, Sample, database_bytes_per_event, grown, second_half
from bench.soak.plan import SURVIVES, Death, deaths
from bench.soak.scene import Scene, scene
from qmtl.adapters.client import ApiError, Away
from qmtl.adapters.outgoing.deliveries import Deliveries
from qmtl.core.errors import Refusal
from qmtl.core.times import rfc3339
from qmtl.entry.notify.config import STATE_DEFAULT
from tests.campaigns import BEGAN

WORLDS_MAX = 4
CAUGHT_UP_SEC = 60.0
LOOK_SEC = 0.1
JUDGED_HOURS_MIN = 1 / 12  # A shorter half says more of how a process starts than of what grows.
AFTER_THE_CLOSE = timedelta(minutes=1)
OURS = (
    "server 0",
    "server 1",
    "loop 0",
    "loop 1",
    "notifier",
)  # What grows elsewhere is told, not judged.
NOBODY_CALLED = "nobody had to be called"


@dataclass(frozen=True, slots=True)
class Settings:
    strategies: int = 1_000
    days: int = 250
    seed: int = 0
    kills: int = 40
    minutes: float | None = None  # That the days may take; what there is then is checked.


@dataclass(frozen=True, slots=True)
class Died:
    """A death as it was: seconds from the kill until it was started again and answered."""

    death: Death
    gone_sec: float


@dataclass
class Soak:
    """What was found."""

    settings: Settings
    checks: list[Check] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    died: list[Died] = field(default_factory=list)
    desks: list[Desk] = field(default_factory=list)
    seconds: float = 0.0
    streams_broke: int = 0
    bus_broke: int = 0
    bus_again: int = 0

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def growth(self) -> list[Growth]:
        return grown(self.samples, OURS)

    @property
    def judged_hours(self) -> float:
        """How long the part lasted that growth is judged by; 0 when it is not judged."""
        late = second_half(self.samples)
        lasted = late[-1].hours - late[0].hours if late else 0.0
        return lasted if lasted >= JUDGED_HOURS_MIN else 0.0

    @property
    def database_bytes_per_event(self) -> tuple[float, float]:
        return database_bytes_per_event(self.samples) if len(self.samples) > 1 else (0.0, 0.0)

    @property
    def acknowledged(self) -> int:
        return sum(sum(desk.written.values()) for desk in self.desks)

    @property
    def times_died(self) -> Counter[str]:
        return Counter(each.death.target for each in self.died)


Tell = Callable[[str, int, int], None]  # What is done, how much of it, of how much.


def soak(settings: Settings, folder: Path, tell: Tell) -> Soak:
    """Runs one; nothing is raised for what it finds."""
    found, began = Soak(settings), time.monotonic()
    with scene(folder, BEGAN) as there, ExitStack() as opened:
        admins = tuple(opened.enter_context(there.client(n)) for n in range(len(there.urls)))
        staff = opened.enter_context(closing(Staff.hired(admins)))
        there.start_loops(staff.tokens["loop"])
        url, came = opened.enter_context(receiving())
        there.start_notifier(staff.tokens["nina"], url)
        bus = BusEar(there.bus.url)
        bus.start()
        opened.callback(bus.stop)
        found.desks = desks = _desks(settings, staff)
        worlds = [desk.world for desk in desks]
        followers: list[Follower] = []
        try:
            with _supervised(there), ThreadPoolExecutor(len(desks)) as pool:
                for desk, mode in zip(desks, MODES * len(desks), strict=False):
                    desk.begin(mode)
                    followers.append(Follower(desk.world, admins))
                    followers[-1].start()
                    opened.callback(followers[-1].stop)
                _submitted(desks, pool, tell)
                # What was before its first look at a world, a notifier takes for history.
                _until(lambda: _has_told(folder / STATE_DEFAULT, dict.fromkeys(worlds, 1)))
                _days(found, there, desks, pool, tell)
            there.rest()
            found.checks.append(Check(NOBODY_CALLED, (*there.ended, *there.tracebacks())))
            tell("verified", 0, 1)
            heads = {world: admins[0].journal_head(world)["seq"] for world in worlds}
            _until(lambda: _caught_up(heads, followers, bus, folder / STATE_DEFAULT))
            found.checks += looked(there.url, admins[0], desks, followers, bus, came)
            tell("verified", 1, 1)
        except (NobodyAnswers, ApiError, Away, Refusal) as error:
            found.checks.append(Check(NOBODY_CALLED, (f"{type(error).__name__}: {error}",)))
        found.streams_broke = sum(max(each.opened - 1, 0) for each in followers)
        found.bus_broke, found.bus_again = bus.broke, bus.again
    if found.judged_hours:
        judged = {each.name for each in found.growth}
        faults = [f"{name} was started again too late to say" for name in {*SURVIVES} - judged]
        faults += [fault for each in found.growth for fault in each.faults()]
        found.checks.append(Check("nothing grows", tuple(faults)))
    found.seconds = time.monotonic() - began
    return found


def _desks(settings: Settings, staff: Staff) -> list[Desk]:
    count = min(WORLDS_MAX, -(-settings.strategies // 2))
    names = [f"s{number}" for number in range(settings.strategies)]
    return [
        Desk(f"world-{n}", names[n::count], settings.days, settings.seed, staff)
        for n in range(count)
    ]


@contextmanager
def _supervised(there: Scene) -> Iterator[None]:
    over = threading.Event()
    watching = threading.Thread(target=there.watch, args=(over,), name="supervisor")
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _submitted(desks: list[Desk], pool: ThreadPoolExecutor, tell: Tell) -> None:
    total, lock = sum(len(desk.strategies) for desk in desks), threading.Lock()
    done = 0

    def submit(desk: Desk) -> None:
        nonlocal done
        for _ in desk.submit():
            with lock:
                done += 1
                tell("submitted", done, total)

    list(pool.map(submit, desks))
    list(pool.map(Desk.settle, desks))


def _days(
    found: Soak, there: Scene, desks: list[Desk], pool: ThreadPoolExecutor, tell: Tell
) -> None:
    settings, first, lasted = found.settings, time.monotonic(), 1.0
    planned = deaths(settings.days, settings.kills, settings.seed)
    with ThreadPoolExecutor(max(len(planned), 1), "death") as dying:
        for day in range(settings.days):
            began, at = time.monotonic(), BEGAN + timedelta(days=day + 1)
            if settings.minutes is not None and began - first > 60 * settings.minutes:
                return
            body = {"now": rfc3339(at + AFTER_THE_CLOSE)}
            desks[0].asked("admin", "POST", "/clock", body=body)
            today = [
                dying.submit(_dies, there, death, death.part * lasted)
                for death in planned
                if death.day == day
            ]
            list(pool.map(partial(_live, day=day, at=at), desks))
            found.died += [death.result() for death in today]
            list(pool.map(Desk.settle, desks))  # Whoever died is back, and so is what they did.
            lasted = time.monotonic() - began
            size, connections, events = there.database_size()
            hours = (time.monotonic() - first) / 3600
            found.samples.append(Sample(day, hours, events, size, connections, there.usage()))
            tell("traded", day + 1, settings.days)


def _live(desk: Desk, day: int, at: datetime) -> None:
    desk.trade(day, at)
    desk.rule(day)
    desk.settle()


def _dies(there: Scene, death: Death, after_sec: float) -> Died:
    time.sleep(after_sec)
    began = time.monotonic()
    there.dies(death.target, death.down_sec)
    return Died(death, time.monotonic() - began)


def _caught_up(
    heads: dict[str, int], followers: list[Follower], bus: BusEar, notified: Path
) -> bool:
    """Whether everybody has heard everything."""
    followed = all(each.last >= heads[each.world] for each in followers)
    told = all(bus.reached(world) >= head for world, head in heads.items())
    return followed and told and _has_told(notified, heads)


def _until(holds: Callable[[], bool]) -> None:
    """Waits until it does, or ought to."""
    until = time.monotonic() + CAUGHT_UP_SEC
    while not holds() and time.monotonic() < until:
        time.sleep(LOOK_SEC)


def _has_told(state: Path, heads: dict[str, int]) -> bool:
    """Whether the notifier has read so far, and nothing of it waits."""
    with closing(Deliveries(state)) as kept:
        places = {world: kept.position(world) for world in heads}
        read = all(place and place.seq >= heads[world] for world, place in places.items())
        return read and not kept.log(1, "waiting")
