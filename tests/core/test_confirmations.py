"""What takes two people: of what an ask is, how long it stands, and what makes it void."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from immutables import Map

from qmtl.core import facts as f
from qmtl.core.confirmations import CONFIRM_WITHIN, What, ask, confirm, standing
from qmtl.core.errors import Conflict, Forbidden, Refusal, UnknownConfirmation
from qmtl.core.fold import entries, fold
from qmtl.core.names import ActorId, Phase, Reason, Role, WorldState
from qmtl.core.view import Confirmation, WorldView
from qmtl.sim import cast
from tests.worlds import ALPHA, AUTO, NOW, POLICY, ready

US = timedelta(microseconds=1)
WHATS: list[What] = list(get_args(What))
DOES: dict[What, f.Fact] = {
    "allow_live": f.LiveAllowed(allowed=True),
    "default_policy": f.DefaultPolicySet(version=2),
    "resume": f.Resumed(reason="confirmed"),
}


def after(
    view: WorldView, *facts: f.Fact, by: ActorId = cast.POLLY, at: datetime = NOW
) -> WorldView:
    return fold(view, entries(view, facts, by, at))


def closed() -> WorldView:
    """Killed, not allowed live, and with a policy that is not in force."""
    return after(
        ready(),
        f.PolicyAdded(version=2, checksum="two", policy=AUTO),
        f.LiveAllowed(allowed=False),
        f.Killed(reason=""),
    )


def asked(view: WorldView, what: What, by: ActorId = cast.POLLY, at: datetime = NOW) -> WorldView:
    return after(view, *ask(view, by, what, version(what), at)[1], by=by, at=at)


def version(what: What) -> int | None:
    return 2 if what == "default_policy" else None


def key_of(view: WorldView) -> str:
    (key,) = view.confirmations
    return key


def confirmed(
    view: WorldView, by: ActorId = cast.PAUL, now: datetime = NOW
) -> tuple[Confirmation, tuple[f.Fact, ...]]:
    return confirm(view, by, cast.ROLES[by], key_of(view), now)


@pytest.mark.parametrize("what", WHATS)
def test_the_second_makes_it_happen(what: What) -> None:
    view = asked(closed(), what)
    told, facts = confirmed(view)
    assert (told.what, told.by, told.policy_version) == (what, cast.POLLY, version(what))
    assert facts == (f.ConfirmationGiven(confirmation_id=told.confirmation_id), DOES[what])
    assert not after(view, *facts).confirmations


@pytest.mark.parametrize("what", WHATS)
def test_asking_while_it_stands_is_asking_once(what: What) -> None:
    view = asked(closed(), what)
    late = NOW + CONFIRM_WITHIN - US
    assert ask(view, cast.POLLY, what, version(what), late) == (key_of(view), ())
    other, facts = ask(view, cast.PAUL, what, version(what), NOW)
    assert other != key_of(view)
    assert len(facts) == 1


@pytest.mark.parametrize("what", WHATS)
def test_an_ask_that_is_over_is_asked_again_under_another_id(what: What) -> None:
    view, over = asked(closed(), what), NOW + CONFIRM_WITHIN
    assert standing(view, over - US) == [view.confirmations[key_of(view)]]
    assert standing(view, over) == []
    with pytest.raises(Conflict) as refused:
        confirmed(view, now=over)
    assert refused.value.reasons == (Reason.CONFIRMATION_EXPIRED,)
    confirmed(view, now=over - US)
    key, facts = ask(view, cast.POLLY, what, version(what), over)
    assert key != key_of(view)
    assert len(facts) == 1


def test_an_ask_is_of_one_version() -> None:
    view = after(closed(), f.PolicyAdded(version=3, checksum="three", policy=POLICY))
    two = asked(view, "default_policy")
    key, facts = ask(two, cast.POLLY, "default_policy", 3, NOW)
    assert key not in two.confirmations
    assert len(facts) == 1
    other = replace(view, policies=view.policies.set(2, replace(view.policies[2], checksum="x")))
    assert set(asked(other, "default_policy").confirmations) != set(two.confirmations)


def test_the_first_that_was_asked_is_told_first() -> None:
    view = closed()
    for minutes, what in enumerate(WHATS):
        view = asked(view, what, at=NOW + timedelta(minutes=minutes))
    assert [c.what for c in standing(view, NOW + timedelta(minutes=9))] == WHATS


WHO: list[tuple[What, ActorId, type[Refusal] | None]] = [
    ("allow_live", cast.POLLY, Forbidden),
    ("allow_live", cast.OTTO, Forbidden),
    ("allow_live", cast.PIA, Forbidden),
    ("allow_live", cast.PAUL, None),
    ("default_policy", cast.POLLY, Forbidden),
    ("default_policy", cast.OTTO, Forbidden),
    ("default_policy", cast.PAUL, None),
    ("resume", cast.POLLY, Forbidden),
    ("resume", cast.PIA, Forbidden),
    ("resume", cast.OTTO, None),
]


@pytest.mark.parametrize(("what", "by", "error"), WHO)
def test_who_confirms(what: What, by: ActorId, error: type[Refusal] | None) -> None:
    view = asked(closed(), what)
    if error is None:
        assert confirmed(view, by)
    else:
        with pytest.raises(error):
            confirmed(view, by)


def test_an_admin_resumes_and_opens_nothing() -> None:
    roles = frozenset(Role) - {Role.POLICY_ADMIN, Role.OPERATOR}
    view = asked(closed(), "resume")
    assert confirm(view, cast.PAUL, roles, key_of(view), NOW)
    for what in ("allow_live", "default_policy"):
        view = asked(closed(), what)
        with pytest.raises(Forbidden):
            confirm(view, cast.PAUL, roles, key_of(view), NOW)


# What happens between the two, and which asks are void by it.
DEMOTED = f.Demoted(strategy_id=ALPHA, to=Phase.PAPER, reason=Reason.MANUAL, detail="", held=True)
MEANWHILE: list[tuple[str, f.Fact, set[str]]] = [
    ("killed again", f.Killed(reason=""), set(WHATS)),
    ("suspended", f.StateChanged(state=WorldState.SUSPENDED), set(WHATS)),
    ("made active again", f.StateChanged(state=WorldState.ACTIVE), set(WHATS)),
    ("resumed", f.Resumed(reason=""), {"resume"}),
    ("opened", f.LiveAllowed(allowed=True), {"allow_live"}),
    ("closed again", f.LiveAllowed(allowed=False), {"allow_live"}),
    ("another default", f.DefaultPolicySet(version=1), {"default_policy"}),
    ("another policy", f.PolicyAdded(version=3, checksum="c", policy=AUTO), set()),
    ("demoted", DEMOTED, set()),
]


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize(("how", "fact", "void"), MEANWHILE, ids=[m[0] for m in MEANWHILE])
def test_what_changed_meanwhile_makes_it_void(
    how: str, fact: f.Fact, void: set[str], what: What
) -> None:
    view = asked(closed(), what)
    key, changed = key_of(view), after(view, fact)
    if what not in void:
        assert confirm(changed, cast.PAUL, cast.ROLES[cast.PAUL], key, NOW), how
        return
    with pytest.raises(UnknownConfirmation):
        confirm(changed, cast.PAUL, cast.ROLES[cast.PAUL], key, NOW)
    again = asked(changed, what)
    assert key not in again.confirmations, "what was sent yesterday confirms nothing today"


def test_a_journal_of_before_settles_what_is_settled_already() -> None:
    """A kill used to be followed by a word that each ask was settled."""
    view = asked(closed(), "resume")
    given: Any = f.ConfirmationGiven(confirmation_id=key_of(view))
    assert after(view, f.Killed(reason=""), given).confirmations == Map()
