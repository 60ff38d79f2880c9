"""The HTTP client against a transport that answers as it is told to."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.adapters import client as client_module
from qmtl.adapters.client import (
    PAGES_MAX,
    TRIES_MAX,
    ApiError,
    Away,
    BadAddress,
    Client,
    checked,
    is_loopback,
)

URL = "http://world.test"
PROBLEM = {
    "type": "urn:qmtl:problem:blocked",
    "title": "The promotion is blocked.",
    "status": 409,
    "detail": "no",
    "reasons": ["held", "cooldown_active"],
    "details": ["it is held", "12 s are left"],
}

Handler = Callable[[httpx.Request], httpx.Response]


def connected(handler: Handler, **options: Any) -> Client:
    slept: list[float] = options.pop("slept", [])
    transport = httpx.MockTransport(handler)
    return Client(URL, "secret", transport=transport, sleep=slept.append, **options)


def answers(*responses: httpx.Response) -> tuple[Handler, list[httpx.Request]]:
    """A handler that answers with these in turn, the last one again and again; what it was sent."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return responses[min(len(seen), len(responses)) - 1]

    return handler, seen


# ---- What is sent ----------------------------------------------------------------------------

CALLS: list[tuple[Callable[[Client], Any], str, str]] = [
    (lambda c: list(c.worlds()), "GET", "/worlds"),
    (lambda c: c.world("w"), "GET", "/worlds/w"),
    (lambda c: c.world("a b/c"), "GET", "/worlds/a%20b%2Fc"),
    (lambda c: c.create_world("w", name="n", allow_live=True), "POST", "/worlds"),
    (lambda c: c.change_world("w", allow_live=False), "PATCH", "/worlds/w"),
    (lambda c: c.confirm("w", "1f"), "POST", "/worlds/w/confirmations/1f"),
    (lambda c: list(c.policies("w")), "GET", "/worlds/w/policies"),
    (lambda c: c.policy("w", 2), "GET", "/worlds/w/policies/2"),
    (lambda c: c.add_policy("w", "version: 1"), "POST", "/worlds/w/policies"),
    (lambda c: c.set_default("w", 2), "POST", "/worlds/w/set-default"),
    (lambda c: list(c.strategies("w")), "GET", "/worlds/w/strategies"),
    (lambda c: c.submit({"strategy_id": "s"}), "POST", "/strategies"),
    (
        lambda c: c.post_returns("w", stage="paper", t="2024-01-01T00:00:00Z", returns={"s": 0.1}),
        "POST",
        "/worlds/w/returns",
    ),
    (
        lambda c: c.post_snapshot("w", {}, stage="paper", actor="a"),
        "POST",
        "/risk-hub/worlds/w/snapshots",
    ),
    (lambda c: list(c.snapshots("w")), "GET", "/risk-hub/worlds/w/snapshots"),
    (lambda c: c.latest_snapshot("w", stage="paper"), "GET", "/risk-hub/worlds/w/snapshots/latest"),
    (lambda c: c.evaluate("w", {"strategy_id": "s"}), "POST", "/worlds/w/evaluate"),
    (lambda c: list(c.runs("w", "s")), "GET", "/worlds/w/strategies/s/runs"),
    (lambda c: c.status("w", "s"), "GET", "/worlds/w/campaign/status"),
    (lambda c: list(c.tick_pages("w")), "POST", "/worlds/w/campaign/tick"),
    (lambda c: c.extend("w", "s", "9d", "why"), "POST", "/worlds/w/strategies/s/extend"),
    (lambda c: list(c.candidates("w")), "GET", "/worlds/w/promotions/live/candidates"),
    (lambda c: c.plan("w", "s"), "GET", "/worlds/w/promotions/live/plan"),
    (
        lambda c: c.approve("w", strategy_id="s", run_id="r", reason="y"),
        "POST",
        "/worlds/w/promotions/live/approve",
    ),
    (
        lambda c: c.withdraw("w", strategy_id="s", run_id="r"),
        "DELETE",
        "/worlds/w/promotions/live/approve",
    ),
    (
        lambda c: c.reject("w", strategy_id="s", run_id="r", reason="y"),
        "POST",
        "/worlds/w/promotions/live/reject",
    ),
    (
        lambda c: c.release("w", strategy_id="s", reason="y"),
        "POST",
        "/worlds/w/promotions/live/release",
    ),
    (
        lambda c: c.apply("w", strategy_id="s", run_id="r"),
        "POST",
        "/worlds/w/promotions/live/apply",
    ),
    (lambda c: c.auto_apply("w"), "POST", "/worlds/w/promotions/live/auto-apply"),
    (lambda c: c.demote("w", "s", to="paper", reason="y"), "POST", "/worlds/w/demote"),
    (lambda c: c.kill("w", "y"), "POST", "/worlds/w/kill"),
    (lambda c: c.resume("w", "y"), "POST", "/worlds/w/resume"),
    (lambda c: c.decide("w"), "GET", "/worlds/w/decide"),
    (lambda c: c.decide_one("w", "s"), "GET", "/worlds/w/decide"),
    (lambda c: list(c.journal("w")), "GET", "/worlds/w/journal"),
    (lambda c: c.journal_head("w"), "GET", "/worlds/w/journal/head"),
    (lambda c: c.journal_key(), "GET", "/journal/key"),
    (
        lambda c: c.acknowledge("w", strategy_id="s", sequence=4),
        "POST",
        "/worlds/w/activation/ack",
    ),
    (lambda c: c.clock(), "GET", "/clock"),
    (lambda c: c.set_clock(datetime(2024, 1, 1, tzinfo=UTC)), "POST", "/clock"),
    (lambda c: list(c.tokens()), "GET", "/tokens"),
    (lambda c: c.create_token(actor="a", roles=["reader"], world="w"), "POST", "/tokens"),
    (lambda c: c.revoke_token("ab"), "DELETE", "/tokens/ab"),
]
NOUNS = (
    "worlds", "policies", "strategies", "snapshots", "runs", "candidates", "decisions", "entries",
    "tokens", "actions",
)  # fmt: skip


