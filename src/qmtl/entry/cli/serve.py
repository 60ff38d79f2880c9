"""`qmtl serve` and `qmtl demo`: the server, and a story that it plays."""

import os
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from qmtl.adapters.credentials import OIDC_SECRET, data_default

app = typer.Typer()

PORT_DEFAULT: Final = 8321


class Role(StrEnum):
    """What of qmtl a server is."""

    ALL = "all"
    WORLD = "world"
    GATEWAY = "gateway"


class Log(StrEnum):
    """How a server writes its log."""

    TEXT = "text"
    JSON = "json"


class Clock(StrEnum):
    """Whose time a server lives in."""

    SYSTEM = "system"
    REPLAY = "replay"


Database = Annotated[
    str | None,
    typer.Option(
        envvar="QMTL_DATABASE_URL",
        show_envvar=False,
        help="postgresql://user@host/name, which other servers may share; else in the folder.",
    ),
]
Bucket = Annotated[
    str | None,
    typer.Option(
        "--objects",
        envvar="QMTL_OBJECTS_URL",
        show_envvar=False,
        help="s3://bucket/prefix, where what is large is kept; else all is in the database.",
    ),
]
At = Annotated[
    str | None, typer.Option(help="Where a replay clock starts, such as 2024-01-31T21:00:00Z.")
]
Bus = Annotated[
    str | None,
    typer.Option(
        envvar="QMTL_BUS_URL",
        show_envvar=False,
        help="nats://host:4222: what happens is told there, too, over JetStream.",
    ),
]
Auth = Annotated[
    Path | None,
    typer.Option(help="A TOML file: an OIDC issuer, its groups' roles, limits, host names."),
]


@app.command("serve")
def run(
    data: Annotated[
        Path | None, typer.Option(help="Its folder; made when it is not there.")
    ] = None,
    database: Database = None,
    objects: Bucket = None,
    bus: Bus = None,
    host: Annotated[
        str, typer.Option(help="Other than loopback: make tokens first.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0: any that is free.")
    ] = PORT_DEFAULT,
    role: Annotated[Role, typer.Option(help="What of qmtl it is.")] = Role.ALL,
    world_url: Annotated[
        str | None, typer.Option(help="Where a gateway finds the world service.")
    ] = None,
    clock: Annotated[Clock, typer.Option(help="A replay clock stands until moved.")] = Clock.SYSTEM,
    at: At = None,
    dual_control: Annotated[
        bool | None,
        typer.Option(
            "--dual-control/--no-dual-control",
            help="Whether dangerous steps take two people; by default, unless on loopback.",
            show_default=False,
        ),
    ] = None,
    auth: Auth = None,
    log: Annotated[
        Log | None,
        typer.Option(
            help="A line on stderr for each request and whatever else happens; without it, only "
            "for what goes wrong, as text."
        ),
    ] = None,
) -> None:
    """Start a server: all of qmtl in one process, or the world service and its gateway apart.

    The first start on loopback makes an admin token and says where it is. By default --data is
    QMTL_DATA, else ~/.local/share/qmtl; --database QMTL_DATABASE_URL; --objects QMTL_OBJECTS_URL;
    --bus QMTL_BUS_URL. The dashboard's secret at the issuer of --auth, if it has one there, is
    QMTL_OIDC_SECRET.
    """
    if (role is Role.GATEWAY) is not (world_url is not None):
        raise typer.BadParameter("--role gateway and --world-url go together")
    if at is not None and clock is not Clock.REPLAY:
        raise typer.BadParameter("--at is where a replay clock starts: say --clock replay, too")
    started = None if at is None else _instant(at)

    from qmtl.entry import logs, server, wiring

    server.run(
        wiring.Settings(
            part=wiring.Part(role),
            data=data or data_default(),
            database=database,
            objects=objects,
            bus=bus,
            host=host,
            port=port,
            replay=clock is Clock.REPLAY,
            at=started,
            dual_control=dual_control,
            world_url=world_url,
            auth=auth,
            oidc_secret=os.environ.get(OIDC_SECRET) or None,
            log=None if log is None else logs.Log(log),
        )
    )


def _instant(text: str) -> datetime:
    from qmtl.adapters.wire import instants

    try:
        return instants.parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"--at {error}") from error


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="A folder that it may make, and empty.")],
    serve: Annotated[bool, typer.Option("--serve", help="Leave the server up.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
) -> None:
    """Play the whole story on real prices, in a world of its own."""
    from qmtl.demo.run import main

    raise typer.Exit(main(out, serve=serve, port=port))
