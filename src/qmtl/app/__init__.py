"""Use cases: load one view, decide, commit facts."""
