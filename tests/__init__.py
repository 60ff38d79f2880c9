"""Tests: a file a noun, on the floors of `src/qmtl`; what crosses floors has a folder."""
