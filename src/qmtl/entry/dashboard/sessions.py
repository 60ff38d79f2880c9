"""Who is signed in: a cookie that means nothing, and the credential that it stands for.

Sessions are in memory.  They end after SESSION_SEC, when somebody signs out, and with the process;
what they stand for is looked at again with every request, so a token that was revoked ends its
sessions at once.
"""

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Lock
from typing import Final

SESSION_SEC: Final = 12 * 3600.0  # A working day.
SESSIONS_MAX: Final = 10_000  # Beyond it the one that began first ends.
COOKIE_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser.  `notice` is what its next page says once."""

    token: str
    ends_at: float  # Monotonic.
    notice: str = ""


class Sessions:
    """The sessions of one process.  May be used by several threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._held: OrderedDict[str, Session] = OrderedDict()
        self._key = secrets.token_bytes(COOKIE_BYTES)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    def begin(self, token: str) -> str:
        """The cookie of a new session.

        INVARIANT: never one that the browser had before: nobody signs another in to their own.
        """
        cookie = new_cookie()
        with self._lock:
            self._held[_name(cookie)] = Session(token, self._monotonic() + SESSION_SEC)
            while len(self._held) > SESSIONS_MAX:
                self._held.popitem(last=False)
        return cookie

    def of(self, cookie: str | None) -> Session | None:
        """The session of a cookie, while it lasts."""
        if cookie is None:
            return None
        with self._lock:
            found = self._held.get(_name(cookie))
            if found is not None and found.ends_at <= self._monotonic():
                del self._held[_name(cookie)]
                return None
            return found

    def end(self, cookie: str | None) -> None:
        with self._lock:
            self._held.pop(_name(cookie or ""), None)

    def say(self, cookie: str | None, notice: str) -> None:
        """For the next page of a session."""
        with self._lock:
            name = _name(cookie or "")
            if name in self._held:
                self._held[name] = replace(self._held[name], notice=notice)

    def heard(self, cookie: str | None) -> str:
        """What was to be said; nothing the next time."""
        found = self.of(cookie)
        if found is not None and found.notice:
            self.say(cookie, "")
            return found.notice
        return ""

    def form_token(self, cookie: str) -> str:
        """What a form of this browser carries, so that no other site can send one for it."""
        return hmac.new(self._key, cookie.encode(), sha256).hexdigest()

    def is_form_token(self, cookie: str | None, told: str) -> bool:
        return cookie is not None and hmac.compare_digest(
            self.form_token(cookie).encode(), told.encode()
        )


def new_cookie() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(COOKIE_BYTES)


def _name(cookie: str) -> str:
    return sha256(cookie.encode()).hexdigest()
