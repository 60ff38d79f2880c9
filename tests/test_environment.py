"""What the shell exports changes no test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HERE = {"QMTL_URL": "http://127.0.0.1:9", "QMTL_TOKEN": "t", "QMTL_WORLD": "w"}


def test_tests_pass_whatever_settings_are_exported() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["tests/cli/test_follow.py", "-k", "second_follower"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **HERE}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
