"""What a journal entry says, in a sentence: who did what to whom, and why if they said so."""

from typing import assert_never

from . import facts as f
from .names import CandidateId, StrategyId, Verdict
from .times import in_words
from .view import WorldView
from .words import ASKED, PHASES, counted, day, listed, ordinal, percent


def subject_of(view: WorldView, fact: f.Fact) -> StrategyId | None:
    """The strategy that a fact is about, if it is about one; `view` is the world before it."""
    match fact:
        case (
            f.StrategyBound(strategy_id=sid)
            | f.SeriesRestated(strategy_id=sid)
            | f.PhaseEntered(strategy_id=sid)
            | f.CandidateProposed(strategy_id=sid)
            | f.PromotionBlocked(strategy_id=sid)
            | f.PromotionApplied(strategy_id=sid)
            | f.Demoted(strategy_id=sid)
            | f.HoldReleased(strategy_id=sid)
            | f.CampaignExtended(strategy_id=sid)
            | f.ActivationLowered(strategy_id=sid)
            | f.ActivationAcknowledged(strategy_id=sid)
        ):
            return sid
        case (
            f.ApprovalGiven(candidate_id=cid)
            | f.ApprovalWithdrawn(candidate_id=cid)
            | f.CandidateRejected(candidate_id=cid)
            | f.CandidateReleased(candidate_id=cid)
            | f.CandidateVoided(candidate_id=cid)
        ):
            return _whose(view, cid)
        case f.EvaluationsRecorded(runs=(run,)):
            return run.strategy_id
        case _:
            return None


def _whose(view: WorldView, candidate_id: CandidateId) -> StrategyId:
    return view.candidate(candidate_id).strategy_id


def happened(view: WorldView, entry: f.Entry) -> str:
    """The sentence of an entry; `view` is the world just before it."""
    fact = entry.fact
    match fact:
        case (
            f.SnapshotStored() | f.SeriesRestated() | f.EvaluationsRecorded() | f.RetentionApplied()
        ):
            said = _of_evidence(fact)
        case (
            f.CandidateProposed()
            | f.ApprovalGiven()
            | f.ApprovalWithdrawn()
            | f.CandidateRejected()
            | f.CandidateReleased()
            | f.CandidateVoided()
            | f.PromotionBlocked()
            | f.PromotionApplied()
        ):
            said = _of_candidate(view, fact)
        case (
            f.StrategyBound()
            | f.PhaseEntered()
            | f.Demoted()
            | f.HoldReleased()
            | f.CampaignExtended()
            | f.ActivationLowered()
            | f.ActivationAcknowledged()
        ):
            said = _of_strategy(view, fact)
        case _:
            said = _of_world(view, fact)
    return f"{entry.actor} {said}".rstrip(".") + "."


def _of_evidence(fact: f.EvidenceFact) -> str:
    match fact:
        case f.SnapshotStored(points=points):
            came = f"{counted(sum(points.counts), 'new return')} of {listed(points.strategies)}"
            brings = came if points.strategies else "no new return"
            left_out = [sid for sid in fact.replay or () if sid not in fact.covered]
            if left_out:
                brings += f", and the engine's alone of {listed(left_out)}"
            return (
                f"stored the {fact.stage} snapshot {fact.version} with {brings}; it covers "
                f"{listed(fact.covered) or 'nobody'} and is good for {in_words(fact.ttl_sec)}"
                f"{taken(fact)}"
            )
        case f.RetentionApplied(reduced=reduced):
            return (
                f"took from {counted(len(reduced), 'snapshot')} stored before "
                f"{day(fact.stored_before)} what no decision rests on"
            )
        case f.SeriesRestated(points=points):
            count = counted(sum(points.counts), "return")
            return (
                f"restated the {fact.stage} returns of {fact.strategy_id} ({count}): {fact.reason}"
            )
        case f.EvaluationsRecorded(runs=runs):
            verdicts = listed(f"{run.strategy_id} ({VERDICTS[run.verdict]})" for run in runs)
            judged = f"judged the {fact.stage} returns of {verdicts or 'nobody anew'}"
            if not fact.cohort:
                return judged
            chosen = listed(fact.selected) or "nobody"
            return f"{judged}; of a cohort of {len(fact.cohort)} it selects {chosen}"
        case _:
            assert_never(fact)


def taken(fact: f.SnapshotStored) -> str:
    """What is no longer in a snapshot, as the end of a sentence."""
    if fact.removed is None:
        return ""
    return f"; removed by retention on {day(fact.removed.at)}: {listed(fact.removed.parts)}"


VERDICTS = {
    Verdict.PASS: "passes",
    Verdict.FAIL: "fails",
    Verdict.INCONCLUSIVE: "inconclusive",
}

CandidateFact = (
    f.CandidateProposed
    | f.ApprovalGiven
    | f.ApprovalWithdrawn
    | f.CandidateRejected
    | f.CandidateReleased
    | f.CandidateVoided
    | f.PromotionBlocked
    | f.PromotionApplied
)


