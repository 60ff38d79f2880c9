"""Core values <-> bytes: facts and runs as the journal stores them, the sparse part of a view.

Stored bytes are JSON with sorted keys (orjson): instants in RFC 3339 with `Z` and, unless they are
zero, microseconds; lengths of time in ISO 8601; bytes in base64; a frozenset as a sorted list.  The
same value gives the same bytes in every process.

Reading is strict: unknown keys, wrong types and NaN are refused, so that what a newer program wrote
is never half understood.  Writing reads back what it wrote: see `stored`.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import fields, make_dataclass
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import orjson
from immutables import Map
from pydantic import ConfigDict, Field, TypeAdapter

from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.facts import Fact
from qmtl.core.policy import Policy
from qmtl.core.times import MICROSECOND
from qmtl.core.view import WorldView

CONFIG = ConfigDict(
    strict=True,
    extra="forbid",
    allow_inf_nan=False,
    val_json_bytes="base64",
    cache_strings="keys",  # What is said is mostly digests, which never come again.
)
# Numbers that numpy computed are numbers; the strategies' ids and stages are keys.
OPTIONS = (
    orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
)
DENSE = ("standings", "tracks", "proof")  # The fields of a view that are columns.


@cache  # Built on first use: an author's process may never need it.
def _facts() -> TypeAdapter[Fact]:
    return TypeAdapter(Annotated[Fact, Field(discriminator="kind")], config=CONFIG)


def schema_of_facts(ref_template: str) -> dict[str, Any]:
    """JSON Schema of what the journal stores: a union of `$defs`, referred to by the template."""
    return _facts().json_schema(ref_template=ref_template)


@cache
def _runs() -> TypeAdapter[EvaluationRun | None]:
    # Optional, because pydantic takes a config for a union, and none for a dataclass alone.
    return TypeAdapter(EvaluationRun | None, config=CONFIG)


@cache
def _sparse() -> TypeAdapter[Any]:
    hints = get_type_hints(WorldView)
    plain = [(name, _pairs(hint)) for name, hint in hints.items() if name not in DENSE]
    sparse: Any = make_dataclass("Sparse", plain)
    return TypeAdapter(sparse | None, config=CONFIG)  # Optional for the same reason.


def _pairs(hint: Any) -> Any:
    """A persistent map is written as pairs, since its keys need not be text."""
    if get_origin(hint) is not Map:
        return hint
    pair: Any = tuple.__class_getitem__(get_args(hint))
    return list[pair]


def dumps(value: object) -> bytes:
    """Plain values as stored bytes."""
    return orjson.dumps(value, default=_plain, option=OPTIONS)


def _plain(value: object) -> object:
    """What orjson does not know."""
    match value:
        case bytes():
            return b64encode(value).decode()
        case frozenset():
            return sorted(value)
        case timedelta():
            return iso8601(value)
        case Mapping():
            return dict(value)
        case _:
            raise TypeError(f"{type(value).__name__} is not stored")


def iso8601(span: timedelta) -> str:
    """A length of time as ISO 8601 writes it: days, and seconds with microseconds if any."""
    sign = "-" if span < timedelta(0) else ""
    days, rest = divmod(abs(span), timedelta(days=1))
    seconds, fraction = divmod(rest, timedelta(seconds=1))
    text = f"{seconds}.{fraction // MICROSECOND:06}" if fraction else f"{seconds}"
    return f"{sign}P{days}DT{text}S"


def stored(fact: Fact) -> tuple[bytes, Fact]:
    """A fact's stored bytes, and the fact that reading them gives.

    INVARIANT: they are equal, NaN and all else that JSON cannot say being bugs, so that no journal
    ever holds an entry that cannot be read back or means something else when it is.
    """
    body = _written(fact)
    read = _facts().validate_json(body)
    assert read == fact, f"{fact.kind} does not survive being stored"
    return body, read


def _written(fact: Fact) -> bytes:
    # No warnings: what is not as declared, reading it back finds.
    return dumps(_facts().dump_python(fact, warnings="none"))


def fact_to_bytes(fact: Fact) -> bytes:
    """The stored bytes of a fact."""
    return stored(fact)[0]


def fact_from_bytes(body: bytes) -> Fact:
    """The fact of stored bytes.  Raises ValidationError when they are not of one."""
    return _facts().validate_json(body)


def fact_to_json(fact: Fact) -> dict[str, object]:
    """A stored fact as JSON values, for the journal on the wire."""
    return cast("dict[str, object]", orjson.loads(_written(fact)))


def fact_from_json(told: object) -> Fact:
    """The fact of JSON values, as `fact_to_json` made them.  Raises ValidationError."""
    return _facts().validate_json(orjson.dumps(told))


def policy_to_bytes(policy: Policy) -> bytes:
    """The stored bytes of a policy as the core knows it; its documents are policies.py's."""
    return dumps(policy)


def run_to_bytes(run: EvaluationRun) -> bytes:
    """The stored bytes of a run."""
    return dumps(_runs().dump_python(run, warnings="none"))


def run_from_bytes(body: bytes | str) -> EvaluationRun:
    """The run of stored bytes.  Raises ValidationError when they are not of one."""
    run = _runs().validate_json(body)
    assert run is not None, "a run, not null"
    return run


def sparse_to_bytes(view: WorldView) -> bytes:
    """Everything of a view that is not in columns."""
    sparse: dict[str, object] = {}
    for field in fields(WorldView):
        if field.name not in DENSE:
            value = getattr(view, field.name)
            sparse[field.name] = sorted(value.items()) if isinstance(value, Map) else value
    return dumps(sparse)


def sparse_from_bytes(body: bytes) -> dict[str, Any]:
    """The sparse fields of a view by name.  Raises ValidationError when laid out otherwise."""
    sparse: dict[str, Any] = vars(_sparse().validate_json(body))
    for name, hint in get_type_hints(WorldView).items():
        if get_origin(hint) is Map:
            sparse[name] = Map(sparse[name])
    return sparse
