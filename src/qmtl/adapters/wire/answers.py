"""Core -> JSON: every answer of HTTP.md, in the shapes of `shapes.py`."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import orjson

from qmtl.adapters.codec import fact_to_json
from qmtl.adapters.wire.instants import rfc3339
from qmtl.app.evaluations import Evaluated
from qmtl.app.ports import ChainedEntry, StoredRun, StoredSnapshot
from qmtl.app.retention import Survey
from qmtl.core.confirmations import CONFIRM_WITHIN
from qmtl.core.evaluation_run import EvaluationRun, Metric
from qmtl.core.facts import Entry, SeriesRestated, stream_of
from qmtl.core.names import WorldId
from qmtl.core.retention import Old
from qmtl.core.times import instant, micros
from qmtl.core.view import (
    Confirmation,
    PolicyVersion,
    Strategy,
    Token,
    WorldRecord,
    WorldView,
)

from . import shapes as j


def at_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def run_url(world_id: WorldId, run: EvaluationRun) -> str:
    return f"/worlds/{world_id}/strategies/{run.strategy_id}/runs/{run.run_id}"


# ---- Worlds and policies ---------------------------------------------------------------------


def confirmation(asked: Confirmation) -> j.ConfirmationJson:
    return {
        "confirmation_id": asked.confirmation_id,
        "what": asked.what,
        "policy_version": asked.policy_version,
        "by": asked.by,
        "at": rfc3339(asked.at),
        "expires_at": rfc3339(asked.at + CONFIRM_WITHIN),
    }


def world(record: WorldRecord, view: WorldView) -> j.WorldJson:
    return {
        "id": record.world_id,
        "name": record.name,
        "description": record.description,
        "labels": dict(record.labels),
        "allow_live": view.allow_live,
        "state": view.state,
        "killed": view.killed,
        "default_policy_version": view.default_version,
        "strategies": len(view.strategies),
        "live": len(view.live),
        "generation": view.governance_generation,
        "confirmations": [confirmation(c) for _, c in sorted(view.confirmations.items())],
        "created_at": rfc3339(record.created_at),
        "created_by": record.created_by,
    }


def policy_item(view: WorldView, version: PolicyVersion) -> j.PolicyItemJson:
    return {
        "version": version.version,
        "checksum": version.checksum,
        "default": version.version == view.default_version,
        "created_at": rfc3339(version.at),
    }


def policy(
    view: WorldView, version: PolicyVersion, document: dict[str, object], warnings: Sequence[str]
) -> j.PolicyJson:
    return {**policy_item(view, version), "policy": document, "warnings": list(warnings)}


def strategy(view: WorldView, known: Strategy) -> j.StrategyJson:
    return {
        "world_id": view.world_id,
        "strategy_id": known.strategy_id,
        "name": known.name,
        "author": known.author,
        "fingerprint": known.fingerprint,
        "variants_tried": known.variants_tried,
        "bound_at": rfc3339(known.bound_at),
        "phase": view.phase(known.row),
        "held": bool(view.standings.held[known.row]),
        "family": known.family,
        "version": known.version,
        "previous": known.previous,
        "parts": dict(known.parts),
    }


# ---- Evaluation ------------------------------------------------------------------------------


def evaluated(world_id: WorldId, found: Evaluated) -> j.EvaluatedJson:
    run = found.run
    return {
        "run_id": run.run_id,
        "verdict": run.verdict,
        "reasons": list(run.reasons),
        "details": list(run.details),
        "active": [run.strategy_id] if found.active else [],
        "evaluation_run_id": run.run_id,
        "evaluation_run_url": run_url(world_id, run),
        "phase": found.phase,
    }


def cohort(world_id: WorldId, campaign_id: str, found: Sequence[Evaluated]) -> j.CohortJson:
    first = found[0].run
    return {
        "campaign_id": campaign_id,
        "stage": first.stage,
        "policy_version": first.policy_version,
        "active": [e.run.strategy_id for e in found if e.active],
        "results": [
            {**evaluated(world_id, each), "strategy_id": each.run.strategy_id} for each in found
        ],
    }


def metric(known: Metric) -> j.MetricJson:
    return {
        "value": known.value,
        "unit": known.unit,
        "source": known.source,
        "snapshot_version": known.snapshot_version,
        "undefined": known.undefined,
    }


def run(world_id: WorldId, stored: StoredRun) -> j.RunJson:
    found, url = stored.run, run_url(world_id, stored.run)
    return {
        "world_id": world_id,
        "strategy_id": found.strategy_id,
        "run_id": found.run_id,
        "stage": found.stage,
        "revision": found.revision,
        "verdict": found.verdict,
        "reasons": list(found.reasons),
        "details": list(found.details),
        "metrics": {name: metric(known) for name, known in found.metrics.items()},
        "gates": [
            {
                "metric": gate.metric,
                "min": gate.min,
                "max": gate.max,
                "value": gate.value,
                "verdict": gate.verdict,
                "detail": gate.detail,
            }
            for gate in found.gates
        ],
        "policy_version": found.policy_version,
        "snapshot_version": found.snapshot_version,
        "evidence_digest": found.evidence,
        "observations": found.observations,
        "observed_sec": found.observed_sec,
        "evaluated_at": rfc3339(stored.at),
        "evaluated_by": stored.actor,
        "seq": stored.seq,
        "links": {"self": url, "metrics": f"{url}/metrics", "history": f"{url}/history"},
    }


def run_metrics(world_id: WorldId, stored: StoredRun) -> j.RunMetricsJson:
    found = stored.run
    return {
        "world_id": world_id,
        "strategy_id": found.strategy_id,
        "run_id": found.run_id,
        "stage": found.stage,
        "revision": found.revision,
        "metrics": {name: metric(known) for name, known in found.metrics.items()},
    }


# ---- Hub, journal, tokens --------------------------------------------------------------------


def snapshot(world_id: WorldId, stored: StoredSnapshot) -> j.SnapshotJson:
    fact = stored.fact
    return {
        "world_id": world_id,
        "version": fact.version,
        "stage": fact.stage,
        "as_of": rfc3339(fact.as_of),
        "ttl_sec": fact.ttl_sec,
        "expires_at": rfc3339(instant(micros(fact.as_of) + fact.ttl_sec * 1_000_000)),
        "created_at": rfc3339(stored.created_at),
        "actor": stored.actor,
        "seq": stored.seq,
        "content": f"sha256:{fact.content}",
        "weights": {sid: weight for sid, weight in fact.weights.items()},  # noqa: C416 -- typed str.
        "strategies": list(fact.covered),
    }


def full_snapshot(world_id: WorldId, stored: StoredSnapshot) -> j.FullSnapshotJson:
    """All that was posted but the returns; those that are held: `expanded.py`."""
    fact = stored.fact
    extra = dict(fact.extra)
    refs = {n: extra.pop(f"{n}_ref", None) for n in ("covariance", "realized_returns", "stress")}
    constraints, provenance = extra.pop("constraints", None), extra.pop("provenance", None)
    return {
        **snapshot(world_id, stored),
        "covariance": _dict_or_none(fact.covariance),
        "covariance_ref": _text_or_none(refs["covariance"]),
        "realized_returns_ref": _text_or_none(refs["realized_returns"]),
        "stress": None if fact.stress is None else {s: dict(v) for s, v in fact.stress.items()},
        "stress_ref": _text_or_none(refs["stress"]),
        "stats": None if fact.stats is None else {s: dict(v) for s, v in fact.stats.items()},
        "replay": None if fact.replay is None else dict(fact.replay.items()),
        "constraints": constraints if isinstance(constraints, dict) else None,
        "provenance": provenance if isinstance(provenance, dict) else None,
        "extra": extra,
        "realized_returns": None,
    }


def _dict_or_none(known: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if known is None else dict(known)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def survey(world_id: WorldId, found: Survey) -> j.SurveyJson:
    return {
        "world_id": world_id,
        "stored_before": rfc3339(found.stored_before),
        "removable": [_old(each) for each in found.removable],
        "held": [_old(each) for each in found.held],
    }


def _old(found: Old) -> j.OldJson:
    return {
        "seq": found.seq,
        "version": found.version,
        "stage": found.stage,
        "stored_at": rfc3339(found.stored_at),
        "parts": list(found.parts),
        "held": list(found.held),
    }


def restated(world_id: WorldId, fact: SeriesRestated) -> j.RestatedJson:
    return {
        "world_id": world_id,
        "stage": fact.stage,
        "strategy_id": fact.strategy_id,
        "points": sum(fact.points.counts),
        "reason": fact.reason,
    }


def entry(written: Entry) -> j.HappenedJson:
    """As an event tells it: what it says now, without the chain."""
    return {
        "seq": written.seq,
        "generation": written.generation,
        "stream": stream_of(written.fact),
        "at": rfc3339(written.at),
        "actor": written.actor,
        "kind": written.fact.kind,
        "fact": fact_to_json(written.fact),
    }


def chained(written: ChainedEntry) -> j.EntryJson:
    """As the journal tells it.

    INVARIANT: sorted by keys and written by orjson, `fact` is the stored bytes again.
    """
    return {
        "seq": written.seq,
        "generation": written.generation,
        "stream": written.stream,
        "at": rfc3339(written.at),
        "actor": written.actor,
        "kind": written.kind,
        "fact": orjson.loads(written.body),
        "body_digest": written.body_digest,
        "previous": written.previous,
        "hash": written.hash,
    }


def token(known: Token, *, pending: bool) -> j.TokenJson:
    """`pending`: a second admin has yet to confirm it."""
    return {
        "token_id": known.token_sha256,
        "actor": known.actor,
        "roles": list(known.roles),
        "world_id": known.world_id,
        "expires_at": at_or_none(known.expires_at),
        "created_at": rfc3339(known.created_at),
        "created_by": known.created_by,
        "rotated_at": at_or_none(known.rotated_at),
        "replaced_until": at_or_none(known.replaced_until),
        "confirmed": not pending,
    }
