"""What is logged: a line for each request, which names it as its answer does, and no secrets."""

import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.adapters.clock import SystemClock
from qmtl.entry import logs
from qmtl.entry.logs import Log
from qmtl.entry.proxy import Gateway, create_app
from qmtl.entry.spool import Spool
from tests.http.harness import Harness, W, harness_over, listening, submission, with_world
from tests.servers import READY

SOON_SEC = 10.0


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with harness_over("memory", tmp_path) as made:
        yield made


@contextmanager
def logged(log: Log | None) -> Iterator[list[str]]:
    """The lines that are logged in the block, once it is left."""
    found: list[bytes] = []
    lines: list[str] = []
    with logs.written(log, found.append):
        yield lines
    lines += b"".join(found).decode().splitlines()


def requests(lines: list[str]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines]
    return [each for each in found if each["logger"] == logs.REQUESTS]


# ---- Lines -------------------------------------------------------------------------------------


def test_a_request_is_one_object_with_who_asked_what_of_which_world(harness: Harness) -> None:
    with_world(harness)
    with logged(Log.JSON) as lines:
        answer = harness.call("rea", "GET", f"/worlds/{W}/campaign/status")
    (line,) = requests(lines)
    assert line.pop("time").endswith("Z")
    assert 0 < line.pop("seconds") < SOON_SEC
    assert line == {
        "level": "info",
        "logger": logs.REQUESTS,
        "message": "answered",
        "request_id": answer.headers["x-request-id"],
        "method": "GET",
        "world": W,
        "actor": "rea",
        "route": "/worlds/{world_id}/campaign/status",
        "status": 200,
    }


def test_the_lane_says_the_same(harness: Harness) -> None:
    with_world(harness)
    with logged(Log.JSON) as lines:
        harness.call("rea", "GET", f"/worlds/{W}/decide?strategy_id=s1")
    (line,) = requests(lines)
    assert (line["route"], line["world"], line["actor"]) == (
        "/worlds/{world_id}/decide",
        W,
        "rea",
    )


def test_a_world_in_the_body_is_said_too(harness: Harness) -> None:
    with_world(harness)
    with logged(Log.JSON) as lines:
        harness.ok("ann", "POST", "/strategies", submission("s2"))
    (line,) = requests(lines)
    assert (line["route"], line["world"], line["actor"]) == ("/strategies", W, "ann")


def test_what_nobody_was_let_into_is_not_named(harness: Harness) -> None:
    with_world(harness)
    with logged(Log.JSON) as lines:
        harness.call(None, "GET", f"/worlds/{W}")
        harness.call("rea", "GET", "/worlds/none%0Asuch")
        harness.call("rea", "GET", "/secret/path")
    nobody, unknown, unmatched = requests(lines)
    assert (nobody["status"], "world" in nobody, "actor" in nobody) == (401, False, False)
    assert ("world" in unknown, unknown["actor"]) == (False, "rea")
    assert (unmatched["route"], unmatched["status"]) == ("(no route)", 404)
    assert "secret" not in "".join(lines)


def test_no_line_holds_a_credential(harness: Harness) -> None:
    for log in Log:
        with logged(log) as lines:
            made = harness.ok("adam", "POST", "/tokens", {"actor": "new", "roles": ["reader"]})
            harness.call(None, "GET", f"/worlds?token={made['token']}")
            harness.call("adam", "DELETE", f"/tokens/{made['token']}")
        assert len(lines) == 3
        for secret in (made["token"], harness.tokens["adam"]):
            assert secret not in "".join(lines)


def test_without_the_option_only_what_goes_wrong_is_said(harness: Harness) -> None:
    with logged(None) as lines:
        harness.call("rea", "GET", "/worlds")
        logging.getLogger("qmtl.some").info("nothing much")
        logging.getLogger("qmtl.some").warning("it is %s", "broken")
    (line,) = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z warning qmtl\.some it is broken", line)
    assert logging.getLogger("qmtl").level == logging.NOTSET
    assert not [each for each in logging.getLogger().handlers if isinstance(each, logs.Lines)]


