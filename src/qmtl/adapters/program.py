"""Which program this is: the code that decides, and all of it, each named by its content."""

from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable

from qmtl.core.names import Digest

CORE = "qmtl.core"  # All that decides: the floors above it carry what it says.
ALL = "qmtl"


def digest_of_core() -> Digest:
    """Names the source of `qmtl.core`: every file of it, by name and content."""
    return _digest_of(CORE)


def digest_of_all() -> Digest:
    """Names the source of `qmtl`, likewise."""
    return _digest_of(ALL)


@cache  # As it was when it was first asked: what is edited later is not what runs.
def _digest_of(package: str) -> Digest:
    told = sha256()
    for name, file in sorted(_sources(resources.files(package), ""), key=lambda each: each[0]):
        told.update(f"{name}\0".encode())
        told.update(sha256(file.read_bytes()).digest())
    return Digest(told.hexdigest())


def _sources(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _sources(each, f"{path}{each.name}/")
        elif each.name.endswith(".py"):
            yield f"{path}{each.name}", each
