"""`qmtl world status|tick|campaign-loop`: where strategies stand, and what moves them on."""

import json
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qmtl.adapters.client import Client

from . import output
from .context import AnyStrategy, Json, World, connect, duration, until_told

if TYPE_CHECKING:
    from qmtl.entry.loop import Report

app = typer.Typer()

STAGE_OF = {"backtest_campaign": "backtest", "paper_campaign": "paper", "live_campaign": "live"}


@app.command()
def status(
    ctx: typer.Context, world: World, strategy: AnyStrategy = None, as_json: Json = False
) -> None:
    """Where each strategy stands, how full its window is, and why it is not further."""
    with connect(ctx) as client:
        told = client.status(world, strategy)
    if as_json:
        return output.as_json(told)
    if strategy is not None and told["strategies"]:
        return _one(told["strategies"][0])
    output.table(
        ("strategy", "phase", "window", "observations", "sharpe", "drawdown", "why not further"),
        [_row(each) for each in told["strategies"]],
        empty="no strategies yet: qmtl submit",
    )


def _row(told: dict[str, Any]) -> tuple[object, ...]:
    window = told.get(STAGE_OF.get(told["phase"], ""), {})
    metrics = told["metrics"]
    return (
        told["strategy_id"],
        told["phase"].removesuffix("_campaign") + (" (held)" if told["held"] else ""),
        f"{window['progress']:.0%}" if window else None,
        window.get("observations"),
        metrics.get("sharpe"),
        metrics.get("max_drawdown"),
        told["reasons"],
    )


def _one(told: dict[str, Any]) -> None:
    output.pairs(told, ("strategy_id", "phase", "entered_at", "held"))
    output.line("")
    names = ("backtest", "paper", "live")
    output.table(
        ("stage", "latest run", "observed", "of", "observations", "of", "full"),
        [
            (
                name,
                told[f"latest_{name}_run_id"],
                f"{told[name]['observed_sec'] / 86_400:.1f}d",
                told[name]["window"],
                told[name]["observations"],
                told[name]["required_observations"],
                told[name]["satisfied"],
            )
            for name in names
        ],
    )
    if told["metrics"]:
        output.line("")
        output.pairs(told["metrics"])
    if told.get("evidence"):
        output.line("")
        evidence = {**told["evidence"], **told["evidence"]["eta"]}
        output.pairs(evidence, ("e_value", "threshold", "budget", "sharpe_1", "sharpe_2"))
    why = told["details"] or told["reasons"]
    output.line("\nwhy not further:" if why else "\nnothing holds it back")
    for each in why:
        output.line(f"  {each}")


@app.command()
def tick(
    ctx: typer.Context, world: World, strategy: AnyStrategy = None, as_json: Json = False
) -> None:
    """What the world recommends to do next. Changes nothing."""
    with connect(ctx) as client:
        pages = list(client.tick_pages(world, strategy))
    actions = [action for page in pages for action in page["actions"]]
    if as_json:
        return output.as_json({**pages[0], "actions": actions, "next_cursor": None})
    output.table(
        ("action", "strategy", "stage", "run", "reason"),
        [
            (a["action"], a["strategy_id"], a["stage"], a["suggested_run_id"], a["reason"])
            for a in actions
        ],
        empty="nothing to do",
    )


@app.command("campaign-loop")
def campaign_loop(
    ctx: typer.Context,
    world: Annotated[str | None, typer.Argument(metavar="WORLD")] = None,
    every_world: Annotated[
        bool, typer.Option("--all", help="Every world that the credential is for.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="One turn, then exit.")] = False,
    interval: Annotated[str, typer.Option(help="Between two turns.")] = "60s",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="One turn that executes nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Do what the tick recommends, again and again.

    Any number of loops may run at once, and any may be killed at any instant: they share out the
    worlds, and another takes over from one that is gone. With --once the exit code is 1 when an
    action failed, and 3 when the world is away.
    """
    from qmtl.entry.loop import run_forever

    if (world is None) != every_world or (every_world and (once or dry_run)):
        raise typer.BadParameter("name one world, or --all, which is for a loop that goes on.")
    every = duration(interval).total_seconds()
    with connect(ctx) as client:
        if world is not None and (once or dry_run):
            report = _turn(client, world, dry_run)
            _say(report, as_json)
            if report.away:
                raise typer.Exit(output.AWAY)
            if not report.ok:
                raise typer.Exit(output.REFUSED)
            return

        def worlds() -> list[str]:
            return [each["id"] for each in client.worlds()] if world is None else [world]

        def say(of: str, report: "Report") -> None:
            _say(report, as_json, brief=True, world=of if world is None else None)

        waits = _waiting(f"{world or 'all worlds'}, every {interval}; Ctrl-C ends it")
        with waits, until_told() as stop:
            run_forever(client, worlds, every, say, stop)


def _waiting(words: str) -> AbstractContextManager[object]:
    """On a terminal, that something is alive; elsewhere nothing."""
    console = output.console(stderr=True)
    return console.status(words) if console.is_terminal else nullcontext()


def _turn(client: Client, world: str, dry_run: bool) -> "Report":
    """One turn; on a terminal with its progress."""
    from qmtl.entry.loop import Outcome, run_once

    console = output.console(stderr=True)
    if not console.is_terminal:
        return run_once(client, world, dry_run)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("campaign", total=None)

        def shown(outcome: Outcome, left: int) -> None:
            done = progress.tasks[0].completed + 1
            about = f"{outcome.action['action']} {outcome.action['strategy_id'] or ''}"
            progress.update(task, completed=done, total=done + left, description=about)

        return run_once(client, world, dry_run, shown)


def _say(report: "Report", as_json: bool, *, brief: bool = False, world: str | None = None) -> None:
    """`world`: which it is about, where there are several."""
    if as_json:  # Turn after turn, one line each.
        plain = _plain(report) | ({"world": world} if world else {})
        return output.line(json.dumps(plain)) if brief else output.as_json(plain)
    counts = {
        "planned": report.planned,
        "executed": report.executed,
        "blocked": report.blocked,
        "failed": report.failed,
        "left": report.left,
        "waiting for people": len(report.waiting),
    }
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    quiet = brief and not (said or report.errors)
    if not quiet:
        output.line((f"{world}: " if world else "") + (said or "nothing to do"))
    for sentence in report.blocks:
        output.line(f"  blocked: {sentence}")
    for action in report.waiting if not brief else ():
        output.line(f"  waiting: {_command(action)}")
    for sentence in report.errors:
        output.failed(sentence)


def _command(action: dict[str, Any]) -> str:
    """What a person would run."""
    endpoint, run_id = str(action["suggested_endpoint"]), action["suggested_run_id"]
    world, verb = endpoint.split("/")[2], endpoint.rpartition("/")[2]
    reason = "" if verb == "apply" else " --reason ..."
    return f"qmtl world {verb} {world} {action['strategy_id']} {run_id}{reason}"


def _plain(report: "Report") -> dict[str, object]:
    return {
        "executed": report.executed,
        "blocked": report.blocked,
        "failed": report.failed,
        "planned": report.planned,
        "left": report.left,
        "rounds": report.rounds,
        "away": report.away,
        "ok": report.ok,
        "waiting": report.waiting,
        "blocks": report.blocks,
        "errors": report.errors,
    }
