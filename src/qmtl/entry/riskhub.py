"""The risk signal hub's routes: snapshots in, snapshots out."""

from functools import partial
from typing import Annotated

from fastapi import Query, Response

from qmtl.adapters.policies.words import Span
from qmtl.adapters.wire import answers, bodies_hub, expanded, instants
from qmtl.adapters.wire import shapes as j
from qmtl.adapters.wire.fields import ACTOR_PATTERN, ALIASES, VERSION_PATTERN, stage_of
from qmtl.app import hub, retention
from qmtl.app.ports import StoredSnapshot
from qmtl.app.step import world
from qmtl.core.errors import Forbidden, Invalid, SnapshotReduced, UnknownSnapshot
from qmtl.core.names import ActorId, Stage, StrategyId, WorldId
from qmtl.core.words import day, listed

from .contract import Routes
from .door import PAGE_DEFAULT, Call, CallIn, Cursor, Limit, WorldIn, named, offset_of

ROUTES = Routes("risk hub")
H = "/risk-hub/worlds/{world_id}"
STAGE_WORDS = "|".join([*Stage, *ALIASES])
HEADERS = (
    {
        "name": "X-Actor",
        "in": "header",
        "required": True,
        "description": "The credential's own actor.",
        "schema": {"type": "string", "pattern": ACTOR_PATTERN},
    },
    {
        "name": "X-Stage",
        "in": "header",
        "required": True,
        "schema": {"type": "string", "enum": [*Stage, *ALIASES]},
    },
)

StageAsked = Annotated[str | None, Query(pattern=f"^({STAGE_WORDS})$")]
ActorAsked = Annotated[ActorId | None, Query(pattern=ACTOR_PATTERN)]
VersionAsked = Annotated[str | None, Query(pattern=VERSION_PATTERN)]
AsOf = Annotated[str | None, Query(max_length=64, json_schema_extra={"format": "date-time"})]
Age = Annotated[Span, Query(description="A length of time, such as 400d.")]
Expand = Annotated[bool, Query(description="With covered returns, as held up to as_of.")]


def asked_stage(word: str | None) -> Stage | None:
    return None if word is None else stage_of(word)


@ROUTES.writes(
    "POST",
    H + "/snapshots",
    {201: j.SnapshotJson, 200: j.SnapshotJson},
    takes=bodies_hub.Snapshot,
    headers=HEADERS,
    bulk=True,
)
def post(call: CallIn, world_id: WorldIn) -> Response:
    """Store a snapshot.  The same again is no second event; other content is refused."""
    by = call.by(world_id)
    stage = _headers(call)
    posted = call.read(bodies_hub.Snapshot).meaning(stage)
    found, made = hub.post(call.store, world_id, by, posted)
    return call.answer(answers.snapshot(world_id, found), 201 if made else 200)


def _headers(call: Call) -> Stage:
    """The stage; and the actor is the credential's.  Raises Forbidden, Invalid."""
    if call.headers["x-actor"] != call.credential.actor:
        raise Forbidden("X-Actor is not the actor of the credential.")
    try:
        return stage_of(call.headers["x-stage"])
    except ValueError as error:
        raise Invalid(f"X-Stage: {error}") from None


@ROUTES.reads(H + "/snapshots", j.SnapshotsJson)
def snapshots(
    call: CallIn,
    world_id: WorldIn,
    stage: StageAsked = None,
    actor: ActorAsked = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    """Newest stored first."""
    before = None if cursor is None else offset_of(cursor)
    found = call.store.snapshots(world_id, limit + 1, before, asked_stage(stage), actor)
    following = str(found[limit - 1].seq) if len(found) > limit else None
    items = [answers.snapshot(world_id, each) for each in found[:limit]]
    return call.answer({"snapshots": items, "next_cursor": following})


@ROUTES.reads(H + "/latest", j.FullSnapshotJson)
@ROUTES.reads(H + "/snapshots/latest", j.FullSnapshotJson)
def latest(
    call: CallIn,
    world_id: WorldIn,
    stage: StageAsked = None,
    actor: ActorAsked = None,
    expand: Expand = False,
) -> Response:
    """The one with the greatest as_of."""
    found = call.store.latest_snapshot(world_id, asked_stage(stage), actor)
    if found is None:
        raise UnknownSnapshot("There is none yet.")
    return full(call, world_id, found, expand)


@ROUTES.reads(H + "/lookup", j.FullSnapshotJson)
@ROUTES.reads(H + "/snapshots/lookup", j.FullSnapshotJson)
def lookup(
    call: CallIn,
    world_id: WorldIn,
    version: VersionAsked = None,
    as_of: AsOf = None,
    stage: StageAsked = None,
    expand: Expand = False,
) -> Response:
    """By version, or the latest at or before an instant."""
    if (version is None) == (as_of is None):
        raise Invalid("version, as_of: give one of them.")
    if version is not None:
        return full(call, world_id, hub.get(call.store, world_id, version), expand)
    assert as_of is not None, "one of them was given"
    try:
        moment = instants.parse(as_of.replace(" ", "+"))
    except ValueError as error:
        raise Invalid(f"as_of: {error}.") from None
    found = call.store.latest_snapshot(world_id, asked_stage(stage), as_of=moment)
    if found is None:
        raise UnknownSnapshot("There is none at or before as_of.")
    return full(call, world_id, found, expand)


def full(call: Call, world_id: WorldId, found: StoredSnapshot, expand: bool) -> Response:
    removed = found.fact.removed
    if removed is not None:  # Never told as if it had been posted without.
        said = f"{listed(removed.parts)}, on {day(removed.at)}"
        raise SnapshotReduced(f"{found.fact.version}: {said}.")
    content = answers.full_snapshot(world_id, found)
    if not expand:
        return call.answer(content)
    # Only what is of the evidence stream changes what is held up to an instant.
    etag = named([world_id, found.seq, world(call.store, world_id).evidence_generation])
    held = partial(call.store.series, world_id, stage=found.fact.stage)
    return call.streamed(expanded.pieces(content, found.fact, held), etag)


@ROUTES.reads(H + "/retention", j.SurveyJson)
def survey(call: CallIn, world_id: WorldIn, older_than: Age) -> Response:
    """What retention would remove of snapshots that are older, and what is held, and why."""
    found = retention.survey(call.store, world_id, call.by_token.now, older_than)
    return call.answer(answers.survey(world_id, found))


@ROUTES.writes(
    "POST", H + "/retention", {200: j.RetainedJson}, takes=bodies_hub.Retention, keyed=False
)
def retain(call: CallIn, world_id: WorldIn) -> Response:
    """Remove it, and the objects that nothing names.  Returns stay, and whatever is held."""
    asked, by = call.read(bodies_hub.Retention), call.by(world_id)
    ages = asked.older_than, asked.orphans_older_than
    found, orphans = retention.apply(call.store, world_id, by, *ages)
    return call.answer({**answers.survey(world_id, found), "orphans": orphans})


@ROUTES.writes(
    "POST",
    H + "/snapshots/restatements",
    {200: j.RestatedJson},
    takes=bodies_hub.Restatement,
    bulk=True,
)
@ROUTES.writes(
    "POST", H + "/restatements", {200: j.RestatedJson}, takes=bodies_hub.Restatement, bulk=True
)
def restate(call: CallIn, world_id: WorldIn) -> Response:
    """Replace recorded history.  What relied on it is void; the window starts anew."""
    asked, by = call.read(bodies_hub.Restatement), call.by(world_id)
    sid = StrategyId(asked.strategy)
    world(call.store, world_id).strategy(sid)
    done = hub.restatement(call.store, world_id, by, asked.stage, sid, asked.series(), asked.reason)
    return call.answer(answers.restated(world_id, done))
