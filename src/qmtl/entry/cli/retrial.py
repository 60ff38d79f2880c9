"""`qmtl policy simulate --from-world`: a policy on a world's own history, and on its placebos."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from . import output
from .heavy import counting
from .journal import whole

if TYPE_CHECKING:
    from qmtl.adapters.workers import Place
    from qmtl.core.policy import Policy
    from qmtl.sim.again import Move, Null, Story

    Shares = dict[Null, tuple[int, int]]

SHOWN_FROM: Final = 1_000  # Entries: fewer are replayed in a second or two.
LIMITS: Final = (
    "every approval counts as given the moment it is asked for; nobody rejects",
    "the live returns of who was on paper then are its paper returns: trading might cost more",
    "returns are those of the capital of then: what more or less of it had moved is not in them",
    "strategies of one history move together: the 95 % are too narrow where they do",
)


def retrial(
    ctx: typer.Context,
    policy: "Policy",
    source: str,
    placebos: int,
    seed: int,
    at: "Callable[[], AbstractContextManager[Place]]",
    plot: Path | None,
    as_json: bool,
) -> None:
    """Prints it, and draws it.  A journal that is not whole is refused: the exit code is 1."""
    from qmtl.entry import plots
    from qmtl.sim import again

    world_id, journal = whole(ctx, source)
    stories = again.again(
        policy,
        world_id,
        journal,
        lambda turns: output.watched(turns, len(turns), SHOWN_FROM, "history"),
    )
    drawn = [(null, seed + n) for null, n in product(again.Null, range(placebos))]
    with at() as place, counting(len(drawn), "placebos") as finished:
        counts = again.placebos(policy, world_id, journal, drawn, place, finished)
    shares = {
        null: (
            sum(live for (kind, _), (live, _) in zip(drawn, counts, strict=True) if kind is null),
            sum(of for (kind, _), (_, of) in zip(drawn, counts, strict=True) if kind is null),
        )
        for null in again.Null
    }
    if plot is not None:
        plots.against(plot, world_id, stories, journal[-1].at)
    if as_json:
        return output.as_json(_json(source, seed, stories, shares))
    _print(stories, shares, placebos)


def _print(stories: "Sequence[Story]", shares: "Shares", placebos: int) -> None:
    from qmtl.sim.again import went_live
    from qmtl.sim.trial import interval

    output.table(
        ("strategy", "under this policy", "in fact", "first apart", "why"),
        [
            (
                story.strategy_id,
                _moves(story.trial),
                _moves(story.fact),
                "-" if story.apart_at is None else f"{story.apart_at:%Y-%m-%d}",
                story.why,
            )
            for story in stories
        ],
        empty="no strategy was ever in this world",
    )
    output.line(
        f"\nof {len(stories)}: ever live {went_live(stories)}, in fact "
        f"{went_live(stories, in_fact=True)}; ever taken down {_down(stories)}, in fact "
        f"{_down(stories, in_fact=True)}"
    )
    for null, (live, of) in shares.items():
        if placebos and of:
            low, high = interval(live, of)
            output.line(
                f"without skill ({null}): {live} of {of} ever live, {live / of:.0%} "
                f"(95 %: {low:.0%} to {high:.0%})"
            )
    for limit in LIMITS:
        output.line(f"  note: {limit}")


def _moves(moves: "Sequence[Move]") -> str:
    return ", ".join(f"{move.what} {move.at:%Y-%m-%d}" for move in moves) or "-"


def _down(stories: "Sequence[Story]", *, in_fact: bool = False) -> int:
    return sum(
        any(move.what.startswith("demoted") for move in (each.fact if in_fact else each.trial))
        for each in stories
    )


def _json(
    source: str, seed: int, stories: "Sequence[Story]", shares: "Shares"
) -> dict[str, object]:
    from dataclasses import asdict

    from qmtl.core.times import rfc3339
    from qmtl.sim.again import went_live
    from qmtl.sim.trial import interval

    def plain(moves: "Sequence[Move]") -> list[dict[str, object]]:
        return [{"what": move.what, "at": rfc3339(move.at)} for move in moves]

    return {
        "source": source,
        "seed": seed,
        "strategies": [
            asdict(story)
            | {
                "trial": plain(story.trial),
                "fact": plain(story.fact),
                "apart_at": None if story.apart_at is None else rfc3339(story.apart_at),
            }
            for story in stories
        ],
        "totals": {
            "strategies": len(stories),
            "live": went_live(stories),
            "live_in_fact": went_live(stories, in_fact=True),
            "taken_down": _down(stories),
            "taken_down_in_fact": _down(stories, in_fact=True),
        },
        "placebos": [
            {"kind": str(null), "live": live, "of": of, "live_95": interval(live, of)}
            for null, (live, of) in shares.items()
        ],
        "limits": LIMITS,
    }
