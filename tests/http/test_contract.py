"""The shapes that HTTP.md promises, key by key, and what the hub promises about its snapshots."""

import hashlib
from datetime import timedelta
from typing import Any

import pytest
import rfc8785

from tests.http.harness import (
    DAY,
    START,
    Harness,
    W,
    stamp,
    submission,
    with_candidate,
    with_live,
    with_world,
)

LIVE = f"/worlds/{W}/promotions/live"
HUB = f"/risk-hub/worlds/{W}"
HEADERS = {"X-Actor": "pat", "X-Stage": "paper"}
WINDOW = {
    *("window", "required_sec", "observed_sec", "observations", "required_observations"),
    *("progress", "started_at", "ended_at", "satisfied"),
}
STATUS = {
    *("strategy_id", "phase", "entered_at", "latest_backtest_run_id", "latest_paper_run_id"),
    *("latest_live_run_id", "backtest", "paper", "live", "metrics", "evidence"),
    *("promotable_to_paper", "promotable_to_live", "reasons"),
}
ACTION = {
    *("action", "reason", "strategy_id", "stage", "idempotency_key", "requires"),
    *("suggested_run_id", "suggested_method", "suggested_endpoint", "suggested_params"),
    *("suggested_body", "evidence"),
}
ENVELOPE = {
    *("world_id", "strategy_id", "policy_version", "effective_mode", "execution_domain"),
    *("weight", "reason", "reasons", "generation", "as_of", "issued_at", "expires_at", "ttl"),
    *("etag", "ramp_fraction", "downgraded", "safe_mode"),
}
EVALUATED = {
    *("run_id", "verdict", "reasons", "active", "evaluation_run_id", "evaluation_run_url"),
    *("phase", "details"),
}


@pytest.fixture
def ready(harness: Harness) -> Harness:
    with_world(harness)
    return harness


def test_status(ready: Harness) -> None:
    with_candidate(ready)
    told = ready.ok("rea", "GET", f"/worlds/{W}/campaign/status")
    assert {"world_id", "generated_at", "config", "strategies"} <= set(told)
    (status,) = told["strategies"]
    assert set(status) >= STATUS
    for phase in ("backtest", "paper", "live"):
        assert set(status[phase]) == WINDOW
    assert status["paper"]["satisfied"] is True
    assert status["paper"]["window"] == "10d"
    assert isinstance(status["metrics"]["sharpe"], float)
    assert isinstance(status["metrics"]["max_drawdown"], float)
    assert status["evidence"] is None
    unknown = ready.call("rea", "GET", f"/worlds/{W}/campaign/status?strategy_id=s9")
    assert unknown.status_code == 404


EXPLANATION = {
    *("world_id", "strategy_id", "as_of", "phase", "since", "sentences", "waits_for"),
    "would_stop",
}


def test_explain(ready: Harness) -> None:
    path = f"/worlds/{W}/strategies/s1/explain"
    told = ready.ok("rea", "GET", path)
    assert set(told) == EXPLANATION
    assert (told["world_id"], told["strategy_id"]) == (W, "s1")
    assert (told["phase"], told["since"], told["as_of"]) == (
        "paper_campaign",
        stamp(START),
        stamp(START),
    )
    assert told["sentences"][0] == "s1 is on paper since 2024-01-01."
    (window, count) = told["waits_for"]
    assert window == {
        "reason": "paper_window_incomplete",
        "sentence": "Paper window: 0.0 of 10.0 days observed; no paper return has come yet.",
        "share": 0.0,
        "reached_at": None,
    }
    assert {window["sentence"], count["sentence"], *told["would_stop"]} < set(told["sentences"])
    unknown = ready.call("rea", "GET", f"/worlds/{W}/strategies/s9/explain")
    assert unknown.status_code == 404
    for _ in range(3):
        ready.advance(DAY)
        ready.feed("paper", {"s1": 0.001})
    window, _ = ready.ok("rea", "GET", path)["waits_for"][:2]
    assert window["share"] == 0.2
    assert window["reached_at"] == stamp(START + 11 * DAY)


