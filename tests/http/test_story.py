"""The whole story over HTTP: world, policy, submission, paper, candidate, approvals, live, kill."""

from tests.http.harness import DAY, POLICY, YAML, Harness, W, returns_of, stamp, submission

LIVE = f"/worlds/{W}/promotions/live"


def decision(harness: Harness, sid: str = "s1") -> dict[str, object]:
    found = harness.ok("ann", "GET", f"/worlds/{W}/decide", params={"strategy_id": sid})
    assert isinstance(found, dict)
    return found


def test_from_a_submission_to_live_and_back(each_store: Harness) -> None:
    h = each_store
    made = h.call("admin", "POST", "/worlds", {"id": W, "allow_live": True})
    assert (made.status_code, made.json()["allow_live"]) == (201, True)
    added = h.call("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)
    assert added.status_code == 201
    assert added.json()["version"] == 1
    assert added.json()["default"] is True
    assert any("evidence: none" in warning for warning in added.json()["warnings"])

    told = h.ok("ann", "POST", "/strategies", submission("s1"))
    assert told["verdict"] == "pass"
    assert told["phase"] == "paper_campaign"
    assert told["decision"]["effective_mode"] == "paper"
    assert told["decision"]["execution_domain"] == "dryrun"
    run = h.ok("rea", "GET", told["evaluation_run_url"])
    assert run["stage"] == "backtest"
    assert run["metrics"]["sharpe_annual"]["source"] == "realized_returns"
    assert set(run["metrics"]["sharpe_annual"]) == {
        *("value", "unit", "source", "snapshot_version", "undefined")
    }

    for day, r in enumerate(returns_of("paper", 14)):
        h.advance(DAY)
        h.feed("paper", {"s1": r})
        status = h.ok("rea", "GET", f"/worlds/{W}/campaign/status")["strategies"][0]
        assert status["paper"]["observations"] == day + 1
        assert status["promotable_to_live"] is False
        actions = h.ok("olga", "POST", f"/worlds/{W}/campaign/tick")["actions"]
        for action in actions:
            if action["action"] == "evaluate":
                assert "metrics" not in action["suggested_body"]
                h.ok("olga", "POST", action["suggested_endpoint"], action["suggested_body"])
    waiting = h.ok("olga", "POST", f"/worlds/{W}/campaign/tick")["actions"]
    assert [action["action"] for action in waiting] == ["manual_approval_required"]
    assert waiting[0]["requires"] == ["approver"]

    (candidate,) = h.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    body = {"strategy_id": "s1", "run_id": candidate["run_id"]}
    early = h.call("olga", "POST", f"{LIVE}/apply", body)
    assert early.status_code == 409
    assert "manual_approval_required" in early.json()["reasons"]
    for who in ("al", "bo"):
        approval = {**body, "reason": "fine", "evidence_digest": candidate["evidence_digest"]}
        approved = h.ok(who, "POST", f"{LIVE}/approve", approval)
    assert approved["standing"] == "approved"
    params = {"strategy_id": "s1", "run_id": candidate["run_id"]}
    plan = h.ok("rea", "GET", f"{LIVE}/plan", params=params)
    assert plan["eligible"] is True
    assert plan["activate"] == ["s1"]
    assert plan["weights"] == {"s1": 0.5}

    applied = h.ok("olga", "POST", f"{LIVE}/apply", body)
    assert (applied["active"], applied["weight"]) == (True, 0.5)
    assert h.ok("olga", "POST", f"/worlds/{W}/apply", body) == applied, "twice is once"
    live = decision(h)
    assert (live["effective_mode"], live["weight"], live["ttl"]) == ("live", 0.5, 300.0)

    h.advance(DAY)
    h.feed("live", {"s1": 0.001})
    h.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1"})
    killed = h.ok("al", "POST", f"/worlds/{W}/kill", {"reason": "enough"})
    assert killed["killed"] is True
    assert killed["live"] == 0
    after = decision(h)
    assert after["effective_mode"] == "paper"
    assert after["weight"] == 0.0
    assert "world_killed" in after["reasons"]
    assert after["generation"] > live["generation"]  # type: ignore[operator]  # Both are ints.
    assert h.ok("rea", "GET", f"/worlds/{W}/activation")["activations"] == []

    entries = h.ok("rea", "GET", f"/worlds/{W}/journal", params={"limit": 1000})["entries"]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    kinds = [entry["kind"] for entry in entries]
    for kind in ("promotion_blocked", "approval_given", "promotion_applied", "killed"):
        assert kind in kinds
    assert next(e["actor"] for e in entries if e["kind"] == "killed") == "al"


def test_the_same_again_is_the_same(each_store: Harness) -> None:
    h = each_store
    h.ok("admin", "POST", "/worlds", {"id": W})
    assert h.call("olga", "POST", "/worlds", {"id": W}).status_code == 200
    h.ok("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)
    again = h.call("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)
    assert again.status_code == 200
    first = h.ok("ann", "POST", "/strategies", submission("s1"))
    before = h.state()
    assert h.ok("ann", "POST", "/strategies", submission("s1")) == first
    assert h.state() == before
    h.advance(DAY)
    bar = {"stage": "dryrun", "t": stamp(h.now), "returns": {"s1": 0.001}}
    stored = h.call("pat", "POST", f"/worlds/{W}/returns", bar)
    assert stored.status_code == 201
    before = h.state()
    repeated = h.call("pat", "POST", f"/worlds/{W}/returns", bar)
    assert (repeated.status_code, repeated.json()) == (200, stored.json())
    assert stored.json()["stage"] == "paper"
    assert h.state() == before
