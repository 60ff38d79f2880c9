"""What can go wrong with a database, said to whoever started the server or asked it something."""

from qmtl.core.errors import Refusal, Unknown


class FolderInUse(Refusal):
    """Another process serves this data folder: SQLite has one writer.  Stop it first."""


class UnknownSchema(Refusal):
    """The database is not of a version that this program knows; a newer one may have written it."""


class StoreAway(Refusal):
    """The database did not take the write; nothing of it is kept.  Try again."""

    status = 503


class BodyDropped(Unknown):
    """Retention has dropped what this journal entry said; that it was said is still on record."""

    status = 410
