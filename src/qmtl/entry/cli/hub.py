"""`qmtl hub`: risk snapshots."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from qmtl.core.words import counted

from . import output
from .context import Json, World, connect

app = typer.Typer(no_args_is_help=True)

STDIN = Path("-")
READ_SEC = 600.0  # A whole journal is read.
SHOWN = (
    "version", "stage", "as_of", "expires_at", "created_at", "actor", "seq", "content", "weights",
)  # fmt: skip


class StageWord(StrEnum):
    """Where a snapshot's returns come from."""

    BACKTEST = "backtest"
    PAPER = "paper"
    SHADOW = "shadow"
    LIVE = "live"


AnyStage = Annotated[StageWord | None, typer.Option(help="By default any.")]


@app.command()
def post(
    ctx: typer.Context,
    world: World,
    file: Annotated[
        Path,
        typer.Argument(
            dir_okay=False, allow_dash=True, metavar="FILE", help="JSON; - is standard input."
        ),
    ],
    stage: Annotated[StageWord, typer.Option(help="Where its returns come from.")],
    actor: Annotated[
        str, typer.Option(envvar="QMTL_ACTOR", help="The actor of the credential.")
    ] = "admin",
    as_json: Json = False,
) -> None:
    """Post a snapshot. The same again is no second event."""
    snapshot = _document(file)
    with connect(ctx) as client:
        told = client.post_snapshot(world, snapshot, stage=stage, actor=actor)
    return output.as_json(told) if as_json else output.pairs(told, SHOWN)


def _document(file: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == STDIN else file.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise typer.BadParameter(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file} holds no JSON object")
    return found


@app.command()
def latest(
    ctx: typer.Context,
    world: World,
    stage: AnyStage = None,
    expand: Annotated[bool, typer.Option("--expand", help="With the returns held.")] = False,
    as_json: Json = False,
) -> None:
    """The snapshot with the greatest as_of."""
    with connect(ctx) as client:
        told = client.latest_snapshot(world, stage=stage, expand=expand or None)
    if as_json or expand:
        return output.as_json(told)
    output.pairs(told, SHOWN)


@app.command()
def retain(
    ctx: typer.Context,
    world: World,
    older_than: Annotated[str, typer.Option(help="Of snapshots stored longer ago, such as 400d.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and change nothing.")
    ] = False,
    orphans_older_than: Annotated[
        str | None,
        typer.Option(help="Remove objects, too, that no world of the server names, such as 90d."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove of old snapshots what no decision rests on: covariance, stress, statistics, extras.

    Returns and weights stay, and all of a snapshot that a run, a candidate, an approval or a live
    strategy rests on; it says which, and why. What is removed is on record in the journal, and
    gone for good: begin with --dry-run. What an object store keeps for nobody is removed only when
    it is asked for: no sooner than backups of the database are, and never from a copy of it.
    """
    with connect(ctx, timeout=READ_SEC) as client:
        if dry_run:
            told = client.survey(world, older_than)
        else:
            told = client.retain(world, older_than, orphans_older_than)
    if as_json:
        return output.as_json({**told, "dry_run": dry_run})
    rows = [
        (s["seq"], s["stage"], s["stored_at"], s["version"], ", ".join(s["parts"]))
        for s in told["removable"]
    ]
    does = "would be removed" if dry_run else "removed"
    output.table(("seq", "stage", "stored at", "version", does), rows, empty=f"nothing {does}")
    for held in told["held"]:
        output.line(f"kept: entry {held['seq']}, {held['version']}: {'; '.join(held['held'])}")
    if not dry_run and told["orphans"]:
        output.line(f"{counted(told['orphans'], 'object')} that nothing names, removed")


@app.command("list")
def list_(
    ctx: typer.Context,
    world: World,
    stage: AnyStage = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """Snapshots, newest stored first."""
    from itertools import islice

    with connect(ctx) as client:
        known = list(islice(client.snapshots(world, stage=stage), limit))
    if as_json:
        return output.as_json({"snapshots": known})
    output.table(
        ("seq", "stage", "as of", "expires at", "actor", "strategies", "version"),
        [
            (
                s["seq"],
                s["stage"],
                s["as_of"],
                s["expires_at"],
                s["actor"],
                len(s["strategies"]),
                s["version"],
            )
            for s in known
        ],
        empty="no snapshots yet",
    )
