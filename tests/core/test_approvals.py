"""What people may do with a candidate, who may not, and when it is too late."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from qmtl.core import facts as f
from qmtl.core.approvals import approve, reject, release, renamed, withdraw
from qmtl.core.errors import Changed, Conflict, Forbidden, Refusal
from qmtl.core.fold import entries, fold
from qmtl.core.names import ActorId, Digest, Reason, Role, RunId
from qmtl.core.policy import Disabled, ManualApproval
from qmtl.core.promotion import approval_problems, valid_approvals
from qmtl.core.view import (
    Applied,
    Approval,
    Approved,
    Candidate,
    Proposed,
    Rejected,
    Void,
    WorldView,
)
from qmtl.sim import cast
from tests.worlds import ALPHA, AUTO, NOW, governed, open_candidate, ready

RUN, DIGEST = RunId("r9"), Digest("d9")
FRESH = {"standing": Proposed(), "approvals": ()}
REJECTED = Rejected(cast.PIA, NOW, "no")
GONE = Void(NOW, Reason.POLICY_CHANGED)
DONE = Applied(NOW, 1)


def fresh(**changes: Any) -> WorldView:
    """Alpha is proposed, and nobody has approved it yet."""
    return ready(candidate=FRESH, **changes)


def given(
    view: WorldView,
    by: ActorId = cast.PIA,
    roles: frozenset[Role] | None = None,
    now: datetime = NOW,
    evidence: Digest = DIGEST,
    sponsor: ActorId | None = None,
) -> tuple[f.Fact, ...]:
    roles = frozenset(cast.ROLES[by]) if roles is None else roles
    return approve(view, open_candidate(view), by, roles, RUN, evidence, "because", now, sponsor)


def after(view: WorldView, facts: tuple[f.Fact, ...], by: ActorId = cast.PIA) -> WorldView:
    return fold(view, entries(view, facts, by, NOW))


def test_an_approval_tells_what_was_seen() -> None:
    assert given(fresh()) == (
        f.ApprovalGiven(
            candidate_id=open_candidate(fresh()).candidate_id,
            run_id=RUN,
            evidence=DIGEST,
            reason="because",
        ),
    )


REFUSED: list[tuple[str, WorldView, ActorId, type[Refusal]]] = [
    ("the author", fresh(), cast.ANN, Forbidden),
    ("the proposer", fresh(), cast.LOOP, Forbidden),
    ("no approver", fresh(), cast.FEED, Forbidden),
    ("an operator", fresh(), cast.OTTO, Forbidden),
    ("a policy-admin", fresh(), cast.POLLY, Forbidden),
    ("nobody promotes", fresh(policy=governed(live_promotion=Disabled())), cast.PIA, Conflict),
    ("nobody approves", fresh(policy=AUTO), cast.PIA, Conflict),
    ("it entered anew", fresh(standing={"entered_at": 5}), cast.PIA, Changed),
]
CLOSED: list[tuple[Any, type[Refusal]]] = [
    (REJECTED, Conflict),
    (DONE, Conflict),
    (GONE, Conflict),
]


@pytest.mark.parametrize(("what", "view", "by", "error"), REFUSED, ids=[r[0] for r in REFUSED])
def test_who_may_not_approve(what: str, view: WorldView, by: ActorId, error: type[Refusal]) -> None:
    with pytest.raises(error):
        given(view, by)


def test_policy_says_which_roles_approve() -> None:
    operators = fresh(
        policy=governed(live_promotion=ManualApproval(roles=frozenset({Role.OPERATOR})))
    )
    assert given(operators, cast.OTTO)
    with pytest.raises(Forbidden):
        given(operators, cast.PIA)


@pytest.mark.parametrize(("standing", "error"), CLOSED)
def test_what_is_closed_is_not_approved(standing: Any, error: type[Refusal]) -> None:
    view = fresh()
    candidate = replace(open_candidate(view), standing=standing)
    with pytest.raises(error):
        approve(view, candidate, cast.PIA, {Role.APPROVER}, RUN, DIGEST, "", NOW)


def test_the_same_approval_twice_is_one() -> None:
    once = after(fresh(), given(fresh()))
    assert given(once) == ()
    assert len(open_candidate(once).approvals) == 1


def test_newer_evidence_may_be_approved_anew_and_counts_once() -> None:
    once = after(fresh(), given(fresh()))
    again = after(once, given(once, evidence=Digest("other")))
    (approval,) = open_candidate(again).approvals
    assert approval.evidence == "other"
    assert isinstance(open_candidate(again).standing, Proposed)


def test_an_expired_approval_may_be_given_again() -> None:
    once = after(fresh(), given(fresh()))
    expires = timedelta(hours=72)
    assert given(once, now=NOW + expires - timedelta(microseconds=1)) == ()
    assert given(once, now=NOW + expires)


def test_the_last_approval_that_is_needed_approves() -> None:
    one = after(fresh(), given(fresh()))
    assert isinstance(open_candidate(one).standing, Proposed)
    two = after(one, given(one, cast.PETE), cast.PETE)
    assert open_candidate(two).standing == Approved(NOW)


def test_one_takes_back_what_one_gave() -> None:
    candidate = open_candidate(ready())
    facts = withdraw(candidate, cast.PIA)
    assert facts == (f.ApprovalWithdrawn(candidate_id=candidate.candidate_id),)
    left = open_candidate(after(ready(), facts))
    assert [approval.by for approval in left.approvals] == [cast.PETE]
    assert isinstance(left.standing, Proposed)
    assert withdraw(left, cast.PIA) == ()
    assert withdraw(candidate, cast.OTTO) == ()


def test_what_is_applied_is_not_withdrawn() -> None:
    with pytest.raises(Conflict):
        withdraw(replace(open_candidate(ready()), standing=DONE), cast.PIA)


def test_another_fingerprint_is_another_candidate() -> None:
    view = ready()
    assert renamed(view, ALPHA) == ()
    other = replace(view.strategies[ALPHA], fingerprint="other")
    view = replace(view, strategies=view.strategies.set(ALPHA, other))
    candidate = open_candidate(view)
    gone = f.CandidateVoided(candidate_id=candidate.candidate_id, reason=Reason.FINGERPRINT_CHANGED)
    assert renamed(view, ALPHA) == (gone,)
    rejected = replace(candidate, standing=REJECTED)
    held = replace(view, candidates=view.candidates.set(candidate.candidate_id, rejected))
    assert renamed(held, ALPHA) == ()
    assert renamed(replace(view, current=view.current.delete(ALPHA)), ALPHA) == ()


# ---- Rejection and release ---------------------------------------------------------------------


@pytest.mark.parametrize("standing", [Proposed(), Approved(NOW)])
def test_a_rejection_needs_no_evidence(standing: Any) -> None:
    candidate = replace(open_candidate(ready()), standing=standing, run_id=RunId("gone"))
    assert reject(candidate, "no") == (
        f.CandidateRejected(candidate_id=candidate.candidate_id, reason="no"),
    )


def test_a_rejection_twice_is_one() -> None:
    assert reject(replace(open_candidate(ready()), standing=REJECTED), "no") == ()


@pytest.mark.parametrize("standing", [DONE, GONE])
def test_what_is_done_or_gone_is_not_rejected(standing: Any) -> None:
    with pytest.raises(Conflict):
        reject(replace(open_candidate(ready()), standing=standing), "no")


def kinds(facts: tuple[f.Fact, ...]) -> list[str]:
    return [fact.kind for fact in facts]


RELEASES: list[tuple[str, WorldView, list[str]]] = [
    ("nothing to release", ready(), []),
    ("a hold", ready(standing={"held": True}), ["hold_released"]),
    ("a rejection", ready(candidate={"standing": REJECTED}), ["candidate_released"]),
    (
        "both",
        ready(standing={"held": True}, candidate={"standing": REJECTED}),
        ["hold_released", "candidate_released"],
    ),
    (
        "what was superseded since",
        ready(standing={"entered_at": 5}, candidate={"standing": REJECTED}),
        ["candidate_voided"],
    ),
]


@pytest.mark.parametrize(("what", "view", "told"), RELEASES, ids=[r[0] for r in RELEASES])
def test_a_release_lifts_what_there_is(what: str, view: WorldView, told: list[str]) -> None:
    assert kinds(release(view, ALPHA, "looked into it")) == told, what


def test_what_is_released_has_to_be_approved_again() -> None:
    view = ready(candidate={"standing": REJECTED})
    released: Candidate = open_candidate(after(view, release(view, ALPHA, "")))
    assert (released.standing, released.approvals) == (Proposed(), ())


# ---- Whose hand it was ------------------------------------------------------------------------

ADAM, EVE = ActorId("adam"), ActorId("eve")
HANDS: list[tuple[str, ActorId | None, ActorId | None, str | None]] = [
    ("nobody made either", None, None, None),
    ("two admins made them", ADAM, EVE, None),
    ("an admin made one", ADAM, None, None),
    ("one admin made both", ADAM, ADAM, "both lead back to adam"),
    ("the first made the second's", None, cast.PIA, "both lead back to pia"),
    ("the second made the first's", cast.PETE, None, "both lead back to pete"),
    ("the author made the second's", None, cast.ANN, "was made by ann"),
    ("the proposer made the second's", None, cast.LOOP, "was made by loop"),
]


@pytest.mark.parametrize(("what", "first", "second", "says"), HANDS, ids=[h[0] for h in HANDS])
def test_two_approvals_are_of_two_people(
    what: str, first: ActorId | None, second: ActorId | None, says: str | None
) -> None:
    once = after(fresh(), given(fresh(), sponsor=first))
    if says is not None:
        with pytest.raises(Forbidden, match=says):
            given(once, cast.PETE, sponsor=second)
        return
    both = after(once, given(once, cast.PETE, sponsor=second), cast.PETE)
    assert [a.sponsor for a in open_candidate(both).approvals] == [first, second]


def test_an_approval_out_of_the_hands_of_its_author_counts_for_nothing() -> None:
    """However it came into the journal: the author made the approver's credential."""
    view = fresh()
    author = view.strategies[ALPHA].author
    forged = replace(
        open_candidate(view), approvals=(Approval(cast.PIA, NOW, RUN, DIGEST, "", author),)
    )
    assert valid_approvals(view, ManualApproval(min=1), forged, NOW) == ()


def test_an_expired_approval_is_nobodys_hand() -> None:
    once = after(fresh(), given(fresh(), sponsor=ADAM))
    assert given(once, cast.PETE, sponsor=ADAM, now=NOW + timedelta(hours=72))


def test_the_gate_counts_hands_not_names() -> None:
    """Whatever way two approvals of one hand came into the journal, they are one."""
    promotion = ManualApproval(min=2)
    candidate = open_candidate(fresh())
    pair = tuple(Approval(by, NOW, RUN, DIGEST, "", ADAM) for by in (cast.PIA, cast.PETE))
    forged = replace(candidate, approvals=pair)
    view = fresh(policy=governed(live_promotion=promotion))
    assert valid_approvals(view, promotion, forged, NOW) == pair[:1]
    problems = approval_problems(view, view.policy, forged, NOW)
    assert Reason.APPROVALS_INSUFFICIENT in {reason for reason, _ in problems}
