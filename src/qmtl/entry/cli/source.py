"""A strategy out of `FILE:NAME` or `MODULE:NAME`, and whose fault it is when it fails."""

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

import qmtl

if TYPE_CHECKING:
    from types import ModuleType

OURS: Final = Path(qmtl.__file__).resolve().parent
LIBRARIES: Final = "site-packages"  # A virtual environment often lies in the project's folder.
NOTEBOOK: Final = ".ipynb"
PLACES_MAX: Final = 5  # Of a recursion without end, the last ones say enough.


class AuthorsError(Exception):
    """The strategy's own code failed.

    where  its lines, the outermost first, never ours; then what is known of a way out
    """

    def __init__(self, cause: str, where: tuple[str, ...]) -> None:
        super().__init__(cause)
        self.where = where


def strategy_of(source: str) -> Any:
    """The function or object of that name; of a class, an instance made without arguments.

    Raises typer.BadParameter for what is not there, and AuthorsError.
    """
    found = named(source)
    if not isinstance(found, type):
        return found
    if missing := _required(found):
        raise typer.BadParameter(
            f"{found.__name__} is not made without arguments: give {', '.join(missing)} a default,"
            " or name an instance"
        )
    with authors_errors(home_of(source)):
        return found()


def named(source: str) -> Any:
    """What has that name, as it is.  Raises typer.BadParameter when nothing has; AuthorsError."""
    where, colon, name = source.rpartition(":")
    if not (where and colon and name.isidentifier()):
        raise typer.BadParameter(
            f"{source!r} is not FILE:NAME or MODULE:NAME, such as strategy.py:Trend"
        )
    with authors_errors(home_of(source)):
        path = Path(where)
        module = _from_file(path) if path.suffix == ".py" else _from_module(where)
    found = getattr(module, name, None)
    if found is None:
        raise typer.BadParameter(f"{where} has no {name}{_instead(module)}")
    return found


def home_of(source: str) -> Path:
    """The folder of the author's code."""
    path = Path(source.rpartition(":")[0])
    return (path.parent if path.suffix == ".py" else Path.cwd()).resolve()


def _instead(module: "ModuleType") -> str:
    """What in it could have been meant."""
    own = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and (hasattr(value, "weights") or inspect.isfunction(value))
    ]
    return f"; it has {', '.join(own)}" if own else ""


def _required(made: type) -> list[str]:
    try:
        parameters = inspect.signature(made).parameters.values()
    except ValueError:  # Of a type that is not written in Python.
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variable]


def _from_file(path: Path) -> "ModuleType":
    """The file as a module of its own name, so that its fingerprint is that of an import."""
    if not path.is_file():
        raise typer.BadParameter(f"{path} is no file")
    name = path.stem
    if not name.isidentifier() or name == "__main__":
        raise typer.BadParameter(
            f"{path}: no module is called {name!r}; rename the file: letters, digits and _"
        )
    known = importlib.util.find_spec(name)
    if known is not None and Path(known.origin or "").resolve() != path.resolve():
        raise typer.BadParameter(f"{path} would hide the module {name!r}: give it another name")
    return _imported(name, path.parent)


def _from_module(name: str) -> "ModuleType":
    if name.endswith(NOTEBOOK):
        raise typer.BadParameter(
            f"{name} is a notebook: call Runner.submit in it, or move the strategy into a .py file"
        )
    if not all(part.isidentifier() for part in name.split(".")):
        raise typer.BadParameter(f"{name!r} is neither a .py file nor a module")
    return _imported(name, Path.cwd())


def _imported(name: str, home: Path) -> "ModuleType":
    folder = str(home.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if home != Path.cwd() and "relative import" in str(error):
            error.add_note("It is part of a package: name it as PACKAGE.MODULE:NAME, from above it")
        if not isinstance(error, ModuleNotFoundError):
            raise
        if error.name not in (name, name.partition(".")[0]):
            raise  # Something that the author's code imports.
        raise typer.BadParameter(f"there is no module {name!r}") from error


@contextmanager
def authors_errors(home: Path) -> Iterator[None]:
    """Whatever code below `home` raises becomes an AuthorsError; what is ours stays a bug.

    What it prints goes to standard error: it is no part of the command's answer, which may be JSON.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:  # Somebody else's code may raise anything.
        where = tuple(_places(error, home))
        if not where or isinstance(error, AuthorsError):
            raise
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        notes = tuple(getattr(error, "__notes__", ()))
        raise AuthorsError(said, (*where[-PLACES_MAX:], *notes)) from error


def _places(error: BaseException, home: Path) -> Iterator[str]:
    """`strategy.py:31 in weights: return 1 / 0`, for each of the author's frames."""
    if isinstance(error, SyntaxError) and error.filename and _is_authors(error.filename, home):
        yield f"{_brief(error.filename)}:{error.lineno}: {(error.text or '').strip()}"
        return
    for frame in traceback.extract_tb(error.__traceback__):
        if _is_authors(frame.filename, home):
            inside = "" if frame.name == "<module>" else f" in {frame.name}"
            yield f"{_brief(frame.filename)}:{frame.lineno}{inside}: {frame.line}"


def _is_authors(filename: str, home: Path) -> bool:
    if filename.startswith("<"):  # `<frozen importlib._bootstrap>` is in no folder.
        return False
    path = Path(filename).resolve()
    if not path.is_relative_to(home) or path.is_relative_to(OURS):
        return False
    return LIBRARIES not in path.relative_to(home).parts


def _brief(filename: str) -> str:
    path = Path(filename).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
