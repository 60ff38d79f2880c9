"""`qmtl explain`: where a strategy is, what it waits for, when, and what would stop it."""

from typing import Annotated, Any

import typer

from . import output, project
from .context import Json, connect

app = typer.Typer()


@app.command()
def explain(
    ctx: typer.Context,
    world: Annotated[
        str | None,
        typer.Argument(metavar="WORLD", help="The world's id; by default the project's."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Argument(metavar="STRATEGY", help="The strategy's id; by default the project's."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say where a strategy is, what it waits for and when that is reached, what would stop it.

    With one argument, that is the strategy, and qmtl.toml says the world.
    """
    where, which = _asked(world, strategy)
    ctx.meta.update(world=where, strategy=which)
    with connect(ctx) as client:
        told = client.explain(where, which)
    if as_json:
        return output.as_json(told)
    _print(told)


def _asked(first: str | None, second: str | None) -> tuple[str, str]:
    """World and strategy.  Raises typer.BadParameter when neither arguments nor project say."""
    if first is not None and second is not None:
        return first, second
    here = project.here()
    world = project.needed(here.world, "WORLD STRATEGY", "world")
    strategy = project.needed(first or here.strategy_id, "STRATEGY", "id")
    return world, strategy


def _print(told: dict[str, Any]) -> None:
    """A line that says where it is, and then what a person asks next, each under its heading."""
    where, *rest = told["sentences"]
    waits = [wait["sentence"] for wait in told["waits_for"]]
    stops = told["would_stop"]
    begins = rest.index(waits[0]) if waits else len(rest) - len(stops)
    typer.secho(where, bold=True)
    _bullets("now", rest[:begins])
    _bullets("it waits for", waits)
    _bullets("then", rest[begins + len(waits) : len(rest) - len(stops)])
    _bullets("what would stop it", stops)


def _bullets(heading: str, sentences: list[str]) -> None:
    if not sentences:
        return
    typer.secho(f"\n{heading}", fg="cyan")
    for sentence in sentences:
        output.line(f"  - {sentence}")
