"""`qmtl completion SHELL`: what the shell asks at a tab, and how it comes to ask.

Commands and options are completed from the code; the ids of worlds and strategies by the server,
when it answers at once. Somebody waits at a prompt: nothing here says anything but what fits.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from threading import Thread
from typing import Annotated, Any, Final

import typer

from qmtl.adapters.client import ApiError, Away, BadAddress, BadCredential, Client

app = typer.Typer()

PROGRAM: Final = "qmtl"
VARIABLE: Final = "_QMTL_COMPLETE"  # What the scripts set when they ask.
WAIT_SEC: Final = 0.5  # Longer at a prompt is a prompt that hangs.


class Shell(StrEnum):
    """Whose script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(
    ctx: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="Which.", metavar="bash|zsh|fish")],
) -> None:
    """Print the script that completes commands, options, worlds and strategies at a tab.

    bash: eval "$(qmtl completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc, after compinit;
    fish: qmtl completion fish > ~/.config/fish/completions/qmtl.fish
    """
    from typer.completion import shell_complete

    prepare()
    shell_complete(ctx.find_root().command, {}, PROGRAM, VARIABLE, f"source_{shell}")


def prepare() -> None:
    """Teach the program the shells' questions. Only when one of them asks: it takes a while."""
    from typer.completion import get_completion_inspect_parameters

    get_completion_inspect_parameters()  # Which does it; the parameters themselves are not used.


def worlds(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The ids of worlds that begin so, with their names."""
    told = _answered(ctx, Client.worlds)
    return [(w["id"], w["name"]) for w in told if w["id"].startswith(incomplete)]


def strategies(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The ids of strategies that begin so, with their phases; of the world that was named."""
    world = ctx.params.get("world")
    if not isinstance(world, str):
        return []

    told = _answered(ctx, lambda client: client.strategies(world))
    return [(s["strategy_id"], s["phase"]) for s in told if s["strategy_id"].startswith(incomplete)]


def _answered(
    ctx: typer.Context, asked: Callable[[Client], Iterable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """What the server has said within WAIT_SEC, page by page; often nothing."""
    from .context import Setting, connect  # Which completes its own arguments with this file.

    # While completing no command runs, the root included: its options are only parsed.
    setting = ctx.ensure_object(Setting)
    setting.url = ctx.find_root().params.get("url") or setting.url
    found: list[dict[str, Any]] = []

    def ask() -> None:
        try:
            with connect(ctx, timeout=WAIT_SEC, quiet=True) as client:
                found.extend(asked(client))
        except (ApiError, Away, BadAddress, BadCredential, KeyError, OSError):
            return  # Nothing fits; the command itself will say why.

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(WAIT_SEC)
    return list(found)
