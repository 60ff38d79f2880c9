"""`qmtl report`: a candidate's dossier, and a world's day, each as one file."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from qmtl.adapters.client import Client

from . import output
from .context import Json, World, connect

app = typer.Typer(no_args_is_help=True)

HTML: Final = frozenset({".html", ".htm"})
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", dir_okay=False, help="The file; its name's end says which kind."),
]
Pages = Annotated[
    str | None, typer.Option(help="Where the dashboard is, to link to; by default the server.")
]


@app.callback()
def report() -> None:
    """Reports of what a journal says, each one file, made without the server's help."""


@app.command()
def candidate(
    ctx: typer.Context,
    world: World,
    candidate_id: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="Its id, or a strategy that has one.")
    ],
    out: Out = None,
    pages: Pages = None,
    as_json: Json = False,
) -> None:
    """A candidate's dossier: evidence, every gate with its number, policy, approvals, proof.

    An HTML file that needs nothing beside it, and prints as it is. The journal is read and verified
    on the way, and the decision derived again.
    """
    from qmtl.entry.reports.dossier import candidate_of, dossier
    from qmtl.entry.reports.reading import read

    _asked(out, as_json, HTML)
    with connect(ctx) as client:
        found = read(client, world)
        data = dossier(found, candidate_of(found, candidate_id))
        _told(client, data, out, pages, as_json)


@app.command()
def day(
    ctx: typer.Context,
    world: World,
    on: Annotated[
        str | None, typer.Option("--date", help="Such as 2024-01-31, in UTC; by default today.")
    ] = None,
    out: Out = None,
    pages: Pages = None,
    as_json: Json = False,
) -> None:
    """A world's day: what waits, what is live and earned, what moved, what was refused.

    HTML into a file that is named so, else text; without -o the text on standard output.
    """
    from qmtl.entry.reports.day import day as of_day
    from qmtl.entry.reports.reading import read

    wanted = None if on is None else _date(on)
    with connect(ctx) as client:
        found = read(client, world)
        _told(client, of_day(found, wanted or found.now.date()), out, pages, as_json)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date, such as 2024-01-31") from None


def _asked(out: Path | None, as_json: bool, kinds: frozenset[str]) -> None:
    if out is None and not as_json:
        raise typer.BadParameter("give -o FILE.html, or --json for the data")
    if out is not None and not as_json and out.suffix.lower() not in kinds:
        raise typer.BadParameter(f"{out}: a dossier is HTML; name it {out.stem}.html")


def _told(
    client: Client, data: dict[str, Any], out: Path | None, pages: str | None, as_json: bool
) -> None:
    """Into a file, or on standard output; the file is there when all of it is."""
    import json

    from qmtl.adapters.client import checked
    from qmtl.entry.reports import pages as written

    if as_json:
        text = json.dumps(data, indent=2) + "\n"
    elif out is not None and out.suffix.lower() in HTML:
        text = written.html(data, checked(pages or client.url))
    else:
        text = written.text(data)
    if out is None:
        typer.echo(text, nl=False)
    else:
        beside = out.with_name(f".{out.name}.partial")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(out)
        except OSError as error:
            raise typer.BadParameter(f"{out}: {error.strerror}") from error
        finally:
            beside.unlink(missing_ok=True)
        typer.echo(f"{out}: {len(text.encode()):,} bytes", err=True)
    if not data["journal"]["whole"]:
        output.failed(f"the journal is not whole: {data['journal']['problem']}")
        raise typer.Exit(output.REFUSED)
