"""Retention over HTTP: asked first, done by an admin, and told in every place that shows it."""

from typing import Any

import pytest

from .harness import DAY, Harness, W, stamp, with_world

HUB = f"/risk-hub/worlds/{W}"
HEADERS = {"X-Actor": "pat", "X-Stage": "paper"}
OLD = {"older_than": "10d"}


@pytest.fixture
def ready(each_store: Harness) -> Harness:
    """Three days of snapshots with a covariance, the second of them judged; then two weeks."""
    with_world(each_store)
    for day in range(3):
        each_store.advance(DAY)
        body = {
            "as_of": stamp(each_store.now),
            "version": f"v{day}",
            "weights": {"s1": 1.0},
            "realized_returns": {"s1": {"t": [stamp(each_store.now)], "r": [0.01]}},
            "covariance": {"s1,s1": 0.0001},
            "provenance": {"job": "nightly"},
        }
        each_store.ok("pat", "POST", f"{HUB}/snapshots", body, headers=HEADERS)
        if day == 1:
            judged = {"strategy_id": "s1", "stage": "paper"}
            each_store.ok("olga", "POST", f"/worlds/{W}/evaluate", judged)
    each_store.advance(14 * DAY)
    return each_store


def versions(told: list[dict[str, Any]]) -> list[str]:
    return [each["version"] for each in told]


def test_it_is_asked_before_and_says_why_what_is_kept(ready: Harness) -> None:
    head = ready.store.head(W)  # type: ignore[arg-type]  # A world's id.
    told = ready.ok("rea", "GET", f"{HUB}/retention?older_than=10d")
    assert ready.store.head(W) == head  # type: ignore[arg-type]  # A world's id.
    assert told["stored_before"] == stamp(ready.now - 10 * DAY)
    assert versions(told["removable"]) == ["v0"]
    assert told["removable"][0]["parts"] == ["covariance", "extra"]
    assert versions(told["held"]) == ["v1", "v2"]
    (judged,), (newest,) = (each["held"] for each in told["held"])
    assert "of s1 (paper, " in judged
    assert newest == "it is the newest paper snapshot of s1"
    done = ready.ok("admin", "POST", f"{HUB}/retention", OLD)
    assert {**told, "orphans": 0} == done
    assert ready.ok("admin", "POST", f"{HUB}/retention", OLD)["removable"] == []


def test_what_went_is_told_as_gone_and_never_as_if_it_had_not_been(ready: Harness) -> None:
    ready.ok("admin", "POST", f"{HUB}/retention", OLD)
    for query in ("version=v0", f"as_of={stamp(ready.now - 16 * DAY)}", "version=v0&expand=true"):
        gone = ready.call("rea", "GET", f"{HUB}/lookup?{query}")
        assert gone.status_code == 410
        assert gone.json()["type"] == "urn:qmtl:problem:snapshot-reduced"
        assert f"covariance and extra, on {ready.now:%Y-%m-%d}" in gone.json()["detail"]
    listed = versions(ready.ok("rea", "GET", f"{HUB}/snapshots")["snapshots"])
    assert listed[:3] == ["v2", "v1", "v0"]
    whole = ready.ok("rea", "GET", f"{HUB}/lookup?version=v1&expand=true")
    assert whole["covariance"] == {"s1,s1": 0.0001}
    assert len(whole["realized_returns"]["s1"]["r"]) == 2, "the returns of v0 are there"
    entries = ready.ok("rea", "GET", f"/worlds/{W}/journal?limit=1000")["entries"]
    assert entries[-1]["kind"] == "retention_applied"
    (reduced,) = entries[-1]["fact"]["reduced"]
    told = entries[reduced["seq"] - 1]
    assert told["body_digest"] == reduced["body"]
    assert told["fact"]["removed"]["parts"] == ["covariance", "extra"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"older_than": "6d"}, "older_than: at least 7 days"),
        ({"older_than": "10d", "orphans_older_than": "1h"}, "orphans_older_than: at least 1 day"),
        ({"older_than": "soon"}, "length of time"),
        ({}, "older_than"),
        ({"older_than": "10d", "keep": "all"}, "keep"),
    ],
)
def test_what_it_does_not_take(ready: Harness, body: dict[str, str], said: str) -> None:
    refused = ready.call("admin", "POST", f"{HUB}/retention", body)
    assert refused.status_code == 422
    assert said in refused.text
    assert versions(ready.ok("rea", "GET", f"{HUB}/retention?older_than=10d")["removable"])
    if "older_than" in body and len(body) == 1:
        asked = ready.call("rea", "GET", f"{HUB}/retention?older_than={body['older_than']}")
        assert asked.status_code == 422


def test_only_an_admin_may(ready: Harness) -> None:
    for actor in ("olga", "polly", "pat", "rea"):
        assert ready.call(actor, "POST", f"{HUB}/retention", OLD).status_code == 403
