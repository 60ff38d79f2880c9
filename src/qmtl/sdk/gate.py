"""The order gate: what stands between a strategy's engine and the market.

    with OrderGate("us-equity", "momentum") as gate:
        while trading:
            if gate.may_trade():
                size = gate.weight * capital

One thread listens to the world's events, another asks for the decision again before its term ends.
Each changes the `Lease` under a lock and leaves what follows from it in one value, `Leave`; looking
at that value and at the clock is all that `may_trade` and `weight` do.  They never block.

INVARIANT: what was read is never above what was permitted when it was read.  Between two reads the
gate may close: then the later one says 0.  A weight that has been read is a number like any other:
read it once for each order, and just before it.
"""

import math
import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from types import TracebackType
from typing import Concatenate, Final, ParamSpec
from weakref import WeakSet

from qmtl.adapters.client import ApiError, Away, BadEvent, Client, Event, Subscription
from qmtl.core.decision import DECISION_TTL
from qmtl.core.names import Mode

from .decisions import as_good_as_away, ask, monotonic
from .lease import CLOSED, NOT_HEARD, RENEWALS, Lease
from .notice import notice_of

TTL_MIN: Final = timedelta(seconds=3)  # Signs of life come every second at most; two may be late.
QUIET_SEC_MIN: Final = 1.0  # What the server takes,
QUIET_SEC_MAX: Final = 15.0  # from here to there.
ASK_SEC: Final = 5.0  # A server that is well decides in milliseconds.
FIRST_SEC: Final = 5.0  # How long entering waits for the first decision, or for why there is none.
JOIN_SEC: Final = 2.0  # How long leaving waits for the threads; they end by themselves.
RETRY_SEC: Final = 0.25  # After the first failure; then twice as long each time,
RECONNECT_SEC_MAX: Final = 2.0  # up to this for the stream,
ASK_AGAIN_SEC_MAX: Final = 10.0  # and up to this for the decision.
HEAD_SEC: Final = 1.0  # A server confirms within this that nothing newer is decided elsewhere.

NOT_ENTERED: Final = "not entered: use it in a `with`"
LEFT: Final = "left: its `with` has ended"
FORKED: Final = "forked: this process has no thread that listens; enter a gate of its own"

P = ParamSpec("P")