def test_a_world_without_a_policy_explains_that(harness: Harness) -> None:
    harness.ok("admin", "POST", "/worlds", {"id": W})
    harness.ok("olga", "POST", f"/worlds/{W}/bindings", {"strategy_id": "s1"})
    told = harness.ok("rea", "GET", f"/worlds/{W}/strategies/s1/explain")
    assert [wait["reason"] for wait in told["waits_for"]] == ["policy_missing"]


def test_a_submission_is_answered_with_its_explanation(ready: Harness) -> None:
    told = ready.ok("ann", "POST", "/strategies", submission("s2"))["explanation"]
    assert told == ready.ok("ann", "GET", f"/worlds/{W}/strategies/s2/explain")


def test_an_explanation_is_named_by_what_it_says(ready: Harness) -> None:
    path = f"/worlds/{W}/strategies/s1/explain"
    first = ready.call("rea", "GET", path)
    ready.advance(DAY / 24)
    tag = {"If-None-Match": first.headers["etag"]}
    assert ready.call("rea", "GET", path, headers=tag).status_code == 304
    ready.advance(8 * DAY)  # Nothing has come, and that is said.
    assert ready.call("rea", "GET", path, headers=tag).status_code == 200


def test_evaluate_answers_just_this(ready: Harness) -> None:
    told = ready.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1"})
    assert set(told) == EVALUATED
    assert told["evaluation_run_url"].endswith(f"/runs/{told['run_id']}")
    named = {"strategy_id": "s1", "stage": "backtest", "run_id": "mine", "metrics": {}}
    for revision in (1, 1):  # The same evidence, the same revision.
        told = ready.ok("olga", "POST", f"/worlds/{W}/evaluate", named)
        assert told["run_id"] == "mine"
        run = ready.ok("rea", "GET", told["evaluation_run_url"])
        assert run["revision"] == revision


def test_dryrun_is_paper_from_the_door_on(ready: Harness) -> None:
    asked = {"strategy_id": "s1", "stage": "dryrun"}
    told = ready.ok("olga", "POST", f"/worlds/{W}/evaluate", asked)
    assert told["run_id"].startswith("paper-")
    assert ready.ok("rea", "GET", told["evaluation_run_url"])["stage"] == "paper"


