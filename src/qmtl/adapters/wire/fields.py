"""What the fields of request bodies may hold, and how a body is read.

Strict: every key is known, text is no number, nor is a boolean.  A body is read by orjson, which
refuses NaN, infinities, lone surrogates and numbers that a float64 cannot hold; then by a model,
which gathers every problem.  Series go past the models, as whole columns: a snapshot of thousands
of points costs what numpy costs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self, TypeVar

import numpy as np
import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails

from qmtl.adapters.policies.documents import shown, unique
from qmtl.adapters.wire import instants
from qmtl.core.columns import Float
from qmtl.core.errors import Invalid, Malformed
from qmtl.core.names import ID_CHARS_MAX, Stage
from qmtl.core.snapshot import (
    SERIES_POINTS_MAX,
    TTL_SEC_MAX,
    PostedSeries,
)

ID_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._:-]{{0,{ID_CHARS_MAX - 1}}}$"
VERSION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:+/-]{0,127}$"
ACTOR_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}$"
METRIC_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
# What steers a terminal, a line or the direction of reading, and so makes a sentence look like
# another: control characters, and those that embed, override or isolate a direction.
_STEERS = r"\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
NAME_PATTERN = rf"^[^{_STEERS}]*$"
TEXT_PATTERN = rf"^([^{_STEERS}]|\t|\r?\n)*$"  # A person's sentences may have lines.
TEXT_CHARS_MAX = 2_000  # A reason is a paragraph, not a book.
NAME_CHARS_MAX = 200
LABELS_MAX = 64
STRATEGIES_MAX = 10_000  # Of one body; a cohort's limit is the same.
SCENARIOS_MAX = 1_000
PLAIN_DEPTH_MAX = 20  # Deeper than provenance is; writers and readers of JSON recurse.
PROBLEMS_MAX = 50  # Nobody mends more at once.
ALIASES = {"dryrun": Stage.PAPER}  # At the door only.

T = TypeVar("T", bound="Body")


# ---- Words -----------------------------------------------------------------------------------


def stage_of(text: object) -> Stage:
    """The stage that a word means.  Raises ValueError."""
    if isinstance(text, str):
        if text in ALIASES:
            return ALIASES[text]
        if text in set(Stage):
            return Stage(text)
    raise ValueError(f"must be one of {', '.join(Stage)}, not {shown(text)}.")


def _instant(text: object) -> datetime:
    if not isinstance(text, str):
        raise ValueError(f"must be {instants.WORDS}, not {shown(text)}.")
    try:
        return instants.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}, not {shown(text)}.") from None


def _plain(value: object) -> object:
    """JSON as it came, unless it is too deep."""
    level: Sequence[object] = [value]
    for _ in range(PLAIN_DEPTH_MAX):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return value
    raise ValueError(f"is more than {PLAIN_DEPTH_MAX} deep.")


def _object(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"must be a group of keys, not {shown(value)}.")
    return _plain(value)


def returns_of(values: object) -> Float:
    """Returns as a column.  Only numbers: text, booleans and null are refused, by type."""
    if not isinstance(values, list):
        raise ValueError(f"must be a list of returns, not {shown(values)}.")
    other = set(map(type, values)) - {int, float}
    if other:
        wrong = next(value for value in values if type(value) in other)
        raise ValueError(f"every return must be a number, not {shown(wrong)}.")
    return np.array(values, dtype=np.float64)


def series_of(value: object) -> PostedSeries:
    """`[r, ...]`, or `{"t": [...], "r": [...]}`."""
    if isinstance(value, list):
        return PostedSeries(t=None, r=returns_of(value))
    if not isinstance(value, dict) or set(value) != {"t", "r"}:
        raise ValueError('must be a list of returns, or {"t": [...], "r": [...]} and nothing else.')
    times = value["t"]
    if not isinstance(times, list) or set(map(type, times)) - {str}:
        raise ValueError(f"t: must be a list of times, each {instants.WORDS}.")
    try:
        return PostedSeries(t=instants.parse_column(times), r=returns_of(value["r"]))
    except ValueError as error:
        raise ValueError(f"{error}".rstrip(".") + ".") from None


def _timed(value: object) -> PostedSeries:
    if isinstance(value, list):
        raise ValueError('must be {"t": [...], "r": [...]}: returns with their times.')
    return series_of(value)


TIMES_SCHEMA = {"type": "array", "items": {"type": "string", "format": "date-time"}}
RETURNS_SCHEMA = {
    "type": "array",
    "items": {"type": "number", "minimum": -1},
    "minItems": 1,
    "maxItems": SERIES_POINTS_MAX,
}
TIMED_SCHEMA = {
    "type": "object",
    "properties": {"t": {**TIMES_SCHEMA, "minItems": 1}, "r": RETURNS_SCHEMA},
    "required": ["t", "r"],
    "additionalProperties": False,
}

Id = Annotated[str, Field(pattern=ID_PATTERN)]
Version = Annotated[str, Field(pattern=VERSION_PATTERN)]
Actor = Annotated[str, Field(pattern=ACTOR_PATTERN)]
MetricName = Annotated[str, Field(pattern=METRIC_PATTERN)]
Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX, pattern=TEXT_PATTERN)]
Why = Annotated[str, Field(min_length=1, max_length=TEXT_CHARS_MAX, pattern=TEXT_PATTERN)]
Name = Annotated[str, Field(max_length=NAME_CHARS_MAX, pattern=NAME_PATTERN)]
Instant = Annotated[
    datetime,
    PlainValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
StageWord = Annotated[
    Stage,
    PlainValidator(stage_of),
    WithJsonSchema({"type": "string", "enum": [*Stage, *ALIASES]}),
]
PlainObject = Annotated[
    dict[str, object], PlainValidator(_object), WithJsonSchema({"type": "object"})
]
AnySeries = Annotated[
    PostedSeries,
    PlainValidator(series_of),
    WithJsonSchema({"anyOf": [RETURNS_SCHEMA, TIMED_SCHEMA]}),
]
TimedSeries = Annotated[PostedSeries, PlainValidator(_timed), WithJsonSchema(TIMED_SCHEMA)]
Share = Annotated[float, Field(ge=0, le=1)]
Ttl = Annotated[int, Field(ge=1, le=TTL_SEC_MAX)]
Stats = Annotated[dict[Id, dict[MetricName, float]], Field(max_length=STRATEGIES_MAX)]
Stress = Annotated[
    dict[Id, Annotated[dict[Name, Share], Field(max_length=SCENARIOS_MAX)]],
    Field(max_length=STRATEGIES_MAX),
]
Covariance = dict[
    Annotated[str, Field(pattern=ID_PATTERN[:-1] + "," + ID_PATTERN[1:])],
    float,
]
Weights = Annotated[dict[Id, float], Field(min_length=1, max_length=STRATEGIES_MAX)]


# ---- Reading ---------------------------------------------------------------------------------

_KEY_ENDS = re.compile(rb'"\s*:')


def _no_key_twice(raw: bytes, value: object) -> None:
    """INVARIANT: an object says each thing once.  orjson would take the last that was said.

    Whatever looks like the end of a key is counted, so that every key is; as many in the value, and
    none was lost.  Only when there are fewer (text may look like a key, too) is the body read once
    more, by a reader that sees each.  Raises Malformed.
    """
    if len(_KEY_ENDS.findall(raw)) == _keys(value):
        return
    try:
        json.loads(raw, object_pairs_hook=unique, parse_int=str, parse_float=str)
    except RecursionError:
        raise Malformed("The JSON is too deep.") from None


def _keys(value: object) -> int:
    """How many keys there are, at every depth; those within lists, which are rare, left out."""
    count, objects = 0, [value] if isinstance(value, dict) else []
    while objects:
        node = objects.pop()
        count += len(node)
        objects += [child for child in node.values() if isinstance(child, dict)]
    return count


class Body(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, arbitrary_types_allowed=True
    )
    optional: ClassVar[bool] = False  # Whether no body at all means every default.

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """The body that the bytes mean.  Raises Malformed, or Invalid with every problem."""
        if cls.optional and not raw:
            return cls.of({})
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"The body is not JSON: {error}.") from None
        _no_key_twice(raw, value)
        return cls.of(value)

    @classmethod
    def of(cls, value: object) -> Self:
        """The body that plain values mean.  Raises Invalid with every problem."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise Invalid(*sentences(error.errors(include_url=False))) from None


