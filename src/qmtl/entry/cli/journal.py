"""`qmtl journal`: everything that happened to a world, in order, and whether it is as it was."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.core.words import counted

from . import output, project
from .context import Json, World, connect

if TYPE_CHECKING:
    from qmtl.adapters.audit.allowed import Audit, Transition
    from qmtl.adapters.wire.verify import Verified
    from qmtl.core.facts import Entry
    from qmtl.core.names import WorldId

app = typer.Typer(no_args_is_help=True)

T = TypeVar("T")

FACT_CHARS_MAX: Final = 160  # A line for people; --json has all of it.
PAGE: Final = 1_000  # Entries of one request: the server's most; large ones come in smaller pages.
STDIN: Final = "-"
KEY_UNKNOWN: Final = (
    "that the key is the server's: compare it with what `qmtl serve` says at its start, or give "
    "the one you kept (qmtl journal key) with --key"
)
HEADS_UNKNOWN: Final = (
    "that nobody rewrote all of it, hashes and all: give a head that was kept elsewhere (qmtl "
    "journal head) with --head"
)

HeadFiles = Annotated[
    list[Path],
    typer.Option("--head", exists=True, dir_okay=False, help="Heads that were kept."),
]
KeyFiles = Annotated[
    list[Path],
    typer.Option("--key", exists=True, dir_okay=False, help="Public keys that count, as kept."),
]


@app.callback()
def journal() -> None:
    """The journal: everything that happened."""


@app.command("list")
def list_(
    ctx: typer.Context,
    world: World,
    after: Annotated[int, typer.Option(min=0, help="Only entries after this seq.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 1_000,
    as_json: Json = False,
) -> None:
    """Entries, the oldest first. With --json one a line, as they come."""
    with connect(ctx) as client:
        entries = islice(client.journal(world, after), limit)
        if as_json:
            for entry in entries:
                output.line(json.dumps(entry))
            return
        rows = [(e["seq"], e["at"], e["actor"], e["kind"], _brief(e["fact"])) for e in entries]
    nothing = f"nothing happened after entry {after}" if after else "nothing happened yet"
    output.table(("seq", "at", "actor", "kind", "fact"), rows, empty=nothing)


def _brief(fact: dict[str, Any]) -> str:
    said = {name: part for name, part in fact.items() if name not in ("kind", "points", "policy")}
    text = output.plain(said)
    return text if len(text) <= FACT_CHARS_MAX else text[: FACT_CHARS_MAX - 1] + "…"


@app.command()
def head(ctx: typer.Context, world: World) -> None:
    """Where the journal ends, signed, as a line of JSON: keep it where the server cannot reach."""
    with connect(ctx) as client:
        output.line(json.dumps(client.journal_head(world)))


@app.command()
def key(ctx: typer.Context) -> None:
    """The public key that heads are signed with, as a line of JSON: keep it, too."""
    with connect(ctx) as client:
        output.line(json.dumps(client.journal_key()))


# ---- Export ----------------------------------------------------------------------------------


@app.command()
def export(
    ctx: typer.Context,
    world: World,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="A file; by default standard output.")
    ] = None,
) -> None:
    """The whole journal as JSON Lines that end in a signed head; docs/journal.md is the format.

    It is verified as it is written: the exit code is 1 when it is not whole. A file is there when
    all of it is.
    """
    from qmtl.adapters.wire.verify import verify as verified

    with connect(ctx) as client, _written(out) as file:
        lines = _tee(_exported(client, world), file)
        found = verified(lines)
        for _ in lines:  # Wrong or not, all of it is written.
            continue
    if found.problem is not None:
        output.failed(f"{world}: {found.problem.what}", "keep the export: it shows what is wrong")
        raise typer.Exit(output.REFUSED)
    where = "standard output" if out is None else out
    typer.echo(
        f"{world}: {counted(found.entries, 'entry')} in {where}, signed by {found.key_id}",
        err=out is None,
    )


def _exported(client: Client, world: str) -> Iterator[bytes]:
    """The lines of an export up to the head of now."""
    from qmtl.adapters.wire.export import lines

    signing_key, newest = client.journal_key(), client.journal_head(world)
    entries = client.journal(world, limit=PAGE)
    return lines(newest, signing_key, output.watched(entries, int(newest["seq"]), PAGE))


def _tee(lines: Iterator[bytes], file: IO[bytes]) -> Iterator[bytes]:
    """Writes what is read."""
    for line in lines:
        file.write(line)
        yield line


@contextmanager
def _written(out: Path | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that takes its name once all of it is on disk."""
    if out is None:
        stream = typer.get_binary_stream("stdout")
        yield stream
        stream.flush()
        return
    beside = out.with_name(f".{out.name}.partial")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


