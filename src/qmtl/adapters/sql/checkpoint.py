"""A world's view on disk, so that a process need not fold its journal from the beginning.

A checkpoint is a convenience, never an authority: one of another layout, of another journal or with
a damaged byte is ignored, and the journal is folded from genesis.  Columns are numpy arrays, the
rest is JSON; nothing is pickled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from hashlib import sha256
from io import BytesIO
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sqlalchemy import Connection

from qmtl.adapters.codec import sparse_from_bytes, sparse_to_bytes
from qmtl.core.columns import Columns, Proof, Standings, Track
from qmtl.core.names import Stage, WorldId
from qmtl.core.view import WorldView

from .project import upsert
from .schema import checkpoints
from .transaction import Hot

CHECKPOINT_EVERY = 1_000  # Entries of a world: folding that many takes about a tenth of a second.
# Raise it whenever `core/fold.py` gives an old fact another meaning: old checkpoints hold the old.
MEANING = 2

WRITE = upsert(checkpoints)
READ = (
    "SELECT c.seq, c.hash, c.digest, c.dense, c.sparse FROM checkpoints c "
    "JOIN journal j ON j.world_id = c.world_id AND j.seq = c.seq AND j.hash = c.hash "
    "WHERE c.world_id = :world_id AND c.layout = :layout"
)
BEHIND = (
    "SELECT w.world_id FROM worlds w LEFT JOIN checkpoints c "
    "ON c.world_id = w.world_id AND c.seq = w.seq AND c.layout = :layout "
    "WHERE c.world_id IS NULL ORDER BY w.world_id"
)


def behind(connection: Connection) -> list[WorldId]:
    """The worlds whose newest entry no checkpoint of this program stands for."""
    found = connection.exec_driver_sql(BEHIND, {"layout": layout()}).scalars()
    return [WorldId(each) for each in found]


def write(connection: Connection, hot: Hot) -> None:
    """Make this the world's checkpoint."""
    dense, sparse = _dense(hot.view), sparse_to_bytes(hot.view)
    connection.exec_driver_sql(
        WRITE,
        {
            "world_id": hot.view.world_id,
            "seq": hot.view.seq,
            "hash": hot.head_hash,
            "layout": layout(),
            "digest": _digest(dense, sparse),
            "dense": dense,
            "sparse": sparse,
        },
    )


def read(connection: Connection, world_id: WorldId) -> Hot | None:
    """The world as its checkpoint has it; None when there is none to be trusted."""
    found = connection.exec_driver_sql(READ, {"world_id": world_id, "layout": layout()}).first()
    if found is None:
        return None
    seq, head_hash, digest, dense, sparse = found
    whole = isinstance(dense, bytes) and isinstance(sparse, bytes)
    if not whole or digest != _digest(dense, sparse):
        return None
    try:
        view = WorldView(**sparse_from_bytes(sparse), **_columns(dense))
    except ValidationError:  # Of a layout that the digest cannot tell from ours: a word is gone.
        return None
    return Hot(view, head_hash, seq)


def _digest(dense: bytes, sparse: bytes) -> str:
    return sha256(sha256(dense).digest() + sha256(sparse).digest()).hexdigest()


def _dense(view: WorldView) -> bytes:
    """Every column, a structured array for each group of them."""
    count = len(view.strategies)
    groups = {"standings": view.standings, "proof": view.proof}
    groups |= {stage.value: track for stage, track in view.tracks.items()}
    arrays = {name: _structured(columns, count) for name, columns in groups.items()}
    out = BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _columns(dense: bytes) -> dict[str, Any]:
    with np.load(BytesIO(dense), allow_pickle=False) as arrays:
        return {
            "standings": Standings.of(_unstructured(arrays["standings"])),
            "proof": Proof.of(_unstructured(arrays["proof"])),
            "tracks": {stage: Track.of(_unstructured(arrays[stage.value])) for stage in Stage},
        }


def _structured(columns: Columns, count: int) -> NDArray[np.void]:
    arrays = columns.arrays()
    table = np.empty(count, dtype=_dtype(arrays))
    for name, array in arrays.items():
        table[name] = array[:count]
    return table


def _dtype(arrays: Mapping[str, NDArray[np.generic]]) -> list[Any]:
    """A field a column; one that holds several numbers a row is a field of that shape."""
    return [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]


def _unstructured(table: NDArray[np.void]) -> dict[str, NDArray[np.generic]]:
    return {name: np.ascontiguousarray(table[name]) for name in table.dtype.names or ()}


@cache
def layout() -> str:
    """Names the shape of a view: every field of it and of what it holds, with its type."""
    columns = [
        f"{cls.__name__}.{column.name}: {column.metadata['dtype']}"
        for cls in (Standings, Proof, Track)
        for column in fields(cls)
    ]
    shape = "\n".join([f"meaning {MEANING}", *columns, *_shape(WorldView, set())])
    return sha256(shape.encode()).hexdigest()


def _shape(hint: Any, seen: set[Any]) -> Iterable[str]:
    """Each dataclass that a type leads to, field by field."""
    for part in get_args(hint):
        yield from _shape(part, seen)
    if isinstance(hint, type) and is_dataclass(hint) and hint not in seen:
        seen.add(hint)
        for name, inner in get_type_hints(hint).items():
            yield f"{hint.__name__}.{name}: {inner}"
            yield from _shape(inner, seen)
