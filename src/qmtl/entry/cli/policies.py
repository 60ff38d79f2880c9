"""`qmtl policy`: check one here, set one there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .context import Json, World, connect
from .worlds import waiting

if TYPE_CHECKING:
    from qmtl.core.implications import Implication

app = typer.Typer(no_args_is_help=True)

JSON_SUFFIXES = frozenset({".json"})

Document = Annotated[
    str,
    typer.Argument(
        help="A YAML or JSON file; or sandbox, standard, conservative.", metavar="POLICY"
    ),
]


def _read(document: str) -> tuple[str | bytes, str]:
    """A policy's text and media type, from a file or from the package."""
    from qmtl.adapters import policies
    from qmtl.adapters.policies import documents

    path = Path(document)
    if path.is_file():
        as_json = path.suffix.lower() in JSON_SUFFIXES
        return path.read_bytes(), documents.JSON if as_json else documents.YAML
    if document in policies.SHIPPED:
        return policies.shipped(document), documents.YAML
    shipped = ", ".join(policies.SHIPPED)
    raise typer.BadParameter(f"{document!r} is no file, and none of {shipped}")


@app.command()
def check(document: Document, as_json: Json = False) -> None:
    """Whether it is a policy, and what it implies: how long, how likely by luck, and never."""
    from qmtl.adapters import policies
    from qmtl.core.implications import SHARPES_ASSUMED

    policy = policies.parse(*_read(document))
    found, warnings = policies.implications(policy), policies.warnings(policy)
    checksum = policies.checksum(policy)
    if as_json:
        rows = [
            {"path": row.path, "says": row.says, "years": list(row.years), "never": row.never}
            for row in found
        ]
        told = {"checksum": checksum, "warnings": list(warnings), "implications": rows}
        return output.as_json(told)
    output.line(f"valid; {checksum}\n")
    years = [f"at Sharpe {sharpe:g}" for sharpe in SHARPES_ASSUMED]
    output.table(("what", "implies", *years), [_row(row, len(years)) for row in found])
    for warning in warnings:
        output.line(f"\nwarning: {warning}")


def _row(row: "Implication", columns: int) -> tuple[object, ...]:
    told = [f"{y:.1f} y" if y is not None else "never" for y in row.years]
    return (row.path, row.says, *(told or [""] * columns))


@app.command()
def schema() -> None:
    """The JSON Schema of a policy."""
    from qmtl.adapters import policies

    output.as_json(policies.schema())


@app.command()
def show(document: Document, as_json: Json = False) -> None:
    """A policy as it is written; with --json its canonical form, every default filled in."""
    text, media_type = _read(document)
    if not as_json:
        return output.line((text if isinstance(text, str) else text.decode()).rstrip("\n"))
    from qmtl.adapters import policies

    output.as_json(policies.document(policies.parse(text, media_type)))


@app.command("set")
def set_(ctx: typer.Context, world: World, document: Document, as_json: Json = False) -> None:
    """Add a version to a world and make it the default, from the next evaluation on."""
    text, media_type = _read(document)
    with connect(ctx) as client:
        added = client.add_policy(world, text, media_type)
        confirmation = added.get("confirmation_id")
        if not added["default"] and not confirmation:
            confirmation = client.set_default(world, added["version"]).get("confirmation_id")
    told = {**added, "default": not confirmation, "confirmation_id": confirmation}
    if as_json:
        return output.as_json(told)
    output.line(f"version {added['version']} of {world}; {added['checksum']}")
    for warning in added["warnings"]:
        output.line(f"warning: {warning}")
    if confirmation:
        waiting(world, confirmation)


@app.command("list")
def list_(ctx: typer.Context, world: World, as_json: Json = False) -> None:
    """A world's versions."""
    with connect(ctx) as client:
        known = list(client.policies(world))
    if as_json:
        return output.as_json({"policies": known})
    output.table(
        ("version", "default", "created at", "checksum"),
        [(p["version"], p["default"], p["created_at"], p["checksum"]) for p in known],
        empty=f"no policy yet: qmtl policy set {world} standard",
    )
