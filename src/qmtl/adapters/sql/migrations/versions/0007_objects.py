"""What an object store holds, bodies and parts of series; and what retention left of snapshots."""

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
REDUCED = """CREATE TABLE reduced (
\tworld_id {text} NOT NULL,
\tseq {integer} NOT NULL,
\tdigest {text} NOT NULL,
\tPRIMARY KEY (world_id, seq),
\tFOREIGN KEY(world_id) REFERENCES worlds (world_id),
\tCHECK (length(digest) = 64)
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
    for table in (OBJECTS, PARTS, REDUCED):
        _run(table.format(**words) + more)
    for index in INDICES:
        _run(index)


def downgrade() -> None:
    """Only while nothing is elsewhere or reduced: the program before knows of neither."""
    for table in ("objects", "reduced"):
        held = op.get_bind().exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
        assert not held, f"no way down: there are rows in {table}"
    for name in ("INDEX bodies_due", "INDEX series_due"):
        _run(f"DROP {name}")
    for name in ("parts", "objects", "reduced"):
        _run(f"DROP TABLE {name}")


def _run(statement: str) -> None:
    op.get_bind().exec_driver_sql(statement)
