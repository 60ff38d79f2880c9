"""What every route does around its handler: who asks, what they sent, did they ask before.

In order: the credential (401), its roles (403), the world (404), the query, the body's size (413).
Then the handler, in a thread.  A write with an Idempotency-Key is one job of the store together
with the record of its answer: however often and however concurrently it comes, it happens once.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from hashlib import sha256
from itertools import chain
from typing import Annotated, Any, Final, TypeVar

import orjson
from fastapi import Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from qmtl.adapters.wire.fields import ID_PATTERN, Body, sentences
from qmtl.app.ports import Store
from qmtl.app.step import By, world
from qmtl.core.errors import Conflict, Invalid, Malformed, Refusal, TooLarge, TooSlow
from qmtl.core.names import RunId, StrategyId, WorldId

from . import auth, logs, problems
from .identity import Credential
from .services import Services

SMALL_BYTES_MAX: Final = 1 << 20  # What people and loops send.
BULK_BYTES_MAX: Final = 64 << 20  # A million points with their times; keeps memory bounded.
BODY_QUIET_SEC: Final = 10.0  # A network that loses packets is back by then.
BODY_SEC_MAX: Final = 120.0  # The largest body at 5 Mbit/s; who is slower holds memory for nobody.
KEY_PATTERN: Final = r"^[!-~]{1,200}$"
JSON_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY
JSON: Final = "application/json"
# A refusal that another try with the same key must not turn into something else.  Not those that
# say nothing of the request itself: who asks, and whether the server could.
REMEMBERED: Final = frozenset({404, 409, 412, 422})
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000

_KEY: Final = re.compile(KEY_PATTERN)
_ID: Final = re.compile(ID_PATTERN)
_JSON_TYPE: Final = re.compile(r"(application/([a-z0-9.+-]+\+)?json)?", re.IGNORECASE)

B = TypeVar("B", bound=Body)


def dumped(content: object) -> bytes:
    return orjson.dumps(content, option=JSON_OPTIONS)


def named(content: object) -> str:
    """Names an answer: equal content, equal name."""
    return sha256(dumped(content)).hexdigest()[:32]


def names(told: str, tag: str) -> bool:
    """Whether If-Match or If-None-Match names what there is; weakly, as RFC 9110 compares it."""
    given = [each.strip().removeprefix("W/").strip('"') for each in told.split(",")]
    return "*" in given or tag.removeprefix("W/").strip('"') in given


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, past the door."""

    services: Services
    credential: Credential
    by_token: By  # The actor and the instant; its roles hold where the credential does.
    route: str
    reads: bool
    headers: Mapping[str, str]
    authorization: str | None  # What the credential came in; asked again while a stream is open.
    raw: bytes
    idempotency_key: str | None
    request_digest: str

    @property
    def store(self) -> Store:
        return self.services.store

    def by(self, world_id: WorldId | None = None) -> By:
        """Who asks, with their roles in a world, as of now.  Raises Forbidden when they may not.

        INVARIANT: not as of when the request began.  Its body may have taken minutes, and leases
        are counted from the instant at which what takes them back is recorded.
        """
        roles = auth.allow(self.route, self.credential, world_id)
        logs.known(world_id)
        return replace(self.by_token, roles=roles, now=self.services.clock.now())

    def read(self, body: type[B]) -> B:
        """The body.  Raises Malformed, or Invalid with every problem."""
        kind, _, parameters = self.headers.get("content-type", "").partition(";")
        if not _JSON_TYPE.fullmatch(kind.strip()):
            raise Malformed(f"The media type must be {JSON}, not {kind[:80]!a}.")
        charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip(' "')
        if charset not in ("", "utf-8", "utf8"):
            raise Malformed(f"The body must be UTF-8, not {charset[:40]!a}.")
        return body.read(self.raw)

    def answer(self, content: object, status: int = 200, etag: str | None = None) -> Response:
        """JSON; of a read with its ETag, or 304 when that is what the caller has.

        `etag` names what was told, where the body also says when it was told.
        """
        body = dumped(content)
        if not self.reads:
            return Response(body, status, media_type=JSON)
        tag = f'W/"{etag or sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if names(self.headers.get("if-none-match", ""), tag):
            return Response(None, 304, headers)
        return Response(body, status, headers, JSON)

    def streamed(self, pieces: Iterator[bytes], etag: str) -> Response:
        """JSON that is made while it goes out; `etag` names it, since nobody has all of it.

        What its first piece raises is refused as ever; later the answer is cut off.
        """
        tag = f'W/"{etag}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if names(self.headers.get("if-none-match", ""), tag):
            return Response(None, 304, headers)
        return StreamingResponse(chain([next(pieces)], pieces), 200, headers, JSON)

    def recall(self) -> Response | None:
        """What the same request was answered before.  Raises Conflict when it was another."""
        assert self.idempotency_key is not None, "only keyed requests are remembered"
        kept = self.store.remembered(self.credential.actor, self.idempotency_key)
        if kept is None:
            return None
        request, status, body = kept
        if request != self.request_digest:
            raise Conflict("This Idempotency-Key came before, with another request.")
        media_type = JSON if status < 400 else problems.MEDIA_TYPE
        return Response(body, status, {"Idempotency-Replayed": "true"}, media_type)

    def remember(self, response: Response) -> None:
        assert self.idempotency_key is not None, "only keyed requests are remembered"
        self.store.remember(
            self.credential.actor,
            self.idempotency_key,
            self.request_digest,
            response.status_code,
            bytes(response.body),
            self.by_token.now,
        )


