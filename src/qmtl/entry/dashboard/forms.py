"""Forms: each goes on to the API's own route, and comes back to the page it was sent from.

INVARIANT: there is no other way from a page to a write.  What the API refuses is shown with every
reason, and nothing was done.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson
from fastapi import Response
from fastapi.responses import RedirectResponse
from starlette.requests import Request

from qmtl.core.errors import Malformed
from qmtl.entry import auth
from qmtl.entry.logs import ASKED

from .visits import Pages, Visit, VisitIn, safe_path, tell

PAGES = Pages()
Form = Mapping[str, str]

W: Final = "/worlds/{world_id}"
LIVE: Final = W + "/promotions/live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """What a form means: the body of the request that it becomes, and what it says once done.

    `query`: these fields go into the query, where the API wants them there.
    """

    body: Callable[[Form], dict[str, Any]]
    done: str
    query: tuple[str, ...] = ()


def _told(*names: str) -> Callable[[Form], dict[str, Any]]:
    return lambda form: {name: form[name] for name in names}


def _version(form: Form) -> dict[str, Any]:
    if not form["version"].isdecimal():
        raise Malformed("version: must be a whole number.")
    return {"version": int(form["version"])}


def _change(form: Form) -> dict[str, Any]:
    if "state" in form:
        return {"state": form["state"]}
    return {"allow_live": form["allow_live"] == "yes"}


def _activation(form: Form) -> dict[str, Any]:
    found: dict[str, Any] = {"strategy_id": form["strategy_id"]}
    return found | {n: form[n] == "yes" for n in ("freeze", "drain") if n in form}


_RUN: Final = ("strategy_id", "run_id")
ASKS: Final[Mapping[str, Asks]] = {
    f"{W}/kill": Asks(
        body=_told("reason"), done="The world was killed: every live weight is 0, the gates closed."
    ),
    f"{W}/resume": Asks(
        body=_told("reason"), done="The world was resumed. Nothing went live by itself."
    ),
    f"{W}/change": Asks(body=_change, done="The world was changed."),
    f"{W}/confirmations/{{confirmation_id}}": Asks(
        body=lambda _form: {}, done="Confirmed: what was asked for has happened."
    ),
    f"{W}/demote": Asks(
        body=_told("strategy_id", "to", "reason"),
        done="It was taken down, and is held until an operator releases it.",
    ),
    f"{W}/set-default": Asks(body=_version, done="Another policy version is in force."),
    f"{W}/activation": Asks(body=_activation, done="Its lease was changed."),
    f"{W}/strategies/{{strategy_id}}/extend": Asks(
        body=_told("by", "reason"), done="It has more time on paper."
    ),
    f"{LIVE}/approve": Asks(
        body=_told(*_RUN, "reason", "evidence_digest"), done="Your approval was recorded."
    ),
    f"{LIVE}/withdraw": Asks(
        body=lambda _form: {}, query=_RUN, done="Your approval was taken back."
    ),
    f"{LIVE}/reject": Asks(
        body=_told(*_RUN, "reason", "evidence_digest"),
        done="The candidate was rejected, and is held until an operator releases it.",
    ),
    f"{LIVE}/release": Asks(body=_told("strategy_id", "reason"), done="It was released."),
    f"{LIVE}/apply": Asks(body=_told(*_RUN), done="It went through the gate."),
}


def _endpoint(path: str, asks: Asks) -> Callable[..., Any]:
    method, _, template = auth.FORMS[f"POST {auth.UI}{path}"].partition(" ")

    async def send(visit: VisitIn, request: Request) -> Response:
        form = visit.form()
        try:
            body = asks.body(form)
            query = {name: form[name] for name in asks.query}
        except KeyError as missing:
            raise Malformed(f"The field {missing.args[0]} is missing.") from None
        target = template.format(**{k: quote(v, safe="") for k, v in request.path_params.items()})
        answer = await asked(visit, request, method, target, body, query)
        back = safe_path(form.get("back", "/ui"))
        if answer.is_success:
            pending = answer.status_code == 202
            done = answer.json()["detail"] if pending else asks.done
            onward = RedirectResponse(back, 303)
            tell(request, onward, done)
            return onward
        return _refused(visit, answer, back)

    return send


async def asked(
    visit: Visit,
    request: Request,
    method: str,
    target: str,
    body: dict[str, Any],
    query: dict[str, str],
) -> httpx.Response:
    """What the API's own route answers, asked as anybody would ask it."""
    headers = {"Authorization": visit.call.authorization or "", "Content-Type": "application/json"}
    headers |= {"Host": request.headers.get("host", "")}
    asked = ASKED.get()
    if asked is not None:  # One request of a person, and one name for it.
        headers["X-Request-ID"] = asked.request_id
    key = visit.form().get("key")
    if key:
        headers["Idempotency-Key"] = key
    transport = httpx.ASGITransport(request.app, client=(visit.address, 0))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        content = orjson.dumps(body) if body else b""
        return await client.request(method, target, content=content, params=query, headers=headers)


def _refused(visit: Visit, answer: httpx.Response, back: str) -> Response:
    told = answer.json()
    changed = answer.status_code == 412
    return visit.page(
        "refused.html",
        answer.status_code,
        code=answer.status_code,
        title="The evidence has changed since you looked: nothing was done."
        if changed
        else told["title"],
        details=told["details"],
        back=back,
    )


for _path, _asks in ASKS.items():
    PAGES.takes(auth.UI + _path, _endpoint(_path, _asks))
