"""Which campaign loops are there, so that each world has one that works on it."""

from alembic import op

revision = "0006"
down_revision = "0005"

# As `schema.py` has it in each.  A released migration never changes, and so it says it itself.
LOOPS = """CREATE TABLE loops (
\tworld_id {text} NOT NULL,
\tloop {text} NOT NULL,
\tuntil {integer} NOT NULL,
\tPRIMARY KEY (world_id, loop)
)"""
SQLITE = LOOPS.format(text="TEXT", integer="INTEGER") + "\n WITHOUT ROWID,\n STRICT"
POSTGRESQL = LOOPS.format(text='TEXT COLLATE "C"', integer="BIGINT")


def upgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql(SQLITE if connection.dialect.name == "sqlite" else POSTGRESQL)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE loops")
