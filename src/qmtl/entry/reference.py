"""`make docs`: the reference pages, from the code itself. A test demands that they are current."""

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

import qmtl
from qmtl.adapters import policies
from qmtl.adapters.memory import MemoryStore
from qmtl.core import names
from qmtl.core.names import Role
from qmtl.core.sourcing import KNOWN_UNITS
from qmtl.entry import asyncapi, observed
from qmtl.entry.auth import BESIDES, PUBLIC, ROLES, STOPS
from qmtl.entry.cli import EPILOG, app
from qmtl.entry.http import create_app
from qmtl.entry.wiring import Settings, services_over

MADE = "<!-- Made by `make docs` from the code; edits here are lost. -->\n\n"


def pages() -> dict[str, str]:
    """Every page by its file name."""
    made: dict[str, Callable[[], Iterator[str]]] = {
        "cli.md": _cli,
        "http.md": _http,
        "metrics.md": _metrics,
        "policy.md": _policy,
        "python.md": _python,
        "roles.md": _roles,
        "words.md": _words,
    }
    found = {name: MADE + "\n".join(page()) + "\n" for name, page in made.items()}
    listed = "\n".join(f"* [{name.removesuffix('.md')}]({name})" for name in sorted(found))
    listed += "\n* [asyncapi](asyncapi.json): what the control bus and the event stream tell"
    found["README.md"] = f"{MADE}# Reference\n\n{listed}\n"
    found["asyncapi.json"] = json.dumps(asyncapi.document(), indent=1, sort_keys=True) + "\n"
    return found


def _cli() -> Iterator[str]:
    yield f"# CLI\n\n{EPILOG.rstrip()}"
    yield from _command(get_command(app), "qmtl", None)


def _command(command: Any, path: str, parent: Any) -> Iterator[str]:
    """A command, or those below it.  Any: Typer carries its own copy of click, which has no types
    for others."""
    context = typer.Context(command, info_name=path.split()[-1], parent=parent)
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from _command(command.get_command(context, name), f"{path} {name}", context)
        return
    yield f"\n## `{path}`\n"
    yield inspect.cleandoc(command.help or "")
    rows = [
        f"| `{_spelt(parameter)}` | {_said(parameter)} |"
        for parameter in command.get_params(context)
        if "--help" not in parameter.opts
    ]
    if rows:
        yield "\n| | |\n|---|---|"
        yield from rows


def _spelt(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    return " ".join([*parameter.opts, *parameter.secondary_opts])


def _said(parameter: Any) -> str:
    told = " ".join((parameter.help or "").split())
    return told.replace("|", "\\|")


def _http() -> Iterator[str]:
    settings = Settings(data=Path("unused"))
    document = create_app(services_over(MemoryStore(), settings)).openapi()
    yield "# HTTP\n\nThe whole contract is `/openapi.json` of a running server.\n"
    yield "| route | what | answers |\n|---|---|---|"
    for path, methods in sorted(document["paths"].items()):
        for method, operation in methods.items():
            answers = ", ".join(sorted(operation["responses"]))
            what = operation["description"].split("\n\n")[0].replace("\n", " ")
            yield f"| `{method.upper()} {path}` | {what} | {answers} |"


def _metrics() -> Iterator[str]:
    yield "# Metrics\n\nWhat `GET /metrics` tells Prometheus, of the process that is asked.\n"
    yield "Without a credential: requests, the store and the bus. With one, `qmtl_world_*` of every"
    yield "world in which it has a role, too. A gateway of its own tells of requests and of"
    yield "`qmtl_gateway_*`, and of no world. Dashboard and alerts: `deploy/observe/`.\n"
    yield "| metric | kind | labels | what |\n|---|---|---|---|"
    for name, kind, labels, told in observed.listed():
        yield f"| `{name}` | {kind} | {', '.join(f'`{each}`' for each in labels)} | {told} |"


def _roles() -> Iterator[str]:
    yield "# Roles\n"
    yield "Which role may use which route, in a world where it has it. One of them is enough."
    yield "Routes without a world take a credential for every world, unless any role may."
    yield "What stops something (†) is never limited, and done again when it was undone since.\n"
    yield f"Without a credential: {', '.join(f'`{route}`' for route in sorted(PUBLIC))}."
    yield "To a credential `GET /metrics` tells more: of the worlds in which it has a role.\n"
    yield f"| route | {' | '.join(Role)} | and |\n|---|{'---|' * len(Role)}---|"
    for route, roles in ROLES.items():
        marks = " | ".join("✓" if role in roles else "" for role in Role)
        stops = " †" if route in STOPS else ""
        yield f"| `{route}`{stops} | {marks} | {BESIDES.get(route, '')} |"


def _policy() -> Iterator[str]:
    yield "# Policy\n\nEvery key is known or refused. The three that come with the package:\n"
    for name in policies.SHIPPED:
        yield f"## {name}\n\n```yaml\n{policies.shipped(name).rstrip()}\n```\n"
    yield "## Metrics a gate may name\n\n| metric | unit |\n|---|---|"
    for metric, unit in KNOWN_UNITS.items():
        yield f"| `{metric}` | {unit} |"


def _python() -> Iterator[str]:
    yield "# Python\n\nWhat `import qmtl` offers."
    for name in sorted(qmtl.__all__):
        thing = getattr(qmtl, name)
        yield f"\n## `qmtl.{name}`\n"
        yield inspect.getdoc(thing) or ""
        for member, function in _methods(thing):
            yield f"\n### `{name}.{member}{_signature(function)}`\n"
            yield inspect.getdoc(function) or ""


def _methods(thing: object) -> list[tuple[str, Callable[..., object]]]:
    if not inspect.isclass(thing):
        return []
    members = inspect.getmembers(thing, lambda m: inspect.isfunction(m) or inspect.ismethod(m))
    return [(name, member) for name, member in members if not name.startswith("_")]


def _signature(function: Callable[..., object]) -> str:
    return str(inspect.signature(function))


def _words() -> Iterator[str]:
    yield "# Words\n\nThe values that answers carry."
    kinds: Mapping[str, type[StrEnum]] = {
        name: kind
        for name, kind in vars(names).items()
        if inspect.isclass(kind) and issubclass(kind, StrEnum) and kind is not StrEnum
    }
    for name, kind in kinds.items():
        yield f"\n## {name}\n\n{inspect.getdoc(kind)}\n"
        yield ", ".join(f"`{member.value}`" for member in kind)


def main() -> None:
    """Write every page into the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
