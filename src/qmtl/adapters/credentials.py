"""Which token a client of this machine has: its own, or the one that a local server left for it."""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

ADMIN_TOKEN: Final = "admin.token"  # In a data folder: what a first start on loopback leaves.


def data_default() -> Path:
    """Where a server keeps its data when nobody says where."""
    named = os.environ.get("QMTL_DATA")
    return Path(named) if named else Path.home() / ".local" / "share" / "qmtl"


def credential(url: str) -> tuple[str | None, Path | None]:
    """The token for a server, and the file that it is from, if from one.

    QMTL_TOKEN; without it, and for a server on this machine, the admin token that the server left
    in its data folder.  INVARIANT: what is in that folder is never sent to another machine.
    """
    token = os.environ.get("QMTL_TOKEN")
    path = data_default() / ADMIN_TOKEN
    if not token and is_loopback(url) and path.is_file() and os.access(path, os.R_OK):
        return path.read_text(encoding="utf-8").strip(), path
    return token or None, None


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine, and reached by no name that could lie."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # It is no address, and `checked` says so.
        return False
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
