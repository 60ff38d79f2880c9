"""Traces, for who has a collector: a span for each request, for its step, and for its commit.

Off, unless the usual variables of OpenTelemetry ask for it; the extra `otel` has what sends them.
A span says what a line of the log says, and less: never a path, a query, a body or who asked.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Thread, local
from typing import TYPE_CHECKING, Final, TypeVar

from fastapi.telemetry import TelemetryConfig

from qmtl import __version__

from .logs import Asked

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from qmtl.adapters.memory import MemoryStore
    from qmtl.adapters.sql.store import SqlStore

LOG = logging.getLogger("qmtl.tracing")
NAME: Final = "qmtl"
CLOSE_SEC: Final = 2.0  # For what was not sent yet when the process ends.
ERRORS_FROM: Final = 500
CONTEXT: Final = frozenset({b"traceparent", b"tracestate"})
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL: Final = "http/protobuf"
# FastAPI would trace by itself whatever it serves, with paths and queries, once somebody traces.
FASTAPI_OFF: Final = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)

T = TypeVar("T")
S = TypeVar("S", bound="MemoryStore | SqlStore")


def wanted(environ: Mapping[str, str]) -> tuple[bool, str | None]:
    """Whether traces are asked for; and why there are none all the same."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False, None
    somewhere = any(environ.get(name) for name in ENDPOINTS)
    exporter = environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if somewhere else "none")
    if exporter == "none":
        return False, None
    if exporter != "otlp":
        return False, f"OTEL_TRACES_EXPORTER is {exporter}; otlp and none are known here"
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        return False, f"they are sent over {PROTOCOL}, and {protocol} was asked for"
    return True, None


class Traces:
    """Makes the spans of one process."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import context, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace, self._context = trace, context
        self._w3c = TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer(NAME, __version__)

    def begun(self, asked: Asked, headers: Iterable[tuple[bytes, bytes]]) -> "Span":
        """A request's: of the trace that it says it is part of, if it says so once and well."""
        told = [(name, value) for name, value in headers if name in CONTEXT]
        once = {name.decode(): value.decode("latin-1") for name, value in told}
        return self._tracer.start_span(
            asked.method,
            context=self._w3c.extract(once if len(once) == len(told) else {}),
            kind=self._trace.SpanKind.SERVER,
            attributes={"qmtl.request_id": asked.request_id},
        )

    @contextmanager
    def under(self, span: "Span") -> Iterator[None]:
        """What is asked for in the block is part of that span."""
        token = self._context.attach(self._trace.set_span_in_context(span))
        try:
            yield
        finally:
            self._context.detach(token)

    def answered(self, span: "Span", asked: Asked, method: str, route: str, status: int) -> None:
        """Its answer begins, which is its end: a stream that lasts a day is told of at once."""
        span.update_name(f"{method} {route}")
        about = {"http.request.method": method, "http.route": route}
        span.set_attributes({**about, "http.response.status_code": status})
        if asked.world is not None:
            span.set_attribute("qmtl.world", asked.world)
        if status >= ERRORS_FROM:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def writing(self, write: Callable[[Callable[[], T]], T]) -> Callable[[Callable[[], T]], T]:
        """A store's `write`, with a span for the job and one from its end until it is durable.

        Between the request's begin and the job's it waited for its turn.
        """
        here = local()

        def traced(job: Callable[[], T]) -> T:
            if getattr(here, "inside", False) or not self._trace.get_current_span().is_recording():
                return write(job)
            asked_in = self._context.get_current()
            commits: list[Span] = []

            def step() -> T:
                here.inside = True
                try:
                    with self._tracer.start_as_current_span(
                        "step", asked_in, record_exception=False, set_status_on_exception=False
                    ):
                        answer = job()
                finally:
                    here.inside = False
                commits.append(self._tracer.start_span("commit", asked_in))
                return answer

            try:
                return write(step)
            finally:
                for commit in commits[-1:]:  # A job that was put off is run again.
                    commit.end()

        return traced


_CURRENT: list[Traces] = []


def current() -> Traces | None:
    """Who makes the spans of this process, if there are any."""
    return _CURRENT[-1] if _CURRENT else None


def under(traces: Traces | None, span: "Span | None") -> AbstractContextManager[None]:
    return nullcontext() if traces is None or span is None else traces.under(span)


def stored(store: S) -> S:
    """The store; what is written to it is told, where there are traces."""
    traces = current()
    if traces is not None:
        store.write = traces.writing(store.write)  # type: ignore[method-assign,assignment]  # Around its own.
    return store


@contextmanager
def told(part: str, exporter: "SpanExporter | None" = None) -> Iterator[None]:
    """Traces are made and sent while the block runs, where the environment asks for them.

    part      what of qmtl this process is
    exporter  for tests: where they are sent instead, one by one, whatever the environment says
    """
    asked, why_not = wanted(os.environ) if exporter is None else (True, None)
    provider = _provider(part, exporter) if asked else None
    if why_not is not None:
        LOG.warning("no traces are sent: %s", why_not)
    if provider is None:
        yield
        return
    _CURRENT.append(Traces(provider))
    try:
        yield
    finally:
        _CURRENT.pop()
        # Nobody waits for a collector that does not answer.
        ending = Thread(target=provider.shutdown, name="qmtl-traces", daemon=True)
        ending.start()
        ending.join(CLOSE_SEC)


def _provider(part: str, exporter: "SpanExporter | None") -> "TracerProvider | None":
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            processor: SpanProcessor = BatchSpanProcessor(OTLPSpanExporter())
        else:
            processor = SimpleSpanProcessor(exporter)
    except ImportError:
        LOG.warning("no traces are sent: it takes pip install 'qmtl[otel]'")
        return None
    # What the environment says of the resource goes before this, and so does its sampler.
    name = os.environ.get("OTEL_SERVICE_NAME") or f"{NAME}-{part}"
    resource = Resource.create({"service.name": name, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider
