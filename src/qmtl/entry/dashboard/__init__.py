"""The dashboard: pages for people, served beside the API, one file a page.

A page reads what the API reads, through the same use cases, with the roles of whoever is signed in.
It writes nothing: a form goes on to the API's own route (`forms.py`), with the same authorisation,
the same Idempotency-Key, the same refusals.  So nothing can be done here that could not be done
there, and nothing is decided here at all.
"""
