"""`qmtl policy`: check one here, set one there."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from . import output
from .context import Json, Plot, World, connect
from .heavy import Jobs, Where, computing, counting
from .retrial import retrial
from .worlds import waiting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qmtl.core.implications import Implication
    from qmtl.core.policy import Policy
    from qmtl.sim.trial import Row

app = typer.Typer(no_args_is_help=True)

CELL: Final = 60  # Characters of a line in a cell.
AT_SHARPE: Final = "pass in time, half after: at a true Sharpe ratio a year of 1, 2, 3."
MADE_UP: Final = ("worlds", "strategies", "days")  # What a world's own history has by itself.
MEANING: Final = (
    "In brackets: 95 %, where worlds can tell; of fewer than 20 worlds rather 90 %. At the "
    "top: ever held its whole allocation. Mean share: of an allocation, on average over all days. "
    "Days to live: working days until it first was, the median of those that were. Taken down: "
    "once it was live; after days: since it was live, the median; of who decays since day 200, "
    "where that is later. Sharpe >= 1: what such a threshold, looked at daily from day 60 on, "
    "would have promoted. Every backtest leaks, but that of the best of 100, all declared."
)
JSON_SUFFIXES = frozenset({".json"})

Document = Annotated[
    str,
    typer.Argument(
        help="A YAML or JSON file; or sandbox, standard, conservative.", metavar="POLICY"
    ),
]


def _read(document: str) -> tuple[str | bytes, str]:
    """A policy's text and media type, from a file or from the package."""
    from qmtl.adapters import policies
    from qmtl.adapters.policies import documents

    path = Path(document)
    if path.is_file():
        as_json = path.suffix.lower() in JSON_SUFFIXES
        return path.read_bytes(), documents.JSON if as_json else documents.YAML
    if document in policies.SHIPPED:
        return policies.shipped(document), documents.YAML
    shipped = ", ".join(policies.SHIPPED)
    raise typer.BadParameter(f"{document!r} is no file, and none of {shipped}")


@app.command()
def check(document: Document, plot: Plot = None, as_json: Json = False) -> None:
    """Whether it is a policy, and what it implies: how many pass, how long it takes, and never.

    "pass in time" and "half after" are of strategies whose true Sharpe ratio a year is 1, 2 and 3:
    the share that passes in the time that the row names, and the time after which half of them
    have (the median).

    --plot: how long it takes until half of them show each e-value that the policy asks for.
    """
    from qmtl.adapters import policies
    from qmtl.core.implications import SIMULATED

    policy = policies.parse(*_read(document))
    found, warnings = policies.implications(policy), policies.warnings(policy)
    checksum = policies.checksum(policy)
    if as_json:
        rows = [
            {
                "path": row.path,
                "says": row.says,
                "shares": list(row.shares),
                "years": list(row.years),
                "never": row.never,
            }
            for row in found
        ]
        output.as_json({"checksum": checksum, "warnings": list(warnings), "implications": rows})
    else:
        output.line(f"valid; {checksum}\n")
        columns = ("what", "implies", "pass in time", "half after, years")
        output.table(columns, [_row(row) for row in found], width=CELL)
        output.line(f"\n{AT_SHARPE}")
        output.paragraph(SIMULATED)
        for warning in warnings:
            output.paragraph(f"\nwarning: {warning}")
    if plot is not None:
        from qmtl.entry import plots

        plots.implied(plot, document, found)


def _row(row: "Implication") -> tuple[object, ...]:
    from qmtl.core.implications import median_of, percent_of

    shares, years = map(percent_of, row.shares), map(median_of, row.years)
    return (row.path, row.says, ", ".join(shares), ", ".join(years))


