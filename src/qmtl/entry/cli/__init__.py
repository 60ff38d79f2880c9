"""`qmtl`: every route of HTTP.md by hand, and the server, the loop and the demo.

One file a noun.  Nothing slow is loaded until a command that needs it runs: `--help` answers at
once.
"""

import os
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import qmtl
from qmtl.adapters import credentials
from qmtl.adapters.client import URL_DEFAULT, ApiError, Away, BadAddress, BadCredential
from qmtl.core.errors import Refusal
from qmtl.entry.cli import (
    campaign,
    completion,
    db,
    doctor,
    explain,
    follow,
    hub,
    init,
    journal,
    near,
    notify,
    output,
    policies,
    promotions,
    report,
    serve,
    sim,
    status,
    submit,
    sweep,
    tokens,
    why,
    worlds,
)

from .completion import PROGRAM, VARIABLE
from .context import Setting

JSON: Final = "--json"
EPILOG: Final = """\
Exit codes: 0 done; 1 refused, or failed; 2 wrong usage; 3 the world is away: nobody answers, and
what can wait is kept (qmtl submit --flush).

Errors are on standard error, with what to try next; with --json as one JSON object.

Environment: QMTL_URL, the server; QMTL_TOKEN, the credential; QMTL_DATA, the data folder of a
server here, whose admin token serves when QMTL_TOKEN is not set; QMTL_DATABASE_URL, the database
that servers share; QMTL_BUS_URL, where they tell what happens; QMTL_SPOOL, where submissions are
kept while the world is away; QMTL_NOTIFY, the file of qmtl notify; QMTL_OIDC_SECRET, what the
dashboard signs people in with at an issuer. QMTL_TOKEN_FILE, QMTL_DATABASE_URL_FILE,
QMTL_BUS_URL_FILE and QMTL_OIDC_SECRET_FILE name files that hold what must not be said aloud.
OTEL_EXPORTER_OTLP_ENDPOINT and the others of OpenTelemetry say where a server sends traces. In a
project, qmtl.toml says what is not on the command line.
"""


class Commands(TyperGroup):
    """The root of the commands: where errors become sentences and exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Wrong usage is found before all options are read, this one perhaps among the rest.
        ctx.meta["json"] = JSON in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ApiError, Away) as error:
            code = output.refused(error, ctx.meta, near.hint(ctx, error))
            raise typer.Exit(code) from error
        except Refusal as error:  # Of a document that was read here.
            sentences = [str(part) for part in error.args]
            cause = (error.__doc__ or "Refused.").strip()
            output.failed(cause, details=sentences, known=ctx.meta)
            raise typer.Exit(output.REFUSED) from error
        except (BadAddress, BadCredential) as error:
            address = isinstance(error, BadAddress)
            hint = "set QMTL_URL, or --url" if address else "export QMTL_TOKEN=<token>"
            output.failed(str(error), hint, known=ctx.meta, code=output.USAGE)
            raise typer.Exit(output.USAGE) from error
        except typer.TyperException as error:
            if not ctx.meta["json"]:
                raise
            hint = f"{getattr(getattr(error, 'ctx', None), 'command_path', PROGRAM)} --help"
            code = error.exit_code
            output.failed(error.format_message(), hint, known=ctx.meta, code=code)
            raise typer.Exit(code) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # Loading rich takes longer than all the rest of --help.
    pretty_exceptions_enable=False,  # A traceback is of a bug, and wanted as it is.
    epilog=EPILOG,
)


def _version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"qmtl {qmtl.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    # None, not the default itself: typer builds a validator to look at any other value.
    url: Annotated[
        str | None,
        typer.Option(envvar="QMTL_URL", help=f"The server; by default {URL_DEFAULT}."),
    ] = None,
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit."),
    ] = None,
) -> None:
    """Takes trading strategies from backtest to paper to live, and can show why it did."""
    try:
        credentials.of_files(os.environ)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    ctx.ensure_object(Setting).url = url or URL_DEFAULT


worlds.app.add_typer(promotions.app)
worlds.app.add_typer(campaign.app)
app.add_typer(worlds.app, name="world", help="Worlds: their strategies, campaigns and promotions.")
app.add_typer(policies.app, name="policy", help="Policies: what a world asks of a strategy.")
app.add_typer(hub.app, name="hub", help="The risk signal hub: snapshots in, snapshots out.")
app.add_typer(db.app, name="db", help="The database: check, upgrade, backup, restore.")
app.add_typer(journal.app, name="journal", help="The journal: everything that happened.")
app.add_typer(tokens.app, name="token", help="API tokens: who may do what.")
app.add_typer(notify.app, name="notify")
app.add_typer(report.app, name="report", help="Reports, each one file: a dossier, a day.")
app.add_typer(init.app)
app.add_typer(submit.app)
app.add_typer(sweep.app)
app.add_typer(explain.app)
app.add_typer(why.app)
app.add_typer(follow.app)
app.add_typer(status.app)
app.add_typer(doctor.app)
app.add_typer(serve.app)
app.add_typer(sim.app)
app.add_typer(completion.app)


def main() -> None:
    if VARIABLE in os.environ:
        completion.prepare()
    app(prog_name=PROGRAM)
