"""`qmtl notify`: the process that tells people, what it has told, and telling it again."""

import logging
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from qmtl.adapters.client import Client
from qmtl.core.times import rfc3339
from qmtl.core.words import counted

from . import output
from .context import Json, Setting, connect, until_told

if TYPE_CHECKING:
    from qmtl.adapters.outgoing.deliveries import Deliveries, Delivery
    from qmtl.entry.notify.config import Settings

app = typer.Typer(invoke_without_command=True)

VARIABLE: Final = "QMTL_NOTIFY"
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar=VARIABLE,
        dir_okay=False,
        help="The YAML file that says whom to tell, and of what.",
    ),
]


@app.callback()
def notify(ctx: typer.Context, config: ConfigFile = None) -> None:
    """Tell people what a world needs them to know, until Ctrl-C: what waits for approval, what was
    blocked, demoted or killed, and what has gone quiet.

    It reads the journals through the API, with QMTL_TOKEN or the token that the file names; any
    role will do. Whatever dies when, each message goes out at least once, under one id.
    """
    ctx.meta["notify"] = config
    if ctx.invoked_subcommand is None:
        _run(ctx, _settings(ctx, config))


def _settings(ctx: typer.Context, config: Path | None) -> "Settings":
    from qmtl.entry.notify.config import read

    path = config or ctx.meta.get("notify")
    if path is None:
        raise typer.BadParameter("give --config FILE; docs/howto/notify.md says what is in it")
    return read(path)


def _run(ctx: typer.Context, settings: "Settings") -> None:
    from qmtl.adapters.clock import SystemClock
    from qmtl.adapters.outgoing.deliveries import Deliveries, owned
    from qmtl.entry.notify import notifier

    logging.getLogger("httpx").setLevel(logging.WARNING)  # It would log addresses.
    with (
        owned(settings.state),
        closing(Deliveries(settings.state)) as kept,
        _client(ctx, settings) as client,
        until_told() as stop,
    ):
        targets = counted(len(settings.targets), "target")
        output.line(f"qmtl notify: {client.url}, {targets}, state in {settings.state}")
        notifier.run(settings, client, kept, SystemClock(), stop, _say)


def _say(sentence: str) -> None:
    typer.echo(f"qmtl notify: {sentence}", err=True)


def _client(ctx: typer.Context, settings: "Settings") -> Client:
    setting = ctx.find_object(Setting) or Setting()
    url = settings.server or setting.url
    if settings.token is None and settings.server is None:
        return connect(ctx)
    return Client(url, settings.token, transport=setting.transport)


# ---- What was told ---------------------------------------------------------------------------


@app.command()
def log(
    ctx: typer.Context,
    config: ConfigFile = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    state: Annotated[
        Literal["waiting", "delivered", "failed"] | None, typer.Option(help="Only these.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What was told to whom, and what became of it, the newest first."""
    with closing(_deliveries(_settings(ctx, config))) as kept:
        found = kept.log(limit, state)
    if as_json:
        return output.as_json({"deliveries": [_json(each) for each in found]})
    output.table(
        ("made", "id", "target", "world", "about", "title", "state", "attempts", "said"),
        [_row(each) for each in found],
        empty="nothing was told yet",
    )


def _deliveries(settings: "Settings") -> "Deliveries":
    from qmtl.adapters.outgoing.deliveries import Deliveries

    return Deliveries(settings.state)


def _row(each: "Delivery") -> tuple[object, ...]:
    return (
        *(rfc3339(each.made_at), each.message_id, each.target, each.world_id, each.about),
        *(each.title, each.state, each.attempts, each.said or None),
    )


def _json(each: "Delivery") -> dict[str, Any]:
    tried = None if each.tried_at is None else rfc3339(each.tried_at)
    return {
        "id": each.message_id,
        "target": each.target,
        "world_id": each.world_id,
        "about": each.about,
        "seq": each.seq,
        "title": each.title,
        "state": each.state,
        "attempts": each.attempts,
        "status": each.status,
        "said": each.said,
        "made_at": rfc3339(each.made_at),
        "tried_at": tried,
        "due_at": rfc3339(each.due_at) if each.state == "waiting" else None,
        "message": each.message,
    }


@app.command()
def replay(
    ctx: typer.Context,
    message_id: Annotated[str, typer.Argument(metavar="ID", help="As the log has it.")],
    config: ConfigFile = None,
    target: Annotated[
        str | None, typer.Option(help="Only this one; by default all it was for.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a message again, under the same id: the running notifier does, or the next one."""
    from qmtl.adapters.clock import SystemClock

    with closing(_deliveries(_settings(ctx, config))) as kept:
        found = kept.again(message_id, target, SystemClock().now())
    if not found:
        for_whom = "" if target is None else f" for {target}"
        output.failed(
            f"there is no message {message_id}{for_whom}", "qmtl notify log", known=ctx.meta
        )
        raise typer.Exit(output.REFUSED)
    if as_json:
        return output.as_json({"deliveries": [_json(each) for each in found]})
    for each in found:
        output.line(f"{each.target}: {each.title} ({each.message_id}) is due now")


@app.command("test")
def try_out(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="As the file names it.")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Send a target a test, now, and say what it answered. It is in no log."""
    import secrets

    from qmtl.adapters.clock import SystemClock
    from qmtl.entry.notify import messages
    from qmtl.entry.notify.notifier import Sender

    settings, clock = _settings(ctx, config), SystemClock()
    if target not in settings.targets:
        known = ", ".join(sorted(settings.targets))
        raise typer.BadParameter(f"{target!r} is no target; there are: {known}")
    with _client(ctx, settings) as client:
        pages = settings.pages or client.url
    with closing(Sender(settings.targets[target], clock)) as sender:
        told = messages.test_message(pages, clock.now())
        sent = sender.send(f"msg_test_{secrets.token_hex(8)}", told)
    if as_json:
        output.as_json({"target": target, "ok": sent.ok, "status": sent.status, "said": sent.said})
    elif sent.ok:
        output.line(f"{target}: {sent.said}")
    if not sent.ok:
        if not as_json:
            output.failed(f"{target}: {sent.said}", known=ctx.meta)
        raise typer.Exit(output.REFUSED)