class OrderGate:
    """Says whether a strategy may trade now, and with which share of capital.  Use it in a `with`
    or an `async with`, once.

    It opens when the world decides `live`.  It closes at once on a freeze, a kill, a demotion, live
    trading switched off, or a world suspended or archived; when its lease ends without a new one;
    when the stream of events is silent for longer than the TTL; and with whatever ends its threads.
    It never opens on a decision older than one already seen.  In a forked child it is closed.

    client    by default one of its own, from QMTL_URL and QMTL_TOKEN.  One that is given should
              give up on a request in less than a third of the TTL
    ttl       how long it may stay open unheard: 3 s to 300 s, which is a decision's own term.  It
              can only shorten that

    Raises ValueError for another TTL.
    """

    def __init__(
        self,
        world: str,
        strategy_id: str,
        *,
        client: Client | None = None,
        ttl: timedelta | None = None,
    ) -> None:
        ttl = DECISION_TTL if ttl is None else ttl
        if not TTL_MIN <= ttl <= DECISION_TTL:
            least, most = TTL_MIN.total_seconds(), DECISION_TTL.total_seconds()
            told = f"{ttl.total_seconds():g}"
            raise ValueError(f"a gate's ttl is {least:g} to {most:g} seconds, not {told}")
        self._world, self._strategy_id = world, strategy_id
        self._given = client
        self._ttl_sec = ttl.total_seconds()
        self._quiet_sec = min(max(self._ttl_sec / RENEWALS, QUIET_SEC_MIN), QUIET_SEC_MAX)
        self._lease = Lease(ttl_sec=self._ttl_sec, over=NOT_ENTERED)
        self._leave = CLOSED
        self._changed = threading.Condition()  # Its lock is held by whoever changes the lease.
        self._wake = threading.Event()  # The decision is to be asked for now.
        self._answered = threading.Event()  # Something came of connecting, or of asking.
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._stream: Subscription | None = None
        self._seen: int | None = None  # The last event: where to go on after a break.
        self._connected_at = -math.inf

    # ---- What may be done --------------------------------------------------------------------

    def may_trade(self) -> bool:
        """Whether the strategy is live and permitted at this instant.

        While it is drained it may trade, with a weight of 0: to get out.
        """
        leave = self._leave
        return leave.mode is Mode.LIVE and monotonic() < leave.until

    @property
    def weight(self) -> float:
        """The share of capital it may use at this instant, 0 to 1; 0 unless `may_trade`."""
        leave = self._leave
        return leave.weight if monotonic() < leave.until else 0.0

    @property
    def mode(self) -> Mode:
        """What the strategy may do at this instant.  In doubt, compute only."""
        leave = self._leave
        return leave.mode if monotonic() < leave.until else Mode.COMPUTE_ONLY

    @property
    def why(self) -> str | None:
        """Why the weight is 0, in words; None when it is not."""
        return self._lease.why(monotonic())

    @property
    def sequence(self) -> int:
        """The newest generation of the world's decisions it has seen; 0 before the first."""
        return self._lease.sequence

    def wait_for(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Waits until `holds()`, which is asked now, at each change, and when what is permitted
        ends; False when it does not in `timeout` seconds.  For instance
        `gate.wait_for(gate.may_trade, 10.0)`; in asyncio
        `await asyncio.to_thread(gate.wait_for, gate.may_trade, 1.0)`.
        """
        end = monotonic() + timeout
        with self._changed:
            while not holds():
                now, until = monotonic(), self._leave.until
                if now >= end:
                    return False
                self._changed.wait((min(end, until) if now < until else end) - now)
        return True

    # ---- In and out --------------------------------------------------------------------------

    def __enter__(self) -> "OrderGate":
        """Returns when the first decision is there, or why there is none; open or closed."""
        self._start()
        with ExitStack() as failed:
            failed.callback(self._finish)
            self._answered.wait(FIRST_SEC)
            failed.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes at once, lets go of the lease if it can, and ends the threads."""
        self._finish()

    async def __aenter__(self) -> "OrderGate":
        import asyncio

        self._start()
        with ExitStack() as failed:
            failed.callback(self._close, LEFT)  # Cancelled: nobody will leave it.
            await asyncio.to_thread(self._answered.wait, FIRST_SEC)
            failed.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import asyncio

        self._close(LEFT)
        await asyncio.to_thread(self._finish)

    def _start(self) -> None:
        if self._threads:
            raise RuntimeError("an OrderGate is entered once: make another")
        self._client = self._given or Client(
            timeout=min(ASK_SEC, self._ttl_sec / RENEWALS), sleep=self._doze
        )
        self._lease = Lease(ttl_sec=self._ttl_sec)
        of = f"{self._world}/{self._strategy_id}"
        for work in (self._listen, self._renew):
            name = f"OrderGate {of}{work.__name__}"
            thread = threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
            self._threads.append(thread)
        self._running = len(self._threads)
        _ENTERED.add(self)
        for thread in self._threads:
            thread.start()

    def _close(self, why: str) -> None:
        """For good, at once.  The threads find out, and end."""
        if self._lease.over == FORKED:
            return  # They are the parent's.
        self._change(Lease.ended, why)
        self._stop.set()
        self._wake.set()
        self._answered.set()
        with self._changed:
            stream = self._stream
        if stream is not None:
            stream.interrupt()

    def _finish(self) -> None:
        self._close(LEFT)
        if self._lease.over == FORKED:
            return
        end = monotonic() + JOIN_SEC
        for thread in self._threads:
            thread.join(max(0.0, end - monotonic()))

    # ---- The two threads ---------------------------------------------------------------------

    def _change(
        self, step: Callable[Concatenate[Lease, P], Lease], *given: P.args, **named: P.kwargs
    ) -> Lease:
        """The lease after a step.

        INVARIANT: `_leave` is written here only, under the lock, in the order of the steps.
        """
        with self._changed:
            self._lease = step(self._lease, *given, **named)
            self._leave = self._lease.leave()
            self._changed.notify_all()
            return self._lease

    def _guard(self, work: Callable[[], None]) -> None:
        """INVARIANT: whatever ends one of the threads closes the gate, for good."""
        try:
            work()
        finally:
            error = sys.exc_info()[1]
            self._close(LEFT if error is None else f"its thread ended: {error!r}")
            with self._changed:
                self._running -= 1
                last = self._running == 0
            if last and self._given is None:
                self._client.close()

    def _doze(self, sec: float) -> None:
        self._stop.wait(sec)

    def _listen(self) -> None:
        """Follows the stream; comes back to it where it broke, again and again."""
        silence_sec = min(RENEWALS * self._quiet_sec, self._ttl_sec)
        wait = RETRY_SEC
        while not self._stop.is_set():
            began = monotonic()
            try:
                with self._client.subscribe(
                    self._world, self._seen, self._quiet_sec, silence_sec
                ) as stream:
                    self._follow(stream)
                self._change(Lease.missed, "the server ended the stream of events")
            except Away as error:
                self._change(Lease.missed, f"world away: {error}")
            except ApiError as error:
                away = as_good_as_away(error)
                self._change(Lease.missed if away else Lease.deafened, f"world: {error}")
            except BadEvent as error:
                self._change(Lease.deafened, f"stream of events: {error}")
            self._answered.set()
            if monotonic() - began > RECONNECT_SEC_MAX:  # It was a good one, for a while.
                wait = RETRY_SEC
            self._stop.wait(wait)
            wait = min(2 * wait, RECONNECT_SEC_MAX)

    def _follow(self, stream: Subscription) -> None:
        with self._changed:
            self._stream = stream
        if self._seen is None:  # It cannot go on where it broke: what came between is missing.
            self._change(Lease.deafened, NOT_HEARD)
        self._heard()
        self._connected_at = monotonic()
        self._wake.set()  # Subscribed first, then asked: nothing falls between the two.
        for told in stream:
            if self._stop.is_set():
                return
            if isinstance(told, Event):
                self._take(told)
            elif self._seen is None:
                self._seen = told.start
            self._heard()  # After the event is taken: a kill renews nothing, not for a moment.

    def _heard(self) -> None:
        before = self._lease.asked_min
        if self._change(Lease.heard, monotonic()).asked_min != before:
            self._wake.set()

    def _take(self, event: Event) -> None:
        """Raises BadEvent for a gap, too: what is missing may be a kill."""
        if self._seen is not None and event.seq != self._seen + 1:
            raise BadEvent(f"event {event.seq} came after event {self._seen}")
        notice = notice_of(event, self._world, self._strategy_id)
        if notice is not None:
            self._change(Lease.noticed, notice)
            self._wake.set()
        self._seen = event.seq

    def _renew(self) -> None:
        """Asks for the decision: when connected, after each event that bears on it, in time."""
        wait: float | None = None
        retry = RETRY_SEC
        while True:
            self._wake.wait(wait)
            self._wake.clear()  # Before looking whether to stop, which is said before waking.
            if self._stop.is_set():
                break
            asked_at = monotonic()
            answered = ask(self._client, self._world, self._strategy_id)
            lease = self._change(Lease.told, answered, asked_at)
            self._answered.set()
            if lease.held.asked_at == asked_at:
                retry = RETRY_SEC
                wait = max(asked_at + lease.renew_sec - monotonic(), RETRY_SEC)
            else:
                wait, retry = retry, min(2 * retry, ASK_AGAIN_SEC_MAX)
            if asked_at < self._connected_at + HEAD_SEC:
                wait = min(wait, HEAD_SEC)
        self._let_go()

    def _let_go(self) -> None:
        """Tells the world that the lease is not used any more.  Untold, it expires."""
        leased = self._lease.leased
        if leased:
            with suppress(ApiError, Away):
                self._client.acknowledge(
                    self._world, strategy_id=self._strategy_id, sequence=leased
                )


# ---- Forks ---------------------------------------------------------------------------------------

_ENTERED: "WeakSet[OrderGate]" = WeakSet()


def _close_in_child() -> None:
    """A child has the parent's gates, and none of their threads."""
    for gate in tuple(_ENTERED):
        gate._leave = CLOSED
        gate._lease = gate._lease.ended(FORKED)
        gate._changed = threading.Condition()  # A thread that is not here may hold the lock.


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
