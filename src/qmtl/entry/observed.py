"""What a process tells Prometheus: its requests, and how each world stands.

Requests are counted by the template of their route.  A world is measured when it is asked for, from
its view in memory: a few passes over columns, and what is open in it; no journal, no series.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from fastapi import Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmtl.adapters.sql.errors import StoreAway
from qmtl.core import campaign, notices
from qmtl.core.columns import PHASES
from qmtl.core.names import SYSTEM, Stage, WorldId, WorldState
from qmtl.core.times import MICROSECOND, NEVER, micros
from qmtl.core.view import Applied, Approved, Proposed, Rejected, WorldView
from qmtl.core.windows import PHASE_OF

from . import tracing
from .auth import ANYONE
from .identity import Credential
from .logs import ASKED, HEADER, REQUESTS, Asked, request_id_of
from .services import Services
from .spool import Spool

if TYPE_CHECKING:
    from opentelemetry.trace import Span

LOG = logging.getLogger(REQUESTS)
UNMATCHED: Final = "(no route)"
REQUEST_LABELS: Final = ("method", "route", "status")
SECONDS_LABELS: Final = ("method", "route")
FED: Final = (Stage.PAPER, Stage.LIVE)  # Whose returns come bar by bar, and may stop coming.


# ---- Requests ----------------------------------------------------------------------------------


class Counts:
    """How many requests, and how long, by the template of their route."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "qmtl_http_requests_total",
            "Requests answered.",
            REQUEST_LABELS,
            registry=self.registry,
        )
        self.seconds = Histogram(
            "qmtl_http_request_seconds",
            "Until the first byte of the answer.",
            SECONDS_LABELS,
            registry=self.registry,
        )


class Observed:
    """Around all that a process answers: names the request, counts it, and logs that it was.

    A request is answered when its answer begins: a stream that lasts a day is not slow.
    """

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self.app = app
        # The labels of a count are checked once: there are as many as routes have answers.
        self._requests = cache(counts.requests.labels)
        self._seconds = cache(counts.seconds.labels)
        self._traces = tracing.current()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, begun = time.perf_counter(), False
        asked = Asked(request_id_of(scope["headers"]), scope["method"])
        header = (HEADER, asked.request_id.encode())
        span = None if self._traces is None else self._traces.begun(asked, scope["headers"])

        def answered(status: int) -> None:
            self._answered(scope, asked, span, status, time.perf_counter() - began)

        async def told(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), header]
                answered(message["status"])
            await send(message)

        before = ASKED.set(asked)
        try:
            with tracing.under(self._traces, span):
                await self.app(scope, receive, told)
        finally:
            if not begun:  # A bug, or a client that went away; nobody was answered.
                answered(int(HTTPStatus.INTERNAL_SERVER_ERROR))
            ASKED.reset(before)

    def _answered(
        self, scope: Scope, asked: Asked, span: "Span | None", status: int, seconds: float
    ) -> None:
        route = scope.get("route")
        template = route.path if isinstance(route, Route) else UNMATCHED
        method = scope["method"] if template != UNMATCHED else "(any)"
        self._requests(method, template, status).inc()
        self._seconds(method, template).observe(seconds)
        if self._traces is not None and span is not None:
            self._traces.answered(span, asked, method, template, status)
        if LOG.isEnabledFor(logging.INFO):
            answered = {"route": template, "status": status, "seconds": round(seconds, 6)}
            # As LOG.info, which would look up for each where in the code it was called.
            record = LOG.makeRecord(REQUESTS, logging.INFO, "", 0, "answered", (), None)
            record.__dict__["answered"] = answered
            LOG.handle(record)


def observe(app: Starlette, counts: Counts) -> None:
    """Put it outside all that the application has, its guard included."""
    inner = app.build_middleware_stack
    app.build_middleware_stack = lambda: Observed(inner(), counts)  # type: ignore[method-assign]  # Starlette has no place outside its own.


# ---- Worlds ------------------------------------------------------------------------------------


class Telling(Protocol):
    """A relay, as far as it is looked at: how far it came, and why it does not go on."""

    reached: dict[WorldId, int]
    unusable: dict[WorldId, str]
    away: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """A world, when it was looked at, and what this process knows of it besides."""

    view: WorldView
    now: datetime
    unticked_sec: float
    bus: Telling | None


