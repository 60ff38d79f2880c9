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
    from qmtl.core.facts import Entry
    from qmtl.core.policy import Policy
    from qmtl.sim.again import Move, Null, Story

    Shares = dict[Null, list[tuple[int, int]]]  # Of each placebo: live, of so many.

SHOWN_FROM: Final = 1_000  # Entries: fewer are replayed in a second or two.
INDENT: Final = "    "
LIMITS: Final = (
    "every approval counts as given the moment it is asked for; nobody rejects",
    "the live returns of who was on paper then are its paper returns: trading might cost more",
    "returns are those of the capital of then: what more or less of it had moved is not in them",
    "in 95 %, a placebo counts as one where its strategies go together; few of them are a guess",
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
    from qmtl.sim import again, trial

    world_id, journal = whole(ctx, source)
    stories = again.again(
        policy,
        world_id,
        journal,
        lambda turns: output.watched(turns, len(turns), SHOWN_FROM, "history"),
    )
    blocked, partly = _blocked(policy, journal)
    seeds = trial.seeds(seed, 0 if blocked else placebos)  # Where nobody can, none need be tried.
    drawn = list(product(again.Null, seeds))
    with at() as place, counting(len(drawn), "placebos") as finished:
        counts = again.placebos(policy, world_id, journal, drawn, place, finished)
    shares = {
        null: [found for (kind, _), found in zip(drawn, counts, strict=True) if kind is null]
        for null in again.Null
    }
    if as_json:
        output.as_json(_json(source, seed, stories, shares, blocked, partly))
    else:
        _print(stories, shares, blocked, partly)
    if plot is not None:
        plots.against(plot, world_id, stories, journal[-1].at)


def _blocked(policy: "Policy", journal: "Sequence[Entry]") -> tuple[list[str], list[str]]:
    """Why nobody can go live here whatever the returns are; and what stops some."""
    from qmtl.core.implications import impossible
    from qmtl.sim.inputs import missing

    blocked = [f"{row.path}: {row.says}" for row in impossible(policy)]
    partly = []
    for each in missing(policy, journal):
        if each.recorded:
            said = f"recorded of {each.recorded} of {each.of} strategies"
            partly.append(f"{each.path} asks for {each.what}: {said}")
        else:
            blocked.append(f"{each.path} asks for {each.what}: none was recorded")
    return blocked, partly


def _interval(found: "Sequence[tuple[int, int]]") -> "tuple[int, int, tuple[float, float]]":
    """How many were live, of how many, and the 95 % of it."""
    from qmtl.sim import spread

    there = [each < live for live, of in found for each in range(of)]
    worlds = [number for number, (_, of) in enumerate(found) for _ in range(of)]
    return sum(there), len(there), spread.of_share(there, worlds)


def _print(
    stories: "Sequence[Story]", shares: "Shares", blocked: list[str], partly: list[str]
) -> None:
    from qmtl.sim.again import went_live

    for story in stories:
        output.line(str(story.strategy_id))
        if story.trial == story.fact:
            output.paragraph(f"  as it was: {_moves(story.fact)}", INDENT)
            continue
        output.paragraph(f"  under this policy: {_moves(story.trial)}", INDENT)
        output.paragraph(f"  in fact: {_moves(story.fact)}", INDENT)
        since = "" if story.apart_at is None else f"first apart {story.apart_at:%Y-%m-%d}"
        output.paragraph(f"  {since}{'' if story.why is None else f'; {story.why}'}", INDENT)
    output.line(
        f"\nof {len(stories)}: ever live {went_live(stories)}, in fact "
        f"{went_live(stories, in_fact=True)}; ever taken down {_down(stories)}, in fact "
        f"{_down(stories, in_fact=True)}"
    )
    if blocked:
        output.paragraph("\nThis says nothing of the returns: nobody can go live here, since")
    for why in blocked:
        output.paragraph(f"  - {why}", INDENT)
    if partly:
        output.paragraph("\nNot everybody can go live here, whatever the returns:")
    for why in partly:
        output.paragraph(f"  - {why}", INDENT)
    for null, found in shares.items():
        live, of, (low, high) = _interval(found)
        if of:
            output.line(
                f"without skill ({null}): {live} of {of} ever live, {live / of:.0%} "
                f"(95 %: {low:.0%} to {high:.0%})"
            )
    for limit in LIMITS:
        output.paragraph(f"  note: {limit}", INDENT)


def _moves(moves: "Sequence[Move]") -> str:
    return ", ".join(f"{move.what} {move.at:%Y-%m-%d}" for move in moves) or "-"


def _down(stories: "Sequence[Story]", *, in_fact: bool = False) -> int:
    return sum(
        any(move.what.startswith("demoted") for move in (each.fact if in_fact else each.trial))
        for each in stories
    )


def _json(
    source: str,
    seed: int,
    stories: "Sequence[Story]",
    shares: "Shares",
    blocked: list[str],
    partly: list[str],
) -> dict[str, object]:
    from dataclasses import asdict

    from qmtl.core.times import rfc3339
    from qmtl.sim.again import went_live

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
        "blocked": blocked,
        "partly_blocked": partly,
        "placebos": [
            {"kind": str(null), "live": live, "of": of, "live_95": ends}
            for null, (live, of, ends) in ((null, _interval(all_)) for null, all_ in shares.items())
            if of
        ],
        "limits": LIMITS,
    }
