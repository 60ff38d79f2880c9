"""Facts, runs and views come back from bytes as they were, and the same bytes every time."""

import subprocess
import sys
import tracemalloc
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import get_args, get_type_hints

import numpy as np
import orjson
import pytest
from immutables import Map
from pydantic import TypeAdapter, ValidationError

from qmtl.adapters import codec
from qmtl.core import facts as f
from qmtl.core.facts import Fact
from qmtl.core.names import (
    ActorId,
    CandidateId,
    Phase,
    Reason,
    Role,
    RunId,
    Stage,
    StrategyId,
    Verdict,
    WorldId,
    WorldState,
)
from qmtl.core.policy import (
    Bound,
    Freeze,
    Gates,
    Governance,
    ManualApproval,
    Policy,
    Selection,
    TopK,
)
from qmtl.core.view import WorldView

from .histories import DIGEST, START, History, bound, evaluation, points, snapshot

A = StrategyId("a")
C = CandidateId("c")
R = RunId("r")
ODD = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
POLICY = Policy(
    gates=Gates(by_stage={Stage.PAPER: (Bound(metric="max_drawdown", max=0.2),)}),
    selection=Selection(top_k=TopK(metric="sharpe_annual", k=3)),
    governance=Governance(
        live_promotion=ManualApproval(roles=frozenset(Role), expires=timedelta(seconds=1.5)),
        freeze=(Freeze(cron="0 20 * * FRI", length=timedelta(hours=60)),),
    ),
)
SERIES = {A: ([1, 2**62], [0.1, -1e-300]), StrategyId("ü"): ([3], [float("1e308")])}

TOKEN = f.TokenCreated(
    token_sha256="ab",
    actor=ActorId("ann"),
    roles=(Role.OPERATOR, Role.READER),
    world_id=None,
    expires_at=ODD,
)
SAMPLES: list[Fact] = [
    f.WorldCreated(
        world_id=WorldId("w"),
        name="",
        description="“w”",
        labels={"b": "2", "a": "1"},
        allow_live=True,
    ),
    TOKEN,
    replace(TOKEN, sponsor=ActorId("adam"), replaces="cd", overlap_until=ODD),
    f.TokenRevoked(token_sha256="ab"),
    f.ProgramStarted(code=DIGEST),
    f.LiveAllowed(allowed=False),
    f.StateChanged(state=WorldState.SUSPENDED),
    f.PolicyAdded(version=1, checksum="c", policy=POLICY),
    f.PolicyAdded(version=2, checksum="c", policy=Policy(evidence=None)),
    f.DefaultPolicySet(version=2),
    f.ConfirmationRequested(confirmation_id="k", what="resume", policy_version=None),
    f.ConfirmationRequested(
        confirmation_id="ab", what="token", policy_version=None, sponsor=ActorId("adam")
    ),
    f.ConfirmationGiven(confirmation_id="k"),
    bound("a", None),
    replace(
        bound("a.2", "f2"), family=A, version=2, previous=A, parts={"engine": "b", "code": "a"}
    ),
    replace(
        snapshot("v", SERIES, ODD),
        covariance={"a,b": 0.5},
        stress={A: {"crash": 0.25}},
        stats={A: {"trades_total": 12.0}},
        extra={"ref": "s3://x", "deep": [1, 2.5, None, True, {"x": []}]},
    ),
    replace(
        snapshot("v", SERIES, ODD),
        stress={A: {"crash": 0.25}},
        removed=f.Removed(parts=("covariance", "stats"), at=ODD),
    ),
    f.RetentionApplied(stored_before=ODD, reduced=(f.Reduced(7, DIGEST, DIGEST),)),
    f.SeriesRestated(stage=Stage.LIVE, strategy_id=A, reason="vendor", points=points(SERIES)),
    f.EvaluationsRecorded(
        stage=Stage.PAPER,
        policy_version=1,
        runs=(evaluation(A), evaluation(StrategyId("b"), verdict=Verdict.FAIL, sharpe=None)),
        cohort=(A, StrategyId("b")),
        selected=(A,),
    ),
    f.PhaseEntered(strategy_id=A, phase=Phase.RETIRED, reason=Reason.CAMPAIGN_EXPIRED),
    f.CandidateProposed(
        candidate_id=C,
        strategy_id=A,
        fingerprint=None,
        policy_version=1,
        entered_at=ODD,
        step=0,
        run_id=R,
        evidence=DIGEST,
    ),
    f.ApprovalGiven(candidate_id=C, run_id=R, evidence=DIGEST, reason="good\n"),
    f.ApprovalGiven(candidate_id=C, run_id=R, evidence=DIGEST, reason="", sponsor=ActorId("adam")),
    f.ApprovalWithdrawn(candidate_id=C),
    f.CandidateRejected(candidate_id=C, reason=""),
    f.CandidateReleased(candidate_id=C, reason=""),
    f.CandidateVoided(candidate_id=C, reason=Reason.EVIDENCE_CHANGED),
    f.PromotionBlocked(
        strategy_id=A, candidate_id=None, reasons=(Reason.HELD,), details=("since noon",)
    ),
    f.PromotionApplied(
        candidate_id=C, strategy_id=A, run_id=R, evidence=DIGEST, snapshot_seq=7, step=1, weight=0.1
    ),
    f.Demoted(strategy_id=A, to=Phase.PAPER, reason=Reason.MANUAL, detail="", held=True),
    f.HoldReleased(strategy_id=A, reason=""),
    f.CampaignExtended(strategy_id=A, by_sec=86_400, reason=""),
    f.ActivationLowered(strategy_id=A, weight=0.0, freeze=True, drain=False),
    f.ActivationAcknowledged(strategy_id=A, sequence=3),
    f.Killed(reason="NaN"),
    f.Resumed(reason=""),
]


