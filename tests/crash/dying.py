"""`python -m tests.crash.dying FILE serve ...`: a server that dies by SIGKILL at a boundary.

A boundary is where an act may be cut in two: before and after each savepoint, its release, the
commit and what is published after it; and before an answer is sent.  While FILE holds a number
n, the server counts the boundaries it comes to, and dies at the n-th.  The product knows nothing of
this: it is plugged in from here.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from qmtl.adapters.sql.transaction import Transaction
from qmtl.entry.cli import main
from qmtl.entry.door import Call

_counting = Lock()
_seen = 0


def boundary(armed: Path) -> None:
    """Counts, and dies when it is time."""
    global _seen
    with _counting:
        if not armed.exists():
            _seen = 0
            return
        _seen += 1
        if _seen >= int(armed.read_text()):
            os.kill(os.getpid(), signal.SIGKILL)


def around(owner: type, name: str, armed: Path) -> None:
    """Makes both sides of a method's call a boundary."""
    plain: Callable[..., Any] = getattr(owner, name)

    def counted(*given: Any, **named: Any) -> Any:
        boundary(armed)
        answer = plain(*given, **named)
        boundary(armed)
        return answer

    setattr(owner, name, counted)


if __name__ == "__main__":
    file = Path(sys.argv.pop(1))
    around(Transaction, "_run", file)
    around(Transaction, "commit", file)
    around(Call, "answer", file)
    main()