@pytest.mark.parametrize(("call", "method", "path"), CALLS)
def test_each_call_is_its_route(call: Callable[[Client], Any], method: str, path: str) -> None:
    whole = {**{noun: [] for noun in NOUNS}, "next_cursor": None}
    handler, seen = answers(httpx.Response(200, json=whole))
    with connected(handler) as client:
        call(client)
    assert (seen[0].method, seen[0].url.raw_path.decode().partition("?")[0]) == (method, path)
    assert seen[0].headers["Authorization"] == "Bearer secret"


def body_of(call: Callable[[Client], Any]) -> httpx.Request:
    handler, seen = answers(httpx.Response(200, json={}))
    with connected(handler) as client:
        call(client)
    return seen[0]


def test_what_is_not_given_is_not_sent() -> None:
    sent = body_of(lambda c: c.create_world("w", name=None, allow_live=None))
    assert sent.content == b'{"id":"w"}'
    assert not body_of(lambda c: c.status("w")).url.params


def test_times_go_out_in_utc() -> None:
    sent = body_of(lambda c: c.set_clock(datetime.fromisoformat("2024-01-01T02:00:00+02:00")))
    assert sent.content == b'{"now":"2024-01-01T00:00:00Z"}'


def test_a_policy_goes_out_as_it_is_written() -> None:
    sent = body_of(lambda c: c.add_policy("w", "version: 1  # one\n"))
    assert sent.content == b"version: 1  # one\n"
    assert sent.headers["Content-Type"] == "application/yaml"


def test_a_snapshot_says_whose_and_of_which_stage() -> None:
    sent = body_of(lambda c: c.post_snapshot("w", {}, stage="live", actor="desk"))
    assert (sent.headers["X-Actor"], sent.headers["X-Stage"]) == ("desk", "live")


def test_nan_never_leaves() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        body_of(lambda c: c.submit({"r": float("nan")}))


def test_an_idempotency_key_is_sent_when_given() -> None:
    sent = body_of(lambda c: c.send("POST", "/worlds", body={}, idempotency_key="k"))
    assert sent.headers["Idempotency-Key"] == "k"


def test_a_decision_is_never_out_of_a_proxys_memory() -> None:
    whole = {"decisions": []}
    handler, seen = answers(httpx.Response(200, json=whole))
    with connected(handler) as client:
        client.decide("w")
    assert seen[0].headers["Cache-Control"] == "no-cache"


