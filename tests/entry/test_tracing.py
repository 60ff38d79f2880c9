"""Traces: a submission is one, from its author through a gateway to its decision; off is off."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from qmtl.adapters.client import ApiError, Client
from qmtl.adapters.clock import SystemClock
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sql.store import SqlStore
from qmtl.entry import proxy, tracing
from qmtl.entry.logs import Log, written
from qmtl.entry.proxy import Gateway
from qmtl.entry.spool import Spool
from qmtl.entry.tracing import wanted
from tests.http.harness import Harness, W, begin, listening, submission, with_world
from tests.servers import served

SOON_SEC = 15.0
SUBMIT = "POST /strategies"
MAY_SAY = {
    *("qmtl.request_id", "qmtl.world", "http.request.method", "http.route"),
    "http.response.status_code",
}


@dataclass
class Traced:
    """A server whose spans are at hand."""

    harness: Harness
    exporter: InMemorySpanExporter

    def spans(self) -> list[ReadableSpan]:
        """Those that came since this was asked last, in the order of their ends."""
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found


@contextmanager
def traced(store: MemoryStore | SqlStore) -> Iterator[Traced]:
    exporter = InMemorySpanExporter()
    with tracing.told("all", exporter):
        harness = begin(tracing.stored(store), dual_control=False)
        with harness.client:
            with_world(harness)
            exporter.clear()
            yield Traced(harness, exporter)
    store.close()


@pytest.fixture(params=["memory", "sql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Traced]:
    store = MemoryStore() if request.param == "memory" else SqlStore(tmp_path / "data")
    with traced(store) as found:
        yield found


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


# ---- From submit to decision -------------------------------------------------------------------


def test_a_submission_is_one_trace_from_its_author_to_its_decision(
    server: Traced, tmp_path: Path
) -> None:
    services = server.harness.services
    authors = TracerProvider(shutdown_on_exit=False)
    authors.add_span_processor(SimpleSpanProcessor(server.exporter))
    with ExitStack() as stack:
        world = stack.enter_context(listening(server.harness.client.app, services.bell.close))
        gateway = Gateway(world, Spool(tmp_path / "spool"), SystemClock())
        url = stack.enter_context(listening(proxy.create_app(gateway), gateway.close))
        client = stack.enter_context(Client(url, server.harness.tokens["ann"]))
        with authors.get_tracer("a strategy's own").start_as_current_span("research"):
            answer = client.send("POST", "/strategies", body=submission("s2"))
    assert answer["decision"]["strategy_id"] == "s2"
    step, commit, at_world, at_gateway, research = server.spans()
    assert [each.name for each in (step, commit, at_world, at_gateway, research)] == [
        "step", "commit", SUBMIT, SUBMIT, "research",
    ]  # fmt: skip
    assert parent_of(research) is None
    assert parent_of(at_gateway) == id_of(research)
    assert parent_of(at_world) == id_of(at_gateway)
    assert parent_of(step) == parent_of(commit) == id_of(at_world)
    assert len({each.context.trace_id for each in (step, at_world, research) if each.context}) == 1
    assert step.end_time is not None
    assert commit.start_time is not None
    assert step.end_time <= commit.start_time
    assert at_world.kind is SpanKind.SERVER


def test_a_span_says_no_more_than_the_log(server: Traced) -> None:
    said = server.harness.call("ann", "POST", "/strategies?x=secret-1", submission("s2"))
    answer = server.harness.call("ann", "POST", "/strategies", submission("s3"))
    assert (said.status_code, answer.status_code) == (422, 200)
    refused, step, commit, request = server.spans()
    assert request.attributes == {
        "qmtl.request_id": answer.headers["x-request-id"],
        "qmtl.world": W,
        "http.request.method": "POST",
        "http.route": "/strategies",
        "http.response.status_code": 200,
    }
    for span in (refused, step, commit, request):
        assert set(span.attributes or ()) <= MAY_SAY
        assert "secret" not in span.to_json()
        assert not span.events


def test_the_lane_is_traced_too(server: Traced) -> None:
    server.harness.call("rea", "GET", f"/worlds/{W}/decide?strategy_id=s1")
    (span,) = server.spans()
    assert span.name == "GET /worlds/{world_id}/decide"


def test_what_is_refused_is_not_committed(server: Traced) -> None:
    body = {"strategy_id": "s1", "run_id": "no-such", "reason": "why not"}
    path = f"/worlds/{W}/promotions/live/approve"
    assert server.harness.call("al", "POST", path, body).status_code == 404
    step, request = server.spans()
    assert (step.name, request.name) == ("step", "POST /worlds/{world_id}/promotions/live/approve")
    assert not step.events, "what it raised may say what was asked"
    assert request.status.status_code is StatusCode.UNSET


def test_what_fails_is_an_error(server: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(server.harness.services.store, "remembered", broken)
    headers = {"Idempotency-Key": "k1"}
    with pytest.raises(RuntimeError):
        server.harness.call("ann", "POST", "/strategies", submission("s2"), headers=headers)
    request = server.spans()[-1]
    assert request.status.status_code is StatusCode.ERROR
    assert "secret" not in request.to_json()


def test_a_job_in_a_job_is_one_step(server: Traced) -> None:
    headers = {**server.harness.headers("ann"), "Idempotency-Key": "k1"}
    for expected in (200, 200):
        told = server.harness.client.post("/strategies", json=submission("s2"), headers=headers)
        assert told.status_code == expected
        assert [each.name for each in server.spans()] == ["step", "commit", SUBMIT]


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENTS: list[tuple[str, list[tuple[str, str]], bool]] = [
    ("one", [("traceparent", f"00-{TRACE}-{SPAN}-01")], True),
    ("none", [], False),
    ("two", [("traceparent", f"00-{TRACE}-{SPAN}-01")] * 2, False),
    ("no trace", [("traceparent", "00-x-y-01")], False),
    ("zeros", [("traceparent", f"00-{'0' * 32}-{SPAN}-01")], False),
]


@pytest.mark.parametrize(("name", "headers", "joins"), PARENTS, ids=[case[0] for case in PARENTS])
def test_a_request_joins_the_trace_that_it_names_once_and_well(
    server: Traced, name: str, headers: list[tuple[str, str]], joins: bool
) -> None:
    server.harness.client.get("/healthz", headers=headers)
    (span,) = server.spans()
    assert span.context is not None
    assert (span.context.trace_id == int(TRACE, 16)) == joins
    assert parent_of(span) == (int(SPAN, 16) if joins else None)


def test_who_is_not_sampled_costs_no_spans(server: Traced) -> None:
    not_sampled = {"traceparent": f"00-{TRACE}-{SPAN}-00", **server.harness.headers("ann")}
    server.harness.client.post("/strategies", json=submission("s2"), headers=not_sampled)
    assert server.spans() == []


def test_a_client_outside_of_a_trace_says_nothing_of_one() -> None:
    seen: list[httpx.Headers] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(404, json={"title": "no"})

    client = Client("http://w.test", "t", transport=httpx.MockTransport(handle))
    with pytest.raises(ApiError):
        client.world("w")
    assert "traceparent" not in seen[0]


# ---- On and off --------------------------------------------------------------------------------

AT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
WANTED: list[tuple[dict[str, str], bool, str | None]] = [
    ({}, False, None),
    (AT, True, None),
    ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/x"}, True, None),
    ({"OTEL_TRACES_EXPORTER": "otlp"}, True, None),
    ({"OTEL_SERVICE_NAME": "x"}, False, None),
    ({**AT, "OTEL_TRACES_EXPORTER": "none"}, False, None),
    ({**AT, "OTEL_SDK_DISABLED": "true"}, False, None),
    ({**AT, "OTEL_TRACES_EXPORTER": "zipkin"}, False, "OTEL_TRACES_EXPORTER is zipkin"),
    ({**AT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, "grpc was asked for"),
    ({**AT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True, None),
]


@pytest.mark.parametrize(("environ", "on", "why"), WANTED)
def test_the_environment_says_whether(environ: dict[str, str], on: bool, why: str | None) -> None:
    found, said = wanted(environ)
    assert found == on
    assert (said is None) == (why is None)
    assert why is None or (said is not None and why in said)


def test_without_the_extra_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    lines: list[bytes] = []
    with written(Log.TEXT, lines.append), tracing.told("all"):
        assert tracing.current() is None
    assert b"no traces are sent: it takes pip install 'qmtl[otel]'" in b"".join(lines)


ALONE = """
import sys
from qmtl.entry.wiring import Settings, create_app
create_app(Settings(memory=True))
print(sorted(name for name in sys.modules if name.startswith("opentelemetry.sdk")))
"""
# Somebody's process that is traced, with qmtl in it: FastAPI would tell paths and queries.
EMBEDDED = """
import os
os.environ["FASTAPI_OTEL_AUTO_CONFIGURE"] = "true"
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
import warnings
warnings.simplefilter("ignore")
from starlette.testclient import TestClient
from qmtl.entry.wiring import Settings, create_app
with TestClient(create_app(Settings(memory=True)), "http://127.0.0.1") as client:
    print(client.get("/healthz?x=secret").status_code, exporter.get_finished_spans())
