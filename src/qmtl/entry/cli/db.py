"""`qmtl db`: the database, whether servers share it or it is in a folder.

The shared one is looked at and brought up to date here; that of a folder by doctor and by the
start of its server.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qmtl.adapters.credentials import data_default
from qmtl.core.names import SYSTEM
from qmtl.core.words import counted, second

from . import output
from .context import Json

if TYPE_CHECKING:
    from qmtl.adapters.sql.backup import Copy
    from qmtl.adapters.sql.checkup import Checkup
    from qmtl.app.restored import Stopped

app = typer.Typer(no_args_is_help=True)

Url = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="QMTL_DATABASE_URL",
        show_envvar=False,
        help="postgresql://user@host/name; by default QMTL_DATABASE_URL.",
    ),
]
NOT_IN_IT: Final = (
    "journal.key: without it the restored server signs as another",
    "admin.token, the auth file, and the spool of a gateway or an author",
    "what an object store has, if there is one (QMTL_OBJECTS_URL): let the bucket keep versions",
)
NONE: Final = "say which: --database postgresql://user@host/name, or QMTL_DATABASE_URL"


def _given(url: str | None) -> str:
    if not url:
        raise typer.BadParameter(NONE)
    return url


@app.command()
def check(database: Url = None, as_json: Json = False) -> None:
    """Read it all: its tables' version, each journal's chain, tables against journal, invariants.

    Changes nothing. Exit code 1 when anything is wrong. A data folder is doctor's to look at.
    """
    from qmtl.adapters import objects
    from qmtl.adapters.clock import SystemClock
    from qmtl.adapters.sql import postgres

    found = postgres.look(_given(database), SystemClock().now(), objects.here())
    _told(found, as_json, {})


def _told(found: "Checkup", as_json: bool, more: dict[str, Any]) -> None:
    plain: dict[str, Any] = {
        "database": list(found.database),
        "worlds": {world: list(faults) for world, faults in found.worlds.items()},
        "unreplayed": list(found.unreplayed),
    }
    bad = bool(found.database) or any(found.worlds.values())
    if as_json:
        output.as_json(more | plain | {"exit_code": output.REFUSED if bad else 0})
    else:
        for fault in found.database:
            output.line(f"database: {fault}")
        for world, faults in found.worlds.items():
            for fault in faults:
                output.line(f"world {world}: {fault}")
        for world in found.unreplayed:
            output.line(f"world {world}: cannot be replayed, since bodies were dropped")
        if not bad:
            output.line(f"{len(found.worlds)} worlds: journals whole, tables as they say.")
    if bad:
        raise typer.Exit(output.REFUSED)


@app.command()
def upgrade(database: Url = None, as_json: Json = False) -> None:
    """Make its tables, or bring those of an older qmtl up to date. Stop every server on it first.

    All of it or nothing, in one transaction.
    """
    from qmtl.adapters.sql import postgres

    was, now = postgres.upgraded(_given(database))
    if as_json:
        output.as_json({"was": was, "is": now})
    elif was == now:
        output.line(f"Its tables are of version {now} already.")
    else:
        output.line(f"Its tables are of version {now} now; before: {was or 'none'}.")


# ---- Backup and restore ----------------------------------------------------------------------


@app.command()
def backup(
    out: Annotated[Path, typer.Option(dir_okay=False, help="A file; replaced once all is there.")],
    data: Annotated[
        Path | None, typer.Option(help="A server's folder, running or not; as for qmtl serve.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a data folder's database as of one instant, beside the server that runs on it.

    The copy is checked, and holds every world: journal, hub, policies, and digests of tokens. Not
    in it are the folder's keys. No server starts on it: qmtl db restore puts it back. PostgreSQL
    has pg_dump for this: docs/operating.md.
    """
    from qmtl.adapters import objects
    from qmtl.adapters.clock import SystemClock
    from qmtl.adapters.sql import backup as copies

    try:
        with _progress() as on_pages:
            copy = copies.take(
                data or data_default(), out, SystemClock().now(), on_pages, objects.here()
            )
    except OSError as error:
        raise typer.BadParameter(f"--out {out}: {error.strerror}") from error
    if as_json:
        output.as_json({"out": str(out), **_plain(copy), "not_in_it": NOT_IN_IT})
        return
    size = out.stat().st_size / (1 << 20)
    output.line(f"{out}: {_said(copy)}; {size:,.1f} MiB, checked.")
    for each in NOT_IN_IT:
        output.line(f"  not in it, to be kept elsewhere: {each}")
    output.line(f"  to put it back: qmtl db restore {out} --data DIR")