async def _call_of(request: Request) -> Call:
    call: Call = request.state.call
    return call


CallIn = Annotated[Call, Depends(_call_of)]
WorldIn = Annotated[WorldId, Path(pattern=ID_PATTERN)]
StrategyIn = Annotated[StrategyId, Path(pattern=ID_PATTERN)]
RunIn = Annotated[RunId, Path(pattern=ID_PATTERN)]
StrategyAsked = Annotated[StrategyId | None, Query(pattern=ID_PATTERN)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="next_cursor, as told")]


_TOLD_ONCE: Final = problems.of(Conflict("It was done; what was answered then is kept nowhere."))


def once(endpoint: Callable[..., Response]) -> Callable[..., Response]:
    """The handler of a write; with an Idempotency-Key, it and the record of its answer are one."""

    @wraps(endpoint)
    def run(**given: Any) -> Response:
        call: Call = given["call"]
        if call.idempotency_key is None:
            return endpoint(**given)

        def job() -> Response:
            kept = call.recall()
            if kept is not None:
                return kept
            response = endpoint(**given)
            call.remember(_TOLD_ONCE if call.route in auth.SECRET else response)
            return response

        try:
            return call.store.write(job)
        except Refusal as refusal:  # The job is undone; that it was refused is kept all the same.
            if refusal.status in REMEMBERED and call.recall() is None:
                call.remember(problems.of(refusal))
            raise

    return run


Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class Door(APIRoute):
    """A route that only a credential opens."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *, keyed: bool, **options: Any
    ) -> None:
        """`keyed`: it takes an Idempotency-Key."""
        method = "".join(options.get("methods") or ())
        assert f"{method} {path}" in auth.ROLES, f"{method} {path} is not in the table of roles"
        self.key = f"{method} {path}"
        self.reads = method == "GET"
        self.stops = self.key in auth.STOPS
        assert not (keyed and self.stops), "a stop is done, not remembered"
        self.keyed = keyed
        super().__init__(path, once(endpoint) if keyed else endpoint, **options)

    def get_route_handler(self) -> Handle:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            services: Services = request.app.state.services
            try:
                request.state.call = await self._call(request, services)
                return await inner(request)
            except Refusal as refusal:
                return self.refused(request, refusal)
            except ClientDisconnect:
                return problems.problem(400, "The body ended before it was whole.")
            except RequestValidationError as error:
                said = sentences([{**e, "loc": e["loc"][1:]} for e in error.errors()])
                return self.refused(request, Invalid(*said))
            finally:
                if not self.reads:
                    services.bell.ring()

        return handle

    def authorization(self, request: Request) -> str | None:
        """What a request came with to say who asks."""
        return request.headers.get("authorization")

    def refused(self, request: Request, refusal: Refusal) -> Response:
        """The answer to what was refused."""
        return problems.of(refusal)

    async def _call(self, request: Request, services: Services) -> Call:
        credential, by = await run_in_threadpool(self._admitted, request, services)
        if not self.stops:
            services.limiter.request(credential.key)
        self._known_query(request)
        self._required_headers(request)
        raw = b"" if self.reads else await body_of(request, self._bytes_max)
        key = None if not self.keyed else request.headers.get("idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            raise Invalid("Idempotency-Key: up to 200 printable characters, no spaces.")
        return Call(
            services=services,
            credential=credential,
            by_token=by,
            route=self.key,
            reads=self.reads,
            headers=request.headers,
            authorization=self.authorization(request),
            raw=raw,
            idempotency_key=key,
            request_digest="" if key is None else _digest(request, raw),
        )

    def _admitted(self, request: Request, services: Services) -> tuple[Credential, By]:
        """In this order, so that nobody without a credential learns what there is."""
        now = services.clock.now()
        header = self.authorization(request)
        address = request.client.host if request.client is not None else ""
        credential = services.identity.identify(header, now, address, held_up=not self.stops)
        named = request.path_params.get("world_id")
        world_id = None if named is None else WorldId(named)
        if self.key in auth.WORLD_ELSEWHERE:
            roles = auth.allow_somewhere(self.key, credential)
        else:
            roles = auth.allow(self.key, credential, world_id)
        logs.known(actor=credential.actor)
        if world_id is not None and _ID.fullmatch(world_id):
            world(services.store, world_id)
            logs.known(world_id)
        by = By(actor=credential.actor, roles=roles, now=now, sponsor=credential.sponsor)
        return credential, by

    def _known_query(self, request: Request) -> None:
        """A misspelt parameter is a filter that is off; one that comes twice has two meanings."""
        known = {field.alias for field in self.dependant.query_params}
        given = [name for name, _ in request.query_params.multi_items()]
        problems_ = [f"{name[:80]!a}: is no parameter here." for name in given if name not in known]
        problems_ += [f"{n}: came more than once." for n in sorted(known) if given.count(n) > 1]
        if problems_:
            raise Invalid(*problems_)

    def _required_headers(self, request: Request) -> None:
        """Before an Idempotency-Key is looked at: what is not whole was never asked before."""
        told = (self.openapi_extra or {}).get("parameters", ())
        needed = [p["name"] for p in told if p["in"] == "header" and p["required"]]
        missing = [name for name in needed if not request.headers.get(name)]
        if missing:
            raise Malformed(f"The header {' and '.join(missing)} is missing.")

    @property
    def _bytes_max(self) -> int:
        return int((self.openapi_extra or {}).get("x-body-bytes-max", SMALL_BYTES_MAX))


async def body_of(request: Request, most: int) -> bytes:
    """All that was sent.  Raises TooLarge as soon as that is known, TooSlow, and Malformed."""
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told[:19]) > most:
        raise TooLarge(f"A body here may have {most} bytes; this has {told[:19]}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Malformed("The body must come as it is, without Content-Encoding.")
    parts: list[bytes] = []
    size, stream = 0, request.stream()
    try:
        async with asyncio.timeout(BODY_SEC_MAX):
            while True:
                async with asyncio.timeout(BODY_QUIET_SEC):
                    part = await anext(stream, None)
                if part is None:
                    return b"".join(parts)
                size += len(part)
                if size > most:
                    raise TooLarge(f"A body here may have {most} bytes; this has more.")
                parts.append(part)
    except TimeoutError:
        raise TooSlow(
            f"A body has {BODY_SEC_MAX:g} seconds, and is never silent for {BODY_QUIET_SEC:g}."
        ) from None


def _digest(request: Request, raw: bytes) -> str:
    """Names a request: all of it that a handler looks at."""
    told = sha256()
    for part in (
        request.method,
        request.url.path,
        request.url.query,
        request.headers.get("x-stage", ""),
        request.headers.get("content-type", ""),
    ):
        told.update(part.encode())
        told.update(b"\0")
    told.update(raw)
    return told.hexdigest()


def offset_of(cursor: str | None) -> int:
    return int(cursor or 0)


def page(items: list[Any], cursor: str | None, limit: int) -> tuple[list[Any], str | None]:
    """One page of a list that is at hand, and where the next one starts."""
    start = offset_of(cursor)
    end = start + limit
    return items[start:end], str(end) if end < len(items) else None
