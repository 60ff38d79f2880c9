"""Core -> JSON of campaigns, live promotion and decisions: the shapes of `shapes_live.py`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from qmtl.adapters.policies.words import length_text
from qmtl.adapters.wire.instants import rfc3339
from qmtl.app.campaigns import StrategyStatus
from qmtl.app.promotions import AutoApplied, Plan
from qmtl.app.promotions import Standing as Listed
from qmtl.core.campaign import Action, ActionKind, Page
from qmtl.core.decision import DecisionEnvelope
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.explain import Explanation
from qmtl.core.names import Stage, StrategyId, WorldId
from qmtl.core.policy import Window
from qmtl.core.proving import Shown
from qmtl.core.versions import changed
from qmtl.core.view import (
    Applied,
    Approved,
    Candidate,
    Outstanding,
    Proposed,
    Rejected,
    Void,
    WorldView,
)
from qmtl.core.windows import STAGE_OF, Progress

from . import shapes_live as j
from .answers import at_or_none, run_url

STATUS_NAMES = {"sharpe_annual": "sharpe"}  # Else a status calls a metric what a run calls it.


# ---- Campaign --------------------------------------------------------------------------------


def _length(sec: float) -> str:
    return length_text(timedelta(seconds=int(sec)))


def _window_config(window: Window) -> j.WindowConfigJson:
    longest = window.max_window
    return {
        "window": length_text(window.span),
        "min_observations": window.min_observations,
        "max_window": None if longest is None else length_text(longest),
    }


def _window(progress: Progress) -> j.WindowJson:
    return {
        "window": _length(progress.required_sec),
        "required_sec": progress.required_sec,
        "observed_sec": progress.observed_sec,
        "observations": progress.observations,
        "required_observations": progress.required_observations,
        "progress": max(0.0, progress.share),
        "started_at": at_or_none(progress.started_at),
        "ended_at": at_or_none(progress.ended_at),
        "satisfied": progress.satisfied,
    }


def _status_metrics(status: StrategyStatus) -> dict[str, float | None]:
    """Plain numbers, of the latest run of the phase the strategy is in."""
    latest = status.runs.get(STAGE_OF.get(status.phase, Stage.PAPER))
    if latest is None:
        return {}
    return {STATUS_NAMES.get(name, name): m.value for name, m in latest.metrics.items()}


def _evidence(status: StrategyStatus) -> j.EvidenceJson | None:
    """Towards the next step of the ramp; null where nothing is asked of it."""
    shown, expected = status.shown, status.eta
    if shown is None or expected is None:
        return None
    return {
        **_shown(shown),
        "eta": {
            "sharpe_1": at_or_none(expected.sharpe_1),
            "sharpe_2": at_or_none(expected.sharpe_2),
            "at_observed": at_or_none(expected.at_observed),
        },
    }


def _shown(shown: Shown) -> j.ShownJson:
    return {
        "e_value": shown.e_value,
        "threshold": shown.threshold,
        "enough": shown.enough,
        "budget": shown.budget,
    }


def _status(view: WorldView, status: StrategyStatus) -> j.StatusJson:
    row = view.strategies[status.strategy_id].row
    latest = {stage: known.run_id for stage, known in status.runs.items()}
    return {
        "strategy_id": status.strategy_id,
        "phase": status.phase,
        "entered_at": at_or_none(status.entered_at),
        "held": bool(view.standings.held[row]),
        "latest_backtest_run_id": latest.get(Stage.BACKTEST),
        "latest_paper_run_id": latest.get(Stage.PAPER),
        "latest_live_run_id": latest.get(Stage.LIVE),
        "backtest": _window(status.windows[Stage.BACKTEST]),
        "paper": _window(status.windows[Stage.PAPER]),
        "live": _window(status.windows[Stage.LIVE]),
        "metrics": _status_metrics(status),
        "evidence": _evidence(status),
        "promotable_to_paper": status.promotable_to_paper,
        "promotable_to_live": status.promotable_to_live,
        "reasons": list(dict.fromkeys(reason for reason, _ in status.problems)),
        "details": [detail for _, detail in status.problems],
    }


def campaign(view: WorldView, found: Sequence[StrategyStatus], now: datetime) -> j.CampaignJson:
    policy = view.policy
    assert view.default_version is not None, "view.policy has refused already"
    return {
        "world_id": view.world_id,
        "generated_at": rfc3339(now),
        "config": {
            "policy_version": view.default_version,
            "backtest": _window_config(policy.campaign.backtest),
            "paper": _window_config(policy.campaign.paper),
            "evaluate_every": length_text(policy.campaign.evaluate_every),
            "live_promotion": policy.governance.live_promotion.mode,
        },
        "strategies": [_status(view, status) for status in found],
    }


def _act(world_id: WorldId, action: Action) -> tuple[str, dict[str, object], list[str]]:
    """Endpoint, body, and which role a person must bring; empty when a loop may do it."""
    one: dict[str, object] = {"strategy_id": action.strategy_id, "run_id": action.run_id}
    live = f"/worlds/{world_id}/promotions/live"
    match action.kind:
        case ActionKind.EVALUATE | ActionKind.OBSERVE_LIVE:
            return f"/worlds/{world_id}/evaluate", {**one, "stage": action.stage}, []
        case ActionKind.EVALUATE_COHORT:
            body: dict[str, object] = {
                "campaign_id": f"{world_id}:{action.stage}",
                "candidates": list(action.cohort),
                "stage": action.stage,
                "run_id": action.run_id,
            }
            return f"/worlds/{world_id}/evaluate-cohort", body, []
        case ActionKind.MANUAL_APPROVAL_REQUIRED if action.reason == "cleared":
            return f"{live}/apply", one, ["operator"]
        case ActionKind.MANUAL_APPROVAL_REQUIRED:
            return f"{live}/approve", {**one, "reason": "tick: approval required"}, ["approver"]
        case ActionKind.AUTO_APPLY_LIVE:
            return f"{live}/auto-apply", one, []
        case _:
            assert_never(action.kind)


def _action(world_id: WorldId, action: Action) -> j.ActionJson:
    endpoint, body, requires = _act(world_id, action)
    who = action.strategy_id or "*"
    return {
        "action": action.kind,
        "reason": action.reason,
        "strategy_id": action.strategy_id,
        "stage": action.stage,
        "idempotency_key": f"{action.kind}:{world_id}:{who}:{action.stage}:{action.run_id}",
        "requires": requires,
        "suggested_run_id": action.run_id,
        "suggested_method": "POST",
        "suggested_endpoint": endpoint,
        "suggested_params": {},
        "suggested_body": body,
        "evidence": None if action.shown is None else _shown(action.shown),
    }


def tick(view: WorldView, page: Page, now: datetime) -> j.TickJson:
    """`generation` is the world's seq: it rises with whatever happens, in either stream."""
    return {
        "schema_version": 1,
        "world_id": view.world_id,
        "generation": view.seq,
        "generated_at": rfc3339(now),
        "actions": [_action(view.world_id, action) for action in page.actions],
        "next_cursor": None if page.next_offset is None else str(page.next_offset),
    }


