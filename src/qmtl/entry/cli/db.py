"""`qmtl db`: the database that servers share, looked at and brought up to date."""

from typing import Annotated, Any, Final

import typer

from . import output
from .context import Json

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
    from qmtl.adapters.clock import SystemClock
    from qmtl.adapters.sql import postgres

    found = postgres.look(_given(database), SystemClock().now())
    plain: dict[str, Any] = {
        "database": list(found.database),
        "worlds": {world: list(faults) for world, faults in found.worlds.items()},
        "unreplayed": list(found.unreplayed),
    }
    bad = bool(found.database) or any(found.worlds.values())
    if as_json:
        output.as_json(plain | {"exit_code": output.REFUSED if bad else 0})
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
