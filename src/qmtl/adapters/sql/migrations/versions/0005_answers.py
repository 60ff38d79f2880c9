"""What an Idempotency-Key answered has a digest, so that what a disk did to it is found.

A released migration never changes, and so it has the digest's formula for itself.
"""

from hashlib import sha256
from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"

COLUMNS = 'actor, "key", request, status, body, at'
KEEP = f"INSERT INTO idempotency ({COLUMNS}, digest) VALUES ({', '.join('?' * 7)})"


def upgrade() -> None:
    _run(*Path(__file__).with_suffix(".sql").read_text().rstrip().split("\n\n"))
    rows = op.get_bind().exec_driver_sql(f"SELECT {COLUMNS} FROM temp.was").all()
    for row in rows:
        op.get_bind().exec_driver_sql(KEEP, (*row, _digest(*row[:5])))
    _run("DROP TABLE temp.was")


def downgrade() -> None:
    first = Path(__file__).with_name("0001_first.sql").read_text().split("\n\n")
    made = [each for each in first if " idempotency " in each]  # The table, and its index.
    _run(
        f"CREATE TEMP TABLE was AS SELECT {COLUMNS} FROM idempotency",
        "DROP TABLE main.idempotency",
        *made,
        f"INSERT INTO idempotency ({COLUMNS}) SELECT {COLUMNS} FROM temp.was",
        "DROP TABLE temp.was",
    )


def _digest(actor: str, key: str, request: str, status: int, body: bytes) -> str:
    head = "\0".join((actor, key, request, str(status), ""))
    return sha256(head.encode() + body).hexdigest()


def _run(*statements: str) -> None:
    for statement in statements:
        op.get_bind().exec_driver_sql(statement)