# ---- Live promotion --------------------------------------------------------------------------


def plan(world_id: WorldId, found: Plan) -> j.PlanJson:
    blocked = found.blocked
    return {
        "world_id": world_id,
        "strategy_id": found.strategy_id,
        "run_id": None if found.candidate is None else found.candidate.run_id,
        "candidate_id": None if found.candidate is None else found.candidate.candidate_id,
        "eligible": blocked is None,
        "activate": list(found.activate),
        "deactivate": [],  # A promotion takes nobody out: without a free slot it is refused.
        "weights": {sid: weight for sid, weight in found.weights.items()},  # noqa: C416 -- typed str.
        "blocked_reasons": [] if blocked is None else list(blocked.reasons),
        "details": [] if blocked is None else list(blocked.details),
        "cooldown_remaining_sec": found.cooldown_remaining_sec,
    }


def _standing(candidate: Candidate) -> tuple[str, str | None]:
    match candidate.standing:
        case Proposed():
            return "proposed", None
        case Approved():
            return "approved", None
        case Rejected(by=by, reason=reason):
            return "rejected", f"by {by}: {reason}"
        case Applied():
            return "applied", None
        case Void(reason=why):
            return "void", why
        case other:
            assert_never(other)


def candidate(world_id: WorldId, known: Candidate) -> j.CandidateJson:
    standing, detail = _standing(known)
    return {
        "world_id": world_id,
        "candidate_id": known.candidate_id,
        "strategy_id": known.strategy_id,
        "run_id": known.run_id,
        "step": known.step,
        "standing": standing,
        "standing_detail": detail,
        "policy_version": known.policy_version,
        "fingerprint": known.fingerprint,
        "evidence_digest": known.evidence,
        "proposed_at": rfc3339(known.proposed_at),
        "proposer": known.proposer,
        "approvals": [
            {
                "by": approval.by,
                "at": rfc3339(approval.at),
                "run_id": approval.run_id,
                "evidence_digest": approval.evidence,
                "reason": approval.reason,
            }
            for approval in known.approvals
        ],
    }


def listed_candidate(world_id: WorldId, found: Listed) -> j.ListedCandidateJson:
    shown, lasts = plan(world_id, found.plan), found.approvals_expire

    def ends(given: datetime) -> datetime | None:
        return None if lasts is None else given + lasts

    return {
        **candidate(world_id, found.candidate),
        "approvals_needed": found.approvals_needed,
        "approvals_valid": len(found.approvals_valid),
        "approvals_missing": found.approvals_missing,
        "approved_by": [
            {
                "by": approval.by,
                "valid": approval in found.approvals_valid,
                "expires_at": at_or_none(ends(approval.at)),
            }
            for approval in found.candidate.approvals
        ],
        "may_not_approve": [{"by": by, "why": why} for by, why in sorted(found.barred.items())],
        "approver_roles": sorted(found.approver_roles),
        "eligible": shown["eligible"],
        "blocked_reasons": shown["blocked_reasons"],
        "details": shown["details"],
        "plan": shown,
    }


