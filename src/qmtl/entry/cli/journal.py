"""`qmtl journal`: everything that happened to a world, in order."""

import json
from itertools import islice
from typing import Annotated, Any

import typer

from . import output
from .context import Json, World, connect

app = typer.Typer(no_args_is_help=True)

FACT_CHARS_MAX = 160  # A line for people; --json has all of it.


@app.callback()
def journal() -> None:
    """The journal: everything that happened."""


@app.command("list")
def list_(
    ctx: typer.Context,
    world: World,
    after: Annotated[int, typer.Option(min=0, help="Only entries after this seq.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 1_000,
    as_json: Json = False,
) -> None:
    """Entries, the oldest first. With --json one a line, as they come."""
    with connect(ctx) as client:
        entries = islice(client.journal(world, after), limit)
        if as_json:
            for entry in entries:
                output.line(json.dumps(entry))
            return
        rows = [(e["seq"], e["at"], e["actor"], e["kind"], _brief(e["fact"])) for e in entries]
    nothing = f"nothing happened after entry {after}" if after else "nothing happened yet"
    output.table(("seq", "at", "actor", "kind", "fact"), rows, empty=nothing)


def _brief(fact: dict[str, Any]) -> str:
    said = {name: part for name, part in fact.items() if name not in ("kind", "points", "policy")}
    text = output.plain(said)
    return text if len(text) <= FACT_CHARS_MAX else text[: FACT_CHARS_MAX - 1] + "…"
