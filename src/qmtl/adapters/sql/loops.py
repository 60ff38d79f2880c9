"""Which campaign loops are there.  No journal tells it: it is over in seconds."""

from sqlalchemy import Connection

from qmtl.core.names import WorldId

GONE = "DELETE FROM loops WHERE world_id = :world_id AND (loop = :loop OR until <= {now})"
HERE = "INSERT INTO loops VALUES (:world_id, :loop, {now} + :ttl)"
THERE = "SELECT loop FROM loops WHERE world_id = :world_id ORDER BY loop"


def beat(connection: Connection, now: str, world_id: WorldId, loop: str, ttl_us: int) -> list[str]:
    """One is there for so long; which are.  `now`: how the database says what its clock shows."""
    row = {"world_id": world_id, "loop": loop}
    connection.exec_driver_sql(GONE.format(now=now), row)
    if ttl_us > 0:
        connection.exec_driver_sql(HERE.format(now=now), {**row, "ttl": ttl_us})
    return list(connection.exec_driver_sql(THERE, row).scalars())