def named(fact: Fact) -> str:
    return fact.kind


def test_every_kind_of_fact_has_a_sample() -> None:
    assert {type(fact) for fact in SAMPLES} == set(get_args(Fact))


@pytest.mark.parametrize("fact", SAMPLES, ids=named)
def test_a_fact_comes_back_as_it_was(fact: Fact) -> None:
    body = codec.fact_to_bytes(fact)
    assert codec.fact_from_bytes(body) == fact
    assert codec.fact_to_json(fact) == orjson.loads(body)
    assert codec.fact_to_json(fact)["kind"] == fact.kind


@pytest.mark.parametrize("fact", SAMPLES, ids=named)
def test_keys_are_sorted_all_the_way_down(fact: Fact) -> None:
    body = codec.fact_to_bytes(fact)
    assert body == orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)


def test_the_same_fact_gives_the_same_bytes_in_every_process() -> None:
    """A frozenset's order changes with the seed of the hash, and with nothing that was said."""
    script = "from tests.adapters.test_codec import SAMPLES, codec\n"
    script += "print([codec.fact_to_bytes(fact) for fact in SAMPLES])"
    command = [sys.executable, "-c", script]
    outputs = {
        subprocess.run(
            command, env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(outputs) == 1


def test_what_it_looks_like() -> None:
    assert codec.fact_to_json(replace(TOKEN, expires_at=START)) == {
        "kind": "token_created",
        "token_sha256": "ab",
        "actor": "ann",
        "roles": ["operator", "reader"],
        "world_id": None,
        "expires_at": "2026-01-01T00:00:00Z",
        "sponsor": None,
        "replaces": None,
        "overlap_until": None,
    }
    added = next(fact for fact in SAMPLES if isinstance(fact, f.PolicyAdded))
    policy = codec.fact_to_json(added)["policy"]
    promotion = policy["governance"]["live_promotion"]  # type: ignore[index]  # It is JSON.
    assert promotion["expires"] == "P0DT1.500000S"
    assert promotion["roles"] == sorted(Role)
    stored = codec.fact_to_json(snapshot("v", {A: ([1], [1.0])}, ODD))
    assert stored["as_of"] == "2026-02-28T23:59:59.999999Z"
    assert stored["points"]["t"] == "AQAAAAAAAAA="  # type: ignore[index]  # It is JSON.


@pytest.mark.parametrize(
    "span",
    [
        timedelta(0),
        timedelta(microseconds=1),
        timedelta(days=730, hours=5, microseconds=999_999),
        timedelta(microseconds=-1),
        timedelta(days=-3, seconds=7),
    ],
)
def test_a_length_of_time_comes_back(span: timedelta) -> None:
    text = codec.iso8601(span)
    assert TypeAdapter(timedelta).validate_json(f'"{text}"') == span


def test_an_instant_elsewhere_is_the_same_instant() -> None:
    seoul = ODD.astimezone(timezone(timedelta(hours=9)))
    assert codec.fact_from_bytes(codec.fact_to_bytes(snapshot("v", SERIES, seoul))) == snapshot(
        "v", SERIES, ODD
    )


def test_numbers_of_numpy_are_numbers() -> None:
    lowered = f.ActivationLowered(
        strategy_id=A, weight=np.float64(0.25), freeze=bool(np.bool_(True)), drain=False
    )
    assert codec.fact_to_json(lowered)["weight"] == 0.25


UNSTORABLE = [
    ("NaN", f.ActivationLowered(strategy_id=A, weight=float("nan"), freeze=True, drain=True)),
    ("infinite", f.ActivationLowered(strategy_id=A, weight=float("inf"), freeze=True, drain=True)),
    (
        "NaN where nothing would be allowed",
        f.EvaluationsRecorded(
            stage=Stage.PAPER, policy_version=1, runs=(evaluation(A, sharpe=float("nan")),)
        ),
    ),
    ("NaN deep inside", replace(snapshot("v", SERIES), extra={"x": [float("nan")]})),
    ("a tuple that would come back a list", replace(snapshot("v", SERIES), extra={"x": (1, 2)})),
    ("a wrong type", f.Killed(reason=7)),  # type: ignore[arg-type]  # That is the test.
    ("an unknown word", f.StateChanged(state="asleep")),  # type: ignore[arg-type]  # As above.
]


@pytest.mark.parametrize(("why", "fact"), UNSTORABLE, ids=lambda case: case)
def test_what_would_not_come_back_is_not_stored(why: str, fact: Fact) -> None:
    with pytest.raises((AssertionError, ValidationError)):
        codec.fact_to_bytes(fact)


UNREADABLE = [
    ("no kind", b'{"reason":"x"}'),
    ("an unknown kind", b'{"kind":"exploded","reason":"x"}'),
    ("an unknown key", b'{"kind":"killed","reason":"x","force":true}'),
    ("a missing key", b'{"kind":"killed"}'),
    ("a number for text", b'{"kind":"killed","reason":1}'),
    ("text for a truth value", b'{"kind":"live_allowed","allowed":"true"}'),
    ("an unknown word", b'{"kind":"state_changed","state":"asleep"}'),
    ("not JSON", b"{"),
    ("nothing", b"null"),
]


@pytest.mark.parametrize(("why", "body"), UNREADABLE, ids=lambda case: str(case))
def test_what_is_not_a_fact_is_refused(why: str, body: bytes) -> None:
    with pytest.raises(ValidationError):
        codec.fact_from_bytes(body)


def test_a_fact_that_was_stored_before_it_had_more_to_say_is_read_as_it_was_meant() -> None:
    """A strategy bound before there were versions is the first of its own family."""
    body = (
        b'{"author":"ann","fingerprint":"f1","kind":"strategy_bound","name":"the a",'
        b'"strategy_id":"a","variants_tried":null}'
    )
    assert codec.fact_from_bytes(body) == bound("a", "f1")


def test_who_vouched_was_not_told_before_it_took_two() -> None:
    body = (
        b'{"actor":"ann","expires_at":null,"kind":"token_created","roles":["reader"],'
        b'"token_sha256":"ab","world_id":null}'
    )
    told = codec.fact_from_bytes(body)
    assert told == replace(TOKEN, roles=(Role.READER,), expires_at=None)
    approval = f.ApprovalGiven(candidate_id=C, run_id=R, evidence=DIGEST, reason="")
    known = orjson.loads(codec.fact_to_bytes(approval))
    del known["sponsor"]
    assert codec.fact_from_bytes(orjson.dumps(known)) == approval


def test_a_run_comes_back_as_it_was() -> None:
    run = evaluation(A, verdict=Verdict.INCONCLUSIVE, sharpe=None)
    assert codec.run_from_bytes(codec.run_to_bytes(run)) == run


@pytest.mark.parametrize("seed", range(5))
def test_the_sparse_part_of_a_view_comes_back(seed: int) -> None:
    history = History(Random(seed))
    history.commits(60)
    view = history.view
    sparse = codec.sparse_from_bytes(codec.sparse_to_bytes(view))
    dense = {name: getattr(view, name) for name in codec.DENSE}
    assert replace(WorldView(**sparse), **dense) == view
    assert all(isinstance(sparse[name], Map) for name in ("candidates", "runs", "live", "ids"))


def test_what_was_read_is_not_kept() -> None:
    """A cache of strings, as pydantic has by default, grows by every digest that is ever read."""

    def read(first: int) -> None:
        for number in range(first, first + 4_000):
            codec.fact_from_bytes(b'{"kind":"killed","reason":"%040d"}' % number)

    read(0)
    tracemalloc.start()
    try:
        read(4_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50_000, "less than a string each"


def test_every_set_in_a_fact_is_one_that_the_codec_sorts() -> None:
    """`sorted` takes words and numbers; a set of anything else would have to say its order."""
    seen: set[object] = set()

    def sets(hint: object) -> list[object]:
        found = [hint] if getattr(hint, "__origin__", None) in (set, frozenset) else []
        for part in get_args(hint):
            found += sets(part)
        if isinstance(hint, type) and is_dataclass(hint) and hint not in seen:
            seen.add(hint)
            hints = get_type_hints(hint)
            for field in fields(hint):
                found += sets(hints[field.name])
        return found

    assert sets(Fact) == [frozenset[Role]]
