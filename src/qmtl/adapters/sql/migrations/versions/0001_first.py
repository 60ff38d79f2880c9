"""The first schema, as it was released: the statements of 0001_first.sql, apart by blank lines.

A released migration never changes.
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None  # There is no way down: the journal would be lost.


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text().split("\n\n"):
        op.get_bind().exec_driver_sql(statement)
