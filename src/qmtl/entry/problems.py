"""Every refusal as a problem document (RFC 9457)."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Final

import orjson
from fastapi import Response

from qmtl.core.errors import Refusal, SlowDown, Unknown

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SEC: Final = 1  # A world that is busy, or away, is asked again no sooner.
REALM: Final = 'Bearer realm="qmtl"'


def problem(
    status: int,
    detail: str,
    *,
    title: str | None = None,
    kind: str = "about:blank",
    reasons: Sequence[str] = (),
    details: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer to a request that was refused.  `details` are sentences, `reasons` words."""
    body = {
        "type": kind,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reasons": list(reasons),
        "details": list(details) or [detail],
    }
    told = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        told["WWW-Authenticate"] = REALM
    if status == HTTPStatus.REQUEST_TIMEOUT:
        told["Connection"] = "close"  # The rest of the body may still come.
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        told["Retry-After"] = str(RETRY_AFTER_SEC)
    return Response(orjson.dumps(body), status, told, MEDIA_TYPE)


def of(refusal: Refusal) -> Response:
    """The tree of errors is the tree of statuses, and its names are the kinds of problem."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", type(refusal).__name__).lower()
    title = (type(refusal).__doc__ or "Refused.").strip()
    said = [str(part) for part in refusal.args]
    sentence = " ".join(said)
    if isinstance(refusal, Unknown) or not sentence:
        sentence = str(refusal)  # What is unknown is named; that it is unknown is in the title.
        said = [sentence]
    wait = {"Retry-After": str(ceil(refusal.wait_sec))} if isinstance(refusal, SlowDown) else None
    return problem(
        refusal.status,
        sentence,
        title=title,
        kind=f"urn:qmtl:problem:{name}",
        reasons=refusal.reasons,
        details=said,
        headers=wait,
    )
