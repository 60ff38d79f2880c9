"""Which code decides: the one that started last.  Any other that still runs takes nobody live."""

from qmtl.core.errors import CodeDiffers
from qmtl.core.facts import ProgramStarted
from qmtl.core.names import SYSTEM, Digest, Reason

from .ports import Commit, Store
from .step import By


def started(store: Store, by: By, code: Digest) -> None:
    """This process decides from here on; recorded unless the same code did already."""

    def attempt() -> None:
        store.hold(SYSTEM)
        view = store.load(SYSTEM)
        if view.code != code:
            commit = Commit(view.expected, (ProgramStarted(code=code),), by.actor, by.now)
            done = store.commit(SYSTEM, commit)
            assert done is not None, "nobody else writes to it meanwhile"

    store.write(attempt)


def must_decide(store: Store, code: Digest) -> None:
    """Raises CodeDiffers when other code has started on this store since.

    To be called in the job that takes somebody live, or up.  Going down asks for nothing.
    """
    last = store.load(SYSTEM).code
    if last not in (None, code):
        raise CodeDiffers(
            f"It is {code[:12]}, and {last[:12] if last else ''} started later.",
            reasons=(Reason.CODE_DIFFERS,),
        )