def test_url_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMTL_URL", "https://elsewhere.test/base/")
    monkeypatch.setenv("QMTL_TOKEN", "from-env")
    handler, seen = answers(httpx.Response(200, json={}))
    with Client(transport=httpx.MockTransport(handler)) as client:
        client.world("w")
    assert str(seen[0].url) == "https://elsewhere.test/base/worlds/w"
    assert seen[0].headers["Authorization"] == "Bearer from-env"


# ---- What comes back -------------------------------------------------------------------------


def test_a_refusal_says_every_reason() -> None:
    handler, _ = answers(httpx.Response(409, json=PROBLEM))
    with connected(handler) as client, pytest.raises(ApiError) as caught:
        client.apply("w", strategy_id="s", run_id="r")
    error = caught.value
    assert (error.status, error.title) == (409, "The promotion is blocked.")
    assert error.reasons == ("held", "cooldown_active")
    assert error.details == ("it is held", "12 s are left")


NOT_QMTL = [
    httpx.Response(200, text="<html>welcome</html>"),
    httpx.Response(200, json=[1, 2]),
    httpx.Response(200, content=b'{"weight": NaN}'),
    httpx.Response(302, headers={"Location": "http://login.test"}),
    httpx.Response(418, text="a teapot"),
]


@pytest.mark.parametrize("response", NOT_QMTL)
def test_what_no_qmtl_answers_is_an_error(response: httpx.Response) -> None:
    handler, seen = answers(response)
    with connected(handler) as client, pytest.raises(ApiError):
        client.world("w")
    assert len(seen) == 1, "a redirect is not followed: it would take the credential along"


def test_an_empty_answer_is_empty() -> None:
    handler, _ = answers(httpx.Response(204))
    with connected(handler) as client:
        assert client.revoke_token("ab") == {}


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_cannot_work_is_away(status: int) -> None:
    handler, _ = answers(httpx.Response(status, json={"title": "Busy"}))
    with connected(handler) as client, pytest.raises(Away):
        client.world("w")


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.RemoteProtocolError("x")]
)
def test_nobody_who_answers_is_away(error: httpx.TransportError) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    with connected(handler) as client, pytest.raises(Away, match="does not answer"):
        client.world("w")


def test_a_server_that_says_when_is_asked_again_then() -> None:
    later = httpx.Response(503, headers={"Retry-After": "1"}, json={})
    handler, seen = answers(later, httpx.Response(200, json={"id": "w"}))
    slept: list[float] = []
    with connected(handler, slept=slept) as client:
        assert client.world("w") == {"id": "w"}
    assert (len(seen), slept) == (2, [1.0])


def test_it_is_not_asked_for_ever() -> None:
    handler, seen = answers(httpx.Response(503, headers={"Retry-After": "0"}, json={}))
    with connected(handler) as client, pytest.raises(Away):
        client.world("w")
    assert len(seen) == TRIES_MAX