def test_tick_pages_and_every_action_says_what_to_send(ready: Harness) -> None:
    for number in range(5):
        ready.ok("ann", "POST", "/strategies", submission(f"x{number}"))
    ready.advance(DAY)
    ready.feed("paper", dict.fromkeys(("s1", "x0", "x1", "x2", "x3", "x4"), 0.001))
    seen, cursor = [], None
    while True:
        asked = {"limit": 4, **({} if cursor is None else {"cursor": cursor})}
        page = ready.ok("olga", "POST", f"/worlds/{W}/campaign/tick", params=asked)
        assert set(page) == {
            *("schema_version", "world_id", "generation", "generated_at", "actions"),
            "next_cursor",
        }
        seen += page["actions"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len({action["strategy_id"] for action in seen}) == len(seen) == 6
    for action in seen:
        assert set(action) == ACTION
        assert action["idempotency_key"] == ":".join(
            [action["action"], W, action["strategy_id"], "paper", action["suggested_run_id"]]
        )
        assert "metrics" not in action["suggested_body"]
        ready.ok(
            "olga",
            action["suggested_method"],
            action["suggested_endpoint"],
            action["suggested_body"],
            params=action["suggested_params"],
        )
    assert ready.ok("olga", "POST", f"/worlds/{W}/campaign/tick")["actions"] == []


def test_decide_and_activation(ready: Harness) -> None:
    run_id = with_live(ready)
    told = ready.ok("ann", "GET", f"/worlds/{W}/decide", params={"strategy_id": "s1"})
    assert set(told) == ENVELOPE
    assert (told["ramp_fraction"], told["reason"]) == (1.0, "live_campaign")
    both = ready.ok("ann", "GET", f"/worlds/{W}/decide")
    assert both["decisions"] == [told]
    lease = ready.ok("ann", "GET", f"/worlds/{W}/activation", params={"strategy_id": "s1"})
    assert lease["run_id"] == run_id
    keys = {"active", "weight", "freeze", "drain", "sequence", "etag", "run_id", "ts"}
    assert keys <= set(lease)
    as_of = ready.ok(
        "ann", "GET", f"/worlds/{W}/decide?strategy_id=s1&as_of=2024-01-05T02:00:00%2B02:00"
    )
    assert as_of["as_of"] == "2024-01-05T00:00:00Z"


def test_a_lease_is_lowered_and_raised_to_what_was_applied(ready: Harness) -> None:
    with_live(ready)
    path = f"/worlds/{W}/activation"
    for change, mode, weight in [
        ({"weight": 0.2}, "live", 0.2),
        ({"freeze": True}, "compute-only", 0.0),
        ({"freeze": False}, "live", 0.2),
        ({"drain": True}, "live", 0.0),
        ({"drain": False, "weight": 0.5}, "live", 0.5),
    ]:
        lease = ready.ok("olga", "PUT", path, {"strategy_id": "s1", **change})
        told = ready.ok("ann", "GET", f"/worlds/{W}/decide?strategy_id=s1")
        assert (told["effective_mode"], told["weight"]) == (mode, weight)
    above = ready.call("olga", "PUT", path, {"strategy_id": "s1", "weight": 0.6})
    assert above.status_code == 409
    body = {"strategy_id": "s1", "sequence": lease["sequence"]}
    assert ready.ok("ann", "POST", f"{path}/ack", body)["acknowledged"] == lease["sequence"]
    off = ready.ok("olga", "PUT", path, {"strategy_id": "s1", "active": False})
    assert (off["active"], off["weight"]) == (False, 0.0)
    assert off["sequence"] > lease["sequence"], "a client can tell which it saw last"


def test_a_demotion_holds_until_it_is_released(ready: Harness) -> None:
    with_live(ready)
    down = {"strategy_id": "s1", "to": "paper", "reason": "it looks odd"}
    told = ready.ok("al", "POST", f"/worlds/{W}/demote", down)
    assert (told["phase"], told["held"]) == ("paper_campaign", True)
    free = {"strategy_id": "s1", "run_id": "any", "reason": "it was nothing"}
    assert ready.ok("olga", "POST", f"{LIVE}/release", free)["held"] is False


def test_a_candidate_is_rejected_released_and_an_approval_withdrawn(ready: Harness) -> None:
    run_id = with_candidate(ready)
    body = {"strategy_id": "s1", "run_id": run_id}
    ready.ok("al", "POST", f"{LIVE}/approve", {**body, "reason": "fine"})
    (candidate,) = ready.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    assert (candidate["standing"], candidate["approvals_needed"]) == ("proposed", 2)
    assert [a["by"] for a in candidate["approvals"]] == ["al"]
    assert candidate["blocked_reasons"] == ["approvals_insufficient"]
    assert candidate["plan"]["eligible"] is False
    assert ready.ok("al", "DELETE", f"{LIVE}/approve", params=body)["approvals"] == []
    rejected = ready.ok("bo", "POST", f"{LIVE}/reject", {**body, "reason": "no"})
    assert (rejected["standing"], rejected["standing_detail"]) == ("rejected", "by bo: no")
    blocked = ready.call("olga", "POST", f"{LIVE}/apply", body).json()
    assert "candidate_rejected" in blocked["reasons"]
    assert len(blocked["details"]) >= len(blocked["reasons"])
    free = ready.ok("olga", "POST", f"{LIVE}/release", {**body, "reason": "looked again"})
    assert free["candidate"]["standing"] == "proposed"


def test_a_campaign_is_extended(ready: Harness) -> None:
    body = {"by": "90d", "reason": "a slow market"}
    told = ready.ok("olga", "POST", f"/worlds/{W}/strategies/s1/extend", body)
    assert told["extension_sec"] == 90 * 86_400


def test_a_cohort_is_judged_as_one(ready: Harness) -> None:
    ready.ok("ann", "POST", "/strategies", submission("s2"))
    body = {"campaign_id": "c1", "candidates": ["s1", "s2"], "stage": "backtest"}
    told = ready.ok("olga", "POST", f"/worlds/{W}/evaluate-cohort", body)
    assert (told["campaign_id"], told["stage"], told["policy_version"]) == ("c1", "backtest", 1)
    assert [each["strategy_id"] for each in told["results"]] == ["s1", "s2"]
    assert told["active"] == ["s1", "s2"]


# ---- The hub ---------------------------------------------------------------------------------


def snapshot(version: str, at: Any = START, **parts: Any) -> dict[str, Any]:
    return {"as_of": stamp(at), "version": version, "weights": {"s1": 1.0}, **parts}


def test_a_hash_that_was_given_is_checked(ready: Harness) -> None:
    body = snapshot("v1", stress={"s1": {"crash": 0.125}}, provenance={"by": ["a", 1, 2.5]})
    digest = hashlib.sha256(rfc8785.dumps(body)).hexdigest()
    whole = {**body, "hash": f"sha256:{digest}", "created_at": stamp(START)}
    assert ready.call("pat", "POST", f"{HUB}/snapshots", whole, headers=HEADERS).status_code == 201
    other = {**whole, "ttl_sec": 899}
    assert ready.call("pat", "POST", f"{HUB}/snapshots", other, headers=HEADERS).status_code == 422


def test_sameness_is_of_content_and_not_of_bytes(ready: Harness) -> None:
    path = f"{HUB}/snapshots"
    first = (
        '{"as_of":"2024-01-01T21:00:00Z","version":"v","weights":{"s1":1.0},'
        '"realized_returns":{"s1":[0.0]}}'
    )
    again = (
        '{"realized_returns": {"s1": [-0.0]}, "weights": {"s1": 1}, "ttl_sec": 900,'
        ' "version": "v", "as_of": "2024-01-01T22:00:00+01:00"}'
    )
    kind = {**HEADERS, "Content-Type": "application/json"}
    stored = ready.call("pat", "POST", path, content=first, headers=kind)
    before = ready.state()
    same = ready.call("pat", "POST", path, content=again, headers=kind)
    assert (stored.status_code, same.status_code) == (201, 200), same.text
    assert same.json() == stored.json()
    assert ready.state() == before


def test_an_older_one_is_stored_and_never_the_latest(ready: Harness) -> None:
    path = f"{HUB}/snapshots"
    ready.ok("pat", "POST", path, snapshot("new"), headers=HEADERS)
    ready.ok("pat", "POST", path, snapshot("old", START - DAY), headers=HEADERS)
    assert ready.ok("rea", "GET", f"{path}/latest?stage=paper")["version"] == "new"
    listed = ready.ok("rea", "GET", f"{path}?stage=dryrun")["snapshots"]
    assert [each["version"] for each in listed] == ["old", "new"]
    between = stamp(START - timedelta(hours=1))
    found = ready.ok("rea", "GET", f"{path}/lookup", params={"as_of": between, "stage": "paper"})
    assert found["version"] == "old"
    assert ready.ok("rea", "GET", f"{HUB}/lookup?version=new")["as_of"] == stamp(START)
    for query, status in [
        ("", 422),
        ("version=new&as_of=2024-01-01T00:00:00Z", 422),
        ("version=none", 404),
        ("as_of=2000-01-01T00:00:00Z", 404),
    ]:
        assert ready.call("rea", "GET", f"{path}/lookup?{query}").status_code == status


def test_a_snapshot_comes_back_whole(ready: Harness) -> None:
    parts = {
        "realized_returns": {"s1": {"t": [stamp(START)], "r": [0.01]}},
        "covariance": {"s1,s1": 0.0001},
        "stress_ref": "s3://stress/1",
        "constraints": {"gross": 1.5},
        "provenance": {"job": "nightly"},
        "stats": {"s1": {"trades_total": 12}},
        "ttl_sec": 60,
    }
    ready.ok("pat", "POST", f"{HUB}/snapshots", snapshot("v1", **parts), headers=HEADERS)
    told = ready.ok("rea", "GET", f"{HUB}/latest?stage=paper&expand=true&actor=pat")
    for key in ("covariance", "stress_ref", "constraints", "provenance", "ttl_sec"):
        assert told[key] == parts[key]
    assert told["stats"] == {"s1": {"trades_total": 12.0}}
    assert told["realized_returns"] == parts["realized_returns"]
    assert told["expires_at"] == stamp(START + timedelta(seconds=60))
    assert ready.call("rea", "GET", f"{HUB}/latest?actor=nobody").status_code == 404


def test_a_list_without_times_only_grows(ready: Harness) -> None:
    path = f"{HUB}/snapshots"
    for day, series in enumerate([[0.01], [0.01, 0.02], [0.01, 0.02]]):
        ready.advance(DAY)
        body = snapshot(f"v{day}", ready.now, realized_returns={"s1": series})
        ready.ok("pat", "POST", path, body, headers=HEADERS)
    told = ready.ok("rea", "GET", f"{path}/latest?stage=paper&expand=true")
    assert told["realized_returns"]["s1"]["r"] == [0.01, 0.02]
    body = snapshot("v9", ready.now, realized_returns={"s1": [0.01, 0.03]})
    assert ready.call("pat", "POST", path, body, headers=HEADERS).status_code == 409


def test_a_restatement_replaces_history(ready: Harness) -> None:
    with_candidate(ready)
    body = {
        "stage": "dryrun",
        "strategy": "s1",
        "t": [stamp(START + DAY)],
        "r": [0.5],
        "reason": "a wrong price",
    }
    told = ready.ok("olga", "POST", f"{HUB}/restatements", body)
    assert (told["stage"], told["points"]) == ("paper", 1)
    candidates = ready.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    assert candidates == []


def test_a_bar_carries_all_that_a_snapshot_may(ready: Harness) -> None:
    ready.advance(DAY)
    told = ready.feed(
        "paper",
        {"s1": 0.001},
        replay={"s1": 0.0011},
        weights={"s1": 1.0},
        stats={"s1": {"trades_total": 3}},
        stress={"s1": {"crash": 0.2}},
        covariance={"s1,s1": 0.0001},
        ttl_sec=60,
    )
    found = ready.ok("rea", "GET", f"{HUB}/lookup", params={"version": told["version"]})
    assert found["replay"] == {"s1": 0.0011}
    assert found["ttl_sec"] == 60
    assert found["stress"] == {"s1": {"crash": 0.2}}


def test_a_bar_may_be_the_engines_alone(ready: Harness) -> None:
    ready.advance(DAY)
    told = ready.feed("paper", {}, replay={"s1": -0.01})
    found = ready.ok("rea", "GET", f"{HUB}/lookup", params={"version": told["version"]})
    assert found["replay"] == {"s1": -0.01}
    assert found["realized_returns"] is None
    path, bar = f"/worlds/{W}/returns", {"stage": "paper", "t": stamp(ready.now), "returns": {}}
    for wrong, status in (({}, 422), ({"replay": {}}, 422), ({"replay": {"nobody": 0.1}}, 404)):
        assert ready.call("pat", "POST", path, {**bar, **wrong}).status_code == status


# ---- Operations ------------------------------------------------------------------------------


def test_requests_are_counted_by_the_template_of_their_route(ready: Harness) -> None:
    for world in (W, W, "beta"):
        ready.call("rea", "GET", f"/worlds/{world}")
    ready.call("rea", "GET", "/nothing/at/all")
    told = ready.call(None, "GET", "/metrics").text
    counted = 'qmtl_http_requests_total{method="GET",route="/worlds/{world_id}",status='
    assert counted + '"200"} 2.0' in told
    assert counted + '"404"} 1.0' in told
    assert 'route="(no route)"' in told
    assert "nothing" not in told
    assert W not in told


def test_the_root_is_the_dashboards(ready: Harness) -> None:
    told = ready.call(None, "GET", "/")
    assert told.status_code == 401
    assert "sign in" in told.text.lower()


def test_a_strategy_that_was_never_run_is_compute_only(ready: Harness) -> None:
    ready.ok("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "bare"})
    told = ready.ok("ann", "GET", f"/worlds/{W}/decide?strategy_id=bare")
    assert told["effective_mode"] == "compute-only"


def test_a_lease_is_changed_only_while_it_is_the_one_that_was_seen(ready: Harness) -> None:
    with_live(ready)
    path = f"/worlds/{W}/activation"
    seen = ready.call("rea", "GET", f"{path}?strategy_id=s1").headers["etag"]
    body = {"strategy_id": "s1", "freeze": True}
    frozen = ready.call("olga", "PUT", path, body, headers={"If-Match": seen})
    assert frozen.json()["freeze"]
    before = ready.state()
    body = {"strategy_id": "s1", "freeze": False}
    stale = ready.call("olga", "PUT", path, body, headers={"If-Match": seen})
    assert stale.status_code == 412
    assert ready.state() == before
    assert not ready.ok("olga", "PUT", path, body)["freeze"], "asked for only by who asks for it"
