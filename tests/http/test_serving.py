"""How a server starts and ends: its folder, its first credential, its address."""

import os
import signal
import socket
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from qmtl.adapters.signing import kept
from qmtl.adapters.sql.errors import FolderInUse
from qmtl.core.errors import Invalid
from qmtl.entry import server, wiring
from qmtl.entry.wiring import Exposed, Part, Settings, opened
from tests.http.harness import (
    AUTO_POLICY,
    DAY,
    START,
    YAML,
    Harness,
    W,
    harness_over,
    returns_of,
    with_world,
)
from tests.servers import served, start

START_SEC = 1.5


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_start_makes_a_credential_and_says_where(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = opened(Settings(data=data))
    first.close()
    token = (data / "admin.token").read_text().strip()
    assert (mode(data), mode(data / "admin.token")) == (0o700, 0o600)
    key = kept(data)[0].key_id
    assert first.says == (f"admin token in {data / 'admin.token'}", f"journal key {key}")
    assert token not in " ".join(first.says)
    again = opened(Settings(data=data))
    again.close()
    assert again.says == (f"journal key {key}",)
    assert (data / "admin.token").read_text().strip() == token


def test_a_first_start_makes_a_sandbox(tmp_path: Path) -> None:
    with (
        served(tmp_path / "data") as started,
        httpx.Client(base_url=started.url, headers=started.headers) as client,
    ):
        (world,) = client.get("/worlds").json()["worlds"]
        assert (world["id"], world["created_by"], world["allow_live"]) == (
            *("sandbox", "admin"),
            False,
        )
        policy = client.get("/worlds/sandbox/policies/1").json()
        assert policy["policy"]["evidence"] == "none"
        (token,) = client.get("/tokens").json()["tokens"]
        assert token["actor"] == "admin"
        assert len(token["roles"]) == 7
        assert client.get("/clock").json()["replay"] is False


def test_a_first_start_that_was_cut_off_is_begun_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "admin.token").write_text("of a start that died before the store knew of it")
    made = opened(Settings(data=data))
    made.close()
    assert made.says
    assert (data / "admin.token").read_text().startswith("qmtl_")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_it_is_not_exposed_before_there_is_a_credential(tmp_path: Path, host: str) -> None:
    with pytest.raises(Exposed, match="credential"):
        opened(Settings(data=tmp_path, host=host))
    opened(Settings(data=tmp_path)).close()
    opened(Settings(data=tmp_path, host=host)).close()


def test_dual_control_is_off_on_loopback_only(tmp_path: Path) -> None:
    for host, told, expected in [
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("localhost", None, False),
        ("127.0.0.1", True, True),
        ("0.0.0.0", None, True),
        ("0.0.0.0", False, False),
    ]:
        opened(Settings(data=tmp_path)).close()
        what = opened(Settings(data=tmp_path, host=host, dual_control=told))
        assert what.app.state.services.dual_control is expected
        what.close()


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    what = opened(Settings(data=tmp_path))
    with pytest.raises(FolderInUse):
        opened(Settings(data=tmp_path))
    what.close()
    opened(Settings(data=tmp_path)).close()


def test_an_address_has_one_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(server.CannotListen, match=r"127\.0\.0\.1, port"):
            server.run(Settings(data=tmp_path, port=port))
    assert not list(tmp_path.iterdir()), "nothing was made"


