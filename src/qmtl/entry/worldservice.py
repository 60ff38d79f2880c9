"""The world service's routes: worlds, policies, evaluation.  To live: `liveservice.py`."""

from typing import Annotated

from fastapi import Path, Response

from qmtl.adapters import policies
from qmtl.adapters.wire import answers, answers_live, bodies
from qmtl.adapters.wire import shapes as j
from qmtl.adapters.wire import shapes_live as jl
from qmtl.app import campaigns, evaluations, explanations, promotions, strategies, worlds
from qmtl.app.step import world
from qmtl.core.errors import Forbidden
from qmtl.core.leading import leader
from qmtl.core.names import Role

from .contract import POLICY, Routes
from .door import (
    PAGE_DEFAULT,
    Call,
    CallIn,
    Cursor,
    Limit,
    RunIn,
    StrategyAsked,
    StrategyIn,
    WorldIn,
    named,
    offset_of,
    page,
)

ROUTES = Routes("worlds")
W = "/worlds/{world_id}"
LISTED_MAX = 1_000_000  # Of worlds, before a page is cut out of them.
WAITS = "A second person has to confirm it: POST {} with another credential."

VersionIn = Annotated[int, Path(ge=1, le=2**31 - 1)]


def shown(call: Call, world_id: WorldIn, status: int = 200) -> Response:
    """The world as it is now."""
    record, view = worlds.record(call.store, world_id)
    return call.answer(answers.world(record, view), status)


def waiting(call: Call, world_id: WorldIn, pending: worlds.Pending) -> Response:
    """202: half done."""
    where = f"/worlds/{world_id}/confirmations/{pending.confirmation_id}"
    told: j.PendingJson = {
        "confirmation_id": pending.confirmation_id,
        "what": pending.what,
        "detail": WAITS.format(where),
    }
    return call.answer(told, 202)


# ---- Worlds ----------------------------------------------------------------------------------