"""


@pytest.mark.parametrize(("script", "says"), [(ALONE, "[]"), (EMBEDDED, "200 ()")])
def test_off_is_off(script: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == says, done.stderr


# ---- A collector -------------------------------------------------------------------------------


@contextmanager
def collector(answers: bool) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Takes what is sent to it; or takes it and never answers."""
    found: list[ExportTraceServiceRequest] = []
    over = Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") is None:
                found.append(ExportTraceServiceRequest.FromString(body))
            if not answers:
                over.wait()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as httpd:
        thread = Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}", found
        finally:
            over.set()
            httpd.shutdown()


def test_a_server_sends_its_spans_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector(answers=True) as (url, found):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with served(tmp_path / "data") as server:
            told = httpx.get(f"{server.url}/worlds/sandbox", headers=server.headers)
            assert told.status_code == 200
    (sent,) = [each for request in found for each in request.resource_spans]
    about = {each.key: each.value.string_value for each in sent.resource.attributes}
    assert about["service.name"] == "qmtl-all"
    assert about["deployment.environment.name"] == "test"
    names = [span.name for scope in sent.scope_spans for span in scope.spans]
    assert names == ["GET /worlds/{world_id}"]


def test_a_collector_that_does_not_answer_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector(answers=False) as (url, found):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with served(tmp_path / "data") as server:
            for _ in range(20):
                begun = time.monotonic()
                assert httpx.get(f"{server.url}/healthz").status_code == 200
                assert time.monotonic() - begun < SOON_SEC / 3
                time.sleep(0.02)
            assert found, "it was sent something"
            begun = time.monotonic()
            server.stop()
            assert time.monotonic() - begun < SOON_SEC / 2
