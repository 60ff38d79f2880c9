"""What the evidence says of strategies whose truth is known, beside what it promises of them.

`python -m bench.quality` measures every figure of `docs/evidence.md`, from seeds.
"""
