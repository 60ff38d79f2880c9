"""A world from disk: its newest checkpoint, and the fold of what follows."""

from sqlalchemy import Connection

from qmtl.adapters.chain import GENESIS
from qmtl.core.fold import fold
from qmtl.core.names import WorldId
from qmtl.core.view import WorldView

from . import checkpoint, journal
from .errors import BodyDropped, StoreDamaged
from .transaction import Hot


def vouched(connection: Connection, world_id: WorldId, known: Hot | None = None) -> Hot:
    """As `cold`; retention drops nothing that a world is folded from.  Raises StoreDamaged."""
    try:
        return cold(connection, world_id, known)
    except BodyDropped as error:
        raise StoreDamaged(f"The journal of {world_id} is not all there: {error}") from error


def cold(connection: Connection, world_id: WorldId, known: Hot | None = None) -> Hot:
    """A world from disk: what is `known` of it, or its newest checkpoint, and the fold of what
    follows."""
    start = known or checkpoint.read(connection, world_id)
    known = start or Hot(WorldView(world_id=world_id), GENESIS, 0)
    # INVARIANT: nothing is decided on a view that the chain does not vouch for.
    view = fold(known.view, journal.proven(connection, world_id, known.view.seq, known.head_hash))
    return Hot(view, journal.head(connection, world_id).hash, known.checkpoint_seq)
