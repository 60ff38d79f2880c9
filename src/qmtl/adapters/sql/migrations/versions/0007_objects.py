"""What an object store holds: bodies, and parts of series."""

from alembic import op

revision = "0007"
down_revision = "0006"

# As `schema.py` has it in each.  A released migration never changes, and so it says it itself.
OBJECTS = """CREATE TABLE objects (
\tdigest {text} NOT NULL,
\t{key} {text} NOT NULL,
\tsize {integer} NOT NULL,
\tPRIMARY KEY (digest),
\tUNIQUE ({key}),
\tCHECK (length(digest) = 64 AND size > 0)
)"""
PARTS = """CREATE TABLE parts (
\tworld_id {text} NOT NULL,
\tstrategy_id {text} NOT NULL,
\tstage {text} NOT NULL,
\tchunk {integer} NOT NULL,
\tchunks {integer} NOT NULL,
\tdigest {text} NOT NULL,
\tPRIMARY KEY (world_id, strategy_id, stage, chunk),
\tFOREIGN KEY(world_id, strategy_id) REFERENCES strategies (world_id, strategy_id),
\tFOREIGN KEY(digest) REFERENCES objects (digest),
\tCHECK (stage IN ('backtest', 'paper', 'shadow', 'live')),
\tCHECK (chunk >= 0 AND chunks > 0)
)"""
INDICES = (
    "CREATE INDEX bodies_due ON bodies (digest) WHERE length(body) >= 65536",
    "CREATE INDEX series_due ON series (world_id, strategy_id, stage, chunk) "
    "WHERE chunk & 31 = 31 AND points = 128",
)
SQLITE = {"text": "TEXT", "integer": "INTEGER", "key": '"key"'}
POSTGRESQL = {"text": 'TEXT COLLATE "C"', "integer": "BIGINT", "key": "key"}


def upgrade() -> None:
    ours = op.get_bind().dialect.name == "sqlite"
    words, more = (SQLITE, "\n WITHOUT ROWID,\n STRICT") if ours else (POSTGRESQL, "")
    for table in (OBJECTS, PARTS):
        _run(table.format(**words) + more)
    for index in INDICES:
        _run(index)


def downgrade() -> None:
    """Only while nothing is in an object store: the program before knows of none."""
    held = op.get_bind().exec_driver_sql("SELECT count(*) FROM objects").scalar()
    assert not held, "no way down: a part of it is in an object store"
    for name in ("INDEX bodies_due", "INDEX series_due", "TABLE parts", "TABLE objects"):
        _run(f"DROP {name}")


def _run(statement: str) -> None:
    op.get_bind().exec_driver_sql(statement)
