"""`qmtl doctor`: what is wrong, and what to do about it.  Nothing it does writes anything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from qmtl.adapters.client import BadAddress, BadCredential
from qmtl.adapters.credentials import data_default

from . import output, project
from .check import Check, Level
from .context import Json, Setting, connect

app = typer.Typer()

ANSWER_SEC: Final = 10.0  # A server that takes longer to say that it is well is not.
MARK: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red", Level.AWAY: "red"}


@app.command()
def doctor(
    ctx: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not replay the journals of a server here.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at the whole installation, from Python to the journal, and say what to do.

    Changes nothing. Exit code 1 when a check failed; 3 when only the server is away.
    """
    with _busy() as say:
        found = list(_checks(ctx, quick, say))
    code = _code(found)
    if as_json:
        output.as_json({"checks": [check.plain() for check in found], "exit_code": code})
    else:
        _shown(found)
    if code:
        raise typer.Exit(code)


def _code(found: list[Check]) -> int:
    levels = {check.level for check in found}
    if Level.FAIL in levels:
        return output.REFUSED
    return output.AWAY if Level.AWAY in levels else 0


def _checks(ctx: typer.Context, quick: bool, say: Callable[[str], None]) -> Iterator[Check]:
    from qmtl.sdk.spool import folder as spool_folder

    from . import check_data, check_here, check_server

    setting = ctx.ensure_object(Setting)
    yield from check_here.python()
    yield from check_here.surroundings(setting.url)
    yield from check_here.here()
    try:
        client = connect(ctx, timeout=ANSWER_SEC, quiet=True)
    except (BadAddress, BadCredential):  # It was said above.
        yield from check_here.spool(None)
    else:
        with client:
            say(f"asking {client.url}")
            yield from check_server.server(client, _world())
            yield from check_here.spool(client)

    def on_world(world_id: str) -> None:
        say(f"reading the journal of {world_id}")

    yield from check_data.data(data_default(), replay=not quick, on_world=on_world)
    yield from check_here.disk(data_default(), spool_folder())


def _world() -> str | None:
    try:
        return project.here().world
    except typer.BadParameter:  # It was said above.
        return None


def _shown(found: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "check", "found"):
        table.add_column(column, overflow="fold")
    for check in found:
        table.add_row(Text(check.level, style=MARK[check.level]), check.name, check.found)
        if check.remedy:
            table.add_row("", "", f"next: {check.remedy}")
    output.console().print(table)
    counts = {level: sum(check.level is level for check in found) for level in Level}
    output.line("\n" + ", ".join(f"{count} {level}" for level, count in counts.items() if count))


@contextmanager
def _busy() -> Iterator[Callable[[str], None]]:
    """On a terminal, what is being looked at; elsewhere nothing."""
    console = output.console(stderr=True)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status("looking") as status:
        yield status.update
