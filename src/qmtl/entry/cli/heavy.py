"""Where a command has its heavy work done, and how far that has come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from . import output

if TYPE_CHECKING:
    from qmtl.adapters.workers import Place

Where = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="WHERE",
        help="processes, threads, inline (this process), or dask://HOST:PORT, a Dask scheduler.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Processes or threads; by default one for each core."),
]


@contextmanager
def computing(ctx: typer.Context, where: str, jobs: int | None) -> Iterator["Place"]:
    """The place that was asked for.  What its workers fail in is said, and ends the command."""
    from qmtl.adapters import workers

    try:
        with workers.at(where, jobs) as place:
            yield place
    except workers.NotAPlace as error:
        raise typer.BadParameter(str(error), param_hint="--executor") from error
    except workers.WorkersError as error:
        output.failed(str(error), known=ctx.meta)
        raise typer.Exit(output.REFUSED) from error


@contextmanager
def counting(count: int, what: str) -> Iterator[Callable[[int], None]]:
    """To be told of each piece that is done: a terminal sees how many are."""
    with output.progress_bars() as shown:
        done = 0

        def finished(number: int) -> None:
            nonlocal done
            done += 1
            if shown is not None:
                shown(what, done, count)

        if shown is not None:
            shown(what, 0, count)
        yield finished
