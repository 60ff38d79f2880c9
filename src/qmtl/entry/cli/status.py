"""`qmtl status`: a world on one screen, again and again until somebody has seen enough."""

import time
from typing import Annotated, Any, Final

import typer

from qmtl.adapters.client import ApiError, Away, Client

from . import completion, output, picture, project
from .context import Json, connect, duration

app = typer.Typer()

ANSWER_SEC: Final = 10.0  # A view that waits longer for its world should say that it waits.
ROWS_MIN: Final = 3  # Of strategies, however low the window is.
NOT_FOUND: Final = 404


@app.command()
def status(
    ctx: typer.Context,
    world: Annotated[
        str | None,
        typer.Argument(
            help="By default the project's.", metavar="[WORLD]", autocompletion=completion.worlds
        ),
    ] = None,
    interval: Annotated[str, typer.Option(help="Between two looks.")] = "5s",
    once: Annotated[bool, typer.Option("--once", help="Look once, and print all of it.")] = False,
    as_json: Json = False,
) -> None:
    """Watch a world: where each strategy stands, what it waits for, and who has to act.

    What needs attention comes first. On a terminal it is looked at again every --interval until
    Ctrl-C; elsewhere, and with --once or --json, once.
    """
    every = duration(interval).total_seconds()
    world = world or project.here().world
    world = ctx.meta["world"] = project.needed(world, "WORLD", "world")
    with connect(ctx, timeout=ANSWER_SEC) as client:
        told = gathered(client, world)
        if as_json:
            return output.as_json(told)
        if once or not output.console().is_terminal:
            return _print(told)
        _watch(client, world, told, every)


def gathered(client: Client, world: str) -> dict[str, Any]:
    """Everything that a picture shows, in the server's own words.  Raises ApiError, Away."""
    return {
        "world": client.world(world),
        "clock": client.clock(),
        "campaign": client.status(world),
        "decisions": client.decide(world),
        "candidates": list(client.candidates(world)),
        "snapshots": {stage: _latest(client, world, stage) for stage in picture.STAGES},
    }


def _latest(client: Client, world: str, stage: str) -> dict[str, Any] | None:
    try:
        return client.latest_snapshot(world, stage=stage)
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
        return None


def _print(told: dict[str, Any]) -> None:
    output.console().print(picture.picture(told))


def _watch(client: Client, world: str, told: dict[str, Any], every: float) -> None:
    """Until Ctrl-C.  Raises ApiError once the world refuses to be looked at."""
    from rich.live import Live

    from qmtl.sdk.decisions import as_good_as_away

    console = output.console()
    seen_at, away = time.monotonic(), None
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                rows_max = max(ROWS_MIN, console.height - picture.lines_around(told))
                shown = picture.picture(told, rows_max=rows_max, away=away)
                live.update(shown, refresh=True)
                time.sleep(every)
                try:
                    told, away = gathered(client, world), None
                    seen_at = time.monotonic()
                except (Away, ApiError) as error:
                    if isinstance(error, ApiError) and not as_good_as_away(error):
                        raise
                    away = picture.Away(str(error), time.monotonic() - seen_at)
    except KeyboardInterrupt:
        _print(told)  # The screen of the view is gone with it; what was last seen stays.
