"""Bars on their way to the world: allotted to a stage, written down, posted.

A bar is posted to the stage that the decision of the moment permits, and to none while nobody can
be asked, or the answer is compute-only: then it is kept.  What is kept goes out in order once it
may; bars from before the strategy entered its phase are no evidence of it, and do not.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from qmtl.adapters.client import NOT_QMTL, Answer, ApiError, Away, Client
from qmtl.core.names import Mode, Phase, Reason, Stage
from qmtl.core.times import in_words, rfc3339
from qmtl.sdk import ledger as ledgers
from qmtl.sdk import spool
from qmtl.sdk.decisions import Decisions, Held, as_good_as_away, is_strangers, monotonic
from qmtl.sdk.disk import Occupied
from qmtl.sdk.ledger import Bar, Body, Ledger
from qmtl.sdk.submitted import NotSubmitted, Standing, Submitted, find, standing
from qmtl.sdk.told import Note, Outcome, Told, Turn

AWAY_SEC: Final = 1.0  # Between two attempts to reach a world that is away,
AWAY_SEC_MAX: Final = 30.0  # and at most, while it stays so.
FUTURE_SEC_MAX: Final = 60.0  # The world's clock may be one that is moved by hand: look again.
OF_THE_CREDENTIAL: Final = frozenset({401, 403, 404})  # With another one, the same bar may go.


class AlreadyFollowed(Exception):
    """Another process on this machine follows the strategy; two would trade twice."""


class BarRefused(Exception):
    """The world refuses a bar, and waiting does not mend it; `error` has its reasons.

    The ledger keeps the bar: to be sent again where only the credential was wrong, else set aside.
    """

    def __init__(self, body: Body, error: ApiError) -> None:
        super().__init__(f"the bar of {body['t']} was refused as {body['stage']}: {error}")
        self.error = error


@dataclass(slots=True)
class Delivery:
    """One strategy's way to its world.  `begin` comes first."""

    client: Client
    world: str
    home: Path
    tell: Callable[[Told], object]
    opened: ExitStack
    posted: int = 0
    wake_at: float | None = None  # On `monotonic`: when there is something to try again.
    away: bool = False
    _away_sec: float = AWAY_SEC
    _ledger: Ledger | None = None
    _path: Path = Path()
    _decisions: Decisions = field(init=False)
    _standing: tuple[int, Standing] | None = None
    _said: object = None

    def __post_init__(self) -> None:
        self._decisions = Decisions(self.client, self.world)

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None, "it has begun"
        return self._ledger

    @property
    def begun(self) -> bool:
        return self._ledger is not None

    # ---- Beginning ---------------------------------------------------------------------------

    def begin(self, asked: str, parts: Mapping[str, str]) -> tuple[Submitted, Standing] | None:
        """Finds out which strategy this is and what was done of it.

        What the world says; None when it is away and the ledger is all there is. Raises Away when
        there is none; NotSubmitted, AlreadyFollowed, ApiError, LedgerError, OSError.
        """
        self.flush()
        try:
            found = find(self.client, self.world, asked, parts)
            where = standing(self.client, self.world, found.strategy_id)
        except (Away, ApiError) as error:
            known = ledgers.known(self.home, self.client.url, self.world, asked, parts)
            if not waits(error) or known is None:
                raise
            self._ledger = self._owned(known.strategy_id) or known
            self.rest(error)
            return None
        held = self._owned(found.strategy_id)
        if held is not None and _of_another_world(held, found, where):
            text = f"{self.world} was made anew since {held.strategy_id} was last followed here"
            self.tell(Note(f"{text}: what was done then is forgotten"))
            held = None
        if held is not None and dict(held.parts) != dict(parts):
            raise NotSubmitted(f"{asked} was changed since it was last followed: qmtl submit")
        # The hub is the truth: another machine may have gone on where this one stopped.
        ends = [where.held_to, held.last if held is not None else None]
        if held is None and where.phase is not Phase.LIVE:
            ends.append(where.entered_at)
        last = max((end for end in ends if end is not None), default=None)
        self._ledger = replace(
            held or self._new(asked, found, parts), asked=asked, bound_at=found.bound_at, last=last
        )
        return found, where

    def _new(self, asked: str, found: Submitted, parts: Mapping[str, str]) -> Ledger:
        return Ledger(
            url=self.client.url,
            world=self.world,
            asked=asked,
            strategy_id=found.strategy_id,
            bound_at=found.bound_at,
            parts=dict(parts),
        )

    def _owned(self, strategy_id: str) -> Ledger | None:
        """Its ledger, if there is one; nobody else has it until the end."""
        self._path = ledgers.place(self.home, self.client.url, self.world, strategy_id)
        try:
            self.opened.enter_context(ledgers.owned(self._path))
        except Occupied as error:
            raise AlreadyFollowed(
                f"{strategy_id} in {self.world} is followed by process {error.holder} already"
            ) from error
        return ledgers.load(self._path)

    def flush(self) -> None:
        """Sends submissions that were kept while the world was away: they come before returns."""
        for each in spool.flush(self.client):
            if each.outcome in ("sent", "refused"):
                why = f": {each.detail}" if each.detail else ""
                text = f"the kept submission of {each.strategy_id} to {each.world_id}"
                self.tell(Note(f"{text}: {each.outcome}{why}"))

    # ---- Deciding ----------------------------------------------------------------------------

    def ask(self) -> Held:
        """The decision there is now: a new one, or that which is held while the world is away."""
        self._decisions.refresh(self.ledger.strategy_id)
        held = self._decisions.held(self.ledger.strategy_id)
        self._say(held)
        return held

    def mode(self) -> Mode:
        """What is permitted at this instant."""
        return self._decisions.permitted(self.ledger.strategy_id)

    def _say(self, held: Held) -> None:
        """Where it stands, whenever that is another than before."""
        why = held.why_lower(monotonic())
        reasons = () if held.envelope is None else held.envelope.reasons
        mode = held.mode(monotonic())
        if self._said == (mode, why, reasons):
            return
        self._said = (mode, why, reasons)
        text = f"{self.ledger.strategy_id} in {self.world}: {mode}"
        text += f" ({why or ', '.join(reasons)})"
        if why is None and mode is Mode.COMPUTE_ONLY:
            try:
                waits_for = self._where(held).waits_for
            except (Away, ApiError):  # It says so when it is asked in earnest.
                waits_for = ()
            text += "".join(f"\n  waits for: {each}" for each in waits_for)
        self.tell(Note(text))

    def _where(self, held: Held) -> Standing:
        """Raises Away, ApiError."""
        generation = -1 if held.envelope is None else held.envelope.generation
        if self._standing is None or self._standing[0] != generation:
            found = standing(self.client, self.world, self.ledger.strategy_id)
            self._standing = (generation, found)
        return self._standing[1]

    def _stage(self) -> tuple[Stage | None, str, Standing]:
        """Which stage bars go to now, or why to none; and where the strategy stands.

        Raises Away when nobody has said so, or what was said is over; ApiError.
        """
        held = self._decisions.held(self.ledger.strategy_id)
        lower = held.why_lower(monotonic())
        if lower == Reason.DECISION_EXPIRED:  # Executing orders may have taken all its term.
            held = self.ask()
            lower = held.why_lower(monotonic())
        if lower is not None or held.envelope is None:
            raise Away(f"there is no decision: {lower}")
        where, envelope = self._where(held), held.envelope
        match envelope.effective_mode:
            case Mode.PAPER:
                return Stage.PAPER, "", where
            case Mode.LIVE:
                return Stage.LIVE, "", where
            case Mode.COMPUTE_ONLY:
                # Lowered for silence, it is raised again by being heard, and by nothing else.
                silent = Reason.RISK_SNAPSHOT_STALE in envelope.reasons
                return (Stage.LIVE if silent else None), ", ".join(envelope.reasons), where

    # ---- Delivering --------------------------------------------------------------------------

    def write_down(self, last: datetime, bars: Sequence[Bar], seen: tuple[str, datetime]) -> None:
        """Bars were computed up to `last`; `seen` is the digest of the prices up to an instant."""
        kept = (*self.ledger.kept, *bars)
        if len(kept) > ledgers.KEPT_MAX:
            lost, kept = kept[: -ledgers.KEPT_MAX], kept[-ledgers.KEPT_MAX :]
            text = f"more than {ledgers.KEPT_MAX} bars are kept: {len(lost)} from "
            self.tell(Note(text + f"{rfc3339(lost[0].t)} on are given up"))
        self._ledger = replace(self.ledger, last=last, kept=kept, seen=seen[0], seen_to=seen[1])

    def deliver(self, fresh: Sequence[Bar] = ()) -> None:
        """Posts what may be posted, oldest first; says of each `fresh` bar what became of it.

        INVARIANT: what is posted was on disk before, as it is posted.  Raises Away, BarRefused,
        ApiError, OSError.
        """
        wrong: Away | ApiError | None = None
        self.wake_at = None
        try:
            stage, why, where = self._stage()
        except (Away, ApiError) as error:
            wrong, why = error, str(error)
        else:
            why = self._allot(stage, where, fresh) or why
        for bar in self.ledger.kept:
            if bar in fresh:
                self._turn(bar, "kept", why)
        ledgers.save(self._path, self.ledger)
        if wrong is not None:
            raise wrong
        try:
            self._post()
        except Away as error:
            left = {body["t"] for body in self.ledger.outbox}
            for bar in fresh:
                if rfc3339(bar.t) in left:
                    self._turn(bar, "kept", str(error))
            raise
        self._back()

    def _allot(self, stage: Stage | None, where: Standing, fresh: Sequence[Bar]) -> str:
        """Moves what may go from the kept bars to the outbox; why the first of the rest may not."""
        if stage is None:
            return ""
        held = self._decisions.held(self.ledger.strategy_id)
        assert held.envelope is not None, "a stage was decided"
        age = timedelta(seconds=monotonic() - held.asked_at)
        ripe = [bar for bar in self.ledger.kept if bar.t <= held.envelope.issued_at + age]
        unripe = self.ledger.kept[len(ripe) :]
        bodies, early = [], 0
        for bar in ripe:
            to = stage if where.entered_at is None or bar.t > where.entered_at else BEFORE[stage]
            if to is not None:
                bodies.append(bar.body(self.ledger.strategy_id, to))
            elif bar in fresh:
                self._turn(bar, "dropped", f"it entered {where.phase} after it")
            else:
                early += 1
        if early:
            text = f"{early} kept bars are from before it entered {where.phase}: not posted"
            self.tell(Note(text))
        self._ledger = replace(self.ledger, kept=unripe, outbox=(*self.ledger.outbox, *bodies))
        if not unripe:
            return ""
        wait = (unripe[0].t - held.envelope.issued_at - age).total_seconds()
        self.wake_at = monotonic() + min(max(wait, AWAY_SEC), FUTURE_SEC_MAX)
        return "the world's clock is not there yet"

    def _post(self) -> None:
        before = self.posted
        while self.ledger.outbox:
            body = self.ledger.outbox[0]
            try:
                created_at = _created_at(self.client.post_returns(self.world, **body))
            except ApiError as error:
                if waits(error) or is_strangers(error):  # It may not have come to the world.
                    raise Away(str(error)) from error
                if error.status not in OF_THE_CREDENTIAL:
                    self._ledger = self.ledger.aside(str(error))
                    ledgers.save(self._path, self.ledger)
                raise BarRefused(body, error) from error
            posted = datetime.fromisoformat(body["t"])
            self._ledger = replace(self.ledger, outbox=self.ledger.outbox[1:], posted=posted)
            self.posted += 1
            self._posted(body, created_at)
        if self.posted > before:
            ledgers.save(self._path, self.ledger)

    # ---- Telling -----------------------------------------------------------------------------

    def _posted(self, body: Body, created_at: datetime) -> None:
        at = datetime.fromisoformat(body["t"])
        late = created_at - at
        why = [] if body["returns"] else ["nothing was realised: the engine's return alone"]
        if late.total_seconds() > body["ttl_sec"]:
            why.append(f"{in_words(late.total_seconds())} late")
            why.append("beyond the policy's max_lag a bar counts for no window")
        bar = Bar(
            t=at,
            r=body["returns"].get(self.ledger.strategy_id),
            replay=body["replay"][self.ledger.strategy_id],
            ttl_sec=body["ttl_sec"],
        )
        self._turn(bar, "posted", "; ".join(why), Stage(body["stage"]))

    def _turn(self, bar: Bar, outcome: Outcome, why: str, stage: Stage | None = None) -> None:
        self.tell(
            Turn(
                time=bar.t,
                realised=bar.r,
                replay=bar.replay,
                mode=self.mode(),
                stage=stage,
                capital=self._decisions.weight(self.ledger.strategy_id),
                outcome=outcome,
                why=why,
            )
        )

    # ---- Away --------------------------------------------------------------------------------

    def rest(self, why: Exception) -> None:
        """The world is away: when it is to be tried again."""
        if not self.away:
            self.tell(Note(f"the world is away ({why}); what is owed to it is kept"))
        self._away_sec = min(2 * self._away_sec, AWAY_SEC_MAX) if self.away else AWAY_SEC
        self.away = True
        self.wake_at = monotonic() + self._away_sec

    def _back(self) -> None:
        if self.away:
            self.tell(Note("the world is back, and has what was owed to it"))
        self.away = False


# What a bar is that ends before the strategy entered the phase of a stage: nothing of paper's.
BEFORE: Final[Mapping[Stage, Stage | None]] = {Stage.PAPER: None, Stage.LIVE: Stage.PAPER}


def waits(error: Away | ApiError) -> bool:
    """Whether time may mend it."""
    return isinstance(error, Away) or as_good_as_away(error)


def _created_at(told: Answer) -> datetime:
    """When the world took a bar.  Raises ApiError for an answer that does not say so."""
    try:
        return datetime.fromisoformat(told["created_at"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(200, NOT_QMTL, f"created_at: {error!r}") from error


def _of_another_world(held: Ledger, found: Submitted, where: Standing) -> bool:
    """Whether what was done was done in a world that is no more: it got to know the strategy at
    another time, or is at an earlier time than that of a bar it had."""
    return held.bound_at != found.bound_at or (held.posted is not None and held.posted > where.at)
