"""The shape of the code, checked as code: what we ask of it that no linter can say.

A rule takes one file, as a path and its text, and yields its faults. So each rule can be shown, on
a snippet, to find what it is there to find: see BROKEN and FINE at the end. Which floor may import
which is import-linter's (pyproject.toml).
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent

FUNCTION_LINES_MAX = 70  # A screen.
FILE_LINES_MAX = 500  # More is more than one noun.
ARCHITECTURE_LINES_MAX = 200  # A map that is longer than the way is no map.
REASON_CHARS_MIN = 8  # Shorter than this, nobody has been told why.

# The core computes. What is here gives the same answer for the same arguments, and touches nothing.
CORE_MAY_IMPORT = {
    *("__future__", "abc", "bisect", "collections", "dataclasses", "datetime", "enum"),
    *("functools", "hashlib", "heapq", "itertools", "math", "operator", "re", "statistics"),
    *("string", "struct", "types", "typing"),
    "sys.float_info",  # And nothing else of sys.
    "cronsim",  # A cron expression and an instant give an instant; it reads no clock.
    "immutables",
    "numpy",
    "qmtl",  # Down to core only: import-linter.
}
CORE_MAY_NOT_IMPORT = {"numpy.random"}  # Chance is an argument too.

# `now` is an argument, ids are digests, and a store is a port. `getattr` hides names from mypy.
PURE_MUST_NOT_CALL = {
    *("now", "utcnow", "today", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"),
    *("uuid1", "uuid4", "urandom", "token_hex", "token_urlsafe", "token_bytes"),
    *("open", "print", "input", "breakpoint", "getattr", "setattr", "eval", "exec", "__import__"),
}
PURE_FLOORS = {"core", "app"}

WALL_CLOCKS = {
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"),
    *("datetime.date.today", "time.time", "time.time_ns", "time.localtime", "time.gmtime"),
    *("sqlalchemy.func.now", "sqlalchemy.func.current_timestamp"),  # The database has one, too.
}
THE_CLOCK = "src/qmtl/adapters/clock.py"
THE_GATE = "src/qmtl/core/promotion.py"

# Bugs are assertions, and nobody catches those, except here: file::function -> why it must.
BROAD_EXCEPTS = {
    "src/qmtl/adapters/sql/writer.py::_attempt": "what a job raises is its caller's to see",
    "src/qmtl/entry/cli/source.py::authors_errors": "an author's code may raise anything",
    "src/qmtl/adapters/sql/writer.py::_settle": "whatever ends a batch, everybody is answered",
    "src/qmtl/sdk/reading.py::pump": "an author's source may raise anything; `next` raises it",
    "src/qmtl/sdk/lookahead.py::_probe": "an author's code may raise anything; it is reported",
    "src/qmtl/sdk/sweep.py::_tried": "an author's code may raise anything; it is a row's error",
}

BAD_NAME = re.compile(r"(Manager|Helper|Util(s|ity|ities)?|Processor|Coordinator)s?(?![a-z])")
OPEN_END = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")  # In halves: this is none.
SUPPRESSION = re.compile(
    r"#\s*(type:\s*ignore(\[[^]]*\])?|mypy:[^#]*"
    r"|(ruff:\s*)?noqa(:\s*[A-Z]+\d+([,\s]+[A-Z]+\d+)*)?|pragma:\s*no cover)(?P<reason>.*)"
)
MACHINE_PATH = re.compile(r"(?<![\w.-])/(work|root|home/\w+|Users/\w+)/")
REGISTRY = re.compile(
    r"https?://\S*(/simple/|/packages/\S*\.(whl|gz)|/-/\S*\.tgz)"
    r"|\bpypi\.org\b|\bpythonhosted\.org\b|\bregistry\.npmjs\.org\b"
)


@dataclass(frozen=True)
class File:
    """One file: its path from the root of the repository, and its text."""

    path: PurePosixPath
    text: str

    @property
    def floor(self) -> str:
        """The floor it is on (`core`, `app`, ...), or nothing when it is not on one."""
        parts = self.path.parts
        return parts[2] if parts[:2] == ("src", "qmtl") and len(parts) > 3 else ""

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of its syntax tree, the outer before the inner."""
        return list(ast.walk(ast.parse(self.text)))

    @cached_property
    def imports(self) -> list[tuple[int, str, str]]:
        """(line, the name bound here, what it stands for) of every absolute import."""
        found = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.split(".")[0]
                    found.append((node.lineno, bound, alias.name if alias.asname else bound))
            elif isinstance(node, ast.ImportFrom):
                start = f"{'.' * node.level}{node.module or ''}"
                for alias in node.names:
                    found.append((node.lineno, alias.asname or alias.name, f"{start}.{alias.name}"))
        return found

    @cached_property
    def bound(self) -> dict[str, str]:
        """What each imported name stands for."""
        return {name: full for _, name, full in self.imports}

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """(line, text) of every comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(at[0], text) for kind, text, at, *_ in tokens if kind == tokenize.COMMENT]

    @cached_property
    def docstrings(self) -> list[tuple[int, str]]:
        """(line, text) of every docstring."""
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        return [
            (node.body[0].lineno, text)
            for node in self.nodes
            if isinstance(node, documented) and (text := ast.get_docstring(node))
        ]

    def dotted(self, node: ast.AST) -> str:
        """What a name stands for, through its import: `dt.now` -> `datetime.datetime.now`."""
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        if isinstance(node, ast.Name):
            return self.bound.get(node.id, node.id)
        return "?"

    def last_name(self, node: ast.AST) -> str:
        """The last part of what a name stands for: `promotion.Clearance` -> `Clearance`."""
        return self.dotted(node).rpartition(".")[2]

    def place(self, line: int) -> str:
        """`file::function` of a line; the innermost function."""
        around = [
            node.name
            for node in self.nodes
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.lineno <= line <= (node.end_lineno or node.lineno)
        ]
        return f"{self.path}::{around[-1] if around else 'module'}"


Fault = tuple[int, str]
Rule = Callable[[File], Iterator[Fault]]


# ---- Rules for src/qmtl ----------------------------------------------------------------------


def core_imports_only_what_is_pure(file: File) -> Iterator[Fault]:
    if file.floor != "core":
        return
    for line, _, full in file.imports:
        prefixes = {full[: match.start()] for match in re.finditer(r"\.|$", full)}
        if full.startswith("."):
            continue  # A sibling; import-linter sees where it leads.
        if not prefixes & CORE_MAY_IMPORT or prefixes & CORE_MAY_NOT_IMPORT:
            yield line, f"core imports {full}"


def core_and_app_take_the_world_as_arguments(file: File) -> Iterator[Fault]:
    if file.floor not in PURE_FLOORS:
        return
    for node in file.nodes:
        if isinstance(node, ast.Call) and (name := file.last_name(node.func)) in PURE_MUST_NOT_CALL:
            yield node.lineno, f"{file.floor} calls {name}()"
        if isinstance(node, ast.AsyncFunctionDef):
            yield node.lineno, f"{file.floor} is not async: {node.name}"


def core_values_never_change(file: File) -> Iterator[Fault]:
    if file.floor != "core":
        return
    for node in file.nodes:
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            called = decorator if isinstance(decorator, ast.Call) else ast.Call(decorator, [], [])
            options = {option.arg: ast.unparse(option.value) for option in called.keywords}
            if file.last_name(called.func) == "dataclass" and options.get("frozen") != "True":
                yield decorator.lineno, "a dataclass in core is frozen"


def core_knows_its_types(file: File) -> Iterator[Fault]:
    if file.floor != "core":
        return
    for node in file.nodes:
        if isinstance(node, ast.Attribute) and file.dotted(node) == "typing.Any":
            yield node.lineno, "core says Any"
    for line, _, full in file.imports:
        if full == "typing.Any":
            yield line, "core says Any"


def one_clock(file: File) -> Iterator[Fault]:
    """Not only calls: `default_factory=datetime.now` reads the clock as well."""
    if str(file.path) == THE_CLOCK:
        return
    for node in file.nodes:
        if isinstance(node, ast.Attribute | ast.Name) and file.dotted(node) in WALL_CLOCKS:
            yield node.lineno, f"{file.dotted(node)}: the only clock is in {THE_CLOCK}"


def one_gate(file: File) -> Iterator[Fault]:
    if str(file.path) == THE_GATE:
        return
    for node in file.nodes:
        made = isinstance(node, ast.Call) and file.last_name(node.func) == "Clearance"
        bases = node.bases if isinstance(node, ast.ClassDef) else []
        if made or any(file.last_name(base) == "Clearance" for base in bases):
            yield node.lineno, f"a Clearance is made in {THE_GATE} only"


def functions_fit_a_screen(file: File) -> Iterator[Fault]:
    for node in file.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name} has {lines} lines of {FUNCTION_LINES_MAX}"


def a_file_is_one_noun(file: File) -> Iterator[Fault]:
    lines = len(file.text.splitlines())
    if lines > FILE_LINES_MAX:
        yield lines, f"{lines} lines of {FILE_LINES_MAX}"


def broad_excepts(file: File) -> Iterator[Fault]:
    """Wherever every error is caught, `suppress` included."""
    for node in file.nodes:
        caught: list[ast.expr] = []
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield node.lineno, "except:"
                continue
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and file.last_name(node.func) == "suppress":
            caught = node.args
        for name in {file.last_name(kind) for kind in caught} & {"Exception", "BaseException"}:
            yield node.lineno, f"catches {name}"


def bugs_are_not_caught(file: File) -> Iterator[Fault]:
    for line, message in broad_excepts(file):
        if file.place(line) not in BROAD_EXCEPTS:
            yield line, f"{message}: name the error, or say why in BROAD_EXCEPTS"


def names_say_what_it_is(file: File) -> Iterator[Fault]:
    module = file.path.stem.replace("_", " ").title().replace(" ", "")
    if BAD_NAME.search(module):
        yield 1, f"a file named {file.path.name}"
    for node in file.nodes:
        if isinstance(node, ast.ClassDef) and BAD_NAME.search(node.name):
            yield node.lineno, f"a class named {node.name}"


# ---- Rules for every Python file -------------------------------------------------------------


def no_open_ends(file: File) -> Iterator[Fault]:
    for line, text in [*file.comments, *file.docstrings]:
        if found := OPEN_END.search(text):
            yield line, f"{found.group()}: do it, or open an issue"


def silence_has_a_reason(file: File) -> Iterator[Fault]:
    for line, text in file.comments:
        found = SUPPRESSION.search(text)
        if found and len(found["reason"].strip(" #:-")) < REASON_CHARS_MIN:
            yield line, f"{text!r} does not say why"


# ---- Rules for every text file ---------------------------------------------------------------


def no_machine_is_special(file: File) -> Iterator[Fault]:
    for number, line in enumerate(file.text.splitlines(), start=1):
        if found := MACHINE_PATH.search(line) or REGISTRY.search(line):
            yield number, f"{found.group()} is of one machine"


def the_map_is_short(file: File) -> Iterator[Fault]:
    lines = len(file.text.splitlines())
    if str(file.path) == "ARCHITECTURE.md" and lines > ARCHITECTURE_LINES_MAX:
        yield lines, f"{lines} lines of {ARCHITECTURE_LINES_MAX}"


PRODUCT_RULES: tuple[Rule, ...] = (
    core_imports_only_what_is_pure,
    core_and_app_take_the_world_as_arguments,
    core_values_never_change,
    core_knows_its_types,
    one_clock,
    one_gate,
    functions_fit_a_screen,
    a_file_is_one_noun,
    bugs_are_not_caught,
    names_say_what_it_is,
)
PYTHON_RULES: tuple[Rule, ...] = (no_open_ends, silence_has_a_reason)
TEXT_RULES: tuple[Rule, ...] = (no_machine_is_special, the_map_is_short)
RULES = (*PRODUCT_RULES, *PYTHON_RULES, *TEXT_RULES)


def rules_for(path: PurePosixPath) -> tuple[Rule, ...]:
    if path.suffix != ".py":
        return TEXT_RULES
    product = PRODUCT_RULES if path.parts[:2] == ("src", "qmtl") else ()
    return (*product, *PYTHON_RULES, *TEXT_RULES)


# ---- The repository keeps them ---------------------------------------------------------------


def repository_files() -> list[File]:
    """Every text file that is in the repository, or would be after `git add --all`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    files = []
    for name in sorted(filter(None, listed.split("\0"))):
        if (ROOT / name).is_file():  # Else it is deleted, and not yet committed.
            content = (ROOT / name).read_bytes()
            if b"\0" not in content:
                files.append(File(PurePosixPath(name), content.decode()))
    return files


