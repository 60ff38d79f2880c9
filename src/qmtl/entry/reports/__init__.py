"""Reports: a candidate's dossier and a world's day.  Data of a journal in, one file of HTML out.

`reading.py` reads a journal and verifies it on the way; `dossier.py` and `day.py` are what it says,
as plain values; `pages.py` writes them.  No other page is needed to read one, and no network.
"""
