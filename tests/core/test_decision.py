"""Envelopes: what the server decides in each phase and state, and what a client may make of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from immutables import Map

from qmtl.core.decision import (
    DECISION_TTL,
    SILENCE_LAGS_MAX,
    DecisionEnvelope,
    decide,
    floor,
    newer,
    permitted,
)
from qmtl.core.errors import UnknownStrategy
from qmtl.core.names import Mode, Phase, Reason, Stage, StrategyId, WorldId, WorldState
from qmtl.core.times import instant
from qmtl.core.view import WorldView
from tests.worlds import ALPHA, LATER, NOW, POLICY, climbing, ready

US = timedelta(microseconds=1)
PHASES = list(Phase)


def alpha(view: WorldView) -> DecisionEnvelope:
    return decide(view, ALPHA, NOW)


def activation(**changes: Any) -> WorldView:
    held = replace(climbing().live[ALPHA], **changes)
    return climbing(live=Map({ALPHA: held}))


def test_the_floor_is_of_whom_it_was_asked_for() -> None:
    told = floor(WorldId("w"), ALPHA, Reason.WORLDSERVICE_AWAY, NOW)
    assert (told.world_id, told.strategy_id) == ("w", ALPHA)
    assert (told.effective_mode, told.weight, told.ramp_fraction) == (Mode.COMPUTE_ONLY, 0.0, 0.0)
    assert (told.downgraded, told.safe_mode, told.expires_at) == (True, True, NOW + DECISION_TTL)


# ---- The server's half -------------------------------------------------------------------------

C, P, L = Mode.COMPUTE_ONLY, Mode.PAPER, Mode.LIVE
R = Reason
CASES: list[tuple[str, WorldView, Mode, float, tuple[str, ...]]] = [
    ("backtest", ready(standing={"phase": 0}), C, 0.0, (Phase.BACKTEST,)),
    ("paper", ready(), P, 0.0, (Phase.PAPER,)),
    ("paper, live not allowed", ready(allow_live=False), P, 0.0, (Phase.PAPER,)),
    ("paper, held", ready(standing={"held": True}), P, 0.0, (Phase.PAPER, R.HELD)),
    ("paper, killed", ready(killed=True), P, 0.0, (Phase.PAPER, R.WORLD_KILLED)),
    ("paper, suspended", ready(state=WorldState.SUSPENDED), C, 0.0, (R.WORLD_SUSPENDED,)),
    ("paper, archived", ready(state=WorldState.ARCHIVED), C, 0.0, (R.WORLD_SUSPENDED,)),
    ("retired", ready(standing={"phase": 3}), C, 0.0, (R.RETIRED,)),
    ("live", climbing(), L, 0.1, (Phase.LIVE,)),
    ("live, lowered", activation(weight=0.02), L, 0.02, (Phase.LIVE,)),
    ("live, draining", activation(drain=True), L, 0.0, (Phase.LIVE, R.DRAINING)),
    ("live, frozen", activation(freeze=True), C, 0.0, (R.FROZEN,)),
    ("live, frozen and draining", activation(freeze=True, drain=True), C, 0.0, (R.FROZEN,)),
    # What the fold never leaves behind, and what it would mean all the same (I1).
    ("live, not allowed", climbing(allow_live=False), C, 0.0, (R.LIVE_NOT_ALLOWED,)),
    ("live, killed", climbing(killed=True), C, 0.0, (R.WORLD_KILLED,)),
    ("live, suspended", climbing(state=WorldState.SUSPENDED), C, 0.0, (R.WORLD_SUSPENDED,)),
    ("live, not activated", climbing(live=Map()), C, 0.0, (R.DECISION_MISSING,)),
]


@pytest.mark.parametrize(
    ("what", "view", "mode", "weight", "reasons"), CASES, ids=[what for what, *_ in CASES]
)
def test_what_is_decided_in_each_phase_and_state(
    what: str, view: WorldView, mode: Mode, weight: float, reasons: tuple[str, ...]
) -> None:
    told = alpha(view)
    assert (told.effective_mode, told.weight, told.reasons) == (mode, weight, reasons), what
    assert (told.ramp_fraction > 0.0) == (mode is Mode.LIVE)
    assert not told.downgraded
    assert not told.safe_mode


def test_an_envelope_tells_its_term_and_its_world() -> None:
    told = decide(climbing(), ALPHA, LATER)
    assert (told.issued_at, told.expires_at, told.ttl) == (
        LATER,
        LATER + DECISION_TTL,
        DECISION_TTL,
    )
    assert (told.world_id, told.strategy_id, told.policy_version) == (WorldId("w"), ALPHA, 1)
    assert told.generation == climbing().governance_generation
    assert told.ramp_fraction == 0.25


def test_a_client_cut_off_goes_on_for_five_minutes() -> None:
    assert timedelta(seconds=300) == DECISION_TTL


def test_a_world_without_a_policy_decides_too() -> None:
    told = alpha(ready(default_version=None, standing={"phase": 0}))
    assert (told.effective_mode, told.policy_version) == (Mode.COMPUTE_ONLY, None)


def test_an_unknown_strategy_is_unknown() -> None:
    with pytest.raises(UnknownStrategy):
        decide(ready(), StrategyId("omega"), NOW)


def test_an_etag_names_the_decision_and_not_the_moment() -> None:
    told = alpha(climbing())
    assert told.etag == decide(climbing(), ALPHA, LATER).etag
    others = [
        alpha(activation(weight=0.02)),
        alpha(activation(drain=True)),
        alpha(ready()),
        alpha(climbing(governance_generation=99)),
        alpha(climbing(default_version=None)),
        replace(told, strategy_id=StrategyId("beta")),
        replace(told, world_id=WorldId("v")),
        replace(told, ramp_fraction=0.5),
    ]
    assert len({told.etag, *(other.etag for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(("mode", "domain"), [(C, "backtest"), (P, "dryrun"), (L, "live")], ids=str)
def test_the_execution_domain_is_the_modes_image(mode: Mode, domain: str) -> None:
    assert replace(alpha(ready()), effective_mode=mode).execution_domain == domain


# ---- The client's half -------------------------------------------------------------------------

LIVE = alpha(climbing())


@pytest.mark.parametrize(
    ("what", "envelope", "age", "mode"),
    [
        ("just asked", LIVE, timedelta(0), L),
        ("nearly too old", LIVE, DECISION_TTL - US, L),
        ("too old", LIVE, DECISION_TTL, C),
        ("long gone", LIVE, timedelta(days=9), C),
        ("asked for in the future", LIVE, -US, C),
        ("missing", None, timedelta(0), C),
        ("never valid", replace(LIVE, expires_at=LIVE.issued_at), timedelta(0), C),
        ("expires before it is issued", replace(LIVE, expires_at=LIVE.issued_at - US), -US, C),
        (
            "valid for longer than anything is",
            replace(LIVE, expires_at=LIVE.issued_at + DECISION_TTL + US),
            timedelta(0),
            C,
        ),
        ("shorter than most", replace(LIVE, expires_at=LIVE.issued_at + US), timedelta(0), L),
        ("shorter, and over", replace(LIVE, expires_at=LIVE.issued_at + US), US, C),
        ("paper", alpha(ready()), timedelta(0), P),
        ("compute-only", alpha(ready(standing={"phase": 0})), timedelta(0), C),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_in_doubt_compute_only(
    what: str, envelope: DecisionEnvelope | None, age: timedelta, mode: Mode
) -> None:
    """I4: a decision that is missing, expired, malformed or from the future is compute-only."""
    assert permitted(envelope, age) is mode, what


def test_an_older_decision_never_replaces_a_newer() -> None:
    """I4: nor does one older than one already seen."""
    old = replace(LIVE, generation=4)
    new = replace(LIVE, generation=5, effective_mode=Mode.PAPER)
    assert newer(new, old) is new
    assert newer(old, new) is new
    assert newer(None, old) is old
    again = replace(new, issued_at=LATER, expires_at=LATER + DECISION_TTL)
    assert newer(new, again) is again


def test_when_nobody_can_be_asked_it_is_the_floor() -> None:
    told = floor(WorldId("w"), ALPHA, Reason.WORLDSERVICE_AWAY, NOW)
    assert (told.effective_mode, told.weight) == (Mode.COMPUTE_ONLY, 0.0)
    assert (told.ramp_fraction, told.generation, told.reasons) == (0.0, 0, ("worldservice_away",))
    assert (told.issued_at, told.ttl) == (NOW, DECISION_TTL)
    assert told.downgraded
    assert told.safe_mode
    assert permitted(told, timedelta(0)) is Mode.COMPUTE_ONLY
    assert newer(LIVE, told) is LIVE  # It lowers nothing that was decided and still holds.


def test_a_live_strategy_that_nobody_hears_of_is_lowered_until_it_is_heard() -> None:
    lag = SILENCE_LAGS_MAX * POLICY.data.max_lag
    view = climbing()
    heard = instant(int(view.tracks[Stage.LIVE].last_t[0]))
    assert decide(view, ALPHA, heard + lag).effective_mode is Mode.LIVE
    told = decide(view, ALPHA, heard + lag + timedelta(microseconds=1))
    assert (told.effective_mode, told.weight) == (Mode.COMPUTE_ONLY, 0.0)
    assert told.reasons == (R.RISK_SNAPSHOT_STALE,)
    assert view.live, "silence demotes nobody"
