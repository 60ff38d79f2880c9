"""Whatever is wrong is refused with its status, said in the detail, and changes nothing."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from qmtl.adapters.wire.fields import Body
from qmtl.core.errors import TooLarge
from qmtl.core.names import Role
from qmtl.entry import door
from tests.http.harness import (
    DAY,
    POLICY,
    START,
    YAML,
    Harness,
    W,
    harness_over,
    stamp,
    submission,
    with_candidate,
    with_world,
)

HUB = f"/risk-hub/worlds/{W}/snapshots"
LIVE = f"/worlds/{W}/promotions/live"
DEEP = json.loads("[" * 30 + "]" * 30)
HEADERS = {"X-Actor": "pat", "X-Stage": "paper"}


def snapshot(**changes: Any) -> dict[str, Any]:
    """A good one, of one strategy, with some of it changed."""
    good = {
        "as_of": stamp(START),
        "version": "v1",
        "weights": {"s1": 1.0},
        "realized_returns": {"s1": {"t": [stamp(START)], "r": [0.01]}},
    }
    return {**good, **changes}


def raw(value: Any) -> bytes:
    """JSON as careless clients write it: with NaN and Infinity."""
    return json.dumps(value).encode()


@dataclass
class Case:
    name: str
    method: str
    path: str
    status: int
    says: str
    body: Any = None
    who: str | None = "admin"
    content: bytes | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[Harness], Any] | None = None


def posted(name: str, status: int, says: str, body: Any = None, **more: Any) -> Case:
    """A snapshot that is refused."""
    more.setdefault("headers", HEADERS)
    return Case(name, "POST", HUB, status, says, body, more.pop("who", "pat"), **more)


def numbers(name: str, value: Any, status: int = 422, says: str = "must be a number") -> list[Case]:
    """Wherever a body has a number, this is none."""
    kind = {"Content-Type": "application/json"}
    bodies = {
        "weight": snapshot(weights={"s1": value}),
        "return": snapshot(realized_returns={"s1": [0.01, value]}),
        "timed return": snapshot(realized_returns={"s1": {"t": [stamp(START)], "r": [value]}}),
        "stress": snapshot(stress={"s1": {"crash": value}}),
        "covariance": snapshot(covariance={"s1,s1": value}),
        "stats": snapshot(stats={"s1": {"trades_total": value}}),
    }
    found = [
        posted(f"{name} as a {where}", status, says, content=raw(b), headers=HEADERS | kind)
        for where, b in bodies.items()
    ]
    metrics = {"strategy_id": "s1", "stage": "backtest", "metrics": {"sharpe_annual": value}}
    path = f"/worlds/{W}/evaluate"
    found.append(
        Case(f"{name} as a metric", "POST", path, status, says, content=raw(metrics), headers=kind)
    )
    bar = {"stage": "paper", "t": stamp(START), "returns": {"s1": value}}
    path = f"/worlds/{W}/returns"
    found.append(
        Case(f"{name} in a bar", "POST", path, status, says, content=raw(bar), headers=kind)
    )
    lease = {"strategy_id": "s1", "weight": value}
    path = f"/worlds/{W}/activation"
    found.append(
        Case(f"{name} as a lease", "PUT", path, status, says, content=raw(lease), headers=kind)
    )
    return found


def first_posted(harness: Harness) -> None:
    harness.ok("pat", "POST", HUB, snapshot(), headers=HEADERS)


BAD_NUMBERS = [
    *numbers("NaN", float("nan"), 400, "not JSON"),
    *numbers("infinity", float("inf"), 400, "not JSON"),
    *numbers("text", "0.5"),
    *numbers("a boolean", True),
]

BAD_SNAPSHOTS = [
    posted("an unknown key", 422, "wieghts: is not known here", snapshot(wieghts={})),
    posted("a key missing", 422, "version: is missing", {"as_of": stamp(START)}),
    posted(
        "an unknown stage",
        422,
        "X-Stage: must be one of",
        snapshot(),
        headers={**HEADERS, "X-Stage": "production"},
    ),
    posted("weights that do not sum", 422, "they sum to 0.9", snapshot(weights={"s1": 0.9})),
    posted("no weights", 422, "weights", snapshot(weights={})),
    posted("an empty series", 422, "0 points", snapshot(realized_returns={"s1": []})),
    posted(
        "an empty series with times",
        422,
        "0 points",
        snapshot(realized_returns={"s1": {"t": [], "r": []}}),
    ),
    posted(
        "a loss above 100 %", 422, "more than 100 %", snapshot(realized_returns={"s1": [-1.01]})
    ),
    posted("a stress loss above 100 %", 422, "stress", snapshot(stress={"s1": {"crash": 1.2}})),
    posted(
        "a negative stress loss", 422, "stress.s1.crash", snapshot(stress={"s1": {"crash": -0.2}})
    ),
    posted(
        "an as_of in the future",
        422,
        "is in the future",
        snapshot(as_of=stamp(START + timedelta(seconds=61))),
    ),
    posted("an as_of without offset", 422, "as_of: must be", snapshot(as_of="2024-01-01T21:00:00")),
    posted("an as_of that is a number", 422, "as_of: must be", snapshot(as_of=1_704_142_800)),
    posted("a TTL of nothing", 422, "ttl_sec", snapshot(ttl_sec=0)),
    posted("a TTL of days", 422, "ttl_sec", snapshot(ttl_sec=86_401)),
    posted("a TTL with a fraction", 422, "ttl_sec: must be a whole", snapshot(ttl_sec=1.5)),
    posted(
        "times without order",
        422,
        "do not strictly increase",
        snapshot(realized_returns={"s1": {"t": [stamp(START)] * 2, "r": [0.1, 0.1]}}),
    ),
    posted(
        "times after as_of",
        422,
        "after as_of",
        snapshot(realized_returns={"s1": {"t": [stamp(START + DAY)], "r": [0.1]}}),
    ),
    posted(
        "naive times",
        422,
        "must be a time with its offset",
        snapshot(realized_returns={"s1": {"t": ["2024-01-01T21:00:00"], "r": [0.1]}}),
    ),
    posted(
        "times that do not exist",
        422,
        "no time that there is",
        snapshot(realized_returns={"s1": {"t": ["2023-02-30T21:00:00Z"], "r": [0.1]}}),
    ),
    posted(
        "fewer times than returns",
        422,
        "1 times for 2 returns",
        snapshot(realized_returns={"s1": {"t": [stamp(START)], "r": [0.1, 0.1]}}),
    ),
    posted(
        "a version collision",
        409,
        "holds other content",
        snapshot(ttl_sec=60),
        before=first_posted,
    ),
    posted(
        "restated history",
        409,
        "differ from the recorded history",
        snapshot(version="v2", realized_returns={"s1": {"t": [stamp(START)], "r": [0.02]}}),
        before=first_posted,
    ),
    posted("a hash mismatch", 422, "hash: it is sha256:", snapshot(hash="sha256:" + "0" * 64)),
    posted("a hash of another kind", 422, "hash: must match", snapshot(hash="md5:00")),
    posted(
        "both a thing and its ref",
        422,
        "not both",
        snapshot(covariance={}, covariance_ref="s3://x"),
    ),
    posted("an unknown strategy", 404, "s9", snapshot(weights={"s9": 1.0})),
    posted("no X-Actor", 400, "X-Actor", snapshot(), headers={"X-Stage": "paper"}),
    posted("no X-Stage", 400, "X-Stage", snapshot(), headers={"X-Actor": "pat"}),
    posted("no headers", 400, "X-Actor and X-Stage", snapshot(), headers={}),
    posted(
        "another's X-Actor",
        403,
        "not the actor of the credential",
        snapshot(),
        headers={**HEADERS, "X-Actor": "ann"},
    ),
    posted("provenance that is too deep", 422, "deep", snapshot(provenance={"a": DEEP})),
]

BAD_REQUESTS = [
    Case("malformed JSON", "POST", "/worlds", 400, "not JSON", content=b'{"id": '),
    Case("JSON that is not UTF-8", "POST", "/worlds", 400, "not JSON", content=b'{"id": "\xff"}'),
    Case("a body that is no object", "POST", "/worlds", 422, "group of keys", content=b"[]"),
    Case("no body", "POST", "/worlds", 400, "not JSON", content=b""),
    Case(
        "another media type",
        "POST",
        "/worlds",
        400,
        "media type",
        content=b"{}",
        headers={"Content-Type": "text/plain"},
    ),
    Case(
        "another encoding",
        "POST",
        "/worlds",
        400,
        "UTF-8",
        content=b"{}",
        headers={"Content-Type": "application/json; charset=latin-1"},
    ),
    Case(
        "a body that is compressed",
        "POST",
        "/worlds",
        400,
        "Content-Encoding",
        content=b"{}",
        headers={"Content-Encoding": "gzip"},
    ),
    Case(
        "a body over the limit",
        "POST",
        "/worlds",
        413,
        "bytes",
        content=b" " * (door.SMALL_BYTES_MAX + 1),
    ),
    Case("an id with a slash", "POST", "/worlds", 422, "id: must match", {"id": "a/b"}),
    Case("the system's own id", "POST", "/worlds", 422, "id: must match", {"id": "_system"}),
    Case("the system's world", "GET", "/worlds/_system", 422, "world_id: must match"),
    Case("a world that is different", "POST", "/worlds", 409, "different", {"id": W, "name": "x"}),
    Case("an unknown world", "GET", "/worlds/beta", 404, "beta"),
    Case("an unknown path", "GET", "/nothing", 404, "no such path"),
    Case("an unknown method", "DELETE", "/worlds", 405, "GET, POST"),
    Case("an unknown parameter", "GET", f"/worlds/{W}/decide?strategy=s1", 422, "'strategy'"),
    Case("a parameter twice", "GET", f"/worlds/{W}/journal?after=1&after=2", 422, "after"),
    Case("a limit of nothing", "GET", f"/worlds/{W}/journal?limit=0", 422, "limit"),
    Case("a limit of too much", "POST", f"/worlds/{W}/campaign/tick?limit=1001", 422, "limit"),
    Case("a cursor of one's own", "GET", "/worlds?cursor=abc", 422, "cursor"),
    Case("a naive as_of", "GET", f"/worlds/{W}/decide?as_of=2024-01-01T00:00:00", 422, "as_of"),
    Case("a change of nothing", "PATCH", f"/worlds/{W}", 422, "give allow_live or state", {}),
    Case("an unknown state", "PATCH", f"/worlds/{W}", 422, "state: must be", {"state": "asleep"}),
    Case(
        "a policy in an evaluation",
        "POST",
        f"/worlds/{W}/evaluate",
        422,
        "policy: is not known",
        {"strategy_id": "s1", "policy": {}},
    ),
    Case(
        "metrics of another stage",
        "POST",
        f"/worlds/{W}/evaluate",
        409,
        "never from a request",
        {"strategy_id": "s1", "stage": "paper", "metrics": {"sharpe_annual": 9.0}},
    ),
    Case(
        "an unknown metric",
        "POST",
        f"/worlds/{W}/evaluate",
        422,
        "unknown luck",
        {"strategy_id": "s1", "stage": "backtest", "metrics": {"luck": 9.0}},
    ),
    Case(
        "an unknown stage of an evaluation",
        "POST",
        f"/worlds/{W}/evaluate",
        422,
        "stage: must be one of",
        {"strategy_id": "s1", "stage": "prod"},
    ),
    Case(
        "an unknown strategy to evaluate",
        "POST",
        f"/worlds/{W}/evaluate",
        404,
        "s9",
        {"strategy_id": "s9"},
    ),
    Case(
        "a cohort with a stranger",
        "POST",
        f"/worlds/{W}/evaluate-cohort",
        404,
        "s9",
        {"campaign_id": "c", "candidates": ["s1", "s9"]},
    ),
    Case(
        "a cohort without a source",
        "POST",
        f"/worlds/{W}/evaluate-cohort",
        422,
        "s2",
        {"campaign_id": "c", "candidates": ["s2"], "stage": "backtest"},
        before=lambda h: h.ok("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "s2"}),
    ),
    *(
        Case(f"a key twice: {path}", "POST", path, 400, "is there twice", content=content, who=who)
        for path, content, who in [
            ("/worlds", '{"id": "beta", "allow_live": false, "allow_live": true}', "admin"),
            (f"/worlds/{W}/evaluate", '{"strategy_id": "s2", "strategy_id": "s1"}', "olga"),
            ("/strategies", json.dumps(submission("s2"))[:-1] + ', "world": "beta"}', "ann"),
            (
                f"/worlds/{W}/returns",
                f'{{"stage": "paper", "t": "{stamp(START)}", "returns": {{"s1": 0.1, "s1": 0}}}}',
                "pat",
            ),
        ]
    ),
    Case(
        "changed code without its backtest",
        "POST",
        f"/worlds/{W}/strategies",
        409,
        "POST /strategies",
        {"strategy_id": "s1", "fingerprint": "other"},
        "ann",
    ),
    Case(
        "changed code of another author",
        "POST",
        "/strategies",
        409,
        "a strategy of ann",
        submission("s1", fingerprint="other"),
        "admin",
    ),
    Case(
        "a submission to an unknown world",
        "POST",
        "/strategies",
        404,
        "beta",
        submission("s1", world="beta"),
        "ann",
    ),
    Case(
        "a submission without times",
        "POST",
        "/strategies",
        422,
        "returns: must be",
        submission("s1", returns=[0.1]),
        "ann",
    ),
    Case(
        "an apply of an unknown run",
        "POST",
        f"{LIVE}/apply",
        404,
        "nope",
        {"strategy_id": "s1", "run_id": "nope"},
    ),
    Case(
        "a demotion upwards",
        "POST",
        f"/worlds/{W}/demote",
        422,
        "to:",
        {"strategy_id": "s1", "to": "live", "reason": "x"},
    ),
    Case(
        "an extension of nonsense",
        "POST",
        f"/worlds/{W}/strategies/s1/extend",
        422,
        "length of time",
        {"by": "soon", "reason": "x"},
    ),
    Case(
        "a lease that nobody applied",
        "PUT",
        f"/worlds/{W}/activation",
        409,
        "only a promotion",
        {"strategy_id": "s1", "active": True},
    ),
    Case(
        "a sequence that was never issued",
        "POST",
        f"/worlds/{W}/activation/ack",
        422,
        "has not been issued",
        {"strategy_id": "s1", "sequence": 10_000},
    ),
    Case(
        "an unknown default policy",
        "POST",
        f"/worlds/{W}/set-default",
        404,
        "version 7",
        {"version": 7},
    ),
    Case("an unknown confirmation", "POST", f"/worlds/{W}/confirmations/abc123", 404, "abc123"),
    Case("a clock backwards", "POST", "/clock", 409, "forward", {"now": stamp(START - DAY)}),
    Case("an unknown token", "DELETE", "/tokens/" + "0" * 64, 404, "000000000000"),
    Case("a token of no role", "POST", "/tokens", 422, "roles", {"actor": "x", "roles": []}),
    Case(
        "a token of an unknown role",
        "POST",
        "/tokens",
        422,
        "must be one of",
        {"actor": "x", "roles": ["root"]},
    ),
    Case(
        "an idempotency key with spaces",
        "POST",
        "/worlds",
        422,
        "Idempotency-Key",
        {"id": "beta"},
        headers={"Idempotency-Key": "a b"},
    ),
    Case(
        "a restatement of a stranger",
        "POST",
        f"/risk-hub/worlds/{W}/restatements",
        404,
        "s9",
        {"stage": "paper", "strategy": "s9", "t": [stamp(START)], "r": [0.1], "reason": "x"},
    ),
    Case(
        "a restatement by its producer",
        "POST",
        f"/risk-hub/worlds/{W}/restatements",
        403,
        "operator",
        {"stage": "paper", "strategy": "s1", "t": [stamp(START)], "r": [0.1], "reason": "x"},
        "pat",
    ),
]

MISSPELT = POLICY.replace("max_drawdown: {max: 0.5}", "max_drawdwon: {max: 0.5}")
BAD_POLICIES = [
    Case(f"a policy: {name}", "POST", f"/worlds/{W}/policies", *told, content=text, headers=YAML)
    for name, told, text in [
        ("a misspelt gate", (422, "max_drawdwon"), MISSPELT),
        ("malformed YAML", (400, "not YAML"), "version: [1"),
        ("an alias", (400, "anchors"), "version: &a 1\nx: *a\n"),
        ("a key twice", (400, "twice"), "version: 1\nversion: 1\n"),
        ("infinite", (422, "finite"), POLICY.replace("{max: 0.5}", "{max: 1e999}")),
        ("a number that is text", (422, "number"), POLICY.replace("{max: 0.5}", "{max: '0.5'}")),
        ("another version", (422, "version"), POLICY.replace("version: 1", "version: 2")),
        ("too long", (413, "bytes"), POLICY + "#" * 70_000),
    ]
] + [
    Case(
        "a policy: malformed JSON",
        "POST",
        f"/worlds/{W}/policies",
        400,
        "not JSON",
        content=b"{",
        headers={"Content-Type": "application/json"},
    ),
    Case(
        "a policy: another media type",
        "POST",
        f"/worlds/{W}/policies",
        400,
        "media type",
        content=POLICY,
        headers={"Content-Type": "text/html"},
    ),
    Case(
        "a policy: by an admin",
        "POST",
        f"/worlds/{W}/policies",
        403,
        "policy-admin",
        content=POLICY,
        headers=YAML,
        who="adam",
    ),
]

BAD_CREDENTIALS = [
    Case("no credential", "GET", f"/worlds/{W}", 401, "Bearer", who=None),
    Case("no credential, no world", "GET", "/worlds/beta", 401, "Bearer", who=None),
    Case("no credential, bad body", "POST", "/worlds", 401, "Bearer", who=None, content=b"{"),
    Case(
        "a wrong credential",
        "GET",
        f"/worlds/{W}",
        401,
        "unknown, revoked or expired",
        who=None,
        headers={"Authorization": "Bearer qmtl_nobody"},
    ),
    Case(
        "another scheme",
        "GET",
        f"/worlds/{W}",
        401,
        "Bearer",
        who=None,
        headers={"Authorization": "Basic YTpi"},
    ),
    Case("a reader who kills", "POST", f"/worlds/{W}/kill", 403, "operator", {}, "rea"),
    Case("an author who produces", "POST", HUB, 403, "producer", snapshot(), "ann"),
    Case("a reader who submits", "POST", "/strategies", 403, "author", {}, "rea"),
    Case("an operator's tokens", "GET", "/tokens", 403, "admin", None, "olga"),
    Case(
        "an admin who would be policy-admin",
        "POST",
        "/tokens",
        403,
        "no other role implies it",
        {"actor": "eve", "roles": ["policy-admin"]},
        "adam",
    ),
    Case(
        "an admin who allows live",
        "PATCH",
        f"/worlds/{W}",
        403,
        "policy-admin",
        {"allow_live": True},
        "adam",
        before=lambda h: h.ok("adam", "PATCH", f"/worlds/{W}", {"allow_live": False}),
    ),
    Case(
        "a policy-admin who suspends",
        "PATCH",
        f"/worlds/{W}",
        403,
        "state takes",
        {"state": "suspended"},
        "polly",
    ),
    Case(
        "a credential of another world",
        "GET",
        f"/worlds/{W}",
        403,
        "not for world alpha",
        None,
        "zoe",
        before=lambda h: (
            h.ok("admin", "POST", "/worlds", {"id": "beta"}),
            h.token("zoe", *Role, world="beta"),
        ),
    ),
    Case(
        "a submission with a credential of another world",
        "POST",
        "/strategies",
        403,
        "not for world alpha",
        submission("s1"),
        "zoe",
        before=lambda h: (
            h.ok("admin", "POST", "/worlds", {"id": "beta"}),
            h.token("zoe", *Role, world="beta"),
        ),
    ),
]

# Wherever a person's sentence, or a name, is taken: what it may not hold, and where it may not.
RUN = {"strategy_id": "s1", "run_id": "r"}
SENTENCES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "approval": ("POST", f"{LIVE}/approve", RUN),
    "rejection": ("POST", f"{LIVE}/reject", RUN),
    "release": ("POST", f"{LIVE}/release", RUN),
    "kill": ("POST", f"/worlds/{W}/kill", {}),
    "resumption": ("POST", f"/worlds/{W}/resume", {}),
    "demotion": ("POST", f"/worlds/{W}/demote", {"strategy_id": "s1", "to": "paper"}),
    "extension": ("POST", f"/worlds/{W}/strategies/s1/extend", {"by": "30d"}),
    "restatement": (
        "POST",
        f"/risk-hub/worlds/{W}/restatements",
        {"stage": "paper", "strategy": "s1", "t": [stamp(START)], "r": [0.01]},
    ),
}
STEERS = {"an escape": "\x1b", "a bell": "\x07", "a lone return": "\r", "an override": "\u202e"}
STEERS |= {"a delete": "\x7f", "a NUL": "\0", "a C1 control": "\x9b", "an isolate": "\u2066"}
BAD_SENTENCES = [
    Case(
        f"{kind} in a reason of a {where}",
        method,
        path,
        422,
        f"reason: must not hold the character U+{ord(sign):04X}",
        {**body, "reason": f"all is well{sign}[2J"},
    )
    for where, (method, path, body) in SENTENCES.items()
    for kind, sign in STEERS.items()
]
BAD_SENTENCES += [
    Case(f"{kind} in a {key}", "POST", "/worlds", 422, f"{key}: must not hold", {"id": "b", **body})
    for kind, sign in STEERS.items()
    for key, body in (("name", {"name": f"a{sign}"}), ("description", {"description": f"a{sign}"}))
]
BAD_SENTENCES.append(
    Case("a name of two lines", "POST", "/worlds", 422, "one line", {"id": "b", "name": "a\nb"})
)

CASES = [
    *BAD_NUMBERS,
    *BAD_SENTENCES,
    *BAD_SNAPSHOTS,
    *BAD_REQUESTS,
    *BAD_POLICIES,
    *BAD_CREDENTIALS,
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One world for all of them: they change nothing, each proves it, and what comes before one
    does not meet the others."""
    with harness_over("memory", Path(tmp_path_factory.mktemp("bad"))) as harness:
        with_world(harness)
        yield harness