# ---- Verify ----------------------------------------------------------------------------------


@app.command()
def verify(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE | WORLD]",
            help="An export, - for standard input, or a world; by default the project's.",
        ),
    ] = None,
    heads: HeadFiles = [],  # noqa: B006 -- typer makes a list of its own.
    keys: KeyFiles = [],  # noqa: B006 -- typer makes a list of its own.
    as_json: Json = False,
) -> None:
    """Whether a journal is as it was written: nothing edited, removed, added, reordered or cut off.

    Of an export, without the server and without the network; of a world, by reading all of it. A
    file of that name is taken before a world of that name. The exit code is 1 when it is not, and
    the first entry that is wrong is said.
    """
    from qmtl.adapters.wire.verify import head_of, key_of
    from qmtl.adapters.wire.verify import verify as verified

    kept = [head for path in heads for head in _kept(path, "--head", head_of)]
    public = [key for path in keys for key in _kept(path, "--key", key_of)]
    with read_from(ctx, source) as (named, lines):
        found = verified(lines, kept, public)
    left = [] if found.key_known else [KEY_UNKNOWN]
    left += [] if kept else [HEADS_UNKNOWN]
    if as_json:
        output.as_json(_json(found, named, left))
    else:
        _print(found, named, left)
    if found.problem is not None:
        raise typer.Exit(output.REFUSED)


def _kept(path: Path, option: str, read: Callable[[object], T]) -> list[T]:
    """What a file holds, one JSON value after the other.  Raises BadParameter."""
    from qmtl.adapters.wire.verify import documents

    try:
        found = [read(each) for each in documents(path.read_text(encoding="utf-8"))]
    except ValueError as error:
        raise typer.BadParameter(f"{option} {path}: {error}") from error
    if not found:
        raise typer.BadParameter(f"{option} {path}: is empty")
    return found


@contextmanager
def read_from(ctx: typer.Context, source: str | None) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What is verified, by name, and its lines."""
    if source == STDIN:
        yield "standard input", iter(typer.get_binary_stream("stdin"))
    elif source is not None and Path(source).is_file():
        with Path(source).open("rb") as file:
            yield source, iter(file)
    elif source is not None and os.sep in source:
        raise typer.BadParameter(f"there is no file {source}")
    else:
        world = project.needed(source or project.here().world, "WORLD", "world")
        ctx.meta["world"] = world
        try:
            with connect(ctx) as client:
                yield world, _exported(client, world)
        except (ApiError, Away) as error:
            error.add_note(f"there is no file {world} here, so it was taken for a world")
            raise


def whole(ctx: typer.Context, source: str) -> "tuple[WorldId, list[Entry]]":
    """Every entry, verified on the way: of a journal that was damaged nothing is computed."""
    from qmtl.adapters.codec import fact_from_json
    from qmtl.adapters.wire.verify import ENTRY, verify
    from qmtl.core.facts import Entry
    from qmtl.core.names import ActorId, WorldId

    with read_from(ctx, source) as (named, lines):
        read = list(lines)
    found = verify(read)
    if found.problem is not None:
        output.failed(f"{named}: {found.problem.what}", f"qmtl journal verify {source}")
        raise typer.Exit(output.REFUSED)
    journal = []
    for line in read:
        if (match := ENTRY.fullmatch(line)) is None:
            continue  # The first line, and the last.
        header = json.loads(match[1])
        journal.append(
            Entry(
                seq=header["seq"],
                generation=header["generation"],
                at=datetime.fromisoformat(header["at"]),
                actor=ActorId(header["actor"]),
                fact=fact_from_json(json.loads(match[4])),
            )
        )
    assert found.world_id is not None, "a whole export names its world"
    return WorldId(found.world_id), journal


@app.command()
def audit(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE | WORLD]",
            help="An export, - for standard input, or a world; by default the project's.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Whether everything that went live was allowed to, derived again from the journal alone.

    A line for each weight that went up: ok, or every condition that did not hold, with the entries
    that show it. The journal is verified on the way, without kept heads and keys (qmtl journal
    verify takes them). The exit code is 1 when anything was not allowed, or the journal not whole.
    """
    from qmtl.adapters.audit.allowed import Audit, Unreadable, followed
    from qmtl.adapters.wire.verify import verify as verified

    found = Audit()
    with read_from(ctx, source) as (named, lines):
        try:
            problem = verified(followed(found, lines)).problem
            whole = None if problem is None else problem.what
        except Unreadable as error:
            whole = str(error)
    wrong = [each for each in found.transitions if each.violations]
    if as_json:
        output.as_json(_audit_json(found, named, whole))
    else:
        _print_audit(found, named, wrong)
        if whole is not None:
            said = [f"audited before it: {counted(found.entries, 'entry')}"]
            output.failed(f"{named}: {whole}", details=said)
    if wrong or whole is not None:
        raise typer.Exit(output.REFUSED)


