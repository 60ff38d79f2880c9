"""The world service's routes to live and back: candidates, approvals, apply, decisions, leases."""

from typing import Annotated

from fastapi import Query, Response

from qmtl.adapters.wire import answers_live, bodies, instants
from qmtl.adapters.wire import shapes_live as jl
from qmtl.adapters.wire.fields import ID_PATTERN
from qmtl.app import decisions, promotions
from qmtl.app.step import world
from qmtl.core import leases
from qmtl.core.errors import Changed, Invalid
from qmtl.core.names import Digest, RunId, StrategyId
from qmtl.core.promotion import Blocked
from qmtl.core.view import WorldView

from . import problems
from .contract import IF_MATCH, Routes
from .door import (
    PAGE_DEFAULT,
    Call,
    CallIn,
    Cursor,
    Limit,
    StrategyAsked,
    WorldIn,
    named,
    names,
    page,
)

ROUTES = Routes("live")
W = "/worlds/{world_id}"
LIVE = W + "/promotions/live"

StrategyNamed = Annotated[StrategyId, Query(pattern=ID_PATTERN)]
RunNamed = Annotated[RunId, Query(pattern=ID_PATTERN)]
RunAsked = Annotated[RunId | None, Query(pattern=ID_PATTERN)]
AsOf = Annotated[str | None, Query(max_length=64, json_schema_extra={"format": "date-time"})]


# ---- Candidates ------------------------------------------------------------------------------


