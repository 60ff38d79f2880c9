"""`qmtl.toml`: what a project's commands mean when they are not told.

    world = "sandbox"
    strategy = "strategy.py:Trend"       # FILE:NAME or MODULE:NAME
    prices = "prices.csv"
    id = "trend"                         # By default the strategy's name.
    cost_bps = 5.0
    until = 2021-12-31                   # The last day of the backtest; by default all bars.

    [sweep]                              # What `qmtl sweep` tries: a list of values a parameter.
    window = [100, 150, 200]

It is looked for in the working folder and then in those above it; paths in it are relative to it.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from qmtl.sdk.engine import Engine

NAME: Final = "qmtl.toml"
KEYS: Final[Mapping[str, tuple[type, ...]]] = {
    "world": (str,),
    "strategy": (str,),
    "prices": (str,),
    "id": (str,),
    "cost_bps": (int, float),
    "until": (date, str),
    "sweep": (dict,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What `qmtl.toml` says; None for what it does not.  `home` is the folder that holds it."""

    home: Path | None = None
    world: str | None = None
    strategy: str | None = None
    prices: Path | None = None
    strategy_id: str | None = None
    cost_bps: float | None = None
    until: date | None = None
    grid: Mapping[str, list[Any]] = field(default_factory=dict)


def here(start: Path | None = None) -> Project:
    """The project that the working folder is in; an empty one when it is in none.

    Raises typer.BadParameter, naming the file and the key, for what it may not say.
    """
    folder = (start or Path.cwd()).resolve()
    for home in (folder, *folder.parents):
        if (home / NAME).is_file():
            return _read(home)
    return Project()


def _read(home: Path) -> Project:
    path = home / NAME
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from error
    for key, value in told.items():
        if key not in KEYS:
            raise typer.BadParameter(f"{path}: {key} is no key; there are {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise typer.BadParameter(f"{path}: {key} cannot be {value!r}")
    until = told.get("until")
    grid = told.get("sweep", {})
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise typer.BadParameter(f"{path}: sweep.{name} is a list of values, not {values!r}")
    prices = told.get("prices")
    return Project(
        home=home,
        world=told.get("world"),
        strategy=_located(told.get("strategy"), home),
        prices=None if prices is None else home / prices,
        strategy_id=told.get("id"),
        cost_bps=told.get("cost_bps"),
        until=None if until is None else day(until, f"{path}: until"),
        grid=grid,
    )


def _located(source: str | None, home: Path) -> str | None:
    """FILE:NAME with the file where the project is."""
    where, _, name = (source or "").rpartition(":")
    return f"{home / where}:{name}" if where.endswith(".py") else source


def day(told: date | str, name: str) -> date:
    """A day, of TOML or as it is written: 2021-12-31.  Raises typer.BadParameter."""
    try:
        if isinstance(told, str):
            return date.fromisoformat(told)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: {told!r} is no day, such as 2021-12-31") from error
    if isinstance(told, datetime):  # Which is a date too, and no day.
        raise typer.BadParameter(f"{name}: a day without a time, not {told.isoformat()}")
    return told


def engine(cost_bps: float | None) -> "Engine | None":
    """The engine of that cost; None: whatever is usual.  Raises typer.BadParameter."""
    from qmtl.sdk.engine import Engine

    try:
        return None if cost_bps is None else Engine(cost_bps)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def needed(value: Any, option: str, key: str) -> Any:
    """A value, or what to say so that there is one.  Raises typer.BadParameter."""
    if value is None:
        raise typer.BadParameter(f"say {option}, or {key} in {NAME} (qmtl init makes a project)")
    return value
