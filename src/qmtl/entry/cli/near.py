"""What somebody may have meant who named a world or a strategy that there is not."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

import typer

from qmtl.adapters.client import ApiError, Away

from .context import connect

WAIT_SEC: Final = 2.0  # For a hint. The server has just answered, so it answers soon or never.
KNOWN_MAX: Final = 10_000  # Names looked through.
NEAR_MAX: Final = 3


def hint(ctx: typer.Context, error: ApiError | Away) -> str | None:
    """What to try next, by name, after an unknown world or strategy; None for other errors."""
    world, strategy = ctx.meta.get("world"), ctx.meta.get("strategy")
    if not isinstance(error, ApiError):
        return None
    if error.kind == "unknown-world" and world:
        return _said(world, _known(ctx, None), "qmtl world list")
    if error.kind == "unknown-strategy" and world and strategy:
        return _said(strategy, _known(ctx, world), f"qmtl world status {world}")
    return None


def _known(ctx: typer.Context, world: str | None) -> list[str]:
    """The ids of the worlds, or of the strategies of one; none when the server does not say."""
    try:
        with connect(ctx, timeout=WAIT_SEC, quiet=True) as client:
            if world is None:
                ids: Iterable[str] = (each["id"] for each in client.worlds())
            else:
                ids = (each["strategy_id"] for each in client.strategies(world))
            return list(islice(ids, KNOWN_MAX))
    except (ApiError, Away, KeyError):
        return []


def _said(wrong: str, known: list[str], listing: str) -> str:
    meant = get_close_matches(wrong, known, NEAR_MAX)
    return f"{listing} (did you mean {' or '.join(meant)}?)" if meant else listing
