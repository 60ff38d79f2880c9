"""What every answer carries, and by what names a server may be called."""

from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from qmtl.adapters.clock import SystemClock
from qmtl.entry import guard, proxy
from qmtl.entry.guard import host_of
from qmtl.entry.http import create_app
from qmtl.entry.proxy import Gateway
from qmtl.entry.spool import Spool
from qmtl.entry.wiring import Settings, hosts_of, opened
from tests.http.harness import Harness, W, with_world
from tests.servers import served


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        ("rea", "GET", "/worlds", 200),
        ("rea", "GET", f"/worlds/{W}/decide", 200),
        ("admin", "GET", "/tokens", 200),
        ("admin", "POST", "/tokens", 400),
        (None, "GET", "/worlds", 401),
        ("rea", "POST", f"/worlds/{W}/kill", 403),
        ("rea", "GET", "/nothing", 404),
        ("rea", "PUT", "/worlds", 405),
        ("rea", "OPTIONS", "/worlds", 405),
        (None, "GET", "/healthz", 200),
        (None, "GET", "/metrics", 200),
        (None, "GET", "/openapi.json", 200),
    ],
)
def test_every_answer_tells_browsers_to_do_nothing(
    harness: Harness, who: str | None, method: str, path: str, status: int
) -> None:
    with_world(harness)
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = harness.call(who, method, path, headers=origin)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    reads = method == "GET" and status == 200 and who is not None
    assert answer.headers["cache-control"] == ("no-cache" if reads else "no-store")
    assert "strict-transport-security" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert "server" not in answer.headers


def test_a_bug_says_nothing_of_itself_and_tells_browsers_as_much(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_given: object) -> None:
        raise AssertionError("where the secret is")

    monkeypatch.setattr(type(harness.store), "load", broken)
    client = TestClient(harness.client.app, raise_server_exceptions=False)
    answer = client.get("/readyz")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["content-security-policy"] == guard.HEADERS["Content-Security-Policy"]
    assert "where the secret is" in caplog.text, "the log says more"


def test_behind_tls_browsers_are_told_to_stay_there(tmp_path: Path) -> None:
    (tmp_path / "auth.toml").write_text('https = true\nhosts = ["qmtl.example.com"]\n')
    what = opened(Settings(memory=True, auth=tmp_path / "auth.toml"))
    with TestClient(what.app, base_url="http://qmtl.example.com") as client:
        told = client.get("/healthz").headers
    assert told["strict-transport-security"] == "max-age=31536000; includeSubDomains"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:8321", "localhost"),
        ("qmtl.example.com.", "qmtl.example.com"),
        ("127.0.0.1:8321", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:8321", "[::1]"),
        ("", ""),
        (":80", ":80"),
        ("localhost:evil", "localhost:evil"),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_of(header) == name


def test_which_names_there_are() -> None:
    loopback = {"localhost", "127.0.0.1", "[::1]"}
    assert hosts_of(Settings(), ()) == loopback
    assert hosts_of(Settings(host="127.0.0.2"), ["qmtl"]) == loopback | {"127.0.0.2", "qmtl"}
    assert hosts_of(Settings(host="0.0.0.0"), ()) is None, "nobody said"
    assert hosts_of(Settings(host="0.0.0.0"), ["qmtl"]) == {"qmtl"}


def test_a_name_that_leads_here_is_not_this_server(tmp_path: Path) -> None:
    """A page of evil.example, whose name was pointed at 127.0.0.1, gets nothing to read."""
    with served(tmp_path / "data") as started:
        port = started.url.rpartition(":")[2]
        for host, status in [
            (f"127.0.0.1:{port}", 200),
            (f"localhost:{port}", 200),
            ("[::1]", 200),
            (f"evil.example:{port}", 400),
            ("127.0.0.1.evil.example", 400),
            ("", 400),
        ]:
            headers = {**started.headers, "Host": host}
            for path in ("/worlds", "/metrics"):
                answer = httpx.get(started.url + path, headers=headers)
                assert answer.status_code == status, host
                assert answer.headers["x-frame-options"] == "DENY"


def test_so_for_a_gateway(tmp_path: Path) -> None:
    gateway = Gateway("http://127.0.0.1:1", Spool(tmp_path), SystemClock())
    app = proxy.create_app(gateway, frozenset({"testserver"}), https=True)
    with TestClient(app) as client:
        for path, status in (("/healthz", 200), ("/worlds", 503)):
            answer = client.get(path)
            assert answer.status_code == status
            assert set(guard.HEADERS) <= {name.title() for name in answer.headers}
            assert "strict-transport-security" in answer.headers
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400


def test_an_application_that_nobody_named_answers_to_any(harness: Harness) -> None:
    assert harness.services.hosts is None
    with TestClient(create_app(harness.services), base_url="http://anything") as client:
        assert client.get("/healthz").status_code == 200
