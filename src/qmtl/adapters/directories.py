"""Folders and names that a power loss does not take back.

Syncing a file saves what is in it; that there is a file of that name is its folder's to save.
"""

import os
from pathlib import Path

MODE = 0o700  # What is kept here is its owner's business.


def made(directory: Path) -> Path:
    """The folder, made if need be, and those above it."""
    if not directory.is_dir():
        above = made(directory.absolute().parent)
        directory.mkdir(mode=MODE, exist_ok=True)
        synced(above)
    return directory


def synced(directory: Path) -> None:
    """The names in a folder are safe once this returns."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
