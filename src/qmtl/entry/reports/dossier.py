"""A candidate's dossier: what it asks for, on which evidence, what the gate saw, who approved, and
the journal's proof of each.

The gate is asked again, by the code that is installed here, on the world as it stood when the
candidate was decided on, or as it stands now when it still is open.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qmtl.adapters.memory import World, store_of
from qmtl.adapters.policies import document
from qmtl.app import promotions
from qmtl.app.inputs import gate_inputs
from qmtl.app.points import asked
from qmtl.app.why import Outcome, why
from qmtl.core import facts as f
from qmtl.core.errors import UnknownCandidate
from qmtl.core.happened import happened, subject_of
from qmtl.core.names import CandidateId, StrategyId, Verdict
from qmtl.core.policy import ManualApproval
from qmtl.core.promotion import Blocked, clear_for_live, valid_approvals
from qmtl.core.times import rfc3339
from qmtl.core.view import Applied, Candidate, Rejected, Void, WorldView
from qmtl.core.words import second, sentence

from . import evidence
from .reading import Journal

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """The world that a candidate is looked at in: before `decided`, or of now when that is None."""

    world: World
    decided: f.Entry | None
    at: datetime


def dossier(journal: Journal, candidate_id: str) -> Data:
    """All of it, as plain values.  Raises UnknownCandidate, and Invalid of a broken journal."""
    cid = CandidateId(candidate_id)
    moment, last = _moment(journal, cid)
    view = moment.world.view
    candidate, final = view.candidate(cid), last.view.candidate(cid)
    sid = candidate.strategy_id
    known, governance = view.strategy(sid), view.policy.governance
    gate, blocked = _gate(moment, candidate)
    version = view.policy_version(candidate.policy_version)
    return {
        "report": "candidate",
        "world_id": journal.world_id,
        "candidate_id": cid,
        "made_at": rfc3339(journal.now),
        "looked_at": rfc3339(moment.at),
        "decided_by_entry": None if moment.decided is None else moment.decided.seq,
        "strategy": {
            "strategy_id": sid,
            "name": known.name,
            "author": known.author,
            "family": known.family,
            "version": known.version,
            "previous": known.previous,
            "fingerprint": known.fingerprint,
            "variants_tried": known.variants_tried,
        },
        "step": candidate.step + 1,
        "steps": max(len(governance.ramp), candidate.step + 1),
        "weight": _weight(view, candidate),
        "proposed_at": rfc3339(candidate.proposed_at),
        "proposer": candidate.proposer,
        "evidence_digest": candidate.evidence,
        **_standing(final),
        "policy": {
            "version": version.version,
            "checksum": version.checksum,
            "document": document(version.policy),
        },
        "gate": gate,
        "blocked": blocked,
        "derived_again": _derived(journal, moment),
        "approvals": _approvals(journal, view, candidate, moment.at),
        "runs": evidence.runs(last, sid, candidate.run_id),
        "curves": evidence.curves(last, sid),
        "history": _history(journal, sid),
        "journal": journal.proof(),
    }


def candidate_of(journal: Journal, named: str) -> CandidateId:
    """A candidate by its own id, or the newest of a strategy.  Raises UnknownCandidate."""
    newest: CandidateId | None = None
    for entry in journal.entries:
        if isinstance(entry.fact, f.CandidateProposed):
            if entry.fact.candidate_id == named:
                return entry.fact.candidate_id
            if entry.fact.strategy_id == named:
                newest = entry.fact.candidate_id
    if newest is None:
        raise UnknownCandidate(named)
    return newest


def _moment(journal: Journal, cid: CandidateId) -> tuple[Moment, World]:
    """The last world in which the candidate was open, and the last of all."""
    decided: Moment | None = None
    last: World | None = None
    for before, entry, world in journal.worlds():
        was, now = before.view.candidates.get(cid), world.view.candidates.get(cid)
        if decided is None and was is not None and now is not None and _over(now):
            decided = Moment(before, entry, entry.at)
        last = world
    if last is None or cid not in last.view.candidates:
        raise UnknownCandidate(cid)
    return decided or Moment(last, None, journal.now), last


def _over(candidate: Candidate) -> bool:
    return isinstance(candidate.standing, Applied | Void)


def _weight(view: WorldView, candidate: Candidate) -> float | None:
    governance = view.policy.governance
    if candidate.step >= len(governance.ramp):
        return None
    return governance.ramp[candidate.step].fraction * governance.allocation


def _standing(candidate: Candidate) -> Data:
    """What has become of it in the end."""
    detail = ""
    match candidate.standing:
        case Rejected(by=by, at=at, reason=reason):
            detail = f"by {by} at {second(at)}: {reason}"
        case Applied(at=at, seq=seq):
            detail = f"at {second(at)}, by entry {seq}"
        case Void(at=at, reason=why_void):
            detail = f"at {second(at)}: {why_void.replace('_', ' ')}"
        case _:
            pass  # It is open, and its approvals say the rest.
    return {"standing": type(candidate.standing).__name__.lower(), "standing_detail": detail}


# ---- The gate --------------------------------------------------------------------------------


def _gate(moment: Moment, candidate: Candidate) -> tuple[list[Data], list[Data]]:
    """Every input of the gate with its number and whether it holds, and all that spoke against."""
    store, view = store_of(moment.world), moment.world.view
    sid = candidate.strategy_id
    told = promotions.dossier_of(store, view, sid)
    stored = store.run(view.world_id, sid, candidate.run_id)
    run = None if stored is None else stored.run
    cleared = clear_for_live(view, sid, candidate, told, moment.at)
    problems = cleared.problems if isinstance(cleared, Blocked) else ()
    gates = () if run is None else run.gates
    passed = {f"gate {gate.metric}": gate.verdict is Verdict.PASS for gate in gates}
    found = gate_inputs(view, sid, candidate, told, run, moment.at)
    rows: list[Data] = [
        {
            "name": each.name,
            "value": each.value,
            "holds": passed.get(each.name, each.holds),
            "against": list(each.against),
        }
        for each in asked(found, problems)
    ]
    blocked = [{"reason": str(reason), "detail": sentence(detail)} for reason, detail in problems]
    return rows, blocked


def _derived(journal: Journal, moment: Moment) -> Data | None:
    """Whether the decision that is in the journal follows again; None where a person made it."""
    if moment.decided is None:
        return None
    found = why(store_of(moment.world), journal.world_id, moment.decided)
    if found.outcome is Outcome.ACT:
        return None
    return {
        "same": found.outcome is Outcome.SAME,
        "differences": [
            {"where": each.where, "recorded": each.recorded, "derived": each.derived}
            for each in found.differences
        ],
    }


# ---- People ----------------------------------------------------------------------------------


def _approvals(journal: Journal, view: WorldView, candidate: Candidate, at: datetime) -> Data:
    asked = view.policy.governance.live_promotion
    manual = asked if isinstance(asked, ManualApproval) else None
    valid = () if manual is None else valid_approvals(view, manual, candidate, at)
    seqs = {
        (entry.actor, entry.at): entry.seq
        for entry in journal.entries
        if isinstance(entry.fact, f.ApprovalGiven)
        and entry.fact.candidate_id == candidate.candidate_id
    }
    given = [
        {
            "by": approval.by,
            "at": rfc3339(approval.at),
            "reason": approval.reason,
            "run_id": approval.run_id,
            "evidence_digest": approval.evidence,
            "counts": approval in valid,
            "seq": seqs.get((approval.by, approval.at)),
        }
        for approval in candidate.approvals
    ]
    return {
        "mode": asked.mode,
        "needed": 0 if manual is None else manual.min,
        "roles": [] if manual is None else sorted(manual.roles),
        "given": given,
    }


# ---- What happened ---------------------------------------------------------------------------


def _history(journal: Journal, sid: StrategyId) -> list[Data]:
    """Every entry that is about the strategy, or judges it, with the hash that proves it."""
    return [
        {
            "seq": entry.seq,
            "at": rfc3339(entry.at),
            "actor": entry.actor,
            "kind": entry.fact.kind,
            "sentence": happened(before.view, entry),
            "hash": journal.hashes[entry.seq - 1],
        }
        for before, entry, _ in journal.worlds()
        if _concerns(before.view, entry.fact, sid)
    ]


def _concerns(view: WorldView, fact: f.Fact, sid: StrategyId) -> bool:
    match fact:
        case f.EvaluationsRecorded(runs=runs, cohort=cohort):
            return sid in cohort or any(run.strategy_id == sid for run in runs)
        case f.DefaultPolicySet() | f.LiveAllowed() | f.Killed() | f.Resumed() | f.StateChanged():
            return sid in view.strategies
        case _:
            return subject_of(view, fact) == sid
