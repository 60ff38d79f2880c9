"""`qmtl init`: a project whose `qmtl submit` works as it stands."""

import csv
import gzip
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

import qmtl

from . import output
from .context import Json

app = typer.Typer()

TEMPLATE: Final = Path(__file__).parent / "template"
# As they are called here, where a .gitignore would be the repository's own.
RENAMED: Final = {"gitignore": ".gitignore"}
DATA: Final = Path(qmtl.__file__).parent / "demo" / "data"
PRICES: Final = DATA / "us_large_caps_daily_close.csv.gz"
LICENCE: Final = DATA / "LICENSE.skfolio"
ASSETS: Final = ("JNJ", "JPM", "KO", "MSFT", "WMT", "XOM")  # Of six trades; a file one can read.
FIRST_DAY: Final = "2012-01-01"  # Ten years of backtest: more than any packaged policy asks for.
NAMED_MAX: Final = 5


def _named(text: str) -> Path:
    """Raises typer.BadParameter for nothing, such as a variable of a shell that is not set."""
    if not text:
        raise typer.BadParameter("name a folder; . is the one you are in")
    return Path(text)


@app.command()
def init(
    folder: Annotated[
        Path,
        typer.Argument(parser=_named, metavar="DIR", help="A new folder, or an empty one."),
    ],
    as_json: Json = False,
) -> None:
    """Make a project: a sample strategy, prices, a policy, and a qmtl.toml that names them.

    `qmtl submit` works in it as it stands.
    """
    files = contents()
    try:
        _refuse_unless_empty(folder)
        _write(folder, files)
    except OSError as error:
        cause = f"{folder} cannot be made: {error.strerror}; nothing was written"
        raise typer.BadParameter(cause) from error
    entered = [] if folder.resolve() == Path.cwd() else [shlex.join(["cd", str(folder)])]
    following = [*entered, "qmtl submit"]
    if as_json:
        return output.as_json({"folder": str(folder), "files": [*files], "next": following})
    output.line(f"made {folder}:")
    for name in files:
        output.line(f"  {name:<16} {WHAT[name]}")
    output.line(f"next: {' && '.join(following)}")


WHAT: Final = {
    "qmtl.toml": "which world, strategy and prices the commands mean",
    "strategy.py": "a sample strategy; yours goes here",
    "policy.yaml": "what the world sandbox asks of a strategy, explained",
    "README.md": "five commands to go on with",
    ".gitignore": "what is not for git",
    "prices.csv": "sample prices: six US large caps, 2012 to 2022",
    "prices.LICENSE": "their licence",
}


def contents() -> Mapping[str, bytes]:
    """Every file of a new project by its name."""
    written = {
        RENAMED.get(path.name, path.name): path.read_bytes()
        for path in TEMPLATE.iterdir()
        if path.is_file()
    }
    written["prices.csv"] = "".join(_prices()).encode()
    written["prices.LICENSE"] = LICENCE.read_bytes()
    return {name: written[name] for name in WHAT}


def _prices() -> Iterator[str]:
    """Lines of csv: some assets, from FIRST_DAY on, every price as the package has it."""
    with gzip.open(PRICES, "rt", encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        yield ",".join(["Date", *ASSETS]) + "\n"
        for row in rows:
            if row["Date"] >= FIRST_DAY:
                yield ",".join([row["Date"], *(row[asset] for asset in ASSETS)]) + "\n"


def _refuse_unless_empty(folder: Path) -> None:
    """Raises typer.BadParameter, naming what is there."""
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder; name a new one")
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if there:
        more = f" and {len(there) - NAMED_MAX} more" if len(there) > NAMED_MAX else ""
        named = ", ".join(there[:NAMED_MAX])
        raise typer.BadParameter(f"{folder} is not empty: {named}{more}; name a new folder")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All of them, or nothing: on an error what was made is removed.  Raises OSError."""
    made: list[Path] = []
    try:
        for missing in reversed([p for p in (folder, *folder.parents) if not p.exists()]):
            missing.mkdir()
            made.append(missing)
        for name, content in files.items():
            path = folder / name
            with path.open("xb") as file:  # Never over what somebody else put there meanwhile.
                made.append(path)
                file.write(content)
    except OSError:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise
