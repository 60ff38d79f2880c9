"""What nobody should do to a database, for tests that see it found or refused."""

import sqlite3
from contextlib import closing
from pathlib import Path

from qmtl.adapters.sql import folder


def edit(data: Path, *statements: str) -> int:
    """Edit the database by hand; how many rows the last statement changed."""
    with closing(sqlite3.connect(data / folder.DATABASE)) as by_hand:
        changed = [by_hand.execute(statement).rowcount for statement in statements]
        by_hand.commit()
    return changed[-1]


def rows(data: Path, query: str) -> list[tuple[object, ...]]:
    """What a query answers to somebody from outside."""
    with closing(sqlite3.connect(data / folder.DATABASE)) as by_hand:
        return by_hand.execute(query).fetchall()
