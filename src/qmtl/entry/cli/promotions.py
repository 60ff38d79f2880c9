"""`qmtl world candidates|plan|approve|...`: live promotion by hand."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from qmtl.adapters.client import ApiError, Client

from . import output
from .context import Json, Reason, Run, Strategy, World, connect

app = typer.Typer()

STANDING = ("strategy_id", "phase", "held")
PLANNED = (
    "strategy_id", "run_id", "eligible", "blocked_reasons", "activate", "deactivate", "weights",
    "cooldown_remaining_sec",
)  # fmt: skip
ACTIVE = ("strategy_id", "active", "weight", "step", "run_id", "freeze", "drain", "sequence")


class Down(StrEnum):
    """Where a demotion leads."""

    PAPER = "paper"
    RETIRED = "retired"


@app.command()
def candidates(ctx: typer.Context, world: World, as_json: Json = False) -> None:
    """Who could go live, or up a step: standing, approvals, and every reason why not yet."""
    with connect(ctx) as client:
        known = list(client.candidates(world))
    if as_json:
        return output.as_json({"candidates": known})
    output.table(
        ("strategy", "run", "step", "standing", "approvals", "eligible", "blocked by"),
        [
            (
                c["strategy_id"],
                c["run_id"],
                c["step"],
                c["standing"],
                f"{c['approvals_valid']} of {c['approvals_needed']}",
                c["eligible"],
                c["blocked_reasons"],
            )
            for c in known
        ],
        empty="no candidates",
    )


@app.command()
def plan(
    ctx: typer.Context, world: World, strategy: Strategy, run: Run = None, as_json: Json = False
) -> None:
    """What apply would do now. Changes nothing."""
    with connect(ctx) as client:
        told = client.plan(world, strategy, run)
    if as_json:
        return output.as_json(told)
    output.pairs(told, PLANNED)
    for detail in told["details"]:
        output.line(f"  {detail}")


def _seen(client: Client, world: str, strategy: str, run: str | None) -> tuple[str, str | None]:
    """The run, and the digest of the evidence that its candidate shows now.

    Raises ApiError when no run was named and the strategy has no candidate.
    """
    if run is not None:
        return run, None
    known = [c for c in client.candidates(world) if c["strategy_id"] == strategy]
    chosen = next((c for c in known if c["standing"] != "applied"), known[-1] if known else None)
    if chosen is None:
        detail = f"{strategy} has no candidate in {world}"
        raise ApiError(409, "No such promotion candidate.", detail)
    return chosen["run_id"], chosen["evidence_digest"]


@app.command()
def approve(
    ctx: typer.Context,
    world: World,
    strategy: Strategy,
    reason: Reason,
    run: Run = None,
    evidence: Annotated[
        str | None, typer.Option(help="The digest of the evidence you saw; refused when not so.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Approve a candidate, as the actor of the credential."""
    with connect(ctx) as client:
        run_id, digest = _seen(client, world, strategy, run)
        told = client.approve(
            world,
            strategy_id=strategy,
            run_id=run_id,
            reason=reason,
            evidence_digest=evidence or digest,
        )
    if as_json:
        return output.as_json(told)
    who = ", ".join(approval["by"] for approval in told["approvals"])
    output.line(f"{strategy} {run_id}: {told['standing']}, approved by {who}")


@app.command()
def withdraw(
    ctx: typer.Context, world: World, strategy: Strategy, run: Run = None, as_json: Json = False
) -> None:
    """Take one's own approval back."""
    with connect(ctx) as client:
        run_id, _ = _seen(client, world, strategy, run)
        told = client.withdraw(world, strategy_id=strategy, run_id=run_id)
    _standing(told, strategy, run_id, as_json)


@app.command()
def reject(
    ctx: typer.Context,
    world: World,
    strategy: Strategy,
    reason: Reason,
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Hold a candidate until an operator releases it."""
    with connect(ctx) as client:
        run_id, _ = _seen(client, world, strategy, run)
        told = client.reject(world, strategy_id=strategy, run_id=run_id, reason=reason)
    _standing(told, strategy, run_id, as_json)


def _standing(told: dict[str, Any], strategy: str, run_id: str, as_json: bool) -> None:
    if as_json:
        return output.as_json(told)
    detail = f" ({told['standing_detail']})" if told.get("standing_detail") else ""
    output.line(f"{strategy} {run_id}: {told['standing']}{detail}")


@app.command()
def release(
    ctx: typer.Context, world: World, strategy: Strategy, reason: Reason, as_json: Json = False
) -> None:
    """Lift a rejection, and the hold of a manual demotion."""
    with connect(ctx) as client:
        told = client.release(world, strategy_id=strategy, reason=reason)
    return output.as_json(told) if as_json else output.pairs(told, STANDING)


@app.command()
def apply(
    ctx: typer.Context, world: World, strategy: Strategy, run: Run = None, as_json: Json = False
) -> None:
    """Take a candidate live, or up a step; or say every reason why not. Twice is once."""
    with connect(ctx) as client:
        run_id, _ = _seen(client, world, strategy, run)
        told = client.apply(world, strategy_id=strategy, run_id=run_id)
    return output.as_json(told) if as_json else output.pairs(told, ACTIVE)


@app.command()
def demote(
    ctx: typer.Context,
    world: World,
    strategy: Strategy,
    reason: Reason,
    to: Annotated[Down, typer.Option(help="How far.")] = Down.PAPER,
    as_json: Json = False,
) -> None:
    """Take a strategy down, and hold it there until released. Asks for nothing else."""
    with connect(ctx) as client:
        told = client.demote(world, strategy, to=to, reason=reason)
    return output.as_json(told) if as_json else output.pairs(told, STANDING)