Samples = Iterable[tuple[tuple[str, ...], float]]  # Values of the labels, and what was measured.


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric of a world: its name, what it says, its labels beside `world`, and its samples."""

    name: str
    told: str
    of: Callable[[Look], Samples]
    labels: tuple[str, ...] = ()
    counts: bool = False  # It only grows.

    def family(self, looks: Iterable[Look]) -> Metric:
        kind = CounterMetricFamily if self.counts else GaugeMetricFamily
        family = kind(self.name, self.told, labels=("world", *self.labels))
        for look in looks:
            for values, value in self.of(look):
                family.add_metric((look.view.world_id, *values), value)
        return family


def _one(of: Callable[[Look], float]) -> Callable[[Look], Samples]:
    return lambda look: (((), of(look)),)


def _phases(look: Look) -> Samples:
    count = len(look.view.ids)
    found = np.bincount(look.view.standings.phase[:count], minlength=len(PHASES))
    return (((phase,), int(found[i])) for i, phase in enumerate(PHASES))


def _newest(look: Look) -> Samples:
    for stage in FED:
        last = look.view.tracks[stage].last_t[: len(look.view.ids)].max(initial=NEVER)
        if last != NEVER:
            yield (stage,), (micros(look.now) - int(last)) / 1e6


def _quiet(look: Look) -> Samples:
    quiet = [each.stage for each in notices.quiet(look.view, look.now)]
    return (((stage,), quiet.count(stage)) for stage in FED)


def _due(look: Look) -> Samples:
    view = look.view
    works = view.default_version is not None and view.state is WorldState.ACTIVE
    return (((stage,), len(campaign.due(view, stage)) if works else 0) for stage in PHASE_OF)


def _candidates(look: Look) -> Samples:
    found = [type(candidate.standing) for candidate in look.view.open_candidates()]
    open_ones = (Proposed, Approved, Rejected)
    return (((kind.__name__.lower(),), found.count(kind)) for kind in open_ones)


def _longest_wait(look: Look) -> float:
    """Of a candidate that is neither applied nor rejected."""
    waits = (
        look.now - candidate.proposed_at
        for candidate in look.view.open_candidates()
        if not isinstance(candidate.standing, Applied | Rejected)
    )
    return max((wait / MICROSECOND / 1e6 for wait in waits), default=0.0)


def _states(look: Look) -> Samples:
    return (((state,), look.view.state is state) for state in WorldState)


def _bus_lag(look: Look) -> Samples:
    if look.bus is not None:
        yield (), look.view.seq - look.bus.reached.get(look.view.world_id, 0)


def _bus_unusable(look: Look) -> Samples:
    if look.bus is not None:
        yield (), look.view.world_id in look.bus.unusable


WORLD: Final = (
    Measure(
        name="qmtl_world_state",
        told="1 for the state that the world is in.",
        of=_states,
        labels=("state",),
    ),
    Measure(
        name="qmtl_world_live_allowed",
        told="1 while the world may trade live at all.",
        of=_one(lambda look: look.view.allow_live),
    ),
    Measure(
        name="qmtl_world_killed",
        told="1 from a kill until somebody resumes the world.",
        of=_one(lambda look: look.view.killed),
    ),
    Measure(
        name="qmtl_world_strategies",
        told="Strategies by the phase that they are in.",
        of=_phases,
        labels=("phase",),
    ),
    Measure(
        name="qmtl_world_live_weight_ratio",
        told="Share of capital that is live, of all strategies together.",
        of=_one(lambda look: sum(held.weight for held in look.view.live.values())),
    ),
    Measure(
        name="qmtl_world_frozen_strategies",
        told="Live strategies that an operator has frozen.",
        of=_one(lambda look: sum(held.freeze for held in look.view.live.values())),
    ),
    Measure(
        name="qmtl_world_candidates",
        told="Open candidates by where they stand.",
        of=_candidates,
        labels=("standing",),
    ),
    Measure(
        name="qmtl_world_candidate_wait_seconds",
        told="How long the oldest candidate has waited that is neither applied nor rejected; 0 "
        "without one.",
        of=_one(_longest_wait),
    ),
    Measure(
        name="qmtl_world_newest_return_age_seconds",
        told="Since the newest return that any strategy has, of each stage that has one.",
        of=_newest,
        labels=("stage",),
    ),
    Measure(
        name="qmtl_world_quiet_strategies",
        told="Strategies in the stage's phase that have had no returns for longer than the policy "
        "lets them be late.",
        of=_quiet,
        labels=("stage",),
    ),
    Measure(
        name="qmtl_world_due_evaluations",
        told="Strategies with something to be learned that nobody has evaluated yet: work for the "
        "campaign loop.",
        of=_due,
        labels=("stage",),
    ),
    Measure(
        name="qmtl_world_unticked_seconds",
        told="Since this process last answered a tick of the whole world, or since it started.",
        of=_one(lambda look: look.unticked_sec),
    ),
    Measure(
        name="qmtl_world_journal_entries_total",
        told="The seq of the journal's newest entry.",
        of=_one(lambda look: look.view.seq),
        counts=True,
    ),
    Measure(
        name="qmtl_world_bus_behind_entries",
        told="Journal entries that the bus has not been told, as far as this process knows; only "
        "with a bus.",
        of=_bus_lag,
    ),
    Measure(
        name="qmtl_world_bus_unusable",
        told="1 while the bus contradicts the journal, and is told nothing of the world.",
        of=_bus_unusable,
    ),
)
STORE_UP: Final = "qmtl_store_up"
BUS_UP: Final = "qmtl_bus_up"
PROCESS: Final[Mapping[str, str]] = {
    STORE_UP: "1 while the store answers.",
    BUS_UP: "1 while the bus is told what happens; only with a bus.",
}


class _Found(Collector):
    """What was measured already, for the exposition to write."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self.found = found

    def collect(self) -> Iterable[Metric]:
        return self.found