FILES = repository_files()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.path))
def test_the_repository_is_tidy(file: File) -> None:
    faults = [
        f"{file.path}:{line}: {message}"
        for rule in rules_for(file.path)
        for line, message in rule(file)
    ]
    assert not faults, "\n".join(faults)


def test_the_repository_was_found() -> None:
    assert {"src/qmtl/__init__.py", "tests/test_tidy.py"} <= {str(file.path) for file in FILES}


def test_every_broad_except_that_is_allowed_still_exists_and_says_why() -> None:
    caught = {
        file.place(line)
        for file in FILES
        if file.path.suffix == ".py"
        for line, _ in broad_excepts(file)
    }
    assert set(BROAD_EXCEPTS) <= caught
    assert all(len(reason) >= REASON_CHARS_MIN for reason in BROAD_EXCEPTS.values())


# ---- The rules find what they are there to find ----------------------------------------------

CORE = "src/qmtl/core/some.py"
APP = "src/qmtl/app/some.py"
ENTRY = "src/qmtl/entry/some.py"
CATCHES = "try:\n    work()\nexcept {}:\n    pass\n"
TO_DO = "TO" + "DO"


def function_of(lines: int) -> str:
    return "def f():\n" + "    work()\n" * (lines - 1)


BROKEN = [
    (core_imports_only_what_is_pure, CORE, "import os"),
    (core_imports_only_what_is_pure, CORE, "import math, time"),
    (core_imports_only_what_is_pure, CORE, "from sys import stdout"),
    (core_imports_only_what_is_pure, CORE, "from sqlalchemy import select"),
    (core_imports_only_what_is_pure, CORE, "def f():\n    import random"),
    (core_imports_only_what_is_pure, CORE, "from numpy.random import default_rng"),
    (core_imports_only_what_is_pure, CORE, "from numpy import random"),
    (core_imports_only_what_is_pure, CORE, "import mathematics"),
    (core_and_app_take_the_world_as_arguments, CORE, "print(1)"),
    (core_and_app_take_the_world_as_arguments, CORE, "clock.now()"),
    (core_and_app_take_the_world_as_arguments, CORE, "from time import time as t\nt()"),
    (core_and_app_take_the_world_as_arguments, APP, "uuid.uuid4()"),
    (core_and_app_take_the_world_as_arguments, APP, "datetime.utcnow()"),
    (core_and_app_take_the_world_as_arguments, APP, "date.today()"),
    (core_and_app_take_the_world_as_arguments, APP, "open('f')"),
    (core_and_app_take_the_world_as_arguments, APP, "getattr(view, name)"),
    (core_and_app_take_the_world_as_arguments, APP, "async def f(): ..."),
    (core_values_never_change, CORE, "@dataclass\nclass C: ..."),
    (core_values_never_change, CORE, "@dataclasses.dataclass(slots=True)\nclass C: ..."),
    (core_values_never_change, CORE, "@dataclass(frozen=False)\nclass C: ..."),
    (core_knows_its_types, CORE, "from typing import Any"),
    (core_knows_its_types, CORE, "import typing as t\nx: dict[str, t.Any]"),
    (one_clock, ENTRY, "from datetime import datetime\ndatetime.now(UTC)"),
    (one_clock, ENTRY, "import datetime as dt\ndt.datetime.utcnow()"),
    (one_clock, ENTRY, "from datetime import datetime\nfield(default_factory=datetime.now)"),
    (one_clock, ENTRY, "import time\ntime.time()"),
    (one_clock, ENTRY, "from time import time\ntime()"),
    (one_clock, "src/qmtl/adapters/sql/clock.py", "import time\ntime.time()"),
    (one_clock, ENTRY, "from sqlalchemy import func\nfunc.now()"),
    (one_gate, CORE, "Clearance(candidate)"),
    (one_gate, ENTRY, "from qmtl.core.promotion import Clearance as C\nC(candidate)"),
    (one_gate, ENTRY, "promotion.Clearance(candidate)"),
    (one_gate, APP, "class Mine(Clearance): ..."),
    (functions_fit_a_screen, ENTRY, function_of(lines=71)),
    (functions_fit_a_screen, ENTRY, "async " + function_of(lines=71)),
    (a_file_is_one_noun, ENTRY, "x = 1\n" * 501),
    (bugs_are_not_caught, ENTRY, CATCHES.format("")),
    (bugs_are_not_caught, ENTRY, CATCHES.format("Exception")),
    (bugs_are_not_caught, ENTRY, CATCHES.format("BaseException as error")),
    (bugs_are_not_caught, ENTRY, CATCHES.format("(ValueError, builtins.Exception)")),
    (bugs_are_not_caught, ENTRY, "with contextlib.suppress(Exception):\n    work()"),
    (names_say_what_it_is, ENTRY, "class WorldManager: ..."),
    (names_say_what_it_is, ENTRY, "class HelperOfWorlds: ..."),
    (names_say_what_it_is, ENTRY, "class WorldUtils: ..."),
    (names_say_what_it_is, ENTRY, "class EventProcessor: ..."),
    (names_say_what_it_is, ENTRY, "class Coordinator: ..."),
    (names_say_what_it_is, "src/qmtl/entry/http_utils.py", ""),
    (no_open_ends, ENTRY, f"x = 1  # {TO_DO}: later"),
    (no_open_ends, "tests/test_some.py", f'def f():\n    """{TO_DO}: later."""'),
    (silence_has_a_reason, ENTRY, "x = f()  # type: " + "ignore[arg-type]"),
    (silence_has_a_reason, ENTRY, "x = f()  # type: " + "ignore[arg-type]  # why?"),
    (silence_has_a_reason, ENTRY, "import x  # no" + "qa: F401, E501"),
    (silence_has_a_reason, ENTRY, "# mypy: ignore-errors"),
    (silence_has_a_reason, ENTRY, "x = 1  # pragma: " + "no cover"),
    (no_machine_is_special, "README.md", "See `{}work/main`.".format("/")),
    (no_machine_is_special, "run.sh", "cd {}root/x".format("/")),
    (no_machine_is_special, "a.txt", "https://example.org/{}/numpy".format("simple")),
    (no_machine_is_special, "a.txt", "https://pypi{}org/project/numpy".format(".")),
    (the_map_is_short, "ARCHITECTURE.md", "line\n" * 201),
]