@ROUTES.reads("/worlds", j.WorldsJson)
def list_worlds(call: CallIn, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Response:
    """Worlds by id; a credential for one world sees that one."""
    known = worlds.listed(call.store, None, LISTED_MAX)
    mine = [w for w in known if call.credential.roles_in(w.world_id)]
    found, following = page(mine, cursor, limit)
    shown_ = [answers.world(record, call.store.load(record.world_id)) for record in found]
    return call.answer({"worlds": shown_, "next_cursor": following})


@ROUTES.writes("POST", "/worlds", {201: j.WorldJson, 200: j.WorldJson}, takes=bodies.World)
def create_world(call: CallIn) -> Response:
    """Make a world.  The same again is the same."""
    new = call.read(bodies.World).meaning()
    by = call.by()
    _, made = worlds.create(call.store, by, new, dual_control=call.services.dual_control)
    return shown(call, new.world_id, 201 if made else 200)


@ROUTES.reads(W, j.WorldJson)
def get_world(call: CallIn, world_id: WorldIn) -> Response:
    """One world."""
    return shown(call, world_id)


@ROUTES.writes(
    "PATCH", W, {200: j.WorldJson, 202: j.PendingJson}, takes=bodies.WorldChange, keyed=False
)
def change(call: CallIn, world_id: WorldIn) -> Response:
    """Allow live or not; suspend, archive, activate.  Both at once are one step."""
    asked, by = call.read(bodies.WorldChange), call.by(world_id)
    if asked.state is not None and not {Role.OPERATOR, Role.ADMIN} & by.roles:
        raise Forbidden("state takes one of the roles: admin, operator.")

    def job() -> worlds.Pending | None:
        pending = None
        if asked.state is not None:
            worlds.change_state(call.store, world_id, by, asked.state)
        if asked.allow_live is not None:
            dual = call.services.dual_control
            pending = worlds.allow_live(
                call.store, world_id, by, asked.allow_live, dual_control=dual
            )
        return pending

    pending = call.store.write(job)
    return shown(call, world_id) if pending is None else waiting(call, world_id, pending)


@ROUTES.writes("POST", W + "/kill", {200: j.WorldJson}, takes=bodies.Because, keyed=False)
def kill(call: CallIn, world_id: WorldIn) -> Response:
    """All weights to 0, gates closed, now."""
    worlds.kill(call.store, world_id, call.by(world_id), call.read(bodies.Because).reason)
    return shown(call, world_id)


@ROUTES.writes("POST", W + "/resume", {200: j.WorldJson, 202: j.PendingJson}, takes=bodies.Because)
def resume(call: CallIn, world_id: WorldIn) -> Response:
    """Open the gates again.  Restores nothing by itself."""
    reason, dual = call.read(bodies.Because).reason, call.services.dual_control
    pending = worlds.resume(call.store, world_id, call.by(world_id), reason, dual_control=dual)
    return shown(call, world_id) if pending is None else waiting(call, world_id, pending)


@ROUTES.writes(
    "POST",
    W + "/confirmations/{confirmation_id}",
    {200: j.ConfirmationJson},
)
def confirm(
    call: CallIn,
    world_id: WorldIn,
    confirmation_id: Annotated[str, Path(pattern=r"^[0-9a-f]{1,64}$")],
) -> Response:
    """The second person's word; what was asked for happens."""
    asked = worlds.confirm(call.store, world_id, call.by(world_id), confirmation_id)
    return call.answer(answers.confirmation(asked))


# ---- Policies --------------------------------------------------------------------------------


@ROUTES.writes(
    "POST",
    W + "/policies",
    {201: j.PolicyAddedJson, 200: j.PolicyAddedJson, 202: j.PolicyAddedJson},
    takes=POLICY,
)
def add_policy(call: CallIn, world_id: WorldIn) -> Response:
    """A new version of the world's policy, JSON or YAML.  The first becomes the default."""
    policy = policies.parse(call.raw, call.headers.get("content-type") or "application/json")
    by, checksum = call.by(world_id), policies.checksum(policy)
    dual = call.services.dual_control
    added = worlds.add_policy(call.store, world_id, by, policy, checksum, dual_control=dual)
    view = call.store.load(world_id)
    told: j.PolicyAddedJson = {
        "version": added.version.version,
        "checksum": checksum,
        "warnings": list(policies.warnings(policy)),
        "default": view.default_version == added.version.version,
        "confirmation_id": added.pending.confirmation_id if added.pending else None,
    }
    return call.answer(told, 202 if added.pending else 201 if added.created else 200)


@ROUTES.reads(W + "/policies", j.PoliciesJson)
def list_policies(
    call: CallIn, world_id: WorldIn, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> Response:
    """Versions, the first first."""
    view = world(call.store, world_id)
    known = [view.policies[version] for version in sorted(view.policies)]
    found, following = page(known, cursor, limit)
    items = [answers.policy_item(view, version) for version in found]
    return call.answer({"policies": items, "next_cursor": following})


@ROUTES.reads(W + "/policies/{version}", j.PolicyJson)
def get_policy(call: CallIn, world_id: WorldIn, version: VersionIn) -> Response:
    """One version, in its canonical form, with what it implies."""
    view = world(call.store, world_id)
    found = view.policy_version(version)
    document = policies.document(found.policy)
    return call.answer(answers.policy(view, found, document, policies.warnings(found.policy)))


@ROUTES.writes(
    "POST",
    W + "/set-default",
    {200: j.DefaultJson, 202: j.PendingJson},
    takes=bodies.PolicyChoice,
)
def set_default(call: CallIn, world_id: WorldIn) -> Response:
    """The version in force from the next evaluation on."""
    version, by = call.read(bodies.PolicyChoice).version, call.by(world_id)
    dual = call.services.dual_control
    pending = worlds.set_default(call.store, world_id, by, version, dual_control=dual)
    if pending is not None:
        return waiting(call, world_id, pending)
    return call.answer({"world_id": world_id, "version": version})


# ---- Strategies and their runs ---------------------------------------------------------------


@ROUTES.writes(
    "POST",
    W + "/bindings",
    {201: j.StrategyJson, 200: j.StrategyJson},
    takes=bodies.StrategyBinding,
)
@ROUTES.writes(
    "POST",
    W + "/strategies",
    {201: j.StrategyJson, 200: j.StrategyJson},
    takes=bodies.StrategyBinding,
)
def bind(call: CallIn, world_id: WorldIn) -> Response:
    """Bind a strategy to the world.  The same again is the same."""
    asked = call.read(bodies.StrategyBinding).meaning()
    known, made = strategies.bind(call.store, world_id, call.by(world_id), asked)
    view = call.store.load(world_id)
    return call.answer(answers.strategy(view, known), 201 if made else 200)


@ROUTES.reads(W + "/bindings", j.StrategiesJson)
@ROUTES.reads(W + "/strategies", j.StrategiesJson)
def list_strategies(
    call: CallIn, world_id: WorldIn, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> Response:
    """Strategies in the order they were bound."""
    view = world(call.store, world_id)
    found, following = page(list(view.in_order()), cursor, limit)
    items = [answers.strategy(view, known) for known in found]
    return call.answer({"strategies": items, "next_cursor": following})


@ROUTES.writes(
    "POST",
    W + "/strategies/{strategy_id}/extend",
    {200: jl.StandingJson},
    takes=bodies.Extend,
)
def extend(call: CallIn, world_id: WorldIn, strategy_id: StrategyIn) -> Response:
    """More time for a campaign that neither passed nor failed."""
    asked, by = call.read(bodies.Extend), call.by(world_id)
    promotions.extend(call.store, world_id, by, strategy_id, asked.by_sec, asked.reason)
    return call.answer(answers_live.standing(call.store.load(world_id), strategy_id))


@ROUTES.reads(W + "/strategies/{strategy_id}/explain", jl.ExplanationJson)
def explain(call: CallIn, world_id: WorldIn, strategy_id: StrategyIn) -> Response:
    """Where it is, what it may do, what it waits for, when, and what would stop it: sentences."""
    now = call.by_token.now
    found = explanations.explained(call.store, world_id, strategy_id, now)
    told = answers_live.explanation(found)
    return call.answer(told, etag=named({**told, "as_of": None}))


RUNS = W + "/strategies/{strategy_id}/runs"


@ROUTES.reads(RUNS, j.RunsJson)
def list_runs(
    call: CallIn,
    world_id: WorldIn,
    strategy_id: StrategyIn,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    """Newest revision of each run, the latest evaluated first."""
    world(call.store, world_id).strategy(strategy_id)
    before = None if cursor is None else offset_of(cursor)
    found = call.store.runs(world_id, strategy_id, limit + 1, before)
    following = str(found[limit - 1].seq) if len(found) > limit else None
    items = [answers.run(world_id, run) for run in found[:limit]]
    return call.answer({"runs": items, "next_cursor": following})


@ROUTES.reads(RUNS + "/{run_id}", j.RunJson)
def get_run(call: CallIn, world_id: WorldIn, strategy_id: StrategyIn, run_id: RunIn) -> Response:
    """The newest revision of a run: verdict, every metric with its origin, every gate."""
    found = evaluations.run_of(call.store, world_id, strategy_id, run_id)
    return call.answer(answers.run(world_id, found))


@ROUTES.reads(RUNS + "/{run_id}/metrics", j.RunMetricsJson)
def get_run_metrics(
    call: CallIn, world_id: WorldIn, strategy_id: StrategyIn, run_id: RunIn
) -> Response:
    """Every metric of a run with unit, origin and snapshot."""
    found = evaluations.run_of(call.store, world_id, strategy_id, run_id)
    return call.answer(answers.run_metrics(world_id, found))


@ROUTES.reads(RUNS + "/{run_id}/history", j.RevisionsJson)
def get_run_history(
    call: CallIn,
    world_id: WorldIn,
    strategy_id: StrategyIn,
    run_id: RunIn,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    """Every revision of a run, the first first."""
    evaluations.run_of(call.store, world_id, strategy_id, run_id)
    known = call.store.revisions(world_id, strategy_id, run_id)
    found, following = page(known, cursor, limit)
    items = [answers.run(world_id, run) for run in found]
    return call.answer({"revisions": items, "next_cursor": following})


# ---- Evaluation and campaign -----------------------------------------------------------------


@ROUTES.writes("POST", W + "/evaluate", {200: j.EvaluatedJson}, takes=bodies.Evaluate)
def evaluate(call: CallIn, world_id: WorldIn) -> Response:
    """Judge one strategy, and record what follows.  On the same evidence, many calls are one."""
    asked = call.read(bodies.Evaluate).meaning()
    found = evaluations.evaluate(call.store, world_id, call.by(world_id), asked)
    return call.answer(answers.evaluated(world_id, found))


@ROUTES.writes("POST", W + "/evaluate-cohort", {200: j.CohortJson}, takes=bodies.EvaluateCohort)
def evaluate_cohort(call: CallIn, world_id: WorldIn) -> Response:
    """Judge many as one, and select among them."""
    asked = call.read(bodies.EvaluateCohort).meaning()
    found = evaluations.evaluate_cohort(call.store, world_id, call.by(world_id), asked)
    return call.answer(answers.cohort(world_id, asked.campaign_id, found))


@ROUTES.reads(W + "/campaign/status", jl.CampaignJson, refuses=(409,))
def status(call: CallIn, world_id: WorldIn, strategy_id: StrategyAsked = None) -> Response:
    """Where each strategy stands, how full its windows are, and why it is not further."""
    now = call.by_token.now
    view, found = campaigns.statuses(call.store, world_id, strategy_id, now)
    told = answers_live.campaign(view, found, now)
    return call.answer(told, etag=named({**told, "generated_at": None}))


@ROUTES.writes("POST", W + "/campaign/loops", {200: jl.LoopsJson}, takes=bodies.Loop, keyed=False)
def loops(call: CallIn, world_id: WorldIn) -> Response:
    """A campaign loop is there; which of those that are works on this world."""
    asked = call.read(bodies.Loop)
    there = campaigns.beat(call.store, world_id, asked.loop, asked.ttl)
    told: jl.LoopsJson = {
        "world_id": world_id,
        "leader": leader(world_id, there),
        "loops": there,
    }
    return call.answer(told)


@ROUTES.writes("POST", W + "/campaign/tick", {200: jl.TickJson}, keyed=False)
def tick(
    call: CallIn,
    world_id: WorldIn,
    strategy_id: StrategyAsked = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    """What to do next.  Changes nothing."""
    now, start = call.by_token.now, offset_of(cursor)
    view, found = campaigns.tick(
        call.store, world_id, now, only=strategy_id, limit=limit, offset=start
    )
    if strategy_id is None:
        call.services.ticks.seen(world_id)
    return call.answer(answers_live.tick(view, found, now))