def test_a_bug_is_a_line_with_its_traceback_and_its_request(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(harness.services.clock, "now", broken)
    harness.client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]  # Starlette's.
    with logged(Log.JSON) as lines:
        answer = harness.call("rea", "GET", "/worlds", headers={"X-Request-ID": "mine"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "mine"
    bug, request = [json.loads(line) for line in lines]
    assert (bug["level"], bug["logger"], bug["request_id"]) == ("error", "qmtl.http", "mine")
    assert "ZeroDivisionError: of all things" in bug["exception"]
    assert (request["status"], request["request_id"]) == (500, "mine")


def test_a_line_of_text_is_one_line_whatever_it_says() -> None:
    with logged(Log.TEXT) as lines:
        logging.getLogger("qmtl.some").error("a\nfake: line\x1b[31m\u2028%s", "b\r")
    (line,) = lines
    assert line.endswith(r"error qmtl.some a\x0afake: line\x1b[31m\x2028b\x0d")


# ---- Nobody waits ------------------------------------------------------------------------------


def test_who_logs_does_not_wait_for_who_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LINES_MAX", 5)
    reads, found, stuck = threading.Event(), list[bytes](), threading.Event()

    def write(content: bytes) -> None:
        stuck.set()
        assert reads.wait(SOON_SEC)
        found.append(content)

    log = logging.getLogger("qmtl.some")
    with logs.written(Log.JSON, write):
        log.warning("first")
        assert stuck.wait(SOON_SEC)
        began = time.perf_counter()
        for number in range(100):
            log.warning("line %d", number)
        assert time.perf_counter() - began < 1.0
        reads.set()
    said = [json.loads(line)["message"] for line in b"".join(found).decode().splitlines()]
    kept, dropped = said[:-1], said[-1]
    assert kept == ["first", *(f"line {number}" for number in range(5))]
    assert dropped == "95 lines were dropped: whoever reads this log does not keep up"


def test_a_log_that_nobody_reads_does_not_keep_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CLOSE_SEC", 0.05)
    reads = threading.Event()
    began = time.perf_counter()
    with logs.written(Log.JSON, lambda _content: reads.wait(SOON_SEC)):
        logging.getLogger("qmtl.some").warning("nobody reads this")
    assert time.perf_counter() - began < 1.0
    reads.set()


# ---- Names of requests -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    ["x", "a" * 128, "6f1c2a3e-0000-4000-8000-1234567890ab", "Root=1-67891233-abcdef012345"],
)
def test_a_sane_name_is_kept(harness: Harness, told: str) -> None:
    answer = harness.call("rea", "GET", "/worlds", headers={"X-Request-ID": told})
    assert answer.headers["x-request-id"] == told


@pytest.mark.parametrize(
    "told", ["", "a" * 129, "a b", 'a"b', "a;b", "a\tb", "a\\b", "{}", "<x>", "\u00e9"]
)
def test_what_is_no_name_is_not(harness: Harness, told: str) -> None:
    sent = [("X-Request-ID", told.encode("latin-1"))]
    answer = harness.client.request("GET", "/healthz", headers=sent)
    made = answer.headers["x-request-id"]
    assert made != told
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", made)


def test_two_names_are_none(harness: Harness) -> None:
    sent = [("X-Request-ID", "a"), ("X-Request-ID", "b")]
    answer = harness.client.request("GET", "/healthz", headers=sent)
    assert answer.headers.get_list("x-request-id") not in (["a"], ["b"], ["a", "b"])


def test_every_answer_has_one_and_no_two_the_same(harness: Harness) -> None:
    paths = ("/healthz", "/metrics", "/nothing", "/worlds", "/worlds/none", "/ui/sign-in")
    found = [harness.call(None, "GET", path).headers.get_list("x-request-id") for path in paths]
    assert [len(each) for each in found] == [1] * len(paths)
    assert len({each[0] for each in found}) == len(paths)


# ---- A gateway, and a real server --------------------------------------------------------------


def test_a_gateway_passes_the_name_on(harness: Harness, tmp_path: Path) -> None:
    with_world(harness)
    bell = harness.services.bell
    with listening(harness.client.app, bell.close) as world:
        gateway = Gateway(world, Spool(tmp_path / "spool"), SystemClock())
        with listening(create_app(gateway), gateway.close) as url, logged(Log.JSON) as lines:
            for path in (f"/worlds/{W}/decide?strategy_id=s1", f"/worlds/{W}", "/nothing"):
                for sent in ({}, {"X-Request-ID": "mine"}):
                    headers = {**harness.headers("rea"), **sent}
                    answer = httpx.get(url + path, headers=headers)
                    (told,) = answer.headers.get_list("x-request-id")
                    assert told == "mine" or not sent
    found = [line["request_id"] for line in requests(lines)]
    assert len(found) == 12, "of each, one of the gateway and one of the world"
    assert {found.count(each) for each in found if each != "mine"} == {2}
    assert found.count("mine") == 6


def test_a_gateway_names_what_it_refuses_itself(tmp_path: Path) -> None:
    gateway = Gateway("http://127.0.0.1:9", Spool(tmp_path / "spool"), SystemClock())
    with listening(create_app(gateway), gateway.close) as url:
        answer = httpx.get(f"{url}/worlds", headers={"X-Request-ID": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (503, "mine")
        told = httpx.get(f"{url}/metrics").text
        assert (
            'qmtl_http_requests_total{method="GET",route="/{path:path}",status="503"} 1.0' in told
        )
        assert "qmtl_gateway_spool_submissions 0.0" in told


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """A real server, and how it is ended: then what it said on stderr."""
    command = [sys.executable, "-m", "qmtl", "serve", "--data", str(data), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None

    def end() -> str:
        process.terminate()
        process.wait(SOON_SEC)  # Before anybody reads.
        return process.communicate(timeout=SOON_SEC)[1]

    try:
        yield next(line for line in process.stdout if READY in line).split()[-1], end
    finally:
        process.kill()
        process.communicate()


def test_a_real_server_writes_objects_and_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--log", "json") as (url, end):
        httpx.get(f"{url}/healthz", headers={"X-Request-ID": "mine"})
        found = [json.loads(line) for line in end().splitlines()]
    (line,) = (each for each in found if each["logger"] == logs.REQUESTS)
    assert (line["request_id"], line["route"], line["status"]) == ("mine", "/healthz", 200)


def test_by_default_a_server_that_is_well_says_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (url, end):
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert end() == ""


def test_a_server_answers_and_ends_though_nobody_reads_its_log(tmp_path: Path) -> None:
    """A pipe holds 64 KiB; what is logged here is several times that."""
    with serving(tmp_path / "data", "--log", "json") as (url, end), httpx.Client() as client:
        began = time.perf_counter()
        for _ in range(1_500):
            assert client.get(f"{url}/healthz").status_code == 200
        assert time.perf_counter() - began < 6 * SOON_SEC
        lines = end().splitlines()
    assert 1 < len(lines) < 1_000, "the pipe was full, and what did not fit is gone"
