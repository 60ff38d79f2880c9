"""`python -m bench.quality`: every figure of docs/evidence.md, from seeds; Markdown when piped."""

import argparse
import json
import sys
import time

from rich.console import Console

from bench.quality import crowds, decay, lies, nulls, power, report

PATHS, QUICK = 10_000, 400
PARTS = {
    "crossings": nulls.crossings,
    "capital": nulls.capital,
    "looking": nulls.looking,
    "lies": lies.lies,
    "crowds": crowds.crowds,
    "power": power.power,
    "decay": decay.decays,
}


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--paths", type=int, default=PATHS, help="of each cell")
    asked.add_argument("--quick", action="store_true", help=f"{QUICK} paths")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--part", choices=PARTS, action="append", help="only these")
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    count = QUICK if given.quick else given.paths
    console, sections = Console(), []
    for name in given.part or PARTS:
        began = time.monotonic()
        found = PARTS[name](count, given.seed)
        sections += found
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        if not given.json:
            for section in found:
                if console.is_terminal:
                    report.show(section, console)
                else:
                    print(report.markdown(section), flush=True)
    if given.json:
        print(json.dumps(report.document(sections), indent=2))
    broken = [said for section in sections for said in section.broken()]
    for said in broken:
        print(f"broken: {said}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
