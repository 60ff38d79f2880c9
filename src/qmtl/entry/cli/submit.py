"""`qmtl submit` and `qmtl flush`: a strategy out of a file or a module, into a world."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .context import Json, connect

if TYPE_CHECKING:
    from types import ModuleType

app = typer.Typer()


@app.command()
def submit(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE:NAME", help="The strategy.")],
    world: Annotated[str, typer.Option(help="The world that decides.")],
    prices: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Daily closes, csv or csv.gz.")
    ],
    strategy_id: Annotated[
        str | None, typer.Option("--id", help="By default the strategy's name.")
    ] = None,
    variants: Annotated[
        int | None, typer.Option(min=1, help="How many variants of it were looked at.")
    ] = None,
    cost_bps: Annotated[
        float | None, typer.Option(min=0, help="Cost of a unit of weight traded.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Backtest a strategy, check it for look-ahead, and let the world decide.

    NAME is a function weights(prices), an object with that method, or a class made without
    arguments. When the world is away the exit code is 3, and the submission is kept: by its
    gateway, or here, to be sent by `qmtl flush`.
    """
    from qmtl.sdk.engine import Engine
    from qmtl.sdk.prices import PricesError, read_csv
    from qmtl.sdk.runner import ENGINE, Runner, StrategyRejected
    from qmtl.sdk.strategy import StrategyError

    ctx.meta["world"] = world
    strategy = _strategy(source)
    with connect(ctx) as client:
        try:
            result = Runner.submit(
                strategy,
                world=world,
                prices=read_csv(prices),
                engine=ENGINE if cost_bps is None else Engine(cost_bps),
                strategy_id=strategy_id,
                variants_tried=variants,
                client=client,
            )
        except (StrategyRejected, StrategyError, PricesError) as error:
            output.failed(f"nothing was sent: {error}")
            raise typer.Exit(output.REFUSED) from error
    typer.echo(result.to_json() if as_json else str(result))
    if result.world is None or result.world.verdict is None:
        raise typer.Exit(output.AWAY)


def _strategy(source: str) -> Any:
    where, colon, name = source.rpartition(":")
    if not (where and colon and name.isidentifier()):
        raise typer.BadParameter(f"{source!r} is not FILE:NAME or MODULE:NAME")
    path = Path(where)
    module = _from_file(path) if path.suffix == ".py" else _from_module(where)
    found = getattr(module, name, None)
    if found is None:
        raise typer.BadParameter(f"{where} has no {name}")
    return found() if isinstance(found, type) else found


def _from_file(path: Path) -> "ModuleType":
    """The file as a module of its own name, so that its fingerprint is that of an import."""
    if not path.is_file():
        raise typer.BadParameter(f"{path} is no file")
    name = path.stem
    if not name.isidentifier() or name == "__main__":
        raise typer.BadParameter(f"{path}: a module cannot have the name {name!r}")
    known = importlib.util.find_spec(name)
    if known is not None and Path(known.origin or "").resolve() != path.resolve():
        raise typer.BadParameter(f"{path} would hide the module {name!r}: give it another name")
    return _imported(name, path.parent)


def _from_module(name: str) -> "ModuleType":
    if not all(part.isidentifier() for part in name.split(".")):
        raise typer.BadParameter(f"{name!r} is neither a .py file nor a module")
    return _imported(name, Path.cwd())


def _imported(name: str, home: Path) -> "ModuleType":
    folder = str(home.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, name.partition(".")[0]):
            raise  # Something that the author's code imports; the traceback says where.
        raise typer.BadParameter(f"there is no module {name!r}") from error


@app.command()
def flush(ctx: typer.Context, as_json: Json = False) -> None:
    """Send the submissions that were kept while the world was away. Twice is once."""
    from qmtl.sdk.runner import Runner

    with connect(ctx) as client:
        done = Runner.flush(client)
    if as_json:
        output.as_json(
            [
                {
                    "strategy_id": each.strategy_id,
                    "world_id": each.world_id,
                    "outcome": each.outcome,
                    "detail": each.detail,
                }
                for each in done
            ]
        )
    else:
        output.table(
            ("strategy", "world", "outcome", "detail"),
            [(each.strategy_id, each.world_id, each.outcome, each.detail) for each in done],
            empty="nothing was kept",
        )
    outcomes = {each.outcome for each in done}
    if "waiting" in outcomes:
        raise typer.Exit(output.AWAY)
    if "refused" in outcomes:
        raise typer.Exit(output.REFUSED)
