"""Text -> plain values: JSON, and the part of YAML that has one meaning.

Of YAML, what could surprise is refused or is plain text: no anchors and aliases (a billion laughs),
no tags, no merges, no second key of the same name; and of the words that YAML 1.1 turns into
something else (`yes`, `1:30`, `0504`, `1_000`, dates) all stay text, so that a strict reader of the
values can say that text is not a number.
"""

import json
import re
from collections import Counter
from collections.abc import Hashable
from typing import Any, Final

import yaml

from qmtl.core.errors import Malformed, TooLarge

JSON: Final = "application/json"
YAML: Final = "application/yaml"
YAML_NAMES: Final = frozenset({YAML, "application/x-yaml", "text/yaml", "text/x-yaml"})

DOCUMENT_BYTES_MAX: Final = 65_536  # Thirty times a long policy; a YAML parser in Python is slow.
DEPTH_MAX: Final = (
    20  # A policy is five deep.  Readers recurse; this stops long before Python does.
)
INTEGER_DIGITS_MAX: Final = 20  # More than any count here; reading digits takes time squared.

_STR: Final = "tag:yaml.org,2002:str"
_PLAIN: Final = (  # What unquoted text may mean, other than itself: YAML 1.2's core, decimals only.
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", rf"[-+]?(?:0|[1-9][0-9]{{0,{INTEGER_DIGITS_MAX - 1}}})", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(?:0|[1-9][0-9]*)(?=[eE]))(?:[eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
)


def read(text: str | bytes, media_type: str) -> object:
    """The plain values (dict with str keys, list, str, int, float, bool, None) that `text` means.

    `media_type` is JSON or YAML, parameters allowed. Floats may be infinite. Raises `Malformed`
    when the text has no single meaning, `TooLarge` over DOCUMENT_BYTES_MAX.
    """
    kind = media_type.partition(";")[0].strip().lower()
    if kind != JSON and kind not in YAML_NAMES:
        raise Malformed(f"The media type must be {JSON} or {YAML}, not {media_type[:80]!a}.")
    try:
        size = len(text if isinstance(text, bytes) else text.encode("utf-8"))
        if size > DOCUMENT_BYTES_MAX:
            raise TooLarge(f"A document may have {DOCUMENT_BYTES_MAX} bytes; this has {size}.")
        words = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeError:
        raise Malformed("The text is not UTF-8.") from None
    return _read_json(words) if kind == JSON else _read_yaml(words)


def _read_json(text: str) -> object:
    def whole(digits: str) -> int:
        if len(digits) > INTEGER_DIGITS_MAX:
            raise Malformed(f"A number has more than {INTEGER_DIGITS_MAX} digits.")
        return int(digits)

    def constant(word: str) -> None:
        raise Malformed(f"{word} is not JSON.")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=whole, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise Malformed(f"Line {error.lineno} is not JSON: {error.msg}.") from None
    except RecursionError:
        raise Malformed("The JSON is too deep.") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of these pairs.  Raises Malformed for a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = next(name for name, times in names.items() if times > 1)
        raise Malformed(f"The key {shown(twice)} is there twice.")
    return found


def _read_yaml(text: str) -> object:
    try:
        return yaml.load(text, Loader=_Loader)  # A SafeLoader, and narrower.
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"Line {mark.line + 1}" if mark else "The text"
        raise Malformed(f"{line} is not YAML as it is read here: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, OverflowError):  # Unprintable text; "\UFFFFFFFF".
        raise Malformed("The text is not YAML: it has characters that may not be there.") from None


class _Loader(yaml.SafeLoader):
    """YAML with one meaning: see the head of this file."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 -- PyYAML's own way; filled below, then constant.
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # The stubs lack it.
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse("anchors (&) and aliases (*) are not allowed", event.start_mark)
        if event.tag is not None:
            self._refuse("tags (!) are not allowed", event.start_mark)
        if self.depth >= DEPTH_MAX:
            self._refuse(f"it is more than {DEPTH_MAX} deep", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for name, value in node.value:  # As it is written: `<<` merges nothing.
            if not isinstance(name, yaml.ScalarNode) or name.tag != _STR:
                self._refuse("a key must be a word", name.start_mark)
            if name.value in found:
                self._refuse(f"the key {shown(name.value)} is there twice", name.start_mark)
            found[name.value] = self.construct_object(value, deep=deep)
        return found

    @staticmethod
    def _refuse(problem: str, mark: Any) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


for _name, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first
    )


def shown(value: object) -> str:
    """A value in words that are safe to print, and short."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return ascii(value if len(value) <= 40 else value[:40] + "...")
        case dict():
            return "a group of keys"
        case list():
            return "a list"
        case float():
            return f"{value:.12g}"
        case _:
            return f"{value}"