def _of_candidate(view: WorldView, fact: CandidateFact) -> str:
    match fact:
        case f.CandidateProposed(strategy_id=sid):
            return f"proposed {sid} for {ordinal(fact.step)} of its ramp, on run {fact.run_id}"
        case f.ApprovalGiven(candidate_id=cid):
            return f"approved {_candidate(view, cid)}, having seen run {fact.run_id}: {fact.reason}"
        case f.ApprovalWithdrawn(candidate_id=cid):
            return f"took back the approval of {_candidate(view, cid)}"
        case f.CandidateRejected(candidate_id=cid):
            return f"rejected {_candidate(view, cid)}: {fact.reason}"
        case f.CandidateReleased(candidate_id=cid):
            return f"lifted the rejection of {_candidate(view, cid)}: {fact.reason}"
        case f.CandidateVoided(candidate_id=cid):
            why = fact.reason.replace("_", " ")
            return f"made {_candidate(view, cid)} void: {why}"
        case f.PromotionBlocked(strategy_id=sid):
            return f"was refused the promotion of {sid}: {'; '.join(fact.details)}"
        case f.PromotionApplied(strategy_id=sid):
            weight = percent(fact.weight)
            return f"promoted {sid} to {ordinal(fact.step)} of its ramp, a weight of {weight}"
        case _:
            assert_never(fact)


def _candidate(view: WorldView, candidate_id: CandidateId) -> str:
    known = view.candidate(candidate_id)
    return f"the candidate {known.strategy_id}, {ordinal(known.step)}"


StrategyFact = (
    f.StrategyBound
    | f.PhaseEntered
    | f.Demoted
    | f.HoldReleased
    | f.CampaignExtended
    | f.ActivationLowered
    | f.ActivationAcknowledged
)


def _of_strategy(view: WorldView, fact: StrategyFact) -> str:
    sid = fact.strategy_id
    match fact:
        case f.StrategyBound():
            if sid in view.strategies:
                return f"told the fingerprint of {sid}"
            tried = fact.variants_tried
            of = "" if tried is None else f", one of {counted(tried, 'variant')} tried"
            return f"bound {sid} to the world, written by {fact.author}{of}"
        case f.PhaseEntered():
            why = "" if fact.reason is None else f": {fact.reason.replace('_', ' ')}"
            return f"moved {sid} on, which is {PHASES[fact.phase]} now{why}"
        case f.Demoted():
            held = ", held until an operator releases it" if fact.held else ""
            return f"took {sid} down, which is {PHASES[fact.to]} now{held}: {fact.detail}"
        case f.HoldReleased():
            return f"released {sid} from its hold: {fact.reason}"
        case f.CampaignExtended():
            return f"gave {sid} {in_words(fact.by_sec)} more on paper: {fact.reason}"
        case f.ActivationLowered():
            state = listed(
                word for word, on in (("frozen", fact.freeze), ("draining", fact.drain)) if on
            )
            extra = f", {state}" if state else ""
            return f"set the live weight of {sid} to {percent(fact.weight)}{extra}"
        case f.ActivationAcknowledged():
            return f"let go of the lease of {sid} up to sequence {fact.sequence}"
        case _:
            assert_never(fact)


WorldFact = (
    f.WorldCreated
    | f.TokenCreated
    | f.TokenRevoked
    | f.ProgramStarted
    | f.LiveAllowed
    | f.StateChanged
    | f.PolicyAdded
    | f.DefaultPolicySet
    | f.ConfirmationRequested
    | f.ConfirmationGiven
    | f.Killed
    | f.Resumed
)


def _of_world(view: WorldView, fact: WorldFact) -> str:
    gone = f": {listed(sorted(view.live))} left the live set" if view.live else ""
    match fact:
        case f.WorldCreated():
            return f"made the world {fact.world_id}"
        case f.TokenCreated():
            made = "made" if fact.replaces is None else "rotated"
            return f"{made} a credential for {fact.actor} ({listed(fact.roles)})"
        case f.TokenRevoked():
            return "revoked a credential"
        case f.ProgramStarted():
            return f"started the program whose code is {fact.code[:12]}"
        case f.LiveAllowed(allowed=allowed):
            return "allowed live" if allowed else f"ended the leave for live{gone}"
        case f.StateChanged(state=state):
            return f"made the world {state}" + ("" if state is state.ACTIVE else gone)
        case f.PolicyAdded():
            return f"added policy version {fact.version}"
        case f.DefaultPolicySet():
            return f"put policy version {fact.version} in force"
        case f.ConfirmationRequested():
            what = ASKED[fact.what].format(fact.policy_version)
            return f"asked {what}: a second person has to confirm it"
        case f.ConfirmationGiven(confirmation_id=key):
            asked = view.confirmations.get(key)
            if asked is None:
                return "settled a request of before"
            what = ASKED[asked.what].format(asked.policy_version)
            return f"settled what {asked.by} asked on {day(asked.at)}, {what}"
        case f.Killed():
            why = f" ({fact.reason})" if fact.reason else ", without a reason"
            return f"killed the world{why}{gone}"
        case f.Resumed():
            return f"resumed the world: {fact.reason}"
        case _:
            assert_never(fact)
