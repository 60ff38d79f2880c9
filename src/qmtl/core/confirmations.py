"""What takes two people: the first asks, the second confirms, and then it happens.

What was asked for is an ask of one person, of one thing (with a policy, of one version of it), in
the world as it was then.  It is void after CONFIRM_WITHIN, and as soon as a fact of `SETTLES`
changes what it was about; asking again makes another ask with another id, so that nobody confirms
today what they were sent yesterday.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal

from . import facts as f
from .errors import Conflict, Forbidden, UnknownConfirmation
from .names import ActorId, Reason, Role
from .times import in_words
from .view import Confirmation, WorldView, hands_of

CONFIRM_WITHIN = timedelta(hours=24)  # Whoever confirms should still know why it was asked.
ID_HEX = 24

What = Literal["allow_live", "default_policy", "resume"]

EVERYTHING = frozenset({"allow_live", "default_policy", "resume"})
# INVARIANT: an ask outlives none of these.  A kill, above all, is not undone by an older ask.
SETTLES = {
    f.Killed: EVERYTHING,
    f.StateChanged: EVERYTHING,
    f.LiveAllowed: frozenset({"allow_live"}),
    f.DefaultPolicySet: frozenset({"default_policy"}),
    f.Resumed: frozenset({"resume"}),
}


def unsettled(view: WorldView, fact: f.Fact) -> dict[str, Confirmation]:
    """The asks that a fact leaves standing, by id."""
    about = SETTLES.get(type(fact), frozenset())
    return {key: asked for key, asked in view.confirmations.items() if asked.what not in about}


def standing(view: WorldView, now: datetime) -> list[Confirmation]:
    """The asks that may be confirmed, the first first."""
    asks = [c for c in view.confirmations.values() if now - c.at < CONFIRM_WITHIN]
    return sorted(asks, key=lambda c: (c.at, c.confirmation_id))


def ask(
    view: WorldView,
    by: ActorId,
    what: What,
    version: int | None,
    now: datetime,
    sponsor: ActorId | None = None,
) -> tuple[str, tuple[f.Fact, ...]]:
    """The id to confirm by.  Asking again while it stands is asking once.

    `sponsor` is who made the credential of `by`, where that takes two people.
    """
    for asked in standing(view, now):
        if (asked.by, asked.what, asked.policy_version) == (by, what, version):
            return asked.confirmation_id, ()
    checksum = "" if version is None else view.policies[version].checksum
    told = "\0".join(
        map(str, (view.world_id, what, version, checksum, by, view.governance_generation))
    )
    key = sha256(told.encode()).hexdigest()[:ID_HEX]
    fact = f.ConfirmationRequested(
        confirmation_id=key, what=what, policy_version=version, sponsor=sponsor
    )
    return key, (fact,)


def confirm(
    view: WorldView,
    by: ActorId,
    roles: Collection[Role],
    confirmation_id: str,
    now: datetime,
    sponsor: ActorId | None = None,
) -> tuple[Confirmation, tuple[f.Fact, ...]]:
    """What was asked for, and the facts with which it happens.

    Raises UnknownConfirmation for what was never asked for or is settled, Forbidden for the first
    person and for who may not, and Conflict when it was too long ago.
    """
    asked = view.confirmations.get(confirmation_id)
    if asked is None:
        raise UnknownConfirmation(confirmation_id)
    if asked.hands & hands_of(by, sponsor):
        raise Forbidden(
            "a second person has to confirm what the first asked for, with a credential that "
            "neither the first nor the maker of theirs has made."
        )
    if asked.what == "resume":
        if not {Role.OPERATOR, Role.ADMIN} & set(roles):
            raise Forbidden("resuming takes an operator.")
    elif Role.POLICY_ADMIN not in roles:
        raise Forbidden(f"{asked.what} takes the role {Role.POLICY_ADMIN}; no other implies it.")
    if asked not in standing(view, now):
        lasts = in_words(CONFIRM_WITHIN.total_seconds())
        raise Conflict(
            f"{asked.by} asked for it more than {lasts} ago: it has to be asked for again.",
            reasons=(Reason.CONFIRMATION_EXPIRED,),
        )
    given = f.ConfirmationGiven(confirmation_id=confirmation_id)
    if asked.what == "resume":
        return asked, (given, f.Resumed(reason="confirmed"))
    if asked.policy_version is not None:
        return asked, (given, f.DefaultPolicySet(version=asked.policy_version))
    return asked, (given, f.LiveAllowed(allowed=True))
