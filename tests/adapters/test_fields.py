"""How a body is read: each thing is said once, and text that looks like a key is text."""

import orjson
import pytest

from qmtl.adapters.wire.bodies import Because
from qmtl.adapters.wire.bodies_hub import Bar
from qmtl.adapters.wire.fields import Body, PlainObject
from qmtl.core.errors import Malformed


class Anything(Body):
    a: PlainObject


TWICE = [
    ("at the top", b'{"a": {}, "a": {}}', "a"),
    ("the same value", b'{"a":{"b":1,"b":1}}', "b"),
    ("in a list", b'{"a": {"b": [1, [{"c": 1, "c": 2}]]}}', "c"),
    ("space before one colon", b'{"a": {"b": 1, "b" :2}}', "b"),
    ("and other space", b'{"a": {"b": 1, "b"\t\r\n:2}}', "b"),
    ("written otherwise", b'{"a": {"b": 1, "\\u0062": 2}}', "b"),
    ("one for the other", b'{"a": {"b": ":", "c": 1, "c": 2}}', "c"),
    ("quoted in a key", b'{"a": {"\\":": 1, "\\":": 2}}', '":'),
    ("empty", b'{"a": {"": 1, "": 2}}', ""),
    ("a backslash at the end", b'{"a": {"b\\\\": 1, "b\\\\": 2}}', "b"),
]


@pytest.mark.parametrize(("raw", "key"), [case[1:] for case in TWICE], ids=[c[0] for c in TWICE])
def test_a_key_that_is_there_twice_is_refused(raw: bytes, key: str) -> None:
    orjson.loads(raw)  # Which would have taken the last.
    with pytest.raises(Malformed, match="is there twice") as refused:
        Anything.read(raw)
    assert repr(key)[1:-1] in str(refused.value)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":{"b":":x"}}',
        b'{"a": {"b": "\\": \\"", "c": "\\":"}}',
        b'{"a": {"b": {"b": {"b": [{"b": 1}, {"b": 2}]}}}}',
        b'{"a": {"b": ["x", ":y", "z"], "c": "::"}}',
        b'{"a": {"\\\\": 1, "\\\\\\\\": 2, "b\\"": 3}}',
        b'{ "a" : { "b" : 1e308 , "c" : -0.0 } }',
        b'{"a": {"b": ":", "c": 18446744073709551615}}',
    ],
)
def test_text_that_looks_like_a_key_is_text(raw: bytes) -> None:
    assert Anything.read(raw).a == orjson.loads(raw)["a"]


def test_a_strategy_with_two_returns_in_a_bar_is_refused() -> None:
    raw = (
        b'{"stage": "paper", "t": "2026-01-05T00:00:00Z", "returns": {"a": 0.1, "b": 0, "a": 0.2}}'
    )
    with pytest.raises(Malformed, match="'a' is there twice"):
        Bar.read(raw)


def test_what_is_too_deep_to_be_looked_through_is_refused() -> None:
    raw = b'{"a": {"b": ":", "c": ' + b'{"d":' * 1_010 + b"1" + b"}" * 1_010 + b"}}"
    orjson.loads(raw)
    with pytest.raises(Malformed, match="too deep"):
        Anything.read(raw)


def test_nothing_at_all_is_every_default_where_that_is_allowed() -> None:
    assert Because.read(b"").reason == ""
    with pytest.raises(Malformed, match="not JSON"):
        Anything.read(b"")
