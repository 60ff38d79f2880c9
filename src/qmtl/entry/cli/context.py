"""What every command shares: the server it talks to, and options that mean the same everywhere."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qmtl.adapters.client import TIMEOUT_SEC, URL_DEFAULT, Client
from qmtl.adapters.credentials import credential
from qmtl.core.errors import Invalid
from qmtl.core.times import UNITS

from . import completion

if TYPE_CHECKING:
    import httpx

ENDING: Final = (signal.SIGINT, signal.SIGTERM)
DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhdw])")


@dataclass(slots=True)
class Setting:
    """Where the commands of one process go.  `transport` replaces the network, for tests."""

    url: str = URL_DEFAULT
    transport: "httpx.BaseTransport | None" = None


def connect(ctx: typer.Context, *, timeout: float = TIMEOUT_SEC, quiet: bool = False) -> Client:
    """A client for the server asked for.  That it uses the admin token is said, unless `quiet`."""
    setting = ctx.find_object(Setting) or Setting()
    token, path = credential(setting.url)
    if path is not None and not quiet:
        typer.echo(f"qmtl: QMTL_TOKEN is not set; using the admin token in {path}", err=True)
    return Client(setting.url, token, timeout, transport=setting.transport)


def _remembered(name: str) -> Callable[[typer.Context, Any], Any]:
    """Keeps a parameter where an error can find it, to say what to try next."""

    def remember(ctx: typer.Context, value: Any) -> Any:
        ctx.meta[name] = value
        return value

    return remember


def duration(text: str) -> timedelta:
    """`90s`, `5m`, `72h`, `30d`, `2w`.  Raises typer.BadParameter."""
    found = DURATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no length of time, such as 60s, 72h or 30d")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def name_and_value(text: str) -> tuple[str, str]:
    """`name=value`.  Raises typer.BadParameter."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{text!r} is not name=value")
    return name, value


World = Annotated[
    str,
    typer.Argument(
        help="The world's id.",
        metavar="WORLD",
        callback=_remembered("world"),
        autocompletion=completion.worlds,
    ),
]
Strategy = Annotated[
    str,
    typer.Argument(
        help="The strategy's id.",
        metavar="STRATEGY",
        callback=_remembered("strategy"),
        autocompletion=completion.strategies,
    ),
]
AnyStrategy = Annotated[
    str | None,
    typer.Argument(
        help="One strategy; by default all.",
        metavar="STRATEGY",
        callback=_remembered("strategy"),
        autocompletion=completion.strategies,
    ),
]
TheWorld = Annotated[
    str | None,
    typer.Option("--world", help="The world that decides.", autocompletion=completion.worlds),
]
PriceFile = Annotated[
    Path | None, typer.Option("--prices", help="Daily closes: csv, csv.gz or parquet.")
]
OwnId = Annotated[str | None, typer.Option("--id", help="By default the strategy's name.")]
CostBps = Annotated[
    float | None, typer.Option("--cost-bps", min=0, help="Cost of a unit of weight traded.")
]
Run = Annotated[
    str | None,
    typer.Argument(help="The run; by default that of the strategy's candidate.", metavar="RUN"),
]
Reason = Annotated[str, typer.Option(help="Why: it goes into the journal.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, for scripts.", callback=_remembered("json"))
]


def _drawable(path: Path | None) -> Path | None:
    """Refused before anything is computed for it."""
    if path is None:
        return None
    from qmtl.entry import plots

    try:
        return plots.checked(path)
    except Invalid as error:
        raise typer.BadParameter("; ".join(map(str, error.args))) from error


Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot", metavar="FILE", help="Draw it, too: an .svg or .png.", callback=_drawable
    ),
]


@contextmanager
def until_told() -> Iterator[Event]:
    """Set by Ctrl-C and by SIGTERM; a second one ends the process as it always does."""
    stop = Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, before[each])
        # Not here: an event has a lock, and whoever was interrupted may have it.
        Thread(target=stop.set, daemon=True).start()

    before = {each: signal.signal(each, end) for each in ENDING}
    try:
        yield stop
    finally:
        for each in ENDING:
            signal.signal(each, before[each])
