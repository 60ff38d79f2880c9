"""The shortest way to the answer that is asked for most: what one strategy may do now.

What a process has in memory needs neither a thread nor the framework, which together cost ten times
the decision.  INVARIANT: the lane refuses nothing and knows nothing of its own.  It answers the
plain case with the route's own handler; whatever else comes (another parameter, a credential or a
world that is not known, too much at once) it leaves to the route, as if the lane were not there.
"""

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from qmtl.adapters.wire.fields import ID_PATTERN
from qmtl.app.step import By
from qmtl.core.errors import Refusal
from qmtl.core.names import SYSTEM, StrategyId, WorldId

from . import auth, liveservice, logs
from .door import Call, Door
from .identity import bearer, is_jwt
from .services import Services

_ID: Final = ID_PATTERN.strip("^$")
_PATH: Final = re.compile(rf"/worlds/({_ID})/decide")
_QUERY: Final = re.compile(rf"strategy_id=({_ID})".encode())
_KEY: Final = "GET /worlds/{world_id}/decide"


class Lane:
    """Before the routes of an application."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self.app, self.services = app, services
        self._route = next(
            route for route in liveservice.ROUTES if isinstance(route, Door) and route.key == _KEY
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope) if scope["type"] == "http" else None
        if answer is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = self._route  # Which it is counted as.
        await answer(scope, receive, send)

    def _answer(self, scope: Scope) -> ASGIApp | None:
        """The answer to the plain case, if this is one."""
        path, query = _PATH.fullmatch(scope["path"]), _QUERY.fullmatch(scope["query_string"])
        if scope["method"] != "GET" or path is None or query is None:
            return None
        world_id, strategy_id = WorldId(path[1]), StrategyId(query[1].decode())
        try:
            return self._decided(world_id, strategy_id, Headers(scope=scope))
        except Refusal:
            return None

    def _decided(
        self, world_id: WorldId, strategy_id: StrategyId, headers: Headers
    ) -> ASGIApp | None:
        services = self.services
        token = bearer(headers.get("authorization"))
        at_hand = services.store.at_hand(SYSTEM) and services.store.at_hand(world_id)
        if token is None or is_jwt(token) or at_hand is None:
            return None
        now = services.clock.now()
        credential = services.identity.of_token(token, now)
        call = Call(
            services=services,
            credential=credential,
            by_token=By(
                actor=credential.actor,
                roles=auth.allow(_KEY, credential, world_id),
                now=now,
                sponsor=credential.sponsor,
            ),
            route=_KEY,
            reads=True,
            headers=headers,
            authorization=headers.get("authorization"),
            raw=b"",
            idempotency_key=None,
            request_digest="",
        )
        answer = liveservice.decide(call, world_id, strategy_id)
        logs.known(world_id, credential.actor)
        services.limiter.request(credential.key)  # Last: what is left to the route, it counts.
        return answer
