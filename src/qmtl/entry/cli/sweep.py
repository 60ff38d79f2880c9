"""`qmtl sweep`: every variant of a grid is tested, the best submitted with the number tried."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from . import output, project
from .context import CostBps, Json, OwnId, PriceFile, TheWorld, connect, name_and_value
from .heavy import Jobs, Where, computing
from .source import authors_errors, home_of, named
from .submit import cut, end, refuse_the_future, understood

if TYPE_CHECKING:
    from qmtl.adapters.workers import Place
    from qmtl.sdk.prices import Prices
    from qmtl.sdk.result import SubmitResult
    from qmtl.sdk.sweep import SweepResult

app = typer.Typer()

AGAIN: Final = "sweep"
WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is swept.  `options` are those that `Runner.sweep` and `Runner.submit` share."""

    made: Callable[..., Any]
    home: Path
    grid: Mapping[str, list[Any]]
    prices: "Prices"
    options: dict[str, Any]


@app.command()
def sweep(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(metavar="[FILE_OR_MODULE:CLASS]", help="What makes the variants."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE,...", help="A parameter's values; may come again."),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="The best has the most of it; the least, where less is better.")
    ] = "sharpe_annual",
    world: TheWorld = None,
    prices: PriceFile = None,
    strategy_id: OwnId = None,
    before: Annotated[
        int, typer.Option(min=0, help="How many variants were looked at before.")
    ] = 0,
    cost_bps: CostBps = None,
    until: Annotated[
        str | None, typer.Option(help="The last day that is looked at: 2021-12-31.")
    ] = None,
    executor: Where = "processes",
    jobs: Jobs = None,
    submit: Annotated[
        bool, typer.Option("--submit/--no-submit", help="Send the best, or only show them.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Test every variant of a strategy on all cores, and submit the best of them.

    Every combination of the values is a variant of CLASS; all of them count as tried, those that
    fail, too. In a project, qmtl.toml says what is not said here, and its [sweep] has the values of
    parameters that no --param names. Exit codes are those of submit.
    """
    here = project.here()
    world = ctx.meta["world"] = world or here.world
    if submit:
        project.needed(world, "--world", "world")
    source = project.needed(source or here.strategy, "FILE:CLASS", "strategy")
    prices = project.needed(prices or here.prices, "--prices", "prices")
    last = here.until if until is None else project.day(until, "--until")
    cost = here.cost_bps if cost_bps is None else cost_bps
    grid = {**here.grid, **_grid(param or ())}
    options = {"world": world or "", "strategy_id": strategy_id or here.strategy_id}
    asked = understood(ctx, lambda: _asked(source, prices, last, cost, grid, options), AGAIN)
    with computing(ctx, executor, jobs) as place:
        found = _found(ctx, asked, place, metric, before)
    _swept(ctx, asked, found, submit, as_json)


def _grid(given: Iterable[str]) -> dict[str, list[Any]]:
    """`fast=10,20` as names and values.  Raises typer.BadParameter."""
    found: dict[str, list[Any]] = {}
    for text in given:
        name, values = name_and_value(text)
        if name in found:
            raise typer.BadParameter(f"--param {name} comes twice: name all its values in one")
        found[name] = [_value(each.strip()) for each in values.split(",")]
    return found


def _value(text: str) -> Any:
    """A number or a truth value where it is one, else text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return WORDS.get(text.lower(), text)


def _asked(
    source: str,
    prices: Path,
    last: date | None,
    cost_bps: float | None,
    grid: Mapping[str, list[Any]],
    options: dict[str, Any],
) -> Asked:
    from qmtl.sdk.prices import as_prices

    if not grid:
        raise typer.BadParameter(f"say --param NAME=VALUE,..., or [sweep] in {project.NAME}")
    made = named(source)
    if not callable(made):
        raise typer.BadParameter(f"{source} makes no variants: name its class")
    known = project.engine(cost_bps)
    engine = {} if known is None else {"engine": known}
    return Asked(
        made=made,
        home=home_of(source),
        grid=grid,
        prices=cut(as_prices(prices), last),
        options={**options, **engine},
    )


def _found(
    ctx: typer.Context, asked: Asked, place: "Place", metric: str, before: int
) -> "SweepResult":
    from qmtl.sdk.runner import Runner

    def run() -> "SweepResult":
        with output.progress_bars() as progress:
            return Runner.sweep(
                asked.made,
                asked.grid,
                prices=asked.prices,
                metric=metric,
                executor=place,
                variants_before=before,
                progress=progress,
                submit=False,
                **asked.options,
            )

    return understood(ctx, run, AGAIN)


def _swept(
    ctx: typer.Context, asked: Asked, found: "SweepResult", submit: bool, as_json: bool
) -> None:
    """Shows the variants before anything is sent: what stops the best of them hides no table."""
    if not as_json:
        output.line(f"{found}\n" if submit else str(found))
    if submit:
        submission = _submitted(ctx, asked, found, as_json)
        found = replace(found, submission=submission)
    if as_json:
        output.line(found.to_json())
    if found.submission is not None:
        end(found.submission, as_json)


def _submitted(
    ctx: typer.Context, asked: Asked, found: "SweepResult", as_json: bool
) -> "SubmitResult":
    from qmtl.sdk.runner import Runner

    with connect(ctx) as client:

        def run() -> "SubmitResult":
            with output.progress_bars() as progress, authors_errors(asked.home):
                return Runner.submit(
                    asked.made(**found.chosen.parameters),
                    prices=asked.prices,
                    variants_tried=found.tried,
                    client=client,
                    progress=progress,
                    **asked.options,
                )

        refuse_the_future(ctx, client, asked.prices.times, AGAIN)
        result = understood(ctx, run, AGAIN)
    if not as_json:
        output.line(str(result))
    return result