FINE = [
    (core_imports_only_what_is_pure, CORE, "import math\nfrom collections.abc import Mapping"),
    (core_imports_only_what_is_pure, CORE, "import numpy as np\nfrom immutables import Map"),
    (core_imports_only_what_is_pure, CORE, "from .view import World\nfrom qmtl.core import fold"),
    (core_imports_only_what_is_pure, CORE, "from sys import float_info"),
    (core_imports_only_what_is_pure, APP, "import os"),
    (core_and_app_take_the_world_as_arguments, CORE, "def f(now): return later(now)"),
    (core_and_app_take_the_world_as_arguments, ENTRY, "print(1)"),
    (core_values_never_change, CORE, "@dataclass(frozen=True, slots=True)\nclass C: ..."),
    (core_values_never_change, APP, "@dataclass\nclass C: ..."),
    (core_knows_its_types, ENTRY, "from typing import Any"),
    (one_clock, THE_CLOCK, "from datetime import datetime\ndatetime.now(UTC)"),
    (one_clock, ENTRY, "import time\ntime.monotonic()\nclock.now()"),
    (one_gate, THE_GATE, "Clearance(candidate)"),
    (one_gate, APP, "match answer:\n    case Clearance(): ..."),
    (one_gate, APP, "def f(clearance: Clearance): ..."),
    (functions_fit_a_screen, ENTRY, function_of(lines=70)),
    (a_file_is_one_noun, ENTRY, "x = 1\n" * 500),
    (bugs_are_not_caught, ENTRY, CATCHES.format("(ValueError, OSError)")),
    (names_say_what_it_is, ENTRY, "class Utilization: ..."),
    (no_open_ends, ENTRY, f"x = '{TO_DO}'"),
    (silence_has_a_reason, ENTRY, "f()  # type: " + "ignore[misc]  # The stubs lag behind 2.1."),
    (silence_has_a_reason, ENTRY, "import x  # no" + "qa: F401 -- registers its tables"),
    (no_machine_is_special, "README.md", "https://example.org/work/x and ./work/ and src/root/x"),
    (the_map_is_short, "ARCHITECTURE.md", "line\n" * 200),
    (the_map_is_short, "README.md", "line\n" * 201),
]


def named(case: object) -> str | None:
    return getattr(case, "__name__", None)


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN, ids=named)
def test_a_broken_snippet_is_found(rule: Rule, path: str, text: str) -> None:
    assert list(rule(File(PurePosixPath(path), text)))


@pytest.mark.parametrize(("rule", "path", "text"), FINE, ids=named)
def test_a_fine_snippet_is_left_alone(rule: Rule, path: str, text: str) -> None:
    assert not list(rule(File(PurePosixPath(path), text)))


def test_every_rule_has_a_snippet_that_breaks_it_and_one_that_does_not() -> None:
    assert {case[0] for case in BROKEN} == {case[0] for case in FINE} == set(RULES)


def test_every_rule_is_asked_of_some_file() -> None:
    asked = {rule for file in FILES for rule in rules_for(file.path)}
    assert asked == set(RULES)


def test_a_place_is_the_innermost_function() -> None:
    file = File(PurePosixPath(ENTRY), "x = 1\ndef outer():\n    def inner():\n        work()\n")
    assert [file.place(line) for line in (1, 2, 4)] == [
        f"{ENTRY}::{name}" for name in ("module", "outer", "inner")
    ]
