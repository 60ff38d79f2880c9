"""The process that tells people: it follows journals through the API, and delivers what they mean.

The journal is the outbox (decision 0042).  One thread looks at the worlds; each target has one of
its own, so that one that is slow or away holds up nobody else.  What was read and what is to be
told are kept together, before anything is sent; what was sent is noted afterwards.  So whatever
dies when, each message goes out at least once, and always under the same id.
"""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.adapters.outgoing import mail, webhook
from qmtl.adapters.outgoing.deliveries import Deliveries, Delivery, New, Position, State
from qmtl.adapters.outgoing.mail import Mailbox
from qmtl.adapters.outgoing.sending import Sent, again_sec, asked_for
from qmtl.adapters.wire.history import entry_of
from qmtl.adapters.wire.instants import parse
from qmtl.app.ports import Clock
from qmtl.core import notices
from qmtl.core.errors import Invalid, Refusal
from qmtl.core.fold import advance
from qmtl.core.names import WorldId
from qmtl.core.notices import About, Notice
from qmtl.core.view import WorldView

from . import messages
from .config import Settings, Slack, Target, Webhook

LOG: Final = logging.getLogger("qmtl.notify")
PAGE: Final = 1_000
IDLE_SEC: Final = 0.5  # Another process may have made something due: `qmtl notify replay`.
START: Final = Position(0, "")

Say = Callable[[str], None]


class UnusableJournal(Refusal):
    """The journal is not the one that was read before."""


class Broken(Refusal):
    """The notifier cannot go on: start it again."""


@dataclass(slots=True)
class Followed:
    """A world as far as its journal was read; `hash` is of the last entry."""

    view: WorldView
    hash: str = ""


# ---- Reading journals ------------------------------------------------------------------------


@dataclass
class Watch:
    """Looks at the worlds that the rules are about, and keeps what there is to tell.

    `away`: why nothing is read now; None while all goes well.  `unusable`: worlds that nothing is
    told of, and why.
    """

    settings: Settings
    client: Client
    kept: Deliveries
    clock: Clock
    pages: str
    say: Say
    away: str | None = None
    unusable: dict[str, str] = field(default_factory=dict)
    _worlds: dict[str, Followed] = field(default_factory=dict)

    def look(self) -> None:
        """Once at every world.  What time may mend is said and passed over.

        Raises ApiError when the server refuses to be asked at all: a credential is wrong.
        """
        try:
            now = parse(str(self.client.clock()["now"]))
            for world in self._about():
                self._look_at(world, now)
            if self.away is not None:
                self.say("the server answers again")
            self.away = None
        except (Away, ApiError) as error:
            if isinstance(error, ApiError) and error.status < 500 and error.status != 429:
                raise
            if self.away is None:
                self.say(f"the server is away: {error}")
            self.away = str(error)

    def _about(self) -> list[str]:
        named = {rule.world for rule in self.settings.rules if rule.world is not None}
        if all(rule.world is not None for rule in self.settings.rules):
            return sorted(named)
        return sorted(named | {str(each["id"]) for each in self.client.worlds()})

    def _look_at(self, world: str, now: datetime) -> None:
        try:
            new, followed = self._read(world)
            self.unusable.pop(world, None)
        except (Invalid, UnusableJournal) as error:
            if world not in self.unusable:
                self.say(f"of {world} nothing is told: {error}")
            self.unusable[world] = str(error)
            return
        except ApiError as error:
            if error.status != 404:
                raise
            if world not in self.unusable:
                self.say(f"there is no world {world}")
            self.unusable[world] = str(error)
            return
        found: list[New] = []
        stands: dict[str, frozenset[str]] = {}
        for target in self.settings.targets:
            told = [n for n in new if n.about in self.settings.about(target, world)]
            standing, more = self._standing(target, followed.view, now)
            stands[target] = standing
            found += [self._message(target, notice) for notice in (*told, *more)]
        position = Position(followed.view.seq, followed.hash)
        before = [self.kept.standing(target, world) for target in self.settings.targets]
        if found or self.kept.position(world) != position or before != list(stands.values()):
            self.kept.keep(world, position, stands, found, self.clock.now())
        self._worlds[world] = followed

    def _read(self, world: str) -> tuple[list[Notice], Followed]:
        """What the entries after the kept position tell.  Of a world that is new here, nothing: it
        is followed from now on.  Raises Invalid, UnusableJournal."""
        kept = self.kept.position(world)
        followed = self._worlds.get(world) or Followed(WorldView(world_id=WorldId(world)))
        found: list[Notice] = []
        view, last = followed.view, followed.hash
        for told in self.client.journal(world, after=view.seq, limit=PAGE):
            entry = entry_of(told)
            if entry.seq != view.seq + 1:
                raise Invalid(f"entry {view.seq + 1} is missing: {entry.seq} comes instead.")
            if kept is not None and entry.seq > kept.seq:
                notice = notices.of_entry(view, entry)
                found += [] if notice is None else [notice]
            view, last = advance(view, entry), str(told.get("hash", ""))
            if kept is not None and entry.seq == kept.seq and last != kept.hash:
                raise UnusableJournal(_OTHER.format(entry.seq))
        if kept is not None and view.seq < kept.seq:
            raise UnusableJournal(_OTHER.format(kept.seq))
        return found, Followed(view, last)

    def _standing(
        self, target: str, view: WorldView, now: datetime
    ) -> tuple[frozenset[str], list[Notice]]:
        """What stands that a target is told of, and the notices of what it was not yet told."""
        wanted = self.settings.about(target, view.world_id)
        if not wanted & {About.APPROVAL, About.STALE}:
            return frozenset(), []
        stands = {
            key: what
            for key, what in notices.standing(
                view, now, self.settings.stale_after(target, view.world_id)
            ).items()
            if notices.about(what) in wanted
        }
        known = self.kept.standing(target, view.world_id)
        new = [(key, what) for key, what in stands.items() if key not in known]
        return frozenset(stands), list(notices.of_standing(view, new, now))

    def _message(self, target: str, notice: Notice) -> New:
        return New(
            message_id=messages.message_id(notice),
            target=target,
            world_id=notice.world_id,
            about=notice.about,
            seq=notice.seq,
            title=notice.title,
            message=messages.message(notice, self.pages),
        )


