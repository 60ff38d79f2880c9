"""What `qmtl doctor` looks at over HTTP: the server, the credential, the worlds, the clock."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from hashlib import sha256
from typing import Any, Final

from qmtl import __version__
from qmtl.adapters.client import ApiError, Away, Client
from qmtl.adapters.clock import SystemClock
from qmtl.adapters.credentials import credential

from .check import Check, away, fail, ok, warn

SKEW_WARN_SEC: Final = 5.0  # More, and a decision with a short term is old when it arrives.
SKEW_FAIL_SEC: Final = 60.0  # A snapshot from further in the future is refused.
WORLDS_NAMED_MAX: Final = 20  # Of those that need something; more are counted.
STARTS: Final = "qmtl serve starts one here; QMTL_URL or --url names another"


def server(client: Client, world: str | None) -> Iterator[Check]:
    """Everything; ends with the first thing that makes the rest meaningless.

    world  the project's, if it is in one
    """
    try:
        told = client.send("GET", "/healthz")
    except Away as error:
        yield away("server", str(error), STARTS)
        return
    except ApiError as error:
        remedy = "QMTL_URL or --url: another port or another host"
        yield fail("server", f"{client.url} answers, and is no qmtl: {error}", remedy)
        return
    known = told.get("version")
    if known != __version__:
        found = f"{client.url} is version {known}, this is {__version__}"
        yield warn("server", found, "install the same version on both sides")
    else:
        yield ok("server", f"{client.url}, version {known}")
    try:
        client.send("GET", "/readyz")
        yield from _inside(client, world)
    except Away as error:
        yield away("world service", str(error), "start it, or wait: the gateway keeps submissions")


def _inside(client: Client, world: str | None) -> Iterator[Check]:
    try:
        known = list(client.worlds())
    except ApiError as error:
        remedy = "export QMTL_TOKEN=<token of this server>; an admin makes one: qmtl token create"
        yield fail("credential", str(error), remedy)
        return
    yield _credential(client)
    yield from _worlds(known, world)
    yield _clock(client)


def _credential(client: Client) -> Check:
    """Only an admin may list the tokens, and find his own among them."""
    token, _ = credential(client.url)
    try:
        own = sha256((token or "").encode()).hexdigest()
        mine = next((t for t in client.tokens() if t["token_id"] == own), None)
    except ApiError:
        return ok("credential", "valid; its roles are for an admin to see: qmtl token list")
    if mine is None:
        return ok("credential", "valid, as an admin")
    where = mine["world_id"] or "every world"
    roles = ", ".join(mine["roles"])
    until = f", until {mine['expires_at']}" if mine["expires_at"] else ""
    return ok("credential", f"{mine['actor']}: {roles} in {where}{until}")


def _worlds(known: list[dict[str, Any]], world: str | None) -> Iterator[Check]:
    ids = [each["id"] for each in known]
    if not ids:
        yield warn("worlds", "the credential sees none", "qmtl world create WORLD")
    else:
        yield ok("worlds", f"{len(ids)}: {', '.join(ids[:WORLDS_NAMED_MAX])}")
    if world is not None and world not in ids:
        meant = get_close_matches(world, ids, 1)
        remedy = f"in qmtl.toml: world = {meant[0]!r}" if meant else f"qmtl world create {world}"
        yield fail("worlds", f"the project's world {world} is not there", remedy)
    troubled = [found for each in known for found in _world(each)]
    yield from troubled[:WORLDS_NAMED_MAX]
    if len(troubled) > WORLDS_NAMED_MAX:
        more = len(troubled) - WORLDS_NAMED_MAX
        yield warn("worlds", f"{more} more need something", "qmtl world list")


def _world(told: dict[str, Any]) -> Iterator[Check]:
    name = f"world {told['id']}"
    if told["default_policy_version"] is None:
        yield warn(
            name, "has no policy: nothing is judged", f"qmtl policy set {told['id']} sandbox"
        )
    if told["killed"]:
        yield warn(name, "was killed", f"qmtl world resume {told['id']} --reason ...")
    if told["state"] != "active":
        yield warn(name, f"is {told['state']}", f"qmtl world set {told['id']} --state active")
    for asked in told["confirmations"]:
        remedy = f"qmtl world confirm {told['id']} {asked['confirmation_id']}"
        yield warn(name, f"{asked['what']} of {asked['by']} waits for a second person", remedy)


def _clock(client: Client) -> Check:
    """Ours halfway through the question against theirs, give or take half the round trip."""
    began = time.monotonic()
    before = SystemClock().now()
    told = client.clock()
    half = (time.monotonic() - began) / 2
    theirs = datetime.fromisoformat(told["now"]).astimezone(UTC)
    if told["replay"]:
        return ok("clock", f"a replay clock: it stands at {told['now']} until it is moved")
    ahead = (theirs - before).total_seconds() - half
    found = (
        f"the server's is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'} (± {half:.2f})"
    )
    remedy = "synchronise both machines' clocks (timedatectl set-ntp true)"
    if abs(ahead) - half > SKEW_FAIL_SEC:
        return fail("clock", found, remedy)
    if abs(ahead) - half > SKEW_WARN_SEC:
        return warn("clock", found, remedy)
    return ok("clock", found)
