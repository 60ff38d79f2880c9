"""`qmtl why`: a journal entry, derived again from the entries before it."""

from itertools import islice, takewhile
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qmtl.adapters.client import Client
from qmtl.core.errors import Invalid
from qmtl.core.names import WorldId
from qmtl.core.times import rfc3339

from . import output, project
from .context import Json, connect

if TYPE_CHECKING:
    from qmtl.app.why import Why
    from qmtl.core.facts import Entry

app = typer.Typer()

PAGE: Final = 1_000  # Entries of one request: the server's most.
VERDICTS: Final = {
    "same": "re-derived: the same",
    "different": "re-derived: NOT the same",
    "act": "nothing was derived: it is what somebody did",
}
CHECKED: Final = (
    "every entry up to it follows the one before by its hash, reads back as a fact, and fits the "
    "world there"
)
NOT_CHECKED: Final = (
    "that nobody rewrote all of it, hashes and all: heads that were kept elsewhere show that "
    "(qmtl journal verify --head)"
)


@app.command()
def why(
    ctx: typer.Context,
    seq: Annotated[int, typer.Argument(min=1, help="The entry, as the journal numbers it.")],
    world: Annotated[
        str | None, typer.Option(help="The world's id; by default the project's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Derive a recorded decision again from the journal before it, and show its inputs.

    The journal up to the entry is read and replayed here, with the code that is installed here.
    The exit code is 1 when that leads to something else than what was recorded.
    """
    from qmtl.adapters.memory import store_of
    from qmtl.adapters.wire.history import just_before
    from qmtl.app.why import Outcome
    from qmtl.app.why import why as derived_again

    where = project.needed(world or project.here().world, "--world", "world")
    ctx.meta["world"] = where
    with connect(ctx) as client:
        entries = _journal(client, where, seq)
    if len(entries) < seq:
        _no_such_entry(ctx, where, seq, len(entries))
    world_id = WorldId(where)
    found = derived_again(store_of(just_before(world_id, entries)), world_id, entries[-1])
    if as_json:
        output.as_json(_json(found))
    else:
        _print(found)
    if found.outcome is Outcome.DIFFERENT:
        raise typer.Exit(output.REFUSED)


def _journal(client: Client, world: str, seq: int) -> list["Entry"]:
    """Entries 1 to `seq`, as far as there are, chained.  Raises Invalid when they are not."""
    from qmtl.adapters.wire import export
    from qmtl.adapters.wire.history import entry_of
    from qmtl.adapters.wire.verify import Chain, Wrong

    told = client.journal(world, limit=min(seq, PAGE))
    chain, entries = Chain(world), []
    try:
        for each in output.watched(islice(told, seq), seq, PAGE):
            chain.follow(export.entry(world, each))
            entries.append(entry_of(each))
        for each in takewhile(lambda _: chain.reduced, told):
            chain.follow(export.entry(world, each))  # Until it says what retention took.
        chain.end()
    except Wrong as wrong:
        raise Invalid(f"{wrong}.") from wrong
    return entries


def _no_such_entry(ctx: typer.Context, world: str, seq: int, last: int) -> None:
    ends = f"ends at {last}" if last else "is empty"
    cause = f"there is no entry {seq}: the journal of {world} {ends}"
    output.failed(cause, f"qmtl journal list {world}", known=ctx.meta)
    raise typer.Exit(output.REFUSED)


def _headline(found: "Why") -> str:
    entry = found.entry
    of = "" if found.strategy_id is None else f" of {found.strategy_id}"
    said = f"entry {entry.seq}: {entry.fact.kind}{of} by {entry.actor} at {rfc3339(entry.at)}"
    return f"{said} — {VERDICTS[found.outcome]}"


def _print(found: "Why") -> None:
    typer.secho(_headline(found), bold=True)
    output.line(f"  {found.sentence}")
    if found.differences:
        typer.secho("\nwhere they differ", fg="red")
        rows = [(each.where, each.recorded, each.derived) for each in found.differences]
        output.table(("in", "recorded", "derived"), rows)
    if found.inputs:
        typer.secho("\ninputs", fg="cyan")
        width = max(len(each.name) for each in found.inputs)
        for each in found.inputs:
            output.line(f"  {each.name:<{width}}  {each.value}")
    output.line(f"\nchecked: {CHECKED}")
    output.line(f"not checked: {NOT_CHECKED}")


def _json(found: "Why") -> dict[str, object]:
    entry = found.entry
    return {
        "seq": entry.seq,
        "at": rfc3339(entry.at),
        "actor": entry.actor,
        "kind": entry.fact.kind,
        "strategy_id": found.strategy_id,
        "sentence": found.sentence,
        "outcome": found.outcome,
        "inputs": [{"name": each.name, "value": each.value} for each in found.inputs],
        "differences": [
            {"where": each.where, "recorded": each.recorded, "derived": each.derived}
            for each in found.differences
        ],
        "not_checked": [NOT_CHECKED],
    }
