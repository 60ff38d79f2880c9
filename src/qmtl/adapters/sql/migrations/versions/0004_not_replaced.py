"""The journal and its bodies refuse INSERT OR REPLACE, too.

A released migration never changes.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

TRIGGERS = (
    "CREATE TRIGGER journal_is_not_replaced BEFORE INSERT ON journal "
    "WHEN NEW.seq IS NOT "
    "(SELECT 1 + ifnull(max(seq), 0) FROM journal WHERE world_id = NEW.world_id) "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "CREATE TRIGGER bodies_are_not_replaced BEFORE INSERT ON bodies "
    "WHEN EXISTS (SELECT 1 FROM bodies WHERE digest = NEW.digest AND body IS NOT NEW.body) "
    "BEGIN SELECT RAISE(ABORT, 'a body is its digest'); END",
)


def upgrade() -> None:
    for statement in TRIGGERS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for name in ("journal_is_not_replaced", "bodies_are_not_replaced"):
        op.get_bind().exec_driver_sql(f"DROP TRIGGER {name}")
