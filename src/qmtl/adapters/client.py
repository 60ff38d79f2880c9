"""The HTTP client: HTTP.md as calls, one connection, and two ways to fail.

What the server answers comes back as it is, in plain dicts; whoever acts on one reads it strictly
(`sdk/decisions.py`).  Every write of the contract names its effect, so that sending one again is
sending it once: this client asks again by itself where the server says to, and only there.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from qmtl.adapters.answered import NOT_QMTL as NOT_QMTL
from qmtl.adapters.answered import Answer as Answer  # Whoever has a client has these, too.
from qmtl.adapters.answered import ApiError as ApiError
from qmtl.adapters.answered import Away as Away
from qmtl.adapters.answered import answer_of, wait_sec
from qmtl.adapters.credentials import credential, is_loopback
from qmtl.adapters.stream import BadEvent as BadEvent
from qmtl.adapters.stream import Event as Event
from qmtl.adapters.stream import Quiet as Quiet
from qmtl.adapters.stream import Subscription as Subscription
from qmtl.adapters.traced import carried
from qmtl.core.names import SYSTEM
from qmtl.core.times import rfc3339

if TYPE_CHECKING:
    import httpx

URL_DEFAULT: Final = "http://127.0.0.1:8321"
TIMEOUT_SEC: Final = 60.0  # A cohort of thousands is judged in one request.
CONNECT_SEC: Final = 5.0  # A server that is up answers a knock at once.
TRIES_MAX: Final = 3  # Of one request that is told to come back later.
SILENCE_SEC: Final = 45.0  # Of a stream that says every 15 seconds that it is alive.
PAGES_MAX: Final = 10_000  # More is a server that pages in a circle.
CREDENTIAL_HEX: Final = 16  # Tells two credentials apart, and is none.
NO_CREDENTIAL: Final = sha256(b"").hexdigest()[:CREDENTIAL_HEX]  # What says that there was none.
CREDENTIAL: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # What a header can carry.
LATER: Final = frozenset({429, 503})


class BadAddress(ValueError):
    """The URL names no HTTP server."""


class BadCredential(ValueError):
    """The credential is none that a request can carry."""


class Client:
    """A connection to one server with one credential.  Use it as a context, or `close` it.

    `url` is the server's, `credential` a digest of the credential: `token`, else QMTL_TOKEN, else,
    for a server on this machine, the admin token that it left in its data folder.
    `transport` replaces the network, for tests.  May be used by several threads.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        timeout: float = TIMEOUT_SEC,
        transport: "httpx.BaseTransport | None" = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx  # Slow to load, and `qmtl --help` sends nothing.

        self.url = checked(url or os.environ.get("QMTL_URL") or URL_DEFAULT)
        # Over the network of a test nobody's own token goes.
        kept = credential(self.url)[0] if transport is None else os.environ.get("QMTL_TOKEN")
        mine = token or kept
        headers = {"Accept": "application/json", "User-Agent": "qmtl"}
        if mine:
            if not CREDENTIAL.fullmatch(mine):
                raise BadCredential("the token has a line break, or a letter that no token has")
            headers["Authorization"] = f"Bearer {mine}"
        self.credential = sha256((mine or "").encode()).hexdigest()[:CREDENTIAL_HEX]
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SEC)),
            transport=transport,
            trust_env=not is_loopback(self.url),  # What is on this machine is behind no proxy.
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # ---- Sending -----------------------------------------------------------------------------

    def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content: str | bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """The answer to one request.  Raises ApiError, or Away.

        An Idempotency-Key is answered as it was the first time, however long ago that is: give one
        where that is wanted, and never where the answer says what may be done now.
        """
        import httpx

        extra = {**carried(), **(headers or {})}
        if idempotency_key is not None:
            extra["Idempotency-Key"] = idempotency_key
        asked = {k: v for k, v in (params or {}).items() if v is not None}
        for tries_left in reversed(range(TRIES_MAX)):
            try:
                told = self._http.request(
                    method, path, json=body, content=content, params=asked, headers=extra
                )
            except httpx.TransportError as error:
                raise self._away(error) from error
            wait = wait_sec(told) if tries_left and told.status_code in LATER else None
            if wait is None:
                break
            self._sleep(wait)
        return answer_of(told, self.url)

    def _away(self, error: "httpx.TransportError") -> Away:
        return Away(f"{self.url} does not answer: {str(error) or type(error).__name__}")

    def pages(self, path: str, params: Mapping[str, Any], method: str = "GET") -> Iterator[Answer]:
        """Every page of a list, in order.  Raises ApiError when they do not end."""
        cursor = None
        for _ in range(PAGES_MAX):
            page = self.send(method, path, params={**params, "cursor": cursor})
            yield page
            cursor = page.get("next_cursor")
            if cursor is None:
                return
        raise ApiError(200, NOT_QMTL, f"{path} has more than {PAGES_MAX} pages")

    def _items(self, path: str, noun: str, params: Mapping[str, Any]) -> Iterator[Answer]:
        for page in self.pages(path, params):
            yield from page[noun]

    # ---- Worlds and policies -----------------------------------------------------------------

    def worlds(self) -> Iterator[Answer]:
        return self._items("/worlds", "worlds", {})

    def world(self, world: str) -> Answer:
        return self.send("GET", _world(world))

    def create_world(self, world: str, **properties: Any) -> Answer:
        """`name`, `description`, `labels`, `allow_live`; the same again is the same world."""
        return self.send("POST", "/worlds", body={"id": world, **_present(properties)})

    def change_world(self, world: str, **properties: Any) -> Answer:
        """`allow_live`, `state`."""
        return self.send("PATCH", _world(world), body=_present(properties))

    def confirm(self, world: str, confirmation_id: str) -> Answer:
        return self.send("POST", _world(world, "confirmations", confirmation_id))

    def policies(self, world: str) -> Iterator[Answer]:
        return self._items(_world(world, "policies"), "policies", {})

    def policy(self, world: str, version: int) -> Answer:
        return self.send("GET", _world(world, "policies", str(version)))

    def add_policy(
        self, world: str, text: str | bytes, media_type: str = "application/yaml"
    ) -> Answer:
        """A policy document as it is written, YAML or JSON."""
        headers = {"Content-Type": media_type}
        return self.send("POST", _world(world, "policies"), content=text, headers=headers)

    def set_default(self, world: str, version: int) -> Answer:
        return self.send("POST", _world(world, "set-default"), body={"version": version})

    def strategies(self, world: str) -> Iterator[Answer]:
        return self._items(_world(world, "strategies"), "strategies", {})

    # ---- Evidence ----------------------------------------------------------------------------

    def submit(self, submission: Mapping[str, Any]) -> Answer:
        """A strategy with its backtest; the body of `POST /strategies`."""
        return self.send("POST", "/strategies", body=submission)

    def post_returns(
        self,
        world: str,
        *,
        stage: str,
        t: datetime | str,
        returns: Mapping[str, float],
        **parts: Any,
    ) -> Answer:
        """One bar of returns of a world; `replay`, `weights`, `stats` come with it if given."""
        body = {"stage": stage, "t": _time(t), "returns": dict(returns), **_present(parts)}
        return self.send("POST", _world(world, "returns"), body=body)

    def post_snapshot(
        self, world: str, snapshot: Mapping[str, Any], *, stage: str, actor: str
    ) -> Answer:
        """`actor` has to be the credential's own."""
        headers = {"X-Actor": actor, "X-Stage": stage}
        return self.send("POST", _hub(world, "snapshots"), body=snapshot, headers=headers)

    def snapshots(self, world: str, **asked: Any) -> Iterator[Answer]:
        """Newest stored first; of a `stage`, of an `actor`, or all."""
        return self._items(_hub(world, "snapshots"), "snapshots", asked)

    def latest_snapshot(self, world: str, **asked: Any) -> Answer:
        """Of a `stage`, of an `actor`, or of all; `expand` adds the returns that are held."""
        return self.send("GET", _hub(world, "snapshots", "latest"), params=asked)

    def survey(self, world: str, older_than: str) -> Answer:
        """What retention would remove of older snapshots, and what is held, and why."""
        return self.send("GET", _hub(world, "retention"), params={"older_than": older_than})

    def retain(self, world: str, older_than: str, orphans_older_than: str | None = None) -> Answer:
        """Remove it."""
        body = _present({"older_than": older_than, "orphans_older_than": orphans_older_than})
        return self.send("POST", _hub(world, "retention"), body=body)

    def evaluate(self, world: str, body: Mapping[str, Any]) -> Answer:
        return self.send("POST", _world(world, "evaluate"), body=body)

    def runs(self, world: str, strategy_id: str) -> Iterator[Answer]:
        return self._items(_world(world, "strategies", strategy_id, "runs"), "runs", {})

    # ---- Campaign ----------------------------------------------------------------------------

    def status(self, world: str, strategy_id: str | None = None) -> Answer:
        params = {"strategy_id": strategy_id}
        return self.send("GET", _world(world, "campaign", "status"), params=params)

    def explain(self, world: str, strategy_id: str) -> Answer:
        """Where a strategy is, what it waits for, when, and what would stop it, in sentences."""
        return self.send("GET", _world(world, "strategies", strategy_id, "explain"))

    def tick_pages(
        self, world: str, strategy_id: str | None = None, limit: int | None = None
    ) -> Iterator[Answer]:
        """What to do next, page by page.  Changes nothing."""
        params = {"strategy_id": strategy_id, "limit": limit}
        return self.pages(_world(world, "campaign", "tick"), params, method="POST")

    def beat(self, world: str, loop: str, ttl_sec: float) -> Answer:
        """A campaign loop is there for so long; who leads, and which are there."""
        body = {"loop": loop, "ttl_sec": ttl_sec}
        return self.send("POST", _world(world, "campaign", "loops"), body=body)

    def execute(self, action: Mapping[str, Any]) -> Answer:
        """Do what an action of a tick suggests.

        Raises ApiError, sending nothing, unless that is a POST below `/worlds/`: the credential
        goes to no other place, whatever a tick says.

        The action's `idempotency_key` is not sent as Idempotency-Key: it would be answered as the
        first time even when a new policy, or the end of a cooldown, calls for another answer.
        """
        method, endpoint = str(action["suggested_method"]), str(action["suggested_endpoint"])
        below = endpoint.startswith("/worlds/") and ".." not in endpoint.split("/")
        if method != "POST" or not below:
            raise ApiError(200, NOT_QMTL, f"a tick suggests {method} {endpoint}")
        body, params = action["suggested_body"], action.get("suggested_params")
        return self.send("POST", endpoint, body=body, params=params)

    def extend(self, world: str, strategy_id: str, by: str, reason: str) -> Answer:
        path = _world(world, "strategies", strategy_id, "extend")
        return self.send("POST", path, body={"by": by, "reason": reason})

    # ---- Live promotion ----------------------------------------------------------------------

    def candidates(self, world: str) -> Iterator[Answer]:
        return self._items(_live(world, "candidates"), "candidates", {})

    def plan(self, world: str, strategy_id: str, run_id: str | None = None) -> Answer:
        params = {"strategy_id": strategy_id, "run_id": run_id}
        return self.send("GET", _live(world, "plan"), params=params)

    def approve(
        self,
        world: str,
        *,
        strategy_id: str,
        run_id: str,
        reason: str,
        evidence_digest: str | None = None,
    ) -> Answer:
        body = {"strategy_id": strategy_id, "run_id": run_id, "reason": reason}
        body |= _present({"evidence_digest": evidence_digest})
        return self.send("POST", _live(world, "approve"), body=body)

    def withdraw(self, world: str, *, strategy_id: str, run_id: str) -> Answer:
        params = {"strategy_id": strategy_id, "run_id": run_id}
        return self.send("DELETE", _live(world, "approve"), params=params)

    def reject(self, world: str, *, strategy_id: str, run_id: str, reason: str) -> Answer:
        body = {"strategy_id": strategy_id, "run_id": run_id, "reason": reason}
        return self.send("POST", _live(world, "reject"), body=body)

    def release(
        self, world: str, *, strategy_id: str, reason: str, run_id: str | None = None
    ) -> Answer:
        body = {"strategy_id": strategy_id, "reason": reason, **_present({"run_id": run_id})}
        return self.send("POST", _live(world, "release"), body=body)

    def apply(self, world: str, *, strategy_id: str, run_id: str) -> Answer:
        """Raises ApiError 409 with every reason when the gate is closed."""
        body = {"strategy_id": strategy_id, "run_id": run_id}
        return self.send("POST", _live(world, "apply"), body=body)

    def auto_apply(
        self, world: str, strategy_id: str | None = None, run_id: str | None = None
    ) -> Answer:
        body = _present({"strategy_id": strategy_id, "run_id": run_id})
        return self.send("POST", _live(world, "auto-apply"), body=body)

    def demote(self, world: str, strategy_id: str, *, to: str, reason: str) -> Answer:
        body = {"strategy_id": strategy_id, "to": to, "reason": reason}
        return self.send("POST", _world(world, "demote"), body=body)

    def kill(self, world: str, reason: str) -> Answer:
        return self.send("POST", _world(world, "kill"), body={"reason": reason})

    def resume(self, world: str, reason: str) -> Answer:
        return self.send("POST", _world(world, "resume"), body={"reason": reason})

    # ---- Decisions, events, journal, clock, tokens -------------------------------------------

    def decide(self, world: str) -> list[Answer]:
        """The envelope of each of the world's strategies."""
        told = self.send("GET", _world(world, "decide"), headers=NO_CACHE)
        return list(told["decisions"])

    def decide_one(self, world: str, strategy_id: str) -> Answer:
        """The envelope of one strategy."""
        params = {"strategy_id": strategy_id}
        return self.send("GET", _world(world, "decide"), params=params, headers=NO_CACHE)

    def journal(self, world: str, after: int = 0, limit: int | None = None) -> Iterator[Answer]:
        """Every entry after `after`, in order; `limit` is a page's.

        That of `_system` has tokens and the list of worlds, and is for admins.
        """
        path = "/system/journal" if world == SYSTEM else _world(world, "journal")
        for _ in range(PAGES_MAX):
            params = {"after": after, "limit": limit}
            page = self.send("GET", path, params=params)
            yield from page["entries"]
            if page.get("next_cursor") is None:
                return
            after = page["entries"][-1]["seq"]
        raise ApiError(200, "Not an answer of qmtl", f"a journal of more than {PAGES_MAX} pages")

    def journal_head(self, world: str) -> Answer:
        """Where the journal ends, signed: to be kept elsewhere."""
        return self.send("GET", _world(world, "journal", "head"))

    def journal_key(self) -> Answer:
        """The public key that heads are signed with; takes no credential."""
        return self.send("GET", "/journal/key")

    def acknowledge(self, world: str, *, strategy_id: str, sequence: int) -> Answer:
        """Lets go of the lease that a decision of this generation gave."""
        body = {"strategy_id": strategy_id, "sequence": sequence}
        return self.send("POST", _world(world, "activation", "ack"), body=body)

    def subscribe(
        self,
        world: str,
        after: int | None = None,
        quiet_sec: float | None = None,
        silence_sec: float = SILENCE_SEC,
    ) -> Subscription:
        """What happens in a world, as it happens: after a seq, or from now on.

        quiet_sec    how often the server says that the stream is alive (1 to 15; by default 15)
        silence_sec  a stream that says nothing for so long is broken

        Raises ApiError when it is refused, and Away.
        """
        import httpx

        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **NO_CACHE}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        asked = self._http.build_request(
            "GET",
            "/events/subscribe",
            params=_present({"world": world, "quiet_sec": quiet_sec}),
            headers=headers,
            timeout=httpx.Timeout(silence_sec, connect=min(silence_sec, CONNECT_SEC)),
        )
        try:
            told = self._http.send(asked, stream=True)
            kind = told.headers.get("Content-Type", "")
            if told.is_success and kind.startswith("text/event-stream"):
                return Subscription(told, self.url)
            told.read()
        except httpx.TransportError as error:
            raise self._away(error) from error
        answer_of(told, self.url)
        raise ApiError(told.status_code, NOT_QMTL, "JSON instead of events")

    def clock(self) -> Answer:
        return self.send("GET", "/clock")

    def set_clock(self, now: datetime | str) -> Answer:
        """Under a replay clock only, and only forward."""
        return self.send("POST", "/clock", body={"now": _time(now)})

    def tokens(self) -> Iterator[Answer]:
        return self._items("/tokens", "tokens", {})

    def create_token(
        self,
        *,
        actor: str,
        roles: Sequence[str],
        world: str | None = None,
        expires_at: datetime | str | None = None,
    ) -> Answer:
        """The only answer that holds the token itself."""
        body: Answer = {"actor": actor, "roles": list(roles)}
        expires = None if expires_at is None else _time(expires_at)
        body |= _present({"world_id": world, "expires_at": expires})
        return self.send("POST", "/tokens", body=body)

    def confirm_token(self, token_id: str) -> Answer:
        """The second admin's word on a token that another asked for."""
        return self.send("POST", f"{_token(token_id)}/confirm")

    def rotate_token(self, token_id: str, overlap: str | None = None) -> Answer:
        """The only answer that holds the next token; the one before ends after `overlap`."""
        return self.send("POST", f"{_token(token_id)}/rotate", body=_present({"overlap": overlap}))

    def revoke_token(self, token_id: str) -> Answer:
        return self.send("DELETE", _token(token_id))


NO_CACHE: Final = {"Cache-Control": "no-cache"}  # A decision out of a proxy's memory is none.


def checked(url: str) -> str:
    """The URL of a server without its last slash.  Raises BadAddress."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # A port that is no number; a bracket too many.
        usable = False
    if not usable:
        raise BadAddress(f"{url!r} is no address of a server, such as {URL_DEFAULT}")
    return url.rstrip("/")


def _world(world: str, *parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in ("worlds", world, *parts))


def _token(token_id: str) -> str:
    return f"/tokens/{quote(token_id, safe='')}"


def _live(world: str, verb: str) -> str:
    return f"{_world(world)}/promotions/live/{verb}"


def _hub(world: str, *parts: str) -> str:
    return "/risk-hub" + _world(world, *parts)


def _present(values: Mapping[str, Any]) -> Answer:
    return {name: value for name, value in values.items() if value is not None}


def _time(moment: datetime | str) -> str:
    return moment if isinstance(moment, str) else rfc3339(moment)
