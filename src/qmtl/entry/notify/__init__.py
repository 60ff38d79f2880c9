"""`qmtl notify`: tells people what a world needs them to know.

`config.py` reads the file that says whom and of what, `messages.py` puts a notice into the shape of
each kind of target, `notifier.py` is the process: it reads journals through the API, as any client.
"""
