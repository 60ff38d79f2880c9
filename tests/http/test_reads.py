"""Looking changes nothing (I2); what was seen before need not be sent again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.harness import DAY, START, Harness, W, harness_over, stamp, with_live, with_world

LIVE = f"/worlds/{W}/promotions/live"
HUB = f"/risk-hub/worlds/{W}"
RUNS = f"/worlds/{W}/strategies/s1/runs"

LOOKS = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/journal/key"),
    ("GET", "/worlds"),
    ("GET", f"/worlds/{W}"),
    ("GET", f"/worlds/{W}/policies"),
    ("GET", f"/worlds/{W}/policies/1"),
    ("GET", f"/worlds/{W}/strategies"),
    ("GET", f"/worlds/{W}/bindings"),
    ("GET", RUNS),
    ("GET", RUNS + "/{run_id}"),
    ("GET", RUNS + "/{run_id}/metrics"),
    ("GET", RUNS + "/{run_id}/history"),
    ("GET", f"/worlds/{W}/strategies/s1/explain"),
    ("GET", f"/worlds/{W}/campaign/status"),
    ("GET", f"/worlds/{W}/campaign/status?strategy_id=s1"),
    ("POST", f"/worlds/{W}/campaign/tick"),
    ("POST", f"/worlds/{W}/campaign/tick?strategy_id=s1&limit=1"),
    ("GET", f"{LIVE}/candidates"),
    ("GET", f"{LIVE}/plan?strategy_id=s1"),
    ("GET", f"{LIVE}/plan?strategy_id=s1&run_id={{run_id}}"),
    ("GET", f"/worlds/{W}/decide"),
    ("GET", f"/worlds/{W}/decide?strategy_id=s1"),
    ("GET", f"/worlds/{W}/decide?strategy_id=s1&as_of={stamp(START)}"),
    ("GET", f"/worlds/{W}/activation"),
    ("GET", f"/worlds/{W}/activation?strategy_id=s1"),
    ("GET", f"{HUB}/snapshots"),
    ("GET", f"{HUB}/snapshots?stage=dryrun&actor=pat"),
    ("GET", f"{HUB}/snapshots/latest?stage=paper&expand=true"),
    ("GET", f"{HUB}/latest"),
    ("GET", f"{HUB}/lookup?as_of={stamp(START + 3 * DAY)}"),
    ("GET", f"{HUB}/snapshots/lookup?as_of={stamp(START + 3 * DAY)}"),
    ("GET", f"/worlds/{W}/journal?limit=1000"),
    ("GET", f"/worlds/{W}/journal/head"),
    ("GET", "/clock"),
    ("GET", "/tokens"),
    ("GET", "/system/journal"),
]


@pytest.fixture(scope="module", params=["memory", "sql"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Harness, str]]:
    folder = Path(tmp_path_factory.mktemp("reads"))
    with harness_over(request.param, folder) as harness:
        with_world(harness)
        run_id = with_live(harness)
        harness.advance(DAY)
        harness.feed("live", {"s1": 0.001})
        yield harness, run_id


@pytest.mark.parametrize(("method", "path"), LOOKS, ids=[f"{m} {p}" for m, p in LOOKS])
def test_looking_changes_nothing(made: tuple[Harness, str], method: str, path: str) -> None:
    harness, run_id = made
    before = harness.state()
    first = harness.call("admin", method, path.format(run_id=run_id))
    assert first.status_code == 200, first.text
    again = harness.call("admin", method, path.format(run_id=run_id))
    if path != "/metrics":
        assert again.content == first.content, "the same view and instant, the same bytes"
    assert harness.state() == before


@pytest.mark.parametrize("path", [p for m, p in LOOKS[5:] if m == "GET"])
def test_what_was_seen_is_not_sent_again(made: tuple[Harness, str], path: str) -> None:
    harness, run_id = made
    first = harness.call("admin", "GET", path.format(run_id=run_id))
    tag = first.headers["etag"]
    again = harness.call(
        "admin", "GET", path.format(run_id=run_id), headers={"If-None-Match": f'"x", {tag}'}
    )
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = harness.call("admin", "GET", path.format(run_id=run_id), headers={"If-None-Match": "x"})
    assert other.status_code == 200


def test_a_decision_is_named_by_what_was_decided(harness: Harness) -> None:
    with_world(harness)
    asked = {"strategy_id": "s1"}
    first = harness.call("ann", "GET", f"/worlds/{W}/decide", params=asked)
    assert first.headers["etag"] == f'W/"{first.json()["etag"]}"'
    harness.advance(DAY)  # The same decision, told at another instant.
    tag = {"If-None-Match": first.headers["etag"]}
    again = harness.call("ann", "GET", f"/worlds/{W}/decide", params=asked, headers=tag)
    assert again.status_code == 304
    harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "x"})
    assert harness.call("ann", "GET", f"/worlds/{W}/decide", params=asked, headers=tag).is_success


def test_lists_come_in_pages(harness: Harness) -> None:
    with_world(harness)
    for number in range(5):
        harness.ok("olga", "POST", f"/worlds/{W}/bindings", {"strategy_id": f"x{number}"})
    found, cursor = [], None
    for _ in range(3):
        asked = {"limit": 2, **({} if cursor is None else {"cursor": cursor})}
        page = harness.ok("rea", "GET", f"/worlds/{W}/strategies", params=asked)
        found += [s["strategy_id"] for s in page["strategies"]]
        cursor = page["next_cursor"]
    assert found == ["s1", "x0", "x1", "x2", "x3", "x4"]
    assert cursor is None
    entries, after = [], 0
    while page := harness.ok(
        "rea", "GET", f"/worlds/{W}/journal", params={"after": after, "limit": 3}
    )["entries"]:
        entries += [entry["seq"] for entry in page]
        after = entries[-1]
    assert entries == list(range(1, len(entries) + 1))


def test_snapshots_and_runs_page_backwards(harness: Harness) -> None:
    with_world(harness)
    with_live(harness)
    for path, noun, key in (
        (f"{HUB}/snapshots", "snapshots", "version"),
        (RUNS, "runs", "run_id"),
    ):
        whole = [one[key] for one in harness.ok("rea", "GET", path)[noun]]
        found, cursor = [], None
        while True:
            asked = {"limit": 1, **({} if cursor is None else {"cursor": cursor})}
            page = harness.ok("rea", "GET", path, params=asked)
            found += [one[key] for one in page[noun]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert found == whole
        assert len(found) == len(set(found)) > 1
