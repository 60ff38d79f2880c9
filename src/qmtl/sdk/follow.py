"""`Runner.follow`: what was submitted, computed bar by bar as prices come in, and posted.

    a new bar  ->  weights, engine  ->  what the decision permits  ->  the ledger  ->  the world

The engine is causal, so the return of a bar is what it will always be.  Which stage it goes to is
the world's to say; while nobody can be asked it is kept, and goes out in order when somebody can.
It stands in the ledger (`ledger.py`) before it is posted, so that a crash at any instant neither
loses it nor sends it twice.
"""

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.core.names import Mode
from qmtl.core.snapshot import TTL_SEC_MAX
from qmtl.core.times import rfc3339
from qmtl.sdk import ledger as ledgers
from qmtl.sdk.decisions import Held, monotonic
from qmtl.sdk.delivery import Delivery, waits
from qmtl.sdk.engine import Backtest, Engine
from qmtl.sdk.ledger import Bar
from qmtl.sdk.prices import FloatArray, Prices, TimeArray, stamp
from qmtl.sdk.reading import Ended, Updates, reading
from qmtl.sdk.sources import PriceSource, grown, source_of
from qmtl.sdk.strategy import Strategy, StrategyError, fingerprint, name_of, weights_of
from qmtl.sdk.submitted import SAME, Standing, Submitted, moment, numpy_time, prefix
from qmtl.sdk.told import Note, Told

LOOK_SEC: Final = 1.0  # A source that does not look at `stop` is not waited for longer.
TTL_BARS: Final = 1.5  # The next bar replaces a snapshot; half a bar is for its delay.
TTL_GAPS: Final = 20  # Of this many gaps the median is a bar: weekends and holidays are not.
REPLAY_LAG: Final = timedelta(minutes=1)  # After a bar, on a replay clock: when it is known.


class NoReplayClock(Exception):
    """The server lives in the system's time, which is not moved: start it with --clock replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What `execute` is told at each bar.

    time      the bar, whose return is asked for
    assets    names of the columns
    prices    (assets,) prices of that bar
    weights   (assets,) what to hold from now on, fractions of the strategy's own equity: those of
              the newest bar there is, also when `time` is one that was missed. All zero when the
              strategy may only compute, or has no capital left
    mode      what it may do: trade an account for `live`, a simulated one for `paper`
    capital   its share of the capital; 0 unless it is live
    ramp_fraction  how far up its ramp it is, 0 to 1
    """

    time: datetime
    assets: tuple[str, ...]
    prices: FloatArray
    weights: FloatArray
    mode: Mode
    capital: float
    ramp_fraction: float


Execute = Callable[[Step], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How it ended: bars computed and posted in this run, and how many are still owed.

    `away` says that the world did not answer when it ended.
    """

    strategy_id: str
    computed: int
    posted: int
    owed: int
    away: bool


def follow(
    strategy: Strategy,
    *,
    world: str,
    source: PriceSource | Path | str,
    strategy_id: str | None = None,
    engine: Engine | None = None,
    execute: Execute | None = None,
    client: Client | None = None,
    state: Path | None = None,
    once: bool = False,
    replay: bool = False,
    until: date | None = None,
    tell: Callable[[Told], object] = print,
    stop: Event | None = None,
) -> Followed:
    """Computes and posts each new bar of a strategy that was submitted; ends with its source.

    source    a `PriceSource`, or the path of a file or folder that grows
    engine    the one it was submitted with
    execute   trades, and answers the return that the strategy realised over the bar that has just
              ended (a fraction), or None when there is none: then the engine's is posted alone, and
              counts as a bar on which paper earned nothing. It may be told a bar again after a
              crash. Without it the engine's return is posted: a rehearsal, not trading
    state     the folder of what was done and is still owed; by default `QMTL_STATE`, else
              `~/.local/state/qmtl/follow`
    once      what there is now, and no more
    replay    lives through the bars there are on the server's replay clock, moving it to each
    until     the last day (UTC) that is looked at
    tell      is given a `Turn` for every bar, and a `Note` for what else there is to know
    stop      when it is set, ends after the bar at hand; it is set when this returns

    Killed at any instant it goes on where it stopped. While the world is away it computes, does
    what the last decision permits until that expires, and keeps what it owes.

    Raises NotSubmitted for code that the world does not know, AlreadyFollowed, NoReplayClock,
    BarRefused for what waiting does not mend; ApiError, LedgerError, OSError; StrategyError,
    PricesError and HistoryChanged; and whatever the source or `execute` raises.
    """
    engine = engine or Engine()
    parts = fingerprint(strategy, "", engine).parts  # Before it runs, and remembers.
    given = source if isinstance(source, PriceSource) else source_of(source)
    ended = stop or Event()
    with ExitStack() as opened:
        talking = client or opened.enter_context(Client())
        follower = _Follower(
            strategy=strategy,
            asked=strategy_id or name_of(strategy),
            parts={name: parts[name] for name in SAME},
            engine=engine,
            execute=execute,
            delivery=Delivery(talking, world, state or ledgers.folder(), tell, opened),
            replay=replay,
            until=None if until is None else _end_of(until),
            stop=ended,
        )
        updates = opened.enter_context(reading(given, ended))
        return follower.run(updates, once=once or replay)


@dataclass(slots=True, kw_only=True)
class _Follower:
    """One strategy being followed."""

    strategy: Strategy
    asked: str
    parts: dict[str, str]
    engine: Engine
    execute: Execute | None
    delivery: Delivery
    replay: bool
    until: datetime | None
    stop: Event
    prices: Prices | None = None
    computed: int = 0

    def run(self, updates: Updates, *, once: bool) -> Followed:
        """To the end of the source, of `once` or of `until`."""
        if self.replay and not self.delivery.client.clock().get("replay"):
            raise NoReplayClock("the server lives in the system's time, which nobody moves")
        ended = False
        while not ended:
            more = False
            try:
                found = updates.next(self._patience())
            except Ended:
                ended = True
            else:
                if found is not None:
                    grown(self.prices, found)
                    self.prices, more = found, True
            if self.prices is not None:
                self._turn(more or ended)
                ended = ended or once or self._is_over(self.prices)
            ended = ended or self.stop.is_set()
        return self._summary()

    def _patience(self) -> float:
        wake_at = self.delivery.wake_at
        return LOOK_SEC if wake_at is None else min(max(wake_at - monotonic(), 0.0), LOOK_SEC)

    def _is_over(self, prices: Prices) -> bool:
        return self.until is not None and moment(prices.times[-1]) >= self.until

    def _summary(self) -> Followed:
        delivery = self.delivery
        return Followed(
            strategy_id=delivery.ledger.strategy_id if delivery.begun else self.asked,
            computed=self.computed,
            posted=delivery.posted,
            owed=delivery.ledger.owes if delivery.begun else 0,
            away=delivery.away,
        )

    def _turn(self, more: bool) -> None:
        """What there is to do: new bars, and whatever it is time to try again."""
        assert self.prices is not None, "there are prices"
        delivery = self.delivery
        due = delivery.wake_at is not None and monotonic() >= delivery.wake_at
        if not (more or due):
            return
        try:
            if not delivery.begun:
                self._begin(self.prices)
                due = True
            elif delivery.away:
                delivery.flush()
            if not self._compute(self.prices) and due:
                delivery.ask()
                delivery.deliver()
        except (Away, ApiError) as error:
            if not waits(error):
                raise
            delivery.rest(error)

    def _begin(self, prices: Prices) -> None:
        found = self.delivery.begin(self.asked, self.parts)
        if found is not None:
            self._same_data(prices, *found)
        ledger = self.delivery.ledger
        if ledger.seen is None or ledger.seen_to is None:
            return
        before = prefix(prices, ledger.seen_to)
        if before is None or before.digest() != ledger.seen:
            self.delivery.tell(
                Note(
                    f"the prices up to {rfc3339(ledger.seen_to)} are not those that were used "
                    "before (adjusted or cut?): what was posted stays as it is"
                )
            )

    def _same_data(self, prices: Prices, found: Submitted, where: Standing) -> None:
        """Says so when the source does not begin with the bars of the backtest."""
        if found.data is None or where.tested_to is None:
            return
        tested = prefix(prices, where.tested_to)
        if tested is None or tested.digest() != found.data:
            self.delivery.tell(
                Note(
                    f"the prices up to {rfc3339(where.tested_to)} are not those that "
                    f"{found.strategy_id} was submitted with (adjusted, or another file?): if they "
                    "are better now, qmtl submit makes a version that was tested on them"
                )
            )

    # ---- Bars --------------------------------------------------------------------------------

    def _compute(self, prices: Prices) -> bool:
        """Whether there were new bars; they are computed, and delivered as far as may be."""
        rows = self._new_rows(prices.times)
        if not len(rows):
            return False
        weights = weights_of(copy.deepcopy(self.strategy), prices)
        found = self.engine.backtest(weights, prices)
        away: Away | ApiError | None = None
        # Those that were missed go together, unless each has its instant or its execution.
        for group in [[row] for row in rows] if self.replay or self.execute else [rows]:
            if self.stop.is_set():
                break
            target = weights[group[-1] if self.replay else rows[-1]]
            try:
                self._live_through(group, prices, target, found)
            except (Away, ApiError) as error:
                if self.replay or not waits(error):
                    raise
                away = error
        if away is not None:
            raise away
        return True

    def _new_rows(self, times: TimeArray) -> list[int]:
        last = self.delivery.ledger.last
        first = 0 if last is None else int(np.searchsorted(times, numpy_time(last), side="right"))
        end = len(times)
        if self.until is not None:
            end = int(np.searchsorted(times, numpy_time(self.until), side="right"))
        return list(range(max(first, 1), end))  # Of the first bar there is no return.

    def _live_through(
        self, rows: list[int], prices: Prices, target: FloatArray, found: Backtest
    ) -> None:
        delivery = self.delivery
        if self.replay:
            self._move_clock(moment(prices.times[rows[-1]]) + REPLAY_LAG)
        held = delivery.ask()
        ttl_sec = _ttl_sec(prices.times[: rows[-1] + 1])
        bars: list[Bar] = []
        for row in rows:
            at, replay = moment(prices.times[row]), float(found.returns[row - 1])
            earned = self._realised(row, prices, target, held, replay)
            bars.append(Bar(t=at, r=earned, replay=replay, ttl_sec=ttl_sec))
            self.computed += 1
        upto = moment(prices.times[rows[-1]])
        seen = prefix(prices, upto)
        assert seen is not None, "the row is one of the prices"
        delivery.write_down(upto, bars, (seen.digest(), upto))
        delivery.deliver(bars)

    def _realised(
        self, row: int, prices: Prices, target: FloatArray, held: Held, replay: float
    ) -> float | None:
        """What the strategy earned over the bar that ends at `row`."""
        if self.execute is None:
            return replay
        mode, envelope = held.mode(monotonic()), held.envelope
        live = envelope if mode is Mode.LIVE else None
        flat = mode is Mode.COMPUTE_ONLY or (live is not None and live.weight == 0)
        step = Step(
            time=moment(prices.times[row]),
            assets=prices.assets,
            prices=prices.values[row],
            weights=np.zeros_like(target) if flat else target.copy(),
            mode=mode,
            capital=0.0 if live is None else live.weight,
            ramp_fraction=0.0 if live is None else live.ramp_fraction,
        )
        earned = self.execute(step)
        if earned is None:
            return None
        if not (math.isfinite(earned) and earned >= -1):
            raise StrategyError(f"execute says {earned!r} of {stamp(prices.times[row])}: no return")
        return float(earned)

    def _move_clock(self, to: datetime) -> None:
        now = datetime.fromisoformat(self.delivery.client.clock()["now"])
        if now < to:
            self.delivery.client.set_clock(to)


def _ttl_sec(times: TimeArray) -> int:
    """How long a bar's snapshot is fresh."""
    gaps = np.diff(times[-TTL_GAPS - 1 :]) / np.timedelta64(1, "s")
    return int(min(max(math.ceil(TTL_BARS * float(np.median(gaps))), 1), TTL_SEC_MAX))


def _end_of(day: date) -> datetime:
    """The last instant of a day, UTC."""
    return datetime.combine(day, time.max, UTC)
