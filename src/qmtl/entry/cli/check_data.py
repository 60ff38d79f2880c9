"""What `qmtl doctor` looks at in the data folder of a server here: who may read it, who holds it,
and whether the database says what its journal says."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from qmtl.adapters.clock import SystemClock
from qmtl.adapters.credentials import ADMIN_TOKEN

from .check import Check, fail, ok, warn

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
RESTORE: Final = "stop the server, keep the folder as it is, and restore the last good copy"


def data(folder: Path, *, replay: bool, on_world: Callable[[str], None]) -> Iterator[Check]:
    """Of a folder that need not be there.  `replay`: the whole journal, which takes a while."""
    if not folder.exists():
        yield ok("data folder", f"{folder} is not there: no server keeps its data here")
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        remedy = f"run doctor as its owner (ls -ld {folder})"
        yield warn("data folder", f"{folder} is not this user's to read", remedy)
        return
    yield from _permissions(folder)
    from qmtl.adapters.sql.folder import DATABASE

    if not (folder / DATABASE).exists():
        yield ok("database", f"{folder} has none yet; the first start of a server makes it")
        return
    if not os.access(folder / DATABASE, os.R_OK):
        remedy = f"run doctor as its owner (ls -l {folder / DATABASE})"
        yield warn("database", f"{folder / DATABASE} is not this user's to read", remedy)
        return
    yield from _database(folder, replay, on_world)


def _permissions(folder: Path) -> Iterator[Check]:
    token = folder / ADMIN_TOKEN
    opened = [path for path in (folder, token) if path.exists() and path.stat().st_mode & OTHERS]
    for path in opened:
        mode = stat.S_IMODE(path.stat().st_mode)
        remedy = f"chmod {700 if path is folder else 600} {path}"
        # Who reads the token is an admin; who only lists the folder has a list.
        told = fail if path is token else warn
        yield told("data folder", f"others may use {path} (mode {mode:o})", remedy)
    if not opened:
        yield ok("data folder", f"{folder}, its owner's alone")


def _database(folder: Path, replay: bool, on_world: Callable[[str], None]) -> Iterator[Check]:
    from qmtl.adapters import objects
    from qmtl.adapters.sql import checkup

    found = checkup.look(
        folder, SystemClock().now(), replay=replay, on_world=on_world, objects=objects.here()
    )
    served = "a server holds it" if found.served else "no server holds it"
    for fault in found.database:
        yield fail("database", f"{folder}: {fault}", RESTORE)
    if found.database:
        return
    yield ok("database", f"whole; {served}")
    for world_id, faults in found.worlds.items():
        for fault in faults:
            yield fail(f"world {world_id}", fault, RESTORE)
    sound = [world_id for world_id, faults in found.worlds.items() if not faults]
    if replay:
        held = "hash chain whole, tables as the journal says, invariants hold"
    else:
        held = "hash chain whole, invariants hold; not replayed (--quick)"
    if sound or not found.worlds:
        yield ok("journal", f"{len(sound)} of {len(found.worlds)} worlds: {held}")
    for world_id in found.unreplayed:
        remedy = "nothing: retention was asked to drop them"
        yield warn(f"world {world_id}", "cannot be replayed: bodies were dropped", remedy)
