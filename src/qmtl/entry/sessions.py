"""Who is signed in: a cookie that holds, sealed, whom it stands for.

A process keeps nothing of it: a session goes on after a restart, and at every server with the same
journal key.  What it stands for is looked at again with every request: a token by its digest, a
person of an issuer by what their groups may do now and by the key that vouched for them.  Only that
somebody signed out is kept, in the store, so that a copy of their cookie is worth nothing anywhere.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from qmtl.adapters.clock import SystemClock
from qmtl.adapters.sealing import Seal
from qmtl.app.ports import Clock, Store
from qmtl.core.errors import Invalid
from qmtl.core.names import ActorId

SESSION_PREFIX: Final = "qmtls_"  # Of no token, and of no JWT.
SESSION: Final = timedelta(hours=12)  # A working day.
COOKIE_BYTES: Final = 32
COOKIE_CHARS_MAX: Final = 3_500  # Browsers take 4,096 bytes, with its name.
_SESSION: Final = "session/1"  # Laid out otherwise, it is another.
_FORM: Final = "form"
_NOTICE: Final = "notice"
_SIGNED_OUT: Final = ActorId("(signed out)")  # No actor has a name like that.


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whom an issuer vouched for: which of their groups had roles here, and the thumbprint of the
    key that signed it."""

    actor: ActorId
    groups: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in browser: of a token, by its digest, or of a person."""

    session_id: str
    ends_at: datetime
    who: str | Person


class Sessions:
    """Makes cookies, and tells what they mean."""

    def __init__(self, seal: Seal | None = None, clock: Clock | None = None) -> None:
        """`clock` is real time, whatever time the server lives in.  Without a seal: one that goes
        with the process."""
        self.seal = seal or Seal.new()
        self.clock = clock or SystemClock()

    def begin(self, who: str | Person, ends_at: datetime | None = None) -> str:
        """The cookie of a new session, which ends after SESSION, or sooner.  Raises Invalid.

        INVARIANT: never one that the browser had before: nobody signs another in to their own.
        """
        latest = self.clock.now() + SESSION
        ends = min(latest, ends_at or latest).timestamp()
        told = who if isinstance(who, str) else [who.actor, list(who.groups), who.key]
        content = orjson.dumps([secrets.token_hex(16), ends, told])
        cookie = SESSION_PREFIX + self.seal.closed(content, _SESSION)
        if len(cookie) > COOKIE_CHARS_MAX:
            raise Invalid("Groups with roles here: too many for a browser to keep.")
        return cookie

    def of(self, cookie: str | None) -> Session | None:
        """The session of a cookie, until it ends; whether somebody signed out, `is_over` says."""
        if cookie is None or not cookie.startswith(SESSION_PREFIX):
            return None
        content = self.seal.opened(cookie.removeprefix(SESSION_PREFIX), _SESSION)
        if content is None:
            return None
        session_id, ends, told = orjson.loads(content)
        ends_at = datetime.fromtimestamp(ends, UTC)
        if ends_at <= self.clock.now():
            return None
        if isinstance(told, list):
            actor, groups, key = told
            told = Person(actor=ActorId(actor), groups=tuple(groups), key=key)
        return Session(session_id=session_id, ends_at=ends_at, who=told)

    def end(self, store: Store, cookie: str | None, now: datetime) -> None:
        """Sign out, everywhere: the store keeps it for longer than a session lasts.

        `now` is the store's time.
        """
        found = self.of(cookie)
        if found is not None:
            store.remember(_SIGNED_OUT, found.session_id, "", 204, b"", now)

    def form_token(self, cookie: str) -> str:
        """What a form of this browser carries, so that no other site can send one for it."""
        return self.seal.mark(_FORM, cookie)

    def is_form_token(self, cookie: str | None, told: str) -> bool:
        return cookie is not None and self.seal.is_mark(told, _FORM, cookie)

    def notice(self, cookie: str, told: str) -> str:
        """What the next page of a session says, for its browser to bring there."""
        return self.seal.closed(told.encode(), _NOTICE, cookie)

    def noticed(self, cookie: str, brought: str | None) -> str:
        """What is to be said; nothing, where it is of elsewhere."""
        content = None if brought is None else self.seal.opened(brought, _NOTICE, cookie)
        return "" if content is None else content.decode()


def is_over(store: Store, session: Session) -> bool:
    """Whether somebody signed out of it."""
    return store.remembered(_SIGNED_OUT, session.session_id) is not None


def new_cookie() -> str:
    """Of a browser in which nobody is signed in: 256 random bits."""
    return secrets.token_urlsafe(COOKIE_BYTES)
