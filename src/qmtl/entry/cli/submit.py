"""`qmtl submit` and `qmtl flush`: a strategy out of a file or a module, into a world."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from qmtl.adapters.client import Away, Client

from . import output, project
from .context import CostBps, Json, OwnId, PriceFile, TheWorld, connect
from .source import AuthorsError, authors_errors, home_of, strategy_of

if TYPE_CHECKING:
    from qmtl.sdk.prices import Prices, TimeArray
    from qmtl.sdk.result import SubmitResult


app = typer.Typer()

FLUSH: Final = "qmtl submit --flush"
AHEAD_MAX: Final = timedelta(seconds=60)  # What a server forgives a clock.

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is submitted, and with which options of `Runner.submit`.  `home`: whose code it is."""

    what: Any
    times: "TimeArray"
    home: Path
    options: dict[str, Any] = field(default_factory=dict)


@app.command()
def submit(
    ctx: typer.Context,
    source: Annotated[
        str | None, typer.Argument(metavar="[FILE_OR_MODULE:NAME]", help="The strategy.")
    ] = None,
    world: TheWorld = None,
    prices: PriceFile = None,
    strategy_id: OwnId = None,
    variants: Annotated[
        int | None, typer.Option(min=1, help="How many variants of it were looked at.")
    ] = None,
    cost_bps: CostBps = None,
    until: Annotated[
        str | None, typer.Option(help="The last day that is submitted: 2021-12-31.")
    ] = None,
    returns: Annotated[
        Path | None,
        typer.Option(help="Instead of a strategy: net returns of one that runs elsewhere."),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="With --returns: which version of it that was.")
    ] = None,
    flush: Annotated[
        bool, typer.Option("--flush", help="Send what was kept while the world was away.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Backtest a strategy, check it for look-ahead, and let the world decide.

    NAME is a function weights(prices), an object with that method, or a class made without
    arguments. In a project, qmtl.toml says what is not said here. When the world is away the exit
    code is 3, and the submission is kept: by its gateway, or here, to be sent by --flush. Sending
    it twice is sending it once.
    """
    if flush:
        given = (source, world, prices, strategy_id, variants, cost_bps, until, returns, version)
        if any(value is not None for value in given):
            raise typer.BadParameter("--flush sends what was kept as it was: say nothing else")
        return _flush(ctx, as_json)
    here = project.here()
    world = ctx.meta["world"] = project.needed(world or here.world, "--world", "world")
    last = here.until if until is None else project.day(until, "--until")
    told = {"world": world, "variants_tried": variants}
    if returns is not None:
        if source or prices or cost_bps is not None:
            raise typer.BadParameter("--returns are of a strategy that ran elsewhere: no strategy")
        if strategy_id is None:
            raise typer.BadParameter("--returns do not say whose they are: say --id")
        told |= {"strategy_id": strategy_id, "version": version}
        asked = understood(ctx, lambda: _of_returns(returns, last, told))
    else:
        if version is not None:
            raise typer.BadParameter("--version goes with --returns: other code is a new version")
        source = project.needed(source or here.strategy, "FILE:NAME", "strategy")
        prices = project.needed(prices or here.prices, "--prices", "prices")
        told |= {"strategy_id": strategy_id or here.strategy_id}
        cost = here.cost_bps if cost_bps is None else cost_bps
        asked = understood(ctx, lambda: _of_strategy(source, prices, last, cost, told))
    _send(ctx, asked, as_json)


def _of_strategy(
    source: str, prices: Path, last: date | None, cost_bps: float | None, told: dict[str, Any]
) -> Asked:
    from qmtl.sdk.prices import as_prices

    strategy = strategy_of(source)
    table = cut(as_prices(prices), last)
    known = project.engine(cost_bps)
    engine = {} if known is None else {"engine": known}
    options = {**told, "prices": table, **engine}
    return Asked(what=strategy, times=table.times, home=home_of(source), options=options)


def _of_returns(path: Path, last: date | None, told: dict[str, Any]) -> Asked:
    from qmtl.sdk.returns import Returns, as_returns

    found: Returns = as_returns(path)
    bars = until(found.times, last)
    found = Returns(found.times[:bars], found.values[:bars])
    return Asked(what=found, times=found.times, home=path.parent.resolve(), options=told)


def cut(prices: "Prices", last: date | None) -> "Prices":
    """The bars up to a day, that day included; without one, all of them."""
    return prices.head(until(prices.times, last))


def until(times: "TimeArray", last: date | None) -> int:
    """How many bars there are up to a day.  Raises typer.BadParameter when there is none."""
    import numpy as np

    if last is None:
        return len(times)
    if bars := int(np.searchsorted(times, np.datetime64(last) + np.timedelta64(1, "D"))):
        return bars
    first = times[0].astype("datetime64[D]")
    raise typer.BadParameter(f"until {last} there is no bar: the first is of {first}")


def understood(ctx: typer.Context, work: Callable[[], T], again: str = "submit") -> T:
    """What the author's code and files come to.  What is wrong with them is said; nothing was sent.

    `again` is the command to try next.  Raises typer.Exit.
    """
    from qmtl.sdk.prices import PricesError
    from qmtl.sdk.returns import ReturnsError
    from qmtl.sdk.runner import StrategyRejected
    from qmtl.sdk.strategy import StrategyError

    try:
        return work()
    except AuthorsError as error:
        cause, where = f"nothing was sent; the strategy failed with {error}", error.where
    except (StrategyRejected, StrategyError, PricesError, ReturnsError) as error:
        cause, where = f"nothing was sent: {error}", tuple(getattr(error, "__notes__", ()))
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        cause, where = f"nothing was sent: {named}{error.strerror or error}", ()
    output.failed(cause, f"mend it, then qmtl {again} again", where, ctx.meta)
    raise typer.Exit(output.REFUSED)


def _send(ctx: typer.Context, asked: Asked, as_json: bool) -> None:
    from qmtl.sdk.runner import Runner

    with connect(ctx) as client:
        refuse_the_future(ctx, client, asked.times)
        given = {name: value for name, value in asked.options.items() if value is not None}

        def run() -> Any:
            with output.progress_bars() as progress, authors_errors(asked.home):
                more: dict[str, Any] = {} if progress is None else {"progress": progress}
                return Runner.submit(asked.what, client=client, **given, **more)

        result = understood(ctx, run)
    typer.echo(result.to_json() if as_json else str(result))
    end(result, as_json)


def end(result: "SubmitResult", as_json: bool) -> None:
    """Ends the command as the world's answer has it.  Raises typer.Exit when there was none."""
    if result.world is None or result.world.verdict is None:
        if not as_json:
            kept = result.spooled is not None
            hint = f"{FLUSH}, when the world is back" if kept else f"qmtl status {result.world_id}"
            typer.echo(f"  next: {hint}", err=True)
        raise typer.Exit(output.AWAY)


def refuse_the_future(
    ctx: typer.Context, client: Client, times: "TimeArray", again: str = "submit"
) -> None:
    """Bars that the server has not lived to see are no backtest.

    When nobody answers they cannot be told; the world looks at them when it gets the submission.
    """
    import numpy as np

    try:
        now = datetime.fromisoformat(client.clock()["now"]).astimezone(UTC)
    except Away:
        return
    known = times <= np.datetime64((now + AHEAD_MAX).replace(tzinfo=None), "us")
    ahead = int(len(times) - known.sum())
    if not ahead:
        return
    shown = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    last = times[known][-1:]
    are = "bar lies" if ahead == 1 else "bars lie"
    hint = f"qmtl {again} --until {last[0].astype('datetime64[D]')}" if len(last) else "qmtl doctor"
    cause = f"nothing was sent: {ahead:,} {are} after the server's clock ({shown})"
    output.failed(cause, hint, known=ctx.meta)
    raise typer.Exit(output.REFUSED)


@app.command("flush")
def flush_(ctx: typer.Context, as_json: Json = False) -> None:
    """Send the submissions that were kept while the world was away. Twice is once."""
    _flush(ctx, as_json)


def _flush(ctx: typer.Context, as_json: bool) -> None:
    from qmtl.sdk import spool
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
            empty=f"nothing was kept for {client.url}",
        )
    outcomes = {each.outcome for each in done}
    if "refused" in outcomes and not as_json:
        typer.echo(f"  what was refused is in {spool.folder() / spool.REFUSED}", err=True)
    if "waiting" in outcomes:
        if not as_json:
            typer.echo("  next: qmtl doctor says what is away", err=True)
        raise typer.Exit(output.AWAY)
    if "refused" in outcomes:
        raise typer.Exit(output.REFUSED)
    if outcomes == {"elsewhere"}:
        if not as_json:
            typer.echo(f"  next: set QMTL_URL, or --url; none is for {client.url}", err=True)
        raise typer.Exit(output.AWAY)
