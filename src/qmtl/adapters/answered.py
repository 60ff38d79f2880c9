"""What a server's answer means to its client: the answer, or one of two ways to fail."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import httpx

WAIT_SEC_MAX: Final = 5.0  # Told to come back later than this, it is away.
TITLE_CHARS_MAX: Final = 200
KIND_PREFIX: Final = "urn:qmtl:problem:"
NOT_QMTL: Final = "Not an answer of qmtl"  # The title of what no server of ours says.
AWAY: Final = frozenset({502, 503, 504})  # 502 and 504 are a proxy's: nobody is behind it.

Answer = dict[str, Any]


class ApiError(Exception):
    """The server understood the request and refused it, or answered what no qmtl server answers.

    `reasons` are the contract's words, `details` one sentence each where the server has them,
    `kind` the problem's name (`unknown-world`), empty when it has none.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        reasons: Sequence[str] = (),
        details: Sequence[str] = (),
        kind: str = "",
    ) -> None:
        super().__init__(f"{status} {title}" + (f": {detail}" if detail else ""))
        self.status = status
        self.title = title
        self.detail = detail
        self.reasons = tuple(reasons)
        self.details = tuple(details)
        self.kind = kind


class Away(Exception):
    """Nobody answers, or the one who does cannot work now.  Try again later."""


def wait_sec(told: "httpx.Response") -> float | None:
    """How long the server asks to wait; None when it does not say, or too long."""
    text = told.headers.get("Retry-After", "")
    try:
        wait = float(text)
    except ValueError:
        return None
    return wait if 0 <= wait <= WAIT_SEC_MAX else None


def answer_of(told: "httpx.Response", url: str) -> Answer:
    if told.is_success and not told.content:
        return {}
    try:
        found = told.json(parse_constant=_no_constant)
    except ValueError:
        found = None
    if told.is_success and isinstance(found, dict):
        return found
    problem = found if isinstance(found, dict) else {}
    title = str(problem.get("title") or told.reason_phrase or "Refused")
    detail = str(problem.get("detail") or "")
    if told.status_code in AWAY:
        raise Away(f"{url} cannot work now: {detail or title}")
    if told.is_success:
        raise ApiError(told.status_code, NOT_QMTL, _excerpt(told))
    reasons, details = problem.get("reasons") or (), problem.get("details") or ()
    raise ApiError(
        told.status_code,
        title[:TITLE_CHARS_MAX],
        detail or _excerpt(told) * (not problem),
        [str(reason) for reason in reasons],
        [str(each) for each in details],
        str(problem.get("type") or "").partition(KIND_PREFIX)[2],
    )


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON")


def _excerpt(told: "httpx.Response") -> str:
    return " ".join(told.text[:TITLE_CHARS_MAX].split())
