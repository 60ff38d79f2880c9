"""`qmtl explain`: where a strategy is, what it waits for, when, and what would stop it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qmtl.core.errors import Invalid

from . import output, project
from .context import Json, Plot, connect
from .journal import whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


app = typer.Typer()

SHOWN_FROM: Final = 1_000  # Entries: fewer are followed in a second.


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
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Say where a strategy is, what it waits for and when that is reached, what would stop it.

    With one argument, that is the strategy, and qmtl.toml says the world. --plot draws how it came
    there, from the world's whole journal: its e-value against what the next step of the ramp asks
    for, its weight, its drawdown and what demotes it.
    """
    where, which = _asked(world, strategy)
    ctx.meta.update(world=where, strategy=which)
    with connect(ctx) as client:
        told = client.explain(where, which)
    if as_json:
        output.as_json(told)
    else:
        _print(told)
    if plot is not None:
        _draw(ctx, plot, where, which)


def _draw(ctx: typer.Context, plot: Path, where: str, which: str) -> None:
    """Follows the journal here: what was shown when is in no answer of the server."""
    from qmtl.adapters.memory import World, after, store_of
    from qmtl.app.growth import STAGES, growth
    from qmtl.core.course import course
    from qmtl.core.names import Stage, StrategyId
    from qmtl.core.view import WorldView
    from qmtl.entry import plots

    world_id, journal = whole(ctx, where)
    world, sid = World(WorldView(world_id=world_id), []), StrategyId(which)

    def followed() -> "Iterator[tuple[datetime, WorldView]]":
        nonlocal world
        for entry in output.watched(journal, len(journal), SHOWN_FROM):
            world.journal.append(entry)
            world = after(world, entry)
            yield entry.at, world.view

    taken = course(followed(), sid)
    if not len(taken):
        raise Invalid(f"{where} has no policy yet: nothing was asked of {which}.")
    earned = growth(store_of(world), world_id, sid)
    if not (earned.stage > STAGES.index(Stage.BACKTEST)).any():
        raise Invalid(f"{which} has no return in paper or live yet: there is nothing to draw.")
    plots.strategy(plot, f"{which} in {where}", taken, earned)


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
