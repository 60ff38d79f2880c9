"""The simulation finds what is broken on purpose: each invariant in a copy of the code.

A simulation that finds nothing says nothing until it has found these.  Some here, all of them under
`make sim-mutants`; that each still fits the code is seen here always.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
ALL = os.environ.get("QMTL_SIM_MUTANTS") == "all"
QUICK = ("I1: approvals", "I5: an entry", "I8: a refusal", "I10: a kill")
SEEDS, STEPS = "0-399", "1000"
INVARIANTS = {f"I{n}" for n in range(1, 11)}


def test_every_invariant_is_broken() -> None:
    assert {mutant.name.split(":")[0] for mutant in MUTANTS} >= INVARIANTS
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.found for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_still_fits_the_code(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1


def simulated(source: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qmtl", "sim", "--seeds", SEEDS, "--steps", STEPS]
    return subprocess.run(
        [*command, "--no-shrink", "--json"],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    "mutant",
    [m for m in MUTANTS if ALL or m.name.startswith(QUICK)],
    ids=lambda mutant: mutant.name,
)
def test_the_simulation_finds_it(mutant: Mutant, tmp_path: Path) -> None:
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    broken = tmp_path / mutant.file
    broken.write_text(broken.read_text().replace(mutant.old, mutant.new))
    done = simulated(source)
    assert done.returncode == 1, f"not found: {done.stdout[-300:]}{done.stderr[-300:]}"
    said = [line for line in done.stderr.splitlines() if line.startswith("broken: ")]
    assert any(line.startswith(tuple(f"broken: {f}" for f in mutant.found)) for line in said), said
    print(f"{mutant.name}: {done.stderr.splitlines()[-2]}")
