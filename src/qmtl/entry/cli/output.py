"""What commands print: tables for people, JSON for scripts, and errors with what to try next."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

from qmtl.adapters.client import ApiError, Away

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
Progress = Callable[[str, int, int], None]  # What, how much of it, of how much.

REFUSED: Final = 1
USAGE: Final = 2
AWAY: Final = 3

# The first reason that stands here says what to try.  {world} and {strategy} are filled in.
NEXT: Final = {
    "live_not_allowed": "qmtl world set {world} --allow-live",
    "policy_missing": "qmtl policy set {world} standard",
    "manual_approval_required": "qmtl world approve {world} {strategy} --reason ...",
    "approvals_insufficient": "qmtl world approve {world} {strategy} --reason ...",
    "approval_expired": "qmtl world approve {world} {strategy} --reason ...",
    "candidate_rejected": "qmtl world release {world} {strategy} --reason ...",
    "held": "qmtl world release {world} {strategy} --reason ...",
    "world_killed": "qmtl world resume {world} --reason ...",
    "world_suspended": "qmtl world set {world} --state active",
    "risk_snapshot_missing": "qmtl hub latest {world}",
    "risk_snapshot_expired": "qmtl hub latest {world}",
    "risk_snapshot_stale": "qmtl hub latest {world}",
    "evidence_changed": "qmtl world candidates {world}",
    "candidate_superseded": "qmtl world candidates {world}",
}
NEXT_OF_KIND: Final = {
    "unknown-world": "qmtl world list",
    "unknown-strategy": "qmtl world status {world}",
    "unknown-run": "qmtl world status {world} {strategy}",
    "unknown-candidate": "qmtl world candidates {world}",
    "unknown-policy": "qmtl policy list {world}",
    "unknown-snapshot": "qmtl hub list {world}",
    "unknown-token": "qmtl token list",
    "unknown-confirmation": "qmtl world show {world}",
}
NEXT_OF_STATUS: Final = {
    401: "set QMTL_TOKEN to a token of this server (qmtl token create makes one), or QMTL_DATA to "
    "the data folder of a server here",
    403: "qmtl token create --role ROLE --actor ACTOR, and set QMTL_TOKEN to what it prints",
    412: "qmtl world candidates {world}",
}
NEXT_OF_STRANGER: Final = "qmtl doctor"  # It may be no server of ours, or one that is broken.
LINE: Final = 100  # Characters of a line of a paragraph.
PIPE_COLUMNS: Final = 1_000  # Nobody reads a pipe: a row stays a line, for grep and awk.
_FRACTION: Final = re.compile(r"(\d\d:\d\d:\d\d)\.\d+Z$")  # Of a second: --json has it.


def as_json(told: object) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(told, indent=2, default=str))


def line(text: str) -> None:
    typer.echo(text)


def paragraph(text: str, indent: str = "") -> None:
    """Text, in lines that can be read; what follows the first line is indented."""
    for each in text.split("\n"):
        typer.echo(fill(each, LINE, subsequent_indent=indent, break_on_hyphens=False))


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    empty: str = "none",
    width: int | None = None,
) -> None:
    """A table on standard output: colours only on a terminal, and nothing is cut off.

    width  of a column: what is longer goes on below
    """
    if not rows:
        typer.echo(empty)
        return
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold", max_width=width)
    for row in rows:
        shown.add_row(*map(plain, row))
    console().print(shown)


def pairs(told: Mapping[str, Any], names: Sequence[str] | None = None) -> None:
    """Some of an answer, or all of it, one name a line."""
    shown = names or tuple(told)
    width = max(map(len, shown))
    for name in shown:
        typer.echo(f"{name:<{width}}  {plain(told.get(name))}")


def plain(value: object) -> str:
    """A value of JSON in a cell."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case str():
            return _FRACTION.sub(r"\1Z", value)
        case list() | tuple():
            return ", ".join(map(plain, value)) or "-"
        case dict():
            return ", ".join(f"{name} {plain(part)}" for name, part in value.items()) or "-"
        case _:
            return str(value)


def watched(items: Iterable[T], count: int, least: int, what: str = "journal") -> Iterator[T]:
    """The same; a terminal sees how far they have come, when there are more than `least`."""
    if count <= least or not sys.stderr.isatty():
        yield from items
        return
    with typer.progressbar(items, length=count, label=what, file=sys.stderr) as shown:
        yield from shown


@contextmanager
def progress_bars() -> Iterator[Progress | None]:
    """Bars of what is being computed, on a terminal; elsewhere nothing."""
    where = console(stderr=True)
    if not where.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=where, transient=True) as bars:
        stages: dict[str, Any] = {}

        def shown(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done, total=total)

        yield shown


def console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    # Names and reasons come from others: none of it is markup.
    found = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not found.is_terminal:
        found.width = PIPE_COLUMNS
    return found


def refused(error: ApiError | Away, known: Mapping[str, Any], hint: str | None = None) -> int:
    """Says on standard error what went wrong and what to try next; the exit code.

    known  what of the command line a hint can name: `world`, `strategy`; and whether `json`
    hint   what to try, where the caller knows better
    """
    notes = getattr(error, "__notes__", ())
    if isinstance(error, Away):
        hint = hint or "qmtl serve starts a server here; QMTL_URL or --url names another"
        failed("The world is away", hint, [str(error), *notes], known, code=AWAY)
        return AWAY
    details = [*error.details, *notes]
    failed(
        _sentence(error.title, error.detail),
        hint or _next(error, known),
        details,
        known,
        status=error.status,
        title=error.title,
        detail=error.detail,
        reasons=list(error.reasons),
    )
    return REFUSED


def failed(
    cause: str,
    hint: str | None = None,
    details: Sequence[str] = (),
    known: Mapping[str, Any] | None = None,
    *,
    code: int = REFUSED,
    **told: Any,
) -> None:
    """An error on standard error: for people, or as one JSON object where `known` says `json`.

    told  of the answer of a server: `status`, `title`, `detail`, `reasons`
    """
    reasons = told.get("reasons", [])
    if known and known.get("json"):
        plain = {"title": cause, "detail": "; ".join(details), "reasons": reasons, **told}
        plain |= {"details": list(details), "next": hint, "exit_code": code}
        typer.echo(json.dumps(plain, indent=2), err=True)
        return
    typer.secho(f"error: {cause}", fg="red", err=True)
    for detail in details:
        if detail not in cause and detail != told.get("detail"):
            typer.echo(f"  {detail}", err=True)
    if reasons:
        typer.echo(f"  reasons: {', '.join(reasons)}", err=True)
    if hint:
        typer.echo(f"  next: {hint}", err=True)


def _sentence(title: str, detail: str) -> str:
    detail = detail.removeprefix(title).strip()
    return f"{title.rstrip('.')}: {detail}" if detail else title


def _next(error: ApiError, known: Mapping[str, Any]) -> str | None:
    """The first hint there is: of its reasons, else of its kind, else of its status."""
    hints = [NEXT.get(reason) for reason in error.reasons]
    hints += [NEXT_OF_KIND.get(error.kind), NEXT_OF_STATUS.get(error.status)]
    if not error.kind:
        hints.append(NEXT_OF_STRANGER)
    hint = next(filter(None, hints), None)
    if hint is None:
        return None
    world, strategy = known.get("world") or "WORLD", known.get("strategy") or "STRATEGY"
    return hint.format(world=world, strategy=strategy)