_OTHER: Final = (
    "Its journal is another than the one read before, up to entry {}: was an older copy of the "
    "database restored? Move the state file away to begin anew."
)


# ---- Telling ---------------------------------------------------------------------------------


class Sender:
    """Sends to one target, whatever kind it is."""

    def __init__(self, target: Target, clock: Clock) -> None:
        self._target, self._clock = target, clock
        self._http = None if isinstance(target, Mailbox) else webhook.connected()

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def send(self, message_id: str, told: dict[str, Any]) -> Sent:
        """One attempt."""
        now = self._clock.now()
        if isinstance(self._target, Mailbox):
            subject, paragraphs = messages.as_letter(told)
            return mail.send(
                self._target, mail.letter(self._target, message_id, subject, paragraphs, now)
            )
        assert self._http is not None, "what is not mail goes over HTTP"
        match self._target:
            case Webhook(url=url, key=key):
                body = messages.as_json(told)
                headers = webhook.signed(key, message_id, now, body)
            case Slack(url=url):
                body, headers = messages.as_chat(told), {}
        return webhook.post(self._http, url, headers, body, now)


def deliver(
    kept: Deliveries, target: str, sender: Sender, clock: Clock, chance: random.Random
) -> tuple[Delivery, Sent] | None:
    """Try what is due for a target, and note what became of it; None when nothing is due."""
    due = kept.due(target, clock.now())
    if due is None:
        return None
    sent = sender.send(due.message_id, due.message)
    now = clock.now()
    wait = None if sent.final else again_sec(due.attempts + 1, sent.after_sec, chance)
    state: State = "delivered" if sent.ok else "failed" if wait is None else "waiting"
    again = now + timedelta(seconds=wait or 0.0)
    # Who asks to be left alone is told nothing else, either.
    quiet = None if sent.after_sec is None else now + asked_for(sent.after_sec)
    kept.tried(due, state, sent.said, sent.status, now, again, quiet)
    return due, sent


# ---- The process -----------------------------------------------------------------------------


def run(
    settings: Settings,
    client: Client,
    kept: Deliveries,
    clock: Clock,
    stop: threading.Event,
    say: Say,
) -> None:
    """Watch and tell until `stop` is set.  Raises ApiError when the server will not be asked."""
    ended = threading.Event()
    watch = Watch(settings, client, kept, clock, settings.pages or client.url, say)
    threads = [
        threading.Thread(
            target=_telling, args=(name, target, kept, clock, ended, say), name=f"tell-{name}"
        )
        for name, target in settings.targets.items()
    ]
    for thread in threads:
        thread.start()
    try:
        while not stop.is_set():
            watch.look()
            stop.wait(settings.every.total_seconds())
            dead = [thread.name for thread in threads if not thread.is_alive()]
            if dead:  # What it died of it has said; half a notifier is none.
                raise Broken(f"{', '.join(dead)} ended.")
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _telling(
    name: str, target: Target, kept: Deliveries, clock: Clock, ended: threading.Event, say: Say
) -> None:
    """What one target's thread does."""
    sender, chance = Sender(target, clock), random.Random()
    try:
        for delivery, sent in _until(ended, lambda: deliver(kept, name, sender, clock, chance)):
            if not sent.ok:
                say(f"{name}: {delivery.title} ({delivery.message_id}): {sent.said}")
    finally:
        sender.close()


def _until(
    ended: threading.Event, attempt: Callable[[], tuple[Delivery, Sent] | None]
) -> Iterator[tuple[Delivery, Sent]]:
    while not ended.is_set():
        tried = attempt()
        if tried is None:
            ended.wait(IDLE_SEC)
        else:
            yield tried
