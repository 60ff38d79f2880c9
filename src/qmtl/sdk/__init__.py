"""For strategy authors: submit a strategy to a world, and let the world decide."""
