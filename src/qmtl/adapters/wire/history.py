"""A world's journal off the wire: read strictly, and replayed to where it stood.

Nothing is taken on trust that can be checked here: an entry has to be the next one, its fact has to
read back, its stream and its kind have to be the fact's, and it has to fit the world before it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from qmtl.adapters.codec import fact_from_json
from qmtl.adapters.memory import World, after
from qmtl.core.errors import Invalid
from qmtl.core.facts import Entry, stream_of
from qmtl.core.names import ActorId, WorldId
from qmtl.core.view import WorldView

from .instants import parse


def entry_of(told: Mapping[str, object]) -> Entry:
    """The entry that JSON values are.  Raises Invalid, naming its seq and what is wrong."""
    seq, generation, at, actor = (told.get(key) for key in ("seq", "generation", "at", "actor"))
    if type(seq) is not int or seq < 1:
        raise Invalid(f"seq: {seq!r} is no entry's.")
    if type(generation) is not int or not isinstance(at, str) or not isinstance(actor, str):
        raise Invalid(f"entry {seq}: generation, at or actor is missing or of the wrong type.")
    try:
        fact, moment = fact_from_json(told.get("fact")), parse(at)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Invalid(f"entry {seq}: its fact cannot be read: {where}: {first['msg']}.") from None
    except ValueError as error:
        raise Invalid(f"entry {seq}: at {error}.") from None
    if (told.get("kind"), told.get("stream")) != (fact.kind, stream_of(fact)):
        raise Invalid(f"entry {seq}: its kind or stream is not that of its fact.")
    return Entry(seq=seq, generation=generation, at=moment, actor=ActorId(actor), fact=fact)


def in_order(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The same, as long as each follows the one before.  Raises Invalid."""
    generations: dict[str, int] = {}
    for expected, entry in enumerate(entries, 1):
        if entry.seq != expected:
            raise Invalid(f"entry {expected} is missing: {entry.seq} comes instead.")
        stream = stream_of(entry.fact)
        held = generations.get(stream, 0)
        if not max(1, held) <= entry.generation <= held + 1:
            raise Invalid(f"entry {expected}: generation {entry.generation} follows {held}.")
        generations[stream] = entry.generation
        yield entry


def just_before(world_id: WorldId, entries: Sequence[Entry]) -> World:
    """The world that all but the last of these entries lead to, and that the last one fits.

    Raises Invalid naming the first that does not fit those before it.
    """
    world = World(WorldView(world_id=world_id), [])
    before = world
    for entry in in_order(entries):
        before = world
        before.journal.append(entry)
        try:
            world = after(before, entry)
        except (KeyError, IndexError, ValueError) as error:
            why = f"entry {entry.seq} does not fit the entries before it: {error!r}."
            raise Invalid(why) from error
    return before
