"""The whole story by hand: commands against a real server, from `serve` to the journal."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from qmtl.adapters.client import Client
from qmtl.entry.cli import app
from tests import campaigns
from tests.servers import Served, served

STRATEGY = '''
import numpy as np


def steady(prices):
    """Holds everything, always."""
    return np.full_like(prices, 0.5)


def oracle(prices):
    """Holds what will rise."""
    held = np.zeros_like(prices)
    held[:-1] = prices[1:] > prices[:-1]
    return held
'''
BARS = 150
PAPER_BARS = 25


@dataclass
class Terminal:
    """Where somebody with a credential types commands."""

    monkeypatch: pytest.MonkeyPatch

    def becomes(self, token: str) -> None:
        self.monkeypatch.setenv("QMTL_TOKEN", token)

    def run(self, command: str, code: int = 0) -> str:
        """What a command prints, on both streams."""
        result = CliRunner().invoke(app, command.split())
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    def json(self, command: str) -> Any:
        result = CliRunner().invoke(app, [*command.split(), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    at = campaigns.stamp(campaigns.BEGAN)
    with served(tmp_path / "data", "--clock", "replay", "--at", at) as found:
        yield found
        assert found.process.stdout is not None
    found.process.stdout.close()


@pytest.fixture
def terminal(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("QMTL_URL", server.url)
    monkeypatch.setenv("QMTL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("QMTL_SPOOL", str(tmp_path / "spool"))
    monkeypatch.delenv("QMTL_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "transcript_strategies", raising=False)
    (tmp_path / "transcript_strategies.py").write_text(STRATEGY)
    (tmp_path / "prices.csv").write_text(prices())
    (tmp_path / "policy.yaml").write_text(campaigns.MANUAL)
    return Terminal(monkeypatch)


def prices() -> str:
    """Daily closes of two assets that rise, and end where the replay clock starts."""
    steps = np.random.default_rng(3).normal(0.001, 0.004, (BARS, 2))
    closes = 100 * np.exp(steps.cumsum(axis=0))
    dates = [campaigns.BEGAN - timedelta(days=BARS - day) for day in range(BARS)]
    rows = [
        f"{date.date()},{row[0]:.6f},{row[1]:.6f}" for date, row in zip(dates, closes, strict=True)
    ]
    return "\n".join(["Date,A,B", *rows]) + "\n"


def trade(server: Served, strategy: str, days: range, stage: str) -> None:
    """The desk posts what the strategy earned on each of these days."""
    with Client(server.url, server.token) as desk:
        for day in days:
            at = campaigns.BEGAN + timedelta(days=day)
            desk.set_clock(at + timedelta(minutes=1))
            earned = {strategy: campaigns.earned(strategy, at)}
            desk.post_returns("us", stage=stage, t=at, returns=earned, ttl_sec=86_400)


def test_a_strategy_is_taken_live_and_down_again_by_hand(
    server: Served, terminal: Terminal
) -> None:
    run, read = terminal.run, terminal.json

    # A world of one's own, and what it asks of a strategy.
    assert "using the admin token" in run("world create us --name Equities")
    assert "no policy yet" in run("policy list us")
    assert "next: qmtl policy set us standard" in run("world status us", code=1)
    assert "warning: evidence: none" in run("policy set us policy.yaml")

    # Everyone gets a credential; only who has one gets in.
    ana = read("token create --role author --actor ana --world us --expires 365d")["token"]
    rita = read("token create --role approver --actor rita --world us")["token"]
    assert {each["actor"] for each in read("token list")["tokens"]} == {"admin", "ana", "rita"}
    terminal.becomes("nobody")
    assert "next: set QMTL_TOKEN" in run("world list", code=1)

    # What looks ahead does not leave the author's machine; what does not goes into paper.
    submit = "submit transcript_strategies.py:{} --world us --prices prices.csv --variants 1"
    terminal.becomes(ana)
    assert "nothing was sent: oracle looks ahead" in run(submit.format("oracle"), code=1)
    told = run(submit.format("steady"))
    assert "steady in world us: paper\n" in told
    assert "pass, paper_campaign" in told
    assert read(submit.format("steady"))["world"]["verdict"] == "pass", "twice is once"
    assert "next: qmtl token create --role" in run("world kill us --reason fun", code=1)
    terminal.monkeypatch.delenv("QMTL_TOKEN")

    # Not a day of paper yet: the world says why it goes no further, and has nothing to do.
    assert "paper_window_incomplete" in run("world status us")
    assert "nothing to do" in run("world campaign-loop us --once")
    assert "has no candidate" in run("world approve us steady --reason yes", code=1)

    # A month of paper: the loop brings it to the gate, where people wait.
    trade(server, "steady", range(1, PAPER_BARS + 1), "paper")
    assert "evaluate" in run("world tick us")
    assert "1 planned" in run("world campaign-loop us --dry-run")
    told = run("world campaign-loop us --once")
    assert "1 executed" in told
    assert "waiting: qmtl world approve us steady paper-" in told
    told = run("world apply us steady", code=1)
    assert "live_not_allowed, manual_approval_required" in told
    assert "next: qmtl world set us --allow-live" in told

    # The admin allows live; the author may not approve, rita may; the operator applies.
    assert "allow_live              yes" in run("world set us --allow-live")
    terminal.becomes(ana)
    run("world approve us steady --reason mine", code=1)
    terminal.becomes(rita)
    assert "approved by rita" in run("world approve us steady --reason looked")
    terminal.monkeypatch.delenv("QMTL_TOKEN")
    assert "waiting: qmtl world apply us steady paper-" in run("world campaign-loop us --once")
    assert read("world plan us steady")["eligible"] is True
    assert read("world apply us steady")["active"] is True
    assert read("world apply us steady")["active"] is True, "twice is once"
    assert read("world decide us steady")["effective_mode"] == "live"

    # Live returns are looked at; then somebody pulls the plug, and the world says so at once.
    trade(server, "steady", range(PAPER_BARS + 1, PAPER_BARS + 3), "live")
    assert "1 executed" in run("world campaign-loop us --once")
    assert "killed                  yes" in run("world kill us --reason drill")
    envelope = read("world decide us steady")
    assert (envelope["effective_mode"], "world_killed" in envelope["reasons"]) == ("paper", True)
    run("world resume us --reason over")
    assert read("world decide us steady")["effective_mode"] == "paper", "resume restores nothing"

    # The journal tells it all, in order, with who did it.
    result = CliRunner().invoke(app, ["journal", "list", "us", "--json"])
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    story = [(entry["kind"], entry["actor"]) for entry in entries]
    expected = [
        ("policy_added", "admin"),
        ("strategy_bound", "ana"),
        ("phase_entered", "ana"),
        ("candidate_proposed", "admin"),
        ("promotion_blocked", "admin"),
        ("live_allowed", "admin"),
        ("approval_given", "rita"),
        ("promotion_applied", "admin"),
        ("killed", "admin"),
        ("resumed", "admin"),
    ]
    assert [each for each in story if each in expected] == expected
    after = run(f"journal list us --after {len(entries) - 1}")
    assert "resumed" in after
    assert "killed" not in after


def test_the_world_goes_away_and_nothing_is_lost(server: Served, terminal: Terminal) -> None:
    run = terminal.run
    run("world create us")
    run("policy set us policy.yaml")
    server.process.terminate()
    server.process.wait()
    submit = "submit transcript_strategies:steady --world us --prices prices.csv"
    told = run(submit, code=3)
    assert "steady in world us: compute-only, downgraded (worldservice_away)" in told
    assert "waiting" in run("flush", code=3)
    assert "error: The world is away" in run("world status us", code=3)

    data, port = Path("data"), server.url.rpartition(":")[2]
    at = campaigns.stamp(campaigns.BEGAN)
    options = ("--clock", "replay", "--at", at)
    with served(data, *options, "--port", port) as again:
        assert again.url == server.url
        assert "sent" in run("flush")
        assert "nothing was kept" in run("flush")
        assert terminal.json("world decide us steady")["effective_mode"] == "paper"
        assert again.process.stdout is not None
    again.process.stdout.close()