def standing(view: WorldView, strategy_id: StrategyId) -> j.StandingJson:
    row = view.strategy(strategy_id).row
    candidate_ = view.open_candidate(strategy_id)
    return {
        "world_id": view.world_id,
        "strategy_id": strategy_id,
        "phase": view.phase(row),
        "held": bool(view.standings.held[row]),
        "extension_sec": int(view.standings.extension_us[row]) / 1e6,
        "candidate": None if candidate_ is None else candidate(view.world_id, candidate_),
    }


def activation(view: WorldView, strategy_id: StrategyId) -> j.ActivationJson:
    """A live strategy's lease; of one that is not live, that it is not, as of now."""
    view.strategy(strategy_id)
    held = view.live.get(strategy_id)
    sequence = view.governance_generation if held is None else held.sequence
    return {
        "world_id": view.world_id,
        "strategy_id": strategy_id,
        "active": held is not None,
        "weight": 0.0 if held is None else held.weight,
        "applied_weight": 0.0 if held is None else held.applied_weight,
        "freeze": held is not None and held.freeze,
        "drain": held is not None and held.drain,
        "step": None if held is None else held.step,
        "candidate_id": None if held is None else held.candidate_id,
        "run_id": None if held is None else held.run_id,
        "sequence": sequence,
        "acknowledged": 0 if held is None else held.acknowledged,
        "taken_back": _taken_back(view.outstanding.get(strategy_id)),
        "etag": f"{strategy_id}:{sequence}",
        "ts": None if held is None else rfc3339(held.at),
    }


def _taken_back(lease: Outstanding | None) -> j.TakenBackJson | None:
    if lease is None:
        return None
    return {"weight": lease.weight, "until": rfc3339(lease.until)}


def auto_applied(view: WorldView, done: AutoApplied) -> j.AutoAppliedJson:
    return {
        "applied": [activation(view, each.strategy_id) for each in done.applied],
        "blocked": [
            {"strategy_id": sid, "reasons": list(why.reasons), "details": list(why.details)}
            for sid, why in done.blocked
        ],
    }


# ---- Decisions -------------------------------------------------------------------------------


def envelope(told: DecisionEnvelope, as_of: datetime | None = None) -> j.EnvelopeJson:
    """`as_of` is the caller's own: the instant of the data it decides on.  It changes nothing."""
    return {
        "world_id": told.world_id,
        "strategy_id": told.strategy_id,
        "policy_version": told.policy_version,
        "effective_mode": told.effective_mode,
        "execution_domain": told.execution_domain,
        "weight": told.weight,
        "ramp_fraction": told.ramp_fraction,
        "reason": told.reasons[0],
        "reasons": list(told.reasons),
        "generation": told.generation,
        "as_of": rfc3339(as_of or told.issued_at),
        "issued_at": rfc3339(told.issued_at),
        "expires_at": rfc3339(told.expires_at),
        "ttl": told.ttl.total_seconds(),
        "etag": told.etag,
        "downgraded": told.downgraded,
        "safe_mode": told.safe_mode,
    }


# ---- Explanations ----------------------------------------------------------------------------


def explanation(found: Explanation) -> j.ExplanationJson:
    return {
        "world_id": found.world_id,
        "strategy_id": found.strategy_id,
        "as_of": rfc3339(found.as_of),
        "phase": found.phase,
        "since": at_or_none(found.since),
        "sentences": list(found.sentences),
        "waits_for": [
            {
                "reason": wait.reason,
                "sentence": wait.sentence,
                "share": wait.share,
                "reached_at": at_or_none(wait.reached_at),
            }
            for wait in found.waits_for
        ],
        "would_stop": list(found.would_stop),
    }


def submitted(
    view: WorldView,
    ran: EvaluationRun,
    decision: DecisionEnvelope,
    explained: Explanation,
    warnings: Sequence[str],
) -> j.SubmittedJson:
    strategy = view.strategies[ran.strategy_id]
    return {
        "world_id": view.world_id,
        "strategy_id": strategy.strategy_id,
        "version": strategy.version,
        "previous": strategy.previous,
        "changed": list(changed(view, strategy)),
        "run_id": ran.run_id,
        "verdict": ran.verdict,
        "reasons": list(ran.reasons),
        "details": list(ran.details),
        "phase": view.phase(strategy.row),
        "decision": envelope(decision),
        "evaluation_run_url": run_url(view.world_id, ran),
        "warnings": list(warnings),
        "explanation": explanation(explained),
    }
