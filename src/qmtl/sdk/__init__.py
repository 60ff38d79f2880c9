"""For strategy authors: submit a strategy to a world, and let the world decide.

The names an author needs are in `qmtl` itself: `from qmtl import Runner`.
"""
