"""Moves to the object store what is large, now and then."""

from dataclasses import dataclass
from threading import Event, Thread
from typing import Final

from qmtl.adapters.sql.errors import LOG, StoreAway
from qmtl.adapters.sql.store import SqlStore

EVERY_SEC: Final = 600.0  # Nothing waits for it; before bodies leave, a checkpoint is written.


@dataclass
class Offload:
    """A thread that moves until `close`.

    away  why nothing is moved now, and all of it stays in the database; None while all goes well
    """

    store: SqlStore
    every_sec: float = EVERY_SEC
    away: str | None = None

    def __post_init__(self) -> None:
        self._closing = Event()
        self._thread = Thread(target=self._serve, name="qmtl-offload", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                self.store.offload(self._closing.is_set)
                self.away = None
            except StoreAway as error:
                if self.away is None:
                    LOG.warning("nothing leaves for the object store: %s", error)
                self.away = str(error)
            self._closing.wait(self.every_sec)
