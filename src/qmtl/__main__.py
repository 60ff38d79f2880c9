"""`python -m qmtl` is `qmtl`."""

from qmtl.entry.cli import main

if __name__ == "__main__":
    main()
