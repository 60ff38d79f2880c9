"""What `qmtl doctor` looks at on this machine: Python, the surroundings, the project, the spool."""

import json
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import typer

from qmtl.adapters.client import CREDENTIAL, NO_CREDENTIAL, BadAddress, Client, checked
from qmtl.adapters.credentials import credential, data_default
from qmtl.core.words import counted

from . import project
from .check import Check, fail, ok, warn

PYTHON_MIN: Final = (3, 11)
OPTIONAL: Final = ("pandas", "polars")  # Strategies may be written over them; polars reads Parquet.
PARQUET: Final = ".parquet"
FREE_FAIL: Final = 100 << 20  # Less, and the next batch of a busy world may not fit.
FREE_WARN: Final = 1 << 30
GIB: Final = 1 << 30


def python() -> Iterator[Check]:
    """The interpreter, and the packages that are not required."""
    version = platform.python_version()
    if sys.version_info[:2] < PYTHON_MIN:
        wanted = ".".join(map(str, PYTHON_MIN))
        yield fail("python", f"Python {version}", f"use Python {wanted} or later")
    else:
        yield ok("python", f"Python {version}")
    found = {name: _version(name) for name in OPTIONAL}
    said = ", ".join(f"{name} {known or 'not installed'}" for name, known in found.items())
    yield ok("optional packages", said)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def surroundings(url: str) -> Iterator[Check]:
    """What the environment says."""
    try:
        checked(url)
    except BadAddress as error:
        yield fail("QMTL_URL", str(error), "set QMTL_URL, or --url, to the server's address")
    else:
        yield ok("QMTL_URL", url)
    token, path = credential(url)
    if token and not CREDENTIAL.fullmatch(token):
        named = "QMTL_TOKEN" if path is None else str(path)
        yield fail("QMTL_TOKEN", f"{named} holds no token", "export QMTL_TOKEN=<token>")
    elif path is not None:
        yield ok("QMTL_TOKEN", f"not set; the admin token in {path} serves")
    elif token:
        yield ok("QMTL_TOKEN", "set")
    else:
        remedy = "export QMTL_TOKEN=<token>; or QMTL_DATA=<the data folder of a server here>"
        yield warn("QMTL_TOKEN", f"not set, and no admin token in {data_default()}", remedy)


def here() -> Iterator[Check]:
    """The project file, and the files that it names."""
    try:
        known = project.here()
    except typer.BadParameter as error:
        yield fail("project", error.message, f"mend {project.NAME}")
        return
    if known.home is None:
        yield ok("project", f"none here; every option has to be said, or: {MAKES}")
        return
    path = known.home / project.NAME
    named = [known.prices]
    if known.strategy is not None:
        where = known.strategy.rpartition(":")[0]
        named.append(Path(where) if where.endswith(".py") else None)
    missing = [str(file) for file in named if file is not None and not file.is_file()]
    if missing:
        remedy = f"put it there, or name another in {path}"
        yield fail("project", f"{path} names what is not there: {', '.join(missing)}", remedy)
    elif known.prices is not None and known.prices.suffix == PARQUET and not _version("polars"):
        yield fail("project", "prices are Parquet, and polars is not installed", INSTALL)
    else:
        yield ok("project", str(path))


MAKES: Final = "qmtl init DIR"
INSTALL: Final = "pip install 'qmtl[polars]'"


def spool(client: Client | None) -> Iterator[Check]:
    """Submissions that wait for a server, and those that a world refused."""
    from qmtl.sdk import spool as kept

    folder = kept.folder()
    waiting: Counter[str] = Counter()
    others = unread = 0
    for path in sorted(folder.glob("*.json")):
        try:
            told = json.loads(path.read_bytes())
            url, by = str(told["url"]), told["credential"]
        except (OSError, ValueError, KeyError, TypeError):
            unread += 1
            continue
        waiting[url] += 1
        mine = client is None or url != client.url or by in (client.credential, NO_CREDENTIAL)
        others += not mine
    refused = len(list((folder / kept.REFUSED).glob("*.json")))
    if not (waiting or refused or unread):
        yield ok("spool", f"empty ({folder})")
    for url, count in sorted(waiting.items()):
        remedy = f"qmtl --url {url} submit --flush"
        yield warn("spool", f"{count} kept for {url}", remedy)
    if others:
        remedy = "set QMTL_TOKEN to the credential they were submitted under"
        yield warn("spool", f"{others} of them under another credential", remedy)
    if refused:
        remedy = f"mend and submit anew; then rm {folder / kept.REFUSED}/*.json"
        yield warn("spool", f"{refused} refused by a world, in {folder / kept.REFUSED}", remedy)
    if unread:
        found = f"not readable: {counted(unread, 'file')} in {folder}"
        yield fail("spool", found, f"look at {folder}")


def disk(*folders: Path) -> Iterator[Check]:
    """Space where things are kept."""
    seen: set[int] = set()
    for folder in folders:
        place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        device = place.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(place).free
        found = f"{free / GIB:,.1f} GiB free at {place}"
        remedy = f"make room at {place}"
        if free < FREE_FAIL:
            yield fail("disk", found, remedy)
        elif free < FREE_WARN:
            yield warn("disk", found, remedy)
        else:
            yield ok("disk", found)
