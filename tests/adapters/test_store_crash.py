"""A process that dies keeps all it answered for, whole commits only, and needs no repair.

The server as a whole is killed in tests/crash; here the store alone, in the middle of batches.
"""

import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from qmtl.adapters.sql.store import SqlStore
from qmtl.core.facts import CampaignExtended

from .histories import WORLD
from .test_store import begin

ROUNDS = 4
ENTRIES_MAX = 1_000_000
ANSWERS_MIN = 20  # By then batches are running.

WRITERS = """
import sys, threading
from pathlib import Path
from qmtl.adapters.sql import checkpoint
from qmtl.adapters.sql.store import SqlStore
from qmtl.app.ports import Commit
from qmtl.core.facts import CampaignExtended
from qmtl.core.view import Expected
from tests.adapters.histories import START, WORLD

checkpoint.CHECKPOINT_EVERY = 7  # So that the process dies in the middle of those, too.
store = SqlStore(Path(sys.argv[1]))

def work(writer):
    for n in range(1_000_000):
        # Two facts, so that half a commit could be told from a whole one.
        facts = [CampaignExtended(strategy_id="a", by_sec=1, reason=f"{writer}.{n}")] * 2
        store.write(lambda: store.commit(WORLD, Commit(Expected(), facts, "ann", START)))
        sys.stdout.write(f"{writer}.{n}\\n")
        sys.stdout.flush()

for writer in range(8):
    threading.Thread(target=work, args=(writer,)).start()
"""


def killed(data: Path, draw: Random) -> list[str]:
    """What a process answered for before it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITERS, str(data)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    answered = []
    for line in process.stdout:
        answered.append(line.strip())
        if len(answered) >= ANSWERS_MIN and draw.random() < 0.02:
            process.send_signal(signal.SIGKILL)
            break
    answered += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return answered


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_process_that_dies_keeps_what_it_answered_for(tmp_path: Path, seed: int) -> None:
    data = tmp_path / "data"
    store = SqlStore(data)
    begin(store)
    store.close()
    answered = killed(data, Random(seed))
    assert len(answered) >= ANSWERS_MIN
    store = SqlStore(data)  # The lock went with the process that held it.
    try:
        entries = store.journal(WORLD, 4, ENTRIES_MAX)
        kept = [e.fact.reason for e in entries if isinstance(e.fact, CampaignExtended)]
        assert set(answered) <= set(kept)
        assert kept[::2] == kept[1::2], "commits are whole"
        assert store.load(WORLD).seq == 4 + len(kept)
        assert store.verify(WORLD) is None
        assert store.audit(WORLD) == []
    finally:
        store.close()
