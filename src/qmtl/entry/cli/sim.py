"""`qmtl sim`: worlds from seeds, with faults, and what must be true after every step."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .context import Json
from .heavy import Jobs, Where, computing, counting

if TYPE_CHECKING:
    from qmtl.sim.story import Outcome

app = typer.Typer()


@app.command()
def sim(
    ctx: typer.Context,
    seed: Annotated[int | None, typer.Option(help="One story, the same every time.")] = None,
    seeds: Annotated[str, typer.Option(metavar="A-B", help="Many stories.")] = "0-99",
    steps: Annotated[int, typer.Option(min=1, help="Of each story.")] = 1_000,
    shrink: Annotated[bool, typer.Option(help="Look for the smallest story that breaks.")] = True,
    executor: Where = "processes",
    jobs: Jobs = None,
    as_json: Json = False,
) -> None:
    """Play worlds on a simulated clock and a network that fails; invariants hold after every step.

    A story that breaks one is played again with fewer people and faults, and its end is shown. The
    exit code is 1 then. The same seed is the same story.
    """
    from qmtl.sim.story import Shrunk, played, shrunk

    chosen = [seed] if seed is not None else list(_range(seeds))
    with computing(ctx, executor, jobs) as place, counting(len(chosen), "stories") as finished:
        done = played(chosen, steps, place, finished)
    _told(done, as_json)
    broken = [outcome for outcome in done if outcome.broken]
    if broken:
        small = shrunk(broken[0]) if shrink else Shrunk(broken[0])
        _say_how(small.outcome, sorted(small.mute), len(small.outcome.struck))
        raise typer.Exit(output.REFUSED)


def _range(told: str) -> Iterable[int]:
    first, dash, last = told.partition("-")
    if not (dash and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise typer.BadParameter(f"{told!r} is not A-B, such as 0-99", param_hint="--seeds")
    return range(int(first), int(last) + 1)


def _told(done: "list[Outcome]", as_json: bool) -> None:
    faults: Counter[str] = Counter()
    for outcome in done:
        faults.update({str(fault): number for fault, number in outcome.faults.items()})
    totals = {
        "stories": len(done),
        "steps": sum(outcome.steps for outcome in done),
        "requests": sum(outcome.acts.total() for outcome in done),
        "promotions": sum(outcome.promotions for outcome in done),
        "broken": sum(bool(outcome.broken) for outcome in done),
    }
    if as_json:
        output.as_json({**totals, "faults": dict(sorted(faults.items()))})
        return
    rows = [*totals.items(), *sorted(faults.items())]
    output.table(("what", "how many"), [(name, f"{number:,}") for name, number in rows])


def _say_how(outcome: "Outcome", mute: list[str], faults: int) -> None:
    """On standard error, whatever the format."""
    for line in outcome.trace:
        typer.echo(f"  {line}", err=True)
    for said in outcome.broken:
        typer.echo(f"broken: {said}", err=True)
    gone = f", without {', '.join(mute)}" if mute else ""
    typer.echo(f"seed {outcome.seed}, step {outcome.steps}, {faults} faults{gone}", err=True)
    typer.echo(f"next: qmtl sim --seed {outcome.seed} --steps {outcome.steps}", err=True)
