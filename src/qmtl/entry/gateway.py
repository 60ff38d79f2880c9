"""The gateway's own routes: submissions, the producer feed, the clock, credentials."""

import re
from typing import Annotated

from fastapi import Path, Response

from qmtl.adapters.wire import answers, answers_live, bodies, bodies_hub
from qmtl.adapters.wire import shapes as j
from qmtl.adapters.wire import shapes_live as jl
from qmtl.adapters.wire.instants import rfc3339
from qmtl.app import hub, strategies, tokens
from qmtl.app.explanations import explanation
from qmtl.core import decision
from qmtl.core.errors import Conflict, Forbidden, Invalid
from qmtl.core.names import SYSTEM, Role, WorldId
from qmtl.core.view import Token

from . import identity
from .contract import Routes
from .door import PAGE_DEFAULT, Call, CallIn, Cursor, Limit, WorldIn, page

ROUTES = Routes("gateway")
W = "/worlds/{world_id}"

TOKEN_ID = re.compile(r"[0-9a-f]{64}")
TokenIn = Annotated[str, Path(json_schema_extra={"pattern": f"^{TOKEN_ID.pattern}$"})]


@ROUTES.writes(
    "POST",
    "/strategies",
    {200: jl.SubmittedJson, 202: jl.SubmittedJson},
    takes=bodies_hub.Submit,
    refuses=(404,),
    bulk=True,
)
def submit(call: CallIn) -> Response:
    """Bind a strategy, store its backtest, evaluate it; the answer has its first decision.

    202 comes from a gateway whose world service is away: kept, and forwarded later.
    """
    asked = call.read(bodies_hub.Submit)
    world_id = WorldId(asked.world)
    by = call.by(world_id)
    ran = strategies.submit(call.store, world_id, by, asked.meaning())
    view = call.store.load(world_id)
    told = decision.decide(view, ran.strategy_id, by.now)
    explained = explanation(call.store, view, ran.strategy_id, by.now)
    return call.answer(answers_live.submitted(view, ran, told, explained, _warnings(asked)))


def _warnings(asked: bodies_hub.Submit) -> list[str]:
    found = []
    if asked.variants_tried is None:
        found.append("variants_tried was not told: the policy's trials_default is assumed.")
    if not asked.stats:
        found.append("stats were not told: gates on trades_total or turnover_annual cannot pass.")
    return found


@ROUTES.writes(
    "POST",
    W + "/returns",
    {201: j.SnapshotJson, 200: j.SnapshotJson},
    takes=bodies_hub.Bar,
    bulk=True,
)
def produce(call: CallIn, world_id: WorldIn) -> Response:
    """One bar of returns of the world's strategies: one call, one snapshot."""
    posted = call.read(bodies_hub.Bar).meaning()
    found, made = hub.post(call.store, world_id, call.by(world_id), posted)
    return call.answer(answers.snapshot(world_id, found), 201 if made else 200)


# ---- The clock -------------------------------------------------------------------------------


def clock_json(call: Call) -> j.ClockJson:
    services = call.services
    return {"now": rfc3339(services.clock.now()), "replay": services.replay is not None}


@ROUTES.reads("/clock", j.ClockJson)
def get_clock(call: CallIn) -> Response:
    """The server's instant."""
    return call.answer(clock_json(call))


@ROUTES.writes("POST", "/clock", {200: j.ClockJson}, takes=bodies.ClockTo)
def move_clock(call: CallIn) -> Response:
    """Forward, under a replay clock."""
    to = call.read(bodies.ClockTo).now
    call.by()
    replay = call.services.replay
    if replay is None:
        raise Conflict("The clock is the system's: only a replay clock is moved.")
    # As the writer, always: the clock's own lock is never waited for by who holds up the writer.
    call.store.write(lambda: replay.set(to))
    return call.answer(clock_json(call))


# ---- Credentials -----------------------------------------------------------------------------


@ROUTES.reads("/tokens", j.TokensJson)
def list_tokens(call: CallIn, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Response:
    """Every credential, oldest first; never the token itself."""
    found, following = page(tokens.listed(call.store), cursor, limit)
    items = [_token(call, each) for each in found]
    return call.answer({"tokens": items, "next_cursor": following})


def _token(call: Call, token: Token) -> j.TokenJson:
    pending = tokens.is_pending(call.store.load(SYSTEM), token)
    return answers.token(token, pending=pending)


def _named(token_id: str) -> str:
    """Raises Invalid for what is no id, without repeating it: it may be the token itself."""
    if not TOKEN_ID.fullmatch(token_id):
        raise Invalid("token_id: is what `GET /tokens` calls it, 64 digits; never the token.")
    return token_id


@ROUTES.writes(
    "POST",
    "/tokens",
    {201: j.NewTokenJson, 202: j.NewTokenJson},
    takes=bodies.NewToken,
    refuses=(404,),
)
def create_token(call: CallIn) -> Response:
    """A new credential.  This answer is the only one that says the token.

    202: under dual control it opens nothing until another admin confirms it.
    """
    asked, by = call.read(bodies.NewToken), call.by()
    if Role.POLICY_ADMIN in asked.roles and Role.POLICY_ADMIN not in by.roles:
        raise Forbidden(f"{Role.POLICY_ADMIN} is given by who has it; no other role implies it.")
    token = identity.new_token()
    world_id = None if asked.world_id is None else WorldId(asked.world_id)
    known = tokens.create(
        call.store,
        by,
        identity.digest(token),
        asked.actor_id,
        asked.roles,
        world_id,
        asked.expires_at,
        dual_control=call.services.dual_control,
    )
    told: j.NewTokenJson = {**_token(call, known), "token": token}
    return call.answer(told, 201 if told["confirmed"] else 202)


@ROUTES.writes("POST", "/tokens/{token_id}/confirm", {200: j.TokenJson})
def confirm_token(call: CallIn, token_id: TokenIn) -> Response:
    """The second admin's word: from now on it opens what it is for."""
    return call.answer(_token(call, tokens.confirm(call.store, call.by(), _named(token_id))))


@ROUTES.writes("POST", "/tokens/{token_id}/rotate", {201: j.NewTokenJson}, takes=bodies.Rotate)
def rotate_token(call: CallIn, token_id: TokenIn) -> Response:
    """The next token of the same actor, roles and world; the one before ends after `overlap`."""
    asked, token = call.read(bodies.Rotate), identity.new_token()
    known = tokens.rotate(
        call.store,
        call.by(),
        _named(token_id),
        identity.digest(token),
        asked.overlap,
        own=call.credential.key == token_id,
        dual_control=call.services.dual_control,
    )
    told: j.NewTokenJson = {**_token(call, known), "token": token}
    return call.answer(told, 201)


@ROUTES.writes("DELETE", "/tokens/{token_id}", {200: j.TokenJson})
def revoke_token(call: CallIn, token_id: TokenIn) -> Response:
    """From the next request on it opens nothing."""
    by = call.by()
    system = call.store.load(SYSTEM)
    tokens.revoke(call.store, by, _named(token_id))
    known = system.tokens[token_id]
    return call.answer(answers.token(known, pending=tokens.is_pending(system, known)))