@app.command()
def restore(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="What qmtl db backup made.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder without a database; made when not there.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="A PostgreSQL database that pg_restore has just filled.")
    ] = None,
    keep_tokens: Annotated[
        bool, typer.Option("--keep-tokens", help="No token was revoked since it was taken.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a backup back: every world killed, every token revoked, all of it read and found whole.

    A backup does not know what was stopped after it was taken, so all of it is stopped; a killed
    world is resumed by two people (qmtl world resume). The first start on loopback makes an admin
    token, as that of a new folder does. Stop the server of before, first.
    """
    from qmtl.adapters import objects
    from qmtl.adapters.clock import SystemClock
    from qmtl.adapters.sql import backup as copies

    now = SystemClock().now()
    if file is not None and data is not None and database is None:
        copy, stopped = copies.put_back(
            file, data, now, keep_tokens=keep_tokens, objects=objects.here()
        )
        if as_json:
            output.as_json({"data": str(data), **_plain(copy), **_stopped(stopped)})
            return
        output.line(f"{data}: {_said(copy)}; journals whole, tables as they say.")
        _say(stopped)
        if not (data / "journal.key").exists():
            output.line("  next: put the journal.key of before into it; without, one is made anew")
    elif database is not None and file is data is None:
        found, stopped = _stop_shared(database, keep_tokens)
        if not as_json:
            _say(stopped)
        _told(found, as_json, _stopped(stopped))
    else:
        raise typer.BadParameter("say FILE and --data DIR, or --database URL alone")


def _stop_shared(database: str, keep_tokens: bool) -> "tuple[Checkup, Stopped]":
    from qmtl.adapters import objects
    from qmtl.adapters.clock import SystemClock
    from qmtl.adapters.sql import backup as copies
    from qmtl.adapters.sql import postgres
    from qmtl.adapters.sql.store import SqlStore
    from qmtl.app import restored

    postgres.url_of(database)  # A name without a scheme is no folder here.
    held = objects.here()
    found = postgres.look(database, SystemClock().now(), held)  # First: a kill writes over tables.
    with closing(SqlStore(database, objects=held)) as store:
        if not store.load(SYSTEM).seq:
            raise copies.NoDatabase("Nothing was restored into it.")
        now = copies.instant_of(store, SystemClock().now())
        stopped = restored.stop(store, now, keep_tokens=keep_tokens)
    return found, stopped


def _plain(copy: "Copy") -> dict[str, Any]:
    from qmtl.adapters.wire.instants import rfc3339

    heads = {world: {"seq": head.seq, "hash": head.hash} for world, head in copy.heads.items()}
    return {"heads": heads, "last": None if copy.last is None else rfc3339(copy.last)}


def _said(copy: "Copy") -> str:
    last = "nothing recorded" if copy.last is None else f"up to {second(copy.last)}"
    return f"{counted(len(copy.heads.keys() - {SYSTEM}), 'world')}, {last}"


def _stopped(stopped: "Stopped") -> dict[str, Any]:
    return {
        "killed": list(stopped.killed),
        "tokens_revoked": stopped.tokens_revoked,
        "tokens_kept": stopped.tokens_kept,
    }


def _say(stopped: "Stopped") -> None:
    killed = ", ".join(stopped.killed) or "none that was not killed already"
    output.line(f"  killed, until resumed (under dual control by two people): {killed}")
    if stopped.tokens_revoked:
        output.line(f"  {counted(stopped.tokens_revoked, 'token')} revoked: make others")
    if stopped.tokens_kept:
        output.line(
            f"  {counted(stopped.tokens_kept, 'token')} kept; one that was revoked after the "
            "backup opens again: qmtl token list, qmtl token revoke"
        )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """On a terminal, how much is copied; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda left, pages: None
        return
    with typer.progressbar(length=1, label="copy", file=sys.stderr) as bar:

        def shown(left: int, pages: int) -> None:
            bar.length = pages
            bar.update(pages - left - bar.pos)

        yield shown