@ROUTES.reads(LIVE + "/candidates", jl.CandidatesJson, refuses=(409,))
def candidates(
    call: CallIn, world_id: WorldIn, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> Response:
    """Every candidate that stands or was applied, and what the gate says of it now."""
    view = world(call.store, world_id)
    known = promotions.candidates(call.store, view, call.by_token.now)
    found, following = page(known, cursor, limit)
    items = [answers_live.listed_candidate(world_id, each) for each in found]
    return call.answer({"candidates": items, "next_cursor": following})


@ROUTES.reads(LIVE + "/plan", jl.PlanJson, refuses=(409,))
def plan(
    call: CallIn, world_id: WorldIn, strategy_id: StrategyNamed, run_id: RunAsked = None
) -> Response:
    """What apply would do now.  Changes nothing."""
    view = world(call.store, world_id)
    found = promotions.plan(call.store, view, call.by_token.now, strategy_id, run_id)
    return call.answer(answers_live.plan(world_id, found))


@ROUTES.writes(
    "POST", LIVE + "/approve", {200: jl.CandidateJson}, takes=bodies.Approve, refuses=(412,)
)
def approve(call: CallIn, world_id: WorldIn) -> Response:
    """One person's approval, of the evidence they saw."""
    asked, by = call.read(bodies.Approve), call.by(world_id)
    seen = None if asked.evidence_digest is None else Digest(asked.evidence_digest)
    sid, run_id = StrategyId(asked.strategy_id), RunId(asked.run_id)
    found = promotions.approve(call.store, world_id, by, sid, run_id, asked.reason, seen)
    return call.answer(answers_live.candidate(world_id, found))


@ROUTES.writes("DELETE", LIVE + "/approve", {200: jl.CandidateJson}, keyed=False)
def withdraw(
    call: CallIn, world_id: WorldIn, strategy_id: StrategyNamed, run_id: RunNamed
) -> Response:
    """One's own approval, taken back."""
    by = call.by(world_id)
    found = promotions.withdraw(call.store, world_id, by, strategy_id, run_id)
    return call.answer(answers_live.candidate(world_id, found))


@ROUTES.writes(
    "POST",
    LIVE + "/reject",
    {200: jl.CandidateJson},
    takes=bodies.Reject,
    refuses=(412,),
    keyed=False,
)
def reject(call: CallIn, world_id: WorldIn) -> Response:
    """Holds the candidate until an operator releases it."""
    asked, by = call.read(bodies.Reject), call.by(world_id)
    seen = None if asked.evidence_digest is None else Digest(asked.evidence_digest)
    sid, run_id = StrategyId(asked.strategy_id), RunId(asked.run_id)
    found = promotions.reject(call.store, world_id, by, sid, run_id, asked.reason, seen)
    return call.answer(answers_live.candidate(world_id, found))


@ROUTES.writes("POST", LIVE + "/release", {200: jl.StandingJson}, takes=bodies.Release)
def release(call: CallIn, world_id: WorldIn) -> Response:
    """Lifts a rejection, or a hold."""
    asked = call.read(bodies.Release)
    sid = StrategyId(asked.strategy_id)
    promotions.release(call.store, world_id, call.by(world_id), sid, asked.reason)
    return call.answer(answers_live.standing(call.store.load(world_id), sid))


# ---- Through the gate, and back --------------------------------------------------------------


@ROUTES.writes("POST", W + "/apply", {200: jl.ActivationJson}, takes=bodies.Run)
@ROUTES.writes("POST", LIVE + "/apply", {200: jl.ActivationJson}, takes=bodies.Run)
def apply(call: CallIn, world_id: WorldIn) -> Response:
    """Through the gate: live, or 409 with every reason, recorded."""
    asked = call.read(bodies.Run)
    sid, run_id = StrategyId(asked.strategy_id), RunId(asked.run_id)
    by = call.by(world_id)

    def job() -> Response:  # Answered from the world it made, not from what came after.
        call.services.must_decide()
        found = promotions.apply(call.store, world_id, by, sid, run_id)
        if isinstance(found, Blocked):
            return blocked(found)
        return call.answer(answers_live.activation(call.store.load(world_id), sid))

    return call.store.write(job)


def blocked(found: Blocked) -> Response:
    return problems.problem(
        409,
        "; ".join(found.details),
        title="The promotion is blocked.",
        kind="urn:qmtl:problem:blocked",
        reasons=found.reasons,
        details=found.details,
    )


@ROUTES.writes("POST", LIVE + "/auto-apply", {200: jl.AutoAppliedJson}, takes=bodies.AutoApply)
def auto_apply(call: CallIn, world_id: WorldIn) -> Response:
    """The same gate, all candidates in order of evidence; only when the policy says so."""
    asked, by = call.read(bodies.AutoApply), call.by(world_id)
    sid = None if asked.strategy_id is None else StrategyId(asked.strategy_id)
    run_id = None if asked.run_id is None else RunId(asked.run_id)

    def job() -> Response:
        call.services.must_decide()
        done = promotions.auto_apply(call.store, world_id, by, sid, run_id)
        return call.answer(answers_live.auto_applied(call.store.load(world_id), done))

    return call.store.write(job)


@ROUTES.writes("POST", W + "/demote", {200: jl.StandingJson}, takes=bodies.Demote, keyed=False)
def demote(call: CallIn, world_id: WorldIn) -> Response:
    """Down, and held there until released.  Asks for nothing."""
    asked = call.read(bodies.Demote)
    sid, to = StrategyId(asked.strategy_id), bodies.Demote.PHASES[asked.to]
    promotions.demote(call.store, world_id, call.by(world_id), sid, to, asked.reason)
    return call.answer(answers_live.standing(call.store.load(world_id), sid))


# ---- Decisions and leases --------------------------------------------------------------------


@ROUTES.reads(W + "/decide", jl.EnvelopeJson | jl.DecisionsJson)
def decide(
    call: CallIn, world_id: WorldIn, strategy_id: StrategyAsked = None, as_of: AsOf = None
) -> Response:
    """What a strategy may do now, and until when; without one, each of the world's.

    `as_of`, the instant of the data that is decided on, comes back as it was told.
    """
    try:
        data_at = None if as_of is None else instants.parse(as_of.replace(" ", "+"))
    except ValueError as error:
        raise Invalid(f"as_of: {error}.") from None
    told = decisions.decide(call.store, world_id, strategy_id, call.by_token.now)
    if strategy_id is not None:
        return call.answer(answers_live.envelope(told[0], data_at), etag=told[0].etag)
    answer: jl.DecisionsJson = {
        "world_id": world_id,
        "generation": call.store.load(world_id).governance_generation,
        "decisions": [answers_live.envelope(each, data_at) for each in told],
    }
    return call.answer(answer, etag=named([each.etag for each in told]))


@ROUTES.reads(W + "/activation", jl.ActivationJson | jl.ActivationsJson)
def get_activation(call: CallIn, world_id: WorldIn, strategy_id: StrategyAsked = None) -> Response:
    """A strategy's lease; without one, all that are live."""
    view = world(call.store, world_id)
    if strategy_id is not None:
        return lease(call, view, strategy_id)
    live = [answers_live.activation(view, sid) for sid in sorted(view.live)]
    return call.answer({"world_id": world_id, "activations": live})


@ROUTES.writes(
    "PUT",
    W + "/activation",
    {200: jl.ActivationJson},
    takes=bodies.Activation,
    refuses=(412,),
    headers=(IF_MATCH,),
    keyed=False,
)
def put_activation(call: CallIn, world_id: WorldIn) -> Response:
    """Freeze, drain, weight down, deactivate; and up again to what was applied.

    With If-Match, only while the lease is the one that it names.
    """
    asked = call.read(bodies.Activation)
    sid, by = StrategyId(asked.strategy_id), call.by(world_id)
    told = call.headers.get("if-match")

    def job() -> Response:
        before = world(call.store, world_id)
        held = answers_live.activation(before, sid)
        if told is not None and not names(told, held["etag"]):
            raise Changed(f"The lease is {held['etag']} now.")
        after = decisions.lower(call.store, world_id, by, sid, asked.meaning())
        if leases.told(after.live.get(sid)) > leases.told(before.live.get(sid)):
            call.services.must_decide()  # Else all of it is undone.
        return lease(call, after, sid)

    return call.store.write(job)


@ROUTES.writes(
    "POST", W + "/activation/ack", {200: jl.ActivationJson}, takes=bodies.Acknowledgement
)
def acknowledge(call: CallIn, world_id: WorldIn) -> Response:
    """A client lets go of the lease it held."""
    asked = call.read(bodies.Acknowledgement)
    sid, by = StrategyId(asked.strategy_id), call.by(world_id)
    view = decisions.acknowledge(call.store, world_id, by, sid, asked.sequence)
    return lease(call, view, sid)


def lease(call: Call, view: WorldView, sid: StrategyId) -> Response:
    told = answers_live.activation(view, sid)
    return call.answer(told, etag=told["etag"])
