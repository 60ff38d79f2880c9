"""The system: whether it is well, and what it is."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import Response

from qmtl.app import program, worlds
from qmtl.core.errors import CodeDiffers
from qmtl.core.names import SYSTEM, WorldId
from qmtl.core.view import WorldView
from qmtl.entry import auth
from qmtl.entry.identity import Credential

from .visits import Pages, Visit, VisitIn

PAGES = Pages()
SLOW_SEC = 0.5  # A store that needs longer for what is in memory is busy with something else.
WORLDS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Check:
    """`state`: ok, warn or fail; `remedy` says what to do, where something is."""

    state: str
    name: str
    found: str
    remedy: str = ""


@PAGES.shows(auth.UI + "/system")
def get(visit: VisitIn) -> Response:
    """Everything that can be told from inside; `qmtl doctor` looks from outside, too."""
    return visit.page("system.html", checks=list(checks(visit)))


def checks(visit: Visit) -> Iterator[Check]:
    """The process, the store, the clock, who is asking, and every world they may see."""
    services, store = visit.call.services, visit.store
    began = time.monotonic()
    head = store.head(SYSTEM)
    took = time.monotonic() - began
    state = "ok" if took < SLOW_SEC else "warn"
    yield Check(state, "Store", f"answers in {1000 * took:.1f} ms; the system's entry {head.seq}")
    yield _code(visit)
    yield _clock(visit)
    yield Check("ok", "Journal key", f"heads are signed as {services.journal_key.key_id}")
    two = "what is dangerous takes two people" if services.dual_control else "off"
    yield Check(
        "ok" if services.dual_control else "warn",
        "Dual control",
        two,
        ""
        if services.dual_control
        else "fine on one's own machine; else: qmtl serve --dual-control",
    )
    yield Check("ok", "Signed in", _who(visit.call.credential))
    mine = [w for w in worlds.listed(store, None, WORLDS_MAX) if _sees(visit, w.world_id)]
    troubled = [found for w in mine for found in _world(store.load(w.world_id))]
    yield Check("ok", "Worlds", f"{len(mine)} that you may see, {len(troubled)} need something")
    yield from troubled


def _sees(visit: Visit, world_id: WorldId) -> bool:
    return bool(visit.call.credential.roles_in(world_id))


def _code(visit: Visit) -> Check:
    try:
        program.must_decide(visit.store, visit.call.services.code)
    except CodeDiffers as differs:
        said = " ".join(map(str, differs.args))
        return Check("fail", "Code", said, "stop this process: it takes nobody live any more")
    return Check("ok", "Code", f"{visit.call.services.code[:12]}, which decides")


def _clock(visit: Visit) -> Check:
    now = f"{visit.call.by_token.now:%Y-%m-%d %H:%M:%S} UTC"
    if visit.call.services.replay is not None:
        return Check("ok", "Clock", f"a replay clock: it stands at {now} until it is moved")
    return Check("ok", "Clock", now)


def _who(credential: Credential) -> str:
    grants = (
        f"{', '.join(sorted(g.roles))} in {g.world_id or 'every world'}" for g in credential.grants
    )
    return f"{credential.actor}: {'; '.join(grants)}"


def _world(view: WorldView) -> Iterator[Check]:
    name = f"World {view.world_id}"
    if view.default_version is None:
        yield Check(
            "warn",
            name,
            "has no policy: nothing is judged",
            f"qmtl policy set {view.world_id} sandbox",
        )
    if view.killed:
        yield Check("warn", name, "was killed", "resume it on its page")
    if view.state != "active":
        yield Check("warn", name, f"is {view.state}", "make it active again on its page")
