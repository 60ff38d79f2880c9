"""Campaigns over HTTP for tests: a backtest and a month of paper, ready for a loop to work on."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

from qmtl.adapters.client import Client

BEGAN = datetime(2024, 1, 1, 21, tzinfo=UTC)  # Where a replay clock starts.
BACKTEST_DAYS = 150
PAPER_DAYS = 25
POLICY = """
version: 1
campaign:
  backtest: {window: 100d, min_observations: 100}
  paper: {window: 20d, min_observations: 15}
evidence: none
governance:
  live_promotion: {mode: MODE, cooldown: 0s, max_live_slots: 100, ramp: [{fraction: 1.0}]}
"""
AUTO_APPLY = POLICY.replace("MODE", "auto_apply")
MANUAL = POLICY.replace("MODE", "manual_approval, approvers: {roles: [approver], min: 1}")


def strategies(count: int) -> list[str]:
    return [f"s{number:02}" for number in range(count)]


def earned(strategy: str, at: datetime) -> float:
    """What a strategy earned on a day: good and noisy, and the same in every world."""
    return random.Random(f"{strategy} {at.isoformat()}").gauss(0.001, 0.004)


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def submission(world: str, strategy: str) -> dict[str, object]:
    times = [BEGAN - timedelta(days=BACKTEST_DAYS - day) for day in range(BACKTEST_DAYS)]
    return {
        "strategy_id": strategy,
        "world": world,
        "fingerprint": f"f-{strategy}",
        "returns": {
            "t": [stamp(at) for at in times],
            "r": [earned(strategy, at) for at in times],
        },
        "stats": {"trades_total": 100.0},
        "variants_tried": 1,
    }


def begin(client: Client, world: str, count: int, policy: str = AUTO_APPLY) -> None:
    """A world that may go live, its policy, and submissions that pass their backtest."""
    client.create_world(world, allow_live=True)
    client.add_policy(world, policy)
    for strategy in strategies(count):
        client.submit(submission(world, strategy))


def month_of_paper(client: Client, counts: dict[str, int]) -> None:
    """Moves the replay clock a day at a time, and posts every world's returns of each."""
    for day in range(1, PAPER_DAYS + 1):
        at = BEGAN + timedelta(days=day)
        client.set_clock(at + timedelta(minutes=1))
        for world, count in counts.items():
            returns = {strategy: earned(strategy, at) for strategy in strategies(count)}
            client.post_returns(world, stage="paper", t=at, returns=returns, ttl_sec=86_400)


def happened(client: Client, world: str) -> Counter[str]:
    """What a world's journal says, whoever did it and in whichever order."""
    told: Counter[str] = Counter()
    for entry in client.journal(world):
        fact = entry["fact"]
        runs = [run["strategy_id"] + run["run_id"] for run in fact.get("runs", ())]
        about = fact.get("strategy_id") or ",".join(sorted(runs)) or fact.get("version")
        told[f"{entry['kind']} {about} {fact.get('revision', '')}"] += 1
    return told
