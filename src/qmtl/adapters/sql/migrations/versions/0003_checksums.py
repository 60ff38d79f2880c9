"""Every chunk of a series has a checksum, so that what a disk did to it is found when it is read.

The table is made anew: SQLite adds no such column in place.  A released migration never changes,
and so it has the checksum's formula for itself.
"""

import struct
from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"

PRIME = 2**61 - 1
COLUMNS = "world_id, strategy_id, stage, chunk, points, first_t, last_t, t, r, accepted"
KEEP = f"INSERT INTO series ({COLUMNS}, checksum) VALUES ({', '.join('?' * 11)})"


def upgrade() -> None:
    _run(*Path(__file__).with_suffix(".sql").read_text().rstrip().split("\n\n"))
    rows = op.get_bind().exec_driver_sql(f"SELECT {COLUMNS} FROM temp.was").all()
    for row in rows:
        op.get_bind().exec_driver_sql(KEEP, (*row, _checksum(*row[-3:])))
    _run("DROP TABLE temp.was")


def downgrade() -> None:
    first = Path(__file__).with_name("0001_first.sql").read_text().split("\n\n")
    (made,) = (each for each in first if each.startswith("CREATE TABLE series "))
    _run(
        f"CREATE TEMP TABLE was AS SELECT {COLUMNS} FROM series",
        "DROP TABLE main.series",
        made,
        f"INSERT INTO series ({COLUMNS}) SELECT {COLUMNS} FROM temp.was",
        "DROP TABLE temp.was",
    )


def _checksum(t: bytes, r: bytes, accepted: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f"<{2 * len(accepted)}Q", t + r)
    return (sum(words) + sum(accepted)) % PRIME


def _run(*statements: str) -> None:
    for statement in statements:
        op.get_bind().exec_driver_sql(statement)