@app.command()
def simulate(
    ctx: typer.Context,
    document: Document,
    from_world: Annotated[
        str | None,
        typer.Option(
            metavar="FILE | WORLD",
            help="On a world's own history: an export (qmtl journal export), or a world.",
        ),
    ] = None,
    placebos: Annotated[
        int, typer.Option(min=0, help="With --from-world: of each of the two kinds.")
    ] = 4,
    worlds: Annotated[int, typer.Option(min=1, help="Each with its own strategies.")] = 8,
    strategies: Annotated[int, typer.Option(min=1, max=200, help="Of each world.")] = 24,
    days: Annotated[int, typer.Option(min=2, help="Working days on paper and live.")] = 504,
    seed: Annotated[int, typer.Option(min=0, help="The same seed is the same table.")] = 0,
    executor: Where = "processes",
    jobs: Jobs = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Try a policy on strategies whose truth is known, before it is used on any other.

    Placebos without skill, strategies with it, and one that loses it go through the real
    evaluation, tick and gate. Every backtest leaks: it is superb, as one that saw the future is.
    Only the best of 100 is what it says. Beside it stands what a Sharpe threshold of 1, looked at
    every day from day 60 on, would have promoted. People approve at once.

    With --from-world: what the policy would have promoted, blocked and demoted of a world's own
    history, and when, against what happened; and of the same history without skill. It takes
    --placebos, and no --worlds, --strategies or --days.

    --plot: who was ever live, of each truth; with --from-world how many were live, and when.
    """
    from qmtl.adapters import policies
    from qmtl.entry import plots
    from qmtl.sim import trial

    policy = policies.parse(*_read(document))
    _of_the_other_kind(ctx, ("placebos",) if from_world is None else MADE_UP)
    if from_world is not None:
        at = partial(computing, ctx, executor, jobs)
        return retrial(ctx, policy, from_world, placebos, seed, at, plot, as_json)
    if strategies * worlds < len(trial.Truth):
        least = len(trial.Truth)
        raise typer.BadParameter(f"at least {least} strategies in all, one of each truth")
    with computing(ctx, executor, jobs) as place, counting(worlds, "worlds") as finished:
        found = trial.tried(policy, worlds, strategies, days, seed, place, finished)
    rows, closed = trial.table(found), trial.closed(policy, days)
    told = {"seed": seed, "worlds": worlds, "strategies": strategies, "days": days}
    _show(policy, rows, closed, told, as_json)
    if plot is not None:
        plots.tried(plot, document, rows)


def _of_the_other_kind(ctx: typer.Context, names: "Iterable[str]") -> None:
    """Refuses what would do nothing."""
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            kind = "only with" if name == "placebos" else "not with"
            raise typer.BadParameter(f"--{name} is {kind} --from-world")


def _show(
    policy: "Policy",
    rows: "Sequence[Row]",
    closed: "Sequence[str]",
    told: dict[str, int],
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from qmtl.core.implications import bound_on_luck

    bound = None if closed else bound_on_luck(policy)
    if as_json:
        plain = [asdict(row) for row in rows]
        return output.as_json({**told, "ramp_bound": bound, "closed": closed, "rows": plain})
    names = ("truth", "strategies", "ever live", "at the top", "mean share", "days to live")
    output.table(
        (*names, "taken down", "after days", "Sharpe >= 1"), [_tried_row(row) for row in rows]
    )
    output.paragraph(f"\n{MEANING}")
    if bound is None:
        output.paragraph("\nNobody can be live here, and nothing is promised of it:")
        for why in closed:
            output.paragraph(f"  - {why}", "    ")
    elif policy.evidence is None:
        output.paragraph("\nThe policy asks for no evidence: nothing is promised.")
    else:
        output.paragraph(
            f"\nWithout skill, a mean share of at most {bound:.1%} of an allocation is promised "
            "(qmtl policy check says of whom)."
        )


def _tried_row(row: "Row") -> tuple[object, ...]:
    return (
        str(row.truth),
        row.count,
        _with(f"{row.live / row.count:.0%}", row.live_95, "{:.0%}"),
        f"{row.top / row.count:.0%}",
        _with(f"{row.share:.1%}", row.share_95, "{:.1%}"),
        _with(_whole(row.days_to_live), row.days_to_live_95, "{:.0f}"),
        f"{row.down / row.count:.0%}",
        _with(_whole(row.days_down), row.days_down_95, "{:.0f}"),
        f"{row.naive / row.count:.0%}",
    )


def _whole(days: float | None) -> str:
    return "-" if days is None else f"{days:.0f}"


def _with(figure: str, ends: "tuple[float, float] | None", shape: str) -> str:
    """A figure and its interval, where there is one."""
    return figure if ends is None else f"{figure} ({'-'.join(map(shape.format, ends))})"


@app.command()
def schema() -> None:
    """The JSON Schema of a policy."""
    from qmtl.adapters import policies

    output.as_json(policies.schema())


@app.command()
def show(document: Document, as_json: Json = False) -> None:
    """A policy as it is written; with --json its canonical form, every default filled in."""
    text, media_type = _read(document)
    if not as_json:
        return output.line((text if isinstance(text, str) else text.decode()).rstrip("\n"))
    from qmtl.adapters import policies

    output.as_json(policies.document(policies.parse(text, media_type)))


@app.command("set")
def set_(ctx: typer.Context, world: World, document: Document, as_json: Json = False) -> None:
    """Add a version to a world and make it the default, from the next evaluation on."""
    text, media_type = _read(document)
    with connect(ctx) as client:
        added = client.add_policy(world, text, media_type)
        confirmation = added.get("confirmation_id")
        if not added["default"] and not confirmation:
            confirmation = client.set_default(world, added["version"]).get("confirmation_id")
    told = {**added, "default": not confirmation, "confirmation_id": confirmation}
    if as_json:
        return output.as_json(told)
    output.line(f"version {added['version']} of {world}; {added['checksum']}")
    for warning in added["warnings"]:
        output.line(f"warning: {warning}")
    if confirmation:
        waiting(world, confirmation)


@app.command("list")
def list_(ctx: typer.Context, world: World, as_json: Json = False) -> None:
    """A world's versions."""
    with connect(ctx) as client:
        known = list(client.policies(world))
    if as_json:
        return output.as_json({"policies": known})
    output.table(
        ("version", "default", "created at", "checksum"),
        [(p["version"], p["default"], p["created_at"], p["checksum"]) for p in known],
        empty=f"no policy yet: qmtl policy set {world} standard",
    )
