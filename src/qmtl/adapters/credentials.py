"""Which token a client of this machine has: its own, or the one that a local server left for it."""

import os
from collections.abc import MutableMapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

ADMIN_TOKEN: Final = "admin.token"  # In a data folder: what a first start on loopback leaves.

OIDC_SECRET: Final = "QMTL_OIDC_SECRET"  # Of the dashboard, as a client of an issuer.
SECRETS: Final = ("QMTL_TOKEN", "QMTL_DATABASE_URL", "QMTL_BUS_URL", OIDC_SECRET)
IN_FILE: Final = "_FILE"  # Behind any of these: the file that holds it, as containers are given it.


def of_files(environ: MutableMapping[str, str]) -> None:
    """Set each of SECRETS that is said to be in a file to what that holds, without its line's end.

    Raises ValueError, which names no secret, when there is no such file, when it is empty, and when
    the variable is set as well: one of the two would be believed and the other not.
    """
    for name in SECRETS:
        named = environ.get(name + IN_FILE)
        if not named:
            continue
        if environ.get(name):
            raise ValueError(f"{name} and {name}{IN_FILE} are both set: unset one")
        try:
            text = Path(named).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise ValueError(f"{name}{IN_FILE}: {named}: {why}") from error
        if not text:
            raise ValueError(f"{name}{IN_FILE}: {named} is empty")
        environ[name] = text


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
