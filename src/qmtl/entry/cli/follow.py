"""`qmtl follow`: a submitted strategy, computed and posted bar by bar as its prices come in."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qmtl.adapters.client import Client
from qmtl.core.words import counted

from . import output, project
from .context import Json, OwnId, TheWorld, connect, until_told
from .source import AuthorsError, authors_errors, home_of, strategy_of

if TYPE_CHECKING:
    from qmtl.sdk.follow import Followed
    from qmtl.sdk.told import Told

app = typer.Typer()


@app.command()
def follow(
    ctx: typer.Context,
    source: Annotated[
        str | None, typer.Argument(metavar="[FILE_OR_MODULE:NAME]", help="The strategy.")
    ] = None,
    world: TheWorld = None,
    prices: Annotated[
        Path | None, typer.Option(exists=True, help="A file that grows, or a folder of files.")
    ] = None,
    strategy_id: OwnId = None,
    cost_bps: Annotated[
        float | None, typer.Option(min=0, help="Cost of a unit of weight traded, as submitted.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="What there is now, then exit: for cron.")
    ] = False,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Rehearse: move the server's replay clock to each bar."),
    ] = False,
    loop: Annotated[
        bool, typer.Option("--loop", help="With --replay: a turn of the campaign loop after each.")
    ] = False,
    until: Annotated[
        str | None, typer.Option(help="The last day that is looked at: 2021-12-31.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute a submitted strategy on each new bar of its prices, and post what it earned.

    It posts what the engine says: a rehearsal, not trading (Runner.follow takes an `execute`).
    Killed at any instant it goes on where it stopped. While the world is away it computes and keeps
    what it owes; with --once or --replay it ends then, with exit code 3. Ctrl-C ends it after the
    bar at hand.
    """
    if loop and not replay:
        raise typer.BadParameter("--loop goes with --replay; else run qmtl world campaign-loop")
    last = None if until is None else project.day(until, "--until")
    here = project.here()
    world = ctx.meta["world"] = project.needed(world or here.world, "--world", "world")
    source = project.needed(source or here.strategy, "FILE_OR_MODULE:NAME", "strategy")
    prices = project.needed(prices or here.prices, "--prices", "prices")
    cost = here.cost_bps if cost_bps is None else cost_bps
    with connect(ctx) as client, until_told() as stop, _shown(prices, as_json) as tell:
        done = _followed(
            ctx,
            client,
            source,
            cost,
            tell=_with_loop(tell, client, world) if loop else tell,
            world=world,
            source=prices,
            strategy_id=strategy_id or here.strategy_id,
            once=once,
            replay=replay,
            until=last,
            stop=stop,
        )
    if not as_json and (once or replay):
        owed = f", {done.owed} owed" if done.owed else ""
        output.line(f"{counted(done.computed, 'bar')} computed, {done.posted} posted{owed}")
    if done.away and (once or replay):
        raise typer.Exit(output.AWAY)


def _followed(
    ctx: typer.Context, client: Client, code: str, cost: float | None, **asked: Any
) -> "Followed":
    """`Runner.follow`; what it refuses is said.  Raises typer.Exit."""
    from qmtl.sdk import follow as following
    from qmtl.sdk.delivery import AlreadyFollowed, BarRefused
    from qmtl.sdk.ledger import LedgerError
    from qmtl.sdk.prices import PricesError
    from qmtl.sdk.strategy import StrategyError
    from qmtl.sdk.submitted import NotSubmitted

    said, known = output.failed, ctx.meta
    try:
        strategy = strategy_of(code)
        engine = project.engine(cost)
        with authors_errors(home_of(code)):
            return following.follow(strategy, engine=engine, client=client, **asked)
    except AuthorsError as error:
        cause = f"the strategy failed with {error}"
        said(cause, "mend it, then qmtl submit: it is another version then", error.where, known)
        raise typer.Exit(output.REFUSED) from error
    except BarRefused as error:
        hint = f"qmtl journal list {asked['world']} shows what the world has"
        refused = error.error
        said(str(error), hint, refused.details, known, reasons=list(refused.reasons))
        raise typer.Exit(output.REFUSED) from error
    except following.NoReplayClock as error:
        hint = "qmtl serve --clock replay --at TIME, with a folder of its own"
        said(str(error), hint, known=known)
        raise typer.Exit(output.REFUSED) from error
    except (
        NotSubmitted,
        AlreadyFollowed,
        LedgerError,
        StrategyError,
        PricesError,
        OSError,
    ) as error:
        said(str(error), known=known)
        raise typer.Exit(output.REFUSED) from error


@contextmanager
def _shown(prices: Path, as_json: bool) -> "Iterator[Callable[[Told], None]]":
    """A line for whatever is told; on a terminal, below them, that something is alive."""
    # What standard output is now: while the author's code runs, it is elsewhere.
    out = sys.stdout
    if as_json:
        yield lambda told: typer.echo(json.dumps(told.plain()), file=out)
        return
    console = output.console()
    if not console.is_terminal:
        yield lambda told: typer.echo(str(told), file=out)
        return
    with console.status(f"waits for the next bar of {prices}; Ctrl-C ends it"):
        above = sys.stdout  # Of the status line, which stays the last one.
        yield lambda told: typer.echo(str(told), file=above)


def _with_loop(
    tell: "Callable[[Told], None]", client: Client, world: str
) -> "Callable[[Told], None]":
    """After each bar a turn of the campaign loop, as somebody's cron job would do it."""
    from qmtl.entry.loop import run_once
    from qmtl.sdk.told import Note, Turn

    said: set[str] = set()

    def told(what: "Told") -> None:
        tell(what)
        if not isinstance(what, Turn):
            return
        report = run_once(client, world)
        waiting = [f"waits for people: {a['action']} {a['strategy_id']}" for a in report.waiting]
        for text in (*report.errors, *report.blocks, *waiting):
            if text not in said:
                said.add(text)
                tell(Note(text))

    return told
