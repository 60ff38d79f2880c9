"""The auditor's check of a journal.  It imports nothing of the code that it checks."""