@pytest.mark.parametrize("when", ["", "3600", "-1", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_it_is_not_waited_for_long(when: str) -> None:
    handler, seen = answers(httpx.Response(429, headers={"Retry-After": when}, json=PROBLEM))
    slept: list[float] = []
    with connected(handler, slept=slept) as client, pytest.raises(ApiError):
        client.world("w")
    assert (len(seen), slept) == (1, [])


# ---- Pages -----------------------------------------------------------------------------------


def test_pages_are_followed_to_their_end() -> None:
    handler, seen = answers(
        httpx.Response(200, json={"worlds": [{"id": "a"}], "next_cursor": "1"}),
        httpx.Response(200, json={"worlds": [{"id": "b"}], "next_cursor": None}),
    )
    with connected(handler) as client:
        assert [world["id"] for world in client.worlds()] == ["a", "b"]
    assert [request.url.params.get("cursor") for request in seen] == [None, "1"]


def test_a_tick_pages_by_post() -> None:
    handler, seen = answers(
        httpx.Response(200, json={"actions": [1], "next_cursor": "1"}),
        httpx.Response(200, json={"actions": [2], "next_cursor": None}),
    )
    with connected(handler) as client:
        assert [page["actions"] for page in client.tick_pages("w", limit=1)] == [[1], [2]]
    assert dict(seen[1].url.params) == {"limit": "1", "cursor": "1"}


def test_the_journal_pages_by_seq() -> None:
    handler, seen = answers(
        httpx.Response(200, json={"entries": [{"seq": 6}, {"seq": 7}], "next_cursor": "7"}),
        httpx.Response(200, json={"entries": [{"seq": 8}], "next_cursor": None}),
    )
    with connected(handler) as client:
        assert [entry["seq"] for entry in client.journal("w", after=5)] == [6, 7, 8]
    assert [request.url.params["after"] for request in seen] == ["5", "7"]


def test_pages_in_a_circle_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGES_MAX", 3)
    handler, seen = answers(httpx.Response(200, json={"worlds": [], "next_cursor": "0"}))
    with connected(handler) as client, pytest.raises(ApiError, match="more than 3 pages"):
        list(client.worlds())
    assert len(seen) == 3 < PAGES_MAX
    handler, seen = answers(httpx.Response(200, json={"entries": [{"seq": 1}], "next_cursor": "1"}))
    with connected(handler) as client, pytest.raises(ApiError, match="more than 3 pages"):
        list(client.journal("w"))
    assert len(seen) == 3


# ---- Actions ---------------------------------------------------------------------------------

ACTION = {
    "suggested_method": "POST",
    "suggested_endpoint": "/worlds/w/evaluate",
    "suggested_params": {},
    "suggested_body": {"strategy_id": "s", "run_id": "r", "stage": "paper"},
    "idempotency_key": "evaluate:w:s:paper:r",
}


def test_an_action_is_sent_as_suggested_and_without_an_idempotency_key() -> None:
    sent = body_of(lambda c: c.execute(ACTION))
    assert (sent.method, sent.url.path) == ("POST", "/worlds/w/evaluate")
    assert sent.content == b'{"strategy_id":"s","run_id":"r","stage":"paper"}'
    assert "Idempotency-Key" not in sent.headers


@pytest.mark.parametrize(
    ("method", "endpoint"),
    [
        ("POST", "http://evil.test/worlds/w/evaluate"),
        ("POST", "//evil.test/worlds/w"),
        ("POST", "/tokens"),
        ("POST", "/worlds/../tokens"),
        ("DELETE", "/worlds/w/evaluate"),
    ],
)
def test_a_credential_goes_where_actions_lead_only(method: str, endpoint: str) -> None:
    handler, seen = answers(httpx.Response(200, json={}))
    action = {**ACTION, "suggested_method": method, "suggested_endpoint": endpoint}
    with connected(handler) as client, pytest.raises(ApiError, match="a tick suggests"):
        client.execute(action)
    assert not seen


# ---- Addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "8321", "ftp://x", "http://", "http://h:port", "http://[::1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadAddress):
        checked(url)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8321", True),
        ("http://127.1.2.3", True),
        ("http://localhost:1", True),
        ("http://[::1]:8321", True),
        ("http://127.0.0.1.evil.test", False),
        ("http://localhost.evil.test", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
    ],
)
def test_only_this_machine_is_loopback(url: str, here: bool) -> None:
    assert is_loopback(url) is here


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the admin token that a server on this machine left."""
    monkeypatch.setenv("QMTL_DATA", str(tmp_path))
    monkeypatch.delenv("QMTL_TOKEN", raising=False)
    (tmp_path / "admin.token").write_text("left-here\n")
    return tmp_path


def sent(client: Client) -> str | None:
    value: str | None = client._http.headers.get("Authorization")
    return value


def test_on_this_machine_the_token_that_the_server_left_serves(left: Path) -> None:
    for url in (None, "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:1"):
        with Client(url) as client:
            assert sent(client) == "Bearer left-here"


def test_to_another_machine_it_never_goes(left: Path) -> None:
    for url in ("https://qmtl.example.org", "http://10.0.0.7:8080", "http://localhost.example.org"):
        with Client(url) as client:
            assert sent(client) is None


def test_ones_own_token_comes_first(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMTL_TOKEN", "mine")
    with Client("http://127.0.0.1:1") as client:
        assert sent(client) == "Bearer mine"
    with Client("http://127.0.0.1:1", token="given") as client:
        assert sent(client) == "Bearer given"
