"""Routes with what OpenAPI says of them: every answer, every refusal, every body.

A route says what it answers and takes; what every route refuses alike is said here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from qmtl import __version__
from qmtl.adapters import policies
from qmtl.adapters.wire.fields import Body
from qmtl.adapters.wire.shapes import ProblemJson

from . import problems
from .auth import WORLD_ELSEWHERE
from .door import BULK_BYTES_MAX, JSON, KEY_PATTERN, SMALL_BYTES_MAX, Door

REFUSALS: Final[Mapping[int, str]] = {
    400: "It cannot be read.",
    401: "No valid credential.",
    403: "The credential does not allow it.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "Refused, with every reason.",
    412: "What it was based on is no longer current.",
    413: "The body is too large.",
    422: "It does not validate; every problem is said.",
    429: "Too much at once; see Retry-After.",
    503: "Contended, or the world service is away; see Retry-After.",
}
ANSWERS: Final[Mapping[int, str]] = {
    200: "Done, or found done.",
    201: "Made now.",
    202: "Kept: it waits for something.",
}
KEY_HEADER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request answers as the first time.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
}
DONE_AGAIN: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "May come, and changes nothing: this names its effect, and is done again when "
    "it was undone since.",
    "schema": {"type": "string"},
}
REQUEST_ID: Final = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "What to call this request in answer and log: 1 to 128 letters, digits and "
    "`._:=+/@-`; anything else is ignored.",
    "schema": {"type": "string"},
}
REQUEST_ID_TOLD: Final = {
    "description": "What this request is called in the server's log.",
    "schema": {"type": "string"},
}
IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "An ETag: only while it is current, else 412.",
    "schema": {"type": "string"},
}
POLICY: Final = "Policy"
_REF: Final = "#/components/schemas/"
_PARAMETER: Final = "#/components/parameters/RequestId"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Bodies = type[Body] | str | None  # A string is the name of a schema that is added by hand.


class Declare(Protocol):
    """Adds the function it decorates, and leaves it as it is."""

    def __call__(self, endpoint: Endpoint, /) -> Endpoint: ...


class Routes(list[Door]):
    """The routes of one router, in the order they are declared."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self.tag = tag
        self.takes: set[type[Body]] = set()

    def reads(self, path: str, answer: Any, *, refuses: Sequence[int] = ()) -> Declare:
        """A GET: it changes nothing, and answers with an ETag."""
        return self._declared("GET", path, {200: answer}, refuses, {}, keyed=False)

    def writes(
        self,
        method: str,
        path: str,
        answers: Mapping[int, Any],
        *,
        takes: Bodies = None,
        refuses: Sequence[int] = (),
        headers: Sequence[Mapping[str, Any]] = (),
        bulk: bool = False,
        keyed: bool = True,
    ) -> Declare:
        """What is no GET.  `bulk`: its body may be large.  `keyed`: it remembers its answer under
        an Idempotency-Key; else it is done again."""
        key = KEY_HEADER if keyed else DONE_AGAIN
        extra: dict[str, Any] = {"parameters": [key, *headers]}
        if takes is not None:
            extra |= self._body(takes, bulk)
            refuses = (400, 408, 413, *refuses)
        return self._declared(method, path, answers, (409, *refuses), extra, keyed=keyed)

    def _body(self, takes: type[Body] | str, bulk: bool) -> dict[str, Any]:
        optional = not isinstance(takes, str) and takes.optional
        name = takes if isinstance(takes, str) else takes.__name__
        if not isinstance(takes, str):
            self.takes.add(takes)
        media = {"schema": {"$ref": _REF + name}}
        content = {JSON: media}
        if takes == POLICY:
            content["application/yaml"] = media
        return {
            "requestBody": {"required": not optional, "content": content},
            "x-body-bytes-max": BULK_BYTES_MAX if bulk else SMALL_BYTES_MAX,
        }

    def _declared(
        self,
        method: str,
        path: str,
        answers: Mapping[int, Any],
        refuses: Sequence[int],
        extra: dict[str, Any],
        *,
        keyed: bool,
    ) -> Declare:
        named = {404} if "{" in path or f"{method} {path}" in WORLD_ELSEWHERE else set()
        responses: dict[int | str, dict[str, Any]] = {
            status: _answer(status, answer) for status, answer in answers.items()
        }
        for status in sorted({401, 403, 422, 429, 503, *named, *refuses}):
            responses[status] = _refusal(status)
        if method == "GET":
            responses[304] = {"description": "It is what If-None-Match names."}

        def declare(endpoint: Endpoint) -> Endpoint:
            self.append(
                Door(
                    path,
                    endpoint,
                    keyed=keyed,
                    methods=[method],
                    status_code=next(iter(answers)),
                    response_model=None,
                    responses=responses,
                    tags=[self.tag],
                    operation_id=f"{method.lower()}{path}".translate(_OPERATION),
                    openapi_extra={"security": [{"bearer": []}], **extra},
                )
            )
            return endpoint

        return declare


_OPERATION: Final = str.maketrans({"/": "_", "{": "", "}": "", "-": "_"})


def _answer(status: int, answer: Any) -> dict[str, Any]:
    said = {"description": ANSWERS[status]}
    if isinstance(answer, str):  # A media type whose content has no schema.
        return {**said, "content": {answer: {"schema": {"type": "string"}}}}
    return {**said, "model": answer}


def _refusal(status: int) -> dict[str, Any]:
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": f"{_REF}ProblemJson"}}}
    return {"description": REFUSALS[status], "content": content}


def openapi(app: FastAPI, takes: set[type[Body]]) -> dict[str, Any]:
    """The OpenAPI document, whole."""
    found = get_openapi(
        title="qmtl",
        version=__version__,
        summary="Takes trading strategies from backtest to paper to live, and can show why it did.",
        routes=app.routes,
    )
    ordered = sorted(takes, key=lambda body: body.__name__)
    _, bodies = models_json_schema(
        [(body, "validation") for body in ordered], ref_template=_REF + "{model}"
    )
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= bodies["$defs"]
    schemas |= _policy_schemas()
    schemas["ProblemJson"] = TypeAdapter(ProblemJson).json_schema()
    components["headers"] = {"RequestId": REQUEST_ID_TOLD}
    components["parameters"] = {"RequestId": REQUEST_ID}
    for operations in found["paths"].values():
        for operation in operations.values():
            operation.setdefault("parameters", []).append({"$ref": _PARAMETER})
            for answer in operation["responses"].values():
                answer["headers"] = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return found


def _policy_schemas() -> dict[str, Any]:
    """The policy's JSON Schema, its parts beside it, as OpenAPI wants them."""

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: f"{_REF}{POLICY}_{value.rpartition('/')[2]}" if key == "$ref" else moved(value)
                for key, value in node.items()
            }
        return [moved(each) for each in node] if isinstance(node, list) else node

    whole = {key: value for key, value in policies.schema().items() if key != "$schema"}
    parts = whole.pop("$defs", {})
    found = {f"{POLICY}_{name}": moved(part) for name, part in parts.items()}
    return {**found, POLICY: moved(whole)}
