"""Ctrl-C where processes compute for a command: it ends, and nobody else has a word to say."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import sys, time
from qmtl.entry.cli.pools import pool

if __name__ == "__main__":
    try:
        with pool(2) as made:
            print("begun", flush=True)
            for _ in made.imap(time.sleep, [60.0] * 4):
                pass
    except KeyboardInterrupt:
        sys.exit(7)
"""


def test_ctrl_c_ends_it_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    asked = [sys.executable, str(script)]
    with subprocess.Popen(
        asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == "begun\n"
        time.sleep(0.2)  # Workers are being loaded: the moment that is easiest to miss.
        os.killpg(made.pid, signal.SIGINT)
        told, said = made.communicate(timeout=60)
    assert (made.returncode, told, said) == (7, "", "")
