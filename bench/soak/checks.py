"""What must be true when a soak is over.  Each is a sentence, and what was found against it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from bench.soak.desk import OPERATOR, Desk, Name
from bench.soak.ears import BusEar, Follower
from qmtl.adapters.audit.allowed import audit
from qmtl.adapters.client import Client
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.wire.export import lines
from qmtl.adapters.wire.verify import verify
from qmtl.core import facts as f
from qmtl.core.facts import Entry
from qmtl.core.fold import advance
from qmtl.core.invariants import check
from qmtl.core.names import SYSTEM, Stage, WorldId
from qmtl.core.notices import of_entry
from qmtl.core.view import WorldView
from qmtl.entry.notify.messages import message_id

PAGE = 1_000
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at; `wrong`: nothing when it holds."""

    what: str
    wrong: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.wrong


def entries(store: SqlStore, world: str) -> Iterator[Entry]:
    after = 0
    while found := store.journal(WorldId(world), after, PAGE):
        yield from found
        after = found[-1].seq


def name_of(entry: Entry) -> Name | None:
    """Of what somebody at a desk wrote; None of what nobody there did."""
    fact, by = entry.fact, entry.actor
    match fact:
        case f.StrategyBound():
            return "strategy_bound", fact.strategy_id
        case f.SnapshotStored(stage=Stage.BACKTEST):
            return "backtest_stored", ", ".join(fact.covered)
        case f.SnapshotStored():
            return "snapshot_stored", fact.version
        case f.ApprovalGiven():
            return "approval_given", f"{by} {fact.reason}"
        case f.PromotionApplied() if by == OPERATOR:
            return "promotion_applied", f"{fact.candidate_id} {fact.run_id}"
        case f.Demoted() if by == OPERATOR:
            return "demoted", f"{fact.strategy_id} {fact.detail}"
        case f.Killed():
            return "killed", fact.reason
        case f.Resumed():
            return "resumed", fact.reason
        case f.HoldReleased():
            return "hold_released", f"{fact.strategy_id} {fact.reason}"
        case _:
            return None


def exactly_once(desk: Desk, journal: Iterable[Entry]) -> list[str]:
    """Acknowledged and not there, there twice, or there though nobody was told so.

    A run is one revision of one evaluation: recorded twice, a loop's work was done twice.
    """
    found: Counter[Name] = Counter()
    runs: Counter[tuple[str, str, int]] = Counter()
    for entry in journal:
        name = name_of(entry)
        if name is not None:
            found[name] += 1
        if isinstance(entry.fact, f.EvaluationsRecorded):
            runs.update((run.strategy_id, run.run_id, run.revision) for run in entry.fact.runs)
    wrong = [f"{desk.world}: {name} was acknowledged, and is lost" for name in desk.written - found]
    wrong += [f"{desk.world}: {name} is there too often" for name in found - desk.written]
    wrong += [f"{desk.world}: run {run} is there {n} times" for run, n in runs.items() if n > 1]
    return wrong


def untold(journal: Iterable[Entry], world: str, came: set[str]) -> list[str]:
    """Of what people have to know, what the notifier did not tell."""
    view, missing = WorldView(world_id=WorldId(world)), []
    for entry in journal:
        notice = of_entry(view, entry)
        view = advance(view, entry)
        if notice is not None and message_id(notice) not in came:
            missing.append(f"{world}: entry {entry.seq}: {notice.title}")
    return missing


def told(name: str, reached: int, head: int) -> list[str]:
    return [] if reached == head else [f"{name}: {reached} of {head} events came"]


def looked(
    url: str,
    client: Client,
    desks: list[Desk],
    followers: list[Follower],
    bus: BusEar,
    came: set[str],
) -> Iterator[Check]:
    """All of them, in order.  Everything is at rest."""
    with closing(SqlStore(url)) as store:
        worlds = [desk.world for desk in desks]
        heads = {world: store.head(WorldId(world)).seq for world in worlds}
        once = [wrong for desk in desks for wrong in exactly_once(desk, entries(store, desk.world))]
        yield Check("every acknowledged write is in the journal, exactly once", tuple(once))
        derived = [
            f"{world}: {wrong}"
            for world in (SYSTEM, *worlds)
            for wrong in store.audit(WorldId(world))
        ]
        yield Check("every table is what the journal says", tuple(derived))
        silent = [each for world in worlds for each in untold(entries(store, world), world, came)]
        yield Check("the notifier told everything at least once", tuple(silent))
        now = client.clock()["now"]
        sound = [
            f"{world}: {wrong}"
            for world in worlds
            for wrong in check(store.load(WorldId(world)), _instant(now))
        ]
        yield Check("every world keeps the invariants", tuple(sound))
        yield from _exported(client, worlds)
    sse = [wrong for each in followers for wrong in each.wrong]
    sse += [wrong for each in followers for wrong in told(each.world, each.last, heads[each.world])]
    yield Check("who followed over SSE saw each event once, in order, without a gap", tuple(sse))
    late = [wrong for world in worlds for wrong in told(world, bus.reached(world), heads[world])]
    yield Check("the bus told every event of each world, in order", (*bus.wrong, *late))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _exported(client: Client, worlds: list[str]) -> Iterator[Check]:
    """As `qmtl journal verify` and `qmtl journal audit` do, over the wire."""
    broken, allowed = [], []
    for world in worlds:
        head, key = client.journal_head(world), client.journal_key()
        export = list(lines(head, key, client.journal(world, limit=PAGE)))
        problem = verify(export).problem
        if problem is not None:
            broken.append(f"{world}: {problem.what}")
            continue
        for each in audit(export):
            allowed += [f"{world}: entry {each.seq}: {wrong.what}" for wrong in each.violations]
    yield Check("every journal verifies from its export", tuple(broken))
    yield Check("every weight that went up was allowed", tuple(allowed))
