"""`qmtl world`: made, shown, opened to live and closed, killed and resumed."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from qmtl.core.times import in_words

from . import output
from .context import AnyStrategy, Json, Reason, Strategy, World, connect, duration, name_and_value

app = typer.Typer(no_args_is_help=True)

SHOWN = (
    "id", "name", "description", "labels", "state", "allow_live", "killed",
    "default_policy_version", "strategies", "live", "generation", "created_at", "created_by",
)  # fmt: skip
DECIDED = (
    "strategy_id", "effective_mode", "execution_domain", "weight", "ramp_fraction", "reasons",
    "policy_version", "generation", "issued_at", "expires_at", "downgraded", "safe_mode",
)  # fmt: skip


class State(StrEnum):
    """What an operator may set."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


def shown(told: dict[str, Any], world: str, as_json: bool) -> None:
    """A world; or that a second person has to confirm what was asked of it."""
    if as_json:
        output.as_json(told)
    elif "confirmation_id" in told:
        waiting(world, told["confirmation_id"])
    else:
        output.pairs(told, SHOWN)
        for asked in told.get("confirmations", ()):
            output.line(f"{asked['what']} of {asked['by']} waits for a second person:")
            output.line(f"  qmtl world confirm {world} {asked['confirmation_id']}")


def waiting(world: str, confirmation_id: str) -> None:
    output.line("This takes two people. The second one runs:")
    output.line(f"  qmtl world confirm {world} {confirmation_id}")


@app.command()
def create(
    ctx: typer.Context,
    world: World,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="name=value; may be repeated.")] = None,
    allow_live: Annotated[
        bool, typer.Option("--allow-live", help="Let strategies go live; takes policy-admin.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a world. The same again is the same world."""
    labels = dict(map(name_and_value, label)) if label else None
    with connect(ctx) as client:
        told = client.create_world(
            world,
            name=name,
            description=description,
            labels=labels,
            allow_live=allow_live or None,
        )
    shown(told, world, as_json)


@app.command("list")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """Every world that the credential may see."""
    with connect(ctx) as client:
        known = list(client.worlds())
    if as_json:
        return output.as_json({"worlds": known})
    output.table(
        ("world", "state", "allow live", "policy", "strategies", "live"),
        [
            (
                w["id"],
                "killed" if w["killed"] else w["state"],
                w["allow_live"],
                w["default_policy_version"],
                w["strategies"],
                w["live"],
            )
            for w in known
        ],
        empty="no worlds yet: qmtl world create WORLD",
    )


@app.command()
def show(ctx: typer.Context, world: World, as_json: Json = False) -> None:
    """One world, and what in it waits for a second person."""
    with connect(ctx) as client:
        told = client.world(world)
    shown(told, world, as_json)


@app.command("set")
def set_(
    ctx: typer.Context,
    world: World,
    allow_live: Annotated[
        bool | None, typer.Option("--allow-live/--no-allow-live", help="Off empties the live set.")
    ] = None,
    state: Annotated[State | None, typer.Option(help="Archived takes no writes.")] = None,
    as_json: Json = False,
) -> None:
    """Allow live or not; suspend, archive, activate."""
    if allow_live is None and state is None:
        raise typer.BadParameter("say --allow-live, --no-allow-live or --state")
    with connect(ctx) as client:
        told = client.change_world(world, allow_live=allow_live, state=state)
    shown(told, world, as_json)


@app.command()
def confirm(
    ctx: typer.Context,
    world: World,
    confirmation: Annotated[str, typer.Argument(help="The confirmation's id.", metavar="ID")],
    as_json: Json = False,
) -> None:
    """As a second person, confirm what a first one asked for."""
    with connect(ctx) as client:
        told = client.confirm(world, confirmation)
    if as_json:
        return output.as_json(told)
    output.line(f"confirmed: {told['what']}, asked for by {told['by']}")


@app.command()
def kill(ctx: typer.Context, world: World, reason: Reason, as_json: Json = False) -> None:
    """Stop everything: all weights to 0, gates closed. Asks for nothing else."""
    with connect(ctx) as client:
        told = client.kill(world, reason)
    shown(told, world, as_json)


@app.command()
def resume(ctx: typer.Context, world: World, reason: Reason, as_json: Json = False) -> None:
    """Open the gates again after a kill. What was live is not: it goes through them anew."""
    with connect(ctx) as client:
        told = client.resume(world, reason)
    shown(told, world, as_json)


@app.command()
def decide(
    ctx: typer.Context, world: World, strategy: AnyStrategy = None, as_json: Json = False
) -> None:
    """What each strategy may do now, and until when."""
    with connect(ctx) as client:
        if strategy is not None:
            told = client.decide_one(world, strategy)
            return output.as_json(told) if as_json else output.pairs(told, DECIDED)
        known = client.decide(world)
    if as_json:
        return output.as_json({"decisions": known})
    output.table(
        ("strategy", "mode", "weight", "ramp", "reasons", "until"),
        [
            (
                e["strategy_id"],
                e["effective_mode"],
                e["weight"],
                e["ramp_fraction"],
                e["reasons"],
                e["expires_at"],
            )
            for e in known
        ],
        empty="no strategies yet: qmtl submit",
    )


@app.command()
def extend(
    ctx: typer.Context,
    world: World,
    strategy: Strategy,
    by: Annotated[str, typer.Option(help="Such as 90d.")],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """More time for a campaign that neither passed nor failed."""
    duration(by)
    with connect(ctx) as client:
        told = client.extend(world, strategy, by, reason)
    if as_json:
        return output.as_json(told)
    more = in_words(told["extension_sec"])
    output.line(f"{strategy} is in {told['phase']}, extended by {more} in all")