def _print_audit(found: "Audit", named: str, wrong: "list[Transition]") -> None:
    from qmtl.adapters.audit.allowed import NOT_CHECKED

    for each in found.transitions:
        said = f"entry {each.seq}  {each.at.isoformat()}  {each.strategy_id}: {each.what}"
        output.line(f"{said}: {'NOT ALLOWED' if each.violations else 'ok'}")
        for violation in each.violations:
            rests_on = ", ".join(map(str, violation.rests_on)) or "none before it"
            output.line(f"  {violation.what} (entries: {rests_on})")
    count = len(found.transitions)
    output.line(
        f"{named}: {counted(found.entries, 'entry')}; {counted(count, 'time')} a weight went up, "
        f"{count - len(wrong)} allowed, {len(wrong)} not"
    )
    for left in NOT_CHECKED:
        output.line(f"  not checked: {left}")


def _audit_json(found: "Audit", named: str, whole: str | None) -> dict[str, object]:
    from qmtl.adapters.audit.allowed import NOT_CHECKED

    transitions = [
        {
            "seq": each.seq,
            "at": each.at.isoformat().replace("+00:00", "Z"),
            "strategy_id": each.strategy_id,
            "what": each.what,
            "ok": not each.violations,
            "violations": [
                {"what": violation.what, "rests_on": violation.rests_on}
                for violation in each.violations
            ],
        }
        for each in found.transitions
    ]
    return {
        "ok": whole is None and all(each["ok"] for each in transitions),
        "source": named,
        "entries": found.entries,
        "problem": whole,
        "transitions": transitions,
        "not_checked": NOT_CHECKED,
    }


def _print(found: "Verified", named: str, left: list[str]) -> None:
    if found.problem is not None:
        at = "" if found.problem.seq is None else f" (entry {found.problem.seq})"
        said = [f"{found.problem.fault}{at}; whole before it: {counted(found.entries, 'entry')}"]
        output.failed(f"{named}: {found.problem.what}", details=said)
        return
    assert found.head is not None, "without a head there is a problem"
    of = "" if named == found.world_id else f" of {found.world_id}"
    output.line(
        f"{named}: whole. {counted(found.entries, 'entry')}{of}, each following the one before, "
        f"up to the head of {found.head.at}"
    )
    output.line(f"  signed by {found.key_id}")
    if found.heads:
        output.line(f"  it leads to every head that was kept: {found.heads}")
    if found.reduced:
        of = counted(found.reduced, "snapshot")
        output.line(f"  of {of} retention left a part, as later entries say")
    for each in left:
        output.line(f"  not checked: {each}")


def _json(found: "Verified", named: str, left: list[str]) -> dict[str, object]:
    problem = found.problem
    return {
        "ok": problem is None,
        "source": named,
        "world_id": found.world_id,
        "entries": found.entries,
        "hash": found.hash,
        "head_at": None if found.head is None else found.head.at,
        "key_id": found.key_id,
        "heads_kept": found.heads,
        "reduced": found.reduced,
        "problem": None
        if problem is None
        else {"fault": problem.fault, "seq": problem.seq, "what": problem.what},
        "not_checked": left,
    }
