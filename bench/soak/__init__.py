"""A soak: a year of many strategies, while whatever can die does.  `python -m bench.soak`."""