def refused(harness: Harness, case: Case) -> None:
    if case.before is not None:
        case.before(harness)
    before = harness.state()
    answer = harness.call(
        case.who,
        case.method,
        case.path,
        case.body,
        content=case.content,
        headers=case.headers,
    )
    problem = answer.json()
    assert answer.status_code == case.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "reasons", "details"}
    assert problem["status"] == case.status
    assert case.says in problem["detail"]
    assert ("www-authenticate" in answer.headers) == (case.status == 401)
    assert harness.state() == before


@pytest.mark.parametrize("case", [c for c in CASES if c.before is None], ids=lambda c: c.name)
def test_it_is_refused_and_changes_nothing(made: Harness, case: Case) -> None:
    refused(made, case)


@pytest.mark.parametrize("case", [c for c in CASES if c.before is not None], ids=lambda c: c.name)
def test_after_something_it_is_refused_and_changes_nothing(harness: Harness, case: Case) -> None:
    with_world(harness)
    refused(harness, case)


def test_a_reason_may_have_lines_and_every_language(harness: Harness) -> None:
    with_world(harness)
    reason = (
        "first\nsecond\r\n\tthird: \u05e9\u05dc\u05d5\u05dd, \u00e9, \U0001f469\u200d\U0001f467"
    )
    harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": reason})
    fact = harness.store.journal(W, harness.store.load(W).seq - 1, 1)[0].fact  # type: ignore[arg-type]  # A WorldId.
    assert (fact.kind, fact.reason) == ("killed", reason)


