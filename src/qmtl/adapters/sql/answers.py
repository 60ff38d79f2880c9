"""What Idempotency-Keys answered.  No journal tells it again, so each row has its own digest."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import Connection

from qmtl.core.names import ActorId
from qmtl.core.times import micros

from .errors import StoreDamaged

REMEMBER_FOR = timedelta(days=7)  # No client retries a request longer than this.
REMEMBER = (
    "INSERT INTO idempotency VALUES (:actor, :key, :request, :status, :body, :digest, :at) "
    "ON CONFLICT DO NOTHING"
)
FORGET = "DELETE FROM idempotency WHERE at < :at"
HELD = "SELECT actor, key, request, status, body, digest FROM idempotency"


def remember(
    connection: Connection,
    actor: ActorId,
    key: str,
    request: str,
    status: int,
    body: bytes,
    at: datetime,
) -> None:
    """Keep an answer, and drop those that are too old."""
    row = {
        "actor": actor,
        "key": key,
        "request": request,
        "status": status,
        "body": body,
        "digest": digest(actor, key, request, status, body),
        "at": micros(at),
    }
    connection.exec_driver_sql(FORGET, {"at": micros(at - REMEMBER_FOR)})
    connection.exec_driver_sql(REMEMBER, row)


def remembered(connection: Connection, actor: ActorId, key: str) -> tuple[str, int, bytes] | None:
    """What a key answered.  Raises StoreDamaged."""
    query = f"{HELD} WHERE actor = :actor AND key = :key"
    found = connection.exec_driver_sql(query, {"actor": actor, "key": key}).first()
    if found is None:
        return None
    *held, told = found
    if digest(*held) != told:
        raise StoreDamaged("What this Idempotency-Key answered is not what was written.")
    return (found[2], found[3], found[4])


def damaged(connection: Connection) -> Iterator[str]:
    """The answers that are not what was written, in words."""
    for *held, told in connection.exec_driver_sql(HELD):
        if digest(*held) != told:
            yield f"idempotency: what {held[1]!r} answered {held[0]!r} is not what was written"


def digest(actor: object, key: object, request: object, status: object, body: object) -> str:
    """Of all that a row says of an answer, whatever a damaged one says it is."""
    content = body if isinstance(body, bytes) else str(body).encode()
    head = "\0".join(map(str, (actor, key, request, status, "")))
    return sha256(head.encode(errors="replace") + content).hexdigest()
