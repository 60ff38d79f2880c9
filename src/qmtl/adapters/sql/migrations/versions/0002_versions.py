"""Strategies have versions: what is there is the first of its own family.

SQLite cannot add such columns in place, so the table is made anew: the statements of
0002_versions.sql, apart by blank lines.  A released migration never changes.
"""

from pathlib import Path

from alembic import op

from qmtl.adapters.sql.errors import UnknownSchema

revision = "0002"
down_revision = "0001"

# What the program of 0001 would stumble over: it reads no key that it does not know.
NEWER = """
SELECT count(*) FROM journal JOIN bodies ON digest = body_digest
WHERE kind = 'strategy_bound' AND json_type(CAST(body AS TEXT), '$.version') IS NOT NULL
"""
COLUMNS = (
    "world_id, strategy_id, row, name, author, fingerprint, variants_tried, bound_at, phase, "
    "entered_at, held, selected, step, step_window_us, extension_us, blocked"
)


def upgrade() -> None:
    _run(*Path(__file__).with_suffix(".sql").read_text().split("\n\n"))


def downgrade() -> None:
    """Raises UnknownSchema once the journal holds what the program before cannot read."""
    if op.get_bind().exec_driver_sql(NEWER).scalar():
        raise UnknownSchema(
            "Strategies were bound since it became 0002, and the program of 0001 cannot read "
            "that: go back to a copy from before."
        )
    first = Path(__file__).with_name("0001_first.sql").read_text().split("\n\n")
    (made,) = (each for each in first if each.startswith("CREATE TABLE strategies "))
    _run(
        "PRAGMA defer_foreign_keys = ON",
        f"CREATE TEMP TABLE was AS SELECT {COLUMNS} FROM strategies",
        "DROP TABLE main.strategies",
        made,
        f"INSERT INTO strategies ({COLUMNS}) SELECT {COLUMNS} FROM temp.was",
        "DROP TABLE temp.was",
    )


def _run(*statements: str) -> None:
    for statement in statements:
        op.get_bind().exec_driver_sql(statement)
