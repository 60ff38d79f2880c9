"""`qmtl token`: API tokens."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from . import output
from .context import Json, connect, duration

app = typer.Typer(no_args_is_help=True)


TokenId = Annotated[str, typer.Argument(help="The token's id, as list shows it.", metavar="ID")]


class RoleWord(StrEnum):
    """What a token may do."""

    READER = "reader"
    AUTHOR = "author"
    PRODUCER = "producer"
    OPERATOR = "operator"
    APPROVER = "approver"
    POLICY_ADMIN = "policy-admin"
    ADMIN = "admin"


@app.command()
def create(
    ctx: typer.Context,
    role: Annotated[list[RoleWord], typer.Option(help="May be repeated.")],
    actor: Annotated[str, typer.Option(help="Whose it is: the journal says so.")],
    world: Annotated[str | None, typer.Option(help="By default every world.")] = None,
    expires: Annotated[str | None, typer.Option(help="Such as 30d; by default never.")] = None,
    as_json: Json = False,
) -> None:
    """Make a token. It is printed this once, and kept nowhere."""
    lasts = None if expires is None else duration(expires)
    with connect(ctx) as client:
        # The server's clock decides when it expires, so the server is asked what time it is.
        until = None if lasts is None else datetime.fromisoformat(client.clock()["now"]) + lasts
        told = client.create_token(
            actor=actor, roles=[str(r) for r in role], world=world, expires_at=until
        )
    if as_json:
        return output.as_json(told)
    _said(told)


def _said(told: dict[str, Any]) -> None:
    """The token on standard output, and nothing else there."""
    output.line(told["token"])
    typer.echo("It is not shown again. To use it: export QMTL_TOKEN=<token>", err=True)
    if not told["confirmed"]:
        typer.echo(
            "It opens nothing until another admin confirms it: "
            f"qmtl token confirm {told['token_id']}",
            err=True,
        )


@app.command("list")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """Every token, without the token itself."""
    with connect(ctx) as client:
        known = list(client.tokens())
    if as_json:
        return output.as_json({"tokens": known})
    output.table(
        ("actor", "roles", "world", "ends at", "created at", "by", "rotated at", "state", "id"),
        [
            (
                t["actor"],
                t["roles"],
                t["world_id"] or "every",
                t["replaced_until"] or t["expires_at"] or "never",
                t["created_at"],
                t["created_by"],
                t["rotated_at"],
                "in use" if t["confirmed"] else "to be confirmed",
                t["token_id"],
            )
            for t in known
        ],
    )


@app.command()
def confirm(ctx: typer.Context, token: TokenId, as_json: Json = False) -> None:
    """Let in what another admin has asked for, under dual control."""
    with connect(ctx) as client:
        told = client.confirm_token(token)
    if as_json:
        return output.as_json(told)
    output.line(f"confirmed: {told['actor']} is {output.plain(told['roles'])}")


@app.command()
def rotate(
    ctx: typer.Context,
    token: TokenId,
    overlap: Annotated[
        str | None, typer.Option(help="How long the old one goes on, by default 1h; 0s: not.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the next token of the same actor, roles and world; the old one ends soon."""
    with connect(ctx) as client:
        told = client.rotate_token(token, overlap)
    if as_json:
        return output.as_json(told)
    _said(told)


@app.command()
def revoke(ctx: typer.Context, token: TokenId, as_json: Json = False) -> None:
    """From the next request on it opens nothing."""
    with connect(ctx) as client:
        told = client.revoke_token(token)
    if as_json:
        return output.as_json(told)
    output.line("revoked")
