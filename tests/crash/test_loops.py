"""Two campaign loops on one world, one of them killed and started again: each act is done once."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from qmtl.adapters.audit.allowed import audit
from qmtl.adapters.client import Client
from qmtl.adapters.wire.export import lines
from tests.crash.test_kill import BEGAN, POLICY, STRATEGIES, WORLD, returns_of, stamp
from tests.servers import Served, served

DAYS = int(os.environ.get("QMTL_CRASH_ROUNDS", "0")) or 34
SETTLED_SEC = 20.0  # For two loops to do what a day recommends; it takes a tenth of one.
KILLED_ON = {8, 21, 22, 23, 30}  # Around the end of the paper window: there is much to do.


@contextmanager
def loop(server: Served) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "qmtl", "--url", server.url, "world", "campaign-loop", WORLD]
    plain = {k: v for k, v in os.environ.items() if not k.startswith("QMTL_")}
    process = subprocess.Popen(
        [*command, "--interval", "1s"],
        env={**plain, "QMTL_TOKEN": server.token},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def settled(client: Client) -> None:
    """Once nothing is recommended any more."""
    until = time.monotonic() + SETTLED_SEC
    while any(page["actions"] for page in client.tick_pages(WORLD)):
        assert time.monotonic() < until, "the loops do not come to an end"
        time.sleep(0.05)


def test_two_loops_and_a_death_do_each_thing_once(tmp_path: Path) -> None:
    with (
        served(tmp_path / "data", "--clock", "replay", "--at", stamp(BEGAN)) as server,
        Client(server.url, server.token) as client,
    ):
        client.create_world(WORLD, allow_live=True)
        client.add_policy(WORLD, POLICY)
        for sid in STRATEGIES:
            times = [stamp(BEGAN - timedelta(days=150 - i)) for i in range(150)]
            series = {"t": times, "r": [returns_of(sid, -150 + i) for i in range(150)]}
            body = {"strategy_id": sid, "world": WORLD, "fingerprint": f"f-{sid}"}
            client.submit({**body, "returns": series})
        with loop(server):
            other = loop(server)
            process = other.__enter__()
            for day in range(1, DAYS):
                at = BEGAN + timedelta(days=day)
                client.set_clock(at + timedelta(minutes=1))
                for stage in ("paper", "live"):
                    bar = {sid: returns_of(sid, day) for sid in STRATEGIES}
                    client.post_returns(WORLD, stage=stage, t=stamp(at), returns=bar)
                if day in KILLED_ON:
                    process.send_signal(signal.SIGKILL)
                    other.__exit__(None, None, None)
                    other = loop(server)
                    process = other.__enter__()
                if day in KILLED_ON or day % 5 == 0:
                    settled(client)
            settled(client)
            other.__exit__(None, None, None)
        entries = list(client.journal(WORLD))
        audited = audit(lines(client.journal_head(WORLD), client.journal_key(), entries))
    acts = Counter(
        (e["kind"], e["fact"].get("candidate_id") or e["fact"].get("strategy_id"))
        for e in entries
        if e["kind"] in ("promotion_applied", "candidate_proposed")
    )
    assert set(acts.values()) == {1}
    assert sum(kind == "promotion_applied" for kind, _ in acts) >= len(STRATEGIES)
    runs = Counter(
        (run["strategy_id"], run["run_id"], run["revision"])
        for e in entries
        if e["kind"] == "evaluations_recorded"
        for run in e["fact"]["runs"]
    )
    assert set(runs.values()) == {1}
    assert {revision for *_, revision in runs} == {1}, "the same evidence is judged once"
    assert [each.violations for each in audited] == [()] * len(audited)