_NOUNS = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
}


_ONLY = {
    NAME_PATTERN: "a name is one line of plain text",
    TEXT_PATTERN: "of control characters only line breaks and tabs may be there",
}


def sentences(problems: Sequence[ErrorDetails | Mapping[str, Any]]) -> list[str]:
    """Every problem as `path: what is wrong.`"""
    found = [f"{_path(p['loc'])}: {_words(p)}" for p in problems[:PROBLEMS_MAX]]
    if len(problems) > PROBLEMS_MAX:
        found.append(f"and {len(problems) - PROBLEMS_MAX} more problems.")
    return found


def _path(loc: Sequence[str | int]) -> str:
    parts = [str(part) if isinstance(part, int) else part for part in loc if part != "[key]"]
    return ".".join(ascii(part)[1:-1] for part in parts) or "(body)"


def _first_of(text: str, pattern: str) -> str:
    """The first character that a pattern of plain text does not let through."""
    held = text.replace("\r\n", "\n") if pattern == TEXT_PATTERN else text
    return next(sign for sign in held if not re.fullmatch(pattern, sign))


def _words(problem: ErrorDetails | Mapping[str, Any]) -> str:
    kind, given, context = problem["type"], problem.get("input"), problem.get("ctx", {})
    if kind in _NOUNS:
        return f"must be {_NOUNS[kind]}, not {shown(given)}."
    match kind:
        case "value_error":
            return str(context["error"])
        case "missing":
            return "is missing."
        case "extra_forbidden":
            return "is not known here."
        case "finite_number":
            return "must be a finite number."
        case "string_pattern_mismatch" if context["pattern"] in _ONLY:
            sign = _first_of(str(given), context["pattern"])
            return f"must not hold the character U+{ord(sign):04X}: {_ONLY[context['pattern']]}."
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}, not {shown(given)}."
        case _:
            return f"{problem['msg']}: {shown(given)}."
