"""What of an old snapshot may go, and each thing that holds it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from qmtl.core import facts as f
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.fold import fold
from qmtl.core.names import ActorId, CandidateId, Digest, Reason, RunId, Stage, StrategyId
from qmtl.core.retention import PARTS, REASONS_MAX, parts_of, reduced, survey
from qmtl.core.view import WorldView, same_view
from tests.adapters.histories import DIGEST, WORLD, bound, evaluation, snapshot

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
BEFORE = START + 100 * DAY
A, B = StrategyId("a"), StrategyId("b")
CID, R = CandidateId("c1"), RunId("r1")
WHOLE = {
    "covariance": {"a,a": 0.01},
    "stress": {A: {"crash": 0.2, "gap": 0.1}},
    "stats": {A: {"trades_total": 5.0}},
    "extra": {"provenance": {"job": "nightly"}},
}


def whole(
    version: str, day: int, *sids: StrategyId, stage: Stage = Stage.PAPER
) -> f.SnapshotStored:
    at = START + day * DAY
    series = {sid: ([int(at.timestamp()) * 1_000_000], [0.01]) for sid in sids or (A,)}
    return replace(snapshot(version, series, at, stage), **WHOLE)  # type: ignore[arg-type]  # WHOLE names its fields.


def told(*facts: f.Fact) -> list[f.Entry]:
    """One a day."""
    return [
        f.Entry(seq=n, generation=n, at=START + n * DAY, actor=ActorId("pia"), fact=fact)
        for n, fact in enumerate(facts, 1)
    ]


def run(snapshot_version: str | None, metric_of: str | None = None) -> EvaluationRun:
    made = evaluation(A)
    metric = replace(made.metrics["sharpe_annual"], snapshot_version=metric_of)
    return replace(made, snapshot_version=snapshot_version, metrics={"m": metric})


def judged(*runs: EvaluationRun, cohort: Sequence[StrategyId] = ()) -> f.EvaluationsRecorded:
    return f.EvaluationsRecorded(
        stage=Stage.PAPER, policy_version=1, runs=runs, cohort=tuple(cohort)
    )


PROPOSED = f.CandidateProposed(
    candidate_id=CID,
    strategy_id=A,
    fingerprint="f1",
    policy_version=1,
    entered_at=START,
    step=0,
    run_id=R,
    evidence=DIGEST,
)
APPROVED = f.ApprovalGiven(candidate_id=CID, run_id=R, evidence=DIGEST, reason="good")
APPLIED = f.PromotionApplied(
    candidate_id=CID,
    strategy_id=A,
    run_id=R,
    evidence=DIGEST,
    snapshot_seq=1,
    step=0,
    weight=0.1,
)
BLOCKED = f.PromotionBlocked(
    strategy_id=A, candidate_id=None, reasons=(Reason.FROZEN,), details=("frozen",)
)
NEWER = whole("v9", 50)  # So that the first is not held as the newest.

# What comes after the snapshot of entry 1; what of it is a reason, in words.
HOLDS = [
    ("judged when it was the newest", (judged(run(None)), NEWER), "run r1 of a"),
    ("a run that names it", (NEWER, judged(run("v1"))), "run r1 of a"),
    ("a metric of an earlier run", (NEWER, judged(run(None, "v1"))), "run r1 of a"),
    ("a selection", (judged(cohort=[A]), NEWER), "the selection of entry 2"),
    ("a candidate", (judged(run("v1")), PROPOSED, NEWER), "candidate c1 of a"),
    ("an approval", (judged(run("v1")), PROPOSED, APPROVED, NEWER), "pia approved a"),
    ("what went live on it", (NEWER, APPLIED), "a went live on it (entry 3)"),
    ("newest when it went live", (replace(APPLIED, snapshot_seq=9), NEWER), "a went live on it"),
    ("a refusal", (BLOCKED, NEWER), "a was refused live on it (entry 2)"),
    ("it is the newest", (), "it is the newest paper snapshot of a"),
    ("the newest of another", (whole("v9", 50, B),), "it is the newest paper snapshot of a"),
    ("a newer one is of another stage", (whole("v9", 50, stage=Stage.LIVE),), "the newest paper"),
    ("a later one is older", (whole("v9", -1),), "it is the newest paper snapshot of a"),
]


@pytest.mark.parametrize(("name", "after", "why"), HOLDS, ids=[case[0] for case in HOLDS])
def test_what_holds_a_snapshot(name: str, after: tuple[f.Fact, ...], why: str) -> None:
    first = survey(told(whole("v1", 1), *after), BEFORE)[0]
    assert (first.seq, first.version, first.parts) == (1, "v1", PARTS)
    assert any(why in reason for reason in first.held), first.held


LOOSE = [
    ("a newer one of the same", (NEWER,)),
    ("judged by a newer one", (NEWER, judged(run("v9")))),
    ("gone live on a newer one", (NEWER, replace(APPLIED, snapshot_seq=2))),
    ("refused on a newer one", (NEWER, BLOCKED)),
    (
        "its series was restated",
        (f.SeriesRestated(stage=Stage.PAPER, strategy_id=A, reason="x", points=f.Points()),),
    ),
]


@pytest.mark.parametrize(("name", "after"), LOOSE, ids=[case[0] for case in LOOSE])
def test_what_does_not_hold_a_snapshot(name: str, after: tuple[f.Fact, ...]) -> None:
    assert survey(told(whole("v1", 1), *after), BEFORE)[0].held == ()


def test_only_what_is_old_and_has_something_to_remove_is_looked_at() -> None:
    bare = snapshot("bare", {A: ([], [])})
    gone = reduced(whole("gone", 1), START)
    one = replace(bare, version="one", stress={A: {"crash": 0.2}})
    entries = told(bare, gone, one, whole("old", 4), whole("young", 5))
    assert [each.version for each in survey(entries, entries[4].at)] == ["old"]


def test_reasons_are_few() -> None:
    runs = [replace(run("v1"), run_id=RunId(f"r{n}")) for n in range(REASONS_MAX + 2)]
    held = survey(told(whole("v1", 1), judged(*runs), NEWER), BEFORE)[0].held
    assert len(held) == REASONS_MAX + 1
    assert held[-1] == "and 2 more reasons"


def test_what_is_left_is_all_that_a_view_is_folded_from() -> None:
    fact = whole("v1", 1, A, B)
    left = reduced(fact, BEFORE)
    assert parts_of(fact) == PARTS
    assert parts_of(left) == ()
    assert left.removed == f.Removed(parts=PARTS, at=BEFORE)
    assert (left.covariance, left.stats, left.extra) == (None, None, {})
    assert left.stress == {A: {"crash": 0.2}}
    assert (left.points, left.weights, left.content) == (fact.points, fact.weights, fact.content)
    begin = [bound("a"), bound("b")]
    views = [fold(WorldView(world_id=WORLD), told(*begin, each)) for each in (fact, left)]
    assert same_view(*views)
    digest = Digest("0" * 64)
    applied = f.RetentionApplied(stored_before=BEFORE, reduced=(f.Reduced(3, digest, digest),))
    after = fold(views[1], told(*begin, left, applied)[3:])
    assert same_view(replace(views[1], seq=4, evidence_generation=4), after)