def exposed(counts: Counts, found: Iterable[Metric]) -> Response:
    """Requests, and whatever else was measured, as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Found(found))
    text = generate_latest(counts.registry) + generate_latest(registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def of_services(
    services: Services, bus: Telling | None, credential: Callable[[], Credential | None]
) -> Iterator[Metric]:
    """How the store and the bus are, and the worlds that the credential may read: without one,
    none.

    INVARIANT: while nobody can say who asks, nothing is said of any world.
    Raises what `credential` raises, but for StoreAway.
    """
    try:
        services.store.load(SYSTEM)
        who = credential()
        looks = [] if who is None else [*_looks(services, bus, who)]
        up = True
    except StoreAway:
        looks, up = [], False
    yield _gauge(STORE_UP, up)
    if bus is not None:
        yield _gauge(BUS_UP, bus.away is None)
    if looks:
        yield from (measure.family(looks) for measure in WORLD)


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, PROCESS[name], value=value)


def _looks(services: Services, bus: Telling | None, who: Credential) -> Iterator[Look]:
    now = services.clock.now()
    for world_id in sorted(services.store.load(SYSTEM).worlds):
        if who.roles_in(world_id) & ANYONE:
            view = services.store.load(world_id)
            yield Look(view, now, services.ticks.since_sec(world_id), bus)


# ---- A gateway ---------------------------------------------------------------------------------

SPOOL: Final = "qmtl_gateway_spool_submissions"
SPOOL_AGE: Final = "qmtl_gateway_spool_oldest_age_seconds"
HELD: Final = "qmtl_gateway_held_decisions"
GATEWAY: Final[Mapping[str, str]] = {
    SPOOL: "Submissions that are kept until the world service is back.",
    SPOOL_AGE: "How long the oldest of them has been kept; 0 without one.",
    HELD: "Decisions that are kept for when the world service is away.",
}


def of_gateway(spool: Spool, held: int, now: datetime) -> Iterator[Metric]:
    """How much a gateway keeps.  It says nothing of any world."""
    waiting = spool.waiting()
    oldest = min((spool.kept_at(path) for path in waiting), default=now)
    age = (now - oldest) / MICROSECOND / 1e6
    for name, value in ((SPOOL, len(waiting)), (SPOOL_AGE, age), (HELD, held)):
        yield GaugeMetricFamily(name, GATEWAY[name], value=value)


# ---- What there is -----------------------------------------------------------------------------


def listed() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Every metric that a process may tell: its name, kind and labels, and what it says."""
    for family in Counts().registry.collect():
        if family.type == "counter":
            yield f"{family.name}_total", "counter", REQUEST_LABELS, family.documentation
        else:
            yield family.name, family.type, SECONDS_LABELS, family.documentation
    for measure in WORLD:
        kind = "counter" if measure.counts else "gauge"
        yield measure.name, kind, ("world", *measure.labels), measure.told
    for name, told in {**PROCESS, **GATEWAY}.items():
        yield name, "gauge", (), told