def bodies_of(kind: type[Body]) -> Iterator[type[Body]]:
    for each in kind.__subclasses__():
        yield each
        yield from bodies_of(each)


def test_no_body_takes_a_text_that_nobody_bounds() -> None:
    """Each text of each body has a pattern or a list of words: a new one is not forgotten."""

    def texts(schema: Any, where: str) -> Iterator[tuple[str, Any]]:
        if isinstance(schema, dict):
            if schema.get("type") == "string":
                yield where, schema
            for key, part in schema.items():
                yield from texts(part, f"{where}.{key}")
        elif isinstance(schema, list):
            for part in schema:
                yield from texts(part, where)

    bounded = {"pattern", "enum", "const", "format"}
    found = [
        (where, schema)
        for body in bodies_of(Body)
        if body.__module__.startswith("qmtl.adapters.wire")  # Others are files of this machine.
        for where, schema in texts(body.model_json_schema(), body.__name__)
    ]
    assert len(found) > 40
    assert [where for where, schema in found if not bounded & set(schema)] == []


def test_the_author_cannot_approve(harness: Harness) -> None:
    with_world(harness)
    run_id = with_candidate(harness)
    harness.token("ann", Role.AUTHOR, Role.APPROVER)
    body = {"strategy_id": "s1", "run_id": run_id, "reason": "it is mine"}
    refused(harness, Case("", "POST", f"{LIVE}/approve", 403, "the author", body, "ann"))
    harness.token("olga", Role.OPERATOR, Role.APPROVER)
    refused(harness, Case("", "POST", f"{LIVE}/approve", 403, "the proposer", body, "olga"))
    refused(harness, Case("", "POST", f"{LIVE}/approve", 403, "approver", body, "rea"))


def test_evidence_that_changed_is_not_approved(harness: Harness) -> None:
    with_world(harness)
    run_id = with_candidate(harness)
    body = {"strategy_id": "s1", "run_id": run_id, "reason": "x", "evidence_digest": "abc"}
    refused(harness, Case("", "POST", f"{LIVE}/approve", 412, "evidence has changed", body, "al"))


def test_a_body_is_not_read_to_its_end_once_it_is_too_long() -> None:
    parts = 0

    async def receive() -> dict[str, Any]:
        nonlocal parts
        parts += 1
        return {"type": "http.request", "body": b" " * 1_000, "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(TooLarge):
        asyncio.run(door.body_of(request, 10_000))
    assert parts == 11


def test_several_problems_are_said_at_once(harness: Harness) -> None:
    with_world(harness)
    body = snapshot(weights={"s1": 0.5}, ttl_sec=5, as_of=stamp(START + DAY))
    answer = harness.call("pat", "POST", HUB, body, headers=HEADERS)
    assert "in the future" in answer.json()["detail"]
    assert "sum to 0.5" in answer.json()["detail"]