def test_a_gateway_needs_a_world(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        opened(Settings(part=Part.GATEWAY, data=tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_quickly_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    began = time.monotonic()
    started = start(tmp_path / "data")
    took = time.monotonic() - began
    assert httpx.get(f"{started.url}/readyz").json()["status"] == "ready"
    started.process.send_signal(number)
    assert started.process.wait(10) == 0
    assert started.process.stdout is not None
    started.process.stdout.close()
    assert not (tmp_path / "data" / "qmtl.db-wal").exists(), "the store was closed"
    if os.cpu_count() and os.getloadavg()[0] < 1:  # A busy machine proves nothing.
        assert took < START_SEC


def test_a_replay_clock_is_moved_by_an_admin_and_a_system_clock_is_not(
    harness: Harness, tmp_path: Path
) -> None:
    told = harness.ok("rea", "GET", "/clock")
    assert told == {"now": "2024-01-01T21:00:00Z", "replay": True}
    moved = harness.ok("admin", "POST", "/clock", {"now": "2024-01-02T00:00:00+02:00"})
    assert moved["now"] == "2024-01-01T22:00:00Z"
    assert harness.ok("admin", "POST", "/clock", {"now": moved["now"]}) == moved
    assert harness.call("olga", "POST", "/clock", {"now": moved["now"]}).status_code == 403
    with served(tmp_path / "data") as started:
        answer = httpx.post(
            f"{started.url}/clock", json={"now": "2030-01-01T00:00:00Z"}, headers=started.headers
        )
        assert answer.status_code == 409
        assert "replay" in answer.json()["detail"]


def replayed(data: Path, to: datetime) -> None:
    """A data folder that a replay clock took to an instant."""
    what = opened(Settings(data=data, replay=True, at=to))
    what.close()
    assert what.warns == (), "under a replay clock it is now"


def test_what_was_replayed_into_the_future_is_not_served_without_a_word(tmp_path: Path) -> None:
    replayed(tmp_path, datetime(2126, 1, 1, 21, tzinfo=UTC))
    served_ = opened(Settings(data=tmp_path))
    served_.close()
    (warning,) = served_.warns
    for part in ("2126-01-01T21:00:00Z", "--clock replay", "--data"):
        assert part in warning
    again = opened(Settings(data=tmp_path, replay=True))
    again.close()
    assert again.warns == ()


@pytest.mark.parametrize(("ahead_sec", "warned"), [(-1, 0), (0, 0), (60, 0), (61, 1)])
def test_a_clock_that_is_a_little_behind_is_no_reason_to_warn(ahead_sec: int, warned: int) -> None:
    assert len(wiring.ahead(START + timedelta(seconds=ahead_sec), START)) == warned
    assert wiring.ahead(None, START) == ()


def test_a_warning_is_said_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    replayed(tmp_path / "data", datetime(2126, 1, 1, tzinfo=UTC))
    with served(tmp_path / "data"):
        pass
    assert capfd.readouterr().err.startswith("warning: what is recorded here reaches to 2126-01-01")


def test_what_takes_two_people(tmp_path: Path) -> None:
    with harness_over("memory", tmp_path, dual_control=True) as h:
        path = f"/worlds/{W}"
        h.ok("admin", "POST", "/worlds", {"id": W})
        added = h.call("polly", "POST", f"{path}/policies", content=AUTO_POLICY, headers=YAML)
        assert (added.status_code, added.json()["default"]) == (202, False)
        policy = f"{path}/confirmations/{added.json()['confirmation_id']}"
        assert h.call("polly", "POST", policy).status_code == 403
        assert h.ok("admin", "POST", policy)["what"] == "default_policy"
        assert h.ok("rea", "GET", path)["default_policy_version"] == 1
        for what, method, where, body, second in [
            ("allow_live", "PATCH", path, {"allow_live": True}, "polly"),
            ("resume", "POST", f"{path}/resume", {"reason": "mended"}, "olga"),
        ]:
            if what == "resume":
                h.ok("al", "POST", f"{path}/kill", {"reason": "broken"})
            asked = h.call("admin", method, where, body)
            assert asked.status_code == 202
            pending = asked.json()
            assert pending["what"] == what
            confirm = f"{path}/confirmations/{pending['confirmation_id']}"
            assert confirm in pending["detail"]
            assert h.call("admin", "POST", confirm).status_code == 403, "the same person"
            world = h.ok("rea", "GET", path)
            assert [c["what"] for c in world["confirmations"]] == [what]
            assert h.ok(second, "POST", confirm)["what"] == what
        world = h.ok("rea", "GET", path)
        assert (world["allow_live"], world["killed"], world["confirmations"]) == (True, False, [])


def test_auto_apply_goes_through_the_same_gate(harness: Harness) -> None:
    with_world(harness, AUTO_POLICY)
    path = f"/worlds/{W}/promotions/live/auto-apply"
    for r in returns_of("paper s1", 14):
        harness.advance(DAY)
        harness.feed("paper", {"s1": r}, ttl_sec=3600)
    harness.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1"})
    harness.advance(timedelta(hours=2))
    stale = harness.ok("olga", "POST", path)
    assert stale["applied"] == []
    assert stale["blocked"][0]["reasons"] == ["risk_snapshot_expired"]
    harness.advance(timedelta(hours=22))
    harness.feed("paper", {"s1": 0.001})
    harness.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1"})
    (action,) = harness.ok("olga", "POST", f"/worlds/{W}/campaign/tick")["actions"]
    assert (action["action"], action["requires"]) == ("auto_apply_live", [])
    done = harness.ok(
        "olga", action["suggested_method"], action["suggested_endpoint"], action["suggested_body"]
    )
    assert [a["strategy_id"] for a in done["applied"]] == ["s1"]
    assert done["blocked"] == []


def test_the_application_alone(tmp_path: Path) -> None:
    app = wiring.create_app(Settings(memory=True, data=tmp_path / "none"))
    assert app.state.services.store.load("sandbox").default_version == 1
    assert not (tmp_path / "none").exists()
